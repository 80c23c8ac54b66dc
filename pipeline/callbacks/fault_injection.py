"""Fault injection: a process sends itself a signal at a chosen moment, to test that a run survives it.

SIGTERM requests the run to save and stop; SIGKILL ends the process like a power loss.
"""

import os
import signal
import sys

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from pipeline.distributed.checkpoint.directory import checkpoint_name


class Interrupt(Callback):
    """Sends a signal to one process of a run; subclasses define when.

    Args:
        number: number of the signal.
        rank: rank of the process that sends the signal to itself.
    """

    def __init__(self, number: int, rank: int = 0) -> None:
        self.number, self.rank = number, rank

    @property
    def graceful(self) -> bool:
        """Whether the run can save before it stops; otherwise it is killed."""
        return self.number != signal.SIGKILL

    def fire(self) -> None:
        """Send the signal."""
        os.kill(os.getpid(), self.number)

    def config(self) -> dict[str, object]:
        """Return the entry of a config for this callback."""
        return {"class_path": f"{type(self).__module__}.{type(self).__name__}", "init_args": vars(self)}

    def __str__(self) -> str:
        return f"{signal.Signals(self.number).name} to process {self.rank} {self.moment}"

    @property
    def moment(self) -> str:
        """The moment of the signal, in words."""
        raise NotImplementedError


class BeforeBatch(Interrupt):
    """Before a micro-batch of training.

    Args:
        number: number of the signal.
        rank: rank of the process that sends the signal to itself.
        step: completed optimizer steps.
        slot: completed micro-batches of the next step.
    """

    def __init__(self, number: int, rank: int = 0, step: int = 0, slot: int = 0) -> None:
        super().__init__(number, rank)
        self.step, self.slot = step, slot

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        now = (trainer.global_rank, trainer.global_step, batch_idx % trainer.accumulate_grad_batches)
        if now == (self.rank, self.step, self.slot):
            self.fire()

    @property
    def moment(self) -> str:
        within = f", micro-batch {self.slot + 1}" if self.slot else ""
        return f"before step {self.step + 1}{within}"


class WhileValidating(Interrupt):
    """Before a batch of a validation.

    Args:
        number: number of the signal.
        rank: rank of the process that sends the signal to itself.
        step: completed optimizer steps.
        batch: completed batches of the validation.
    """

    def __init__(self, number: int, rank: int = 0, step: int = 0, batch: int = 0) -> None:
        super().__init__(number, rank)
        self.step, self.batch = step, batch

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if (trainer.global_rank, trainer.global_step, batch_idx) == (self.rank, self.step, self.batch):
            self.fire()

    @property
    def moment(self) -> str:
        return f"in the validation after step {self.step}, before batch {self.batch + 1}"


class WhileSaving(Interrupt):
    """Before Python's next operation on a file of a checkpoint that is being written.

    Args:
        number: number of the signal.
        rank: rank of the process that sends the signal to itself.
        step: step of the checkpoint.
        done: completed operations on its files: open, rename, make, list or remove.
    """

    def __init__(self, number: int, rank: int = 0, step: int = 0, done: int = 0) -> None:
        super().__init__(number, rank)
        self.step, self.done = step, done

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install an audit hook that counts file operations; audit hooks cannot be removed."""
        if trainer.global_rank != self.rank:
            return
        partial, seen = f".{checkpoint_name(self.step)}.partial", 0

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal seen
            if event.startswith(("open", "os.", "shutil.")) and any(partial in str(each) for each in arguments):
                seen += 1
                if seen == self.done + 1:
                    self.fire()

        sys.addaudithook(watch)

    @property
    def moment(self) -> str:
        return f"while it saves step {self.step}, after {self.done} file operations"
