"""Images with captions become a dataset: scaled, split by image and written, in parallel and resumably.

`unroll prepare captions SOURCE... --output data/NAME`. Each image becomes a row
with all its captions.
"""

import argparse
import os
import sys
import time
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from data_prep.captions.corpus import Corpus
from data_prep.captions.sources import Captioned
from data_prep.workspace.options import check_output, vocabulary
from data_prep.workspace.report import Report, progress
from data_prep.workspace.resumable_rows import Rows
from data_prep.workspace.workers import in_order
from data_prep.workspace.workspace import SPLITS, Workplace, train_once
from pipeline.arguments import Parser, count, share
from pipeline.dataset.codecs.image import MAX_PIXELS, ImageError, shrink
from pipeline.errors import ConfigError, DataError, UserError
from pipeline.files import sha256

PROGRAM = "unroll prepare captions"
BATCH = 32  # images that a worker scales at a time
COLUMNS = {"image": pa.binary(), "name": pa.string()}
NOT_SHAPING = ("output", "overwrite", "max_bad_share", "workers")  # options that leave the result the same
SOURCES = """a table of images and captions (.csv .tsv .txt .jsonl, plain, .gz or .xz), a .json as COCO has them, a
directory with one of these, .tar files of WebDataset, hub:NAME[:CONFIG[:SPLIT]], or builtin[:N]: drawings of shapes"""
EXAMPLES = """examples:
  unroll prepare captions captions.csv --images photographs/ --plain --tokenizer word --output data/photographs
  unroll prepare captions --train train.json --validation val.json --images images/ --size 256 --output data/coco
  unroll prepare captions shards/*.tar --output data/web
  unroll prepare captions builtin:2000 --tokenizer word --output data/shapes
A preparation that was stopped continues when the same command is given again."""


class Scaled(NamedTuple):
    """An image on its way to a shard, or why it is not."""

    split: str
    name: str
    captions: list[str]
    image: bytes
    bad: str | None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, (__doc__ or "").split("\n")[0], EXAMPLES)
    add = parser.add_argument
    add("sources", nargs="*", metavar="SOURCE", help=SOURCES)
    add("--output", required=True, type=Path, metavar="DIR", help="the dataset to make")
    add("--overwrite", action="store_true", help="replace a dataset that is there")
    add("--workers", type=count, default=os.cpu_count() or 1, metavar="N", help="processes (default: all cores)")
    add = parser.add_argument_group("splits, cut by image from the sources or given").add_argument
    for name in SPLITS:
        add(f"--{name}", nargs="+", default=[], metavar="SOURCE", help=f"the {name} split, instead of SOURCE...")
    add("--validation-share", type=share, default=0.05, metavar="SHARE", help="of the images (default: 0.05)")
    add("--test-share", type=share, default=0.05, metavar="SHARE", help="of the images (default: 0.05)")
    add = parser.add_argument_group("images").add_argument
    add("--images", type=Path, metavar="DIR", help="where the images of a table are (default: where the table is)")
    add("--image-field", default="image", metavar="NAME", help="column or field of images (default: image)")
    add("--size", type=count, default=256, metavar="PIXELS", help="most pixels of the shorter side (default: 256)")
    add("--max-pixels", type=count, default=MAX_PIXELS, metavar="N", help="refuse larger images (default: 2**26)")
    add("--max-bad-share", type=share, default=0.01, metavar="SHARE", help="fail above this share of bad records")
    add = parser.add_argument_group("captions").add_argument
    add("--caption-field", default="caption", metavar="NAME", help="column or field of captions (default: caption)")
    add("--plain", action="store_true", help="lower case, without punctuation")
    add("--max-length", type=count, metavar="N", help="drop longer captions from training: tokens")
    add("--tokenizer", default="bpe", metavar="KIND", help="byte, character, word, bpe (default), unigram or a file")
    add("--vocab-size", type=count, metavar="N", help="most tokens (default: 8192 for bpe and unigram, else all)")
    return parser


