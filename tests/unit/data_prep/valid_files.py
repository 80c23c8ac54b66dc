"""Small valid files of every format that is prepared, for tests that damage them."""

import gzip
import io
import json
import lzma
import tarfile
import wave
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


def measurements() -> list[bytes]:
    days = [f"2016-01-{day:02},{day},{day % 3}.5,a" for day in range(1, 13)]
    hours = [f"2016-03-27 {hour:02}:00+01:00,{hour},1,b" for hour in range(12)]
    counts = [f"{count},{count**2},{count % 2},c" for count in range(9)]
    return ["\n".join(["time,x,y,id", *rows]).encode() for rows in (days, hours, counts)]


def packed(contents: list[bytes], how: str = "gz") -> list[bytes]:
    return [lzma.compress(each) if how == "xz" else gzip.compress(each, mtime=0) for each in contents]
