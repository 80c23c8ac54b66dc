"""What disks, people and machines do to a run costs it at most the steps since its last good checkpoint."""

import ctypes
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.callbacks.fault_injection import BeforeBatch, WhileSaving
from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.runs import journal
from pipeline.runs.run import Run
from pipeline.tasks.language_model import LanguageModel

Fit = Callable[..., int]
State = Callable[[str], dict[str, Any]]
Apart = Callable[[Callable[[], int]], int]
OFTEN = ["checkpoints.every_steps", 1, "checkpoints.background", "false"]
NEW_MOUNTS, NEW_USERS = 0x00020000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER
READ_ONLY, AGAIN, BIND, ALL, PRIVATE = 1, 32, 4096, 16384, 1 << 18  # MS_RDONLY, _REMOUNT, _BIND, _REC, _PRIVATE


@pytest.fixture(scope="module")
def home(fit_in: Callable[[Path], Fit], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the runs `straight` (14 steps) and `stopped` (at step 8)."""
    home = tmp_path_factory.mktemp("spoiling")
    fit = fit_in(home)
    assert fit("straight", *OFTEN) == 0
    assert fit("stopped", *OFTEN, die=(signal.SIGTERM, 7)) == 75
    return home


@pytest.fixture(autouse=True)
def _copy(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test works on a copy of these runs."""
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def whole(state: State, name: str = "stopped") -> None:
    """The run has ended as the straight one has, in every bit."""
    one, two = (state(each) for each in ("straight", name))
    for part in ("global_step", "state_dict", "optimizer_states", "carried", "seen"):
        left, right = (torch.utils._pytree.tree_leaves(each[part]) for each in (one, two))
        assert len(left) == len(right) > 0
        for a, b in zip(left, right, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def steps(name: str = "stopped") -> list[int]:
    return [checkpoint.step_of(path) for path in checkpoint.newest_first(Path("runs") / name / "checkpoints")]


def mount(what: str, where: Path, flags: int, options: str = "", kind: str = "tmpfs") -> None:
    """mount(2)."""
    told = ctypes.CDLL(None, use_errno=True).mount(
        what.encode(), os.fsencode(where), kind.encode(), ctypes.c_ulong(flags), options.encode()
    )
    if told:
        raise OSError(ctypes.get_errno(), f"mount {where}")


def own_mounts() -> None:
    """Give this process mounts of its own, which nobody else sees and which end with it."""
    found = ctypes.CDLL(None, use_errno=True)
    if found.unshare(NEW_MOUNTS) and found.unshare(NEW_MOUNTS | NEW_USERS):
        raise OSError(ctypes.get_errno(), "unshare")
    mount("none", Path("/"), ALL | PRIVATE)


@pytest.fixture
def mounting(apart: Apart) -> Apart:
    """`mounting(WORK)` runs it where it may mount."""

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
        mount("tmpfs", place, 0, "size=256k")  # room for two checkpoints and no third
        assert fit("full", *OFTEN, "checkpoints.keep_last", 9) == 4
        assert 1 <= len(steps("full")) <= 3
        assert all(checkpoint.verify(each) for each in checkpoint.newest_first(place))
        assert not list(place.glob(".*"))
        mount("tmpfs", place, AGAIN, "size=8m")
        assert fit("full", *OFTEN) == 0
        whole(state, "full")
        return 0

    assert mounting(work) == 0
    told = capfd.readouterr()
    assert "could not be saved" in told.out
    assert "training goes on" in told.out
    assert "the checkpoint of step 14 could not be saved" in told.err
    faults = journal.read(Path("runs/full")).faults()
    assert faults == [] or {fault["fault"] for fault in faults} == {"checkpoint not saved"}
    assert [attempt["exit_code"] for attempt in Run(Path("runs/full")).record["attempts"]] == [4, 0]


def test_a_directory_that_cannot_be_written_costs_no_checkpoint(
    fit: Fit, state: State, mounting: Apart, capfd: pytest.CaptureFixture[str]
) -> None:
    place, before = Path("runs/stopped/checkpoints"), steps()

    def work() -> int:
        mount(str(place), place, BIND)
        mount(str(place), place, BIND | AGAIN | READ_ONLY)
        assert fit("stopped", *OFTEN) == 4
        assert fit("stopped", *OFTEN, die=(signal.SIGTERM, 10)) == 4  # stopped, and not saved
        mount(str(place.parent), place.parent, BIND)
        mount(str(place.parent), place.parent, BIND | AGAIN | READ_ONLY)
        assert fit("stopped", *OFTEN) == 4
        return 0

    assert mounting(work) == 0
    told = capfd.readouterr()
    assert "Read-only file system" in told.out
    assert "config.yaml cannot be written" in told.err
    assert "Traceback" not in told.err
    assert steps() == before
    assert fit("stopped", *OFTEN) == 0
    whole(state)


@pytest.mark.parametrize("name", ["run.json", "config.yaml"])
@pytest.mark.parametrize("content", [None, "", '{"name": "sto'])
def test_what_a_run_says_of_itself_is_found_in_its_checkpoints_too(
    fit: Fit, state: State, name: str, content: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    file = Path("runs/stopped") / name
    before = json.loads(Path("runs/stopped/run.json").read_text())
    file.unlink()
    if content is not None:
        file.write_text(content)
    assert fit("stopped", *OFTEN, "model.init_args.width", 24) == 2  # the run is still the one that it was
    assert fit("stopped", *OFTEN) == 0
    assert f"{file} is gone or damaged: its copy in step-00000008 is used" in capfd.readouterr().err
    whole(state)
    assert file.read_text() == (checkpoint.newest_first(file.parent / "checkpoints")[0] / name).read_text() or (
        name == "run.json"  # which has learned since how the attempt ended
    )
    assert Run(file.parent).record["wandb_id"] == before["wandb_id"]


def test_where_every_copy_is_gone_the_mend_is_told(fit: Fit, capfd: pytest.CaptureFixture[str]) -> None:
    for file in [Path("runs/stopped/run.json"), *Path("runs/stopped/checkpoints").glob("*/run.json")]:
        file.unlink()
    assert fit("stopped", *OFTEN) == 4
    assert "has checkpoints and no run.json" in capfd.readouterr().err
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


def test_copies_beside_the_checkpoints_are_let_be(fit: Fit, state: State) -> None:
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
    assert "the checkpoint is not one of this model" in line


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


def test_a_run_that_is_being_trained_is_left_alone(fit: Fit, capfd: pytest.CaptureFixture[str]) -> None:
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
    found = journal.read(Path("runs/stopped"))
    assert found.torn == 1
    assert found.series("val/loss").steps[-1] == 14
    file.unlink()
    assert fit("stopped", *OFTEN, "trainer.max_steps", 16) == 0
    assert journal.read(Path("runs/stopped")).last("val/loss") is not None


def test_a_closed_terminal_and_an_impatient_hand_only_stop_the_run(fit: Fit, state: State) -> None:
    assert fit("stopped", *OFTEN, die=(signal.SIGHUP, 8)) == 75
    twice = [BeforeBatch(signal.SIGINT, step=9), WhileSaving(signal.SIGINT, step=10, done=2)]
    callbacks = json.dumps([each.config() for each in twice])
    assert fit("stopped", *OFTEN, "trainer.callbacks", callbacks) == 75
    assert fit("stopped", *OFTEN) == 0
    assert [each["start_step"] for each in Run(Path("runs/stopped")).record["attempts"]] == [0, 8, 9, 10]
    whole(state)


def test_training_goes_on_when_nobody_reads_what_it_says(fit: Fit, state: State, apart: Apart) -> None:
    def work() -> int:
        read, write = os.pipe()
        os.close(read)
        for number in (1, 2):
            os.dup2(write, number)
        return fit("stopped", *OFTEN)

    assert apart(work) == 0
    whole(state)


@pytest.fixture
def at_step_eleven(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Have the last process do something before its eleventh step, in every attempt that comes to it."""
    straight = LanguageModel.training_step

    def do(work: Callable[[], None]) -> None:
        def training_step(self: LanguageModel, batch: Any, batch_idx: int) -> Any:
            if self.trainer.global_step == 10 and self.trainer.global_rank == self.trainer.world_size - 1:
                work()
            return straight(self, batch, batch_idx)

        monkeypatch.setattr(LanguageModel, "training_step", training_step)

    return do


def test_the_processes_end_with_the_one_that_started_them(fit: Fit, state: State, at_step_eleven: Any) -> None:
    two = [*OFTEN, "trainer.devices", 2]
    shutil.rmtree("runs/straight")
    assert fit("straight", *two) == 0

    def kill_the_parent() -> None:
        if not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)

    at_step_eleven(kill_the_parent)
    assert fit("two", *two) == 128 + signal.SIGKILL
    assert fit("two", *two) == 0  # nobody holds it any more
    whole(state, "two")


def test_files_that_vanish_during_training_are_written_again(fit: Fit, state: State, at_step_eleven: Any) -> None:
    def tidy_up() -> None:
        shutil.rmtree("runs/stopped/checkpoints")
        Path("runs/stopped/run.json").unlink()

    at_step_eleven(tidy_up)
    assert fit("stopped", *OFTEN) == 0
    whole(state)
    assert steps() == [14, 13]  # the best one was among those that vanished
    assert Run(Path("runs/stopped")).record["attempts"][-1]["exit_code"] == 0


def test_the_clock_may_jump(fit: Fit, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = count()
    monkeypatch.setattr(time, "time", lambda: 2e9 - 1e5 * next(numbers))
    assert fit("stopped", *OFTEN, "checkpoints.every_minutes", 0.001) == 0
    whole(state)


def test_the_newest_and_the_best_checkpoints_are_kept(fit: Fit) -> None:
    keys = ["trainer.val_check_interval", 3, "checkpoints.keep_best", 2, "checkpoints.metric", "val/perplexity"]
    assert fit("kept", *OFTEN, *keys, "checkpoints.keep_last", 1, "trainer.max_steps", 11) == 0
    measured = journal.read(Path("runs/kept")).series("val/perplexity")
    best = sorted(zip(measured.values, measured.steps, strict=True))[:2]
    assert measured.steps == [3, 6, 9, 11]
    assert set(steps("kept")) == {11} | {step for _, step in best}
    assert len(steps("kept")) == 2


def test_a_checkpoint_is_due_after_so_many_minutes_and_its_stall_is_told(fit: Fit) -> None:
    keys = ["checkpoints.every_steps", "null", "checkpoints.keep_last", 99, "trainer.val_check_interval", 100]
    assert fit("rarely", *keys, "checkpoints.every_minutes", "null") == 0
    assert fit("often", *keys, "checkpoints.every_minutes", 1e-9) == 0
    assert (steps("rarely"), steps("often")) == ([14], list(range(14, 0, -1)))
    stalls = [journal.read(Path("runs") / name).series("train/checkpoint_stall") for name in ("rarely", "often")]
    assert [each.steps for each in stalls] == [list(range(2, 15, 2))] * 2
    assert set(stalls[0].values) == {0.0}
    assert all(seconds > 0 for seconds in stalls[1].values[1:])


def test_validations_and_ends_of_epochs_come_between_steps(fit: Fit, state: State) -> None:
    keys = [*OFTEN, "trainer.limit_train_batches", 0.31, "trainer.val_check_interval", 0.7]
    keys += ["trainer.check_val_every_n_epoch", 1, "checkpoints.keep_last", 99, "model.init_args.dropout", 0.0]
    ways = {"one": 16, "four": 4}  # micro-batches of a step: one, four
    for name, limit in ways.items():
        assert fit(name, *keys, "data.init_args.per_device_batch_size", limit) == 0
    validated = [journal.read(Path("runs") / name).series("val/loss") for name in ways]
    assert validated[0].steps == validated[1].steps
    assert len(validated[0].steps) > 2
    assert validated[1].values == pytest.approx(validated[0].values, rel=1e-5)
    assert fit("cut", *keys, "data.init_args.per_device_batch_size", 4, die=(signal.SIGKILL, 6)) != 0
    assert fit("cut", *keys, "data.init_args.per_device_batch_size", 4) == 0
    for one, two in zip(
        *(torch.utils._pytree.tree_leaves(state(n)["state_dict"]) for n in ("four", "cut")), strict=True
    ):
        assert torch.equal(one, two)
