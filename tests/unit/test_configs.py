"""Every YAML file under configs/ parses and builds, found by globbing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pipeline.runs import export
from pipeline.runs.load import build_model, with_facts
from pipeline.runs.resume import kept_config
from pipeline.training.config import parse_config

ROOT = Path(__file__).parents[2] / "configs"
FOR_OTHERS = [
    ROOT / name for name in ("cluster", "published", "tournament")
]  # configs of other verbs, tested with them
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("**/*.yaml") if path.parent not in FOR_OTHERS)
EXPERIMENTS = [name for name in FILES if "class_path" in yaml.safe_load((ROOT / name).read_text()).get("model", {})]
OVERLAYS = [name for name in FILES if name not in EXPERIMENTS]


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import data_prep.text.command

    folder = tmp_path_factory.mktemp("configs")
    (folder / "a.txt").write_text("\n\n".join(f"paragraph {i} of the text" * 30 for i in range(300)))
    arguments = [str(folder / "a.txt"), "--documents", "paragraph", "--tokenizer", "byte", "--workers", "1"]
    assert data_prep.text.command.main([*arguments, "--output", str(folder / "data")]) == 0
    return folder / "data"


def read(name: str) -> dict[str, dict[str, Any]]:
    """Return the content of a config."""
    return dict(yaml.safe_load((ROOT / name).read_text()))


@pytest.fixture
def dataset_for(
    dataset: Path,
    tiny_pairs_dataset: Path,
    tiny_audio_dataset: Path,
    tiny_labels_dataset: Path,
    tiny_series_dataset: Path,
    tiny_captions_dataset: Path,
    tiny_recall_dataset: Path,
    tiny_pixels_dataset: Path,
    tiny_trajectories_dataset: Path,
    tiny_music_dataset: Path,
) -> Callable[[str], Path]:
    """Return a function from the name of an experiment to a dataset of the kind that it requires."""
    kinds = {"TextDataModule": dataset, "PairsDataModule": tiny_pairs_dataset, "AudioDataModule": tiny_audio_dataset}
    kinds["SeriesDataModule"] = tiny_series_dataset
    kinds["ImageCaptionDataModule"] = tiny_captions_dataset
    kinds["RecallDataModule"] = tiny_recall_dataset
    kinds |= dict.fromkeys(("PixelDataModule", "PixelLabelDataModule"), tiny_pixels_dataset)
    kinds["TrajectoriesDataModule"] = tiny_trajectories_dataset
    kinds["MusicDataModule"] = tiny_music_dataset

    def matching(name: str) -> Path:
        config = read(name)
        if any(each in config["model"]["class_path"] for each in (".keyword_spotters.", ".wave_model.")):
            return tiny_labels_dataset
        return kinds[config["data"]["class_path"].rsplit(".", 1)[1]]

    return matching


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_builds_and_declares_its_vocabulary_rows(name: str, dataset_for: Callable[[str], Path]) -> None:
    """Rows per token or label are the parameters that grow with the vocabulary."""
    cli = parse_config(["--config", str(ROOT / name), "--data.init_args.dataset", str(dataset_for(name))])
    model, data, _ = cli.build()
    learned = {name: size for name, size in data.facts.known().items() if hasattr(model, name)}
    assert learned
    assert {name: getattr(model, name) for name in learned} == learned
    assert sum(parameter.numel() for parameter in model.parameters()) > 0
    config, known = kept_config(cli)["model"], data.facts.known()
    shapes = {name: each.shape for name, each in model.named_parameters(remove_duplicate=False)}
    found = set()
    for fact in {"vocab_size", "source_vocab_size", "classes"} & known.keys():
        with torch.device("meta"):
            grown = build_model(with_facts(config, replace(data.facts, **{fact: known[fact] + 1})))
        found |= {
            name for name, each in grown.named_parameters(remove_duplicate=False) if each.shape != shapes.get(name)
        }
    assert model.vocabulary_rows().keys() & shapes.keys() == found & shapes.keys()


@pytest.mark.parametrize("name", [name for name in FILES if "model" in read(name)])
def test_an_exported_model_can_be_loaded(name: str) -> None:
    export._refuse_foreign(read(name)["model"], ROOT / name)


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_fits_an_experiment(name: str, dataset_for: Callable[[str], Path]) -> None:
    given = read(name)
    data = given.get("data", {}).get("init_args", {})
    fitting = {"image_size": "captions/show_attend_tell.yaml", "global_batch_tokens": "pairs/attention.yaml"}
    fitting["horizon"] = "series/lstm.yaml"
    experiment = next((name for key, name in fitting.items() if key in data), "text/lstm.yaml")
    configs = ["--config", str(ROOT / experiment), "--config", str(ROOT / name)]
    cli = parse_config([*configs, "--data.init_args.dataset", str(dataset_for(experiment))])
    resolved = yaml.safe_load(cli.parser.dump(cli.config, skip_none=False))
    for key, value in given.get("trainer", {}).items():
        assert_within(value, resolved["trainer"][key])


def assert_within(given: object, resolved: object) -> None:
    """Assert that the resolved config contains the given one, beside the defaults of the classes it names."""
    if not isinstance(given, dict):
        assert resolved == given
        return
    assert isinstance(resolved, dict)
    for key, value in given.items():
        assert_within(value, resolved[key])
