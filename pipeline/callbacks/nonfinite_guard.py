"""Skips optimizer steps with a non-finite loss or gradient, and rolls back after several in a row.

The processes agree before the optimizer steps, so all of them step or none does. A skipped step leaves weights,
optimizer and carried state as they were; its batch counts as read. A rollback loads weights and optimizer from a
checkpoint and continues with the next batch. The step number therefore always equals the number of batches read.
"""

import math
from dataclasses import dataclass
from statistics import median
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from pipeline.callbacks.averaging import WeightAverage
from pipeline.callbacks.checkpointing import Checkpoints
from pipeline.callbacks.optimizer_options import OptimizerOptions
from pipeline.callbacks.step_gate import Gate, is_on_device, kept, skips_itself
from pipeline.callbacks.step_vote import Ballot, Measured, StepVote
from pipeline.distributed import snapshot
from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.distributed.lightning_internals import accumulates, callbacks, log_interval
from pipeline.distributed.strategies.traits import traits
from pipeline.errors import CheckpointError, NonFiniteError
from pipeline.tracking.journal_logger import journal_fault

NORMAL = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
FLOOR = 1e-3  # smallest deviation, as a fraction of the median, so that nearly constant losses have no spikes


@dataclass(frozen=True)
class GuardSettings:
    """When a step is skipped, and when a run is rolled back.

    Args:
        patience: skipped steps in a row after which the run rolls back to its last good checkpoint.
        max_rollbacks: maximum number of rollbacks before the run fails.
        spike: also skip finite losses that exceed the median of the recent ones by this many robust standard
            deviations (Iglewicz and Hoaglin 1993, "How to Detect and Handle Outliers"); None accepts them.
        window: number of recent losses to compare with.

    Raises:
        ValueError: a number is too small.
    """

    patience: int = 5
    max_rollbacks: int = 3
    spike: float | None = None
    window: int = 100

    def __post_init__(self) -> None:
        patience, rollbacks, window, spike = self.patience, self.max_rollbacks, self.window, self.spike
        if patience < 1 or rollbacks < 0 or window < 3 or (spike is not None and spike <= 0):
            raise ValueError(
                f"patience={patience} must be at least 1, max_rollbacks={rollbacks} at least 0, "
                f"window={window} at least 3, spike={spike} above 0"
            )


