"""Prepare a dataset of polyphonic music: the keys of a piano that sound in each frame, a step of fixed length.

`unroll prepare music SOURCE... --output data/NAME`. Damaged files, and arrays that are not piano rolls, are counted
and named in the dataset's report. Copies of a piece, in any key, are in one split.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypedDict

from data_prep.music.sources import SPLIT_VARIABLES, Found, find, identity
from data_prep.sources.walk import split_folders
from data_prep.workspace import options as shared
from data_prep.workspace.entries import origin
from data_prep.workspace.report import Report
from data_prep.workspace.splits import by_identity, cut
from data_prep.workspace.workspace import Workplace, ordered
from pipeline.arguments import Parser, positive_integer
from pipeline.dataset.music import Piece, write_pieces
from pipeline.errors import DataError

PROGRAM = "unroll prepare music"
SOURCES = """MIDI file, directory of MIDI files, .mat file of piano rolls (frames x 88 keys, of traindata, validdata
and testdata), or builtin[:N] (N generated pieces of four voices, default: 200)"""
EXAMPLES = """examples:
  unroll prepare music builtin --output data/chorales
  unroll prepare music JSB_Chorales.mat --steps-per-beat 1 --output data/jsb
  unroll prepare music midi/ --steps-per-beat 4 --output data/songs"""


class MusicEntry(TypedDict):
    """The manifest's entry of a split of pieces."""

    pieces: int
    frames: int
    shards: list[dict[str, object]]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, (__doc__ or "").split("\n")[0], EXAMPLES)
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help=SOURCES)
    shared.add_output(parser)
    shared.add_workers(parser)
    splits = parser.add_argument_group("splits, divided from SOURCE... or given")
    shared.add_splits(splits, nargs="+", default=[], metavar="SOURCE")
    shared.add_shares(splits, 0.1, "pieces")
    music = parser.add_argument_group("music")
    steps = "frames of a quarter note, of piano rolls the number that they have (default: %(default)s, eighth notes)"
    music.add_argument("--steps-per-beat", type=positive_integer, default=2, metavar="N", help=steps)
    shared.add_max_bad_share(music, "pieces")
    return parser


def main(argv: list[str]) -> int:
    """Prepare a dataset of music from the command line.

    Raises:
        ConfigError: the options contradict each other.
        DataError: a source or the output cannot be used.
    """
    options = _parser().parse_args(argv)
    _check(options)
    began = time.monotonic()
    place = shared.workplace(options)
    report = Report("pieces")
    with place.entered(fresh=True):  # Music is read again after an interruption.
        entries = _prepare(place, report, options, argv)
    print("\n".join(report.lines()))
    for name, entry in entries.items():
        print(f"{name}: {entry['pieces']:,} pieces, {entry['frames']:,} frames")
    print(f"{options.output} in {time.monotonic() - began:.1f} s")
    return 0


def _check(options: argparse.Namespace) -> None:
    shared.check_sources(options)
    if len(options.sources) == 1 and (folder := Path(options.sources[0])).is_dir() and (parts := split_folders(folder)):
        options.sources = []
        for name, part in parts.items():
            setattr(options, name, [str(part)])
    shared.check(options)


def _prepare(
    place: Workplace, report: Report, options: argparse.Namespace, argv: Sequence[str]
) -> dict[str, MusicEntry]:
    splits = _splits(options, report)
    report.check(options.max_bad_share)
    for name, pieces in splits.items():
        if not pieces:
            raise DataError(f"the {name} split has no valid pieces. Give more pieces, or change the shares")
    entries = {name: _write(place.path, name, splits[name]) for name in ordered(splits)}
    given = [Path(source) for each in (options.sources, *shared.sources(options).values()) for source in each]
    sources = [source if source.is_file() else {"name": str(source)} for source in given]
    manifest = {
        "kind": "music",
        "splits": entries,
        "music": {"steps_per_beat": options.steps_per_beat},
        **origin(PROGRAM, argv, sources, "mido", "numpy", "pyarrow"),
    }
    place.publish(manifest, report.as_json(), options.overwrite)
    return entries


def _splits(options: argparse.Namespace, report: Report) -> dict[str, list[Piece]]:
    """Return the pieces of each split: as given, as the source defines, else by the identity of each piece."""
    splits: dict[str, list[Piece]] = {"train": []}
    if given := shared.sources(options):
        for name, sources in given.items():
            splits[name] = [found.piece for found in _of_split(sources, name, options, report)]
    else:
        for found in _found(options.sources, options, report):
            splits.setdefault(found.split or "train", []).append(found.piece)
    _note_copies(splits, report)
    return cut(splits, shared.shares(options), partial(by_identity, report, identity))


def _found(sources: Sequence[str], options: argparse.Namespace, report: Report) -> Iterator[Found]:
    for source in sources:
        yield from find(source, options.steps_per_beat, options.workers, report)


def _of_split(sources: Sequence[str], name: str, options: argparse.Namespace, report: Report) -> Iterator[Found]:
    """Yield the pieces of the sources of a split.

    Raises:
        DataError: a source defines splits itself.
    """
    for found in _found(sources, options, report):
        if found.split is not None:
            raise DataError(
                f"--{name} {sources[0]}: expected pieces without splits, got {', '.join(SPLIT_VARIABLES)}. "
                "Give the file as SOURCE"
            )
        yield found


def _note_copies(splits: Mapping[str, Sequence[Piece]], report: Report) -> None:
    """Count the pieces that are in several of the given splits, which are kept as they are."""
    homes: dict[bytes, str] = {}
    for name, pieces in splits.items():
        for piece in pieces:
            if (home := homes.setdefault(identity(piece), name)) != name:
                report.note(piece.name, "in another split too", home)


def _write(folder: Path, split: str, pieces: Sequence[Piece]) -> MusicEntry:
    shard = write_pieces(folder / f"{split}.arrow", pieces)
    return {"pieces": len(pieces), "frames": sum(len(one.frames) for one in pieces), "shards": [shard._asdict()]}


if __name__ == "__main__":
    shared.run_as_script(main)
