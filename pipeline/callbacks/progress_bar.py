"""Progress on a terminal: one bar for the whole run with rate and time left, and a line per validation."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from pipeline.callbacks.progress_lines import validation_line
from pipeline.callbacks.train_metrics import Monitor

LOOKS = 4  # refreshes per second


class Bar(Callback):
    """Shows the progress of training, and of evaluations while they run.

    Args:
        monitor: source of the newest row.
        console: console to draw on.
    """

    def __init__(self, monitor: Monitor, console: Console) -> None:
        self.monitor, self.console = monitor, console
        self.progress: Progress | None = None
        self.training: TaskID | None = None
        self.total: int | None = None  # steps of the run, if limited
        self.evaluating: TaskID | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Show the bar at the current step of the run."""
        if trainer.is_global_zero:
            self.total = pl_module.total_steps or None
            doing = self._doing(trainer)
            self.training = self._started().add_task(doing, total=self.total, completed=trainer.global_step, row="")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: object) -> None:
        if self.progress is None or self.training is None:
            return
        text, row = "", self.monitor.latest
        if "train/loss" in row:
            text = f"loss {row['train/loss']:.2f} "
            text += f"perplexity {row['train/perplexity']:,.4g} " if "train/perplexity" in row else ""
            text += pl_module.data.unit.rate(row["train/tokens_per_second"])
        self.progress.update(self.training, completed=trainer.global_step, description=self._doing(trainer), row=text)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._open(trainer, "validation", sum(trainer.num_val_batches))

    def on_validation_batch_end(self, *_: object) -> None:
        self._step()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Print the metrics of the validation above the bar."""
        self._close()
        if trainer.is_global_zero and trainer.state.fn == "fit":
            self.console.print(validation_line(trainer, pl_module), highlight=False)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._open(trainer, "test", sum(trainer.num_test_batches))

    def on_test_batch_end(self, *_: object) -> None:
        self._step()

    def on_test_end(self, *_: object) -> None:
        self._close()

    def teardown(self, *_: object, **__: object) -> None:
        """Remove the bars from the terminal."""
        if self.progress is not None:
            self.progress.stop()
        self.progress = self.training = self.evaluating = None

    on_exception = teardown

    def _started(self) -> Progress:
        if self.progress is None:
            text = TextColumn("{task.description}", markup=False)
            row = TextColumn("{task.fields[row]}", markup=False)
            left = TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True, min_width=5))
            columns = (text, BarColumn(None), row, left, TextColumn("left"))
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
            self.evaluating = self._started().add_task(doing, total=batches, row="")

    def _step(self) -> None:
        if self.progress is not None and self.evaluating is not None:
            self.progress.advance(self.evaluating)

    def _close(self) -> None:
        if self.progress is not None and self.evaluating is not None:
            self.progress.remove_task(self.evaluating)
        self.evaluating = None
