"""A run that was killed or stopped ends bitwise equal to an uninterrupted one."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch

from pipeline.dataset.manifest import Dataset
from pipeline.errors import DataError
from tests.distributed.fixture_types import Fit, State
from tests.sweep import also

SGD = ["model.init_args.optimizer.class_path", "torch.optim.SGD", "model.init_args.optimizer.init_args.lr", 0.01]
SGD += ["model.init_args.dropout", 0.0]


def assert_equal(one: dict[str, object], two: dict[str, object]) -> None:
    """Step, weights, optimizer and carried state are the same numbers."""
    assert one["global_step"] == two["global_step"]
    for part in ("state_dict", "optimizer_states", "carried"):
        left, right = (torch.utils._pytree.tree_leaves(state.get(part)) for state in (one, two))
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize(
    ("order", "workers"),
    [
        *(("contiguous", 0), ("shuffled", 2), ("documents", 0)),
        *also(("contiguous", 2), ("shuffled", 0), ("documents", 2)),
    ],
)
def test_a_killed_run_ends_bit_for_bit_like_the_straight_one(fit: Fit, state: State, order: str, workers: int) -> None:
    keys = ["data.init_args.order", order, "data.init_args.workers", workers]
    assert fit("straight", *keys) == 0
    assert fit("killed", *keys, die=(signal.SIGKILL, 7)) == 128 + signal.SIGKILL
    assert fit("killed", *keys) == 0
    assert_equal(state("straight"), state("killed"))


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 6, 9, 13, *also(2, 3, 4, 5, 7, 8, 10, 11, 12)])
def test_any_step_can_be_the_last_before_a_kill_or_a_stop(fit: Fit, state: State, step: int) -> None:
    assert fit("straight") == 0
    number = signal.SIGKILL if step % 2 else signal.SIGTERM
    assert fit("stopped", die=(number, step)) == (75 if number == signal.SIGTERM else 128 + number)
    assert fit("stopped") == 0
    assert_equal(state("straight"), state("stopped"))


def test_a_run_cut_three_times_keeps_a_journal_without_gaps_or_repeats(fit: Fit, state: State, tmp_path: Path) -> None:
    from pipeline.runs.journal import read_journal

    keys = ["checkpoints.background", "false"]  # so that the last checkpoint before a kill is deterministic
    assert fit("straight", *keys) == 0
    for number, step in ((signal.SIGTERM, 3), (signal.SIGKILL, 8), (signal.SIGTERM, 11)):
        assert fit("stopped", *keys, die=(number, step)) != 0
    assert fit("stopped", *keys) == 0
    assert_equal(state("straight"), state("stopped"))
    rows = [read_journal(tmp_path / "runs" / name) for name in ("straight", "stopped")]
    for key in ("train/loss", "val/loss"):
        straight, stopped = (journal.series(key) for journal in rows)
        assert list(straight.steps) == list(stopped.steps)
        assert list(straight.values) == list(stopped.values)
    record = json.loads((tmp_path / "runs" / "stopped" / "run.json").read_text())
    assert [attempt["start_step"] for attempt in record["attempts"]] == [0, 4, 8, 12]
    assert [attempt["exit_code"] for attempt in record["attempts"]] == [75, None, 75, 0]


def test_a_validation_interrupted_by_a_stop_is_run_completely(fit: Fit, state: State, tmp_path: Path) -> None:
    from pipeline.runs.journal import read_journal

    assert fit("straight") == 0
    assert fit("stopped", die=(signal.SIGTERM, 9)) == 75  # the second validation is due at step 10
    assert fit("stopped") == 0
    straight, stopped = (read_journal(tmp_path / "runs" / name).series("val/loss") for name in ("straight", "stopped"))
    assert (
        dict(zip(straight.steps, straight.values, strict=True))[10]
        == dict(zip(stopped.steps, stopped.values, strict=True))[10]
    )


def test_two_processes_stop_together_and_continue_exactly(fit: Fit, state: State) -> None:
    two = ["trainer.devices", 2]
    assert fit("straight", *two) == 0
    assert fit("stopped", *two, die=(signal.SIGTERM, 6)) == 75
    assert fit("stopped", *two, die=(signal.SIGKILL, 9)) == 128 + signal.SIGKILL
    assert fit("stopped", *two) == 0
    assert_equal(state("straight"), state("stopped"))


@pytest.mark.slow
def test_four_processes_sum_in_one_order_before_and_after_a_stop(fit: Fit, state: State) -> None:
    four = ["trainer.devices", 4]  # with more than two summands the order affects the last bits
    assert fit("straight", *four) == 0
    assert fit("stopped", *four, die=(signal.SIGTERM, 6)) == 75
    assert fit("stopped", *four) == 0
    assert_equal(state("straight"), state("stopped"))


def test_a_run_moves_from_two_processes_to_one_and_back(fit: Fit, state: State) -> None:
    assert fit("straight", *SGD) == 0
    assert fit("moving", *SGD, "trainer.devices", 2, die=(signal.SIGTERM, 4)) == 75
    micro = ["data.init_args.per_device_batch_size", 4]  # one process, four micro-batches per step
    assert fit("moving", *SGD, *micro, die=(signal.SIGTERM, 9)) == 75
    assert fit("moving", *SGD, "trainer.devices", 2) == 0
    straight, moving = state("straight"), state("moving")
    assert straight["global_step"] == moving["global_step"]
    for name, value in straight["state_dict"].items():
        torch.testing.assert_close(moving["state_dict"][name], value)


def test_two_processes_and_micro_batches_learn_what_one_learns(fit: Fit, state: State) -> None:
    ways: dict[str, list[object]] = {
        "one": [],
        "two": ["trainer.devices", 2],
        "four": ["data.init_args.per_device_batch_size", 4],
        "both": ["trainer.devices", 2, "data.init_args.per_device_batch_size", 2],
    }
    for name, keys in ways.items():
        assert fit(name, *SGD, *keys) == 0
    for name in ways:
        for key, value in state("one")["state_dict"].items():
            torch.testing.assert_close(state(name)["state_dict"][key], value)


MUON = ["model.init_args.optimizer.class_path", "pipeline.optim.muon.Muon", "model.init_args.dropout", 0.0]
WARMUP = ["data.init_args.order", "shuffled", "data.init_args.batch_warmup.start", 4, "trainer.max_steps", 14]
WARMUP += ["data.init_args.batch_warmup.steps", 9, "data.init_args.per_device_batch_size", 4]
WSD = ["model.init_args.schedule.class_path", "pipeline.optim.WarmupStableDecay"]


@pytest.mark.parametrize("keys", [[*MUON, *WSD], [*SGD, *WARMUP]], ids=["Muon", "batch warm-up"])
def test_an_option_of_the_training_resumes_exactly_and_does_not_depend_on_the_processes(
    fit: Fit, state: State, keys: list[object]
) -> None:
    assert fit("straight", *keys) == 0
    assert fit("killed", *keys, die=(signal.SIGKILL, 6)) == 128 + signal.SIGKILL
    assert fit("killed", *keys) == 0
    assert_equal(state("straight"), state("killed"))
    assert fit("two", *keys, "trainer.devices", 2) == 0
    for key, value in state("straight")["state_dict"].items():
        torch.testing.assert_close(state("two")["state_dict"][key], value)


def test_a_damaged_newest_checkpoint_is_skipped(
    fit: Fit, state: State, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fit("straight") == 0
    assert fit("damaged", die=(signal.SIGKILL, 9)) != 0
    newest = sorted((tmp_path / "runs" / "damaged" / "checkpoints").glob("step-*"))[-1]
    data = bytearray((newest / "state.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (newest / "state.pt").write_bytes(data)
    assert fit("damaged") == 0
    assert f"{newest / 'state.pt'}".split("runs/")[1] in capfd.readouterr().out
    assert_equal(state("straight"), state("damaged"))


def test_a_dataset_is_verified_when_a_run_begins_and_when_a_file_changed(
    fit: Fit, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shutil.copytree(corpus, tmp_path / "data")
    keys = ["data.init_args.dataset", data, "trainer.max_steps"]
    assert fit("run", *keys, 4) == 0

    def fail(self: Dataset) -> None:
        raise DataError("verified")

    monkeypatch.setattr(Dataset, "verify", fail)
    assert fit("run", *keys, 6) == 0
    assert fit("other", *keys, 6) == 3
    shard = next(data.glob("train*.arrow"))
    shard.write_bytes(shard.read_bytes())
    assert fit("run", *keys, 8) == 3


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.init_args.depth", 0, "depth=0 must be at least 1"),
        ("data.init_args.context", 10**6, "fewer than global_batch_size"),
        ("trainer.gradient_clip_algorithm", "foo", "gradient_clip_algorithm"),
    ],
)
def test_an_invalid_setting_is_a_one_line_error(
    fit: Fit, key: str, value: object, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fit("impossible", key, value) == 2
    [line] = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("Seed")]
    assert message in line
    assert key.startswith("trainer") or not (tmp_path / "runs" / "impossible").exists()
