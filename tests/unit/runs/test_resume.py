"""An attempt begins where the run matches, at the newest checkpoint that verifies, and is refused elsewhere."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipeline.dataset.facts import DataFacts
from pipeline.dataset.manifest import Dataset
from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.files import sha256
from pipeline.runs.resume import Start, _describe, begin, is_finished
from pipeline.runs.run import Run
from tests.unit.runs.attempts import CLI, CONFIG, begin_again, save


def test_a_new_run_begins_at_step_0_and_is_recorded(
    run: Run, dataset: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    cli = CLI(dataset)
    assert begin(run, cli) == Start(None, 0, False)
    assert cli.calls == ["optimizer", "validation"]
    opened = Dataset.open(dataset)
    record = json.loads((run.path / "run.json").read_text())
    assert record["linked"] == {"vocab_size": 257}
    known = {"path": str(dataset), "checksum": opened.checksum, "stamp": opened.stamp}
    assert record["dataset"] == {**known, "tokenizers": {"tokenizer.json": sha256(dataset / "tokenizer.json")}}
    assert (record["name"], record["path"]) == ("one", str(run.path))
    assert record["id"] == record["wandb_id"]
    [attempt] = record["attempts"]
    assert (attempt["number"], attempt["world_size"], attempt["start_step"]) == (1, 3, 0)
    text = (run.path / "config.yaml").read_text()
    assert yaml.safe_load(text) == CONFIG
    assert list(yaml.safe_load(text)) == list(CONFIG)  # in the order of the command line's help
    assert (run.path / "tokenizer.json").read_text() == (dataset / "tokenizer.json").read_text()
    assert capsys.readouterr().out == f"run {run.path}: starting at step 0 (no checkpoint found)\n"


def test_the_description_of_a_dataset_is_recorded(dataset: Path) -> None:
    manifest = json.loads((dataset / "dataset.json").read_text())
    kinds = {kind: {"about": kind} for kind in ("audio", "dialogue", "series", "trajectories", "pixels", "music")}
    opened = replace(Dataset.open(dataset), manifest={**manifest, **kinds, "other": 1})
    found = _describe(opened)
    assert found.keys() == {"path", "checksum", "stamp", "tokenizers", *kinds}
    assert all(found[kind] == {"about": kind} for kind in kinds)


def test_a_run_continues_from_the_newest_checkpoint_that_verifies(
    run: Run, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = {**CONFIG["trainer"], "max_steps": 40}
    begin(run, CLI(dataset, trainer=long))
    older, newest = [save(run, step) for step in (10, 20, 30)][1:]
    (newest / checkpoint.MANIFEST).write_text("{")
    (run.checkpoints / ".step-00000040.partial").mkdir()
    capsys.readouterr()
    assert begin_again(run, CLI(dataset, trainer=long)) == Start(older, 20, False)
    names = ["damaged-step-00000030", "step-00000010", "step-00000020"]
    assert sorted(path.name for path in run.checkpoints.iterdir()) == names
    passed, continuing = capsys.readouterr().out.splitlines()
    assert "step-00000030" in passed
    assert continuing == f"run {run.path}: continuing at step 20 from step-00000020, the newest valid checkpoint"
    attempts = json.loads((run.path / "run.json").read_text())["attempts"]
    assert [(attempt["number"], attempt["start_step"]) for attempt in attempts] == [(1, 0), (2, 20)]


def finished(run: Run, dataset: Path, reason: str = "finished") -> None:
    begin(run, CLI(dataset))
    save(run, 10)
    run.end_attempt(reason, 0)


def test_a_finished_run_is_not_changed(run: Run, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(run, dataset)
    before = (run.path / "run.json").read_text()
    (run.path / "tokenizer.json").unlink()
    assert begin_again(run, CLI(dataset)) == Start(run.checkpoints / "step-00000010", 10, True)
    assert (run.path / "run.json").read_text() == before
    assert not (run.path / "tokenizer.json").exists()
    assert "run one: finished at step 10 (limits: trainer.max_steps=10" in capsys.readouterr().out


@pytest.mark.parametrize("limit", ["max_steps", "max_epochs", "max_time", "fast_dev_run"])
def test_another_limit_continues_a_finished_run(run: Run, dataset: Path, limit: str) -> None:
    finished(run, dataset)
    cli = CLI(dataset, trainer={**CONFIG["trainer"], limit: 99})
    assert begin_again(run, cli) == Start(run.checkpoints / "step-00000010", 10, False)
    assert yaml.safe_load((run.path / "config.yaml").read_text())["trainer"][limit] == 99


def test_an_unfinished_run_continues(run: Run, dataset: Path) -> None:
    finished(run, dataset, reason="stopped")
    assert not is_finished(run, CONFIG)
    assert not is_finished(Run(run.path.with_name("other")), CONFIG)
    assert begin_again(run, CLI(dataset)).finished is False


def test_a_dataset_is_read_and_verified_only_where_its_files_changed(
    run: Run, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[Path] = []
    monkeypatch.setattr(Dataset, "verify", lambda self: verified.append(self.path))
    begin(run, CLI(dataset))
    assert verified == [dataset]
    begin_again(run, CLI(dataset))
    assert verified == [dataset]
    os.utime(dataset / "tokenizer.json", (1, 1))
    begin_again(run, CLI(dataset))
    assert verified == [dataset] * 2
    assert json.loads((run.path / "run.json").read_text())["dataset"]["stamp"] == Dataset.open(dataset).stamp
    begin_again(run, CLI(dataset))
    assert verified == [dataset] * 2


def test_another_dataset_is_refused(run: Run, dataset: Path, tmp_path: Path) -> None:
    begin(run, CLI(dataset))
    other = Path(shutil.copytree(dataset, tmp_path / "other"))
    begin_again(run, CLI(other))  # the same data in another place
    manifest = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps({**manifest, "eos": 255}))
    with pytest.raises(DataError, match=rf"dataset {other} is not that of run one \({other}\)"):
        begin_again(run, CLI(other))


def test_data_that_does_not_match_the_model_is_refused(run: Run, dataset: Path) -> None:
    begin(run, CLI(dataset))
    cli = CLI(dataset)
    cli.data.facts = DataFacts(300)
    with pytest.raises(CheckpointError, match="vocab_size=300: expected 257 as in run one, got 300"):
        begin_again(run, cli)


def test_another_model_is_refused_with_its_differences(run: Run, dataset: Path) -> None:
    begin(run, CLI(dataset))
    wider = {"class_path": "A", "init_args": {"width": 9, "depth": 2}}
    message = "model.init_args.depth=2, previously None; model.init_args.width=9, previously 8. Choose"
    with pytest.raises(ConfigError, match=message):
        begin_again(run, CLI(dataset, model=wider))
    data = {**CONFIG["data"], "init_args": {**CONFIG["data"]["init_args"], "workers": 9}}
    begin_again(run, CLI(dataset, data=data, trainer={**CONFIG["trainer"], "max_steps": 20}))


def test_an_argument_that_a_class_did_not_have_is_accepted_with_its_default(run: Run, dataset: Path) -> None:
    before = {**CONFIG["data"], "class_path": "pipeline.data.text.TextDataModule"}
    begin(run, CLI(dataset, data=before))
    later = {value: {**before, "init_args": {**before["init_args"], "random_offset": value}} for value in (False, True)}
    begin_again(run, CLI(dataset, data=later[False]))
    run.path.joinpath("config.yaml").write_text(yaml.safe_dump({**CONFIG, "data": before}))
    with pytest.raises(ConfigError, match="random_offset=True, previously None"):
        begin_again(run, CLI(dataset, data=later[True]))


def test_checkpoints_that_have_vanished_are_not_taken_for_a_new_run(run: Run, dataset: Path) -> None:
    begin(run, CLI(dataset))
    row: dict[str, object] = {"kind": "checkpoint", "attempt": 1, "step": 6, "tokens": 9, "seconds": 1}
    row |= {"path": "checkpoints/step-00000006"}
    (run.path / "journal.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(CheckpointError, match="has no checkpoint, but run one saved checkpoints/step-00000006"):
        begin_again(run, CLI(dataset))
    assert begin(Run(run.path), CLI(dataset, resume="never")).step == 0


def test_checkpoints_without_a_record_are_not_taken_for_a_new_run(run: Run, dataset: Path) -> None:
    save(run, 10)
    with pytest.raises(CheckpointError, match=r"has checkpoints but no run\.json"):
        begin(run, CLI(dataset))


def test_starting_from_the_beginning_renames_the_previous_run(
    run: Run, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(run, CLI(dataset, resume="never"))
    save(run, 10)
    again = Run(run.path)
    assert begin(again, CLI(dataset, resume="never", seed_everything=8)) == Start(None, 0, False)
    assert (run.path.with_name("one~1") / "checkpoints" / "step-00000010").is_dir()
    assert (
        f"run one: starting from the beginning; the previous run was renamed to {run.path}~1" in capsys.readouterr().out
    )
    assert len(again.record["attempts"]) == 1
    with pytest.raises(ConfigError, match="--resume=again: expected auto or never"):
        begin(again, CLI(dataset, resume="again"))


def test_a_dataset_without_a_step_of_training_is_refused_before_anything_is_written(run: Run, dataset: Path) -> None:
    cli = CLI(dataset)
    cli.data.steps_per_epoch = 0
    with pytest.raises(ConfigError, match=r"the training split of .* is empty"):
        begin(run, cli)
    assert not run.path.exists()
