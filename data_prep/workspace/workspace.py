"""The life of a preparation: it works in a hidden directory, keeps what is done, and publishes all at once.

Whenever a stretch of the work is done, the shards of all splits are closed and noted in a state file. A
preparation that was killed drops what is not noted, reads over the pieces that are done, and goes on: the
result is the same.
"""

import fcntl
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.dataset.manifest import TOKENIZER, publish
from pipeline.errors import DataError, UserError
from pipeline.files import write_durably

SPLITS = ("train", "validation", "test")


@dataclass
class State:
    """How far a preparation is: enough to go on with it, if the command and the sources are the same."""

    command: dict[str, Any]
    sources: list[Any] = field(default_factory=list)
    pieces: int = 0
    records: dict[str, Any] = field(default_factory=dict)
    """What is written of each split; each modality has a form of its own."""


class Workplace:
    """The hidden directory in which a dataset comes about.

    Args:
        target: the name that the dataset will have.
        command: the options that shape the result; work done under others is thrown away.
    """

    def __init__(self, target: Path, command: dict[str, Any]) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}.partial")
        self.work = self.path / "work"
        self.tokenizer = self.path / TOKENIZER
        self.state = State(command)

    @contextmanager
    def entered(self, anew: bool = False) -> Iterator[None]:
        """Hold the directory for this process alone, with what an earlier start of the same command left there.

        Args:
            anew: nothing of an earlier start is kept.

        Raises:
            DataError: it cannot be written or another process works there.
        """
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            with (self.work / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._recall()
                if anew:
                    self.forget()
                yield
        except UserError:
            if not self.state.pieces:
                shutil.rmtree(self.path)  # there is nothing to continue
            raise
        except BlockingIOError as error:
            raise DataError(f"{self.target} is being prepared by another process; wait for it") from error
        except OSError as error:
            raise DataError(f"{error.filename or self.path} cannot be written: {error.strerror or error}") from error

    def _recall(self) -> None:
        """Load the state of an earlier start of this command; else clean up."""
        try:
            kept = json.loads((self.work / "state.json").read_text())
            state = State(**kept)
        except (OSError, ValueError, TypeError):
            state = State({})
        if state.command == self.state.command:
            self.state = state
            return
        self.forget()
        for file in self.work.iterdir():
            if file.name != "lock":
                file.unlink()

    def begin(self, sources: list[Any]) -> None:
        """Note what is read; what was done of other sources is thrown away.

        Args:
            sources: what tells whether they have changed.
        """
        if self.state.sources and self.state.sources != sources:
            print("the sources have changed since the preparation was stopped: starting anew", file=sys.stderr)
            self.forget()
        self.state.sources = sources
        self.remember()

    def forget(self) -> None:
        """Throw away what was encoded."""
        self.state = State(self.state.command)
        for file in self.path.iterdir():
            if file.is_file():
                file.unlink()

    def remember(self) -> None:
        """Note what is finished."""
        text = json.dumps(asdict(self.state))
        write_durably(self.work / "state.json", lambda path: path.write_text(text))

    def save(self, tokenizer: Any, name: str = TOKENIZER) -> Path:
        """Write a tokenizer beside the shards and return its file."""
        write_durably(self.path / name, lambda path: tokenizer.save(str(path)))
        return self.path / name

    def publish(self, manifest: dict[str, Any], report: dict[str, Any], overwrite: bool) -> None:
        """Give the finished dataset its name; nothing of the work is left."""
        text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
        write_durably(self.path / "report.json", lambda path: path.write_text(text, encoding="utf-8"))
        shutil.rmtree(self.work)
        publish(self.path, self.target, manifest, overwrite)


def train_once(place: Workplace, train: Callable[[], Any]) -> None:
    """Have the tokenizer made, unless an earlier start of this preparation did."""
    if not place.tokenizer.exists():
        place.save(train())
