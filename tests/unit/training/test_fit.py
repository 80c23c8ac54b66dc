"""Each training process builds its model and data once, and its weights from the same config."""

import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from jsonargparse import Namespace

from pipeline.cli import main
from pipeline.data.module import PlannedDataModule
from pipeline.runs.load import build_model, with_facts
from pipeline.runs.run import Run
from pipeline.tasks.task import Task
from pipeline.training.config import CommandLine, parse_config, run_directory
from pipeline.training.fit import first_cause, fit, run_summary
from pipeline.training.shipped_configs import CONFIGS

CONFIG = Path(__file__).parents[3] / "configs" / "text" / "lstm.yaml"


@pytest.fixture
def arguments(tiny_text_dataset: Path) -> list[str]:
    keys = {"model.init_args.width": 8, "model.init_args.depth": 1, "data.init_args.dataset": tiny_text_dataset}
    keys |= {"trainer.max_steps": 1, "trainer.accelerator": "cpu", "trainer.limit_val_batches": 0}
    return [f"--config={CONFIG}", *(f"--{key}={value}" for key, value in keys.items())]


@pytest.mark.parametrize("devices", [1, 2])
def test_each_process_that_trains_builds_once(
    arguments: list[str], devices: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    log = tmp_path / "made"

    def count_instances(kind: type) -> None:
        original = kind.__init__

        def construct(self: object, *positional: object, **named: object) -> None:
            with log.open("a") as file:
                print(os.getpid(), kind.__name__, file=file)
            original(self, *positional, **named)

        monkeypatch.setattr(kind, "__init__", construct)

    for kind in (Task, PlannedDataModule, CommandLine):
        count_instances(kind)
    assert main(["fit", *arguments, "--run=one", f"--trainer.devices={devices}"]) == 0
    made = Counter(tuple(line.split()) for line in log.read_text().splitlines())
    found: dict[str, dict[str, int]] = {}
    for (process, name), times in made.items():
        found.setdefault(process, {})[name] = times
    first = found.pop(str(os.getpid()))
    trains = {"Task": 2, "PlannedDataModule": 1}  # once for the shapes, once for the weights
    checks = {"CommandLine": 1, "PlannedDataModule": 1, "Task": 1}
    assert first == (checks | trains if devices == 1 else checks)
    assert list(found.values()) == ([] if devices == 1 else [trains] * devices)


@pytest.mark.numeric
def test_the_weights_are_those_of_the_resolved_config(arguments: list[str]) -> None:
    cli = parse_config(arguments)
    task, data, _ = cli.build()
    assert all(parameter.is_meta for parameter in task.parameters())
    torch.rand(3)  # earlier random draws do not matter
    task.configure_model()
    torch.manual_seed(cli.config.seed_everything)
    init = cli.config.model.as_dict()
    expected = build_model(with_facts(init, data.facts)).state_dict()
    found = task.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert task.build is None


@pytest.mark.parametrize(
    ("config", "name"),
    [("configs/text/lstm.yaml", "text-lstm"), ("mine.yaml", "mine"), ("experiments/small model.yml", "small model")],
)
def test_a_run_is_named_after_its_first_config(config: str, name: str) -> None:
    path = CONFIGS.parent / config
    assert run_directory(Namespace(run=None, config=[str(path), "configs/run/cpu.yaml"])) == Path("runs") / name
    assert run_directory(Namespace(run="given", config=[str(path)])) == Path("runs/given")


def test_the_error_behind_that_of_an_unbuilt_model_is_reported() -> None:
    def fail() -> None:
        try:
            raise ValueError("the cause")
        finally:
            raise NotImplementedError("Cannot copy out of meta tensor; no data!")

    with pytest.raises(NotImplementedError) as raised:
        fail()
    assert str(first_cause(raised.value)) == "the cause"
    other = NotImplementedError("something else")
    assert first_cause(other) is other


def test_the_summary_of_a_run_requires_no_checkpoint(tmp_path: Path) -> None:
    """The last save may have failed, for example on a full disk."""
    (tmp_path / "config.yaml").write_text("{trainer: {}, model: {}, data: {}, checkpoints: {metric: val/loss}}")
    printed = run_summary(Run(tmp_path, {})).splitlines()
    assert printed[0] == f"run {tmp_path.name} finished: {tmp_path}"
    assert printed[1].startswith(f"next: unroll test {tmp_path}; ")


@pytest.mark.parametrize(("code", "expected"), [(0, 4), (75, 75), (8, 8)])
def test_a_run_whose_end_cannot_be_recorded_is_not_reported_as_finished(
    code: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "one", {"attempts": [{"number": 1}]})
    run.path.mkdir()
    (run.path / "run.json").mkdir()  # where the record would be written
    start = SimpleNamespace(finished=False)
    for name, what in {
        "check_precision": lambda *_: None,
        "mode_given": lambda: None,
        "_check_division": lambda *_: None,
        "_begin": lambda *_: (run, start),
        "_start": lambda *_: code,
    }.items():
        monkeypatch.setattr(f"pipeline.training.fit.{name}", what)
    cli = Mock(spec=CommandLine, config=SimpleNamespace(trainer=SimpleNamespace(devices=1), profile=None))
    assert fit(cli, run) == expected
    shown = capsys.readouterr()
    assert "unroll: error: the end of the attempt could not be recorded: " in shown.err
    assert "finished" not in shown.out
