"""The run's journal as a Lightning logger.

Only rank zero writes. On a full disk training continues, and its records wait in memory until there is space.
"""

import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Trainer
from lightning.pytorch.loggers.logger import Logger
from PIL.Image import Image

from pipeline.evaluation.plots.spectrogram import Shown
from pipeline.runs.journal import JournalWriter


def journal_fault(trainer: Trainer, fault: Mapping[str, object], step: int | None = None) -> None:
    """Write a fault of a step (default: this one), and the action taken, to the trainer's journal."""
    for logger in trainer.loggers:
        if isinstance(logger, JournalLogger):
            logger.log_fault(fault, trainer.global_step if step is None else step)


class JournalLogger(Logger):
    """Writes `journal.jsonl` of the run directory `run`.

    The metrics `tokens` and `seconds` are the clock of the run and become fields of the record. Rows without them,
    such as those of a validation, carry the last known values.

    Args:
        run: directory of the run.
        tokens: training tokens consumed before this attempt.
        seconds: training time before this attempt, summed over attempts.
    """

    def __init__(self, run: Path, tokens: int = 0, seconds: float = 0.0) -> None:
        super().__init__()
        self.run = run
        self.tokens = tokens
        self.seconds = seconds
        self.attempt = 1
        self._writer: JournalWriter | None = None
        self._waiting: deque[Callable[[JournalWriter], None]] = deque()
        self._warned = False

    @property
    def name(self) -> str:
        """Name of the run: that of its directory."""
        return self.run.name

    @property
    def version(self) -> int:
        """Number of the attempt."""
        return self.attempt

    @rank_zero_only
    def start_attempt(self, number: int, step: int) -> None:
        """Begin attempt `number` after `step` optimizer steps; rows of earlier attempts beyond it are superseded."""
        self.attempt = number
        self._write(lambda journal: journal.attempt(number, step, self.tokens, self.seconds))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write one row at `step` optimizer steps; see the class for `tokens` and `seconds`."""
        values = dict(metrics)
        self.tokens = int(values.pop("tokens", self.tokens))
        self.seconds = float(values.pop("seconds", self.seconds))
        clock = (self.attempt, step or 0, self.tokens, self.seconds)
        if values:
            self._write(lambda journal: journal.metrics(*clock, values))

    @rank_zero_only
    def log_samples(self, samples: Sequence[Mapping[str, str]], step: int) -> None:
        """Write generated texts, each `{"prompt": ..., "text": ...}`, at `step` optimizer steps."""
        clock = (self.attempt, step, self.tokens, self.seconds)
        self._write(lambda journal: journal.samples(*clock, samples))

    @rank_zero_only
    def log_fault(self, fault: Mapping[str, object], step: int) -> None:
        """Write a fault at `step` optimizer steps and the action taken."""
        clock = (self.attempt, step, self.tokens, self.seconds)
        self._write(lambda journal: journal.fault(*clock, fault))

    @rank_zero_only
    def log_event(self, kind: str, fields: Mapping[str, object], step: int) -> None:
        """Write another event at `step` optimizer steps, such as a published checkpoint."""
        clock = (self.attempt, step, self.tokens, self.seconds)
        self._write(lambda journal: journal.event(kind, *clock, fields))

    @rank_zero_only
    def log_pictures(self, pictures: Sequence[Image], step: int, name: str = "attention") -> None:
        """Save images, of attention or of something else, under `pictures/` of the run."""
        named = enumerate(pictures, 1)
        self._keep({f"{name}/{number}": (".png", picture.save) for number, picture in named}, step)

    @rank_zero_only
    def log_sounds(self, sounds: Sequence[Shown], step: int) -> None:
        """Save sounds and their spectrograms under `pictures/` of the run."""
        drawn: dict[str, tuple[str, Callable[[Path], object]]] = {}
        for number, sound in enumerate(sounds, 1):
            drawn[f"sounds/{number}"] = ".wav", sound.save
            drawn[f"spectrograms/{number}"] = ".png", sound.picture.save
        self._keep(drawn, step)

    @rank_zero_only
    def log_drawing(self, name: str, svg: str, step: int) -> None:
        """Save a drawing under `pictures/` of the run."""
        self._keep({name: (".svg", lambda file: file.write_text(svg))}, step)

    def _keep(self, drawn: Mapping[str, tuple[str, Callable[[Path], object]]], step: int) -> None:
        """Write files, each given by a suffix and a function that writes it, and record their names in the journal."""
        files = {name: f"pictures/step-{step:08d}-{name.replace('/', '-')}{drawn[name][0]}" for name in drawn}

        def keep(journal: JournalWriter) -> None:
            (self.run / "pictures").mkdir(exist_ok=True)
            for name, (_, write) in drawn.items():
                write(self.run / files[name])
            journal.event("pictures", self.attempt, step, self.tokens, self.seconds, {"pictures": files})

        self._write(keep)

    @rank_zero_only
    def log_hyperparams(self, *args: object, **kwargs: object) -> None:
        """Do nothing: `config.yaml` of the run holds the whole config."""

    @rank_zero_only
    def flush(self) -> None:
        """Write the records that wait for space on the disk.

        Raises:
            OSError: the disk is still full; the records continue to wait.
        """
        if self._waiting and self._writer is None:
            self._writer = JournalWriter(self.run)
        while self._waiting:
            assert self._writer is not None
            self._waiting[0](self._writer)
            self._waiting.popleft()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Flush the journal to disk and close it; a later row opens it again."""
        try:
            self.flush()
        except OSError as error:
            warnings.warn(f"the journal lacks its last {len(self._waiting)} records: {error}", stacklevel=3)
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _write(self, record: Callable[[JournalWriter], None]) -> None:
        self._waiting.append(record)
        try:
            self.flush()
        except OSError as error:
            if not self._warned:
                warnings.warn(f"records of the journal wait in memory, training continues: {error}", stacklevel=3)
            self._warned = True
