"""Prepare a dataset of images with captions.

`unroll prepare captions SOURCE... --output data/NAME`. Each image is a row with all its captions. The images are
scaled in parallel, and an interrupted preparation can continue.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from functools import partial
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from data_prep.captions.captioned import Captioned
from data_prep.captions.corpus import CAPTION_FIELDS, IMAGE_FIELDS, Corpus
from data_prep.workspace import options as shared
from data_prep.workspace.entries import origin, vocabulary
from data_prep.workspace.report import Report, progress
from data_prep.workspace.resumable_rows import Rows
from data_prep.workspace.shards import SplitEntry
from data_prep.workspace.splits import dropped
from data_prep.workspace.workers import in_order
from data_prep.workspace.workspace import Workplace, train_once
from pipeline.arguments import Parser, positive_integer
from pipeline.dataset.codecs.image import MAX_PIXELS, ONE_COLOUR, ImageError, Shrunk, shrink
from pipeline.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PROGRAM = "unroll prepare captions"
BATCH = 32  # images per piece of work
COLUMNS = {"image": pa.binary(), "name": pa.string()}
SOURCES = """table of images and captions (.csv .tsv .txt .token .jsonl .json .parquet, optionally .gz or .xz),
COCO .json, a directory with one of these or with folders of the splits, WebDataset .tar files,
hub:NAME[:CONFIG[:SPLIT]], or builtin[:N] (N generated drawings of shapes, default: 2000)"""
EXAMPLES = """examples:
  unroll prepare captions captions.csv --images photographs/ --plain --tokenizer word --output data/photographs
  unroll prepare captions --train train.json --validation val.json --images images/ --size 256 --output data/coco
  unroll prepare captions shards/*.tar --output data/web
  unroll prepare captions builtin:2000 --tokenizer word --output data/shapes
To continue an interrupted preparation, run the same command again."""


class Scaled(NamedTuple):
    """A scaled image, or the reason why it is invalid, with its captions."""

    split: str
    name: str
    captions: list[str]
    image: Shrunk | ImageError
    digest: str
    """Hash of the file before scaling."""


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
    folder = """directory of the images that tables name, of all splits or of one; repeat it for others
    (default: the directory of the table)"""
    add("--images", action="append", default=[], metavar="[SPLIT=]DIR", help=folder)
    add("--image-field", metavar="NAME", help=f"column or key of the image (default: {' or '.join(IMAGE_FIELDS)})")
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
    field = f"column or key of the caption or a list of captions (default: {' or '.join(CAPTION_FIELDS)})"
    add("--caption-field", metavar="NAME", help=field)
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
    shared.check_sources(options)
    shared.check(options)
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


def _prepare(place: Workplace, options: argparse.Namespace, argv: list[str]) -> tuple[Report, dict[str, SplitEntry]]:
    corpus, report = Corpus(options), Report("images")
    place.begin(corpus.fingerprint())
    train_once(place, lambda: _tokenizer(corpus, options))
    if place.state.pieces:
        print(f"continuing after {place.state.pieces:,} images", file=sys.stderr)
    splits = _write(place, corpus, report, options)
    report.check(options.max_bad_share)
    for name in corpus.splits:
        if name not in splits:
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
        good = list(_good(batch, rows))
        _add(rows, good, loaded, options.max_length)
        rows.report.documents += len(good)
        rows.done(len(batch))
    splits = rows.close()
    report.add(rows.report)
    return splits


def _good(batch: list[Scaled], rows: Rows) -> Iterator[tuple[Scaled, bytes]]:
    """Yield what can be written, with the image files; count what is invalid or unusual in the report."""
    for each in batch:
        if isinstance(each.image, ImageError):
            rows.report.reject(each.name, each.image.reason, each.image.detail)
        elif rows.homes.setdefault(each.digest, each.split) != each.split:
            rows.report.note(each.name, dropped(each.split))
        else:
            if each.image.uniform:
                rows.report.note(each.name, ONE_COLOUR)
            yield each, each.image.file


def _add(rows: Rows, batch: list[tuple[Scaled, bytes]], tokenizer: "Tokenizer", limit: int | None) -> None:
    """Tokenize the captions and append the images."""
    found = tokenizer.encode_batch_fast([text for each, _ in batch for text in each.captions], add_special_tokens=False)
    tokens = iter(encoding.ids for encoding in found)
    for each, file in batch:
        targets = []
        for text in each.captions:
            ids = next(tokens)
            if limit and each.split == "train" and len(ids) > limit:
                rows.report.note(each.name, f"captions of more than {limit} tokens: dropped")
            else:
                targets.append((ids, text))
        if targets:
            rows.add(each.split, {"image": file, "name": each.name}, targets)


def _scale(size: int, max_pixels: int, batch: list[tuple[str, Captioned]]) -> list[Scaled]:
    """Read and scale a batch, in a worker process."""
    return [_scaled(size, max_pixels, split, image) for split, image in batch]


def _scaled(size: int, max_pixels: int, split: str, given: Captioned) -> Scaled:
    image: Shrunk | ImageError
    digest = ""
    try:
        data = given.image if isinstance(given.image, bytes) else given.image.read()
        digest = blake2b(data, digest_size=8).hexdigest()
        image = shrink(data, size, max_pixels, given.stated)
    except ImageError as error:
        image = error
    except OSError as error:
        image = ImageError("cannot be read", error.strerror or "")
    return Scaled(split, given.name, given.captions, image, digest)


if __name__ == "__main__":
    shared.run_as_script(main)
