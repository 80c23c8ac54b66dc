"""A Weights & Biases logger that an outage cannot hurt: it warns once, waits a minute, tries again.

Lightning's own `WandbLogger` lets every exception of the client through to the training and names the steps
`trainer/global_step`; this one differs in these two things and logs a table of generated samples.
"""

import os
import re
import time
import warnings
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning.fabric.loggers.logger import _DummyExperiment, rank_zero_experiment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers.wandb import WandbLogger

WAIT = 60.0  # seconds of silence after a failure
SAMPLES_SHOWN = 64  # rows of the table of samples: each logging sends the whole table


def settings() -> Any:
    """Settings of the client: silent, no capture of the terminal, done within a grace period."""
    import wandb

    return wandb.Settings(
        silent=True,
        show_errors=False,
        console="off",
        disable_git=True,  # the commit is in the config; a remote's address may hold a password
        save_code=False,
        init_timeout=30,
        finish_timeout=15,  # an upload must not outlive the grace period after a signal
    )


class PatientWandbLogger(WandbLogger):
    """Logs rows that carry their own `step`, so that going back to an earlier checkpoint loses none.

    The client drops rows whose step (its own argument) goes backwards; here `step` is a column like any other
    and declared as the x axis. Arguments are those of `WandbLogger`.
    """

    _quiet_until = 0.0
    _warned = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._wandb_init.pop("anonymous")  # the client complains of it, even of none
        self._samples: deque[list[Any]] = deque(maxlen=SAMPLES_SHOWN)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The client's run, started on first use; one that ignores every call while it cannot be started."""
        if self._experiment is None and time.monotonic() >= self._quiet_until:
            try:
                self._experiment = self._start()
            except Exception as error:
                self._failed(error)
        return _DummyExperiment() if self._experiment is None else self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log one row at `step` optimizer steps."""
        row = dict(metrics) if step is None else {**metrics, "step": step}
        self._send(lambda run: run.log(row))

    @rank_zero_only
    def log_samples(self, samples: Sequence[Mapping[str, str]], step: int) -> None:
        """Log the table of the latest texts, each `{"prompt": ..., "text": ...}`, with their steps."""
        self._samples.extend([step, sample["prompt"], sample["text"]] for sample in samples)

        def send(run: Any) -> None:
            import wandb

            table = wandb.Table(columns=["step", "prompt", "text"], data=list(self._samples))
            run.log({"samples": table, "step": step})

        self._send(send)

    @rank_zero_only
    def log_pictures(self, pictures: Sequence[Any], step: int) -> None:
        """Log images of Pillow, such as those of attention."""

        def send(run: Any) -> None:
            import wandb

            named = {f"attention/{number}": wandb.Image(picture) for number, picture in enumerate(pictures, 1)}
            run.log({**named, "step": step})

        self._send(send)

    @rank_zero_only
    def log_drawing(self, name: str, svg: str, step: int) -> None:
        """Log a drawing at `step` optimizer steps."""

        def send(run: Any) -> None:
            import wandb

            run.log({name: wandb.Html(svg, inject=False), "step": step})

        self._send(send)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Nothing: the whole config was logged when the run started."""

    @rank_zero_only
    def finish(self, exit_code: int = 0) -> None:
        """Close the client's run and wait until all of it is on the disk; a later row would open it again."""
        run, self._experiment = self._experiment, None
        if run is None:
            return
        import wandb

        closing: tuple[Callable[[], Any], ...] = (lambda: run.finish(exit_code=exit_code), wandb.teardown)
        for close in closing:
            try:
                close()  # the client's process may still be writing after the first: the second waits for it
            except Exception as error:
                self._failed(error)

    def _start(self) -> Any:
        import wandb

        try:
            run = wandb.init(**self._wandb_init)
        except Exception as error:
            if self._wandb_init["mode"] == "offline":
                raise
            self._warn(f"Weights & Biases cannot be reached, recording offline: {describe(error)}")
            wandb.teardown()  # the client's process still holds the id of the run that it could not start
            self._wandb_init["mode"] = "offline"
            run = wandb.init(**self._wandb_init)
        run.define_metric("*", step_metric="step")
        return run

    def _send(self, message: Callable[[Any], None]) -> None:
        if time.monotonic() < self._quiet_until:
            return
        try:
            message(self.experiment)
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._quiet_until = time.monotonic() + WAIT
        self._warn(f"Weights & Biases misses rows, training and the journal go on: {describe(error)}")

    def _warn(self, message: str) -> None:
        if not self._warned:
            warnings.warn(message, stacklevel=4)
        self._warned = True


def describe(error: Exception) -> str:
    """Type and message of an error, with whatever looks like an API key struck out."""
    text = f"{type(error).__name__}: {error}"
    key = os.environ.get("WANDB_API_KEY")
    text = text.replace(key, "***") if key else text
    return re.sub(r"\b(wandb_v\d\w+|[0-9a-f]{40,}|[^\s/@]+:[^\s/@]+(?=@))", "***", text)
