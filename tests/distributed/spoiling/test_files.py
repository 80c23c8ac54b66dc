"""Disk errors and damaged files cost a run at most the steps since its last valid checkpoint."""

import ctypes
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.runs import journal
from pipeline.runs.run import Run
from tests.distributed.fixture_types import Fit, State
from tests.distributed.spoiling.runs import OFTEN, Apart, steps, whole

NEW_MOUNTS, NEW_USERS = 0x00020000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER
READ_ONLY, AGAIN, BIND, ALL, PRIVATE = 1, 32, 4096, 16384, 1 << 18  # MS_RDONLY, _REMOUNT, _BIND, _REC, _PRIVATE


def mount(what: str, where: Path, flags: int, options: str = "", kind: str = "tmpfs") -> None:
    """mount(2)."""
    failed = ctypes.CDLL(None, use_errno=True).mount(
        what.encode(), os.fsencode(where), kind.encode(), ctypes.c_ulong(flags), options.encode()
    )
    if failed:
        raise OSError(ctypes.get_errno(), f"mount {where}")


def own_mounts() -> None:
    """Give this process a private mount namespace, which ends with it."""
    found = ctypes.CDLL(None, use_errno=True)
    if found.unshare(NEW_MOUNTS) and found.unshare(NEW_MOUNTS | NEW_USERS):
        raise OSError(ctypes.get_errno(), "unshare")
    mount("none", Path("/"), ALL | PRIVATE)


@pytest.fixture
def mounting(apart: Apart) -> Apart:
    """`mounting(WORK)` runs it in a process that may mount."""

    def possible() -> int:
        own_mounts()
        mount("tmpfs", Path("runs"), 0, "size=64k")
        return 0

    if apart(possible):
        pytest.skip("this system lets nobody mount a file system of his own")

    def work_and_mount(work: Callable[[], int]) -> int:
        def inside() -> int:
            own_mounts()
            return work()

        return apart(inside)

    return work_and_mount


def test_a_disk_that_is_full_costs_no_step(
    fit: Fit, state: State, mounting: Apart, capfd: pytest.CaptureFixture[str]
) -> None:
    place = Path("runs/full/checkpoints")
    place.mkdir(parents=True)

    def work() -> int:
        mount("tmpfs", place, 0, "size=256k")  # space for two checkpoints, but not three
        assert fit("full", *OFTEN, "checkpoints.keep_last", 9) == 4
        assert 1 <= len(steps("full")) <= 3
        assert all(checkpoint.verify_checkpoint(each) for each in checkpoint.newest_first(place))
        assert not list(place.glob(".*"))
        mount("tmpfs", place, AGAIN, "size=8m")
        assert fit("full", *OFTEN) == 0
        whole(state, "full")
        return 0

    assert mounting(work) == 0
    printed = capfd.readouterr()
    assert "could not be saved" in printed.out
    assert "training continues" in printed.out
    assert "the checkpoint of step 14 could not be saved" in printed.err
    faults = journal.read_journal(Path("runs/full")).faults()
    assert faults == [] or {fault["fault"] for fault in faults} == {"checkpoint_not_saved"}
    assert [attempt["exit_code"] for attempt in Run(Path("runs/full")).record["attempts"]] == [4, 0]


def test_a_directory_that_cannot_be_written_costs_no_checkpoint(
    fit: Fit, state: State, mounting: Apart, capfd: pytest.CaptureFixture[str]
) -> None:
    place, before = Path("runs/stopped/checkpoints"), steps()

    def work() -> int:
        mount(str(place), place, BIND)
        mount(str(place), place, BIND | AGAIN | READ_ONLY)
        assert fit("stopped", *OFTEN) == 4
        assert fit("stopped", *OFTEN, die=(signal.SIGTERM, 10)) == 4  # stopped without a checkpoint
        mount(str(place.parent), place.parent, BIND)
        mount(str(place.parent), place.parent, BIND | AGAIN | READ_ONLY)
        assert fit("stopped", *OFTEN) == 4
        return 0

    assert mounting(work) == 0
    printed = capfd.readouterr()
    assert "Read-only file system" in printed.out
    assert "config.yaml cannot be written" in printed.err
    assert "Traceback" not in printed.err
    assert steps() == before
    assert fit("stopped", *OFTEN) == 0
    whole(state)


