"""Prepare a dataset of images with captions.

`unroll prepare captions SOURCE... --output data/NAME`. Each image is a row with all its captions. The images are
scaled in parallel, and an interrupted preparation can continue.
"""

import argparse
import sys
import time
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from data_prep.captions.corpus import Corpus
from data_prep.captions.sources import Captioned
from data_prep.workspace import options as shared
from data_prep.workspace.entries import origin, vocabulary
from data_prep.workspace.report import Report, progress
from data_prep.workspace.resumable_rows import Rows
from data_prep.workspace.shards import SplitEntry
from data_prep.workspace.workers import in_order
from data_prep.workspace.workspace import SPLITS, Workplace, train_once
from pipeline.arguments import Parser, positive_integer
from pipeline.dataset.codecs.image import MAX_PIXELS, ImageError, shrink
from pipeline.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PROGRAM = "unroll prepare captions"
BATCH = 32  # images per piece of work
COLUMNS = {"image": pa.binary(), "name": pa.string()}
SOURCES = """table of images and captions (.csv .tsv .txt .jsonl, optionally .gz or .xz), COCO .json, a directory with
one of these, WebDataset .tar files, hub:NAME[:CONFIG[:SPLIT]],
or builtin[:N] (N generated drawings of shapes, default: 2000)"""
EXAMPLES = """examples:
  unroll prepare captions captions.csv --images photographs/ --plain --tokenizer word --output data/photographs
  unroll prepare captions --train train.json --validation val.json --images images/ --size 256 --output data/coco
  unroll prepare captions shards/*.tar --output data/web
  unroll prepare captions builtin:2000 --tokenizer word --output data/shapes
To continue an interrupted preparation, run the same command again."""


class Scaled(NamedTuple):
    """A scaled image with its captions, or the reason why the image is invalid."""

    split: str
    name: str
    captions: list[str]
    image: bytes
    bad: str | None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, (__doc__ or "").split("\n")[0], EXAMPLES)
    add = parser.add_argument
    add("sources", nargs="*", metavar="SOURCE", help=SOURCES)
    shared.add_output(parser)
    shared.add_workers(parser)
    splits = parser.add_argument_group("splits, divided by image from SOURCE... or given")
    shared.add_splits(splits, nargs="+", default=[], metavar="SOURCE")
    shared.add_shares(splits, 0.05, "images")
    images = parser.add_argument_group("images")
    add = images.add_argument
    folder = "directory of the images that a table names (default: the directory of the table)"
    add("--images", type=Path, metavar="DIR", help=folder)
    shared.add_field(images, "image", "the image")
    size = "scale larger images to this length of the shorter side (default: %(default)s)"
    add("--size", type=positive_integer, default=256, metavar="PIXELS", help=size)
    add(
        "--max-pixels",
        type=positive_integer,
        default=MAX_PIXELS,
        metavar="N",
        help="reject images with more than N pixels (default: 2**26)",
    )
    shared.add_max_bad_share(images, "records")
    captions = parser.add_argument_group("captions")
    add = captions.add_argument
    shared.add_field(captions, "caption", "the caption")
    add("--plain", action="store_true", help="convert captions to lower case and remove punctuation")
    add("--max-length", type=positive_integer, metavar="N", help="drop captions of more than N tokens from training")
    shared.add_tokenizer(captions, "bpe")
    return parser


def main(argv: list[str]) -> int:
    """Prepare a dataset of captioned images from the command line.

    Raises:
        ConfigError: the options contradict each other.
        DataError: a source or the output cannot be used.
    """
    options = _parser().parse_args(argv)
    _check(options)
    began = time.monotonic()
    place = shared.workplace(options)
    with place.entered():
        report, splits = _prepare(place, options, argv)
    print("\n".join(report.lines()))
    for name, entry in splits.items():
        print(f"{name}: {entry['rows']:,} images, {entry['samples']:,} captions, {entry['tokens']:,} tokens")
    seconds = time.monotonic() - began
    print(f"{options.output} in {seconds:.1f} s: {report.documents / seconds:,.0f} images/s")
    return 0


