"""A tuning finds the best value of a known function, continues when it is interrupted, and reports what is wrong."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipeline import cli
from pipeline.commands import planned_runs
from pipeline.commands.tune import command as tune
from pipeline.distributed import signals
from pipeline.errors import ConfigError
from pipeline.training.config import parse_config

LR = "model.init_args.optimizer.init_args.lr"
BEST = 0.01
SCHEDULE = {"class_path": "pipeline.optim.WarmupCosine", "init_args": {"warmup_share": 0.1}}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_text_dataset: Path, parsing_once: None) -> Path:
    """A working directory with a small experiment."""
    monkeypatch.chdir(tmp_path)
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.003}}
    network = {"width": 8, "depth": 1, "optimizer": optimizer, "schedule": SCHEDULE}
    settings = {"dataset": str(tiny_text_dataset), "context": 10, "global_batch_size": 4, "order": "contiguous"}
    config = {
        "model": {"class_path": "pipeline.models.lstm.LSTMLanguageModel", "init_args": network},
        "data": {"class_path": "pipeline.data.text.TextDataModule", "init_args": settings},
        "trainer": {"accelerator": "cpu", "devices": 1},
    }
    Path("lstm.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(signals, "install", lambda: None)
    return tmp_path


def start(*more: str, over: str = f"{LR}=log:1e-4:1e-1:4", budget: str = "steps=80") -> int:
    return tune.main(["lstm.yaml", "--over", over, "--budget", budget, *more])


def test_the_best_rate_is_found_and_written_as_an_overlay(trained: list[tuple[str, int]]) -> None:
    assert start() == 0
    rungs = [(f"trial-{k}", 10) for k in (1, 2, 3, 4)] + [(f"trial-{k}", 30) for k in (3, 2)]
    assert trained == rungs  # 4 trials in 2 rungs: 80 // (4 * 2) steps, then 2 trials with 2 * 10 steps more
    assert parse_config(["--config", "lstm.yaml", "--config", "tuned/lstm.yaml"]).config[LR] == BEST
    result = json.loads(Path("tuned/lstm.json").read_text())
    assert result["best"] == {LR: BEST}
    assert result["rungs"] == [{"trials": 4, "steps": 10}, {"trials": 2, "steps": 30}]
    assert [each["losses"] for each in result["trials"][1:3]] == [
        {"10": 1.1, "30": 1 + 1 / 30},
        {"10": 0.1, "30": 1 / 30},
    ]
    tokens = 40 * (2 * 10 + 2 * 30)
    assert (result["cost"]["trials"], result["cost"]["tokens"], result["cost"]["seconds"]) == (4, tokens, tokens / 20)
    assert "<svg" in Path("tuned/lstm.svg").read_text()


def test_an_interrupted_tuning_ends_like_an_uninterrupted_one(
    trained: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start() == 0
    whole, order = Path("tuned/lstm.json").read_text(), [*trained]
    Path("runs").rename("first")
    trained.clear()
    train: Callable[..., int] = planned_runs.run_unroll
    stop = iter([False, True, False, False, False, True, False, False])
    monkeypatch.setattr(planned_runs, "run_unroll", lambda *words: 75 if next(stop) else train(*words))
    capsys.readouterr()
    assert [start(), start(), start()] == [75, 75, 0]
    assert capsys.readouterr().out.count("the same command continues it") == 2
    assert sorted(trained) == sorted(order)  # no trial is trained twice
    assert Path("tuned/lstm.json").read_text() == whole
    trained.clear()
    assert start() == 0
    assert trained == []


def test_each_step_of_a_trial_has_the_rate_of_a_run_with_the_length_of_the_last_rung(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert start("--dry-run") == 0
    first = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("unroll fit --config "))
    words = first.split()[2:]
    schedule = parse_config(words).build_parts()[0].schedule
    whole = parse_config(["--config", "lstm.yaml", "--trainer.max_steps", "30"]).build_parts()[0].schedule
    assert [schedule.scale(k, 10, 99) for k in range(30)] == [whole.scale(k, 30, 99) for k in range(30)]


def test_a_schedule_that_depends_on_the_length_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"schedule=WarmupCosine: expected a learning rate that does not"):
        start("--dry-run", "--", "--model.init_args.schedule.init_args.rewarm_step", "5")


def test_a_trial_that_diverges_is_the_worst_and_reported(
    trained: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(over=f"{LR}=3,0.01,5,0.02") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "diverged" in line] == [f"trial {k} diverged: {LR}={k + 2}" for k in (1, 3)]
    assert trained == [*((f"trial-{k}", 10) for k in (1, 2, 3, 4)), ("trial-2", 30), ("trial-4", 30)]


def test_all_diverged_is_an_error(trained: list[tuple[str, int]]) -> None:
    with pytest.raises(ConfigError, match=r"all trials diverged within 40 steps\. Give other values"):
        start(over=f"{LR}=3,5")


def test_a_best_value_on_the_edge_is_reported_or_the_range_widened(
    trained: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(over=f"{LR}=log:1e-4:1e-3:2") == 0
    assert f"{LR}=0.001 is on the edge of its range: extend the range to 0.01" in capsys.readouterr().out
    assert start("--widen", over=f"{LR}=log:1e-4:1e-3:2") == 0
    assert trained[-1] == ("trial-3", 40)
    assert json.loads(Path("tuned/lstm.json").read_text())["best"] == {LR: BEST}


def test_another_budget_requires_another_name(trained: list[tuple[str, int]]) -> None:
    assert start(over=f"{LR}=0.01,0.02") == 0
    with pytest.raises(ConfigError, match=r"trial-1 exists with another config .*decay_steps=20, previously 40"):
        start(over=f"{LR}=0.01,0.02", budget="steps=40")
    assert start("--name", "other", over=f"{LR}=0.01,0.02", budget="steps=40") == 0


def test_a_second_start_at_the_same_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.runs.run.locked", lambda held: False)
    with pytest.raises(ConfigError, match="run tune-lstm is being trained by another process"):
        start(over=f"{LR}=0.01,0.02")


def test_a_rung_is_submitted_as_an_array(trained: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]) -> None:
    assert start("--submit", "--time", "1:00:00", "--dry-run", over=f"{LR}=0.01,0.02") == 0
    script = capsys.readouterr().out
    assert "#SBATCH --array=1-2\n" in script
    assert re.findall(r"--trainer.max_steps (\d+) .*--run (\S+)", script) == [
        ("40", "runs/tune-lstm/trial-1"),
        ("40", "runs/tune-lstm/trial-2"),
    ]
    assert trained == []


@pytest.mark.parametrize(
    ("over", "budget", "message"),
    [
        (f"{LR}=1,2", "steps=1", "budget: expected at least 2 steps"),
        (f"{LR}=1,2", "seconds=9", "--budget=seconds=9: expected one of tokens=N"),
        (f"{LR}=1,2", "steps=-1", "--budget=steps=-1: expected one of"),
        (f"{LR}=1", "steps=10", "expected at least 2 trials"),
        ("model.init_args.widht=8,9", "steps=10", "has no argument 'widht'"),
        ("model.init_args.dropout=0,a", "steps=10", "dropout.*expected float, got 'a'"),
        ("model.init_args.dropout=0,2", "steps=10", "dropout"),
    ],
)
def test_invalid_options_are_reported_in_one_line(
    over: str, budget: str, message: str, trained: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["tune", "lstm.yaml", "--over", over, "--budget", budget]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert trained == []
