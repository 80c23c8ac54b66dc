"""Text to tokens on all cores: pieces go to worker processes in chunks and come back in order, to be written in shards.

Legend: N tokens of a chunk in one split, R rows of them.
"""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt

from data_prep.text.split import Assigned
from data_prep.workspace.workers import in_order
from data_prep.workspace.workspace import SPLITS, Workplace
from pipeline.dataset.shard import Shard, token_type
from pipeline.dataset.tokens import ShardWriter

CHUNK = 1 << 19  # characters: half a second of work or less, so that the last chunk is not waited for


@dataclass
class Chunk:
    """Some pieces of one split."""

    texts: list[str] = field(default_factory=list)
    ends: list[bool] = field(default_factory=list)
    dropped: int = 0


class Encoded(NamedTuple):
    """The same pieces as tokens."""

    ids: UInt[np.ndarray, " N"]
    lengths: Int64[np.ndarray, " R"]
    ends: Bool[np.ndarray, " R"]
    bytes: int
    unknown: int


class Encoder:
    """A tokenizer file, loaded, with what is needed around it."""

    def __init__(self, tokenizer_file: Path) -> None:
        from data_prep.workspace import tokenizer

        self.tokenizer = tokenizer.load(tokenizer_file)
        self.vocab_size = tokenizer.size(self.tokenizer)
        self.eos = self.tokenizer.get_vocab(with_added_tokens=True)[tokenizer.EOS]
        self.unknown: int | None = self.tokenizer.token_to_id(tokenizer.UNK)
        self.dtype = token_type(self.vocab_size)

    def __call__(self, chunk: Chunk) -> Encoded:
        """The tokens of a chunk: a row a document, closed by `<eos>`; the last may go on in the next."""
        encodings = self.tokenizer.encode_batch_fast(chunk.texts, add_special_tokens=False)
        parts = [encoding.ids for encoding in encodings]
        for part, end in zip(parts, chunk.ends, strict=True):
            if end:
                part.append(self.eos)
        counts = np.fromiter(map(len, parts), np.int64, len(parts))
        ids = np.fromiter(chain.from_iterable(parts), self.dtype, int(counts.sum()))
        last = np.flatnonzero([*chunk.ends[:-1], True])  # the last piece of each row
        lengths = np.add.reduceat(counts, np.concatenate([[0], last[:-1] + 1]))
        ends = np.array(chunk.ends)[last]
        size = sum(len(text.encode()) for text in chunk.texts) + chunk.dropped
        unknown = 0 if self.unknown is None else int(np.count_nonzero(ids == self.unknown))
        return Encoded(ids, lengths[lengths > 0], ends[lengths > 0], size, unknown)


Work = dict[str, Chunk]
Done = dict[str, Encoded]


def chunks(assigned: Assigned) -> Iterator[tuple[int, Work]]:
    """The pieces in chunks of similar length, with the number of pieces in each."""
    work: Work = {}
    pieces = length = 0
    for split, piece in assigned:
        chunk = work.get(split)
        if chunk is None:
            chunk = work[split] = Chunk()
        chunk.texts.append(piece.text)
        chunk.ends.append(piece.ends)
        chunk.dropped += piece.dropped
        pieces += 1
        length += len(piece.text) + 1
        if length >= CHUNK:
            yield pieces, work
            work, pieces, length = {}, 0, 0
    if pieces:
        yield pieces, work


def encoded(assigned: Assigned, tokenizer_file: Path, workers: int) -> Iterator[tuple[int, Done]]:
    """All pieces as tokens, chunk by chunk in order, with the number of pieces in each chunk.

    Raises:
        DataError: a worker process was killed.
    """
    return in_order(_encode, chunks(assigned), workers, _start, (tokenizer_file,))


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


class TextWriter:
    """The token shards of all splits, from where an earlier start of the same preparation left them.

    Args:
        place: where they are written, with the tokenizer and what is noted of an earlier start.
    """

    def __init__(self, place: Workplace) -> None:
        noted = place.state.records
        self.place, self.encoder = place, Encoder(place.tokenizer)
        self.totals = {name: Total(**total) for name, total in noted.get("totals", {}).items()}
        self.generation: int = noted.get("generation", 0)
        self._open: dict[str, ShardWriter] = {}

    @property
    def tokens(self) -> int:
        """Tokens encoded so far, of all splits."""
        return sum(total.tokens for total in self.totals.values())

    def write(self, assigned: Assigned, workers: int, shard_bytes: int) -> Iterator[int]:
        """Encode what is not yet done, yielding the tokens so far.

        Args:
            assigned: all pieces with their splits, from the first on.
            workers: processes that encode.
            shard_bytes: bytes of text after which shards are closed.
        """
        held, state = 0, self.place.state
        for pieces, done in encoded(islice(assigned, state.pieces, None), self.place.tokenizer, workers):
            self._add(done)
            state.pieces += pieces
            held += sum(part.bytes for part in done.values())
            if held >= shard_bytes:
                self._close()
                held = 0
            yield self.tokens
        self._close()

    def _add(self, done: Done) -> None:
        for name, part in done.items():
            self.totals.setdefault(name, Total()).add(part)
            if not len(part.ids):
                continue
            if name not in self._open:
                path = self.place.path / f"{name}-{self.generation:05d}.arrow"
                self._open[name] = ShardWriter(path, self.encoder.dtype)
            self._open[name].add(part.ids, part.lengths, part.ends)

    def _close(self) -> None:
        for name, writer in self._open.items():
            shard: Shard = writer.close()
            self.totals[name].shards.append(shard._asdict())
        self._open = {}
        self.generation += 1
        totals = {name: asdict(total) for name, total in self.totals.items()}
        self.place.state.records = {"generation": self.generation, "totals": totals}
        self.place.remember()

    def splits(self) -> dict[str, Total]:
        """The splits in their usual order."""
        return {name: self.totals[name] for name in SPLITS if name in self.totals}


# ---------------------------------------------------------------- inside a worker process

_encoder: Encoder


def _start(tokenizer_file: Path) -> None:
    global _encoder
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process a core, one thread a process
    _encoder = Encoder(tokenizer_file)


def _encode(work: tuple[int, Work]) -> tuple[int, Done]:
    pieces, chunks = work
    return pieces, {name: _encoder(chunk) for name, chunk in chunks.items()}
