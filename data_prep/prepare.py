"""The life of a preparation: it works in a hidden directory, keeps what is done, and publishes all at once.

Whenever a stretch of the text is encoded, the shards of all splits are closed and noted in a state file. A
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
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.encode import Done, Encoded, Encoder, encoded
from data_prep.split import Assigned
from pipeline.dataset import TOKENIZER, publish
from pipeline.durable import write_durably
from pipeline.errors import DataError, UserError
from pipeline.shard import Shard
from pipeline.tokens import ShardWriter

SPLITS = ("train", "validation", "test")


@dataclass
class Total:
    """What has been written of one split."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    unknown: int = 0
    shards: list[dict[str, Any]] = field(default_factory=list)

    def add(self, part: Encoded) -> None:
        """Count a chunk."""
        self.documents += int(part.ends.sum())
        self.tokens += len(part.ids)
        self.bytes += part.bytes
        self.unknown += part.unknown


@dataclass
class State:
    """How far a preparation is: enough to go on with it, if the command and the sources are the same."""

    command: dict[str, Any]
    sources: list[Any] = field(default_factory=list)
    pieces: int = 0
    generation: int = 0
    totals: dict[str, Total] = field(default_factory=dict)
    records: dict[str, Any] = field(default_factory=dict)
    """Of rows: what the manifest will say of each split, and the report so far."""


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
    def entered(self) -> Iterator[None]:
        """Hold the directory for this process alone.

        Raises:
            DataError: it cannot be written or another process works there.
        """
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            with (self.work / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield
        except UserError:
            if not self.state.pieces:
                shutil.rmtree(self.path)  # there is nothing to continue
            raise
        except BlockingIOError as error:
            raise DataError(f"{self.target} is being prepared by another process; wait for it") from error
        except OSError as error:
            raise DataError(f"{error.filename or self.path} cannot be written: {error.strerror or error}") from error

    def recall(self) -> None:
        """Load the state of an earlier start of this command; else clean up."""
        try:
            kept = json.loads((self.work / "state.json").read_text())
            totals = {name: Total(**total) for name, total in kept.pop("totals").items()}
            state = State(**kept, totals=totals)
        except (OSError, ValueError, KeyError, TypeError):
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

    def write(self, assigned: Assigned, workers: int, shard_bytes: int) -> Iterator[int]:
        """Encode what is not yet done, yielding the tokens so far.

        Args:
            assigned: all pieces with their splits, from the first on.
            workers: processes that encode.
            shard_bytes: bytes of text after which shards are closed.
        """
        encoder = Encoder(self.tokenizer)
        writers: dict[str, ShardWriter] = {}
        held = 0
        for pieces, done in encoded(islice(assigned, self.state.pieces, None), self.tokenizer, workers):
            self._add(done, writers, encoder)
            self.state.pieces += pieces
            held += sum(part.bytes for part in done.values())
            if held >= shard_bytes:
                self._close(writers)
                held = 0
            yield self.tokens
        self._close(writers)

    def _add(self, done: Done, writers: dict[str, ShardWriter], encoder: Encoder) -> None:
        for name, part in done.items():
            self.state.totals.setdefault(name, Total()).add(part)
            if not len(part.ids):
                continue
            if name not in writers:
                path = self.path / f"{name}-{self.state.generation:05d}.arrow"
                writers[name] = ShardWriter(path, encoder.dtype)
            writers[name].add(part.ids, part.lengths, part.ends)

    def _close(self, writers: dict[str, ShardWriter]) -> None:
        for name, writer in writers.items():
            shard: Shard = writer.close()
            self.state.totals[name].shards.append(shard._asdict())
        writers.clear()
        self.state.generation += 1
        self.remember()

    @property
    def tokens(self) -> int:
        """Tokens encoded so far, of all splits."""
        return sum(total.tokens for total in self.state.totals.values())

    def splits(self) -> dict[str, Total]:
        """The splits in their usual order."""
        return {name: self.state.totals[name] for name in SPLITS if name in self.state.totals}

    def publish(self, manifest: dict[str, Any], report: dict[str, Any], overwrite: bool) -> None:
        """Give the finished dataset its name; nothing of the work is left."""
        text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
        write_durably(self.path / "report.json", lambda path: path.write_text(text, encoding="utf-8"))
        shutil.rmtree(self.work)
        publish(self.path, self.target, manifest, overwrite)


def train_once(place: Workplace, train: Callable[[], Any]) -> None:
    """Have the tokenizer made, unless an earlier start of this preparation did."""
    if not place.tokenizer.exists():
        tokenizer = train()
        write_durably(place.tokenizer, lambda path: tokenizer.save(str(path)))
