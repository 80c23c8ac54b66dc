"""Working directory of a preparation: hidden, resumable, and renamed to the dataset when it is complete.

At intervals the shards of all splits are closed and recorded in a state file. A preparation that was killed
discards unrecorded shards, skips the finished pieces of the sources and continues with the same result.
"""

import fcntl
import json
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.dataset.manifest import TOKENIZER, publish
from pipeline.errors import DataError, UserError
from pipeline.files import write_durably

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPLITS = ("train", "validation", "test")  # and test-NAME for each of several test sets


def ordered(names: Collection[str]) -> list[str]:
    """Return the names that are splits: train, validation, test, and test-NAME in alphabetical order."""
    return [*(name for name in SPLITS if name in names), *sorted(name for name in names if name.startswith("test-"))]


@dataclass
class State:
    """Progress of a preparation, from which the same command continues on the same sources."""

    command: dict[str, str]
    """Options that shape the result."""
    sources: list[object] = field(default_factory=list)
    """Fingerprints of the sources."""
    pieces: int = 0
    """Finished pieces of work."""
    records: dict[str, Any] = field(default_factory=dict)
    """Contents written so far, in a form that depends on the modality."""


class Workplace:
    """The hidden working directory of a preparation.

    Args:
        target: path of the finished dataset.
        command: options that shape the result; work of a command with other options is discarded.
    """

    def __init__(self, target: Path, command: dict[str, str]) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}.partial")
        self.work = self.path / "work"
        self.tokenizer = self.path / TOKENIZER
        self.state = State(command)

    @contextmanager
    def entered(self, fresh: bool = False) -> Iterator[None]:
        """Lock the directory for this process and load the state of an earlier start of the same command.

        Args:
            fresh: discard the work of an earlier start.

        Raises:
            DataError: the directory cannot be written, or another process uses it.
        """
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            with (self.work / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._load_state()
                if fresh:
                    self.discard()
                yield
        except UserError:
            if not self.state.pieces:
                shutil.rmtree(self.path)  # there is nothing to continue
            raise
        except BlockingIOError as error:
            raise DataError(
                f"{self.target} is being prepared by another process. Wait for it or choose another --output"
            ) from error
        except OSError as error:
            raise DataError(f"{error.filename or self.path} cannot be written: {error.strerror or error}") from error

    def _load_state(self) -> None:
        """Load the state of an earlier start of this command; remove the files of any other."""
        try:
            state = State(**json.loads((self.work / "state.json").read_text()))
        except (OSError, ValueError, TypeError):
            state = State({})
        if state.command == self.state.command:
            self.state = state
            return
        self.discard()
        for file in self.work.iterdir():
            if file.name != "lock":
                file.unlink()

    def begin(self, sources: Sequence[object]) -> None:
        """Record the sources; discard the work of an earlier start if they have changed since.

        Args:
            sources: fingerprints of the sources.
        """
        if self.state.sources and self.state.sources != list(sources):
            print("the sources have changed since the preparation was stopped: starting over", file=sys.stderr)
            self.discard()
        self.state.sources = list(sources)
        self.save_state()

    def discard(self) -> None:
        """Remove the shards and reset the progress."""
        self.state = State(self.state.command)
        for file in self.path.iterdir():
            if file.is_file():
                file.unlink()

    def save_state(self) -> None:
        """Write the progress to the state file."""
        text = json.dumps(asdict(self.state))
        write_durably(self.work / "state.json", lambda path: path.write_text(text))

    def save(self, tokenizer: "Tokenizer", name: str = TOKENIZER) -> Path:
        """Write a tokenizer beside the shards and return its file."""
        write_durably(self.path / name, lambda path: tokenizer.save(str(path)))
        return self.path / name

    def publish(self, manifest: Mapping[str, object], report: Mapping[str, object], overwrite: bool) -> None:
        """Write the manifest and the report, remove the work files and rename the directory to the dataset."""
        text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
        write_durably(self.path / "report.json", lambda path: path.write_text(text, encoding="utf-8"))
        shutil.rmtree(self.work)
        publish(self.path, self.target, manifest, overwrite)


def train_once(place: Workplace, train: Callable[[], "Tokenizer"]) -> None:
    """Train and save the tokenizer, unless an earlier start of this preparation has done so."""
    if not place.tokenizer.exists():
        place.save(train())
