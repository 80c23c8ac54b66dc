"""Parallel tokenization: worker processes encode chunks of pieces, which are written to shards in order.

Legend: N tokens of a chunk in one split, R rows (documents or parts of them).
"""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt

from data_prep.text.split import Assigned
from data_prep.workspace.workers import in_order
from data_prep.workspace.workspace import Workplace, ordered
from pipeline.dataset.shard import Shard, token_type
from pipeline.dataset.tokens import ShardWriter

CHUNK = 1 << 19  # characters: at most half a second of work, so that workers finish at about the same time


@dataclass
class Chunk:
    """Consecutive pieces of one split."""

    texts: list[str] = field(default_factory=list)
    ends: list[bool] = field(default_factory=list)
    dropped: int = 0


class Encoded(NamedTuple):
    """The tokens of a chunk."""

    ids: UInt[np.ndarray, " N"]
    lengths: Int64[np.ndarray, " R"]
    ends: Bool[np.ndarray, " R"]
    bytes: int
    unknown: int


class Encoder:
    """A loaded tokenizer with its special tokens and the type of its ids.

    Args:
        tokenizer_file: file of the `tokenizers` library.
    """

    def __init__(self, tokenizer_file: Path) -> None:
        from data_prep.workspace import tokenizer

        self.tokenizer = tokenizer.load(tokenizer_file)
        self.vocab_size = tokenizer.size(self.tokenizer)
        self.eos = self.tokenizer.get_vocab(with_added_tokens=True)[tokenizer.EOS]
        self.unknown: int | None = self.tokenizer.token_to_id(tokenizer.UNK)
        self.dtype = token_type(self.vocab_size)

    def __call__(self, chunk: Chunk) -> Encoded:
        """Encode a chunk; each row is a document that ends with `<eos>`, except that the last may be unfinished."""
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
    """Yield chunks of similar length, with the number of pieces in each."""
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
    """Yield the tokens of all pieces, chunk by chunk in order, with the number of pieces in each chunk.

    Raises:
        DataError: a worker process was killed.
    """
    return in_order(_encode, chunks(assigned), workers, _start, (tokenizer_file,))


@dataclass
class Total:
    """Counts of one split."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    unknown: int = 0
    shards: list[dict[str, object]] = field(default_factory=list)

    def add(self, part: Encoded) -> None:
        """Add the counts of a chunk."""
        self.documents += int(part.ends.sum())
        self.tokens += len(part.ids)
        self.bytes += part.bytes
        self.unknown += part.unknown


class TextWriter:
    """Writes the token shards of all splits and continues those of an earlier start.

    Args:
        place: working directory, with the tokenizer and the state of an earlier start.
    """

    def __init__(self, place: Workplace) -> None:
        saved = place.state.records
        self.place, self.encoder = place, Encoder(place.tokenizer)
        self.totals = {name: Total(**total) for name, total in saved.get("totals", {}).items()}
        self.generation: int = saved.get("generation", 0)
        self._open: dict[str, ShardWriter] = {}

    @property
    def tokens(self) -> int:
        """Number of tokens encoded so far, in all splits."""
        return sum(total.tokens for total in self.totals.values())

    def write(self, assigned: Assigned, workers: int, shard_bytes: int) -> Iterator[int]:
        """Encode the remaining pieces; yield the number of tokens so far.

        Args:
            assigned: all pieces with their splits, those of an earlier start included.
            workers: number of worker processes.
            shard_bytes: bytes of text after which shards are closed.
        """
        unsaved, state = 0, self.place.state
        for pieces, done in encoded(islice(assigned, state.pieces, None), self.place.tokenizer, workers):
            self._add(done)
            state.pieces += pieces
            unsaved += sum(part.bytes for part in done.values())
            if unsaved >= shard_bytes:
                self._close()
                unsaved = 0
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
        self.place.save_state()

    def splits(self) -> dict[str, Total]:
        """Return the counts of the splits in the order of `ordered`."""
        return {name: self.totals[name] for name in ordered(self.totals)}


# ---------------------------------------------------------------- inside a worker process

_encoder: Encoder


def _start(tokenizer_file: Path) -> None:
    global _encoder
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # The parallelism is in the processes.
    _encoder = Encoder(tokenizer_file)


def _encode(work: tuple[int, Work]) -> tuple[int, Done]:
    pieces, chunks = work
    return pieces, {name: _encoder(chunk) for name, chunk in chunks.items()}