@pytest.mark.parametrize("name", ["run.json", "config.yaml"])
@pytest.mark.parametrize("content", [None, "", '{"name": "sto'])
def test_record_and_config_are_read_from_checkpoints_if_damaged(
    fit: Fit, state: State, name: str, content: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    file = Path("runs/stopped") / name
    before = json.loads(Path("runs/stopped/run.json").read_text())
    file.unlink()
    if content is not None:
        file.write_text(content)
    assert fit("stopped", *OFTEN, "model.init_args.width", 24) == 2  # the run is still compared with its config
    assert fit("stopped", *OFTEN) == 0
    assert f"{file} is missing or damaged: using its copy in step-00000008" in capfd.readouterr().err
    whole(state)
    assert file.read_text() == (checkpoint.newest_first(file.parent / "checkpoints")[0] / name).read_text() or (
        name == "run.json"  # which was updated at the end of the attempt
    )
    assert Run(file.parent).record["copied_from"]["id"] == before["id"]  # the test continues a copy of the run


def test_without_any_copy_the_error_states_the_fix(fit: Fit, capfd: pytest.CaptureFixture[str]) -> None:
    for file in [Path("runs/stopped/run.json"), *Path("runs/stopped/checkpoints").glob("*/run.json")]:
        file.unlink()
    assert fit("stopped", *OFTEN) == 4
    assert "has checkpoints but no run.json" in capfd.readouterr().err
    assert fit("stopped", "resume", "never", "trainer.max_steps", 2) == 0
    assert steps("stopped~1") == [8, 7, 5]


def test_a_kill_before_the_first_attempt_is_recorded_costs_nothing(fit: Fit, state: State) -> None:
    Path("runs/early").mkdir()
    Run(Path("runs/early")).create(linked={}, dataset={})
    assert fit("early", *OFTEN) == 0
    whole(state, "early")


def test_new_checkpoints_are_kept_where_the_newest_ones_were_damaged(fit: Fit, state: State) -> None:
    assert steps() == [8, 7, 5]  # the last two, and the best
    for path in checkpoint.newest_first(Path("runs/stopped/checkpoints"))[:2]:
        (path / checkpoint.STATE).write_bytes(b"damaged")
    assert fit("stopped", *OFTEN, die=(signal.SIGKILL, 6)) == 128 + signal.SIGKILL
    assert steps() == [6, 5]
    assert len(list(Path("runs/stopped/checkpoints").glob("damaged-step-*"))) == 2
    assert fit("stopped", *OFTEN) == 0
    assert Run(Path("runs/stopped")).record["attempts"][-1]["start_step"] == 6
    whole(state)


def test_copies_beside_the_checkpoints_are_kept(fit: Fit, state: State) -> None:
    place = Path("runs/stopped/checkpoints")
    shutil.copytree(place / "step-00000008", place / "step-00000008.bak")
    (place / "step-mine").mkdir()
    assert fit("stopped", *OFTEN) == 0
    assert {"step-00000008.bak", "step-mine"} <= {path.name for path in place.iterdir()}
    whole(state)


def test_checkpoints_of_another_model_are_refused_in_one_line(fit: Fit, capfd: pytest.CaptureFixture[str]) -> None:
    assert fit("wide", *OFTEN, "model.init_args.width", 24, "trainer.max_steps", 9) == 0
    place = Path("runs/stopped/checkpoints")
    shutil.rmtree(place)
    shutil.copytree("runs/wide/checkpoints", place)
    capfd.readouterr()
    assert fit("stopped", *OFTEN) == 4
    [line] = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("Seed")]
    assert "the checkpoint does not match this model" in line


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (["model.init_args.width", 24], 2),
        (["data.init_args.context", 8], 2),
        (["seed_everything", 9], 2),
        (["trainer.limit_train_batches", 3], 2),
        (["trainer.precision", "16-mixed"], 2),
        (["trainer.precision", "bf16-true"], 2),
        (["data.init_args.dataset", "elsewhere"], 3),
    ],
)
def test_another_experiment_is_refused_and_the_run_untouched(
    fit: Fit, state: State, change: list[Any], code: int
) -> None:
    assert fit("stopped", *OFTEN, *change) == code
    assert steps() == [8, 7, 5]
    assert len(Run(Path("runs/stopped")).record["attempts"]) == 1


def test_a_run_that_is_being_trained_is_locked(fit: Fit, capfd: pytest.CaptureFixture[str]) -> None:
    with Run(Path("runs/stopped")).lock():
        assert fit("stopped", *OFTEN) == 2
    assert "is being trained by another process" in capfd.readouterr().err
    assert len(Run(Path("runs/stopped")).record["attempts"]) == 1


def test_a_journal_that_lost_lines_loses_nothing_else(fit: Fit, state: State) -> None:
    file = Path("runs/stopped/journal.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[3:-2]) + b"\x00\xff{" + lines[-1][:20])
    assert fit("stopped", *OFTEN) == 0
    whole(state)
    found = journal.read_journal(Path("runs/stopped"))
    assert found.torn == 1
    assert found.series("val/loss").steps[-1] == 14
    file.unlink()
    assert fit("stopped", *OFTEN, "trainer.max_steps", 16) == 0
    assert journal.read_journal(Path("runs/stopped")).last("val/loss") is not None