class Guard(Callback):
    """Skips steps that would corrupt the weights.

    The device decides, and the host learns one step later that a step was skipped. It waits for the decision while
    steps are being skipped, and before it writes a row of the journal or a checkpoint. What is trained therefore does
    not depend on when it learns of it. It decides itself, in each step, where the device cannot: with `spike`, under
    ZeRO, and with an optimizer that keeps a part of its state on the host.

    Args:
        settings: when to skip and when to roll back.
        vote: the vote in which the processes agree.
        checkpoints: the checkpoints for rollbacks.
        options: the options of the optimizer, which a rollback keeps.
    """

    def __init__(
        self, settings: GuardSettings, vote: StepVote, checkpoints: Checkpoints, options: OptimizerOptions
    ) -> None:
        self.settings, self.vote, self.checkpoints, self.options = settings, vote, checkpoints, options
        self.recent: list[float] = []  # finite losses, nats per token over all processes
        self.refused, self.in_a_row, self.returned = 0, 0, 0
        self.good = -1  # rollbacks use checkpoints older than this step
        self.gate: Gate | None = None
        self._begin_step({}, {})

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Store the state that a skipped step must not change."""
        if batch_idx % trainer.accumulate_grad_batches == 0:
            seen = {name: value.clone() for name, value in pl_module.seen.metric_state.items()}
            self._begin_step(dict(pl_module.carried), seen)
        self.ids.append(batch.ids)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self.losses.append(loss.detach() / scaler.scale(torch.ones_like(loss)) if scaler else loss.detach())

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Optimizer) -> None:
        """Vote, on saving and stopping as well, and skip the step on the device if the result is not finite."""
        if accumulates(trainer):
            return
        loss, strategy, scaled = sum(self.losses[1:], self.losses[0]).float(), traits(trainer), _is_scaled(trainer)
        norm = torch.zeros_like(loss) if strategy.owns_gradients else pl_module.measure_gradient().float()
        result = self.vote.cast(trainer, loss, norm, self.ids)
        decisive = result[0] if scaled else result.sum()  # loss scaling overflows while it searches for its scale
        self.skip = (decisive * 0).ne(0)
        self.decides = self.settings.spike is not None or strategy.owns_gradients
        if self.decides or not is_on_device(optimizer, scaled):
            self.decides, ballot = True, self.vote.pending[-1]
            ballot.reason = self._judge(ballot.read(), scaled)
            if ballot.reason:
                self.skip = torch.ones_like(self.skip)
                if scaled and skips_itself(optimizer, scaled):  # the scaler has to see a gradient
                    self.gate = Gate(optimizer, self.skip, scaled)
                else:
                    strategy.refuse_step(pl_module)
        else:
            self.gate = Gate(optimizer, self.skip, scaled)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Restore what a skipped step must not change, log it, and roll back after too many in a row."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if traits(trainer).dropped_step and not _is_scaled(trainer):
            ballot = self.vote.pending[-1]
            ballot.values[1] = math.inf
            ballot.reason = ballot.reason or "the gradient is not finite"
            self.skip = torch.ones_like(self.skip)
        if self.gate is not None:
            self.gate.close()
            self.gate = None
        pl_module.carried = {
            slot: kept(self.skip, self.carried.get(slot), after) for slot, after in pl_module.carried.items()
        }
        for name, after in pl_module.seen.metric_state.items():
            torch.where(self.skip, self.seen[name], after, out=after)
        self.vote.answer(trainer)
        while self.vote.pending and (len(self.vote.pending) > 1 or self._waits(trainer)):
            self._conclude(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the votes that are left: the validation ends with a checkpoint."""
        while self.vote.pending:
            self._conclude(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the votes that are left."""
        self.on_validation_start(trainer, pl_module)

    def row(self) -> dict[str, float]:
        """Return, for the journal, the number of skipped steps since the run began."""
        return {"train/skipped_steps": float(self.refused)}

    def state_dict(self) -> dict[str, object]:
        counts = {"refused": self.refused, "in_a_row": self.in_a_row, "returned": self.returned, "good": self.good}
        return {**counts, "recent": list(self.recent)}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        self.__dict__.update(state_dict)
        self.vote.keeps_all = bool(self.in_a_row)

    def _begin_step(self, carried: dict[int, object], seen: dict[str, Tensor]) -> None:
        self.carried, self.seen = carried, seen
        self.losses: list[Tensor] = []
        self.ids: list[Tensor] = []  # samples read by this process in this step

    def _waits(self, trainer: pl.Trainer) -> bool:
        """Return whether the result of the last step is needed now; the same on every process."""
        every = log_interval(trainer)
        return (
            self.decides
            or self.in_a_row > 0
            or self.settings.patience == 1
            or bool(self.vote.requested)
            or self.checkpoints.saves_by_steps(trainer)
            or (every > 0 and trainer.global_step % every == 0)
        )

    def _conclude(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Read the oldest vote and act on it."""
        ballot, measured = self.vote.count()
        reason = self._judge(measured, _is_scaled(trainer)) if ballot.reason is None else ballot.reason
        if not reason:
            self.in_a_row, self.good, self.vote.keeps_all = 0, -1, False
            return
        self._count(trainer, ballot, measured, reason)
        if self.in_a_row >= self.settings.patience:
            self._roll_back(trainer, pl_module, reason)

    def _judge(self, measured: Measured, scaled: bool) -> str:
        """Return the reason to skip the step, or an empty string."""
        loss, norm, _ = measured
        if not math.isfinite(loss):
            return "the loss is not finite"
        spike, window = self.settings.spike, self.settings.window
        score, enough = self._score(loss), len(self.recent) == window
        if spike is not None:
            self.recent = [*self.recent, loss][-window:]
        if not math.isfinite(norm) and not scaled:  # loss scaling overflows while it searches for its scale
            return "the gradient is not finite"
        if spike is not None and enough and score > spike:
            return f"the loss is a spike ({score:.1f} robust standard deviations)"
        return ""

    def _score(self, loss: float) -> float:
        if not self.recent:
            return 0.0
        middle = median(self.recent)
        deviation = NORMAL * median(abs(value - middle) for value in self.recent)
        return (loss - middle) / max(deviation, FLOOR * abs(middle), 1e-12)

    def _count(self, trainer: pl.Trainer, ballot: Ballot, measured: Measured, reason: str) -> None:
        if not self.in_a_row:
            self.good = ballot.step - 1 if self.good < 0 else self.good
        self.refused, self.in_a_row = self.refused + 1, self.in_a_row + 1
        self.vote.keeps_all = True
        ids = [sample for part in self.vote.agreement.gather(ballot.samples()) for sample in part]
        values = {"loss": measured.loss, "gradient_norm": measured.norm}
        journal_fault(trainer, {"fault": "step_skipped", "why": reason, **values, "ids": ids}, ballot.step)
        if trainer.is_global_zero:
            print(f"step {ballot.step} skipped: {reason}; {self.in_a_row} in a row", flush=True)

    def _roll_back(self, trainer: pl.Trainer, pl_module: Any, reason: str) -> None:
        """Load weights and optimizer from the newest checkpoint before the first skipped step.

        Raises:
            NonFiniteError: no such checkpoint exists, or the maximum number of rollbacks is reached.
        """
        assert not self.vote.pending
        self.checkpoints.finish(trainer)
        chosen, *_ = self.vote.agreement.largest(self._choose() if trainer.is_global_zero else -1)
        if chosen < 0 or self.returned >= self.settings.max_rollbacks:
            why = f"the run was rolled back {self.returned} times" if chosen >= 0 else "no earlier checkpoint is left"
            raise NonFiniteError(
                f"{self.in_a_row} steps in a row were skipped up to step {trainer.global_step} ({reason}), and "
                f"{why}. Lower the learning rate, clip the gradient (trainer.gradient_clip_val), or inspect the "
                "samples listed in journal.jsonl"
            )
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        place = self.checkpoints.directory / checkpoint.checkpoint_name(chosen)
        state = snapshot.put_back(trainer, place)
        self.options.replace(trainer, pl_module, place)
        for group, rate in zip(trainer.optimizers[0].param_groups, rates, strict=True):
            group["lr"] = rate  # the schedule follows the data, which is not rolled back
        pl_module.carried = {}
        for callback in (each for each in callbacks(trainer) if isinstance(each, WeightAverage)):
            callback.on_load_checkpoint(trainer, pl_module, state)
            callback.load_state_dict(state["callbacks"].get(callback.state_key, {"count": 0}))
            callback.on_train_start(trainer, pl_module)
        self.in_a_row, self.returned, self.good = 0, self.returned + 1, chosen
        journal_fault(
            trainer, {"fault": "rolled_back", "weights_of_step": chosen, "passed_over": trainer.global_step - chosen}
        )
        if trainer.is_global_zero:
            print(f"step {trainer.global_step}: rolled back to the weights of step {chosen}", flush=True)

    def _choose(self) -> int:
        """Return the newest step before the first skipped one whose checkpoint is valid; -1 if there is none."""
        for path in checkpoint.newest_first(self.checkpoints.directory):
            if checkpoint.step_of(path) < self.good:
                try:
                    checkpoint.verify_checkpoint(path)
                except CheckpointError as error:
                    print(f"checkpoint skipped: {error}", flush=True)
                    continue
                return checkpoint.step_of(path)
        return -1


def _is_scaled(trainer: pl.Trainer) -> bool:
    """Return whether the loss is scaled for float16; the scaler then skips steps itself."""
    return str(trainer.precision).startswith("16")
