"""A tournament checks its file, skips finished runs, resumes interrupted ones, and compares all."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import cli
from pipeline.commands import planned_runs
from pipeline.commands.budgets import words
from pipeline.commands.compare import command as compare
from pipeline.commands.tournament import command as tournament
from pipeline.commands.tournament.entrants import entrants_of, read_tournament
from pipeline.distributed import signals
from pipeline.errors import ConfigError
from pipeline.models.lstm import LSTM
from pipeline.runs import resume
from pipeline.runs.run import Run
from pipeline.training.config import parse_config, run_directory

REPOSITORY = Path(__file__).parents[4]
SHIPPED = sorted((REPOSITORY / "configs" / "tournament").glob("*.yaml"))
MODELS = {"lstm": "pipeline.models.lstm.LSTMLanguageModel", "rnn": "pipeline.models.rnn.RNNLanguageModel"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_text_dataset: Path) -> Path:
    """A working directory with two small experiments and a tournament of them, two seeds each."""
    monkeypatch.chdir(tmp_path)
    for name, model in MODELS.items():
        settings = {"dataset": str(tiny_text_dataset), "context": 10, "global_batch_size": 4, "order": "contiguous"}
        data = {"class_path": "pipeline.data.text.TextDataModule", "init_args": settings}
        optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.003}}
        made = {"class_path": model, "init_args": {"width": 8, "depth": 1, "optimizer": optimizer}}
        Path(f"{name}.yaml").write_text(yaml.safe_dump({"model": made, "data": data, "trainer": {"max_epochs": 3}}))
    Path("cpu.yaml").write_text("trainer: {accelerator: cpu, devices: 1}\n")
    write()
    return tmp_path


def write(**changes: Any) -> Path:
    """Write the tournament's file, without keys that are None."""
    known = {
        "entrants": {name: f"{name}.yaml" for name in MODELS},
        "overlays": ["cpu.yaml"],
        "budget": {"tokens": 170},
        "seeds": [1, 2],
    }
    file = Path("small.yaml")
    file.write_text(yaml.safe_dump({key: value for key, value in (known | changes).items() if value is not None}))
    return file


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the started runs; stubs replace training and comparison."""
    names: list[str] = []

    def finish(arguments: list[str]) -> int:
        parsed = parse_config(arguments[1:])
        run = Run(run_directory(parsed.config))
        names.append(run.name)
        run.create(linked={}, dataset={})
        run.begin_attempt(1, 0)
        run.end_attempt("finished", 0)
        (run.path / "config.yaml").write_text(yaml.safe_dump(resume.kept_config(parsed)))
        return 0

    monkeypatch.setattr(planned_runs, "run_unroll", finish)
    monkeypatch.setattr(compare, "main", lambda runs: names.append("compared") or 0)
    monkeypatch.setattr(signals, "install", lambda: None)
    return names


def test_a_budget_of_tokens_overrides_the_steps_of_the_config() -> None:
    [lstm, rnn] = entrants_of(read_tournament(write(budget={"tokens": 170})))
    assert (lstm.steps, rnn.steps) == (4, 4)  # 40 tokens per step
    config = parse_config(["--config", *lstm.arguments]).config.trainer
    assert (config.max_steps, config.max_epochs, config.max_time) == (4, -1, None)


def test_a_budget_of_flops_gives_the_cheaper_entrant_more_steps() -> None:
    entrants = entrants_of(read_tournament(write(budget={"flops": 10_000_000})))
    assert [each.steps for each in entrants] == [int(10_000_000 / each.flops_per_token) // 40 for each in entrants]
    assert (entrants[0].steps or 0) < (entrants[1].steps or 0)


def test_widths_are_matched_to_within_the_tolerance() -> None:
    entrants = entrants_of(read_tournament(write(parameters=12_000, tolerance=0.05)))
    for each in entrants:
        assert abs(each.parameters - 12_000) < 0.05 * 12_000
        assert parse_config(["--config", *each.arguments]).config.model.init_args.width == each.width
    assert (entrants[0].width or 0) < (entrants[1].width or 0)


class Fixed(LSTM):
    """A network without a width in its config."""

    def __init__(self) -> None:
        super().__init__(width=8, depth=1)


def test_the_width_of_a_network_that_a_task_names_is_matched_too() -> None:
    config = yaml.safe_load(Path("lstm.yaml").read_text())
    network = {"class_path": "pipeline.models.lstm.LSTM", "init_args": {"width": 8, "depth": 1}}
    config["model"] = {"class_path": "pipeline.tasks.language_model.LanguageModel", "init_args": {"network": network}}
    Path("nested.yaml").write_text(yaml.safe_dump(config))
    entrants = {"lstm": "lstm.yaml", "nested": "nested.yaml"}
    flat, nested = entrants_of(read_tournament(write(entrants=entrants, parameters=12_000, tolerance=0.05)))
    assert (nested.width, nested.parameters) == (flat.width, flat.parameters)
    assert parse_config(["--config", *nested.arguments]).config.model.init_args.network.init_args.width == nested.width
    config["model"]["init_args"]["network"] = {"class_path": f"{__name__}.Fixed"}
    Path("nested.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match=r"the config has neither model\.init_args\.width nor .*network.* to adapt"):
        entrants_of(read_tournament(write(entrants=entrants, parameters=12_000)))


def test_runs_are_ordered_by_seed_and_finished_ones_are_skipped(started: list[str]) -> None:
    assert tournament.main(["small.yaml"]) == 0
    assert started == ["lstm-1", "rnn-1", "lstm-2", "rnn-2", "compared"]
    assert json.loads(Path("runs/small/rnn-2/entrant.json").read_text())["entrant"] == "rnn"
    started.clear()
    write(seeds=[1, 2, 3])
    assert tournament.main(["small.yaml"]) == 0
    assert started == ["lstm-3", "rnn-3", "compared"]


def test_a_raised_budget_trains_further(started: list[str]) -> None:
    write(seeds=[1])
    assert tournament.main(["small.yaml"]) == 0
    started.clear()
    write(seeds=[1], budget={"tokens": 400})
    assert tournament.main(["small.yaml"]) == 0
    assert started == ["lstm-1", "rnn-1", "compared"]


def test_a_failed_run_does_not_stop_the_others(started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    finish: Callable[[list[str]], int] = planned_runs.run_unroll
    monkeypatch.setattr(planned_runs, "run_unroll", lambda words: 6 if "runs/small/lstm-1" in words else finish(words))
    write(seeds=[1])
    assert tournament.main(["small.yaml"]) == 6
    assert started == ["rnn-1", "compared"]


def test_a_run_that_was_stopped_stops_the_tournament(started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planned_runs, "run_unroll", lambda words: 75)
    assert tournament.main(["small.yaml"]) == 75
    assert started == []


def test_a_run_of_that_name_with_another_config_is_refused(started: list[str]) -> None:
    write(seeds=[1])
    assert tournament.main(["small.yaml"]) == 0
    announced = Path("runs/small/lstm-1/entrant.json").read_text()
    write(settings={"model.init_args.width": 9})
    with pytest.raises(
        ConfigError, match=r"lstm-1 exists with another config.*width=9, previously 8.*Move runs/small away"
    ):
        tournament.main(["small.yaml"])
    assert Path("runs/small/lstm-1/entrant.json").read_text() == announced


def test_a_run_that_another_process_trains_is_waited_for(
    started: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [lstm, _] = entrants_of(read_tournament(write()))
    match = tournament.Match("small", lstm, 1)
    monkeypatch.setattr(signals, "requested", iter([None, None, None, signal.SIGTERM]).__next__)
    monkeypatch.setattr("pipeline.runs.run.locked", lambda held: False)
    assert not planned_runs.wait_for(match.run)
    assert capsys.readouterr().out.count("waiting") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entrant": {}}, "unknown key 'entrant'; did you mean entrants"),
        ({"entrants": None}, "entrants is required"),
        ({"budget": None}, "budget is required"),
        ({"entrants": ["lstm.yaml"]}, "entrants: expected names"),
        ({"entrants": {"a/b": "lstm.yaml"}}, "entrants: expected names"),
        ({"entrants": {"lstm": []}}, "entrants: expected names"),
        ({"budget": {"tokens": 1, "flops": 1}}, "budget: expected one of"),
        ({"budget": {"hours": 1}}, "budget: expected one of"),
        ({"budget": {"tokens": -1}}, "budget: expected one of"),
        ({"budget": {"tokens": float("inf")}}, "budget: expected one of"),
        ({"budget": {"seconds": 1.5}}, "budget: expected one of"),
        ({"budget": {"tokens": 39}}, "entrant lstm: budget: 39 tokens are less than one step"),
        ({"seeds": [1, 1]}, "seeds: expected a list of distinct integers"),
        ({"seeds": []}, "seeds: expected a list of distinct integers"),
        ({"tolerance": 2}, "tolerance: expected a number between"),
        ({"parameters": 0}, "parameters: expected an integer above 0"),
        ({"parameters": 3000, "tolerance": 0.0001}, "entrant lstm: parameters=3000: no width is within 0.0%"),
        ({"entrants": {"lstm": "lstn.yaml"}}, "entrant lstm: --config lstn.yaml.*did you mean lstm.yaml"),
        ({"settings": {"model.init_args.widht": 3}}, "entrant lstm: .*widht.*did you mean"),
        ({"overlays": "cpu.yaml"}, "overlays: expected a list"),
        ({"tune": {"over": {}, "budget": {"steps": 9}}}, "tune: expected over"),
        ({"tune": {"over": {"a": "1,2"}, "budget": {"seconds": 9}}}, "tune: expected over"),
        ({"tune": {"over": {"a": "1,2"}, "budget": {"steps": 9}}}, "tune, entrant lstm: .*a"),
        (
            {"tune": {"over": {"model.init_args.dropout": "0,0.1"}, "budget": {"steps": 1}}},
            "tune, entrant lstm: budget",
        ),
    ],
)
def test_an_invalid_file_is_reported_before_anything_starts(
    changes: dict[str, Any], message: str, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    write(**changes)
    assert cli.main(["tournament", "small.yaml"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("unroll: error: small")
    assert re.search(message, line)
    assert started == []


def test_entrants_with_different_datasets_are_refused(tiny_text_dataset: Path) -> None:
    other = Path("other")
    other.mkdir()
    for file in tiny_text_dataset.iterdir():
        (other / file.name).symlink_to(file)
    Path("other.yaml").write_text("data: {init_args: {dataset: other}}\n")
    with pytest.raises(ConfigError, match=r"small: expected one dataset for all entrants, got lstm .*, rnn other"):
        entrants_of(read_tournament(write(entrants={"lstm": "lstm.yaml", "rnn": ["rnn.yaml", "other.yaml"]})))


def test_a_dry_run_prints_the_commands(started: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert tournament.main(["small.yaml", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "tournament small: 2 entrants, 4 runs, 170 tokens each" in lines
    commands = [line for line in lines if line.startswith("unroll fit --config ")]
    assert [line.split("--run ")[1] for line in commands][::3] == [
        "runs/small/lstm-1 --seed_everything 1 --tracking.group small",
        "runs/small/rnn-2 --seed_everything 2 --tracking.group small",
    ]
    assert started == []


def test_unfinished_runs_are_submitted_as_one_array(started: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write(seeds=[1])
    assert tournament.main(["small.yaml"]) == 0
    write()
    capsys.readouterr()
    assert tournament.main(["small.yaml", "--submit", "--time", "1:00:00", "--dry-run"]) == 0
    script = capsys.readouterr().out
    assert "#SBATCH --job-name=small\n" in script
    assert "#SBATCH --array=1-2\n" in script
    assert "#SBATCH --output=runs/small/slurm-%A_%a.out\n" in script
    elements = [line for line in script.splitlines() if ") set -- " in line]
    assert [line.split("--run ")[1].split(" --tracking")[0] for line in elements] == [
        "runs/small/lstm-2 --seed_everything 2",
        "runs/small/rnn-2 --seed_everything 2",
    ]
    assert not Path("runs/small/lstm-2").exists()


def test_two_tournaments_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two tournaments have the same name"):
        tournament.main(["small.yaml", "small.yaml"])


def test_a_submission_requires_a_time_limit() -> None:
    with pytest.raises(ConfigError, match="--time is required"):
        tournament.main(["small.yaml", "--submit"])


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_tournament_is_valid(
    file: Path, tiny_text_dataset: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(REPOSITORY)
    found = read_tournament(file)
    assert len(found.entrants) >= 3
    settings = words({**found.settings, "data.init_args.dataset": str(tiny_text_dataset)})
    for configs in found.entrants.values():
        first, *others = [*configs, *found.overlays]
        parse_config(["--config", first, *(word for other in others for word in ("--config", other)), *settings])