def main(argv: list[str]) -> int:
    """Prepare a dataset of captioned images as the command line asks.

    Raises:
        ConfigError: the options contradict each other.
        DataError: a source or the output cannot be used; the message names it.
    """
    options = _parser().parse_args(argv)
    _check(options)
    began = time.monotonic()
    shaping = {name: str(value) for name, value in vars(options).items() if name not in NOT_SHAPING}
    place = Workplace(options.output.resolve(), shaping)
    with place.entered():
        report, splits = _prepare(place, options, argv)
    print("\n".join(report.lines()))
    for name, entry in splits.items():
        print(f"{name}: {entry['rows']:,} images, {entry['samples']:,} captions, {entry['tokens']:,} tokens")
    seconds = time.monotonic() - began
    print(f"{options.output} in {seconds:.1f} s: {report.documents / seconds:,.0f} images/s")
    return 0


def _check(options: argparse.Namespace) -> None:
    given = options.train or options.validation or options.test
    if bool(options.sources) == bool(given):
        raise ConfigError("name sources to cut, or give --train (and --validation, --test): one of the two")
    if given and not options.train:
        raise ConfigError("--validation and --test come with --train: the tokenizer learns from the training split")
    if options.validation_share + options.test_share >= 1:
        raise ConfigError("--validation-share and --test-share leave nothing to train on")
    if options.images and not options.images.is_dir():
        raise DataError(f"--images {options.images} is no directory")
    check_output(options.output, options.overwrite)


def _prepare(place: Workplace, options: argparse.Namespace, argv: list[str]) -> tuple[Report, dict[str, Any]]:
    place.recall()
    corpus, report = Corpus(options), Report("images")
    place.begin(corpus.fingerprint())
    train_once(place, lambda: _tokenizer(corpus, options))
    if place.state.pieces:
        print(f"continuing after {place.state.pieces:,} images", file=sys.stderr)
    splits = _write(place, corpus, report, options)
    report.check(options.max_bad_share)
    wanted = {"train": 1.0, "validation": options.validation_share, "test": options.test_share}
    for name in SPLITS:
        if (getattr(options, name) or (options.sources and wanted[name])) and name not in splits:
            raise DataError(f"no image fell to the {name} split: give it sources, or other shares")
    from data_prep.workspace import tokenizer

    sources = [{"name": str(path), "size": path.stat().st_size, "sha256": sha256(path)} for path in corpus.files()]
    manifest = {
        "kind": "captions",
        "splits": splits,
        **vocabulary(place.tokenizer, tokenizer.load(place.tokenizer)),
        "size": options.size,
        "sources": sources,
        "command": [*PROGRAM.split(), *argv],
        "versions": {name: version(name) for name in ("unroll", "tokenizers", "pyarrow", "pillow")},
    }
    place.publish(manifest, report.as_json(), options.overwrite)
    return report, splits


def _tokenizer(corpus: Corpus, options: argparse.Namespace) -> Any:
    from data_prep.workspace import tokenizer

    if options.tokenizer not in tokenizer.TRAINED:
        return tokenizer.load(Path(options.tokenizer))
    images = corpus.images(Report())
    texts = (caption for split, image in images if split == "train" for caption in image.captions)
    return tokenizer.TRAINED[options.tokenizer](texts, options.vocab_size)


def _write(place: Workplace, corpus: Corpus, report: Report, options: argparse.Namespace) -> dict[str, Any]:
    """Scale what is not yet done and write the shards; what the manifest says of the splits."""
    from data_prep.workspace import tokenizer

    known = tokenizer.load(place.tokenizer)
    rows = Rows(place, COLUMNS, tokenizer.size(known))
    total = sum(1 for _ in corpus.images(Report()))
    todo = islice(corpus.images(report), place.state.pieces, None)
    batches = iter(lambda: list(islice(todo, BATCH)), [])
    scaled = in_order(partial(_scale, options.size, options.max_pixels), batches, options.workers)
    for batch in progress(scaled, "scaling", total, lambda: place.state.pieces, ("images", 1)):
        good = [each for each in batch if not each.bad]
        for each in batch:
            if each.bad:
                rows.report.reject(each.name, each.bad)
        _add(rows, good, known, options.max_length)
        rows.report.documents += len(good)
        rows.done(len(batch))
    splits = rows.close()
    report.add(rows.report)
    return splits


def _add(rows: Rows, batch: list[Scaled], known: Any, limit: int | None) -> None:
    """Tokenize the captions and append the images."""
    found = known.encode_batch_fast([text for each in batch for text in each.captions], add_special_tokens=False)
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
    """In a worker: read and scale."""
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
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"unroll: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