def _check(options: argparse.Namespace) -> None:
    shared.check_sources(options)
    if options.images and not options.images.is_dir():
        raise DataError(f"--images={options.images} is not a directory. Name the directory of the images")
    shared.check(options)


def _prepare(place: Workplace, options: argparse.Namespace, argv: list[str]) -> tuple[Report, dict[str, SplitEntry]]:
    corpus, report = Corpus(options), Report("images")
    place.begin(corpus.fingerprint())
    train_once(place, lambda: _tokenizer(corpus, options))
    if place.state.pieces:
        print(f"continuing after {place.state.pieces:,} images", file=sys.stderr)
    splits = _write(place, corpus, report, options)
    report.check(options.max_bad_share)
    parts = {"train": 1.0, **shared.shares(options)}
    for name in SPLITS:
        if (getattr(options, name) or (options.sources and parts[name])) and name not in splits:
            raise DataError(f"the {name} split is empty. Name sources with --{name}, or change the shares")
    from data_prep.workspace import tokenizer

    manifest = {
        "kind": "captions",
        "splits": splits,
        **vocabulary(place.tokenizer, tokenizer.load(place.tokenizer)),
        "size": options.size,
        **origin(PROGRAM, argv, corpus.files(), "tokenizers", "pyarrow", "pillow"),
    }
    place.publish(manifest, report.as_json(), options.overwrite)
    return report, splits


def _tokenizer(corpus: Corpus, options: argparse.Namespace) -> "Tokenizer":
    from data_prep.workspace import tokenizer

    images = corpus.images(Report())
    texts = (caption for split, image in images if split == "train" for caption in image.captions)
    return tokenizer.build(options.tokenizer, texts, options.vocab_size)


def _write(place: Workplace, corpus: Corpus, report: Report, options: argparse.Namespace) -> dict[str, SplitEntry]:
    """Scale the remaining images, write the shards and return the manifest's entries of the splits."""
    from data_prep.workspace import tokenizer

    loaded = tokenizer.load(place.tokenizer)
    rows = Rows(place, COLUMNS, tokenizer.size(loaded))
    total = sum(1 for _ in corpus.images(Report()))
    todo = islice(corpus.images(report), place.state.pieces, None)
    batches = iter(lambda: list(islice(todo, BATCH)), [])
    scaled = in_order(partial(_scale, options.size, options.max_pixels), batches, options.workers)
    for batch in progress(scaled, "scaling", total, lambda: place.state.pieces, ("images", 1)):
        good = [each for each in batch if not each.bad]
        for each in batch:
            if each.bad:
                rows.report.reject(each.name, each.bad)
        _add(rows, good, loaded, options.max_length)
        rows.report.documents += len(good)
        rows.done(len(batch))
    splits = rows.close()
    report.add(rows.report)
    return splits


def _add(rows: Rows, batch: list[Scaled], tokenizer: "Tokenizer", limit: int | None) -> None:
    """Tokenize the captions and append the images."""
    found = tokenizer.encode_batch_fast([text for each in batch for text in each.captions], add_special_tokens=False)
    tokens = iter(encoding.ids for encoding in found)
    for each in batch:
        targets = []
        for text in each.captions:
            ids = next(tokens)
            if limit and each.split == "train" and len(ids) > limit:
                rows.report.note(each.name, f"captions of more than {limit} tokens: dropped")
            else:
                targets.append((ids, text))
        if targets:
            rows.add(each.split, {"image": each.image, "name": each.name}, targets)


def _scale(size: int, max_pixels: int, batch: list[tuple[str, Captioned]]) -> list[Scaled]:
    """Read and scale a batch, in a worker process."""
    found = []
    for split, (name, image, captions) in batch:
        try:
            data, bad = shrink(image if isinstance(image, bytes) else image.read(), size, max_pixels), None
        except ImageError as error:
            data, bad = b"", str(error)
        except OSError as error:
            data, bad = b"", f"cannot be read: {error.strerror}"
        found.append(Scaled(split, name, captions, data, bad))
    return found


if __name__ == "__main__":
    shared.run_as_script(main)
