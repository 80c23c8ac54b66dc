"""Steps with non-finite loss or gradient are skipped, with any number of processes and any strategy."""

import re
import signal
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch

from pipeline.data.batch_plan import Contiguous
from pipeline.dataset.manifest import Dataset
from pipeline.distributed.checkpoint.directory import checkpoint_name, read_state
from pipeline.runs import journal
from pipeline.tasks.language_model import LanguageModel
from tests.distributed.fixture_types import Fit
from tests.sweep import also

CLASS = '{{"class_path": "pipeline.distributed.strategies.{}"}}'
STRATEGIES = {"one": "auto", "ddp": "ddp", "fsdp": CLASS.format("FullySharded")}
STRATEGIES |= {
    f"zero{stage}": f'{{"class_path": "pipeline.distributed.strategies.ZeRO", "init_args": {{"stage": {stage}}}}}'
    for stage in (1, 2, 3)
}
EVERY = ["checkpoints.every_steps", 1, "checkpoints.keep_last", 20, "checkpoints.background", "false"]
Corruption = Callable[[LanguageModel, torch.Tensor], torch.Tensor]


def loss_is_nan(task: LanguageModel, loss: torch.Tensor) -> torch.Tensor:
    return loss * torch.nan


def gradient_is_nan(task: LanguageModel, loss: torch.Tensor) -> torch.Tensor:
    return loss + (task.output.bias.sum() * 0).sqrt()  # the derivative of the square root at zero is infinite


def loss_is_high(task: LanguageModel, loss: torch.Tensor) -> torch.Tensor:
    return loss * 100


@pytest.fixture
def corrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`corrupt(how, STEP, ...)` makes the loss of those steps, counted from 0, invalid on the last process."""
    straight = LanguageModel.training_step

    def corrupt(how: Corruption, *steps: int) -> None:
        def training_step(self: LanguageModel, batch: object, batch_idx: int) -> torch.Tensor:
            loss = straight(self, batch, batch_idx)
            last = self.trainer.global_rank == self.trainer.world_size - 1
            return how(self, loss) if last and batch.step in steps else loss

        monkeypatch.setattr(LanguageModel, "training_step", training_step)

    return corrupt


def on(strategy: str) -> list[object]:
    if strategy.startswith("zero"):
        pytest.importorskip("deepspeed")
    return ["trainer.strategy", STRATEGIES[strategy], "trainer.devices", 1 if strategy == "one" else 2]


def leaves_of(run: str, step: int, *parts: str) -> dict[str, object]:
    """Return the leaves of a step's checkpoint by path: all training state, or only the given parts."""
    state = read_state(Path("runs") / run / "checkpoints" / checkpoint_name(step))
    chosen = {part: state.get(part) for part in parts or ("state_dict", "optimizer_states", "carried", "seen")}
    found, _ = torch.utils._pytree.tree_flatten_with_path(chosen)
    return {torch.utils._pytree.keystr(path): leaf for path, leaf in found}


def different(one: dict[str, object], two: dict[str, object]) -> list[str]:
    """Return the names of leaves that are different."""
    assert one.keys() == two.keys()
    equal = {
        name: torch.equal(a, two[name]) if isinstance(a, torch.Tensor) else a == two[name] for name, a in one.items()
    }
    return [name for name, yes in equal.items() if not yes]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "how"),
    [
        *product(STRATEGIES, [gradient_is_nan]),
        ("ddp", loss_is_nan),
        *also(*product([name for name in STRATEGIES if name != "ddp"], [loss_is_nan])),
    ],
)
def test_a_skipped_step_changes_nothing(
    fit: Fit,
    corrupt: Callable[..., None],
    strategy: str,
    how: Callable[[LanguageModel, torch.Tensor], torch.Tensor],
    corpus: Path,
) -> None:
    corrupt(how, 3)
    keys = ["trainer.max_steps", 6, "trainer.gradient_clip_val", 1.0]
    keys += ["data.init_args.per_device_batch_size", 4, "trainer.val_check_interval", 1000]
    assert fit("corrupted", *on(strategy), *keys, *EVERY, "trainer.log_every_n_steps", 100) == 0
    assert different(leaves_of("corrupted", 3), leaves_of("corrupted", 4)) == []
    assert different(leaves_of("corrupted", 2), leaves_of("corrupted", 3)) != []
    assert different(leaves_of("corrupted", 4), leaves_of("corrupted", 5)) != []
    assert all(bool(each.isfinite().all()) for each in leaves_of("corrupted", 6, "state_dict").values())
    [fault] = journal.read_journal(Path("runs/corrupted")).faults()
    words = "loss" if how is loss_is_nan else "gradient"
    assert (fault["step"], fault["why"]) == (4, f"the {words} is not finite")
    windows = Dataset.open(corpus).splits["train"].tokens // 16
    assert sorted(fault["ids"]) == sorted(Contiguous(windows, 16).batch(0, 3).tolist())


OPTIMIZERS = {
    "fused AdamW": '{"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01, "fused": true}}',
    "SGD": '{"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}}',
}
AVERAGE = "pipeline.callbacks.averaging.ExponentialAverage"


