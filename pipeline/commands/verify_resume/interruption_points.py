"""The points at which the runs of a trial are interrupted: chosen error-prone ones, and random ones."""

import random
import signal
from collections.abc import Iterator
from typing import NamedTuple

from pipeline.callbacks.fault_injection import BeforeBatch, Interrupt, WhileSaving, WhileValidating
from pipeline.errors import ConfigError

TERM, KILL = int(signal.SIGTERM), int(signal.SIGKILL)
SAVING = 12  # minimum number of file operations per checkpoint in the first process


class Lengths(NamedTuple):
    """The lengths of a trial in optimizer steps, short enough to include epochs, validations and checkpoints."""

    run: int
    epoch: int
    validation: int
    checkpoint: int

    @classmethod
    def of(cls, steps: int) -> "Lengths":
        """Return lengths with more than two epochs and at least three validations and checkpoints per run.

        Raises:
            ConfigError: there are too few steps.
        """
        if steps < 8:
            raise ConfigError(f"--steps={steps}: expected at least 8")
        return cls(steps, 2 * steps // 5, steps // 3, steps // 4)

    def keys(self) -> list[str]:
        """Return the options of `unroll fit`."""
        keys = {
            "max_steps": self.run,
            "max_epochs": -1,
            "max_time": "null",
            "val_check_interval": self.validation,
            "check_val_every_n_epoch": "null",
            "limit_train_batches": self.epoch,
            "limit_val_batches": 3,
            "log_every_n_steps": 2,
        }
        saves = [f"--checkpoints.every_steps={self.checkpoint}", "--checkpoints.every_minutes=null"]
        return [*(f"--trainer.{name}={value}" for name, value in keys.items()), *saves]


def draw_interruptions(chance: random.Random, lengths: Lengths, size: int, slots: int) -> Iterator[list[Interrupt]]:
    """Yield interruptions at error-prone points, in randomly drawn processes.

    Args:
        chance: random generator.
        lengths: lengths of the run.
        size: number of processes.
        slots: micro-batches per step.
    """

    def rank() -> int:
        return chance.randrange(size)

    middle, late = lengths.run // 2, lengths.run - 2
    yield [BeforeBatch(TERM, rank(), middle)]
    yield [BeforeBatch(KILL, rank(), middle + 1)]
    yield [BeforeBatch(TERM, rank(), lengths.epoch - 1)]  # exits at the end of the first epoch
    yield [BeforeBatch(KILL, rank(), 2 * lengths.epoch)]  # before the first step of the third epoch
    if slots > 1:
        yield [BeforeBatch(TERM, rank(), middle, slot=1)]
        yield [BeforeBatch(KILL, rank(), middle, slot=1)]
    yield [WhileValidating(TERM, rank(), lengths.validation)]
    yield [WhileValidating(KILL, rank(), 2 * lengths.validation)]
    yield [WhileSaving(KILL, 0, lengths.checkpoint, done=SAVING // 2)]
    yield [BeforeBatch(TERM, rank(), 2), BeforeBatch(KILL, rank(), middle + 1), BeforeBatch(TERM, rank(), late)]


def drawn(chance: random.Random, lengths: Lengths, size: int, slots: int, count: int) -> Iterator[list[Interrupt]]:
    """Yield `count` interruptions at random points of a run."""
    for _ in range(count):
        number, rank = chance.choice([TERM, KILL]), chance.randrange(size)
        step, slot = chance.randrange(1, lengths.run), chance.randrange(slots)
        validated = lengths.validation * chance.randrange(1, lengths.run // lengths.validation)
        saved = lengths.checkpoint * chance.randrange(1, lengths.run // lengths.checkpoint)
        kinds: list[Interrupt] = [
            BeforeBatch(number, rank, step, slot),
            WhileValidating(number, rank, validated),
            WhileSaving(KILL, 0, saved, chance.randrange(SAVING)),
        ]
        yield [chance.choice(kinds)]
