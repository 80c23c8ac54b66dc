"""The verbs on checkpoints of a trained run: verify, compare, export, convert."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from pipeline.cli import main
from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.models.gru import GRULanguageModel
from pipeline.models.lstm import LSTMLanguageModel
from pipeline.runs.export import load_export
from pipeline.runs.load import load_model
from pipeline.tasks.language_model import LanguageModel
from tests.distributed.fixture_types import Fit


class Malice:
    """A pickle that creates the file `executed` when it is loaded."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch executed",)


@pytest.fixture(scope="module")
def trained(fit_in: Callable[[Path], Fit], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a directory with the runs `a` (14 steps) and `averaged` (8 steps)."""
    home = tmp_path_factory.mktemp("trained")
    fit = fit_in(home)
    average = '[{"class_path": "pipeline.callbacks.averaging.ExponentialAverage"}]'
    assert fit("a") == 0
    assert fit("averaged", "trainer.max_steps", 8, "trainer.callbacks", average) == 0
    return home


@pytest.fixture
def home(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the runs to the working directory."""
    shutil.copytree(trained, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def newest(run: str = "a") -> Path:
    return checkpoint.newest_first(Path("runs") / run / "checkpoints")[0]


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def tokens() -> torch.Tensor:
    return torch.arange(20).reshape(2, 10)


def test_every_checkpoint_of_a_run_is_verified(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "verify", "a"]) == 0
    printed = capsys.readouterr().out
    assert printed.count(": intact, step ") == len(checkpoint.newest_first(home / "runs/a/checkpoints")) >= 2
    damaged = newest() / checkpoint.STATE
    flip(damaged)
    assert main(["checkpoint", "verify", "a"]) == 4
    printed = capsys.readouterr().out
    assert f"DAMAGED: {damaged.relative_to(home) if damaged.is_absolute() else damaged}" in printed
    assert printed.count("DAMAGED") == 1
    assert main(["checkpoint", "verify", str(newest()), "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["checkpoint"] == str(newest())


def test_a_missing_run_is_reported(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (["verify"], ["diff", "a"], ["export", "--output", "out"], ["convert", "--output", "out.ckpt"]):
        assert main(["checkpoint", *verb, "nobody"]) == 4
        assert "no run 'nobody'; runs here: a, averaged" in capsys.readouterr().err


def test_a_run_equals_itself_and_differs_from_another(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "diff", "a", str(newest())]) == 0
    assert " 0 different" in capsys.readouterr().out
    assert main(["checkpoint", "diff", "a", "averaged"]) == 1
    printed = capsys.readouterr().out
    assert "14 and 8" in printed
    assert "averaged/embedding.weight" in printed
    assert main(["checkpoint", "diff", "a", "averaged", "--json"]) == 1
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["global_step"] == {
        "name": "global_step", "is_tensor": False, "what": "14 and 8",
        "absolute": 6.0, "relative": pytest.approx(6 / 14), "equal": False,
    }  # fmt: skip
    one, two = (checkpoint.read_state(newest(run))["state_dict"]["output.bias"] for run in ("a", "averaged"))
    assert rows["state_dict/output.bias"]["absolute"] == pytest.approx(float((one - two).abs().max()))
    flip(newest() / checkpoint.STATE)
    assert main(["checkpoint", "diff", str(newest()), "averaged"]) == 4


def test_an_exported_model_predicts_what_the_run_predicts(home: Path) -> None:
    assert main(["checkpoint", "export", "a", "--output", "out"]) == 0
    model = LanguageModel.from_pretrained("out")
    assert isinstance(model, LSTMLanguageModel)
    assert not model.training
    assert torch.equal(model(tokens())[0], load_model(home / "runs/a")(tokens())[0])
    assert torch.equal(model(tokens())[0], LanguageModel.from_pretrained("a")(tokens())[0])
    assert model.output.weight is model.embedding.weight
    assert {path.name for path in Path("out").iterdir()} == {
        "model.safetensors", "config.yaml", "tokenizer.json", "README.md"
    }  # fmt: skip


def test_the_selected_checkpoint_is_exported(home: Path) -> None:
    older = checkpoint.newest_first(home / "runs/a/checkpoints")[1]
    assert main(["checkpoint", "export", str(older), "--output", "older"]) == 0
    assert main(["checkpoint", "export", "a", "--which", "last", "--output", "last"]) == 0
    for name, place in (("older", older), ("last", newest())):
        weights = checkpoint.read_state(place)["state_dict"]
        for key, value in load_export(Path(name)).state_dict().items():
            assert torch.equal(value, weights[key])


def test_averaged_weights_are_exported_where_there_are_some(home: Path) -> None:
    assert main(["checkpoint", "export", "averaged", "--output", "out"]) == 0
    average = checkpoint.read_state(newest("averaged"))["averaged"]
    for key, value in LanguageModel.from_pretrained("out").named_parameters():
        assert torch.equal(value, average[key])
    assert "averaged over steps" in Path("out/README.md").read_text()


def test_the_card_describes_the_model(home: Path) -> None:
    main(["checkpoint", "export", "a", "--output", "out"])
    card, record = Path("out/README.md").read_text(), json.loads(Path("runs/a/run.json").read_text())
    metrics = checkpoint.verify_checkpoint(newest())["metrics"]
    expected = ["LSTMLanguageModel", f"{record['parameters']:,}", record["dataset"]["checksum"], "run a, step 14"]
    assert [text for text in [*expected, f"| val/loss | {metrics['val/loss']:.4f} |"] if text not in card] == []


def test_an_exported_model_writes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["checkpoint", "export", "a", "--output", "out"])
    capsys.readouterr()
    options = ["--prompt", "3 bottles", "--tokens", "20", "--seed", "5"]
    written = []
    for name in ("out", "a"):
        assert main(["generate", name, *options]) == 0
        written.append(capsys.readouterr().out)
    assert written[0] == written[1]
    assert written[0].startswith("3 bottles")
    assert main(["generate", "out", "--checkpoint", "last", *options]) == 2


def test_nothing_is_written_over(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out.ckpt").write_text("mine")
    assert main(["checkpoint", "export", "a", "--output", "out"]) == 2
    assert main(["checkpoint", "convert", "a", "--output", "out.ckpt"]) == 2
    assert "out.ckpt exists" in capsys.readouterr().err
    assert main(["checkpoint", "convert", "a", "--output", "out.zip"]) == 2
    assert Path("out.ckpt").read_text() == "mine"
    assert list(Path("out").iterdir()) == []


def test_a_task_of_another_kind_is_refused(home: Path) -> None:
    main(["checkpoint", "export", "a", "--output", "out"])
    with pytest.raises(checkpoint.CheckpointError, match="expected a GRULanguageModel, got a LSTMLanguageModel"):
        GRULanguageModel.from_pretrained("out")


def test_one_file_holds_what_the_checkpoint_holds(home: Path) -> None:
    from pipeline.distributed.checkpoint.diff import compare

    assert main(["checkpoint", "convert", "a", "--output", "a.ckpt"]) == 0
    whole = torch.load("a.ckpt", weights_only=True)
    assert whole.pop("model_config")["class_path"].startswith("pipeline.models.")
    assert all(row.equal for row in compare(whole, checkpoint.read_state(newest())))
    assert main(["checkpoint", "convert", "a", "--output", "a.safetensors"]) == 0
    weights = load_file("a.safetensors")
    assert whole["state_dict"].keys() - weights.keys() == {"output.weight"}  # the same tensor as embedding.weight
    for name, tensor in weights.items():
        assert torch.equal(tensor, whole["state_dict"][name])


@pytest.mark.parametrize("verb", ["verify", "diff", "export", "convert", "generate"])
def test_a_checkpoint_that_would_execute_code_is_refused(
    home: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = newest()
    torch.save({"state_dict": Malice()}, place / checkpoint.STATE)
    manifest = json.loads((place / checkpoint.MANIFEST).read_text())
    described = checkpoint._describe(place / checkpoint.STATE)
    manifest["files"][checkpoint.STATE] = described  # an attacker can compute the hash
    del manifest[checkpoint.OWN]  # and early manifests have no hash of their own
    (place / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    options = {
        "diff": ["averaged"],
        "export": ["--which", "last", "--output", "out"],
        "convert": ["--output", "out.ckpt"],
        "generate": ["--checkpoint", "last"],
    }
    command = ["generate"] if verb == "generate" else ["checkpoint", verb]
    assert main([*command, "a", *options.get(verb, [])]) == 4
    printed = capsys.readouterr()
    assert "state.pt cannot be read" in printed.err + printed.out
    assert not Path("executed").exists()
    assert not Path("out").exists()


def test_the_exploit_of_these_tests_is_a_real_one(home: Path) -> None:
    torch.save(Malice(), "evil.pt")
    torch.load("evil.pt", weights_only=False)
    assert Path("executed").exists()


def test_an_exported_model_that_would_execute_code_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["checkpoint", "export", "a", "--output", "out"])
    torch.save(Malice(), "out/model.safetensors")
    assert main(["generate", "out"]) == 4
    assert "model.safetensors cannot be read" in capsys.readouterr().err
    os.rename("out/model.safetensors", "out/pytorch_model.bin")
    assert main(["generate", "out"]) == 4
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("network", {"class_path": "evil.Network"}),
        ("optimizer", {"class_path": "evil.optimizer"}),
        ("optimizer", "os.system"),
        ("optimizer", "torch.optim.optimizer.os.system"),
        ("head", {"class_path": "pipeline.tasks.language_model.functional.os.system"}),
        ("schedule", "evil"),
        ("head", "./evil.yaml"),
    ],
)
def test_a_config_that_names_foreign_code_is_refused(
    home: Path, key: str, value: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["checkpoint", "export", "a", "--output", "out"])
    Path("evil.py").write_text("open('executed', 'w')\n")
    Path("evil").write_text("class_path: evil.Schedule\n")
    monkeypatch.syspath_prepend(str(home))
    config = yaml.safe_load(Path("out/config.yaml").read_text())
    config["model"]["init_args"][key] = value
    if key == "network":
        task = "pipeline.tasks.language_model.LanguageModel"
        config["model"] = {"class_path": task, "init_args": {key: value, "vocab_size": 32}}
    Path("out/config.yaml").write_text(yaml.safe_dump(config))
    assert main(["generate", "out"]) == 4
    assert "config.yaml names" in capsys.readouterr().err
    assert not Path("executed").exists()


def test_a_network_that_the_caller_imported_is_loaded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    main(["checkpoint", "export", "a", "--output", "out"])
    code = "from pipeline.models.lstm import LSTMLanguageModel\nclass Mine(LSTMLanguageModel): ...\n"
    Path("mine.py").write_text(code)
    monkeypatch.syspath_prepend(str(home))
    config = yaml.safe_load(Path("out/config.yaml").read_text())
    config["model"]["class_path"] = "mine.Mine"
    Path("out/config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(checkpoint.CheckpointError, match=r"names mine\.Mine"):
        LanguageModel.from_pretrained("out")
    importlib.import_module("mine")
    assert type(LanguageModel.from_pretrained("out")).__name__ == "Mine"