@pytest.mark.parametrize(
    ("strategy", "optimizer"), [("one", "SGD"), ("one", "fused AdamW"), ("ddp", "fused AdamW"), ("fsdp", "fused AdamW")]
)
def test_what_is_trained_does_not_depend_on_when_the_host_learns_of_a_skipped_step(
    fit: Fit, corrupt: Callable[..., None], strategy: str, optimizer: str
) -> None:
    corrupt(loss_is_nan, 0, 3, 8, 9)
    keys = [*on(strategy), "model.init_args.optimizer", OPTIMIZERS[optimizer], "trainer.gradient_clip_val", 1.0]
    keys += ["trainer.val_check_interval", 1000, "trainer.log_every_n_steps", 1000, "guard.patience", 3]
    keys += [] if strategy == "fsdp" else ["trainer.callbacks", f'[{{"class_path": "{AVERAGE}"}}]']
    assert fit("at_once", *keys, *EVERY) == 0
    assert fit("later", *keys, "checkpoints.every_steps", "null") == 0
    parts = ("state_dict", "optimizer_states", "carried", "seen", "callbacks", "averaged")
    one, two = (leaves_of(run, 14, *parts) for run in ("at_once", "later"))
    assert [name for name in different(one, two) if not re.search("Monitor.*seconds", name)] == []
    faults, later = (
        [(each["step"], each["fault"], each["ids"]) for each in journal.read_journal(Path("runs") / run).faults()]
        for run in ("at_once", "later")
    )
    assert faults == later
    assert [step for step, *_ in faults] == [1, 4, 9, 10, 12]  # the second epoch begins with step 12
    assert different(leaves_of("at_once", 3), leaves_of("at_once", 4)) == []
    assert different(leaves_of("at_once", 4), leaves_of("at_once", 5)) != []


@pytest.mark.parametrize("strategy", ["one", "fsdp", "zero3", *also("ddp", "zero2")])
@pytest.mark.slow
def test_after_its_patience_a_run_rolls_back_and_skips_the_data(
    fit: Fit, corrupt: Callable[..., None], strategy: str
) -> None:
    """The first layer is frozen."""
    corrupt(loss_is_nan, 7, 8)
    keys = [*on(strategy), *EVERY, "guard.patience", 2, "freeze", "*.0.*"]
    assert fit("straight", *keys) == 0
    assert different(leaves_of("straight", 6, "state_dict"), leaves_of("straight", 9, "state_dict")) == []
    assert different(leaves_of("straight", 7, "state_dict"), leaves_of("straight", 9, "state_dict")) != []
    *refused, back = journal.read_journal(Path("runs/straight")).faults()
    assert [fault["step"] for fault in refused] == [8, 9]
    assert (back["step"], back["weights_of_step"], back["passed_over"]) == (9, 6, 3)
    assert fit("killed", *keys, die=(signal.SIGTERM, 7)) == 75  # saves after the first skipped step
    assert fit("killed", *keys, die=(signal.SIGKILL, 11)) == 128 + signal.SIGKILL
    assert fit("killed", *keys) == 0
    assert different(leaves_of("straight", 14), leaves_of("killed", 14)) == []
    last = read_state(Path("runs/straight/checkpoints") / checkpoint_name(14))
    assert last["global_step"] == 14
    assert journal.read_journal(Path("runs/straight")).last("train/skipped_steps") == 2


def test_a_spike_is_skipped_if_configured(fit: Fit, corrupt: Callable[..., None]) -> None:
    corrupt(loss_is_high, 9)
    quiet = ["trainer.log_every_n_steps", 100]  # a row of the journal resets the sums
    assert fit("taken", *EVERY, *quiet) == 0
    assert fit("refused", *EVERY, "guard.spike", 20, "guard.window", 7, *quiet) == 0
    assert journal.read_journal(Path("runs/taken")).faults() == []
    [fault] = journal.read_journal(Path("runs/refused")).faults()
    assert fault["step"] == 10
    assert "spike" in fault["why"]
    assert different(leaves_of("refused", 9), leaves_of("refused", 10)) == []
    assert different(leaves_of("taken", 9), leaves_of("taken", 10)) != []


def test_a_run_that_cannot_roll_back_ends_with_its_own_exit_code(
    fit: Fit, corrupt: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    corrupt(loss_is_nan, *range(3, 14))
    assert fit("lost", "trainer.devices", 2, "guard.patience", 2, "checkpoints.every_steps", 1) == 6
    printed = capfd.readouterr()
    assert "rolled back to the weights of step 2" in printed.out
    assert "Lower the learning rate" in printed.err


def test_two_processes_skip_a_step_that_is_invalid_on_one(fit: Fit, corrupt: Callable[..., None]) -> None:
    corrupt(loss_is_nan, 3)
    assert fit("corrupted", "trainer.devices", 2, "trainer.max_steps", 5, *EVERY, "trainer.log_every_n_steps", 100) == 0
    assert different(leaves_of("corrupted", 3), leaves_of("corrupted", 4)) == []
    assert different(leaves_of("corrupted", 4), leaves_of("corrupted", 5)) != []
