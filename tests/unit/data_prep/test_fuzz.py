"""Readers of random, truncated and edited files give a report or one UserError, in bounded memory.

A family of readers gets the same random recipes of damage. The whole command of series gets fewer.
"""

import json
import random
import resource
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from data_prep.captions import sources as captions
from data_prep.music import sources as tunes
from data_prep.pairs import sources as pairs
from data_prep.pixels import sources as pixels
from data_prep.sources.text_files import DOCUMENTS, Name, Reading, Sources
from data_prep.trajectories import episodes as trajectories
from data_prep.trajectories import files
from data_prep.workspace.report import LONGEST, Report
from pipeline.dataset.codecs.image import ImageError, shrink
from pipeline.dataset.codecs.table import read_records
from pipeline.errors import UserError
from tests.unit.data_prep import valid_files as made

EXAMPLES = 2000
GROWTH = 1 << 20  # KiB of memory that a reader may take
WORDS = [
    *(b"\0", b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc3", b"\n", b"\r", b"\n\n"),
    *(b'"', b"'", b"\t", b",", b"{", b"}", b"[", b"]", b":", b"null", b"NaN", b"1e999", b"-1", b"true", b"\\ud800"),
    *(b"9" * 25, b"[" * 3000, b"2016-02-30", b"../", b"/dev/zero", b"\xe2\x80\xa8", b"PK", b"PAR1"),
]


class Reader(NamedTuple):
    """What reads a file, files that it reads, and their suffix."""

    read: Callable[[Path, Report], Iterable[object]]
    valid: Callable[[], list[bytes]]
    suffix: str


def damaged(valid: list[bytes], recipe: bytes) -> bytes:
    """Return random bytes, or a valid file that is truncated, continued by random bytes, or edited."""
    kind, rest = recipe[0], recipe[1:]
    chosen = valid[kind // 4 % len(valid)]
    at = int.from_bytes(rest[:2], "big") % (len(chosen) + 1)
    if kind % 4 < 3:
        return (rest, chosen[:at], chosen[:at] + rest[2:])[kind % 4]
    for step in range(0, len(rest) - 3, 4):
        at = int.from_bytes(rest[step : step + 2], "big") % (len(chosen) + 1)
        inserted, cut = WORDS[rest[step + 2] % len(WORDS)], rest[step + 3]
        # A byte is replaced, some are deleted, or a word is written over or between others.
        if cut < 64:
            chosen = chosen[:at] + rest[step + 2 : step + 3] + chosen[at + 1 :]
        elif cut < 128:
            chosen = chosen[:at] + chosen[at + cut % 32 :]
        else:
            chosen = chosen[:at] + inserted + chosen[at + len(inserted) * (cut % 2) :]
    return chosen


# ---------------------------------------------------------------------- readers


def documents(mode: str) -> Callable[[Path, Report], Iterable[object]]:
    return lambda path, report: Sources([Name(str(path), path)], Reading(DOCUMENTS[mode])).pieces(report)


def units(layout: pairs.Layout) -> Callable[[Path, Report], Iterable[object]]:
    return lambda path, report: pairs.reader([path], layout)(report)


def both(path: Path, report: Report) -> Iterable[object]:
    return pairs.reader([path, path], pairs.Layout())(report)


def captioned(path: Path, report: Report) -> Iterable[object]:
    return captions.read(str(path), captions.Reading(), report)


def picture(path: Path, report: Report) -> Iterable[object]:
    try:
        yield shrink(path.read_bytes(), 4, max_pixels=1 << 20)
    except ImageError as error:
        report.reject(path.name, str(error))


def sound(path: Path, report: Report) -> Iterable[object]:
    from data_prep.audio.clips import Clip
    from data_prep.audio.decode import ClipDecoder, Invalid

    for found in ClipDecoder(4000, 0, 100)([Clip(path.name, path, {})]):
        if isinstance(found, Invalid):
            report.reject(path.name, *found)
        yield found


def manifest(path: Path, report: Report) -> Iterable[object]:
    from data_prep.audio.clips import Naming
    from data_prep.audio.layouts import find

    return find(str(path), Naming(), report)["train"]


def steps(path: Path, report: Report) -> Iterator[object]:
    for name, fields in files.read(path, report):
        yield from trajectories.episodes(name, fields, report)


def records(path: Path, report: Report) -> Iterable[object]:
    return read_records(path, report.reject)


def series(path: Path, report: Report) -> Iterable[object]:
    from data_prep.series import command

    output = path.with_name("series")
    yield command.main([str(path), "--output", str(output), "--overwrite", "--fill-gaps"])


def idx_images(path: Path, report: Report) -> Iterable[object]:
    return pixels.find(str(path), "image", "label", report)


def music(path: Path, report: Report) -> Iterable[object]:
    return tunes.find(str(path), 2, 1, report)


def lines_of_rows() -> list[bytes]:
    return [made.lines_of(made.ROWS)]


FAMILIES: dict[str, list[Reader]] = {
    "text": [
        *(Reader(documents(mode), made.texts, ".txt") for mode in DOCUMENTS),
        Reader(documents("line"), lambda: made.packed(made.texts()), ".txt.gz"),
        Reader(documents("line"), lambda: made.packed(made.texts(), "xz"), ".txt.xz"),
        Reader(documents("file"), lines_of_rows, ".jsonl"),
        Reader(
            documents("file"), lambda: [made.parquet_of([{"text": "a", "when": made.NOON}, {"text": None}])], ".parquet"
        ),
    ],
    "pairs": [
        Reader(units(pairs.Layout()), made.columns, ".tsv"),
        Reader(units(pairs.Layout()), lines_of_rows, ".jsonl"),
        Reader(both, made.texts, ".txt"),
        Reader(units(pairs.Layout(mark="__eou__", history=2)), made.conversations, ".txt"),
    ],
    "captions": [
        Reader(captioned, made.tables, ".tsv"),
        Reader(captioned, lines_of_rows, ".jsonl"),
        Reader(captioned, made.coco, ".json"),
        Reader(captioned, made.tars, ".tar"),
    ],
    "images": [
        Reader(picture, made.pictures, ".png"),
        Reader(idx_images, made.idx, "-images-idx3-ubyte"),
        Reader(idx_images, lambda: made.packed(made.idx()), "-images-idx3-ubyte.gz"),
    ],
    "audio": [
        Reader(sound, made.clips, ".wav"),
        Reader(manifest, made.tables, ".csv"),
        Reader(manifest, lines_of_rows, ".jsonl"),
    ],
    "trajectories": [
        Reader(steps, lambda: [made.lines_of([made.EPISODE, made.EPISODE])], ".jsonl"),
        Reader(steps, lambda: [made.parquet_of([{**made.EPISODE, "when": made.NOON}])], ".parquet"),
        Reader(steps, made.arrays, ".npz"),
    ],
    "music": [Reader(music, made.rolls, ".mat"), Reader(music, made.tunes, ".mid")],
    "records": [
        Reader(records, made.tables, ".csv"),
        Reader(records, made.tables, ".tsv"),
        Reader(records, made.coco, ".json"),
    ],
    "series": [Reader(series, made.measurements, ".csv")],
}
FEWER = {"series": 300}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    below = tmp_path_factory.mktemp("fuzz")
    for name in ("a.png", "b.png", "a.wav"):
        (below / name).write_bytes(b"x")
    return below


def check(reader: Reader, path: Path) -> None:
    """Read a file, and check that what is reported is lines of limited length."""
    report = Report()
    with suppress(UserError):
        for _ in reader.read(path, report):
            pass
    for line in report.lines():
        assert len(line.splitlines()) == 1
        assert len(line) < 5 * LONGEST
    json.dumps(report.as_json(), ensure_ascii=False).encode()


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_damaged_file_gives_a_report_or_one_error(folder: Path, family: str) -> None:
    readers = [
        (reader, folder / f"{family}-{number}{reader.suffix}", reader.valid())
        for number, reader in enumerate(FAMILIES[family])
    ]
    for reader, path, valid in readers:
        path.write_bytes(valid[0])
        assert list(reader.read(path, Report()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    chance = random.Random(family)
    for _ in range(FEWER.get(family, EXAMPLES)):
        recipe = chance.randbytes(chance.randint(1, 60))
        for reader, path, valid in readers:
            path.unlink()  # a file that is written again waits for the disk
            path.write_bytes(damaged(valid, recipe))
            try:
                check(reader, path)
            except BaseException as error:
                error.add_note(f"{path.name}, recipe {recipe!r}")
                raise
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH
