"""Small valid files of every format that is prepared, for tests that damage them."""

import gzip
import io
import json
import lzma
import struct
import tarfile
import wave
import zlib
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

ROWS: list[dict[str, Any]] = [
    {"text": "a\u00e9 b", "image": "a.png", "caption": ["one", "two"], "audio": "a.wav", "duration": 1.5},
    {"text": "b c", "source": "x", "target": ["y"], "image": "b.png", "caption": "three", "audio": "a.wav"},
]
NOON = datetime(2016, 7, 1, 12)
EPISODE: dict[str, Any] = {
    "observations": [[0.5, 1.0], [1.5, 2.0], [2.5, 3.0]],
    "actions": [0, 1, 0],
    "rewards": [1.0, 0.0, 1.0],
    "terminated": [False, True, True],
    "total_steps": 3,
    "id": "a",
}


def lines_of(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def parquet_of(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def texts() -> list[bytes]:
    return ["one two\n\nthree \u00e9\r\nfour\n".encode(), b"\xef\xbb\xbfone\n"]


def tables() -> list[bytes]:
    rows = ["image\tcaption\taudio\ttext", "a.png\tone two\ta.wav\tx", "b.png\tthree\ta.wav\ty"]
    return ["\n".join(rows).encode(), "\n".join(rows).replace("\t", ",").encode(), b'image,caption\na.png,"b\nc"\n']


def columns() -> list[bytes]:
    return [b"a b\tc d\ne\tf\n", b"source\ttarget\ne\tf\n"]


def conversations() -> list[bytes]:
    return [b"a __eou__ b __eou__ c\nd __eou__ e\n"]


def coco() -> list[bytes]:
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    notes = [{"image_id": 1, "caption": "one"}, {"image_id": 2, "caption": "two"}]
    return [json.dumps({"images": images, "annotations": notes}).encode()]


def pictures() -> list[bytes]:
    drawn = Image.fromarray(np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3))
    found = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"):
        file = io.BytesIO()
        drawn.save(file, kind)
        found.append(file.getvalue())
    return found


def tars() -> list[bytes]:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in {"a.png": b"p", "a.txt": b"one", "b.jpg": b"j", "b.json": b'{"caption": ["c"]}'}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return [file.getvalue()[:4096]]


def idx() -> list[bytes]:
    return [bytes([0, 0, 8, 3]) + np.array([2, 3, 2], ">u4").tobytes() + bytes(12)]


def clips() -> list[bytes]:
    soundfile = pytest.importorskip("soundfile")
    tone = np.sin(np.arange(400) / 9).astype(np.float32) / 2
    kinds = {"WAV": "FLOAT", "FLAC": "PCM_16", "OGG": "VORBIS", "AIFF": "PCM_16", "AU": "ULAW", "MP3": "MPEG_LAYER_III"}
    found = []
    for kind, subtype in kinds.items():
        file = io.BytesIO()
        soundfile.write(file, tone, 8000, format=kind, subtype=subtype)
        found.append(file.getvalue())
    stream = io.BytesIO()
    with wave.open(stream, "wb") as sound:
        sound.setparams((2, 1, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(300))
    return [*found, stream.getvalue()]


def arrays() -> list[bytes]:
    named = {field: np.array(EPISODE[field]) for field in ("observations", "actions", "rewards")}
    found = []
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, **named, terminals=np.array(EPISODE["terminated"]))
        found.append(file.getvalue())
    return found


def matrix(array: np.ndarray | list[np.ndarray], name: str = "", order: str = "<") -> bytes:
    """Return a variable of a MATLAB file of version 5, by the specification of the format."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)

    kinds = {"uint8": (9, 2), "float64": (6, 9)}  # class of the array, and type of its numbers
    tag = struct.pack(f"{order}I", len(name) << 16 | 1)  # data of at most four bytes are in the same eight bytes
    short = tag + name.encode().ljust(4, b"\0") if 0 < len(name) <= 4 else element(1, name.encode())
    if isinstance(array, list):
        shape, kind, content = (1, len(array)), 1, b"".join(matrix(each, order=order) for each in array)
    else:
        shape, (kind, stored) = array.shape, kinds[array.dtype.name]
        content = element(stored, array.astype(array.dtype.newbyteorder(order)).tobytes("F"))
    flags = element(6, struct.pack(f"{order}II", kind, 0))
    dimensions = element(5, struct.pack(f"{order}{len(shape)}i", *shape))
    return element(14, flags + dimensions + short + content)


def mat(variables: dict[str, list[np.ndarray] | np.ndarray], order: str = "<", packed: bool = False) -> bytes:
    """Return a MATLAB file of version 5."""
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", 0x100) + (b"IM" if order == "<" else b"MI")
    parts = [matrix(value, name, order) for name, value in variables.items()]
    if packed:
        compressed = [zlib.compress(part) for part in parts]
        parts = [struct.pack(f"{order}II", 15, len(part)) + part for part in compressed]
    return head + b"".join(parts)


def rolls() -> list[bytes]:
    roll = np.zeros((6, 88), np.uint8)
    roll[:, [30, 34]] = 1
    named: dict[str, list[np.ndarray] | np.ndarray] = {"traindata": [roll, roll[:4]], "testdata": [roll.astype(float)]}
    return [mat(named), mat(named, packed=True), mat({"x": roll}, ">")]


def midi_file(*tracks: bytes, kind: int = 1, division: int = 480) -> bytes:
    """Return a MIDI file of tracks of events, by the specification of the format."""
    head = b"MThd" + struct.pack(">IHHH", 6, kind, len(tracks), division)
    ended = [track + b"\x00\xff\x2f\x00" for track in tracks]
    return head + b"".join(b"MTrk" + struct.pack(">I", len(track)) + track for track in ended)


def tunes() -> list[bytes]:
    tempo = b"\x00\xff\x51\x03\x07\xa1\x20"
    tune = b"\x00\x90\x3c\x50\x83\x60\x80\x3c\x00\x00\x90\x40\x50\x83\x60\x90\x40\x00"
    return [midi_file(tempo, tune), midi_file(tempo + tune, kind=0, division=96)]


def measurements() -> list[bytes]:
    days = [f"2016-01-{day:02},{day},{day % 3}.5,a" for day in range(1, 13)]
    hours = [f"2016-03-27 {hour:02}:00+01:00,{hour},1,b" for hour in range(12)]
    counts = [f"{count},{count**2},{count % 2},c" for count in range(9)]
    return ["\n".join(["time,x,y,id", *rows]).encode() for rows in (days, hours, counts)]


def packed(contents: list[bytes], how: str = "gz") -> list[bytes]:
    return [lzma.compress(each) if how == "xz" else gzip.compress(each, mtime=0) for each in contents]
