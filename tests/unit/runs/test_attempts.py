"""What differs between two attempts of a run is printed and recorded."""

import json
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.optim import WarmupCosine
from pipeline.runs.code import Code
from pipeline.runs.resume import begin
from pipeline.runs.run import Run
from tests.unit.runs.attempts import CLI, CONFIG, begin_again, save


def test_another_length_is_printed_with_what_it_does_to_the_rate(
    run: Run, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(run, CLI(dataset))
    save(run, 10)
    capsys.readouterr()
    cli = CLI(dataset, trainer={**CONFIG["trainer"], "max_steps": 20})
    cli.model.schedule = WarmupCosine(warmup_steps=0, final_share=0.1)
    begin_again(run, cli)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "run one: changed since attempt 1: trainer.max_steps=20, previously 10",
        "run one: the learning rate follows the new length: 0.4796 of its full value after step 11, not 0.1",
        "  to keep the old decay: --model.init_args.schedule.init_args.decay_steps=10",
        "  to warm up again and decay: --model.init_args.schedule.init_args.rewarm_step=10",
    ]
    attempts = json.loads((run.path / "run.json").read_text())["attempts"]
    assert [attempt["changes"] for attempt in attempts] == [{}, {"trainer.max_steps": [10, 20]}]
    begin_again(run, cli)
    assert "previously" not in capsys.readouterr().out


def test_a_training_that_is_shorter_than_the_run_is_refused(run: Run, dataset: Path) -> None:
    begin(run, CLI(dataset))
    save(run, 10)
    with pytest.raises(ConfigError, match=r"trainer\.max_steps=9: expected at least 10 steps, .* got 9\. Increase"):
        begin_again(run, CLI(dataset, trainer={**CONFIG["trainer"], "max_steps": 9}))
    with pytest.raises(ConfigError, match=r"trainer\.max_epochs=1: expected at least 10 steps, .* got 5"):
        begin_again(run, CLI(dataset, trainer={**CONFIG["trainer"], "max_steps": -1, "max_epochs": 1}))


def test_settings_that_change_results_are_changed_on_purpose(
    run: Run, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(run, CLI(dataset))
    clipped = {**CONFIG["trainer"], "gradient_clip_val": 1.0}
    with pytest.raises(ConfigError, match=r"trainer\.gradient_clip_val=1\.0, previously 0\.5\. Use --allow-changes"):
        begin_again(run, CLI(dataset, trainer=clipped))
    capsys.readouterr()
    begin_again(run, CLI(dataset, trainer=clipped, allow=True))
    assert "changed since attempt 1: trainer.gradient_clip_val=1.0, previously 0.5\n" in capsys.readouterr().out
    begin_again(run, CLI(dataset, trainer=clipped))  # the change is part of the run now
    [*_, last] = json.loads((run.path / "run.json").read_text())["attempts"]
    assert (last["number"], last["changes"]) == (3, {})


def test_the_code_of_each_attempt_is_recorded_and_a_difference_printed(
    run: Run, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = [Code("a" * 40, None), Code("b" * 40 + "-dirty", "c0ffee"), Code("b" * 40 + "-dirty", "c0ffee")]
    for version in versions:
        monkeypatch.setattr(Code, "running", lambda version=version: version)
        begin_again(run, CLI(dataset))
    printed = capsys.readouterr().out
    assert printed.count("the code is") == 1
    assert f"run one: the code is commit {'b' * 12} with changes c0ffee, previously commit {'a' * 12}" in printed
    attempts = json.loads((run.path / "run.json").read_text())["attempts"]
    assert [(each["git_commit"], each["diff"]) for each in attempts] == versions


def test_another_number_of_processes_is_printed(run: Run, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(run, CLI(dataset))
    cli = CLI(dataset)
    cli.config.trainer.num_nodes = 2
    begin_again(run, cli)
    assert "run one: processes=2, previously 3\n" in capsys.readouterr().out
