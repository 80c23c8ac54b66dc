"""Size that the header of an audio file states for its samples, which libsndfile corrects without a report.

A file with fewer bytes than stated is truncated. Programs that write to a pipe, and recorders that are killed, leave
the size open: they state 0, or a number at the limit of 31 or 32 bits.

Formats of chunks (identifier, size, content): RIFF and RF64 (EBU Tech 3306), AIFF, CAF. Others: AU, NIST SPHERE, Ogg,
Wave64.
"""

import re
import struct
from typing import NamedTuple

LIMITS = (1 << 31, 1 << 32, 1 << 63, 1 << 64)
SLACK = 1 << 16  # an open size is at most this far from a limit: programs subtract the header and align
CHUNKS = {  # first four bytes: format of the sizes, identifier of the samples, bytes before the first chunk
    b"RIFF": ("<I", b"data", 12),
    b"RF64": ("<I", b"data", 12),
    b"BW64": ("<I", b"data", 12),
    b"RIFX": (">I", b"data", 12),
    b"FORM": (">I", b"SSND", 12),
    b"caff": (">q", b"data", 8),
}
MP3_HEAD = 256  # bytes of an MP3 file, without its tags, that hold the number of frames
OGG_HEADER = 27  # bytes of an Ogg page before its table of segments


class Chunk(NamedTuple):
    """A chunk of a file: its identifier, the position of its content, and the stated size of the content in bytes."""

    name: bytes
    start: int
    size: int

    @property
    def end(self) -> int:
        """The position after the content."""
        return self.start + self.size


class SizedFile(NamedTuple):
    """A file whose header states the size of its samples."""

    data: bytes
    is_truncated: bool
    """Whether the file has fewer bytes than stated."""
    unread: int = 0
    """Bytes after the samples that are not chunks of the format."""


def with_known_size(data: bytes) -> SizedFile:
    """Return a file whose header states the size of its samples; an open size becomes that of the rest of the file."""
    if data[:4] not in CHUNKS:
        return SizedFile(data, _is_truncated(data))
    samples = _samples(data)
    if samples is None:
        return SizedFile(data, False)
    if _is_open(data, samples):
        return SizedFile(_closed(data, samples), False)
    after = _padded_end(data, samples)
    unread = 0 if _is_chunks(data, after) else len(data) - after
    return SizedFile(data, samples.end > len(data), unread)


def states_length(data: bytes) -> bool:
    """Return whether the first frame of an MP3 file states the number of frames."""
    tags = 10 + sum((byte & 127) << 7 * (3 - at) for at, byte in enumerate(data[6:10])) if data[:3] == b"ID3" else 0
    return any(data.find(mark, tags, tags + MP3_HEAD) >= 0 for mark in (b"Xing", b"Info"))


def _is_truncated(data: bytes) -> bool:
    """Return whether a file that has no chunks is shorter than stated."""
    if data[:4] == b"OggS":
        page = data.rfind(b"OggS")
        table = data[page + OGG_HEADER - 1 : page + OGG_HEADER - 1 + 256]
        return not table or page + OGG_HEADER + table[0] + sum(table[1 : 1 + table[0]]) > len(data)
    if data[:4] == b"riff":  # Wave64
        return int.from_bytes(data[16:24], "little") > len(data)
    if data[:4] == b".snd":
        start, size = struct.unpack(">II", data[4:12]) if len(data) >= 12 else (0, 0)
        return bool(size != 0xFFFFFFFF and start + size > len(data))
    if data[:7] == b"NIST_1A":
        start = int(data[8:16]) if data[8:16].strip().isdigit() else 0
        return start + _nist_size(data[:start]) > len(data)
    return False


def _closed(data: bytes, samples: Chunk) -> bytes:
    """Return a file whose samples are all bytes after the header."""
    size = struct.pack(CHUNKS[data[:4]][0], min(len(data) - samples.start, 0xFFFFFFFF))
    start = b"RIFF" if data[:4] in (b"RF64", b"BW64") else data[:4]  # RF64 states the size in another chunk
    return b"".join((start, data[4 : samples.start - len(size)], size, data[samples.start :]))


def _samples(data: bytes) -> Chunk | None:
    """Return the chunk of the samples, None for a file without one."""
    _, name, at = CHUNKS[data[:4]]
    long = None  # the size that an RF64 file states in 64 bits
    while (chunk := _chunk(data, at)) is not None:
        if chunk.name == b"ds64":
            long = int.from_bytes(data[chunk.start + 8 : chunk.start + 16], "little")
        if chunk.name == name:
            return chunk._replace(size=long) if long and chunk.size == 0xFFFFFFFF else chunk
        at = _padded_end(data, chunk)
    return None


def _chunk(data: bytes, at: int) -> Chunk | None:
    code = CHUNKS[data[:4]][0]
    start = at + 4 + struct.calcsize(code)
    if start > len(data):
        return None
    (size,) = struct.unpack(code, data[at + 4 : start])
    return Chunk(data[at : at + 4], start, size if size >= 0 else LIMITS[-1])  # CAF states -1 for an open size


def _padded_end(data: bytes, chunk: Chunk) -> int:
    """Return the position after a chunk, which is padded to an even size except in CAF."""
    return chunk.end + (chunk.size % 2 if data[:4] != b"caff" else 0)


def _is_open(data: bytes, samples: Chunk) -> bool:
    """Return whether the writer of a file did not know the size of its samples."""
    if samples.size == 0:
        return not _is_chunks(data, samples.start)
    at_limit = any(abs(samples.size - limit) <= SLACK for limit in LIMITS)
    return at_limit and samples.end > len(data)


def _is_chunks(data: bytes, at: int) -> bool:
    """Return whether a file has nothing but chunks from a position."""
    while at < len(data):
        chunk = _chunk(data, at)
        if chunk is None or chunk.name in CHUNKS or not chunk.name.isascii() or not chunk.name.decode().isprintable():
            return False
        at = _padded_end(data, chunk)
    return at <= len(data) + 1  # the padding of the last chunk may be missing


def _nist_size(header: bytes) -> int:
    """Return the size of the samples that a header of NIST SPHERE states, 0 if it does not or they are compressed."""
    found = [re.search(rb"%s -(?:i|s\d+) (\d+)" % name, header) for name in (b"sample_count", b"sample_n_bytes")]
    channels = re.search(rb"channel_count -i (\d+)", header)
    if b"shorten" in header or not all(found):
        return 0
    size = int(channels[1]) if channels else 1
    for number in found:
        size *= int(number[1]) if number else 0
    return size
