"""Progress on a terminal: one bar for the whole run with its rate and the time left, a line for each validation."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from pipeline.callbacks.progress_lines import told
from pipeline.callbacks.train_metrics import Monitor

LOOKS = 4  # times a second that the bar is drawn


class Bar(Callback):
    """Shows how far training is, and evaluations while they last.

    Args:
        monitor: whose newest row is shown.
        console: where to.
    """

    def __init__(self, monitor: Monitor, console: Console) -> None:
        self.monitor, self.console = monitor, console
        self.progress: Progress | None = None
        self.training: TaskID | None = None
        self.total: int | None = None  # steps of the run, where there is an end
        self.evaluating: TaskID | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Begin where the run stands."""
        if trainer.is_global_zero:
            self.total = pl_module.total_steps or None
            doing = self._doing(trainer)
            self.training = self._drawn().add_task(doing, total=self.total, completed=trainer.global_step, said="")

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.progress is None or self.training is None:
            return
        said, row = "", self.monitor.latest
        if "train/loss" in row:
            said = f"loss {row['train/loss']:.2f} "
            said += f"perplexity {row['train/perplexity']:,.4g} " if "train/perplexity" in row else ""
            said += f"{row['train/tokens_per_second']:,.0f} tokens/s"
        self.progress.update(self.training, completed=trainer.global_step, description=self._doing(trainer), said=said)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._open(trainer, "validation", sum(trainer.num_val_batches))

    def on_validation_batch_end(self, *_: Any) -> None:
        self._step()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Say what was found, above the bar."""
        self._close()
        if trainer.is_global_zero and trainer.state.fn == "fit":
            self.console.print(told(trainer), highlight=False)

    def on_test_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._open(trainer, "test", sum(trainer.num_test_batches))

    def on_test_batch_end(self, *_: Any) -> None:
        self._step()

    def on_test_end(self, *_: Any) -> None:
        self._close()

    def teardown(self, *_: Any, **__: Any) -> None:
        """Leave the terminal as it was."""
        if self.progress is not None:
            self.progress.stop()
        self.progress = self.training = self.evaluating = None

    on_exception = teardown

    def _drawn(self) -> Progress:
        if self.progress is None:
            text = TextColumn("{task.description}", markup=False)
            said = TextColumn("{task.fields[said]}", markup=False)
            left = TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True, min_width=5))
            columns = (text, BarColumn(None), said, left, TextColumn("left"))
            self.progress = Progress(
                *columns, console=self.console, transient=True, expand=True, refresh_per_second=LOOKS
            )
            self.progress.start()
        return self.progress

    def _doing(self, trainer: pl.Trainer) -> str:
        of = f"/{self.total:,}" if self.total else ""
        return f"epoch {trainer.current_epoch} step {trainer.global_step:,}{of}"

    def _open(self, trainer: pl.Trainer, doing: str, batches: int | float) -> None:
        if trainer.is_global_zero:
            self.evaluating = self._drawn().add_task(doing, total=batches, said="")

    def _step(self) -> None:
        if self.progress is not None and self.evaluating is not None:
            self.progress.advance(self.evaluating)

    def _close(self) -> None:
        if self.progress is not None and self.evaluating is not None:
            self.progress.remove_task(self.evaluating)
        self.evaluating = None
