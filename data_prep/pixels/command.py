"""Prepare a dataset of images as sequences of quantized pixel values, grey or colour, in raster order.

`unroll prepare pixels SOURCE --output data/NAME`. Damaged images are counted and named in the dataset's report. All
images of a dataset have one size: their own, or the value of `--size`.
"""

import argparse
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import pyarrow as pa
from tokenizers import Tokenizer

from data_prep.pixels.reader import PixelReader, Pixels
from data_prep.pixels.sources import Found, find
from data_prep.sources.walk import SPLIT_NAMES, split_folders
from data_prep.workspace import options as shared
from data_prep.workspace import tokenizer
from data_prep.workspace.entries import origin, vocabulary
from data_prep.workspace.report import Report, progress
from data_prep.workspace.shards import Shards, SplitEntry
from data_prep.workspace.splits import cut, dropped
from data_prep.workspace.workers import in_order
from data_prep.workspace.workspace import SPLITS, Workplace
from pipeline.arguments import Parser, non_negative_integer
from pipeline.dataset.codecs.image import ONE_COLOUR, ImageError
from pipeline.dataset.codecs.pixel_levels import MODES
from pipeline.errors import ConfigError, DataError

PROGRAM = "unroll prepare pixels"
COLUMNS = {"image": pa.binary(), "label": pa.int64(), "name": pa.string()}
NO_LABEL = -1  # value in the column of labels
BATCH = 256  # images per piece of work
EACH = 5000  # images per worker process; fewer do not justify the start of a process
LEVELS = (2, 16, 256)
SOURCE = """IDX file (optionally .gz), directory of images with one subdirectory per class, hub:NAME[:CONFIG[:SPLIT]],
or builtin[:N] (N generated drawings of shapes, default: 2000)"""
EXAMPLES = """examples:
  unroll prepare pixels --train train-images-idx3-ubyte.gz --test t10k-images-idx3-ubyte.gz --size 14x14 --levels 2 \\
      --output data/mnist14
  unroll prepare pixels photographs/ --size 32x32 --levels 16 --colour --output data/thumbnails
  unroll prepare pixels builtin:2000 --size 14x14 --levels 2 --output data/figures"""


class PixelsEntry(TypedDict):
    """The manifest's entry of the pixels."""

    rows: int
    columns: int
    channels: int
    levels: int
    labels: list[str]
    binarised: str | None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, (__doc__ or "").split("\n")[0], EXAMPLES)
    add = parser.add_argument
    add("source", nargs="?", metavar="SOURCE", help=SOURCE)
    shared.add_output(parser)
    shared.add_workers(parser)
    splits = parser.add_argument_group("splits")
    shared.add_splits(splits, metavar="SOURCE")
    shared.add_shares(splits, 0.05, "images")
    images = parser.add_argument_group("images")
    add = images.add_argument
    size = "scale images to H rows and W columns, for example 14x14 (default: no scaling)"
    add("--size", type=_size, metavar="HxW", help=size)
    add("--colour", action="store_true", help="store red, green and blue values of each pixel (default: grey values)")
    levels = "number of quantization levels of each value (default: %(default)s)"
    add("--levels", type=int, choices=LEVELS, default=256, help=levels)
    add(
        "--sample",
        type=non_negative_integer,
        metavar="SEED",
        help="with --levels 2: sample each pixel with its grey value as the probability of white (default: round)",
    )
    shared.add_field(images, "image", "the image in a Hub data set")
    shared.add_field(images, "label", "the class in a Hub data set")
    shared.add_max_bad_share(images, "images")
    return parser


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected ROWSxCOLUMNS such as 14x14, got {text}")
    return int(match[1]), int(match[2])


def main(argv: list[str]) -> int:
    """Prepare a dataset of pixels from the command line.

    Raises:
        ConfigError: the options contradict each other.
        DataError: a source or the output cannot be used.
    """
    options = _parser().parse_args(argv)
    _check(options)
    began = time.monotonic()
    place = shared.workplace(options)
    report = Report("images")
    with place.entered(fresh=True):  # Images are read again after an interruption.
        splits, about = _prepare(place, report, options, argv)
    print("\n".join(report.lines()))
    height, width, channels = (about[name] for name in ("rows", "columns", "channels"))
    print(f"{height} x {width} pixels of {channels} x {options.levels} levels, {len(about['labels'])} classes")
    for name, entry in splits.items():
        print(f"{name}: {entry['rows']:,} images")
    print(f"{options.output} in {time.monotonic() - began:.1f} s")
    return 0


def _check(options: argparse.Namespace) -> None:
    shared.check_source(options, "images")
    if options.validation is None and options.test is None and (folder := Path(options.train)).is_dir():
        for name, part in split_folders(folder).items():
            setattr(options, name, str(part))
    if options.sample is not None and options.levels != 2:
        raise ConfigError(f"--sample requires --levels=2, got --levels={options.levels}. Add --levels 2")
    shared.check(options)


def _prepare(
    place: Workplace, report: Report, options: argparse.Namespace, argv: Sequence[str]
) -> tuple[dict[str, SplitEntry], PixelsEntry]:
    found = _found(options, report)
    labels = sorted({image.label for image in found["train"] if image.label is not None})
    for label in labels:
        if any(label.lower() in names for names in SPLIT_NAMES.values()):
            report.note(label, "class with the name of a split")
    made = tokenizer.label(labels)
    described = vocabulary(place.save(made), made)
    writing = _Writing(labels, made, report, options)
    held_out_first = [name for name in reversed(SPLITS) if name in found]
    written = {name: writing.write(place.path, name, found[name]) for name in held_out_first}
    splits = {name: written[name] for name in found}
    report.check(options.max_bad_share)
    writing.check_sizes()
    for name, entry in splits.items():
        if not entry["rows"]:
            raise DataError(
                f"the {name} split has no valid images of its own. Name them with --{name}, or change the shares"
            )
    [(rows, columns)] = writing.sizes
    about: PixelsEntry = {
        "rows": rows,
        "columns": columns,
        "channels": writing.reader.channels,
        "levels": options.levels,
        "labels": labels,
        "binarised": None if options.levels > 2 else "at half" if options.sample is None else f"seed {options.sample}",
    }
    given = [source for name in SPLITS if (source := getattr(options, name))]
    manifest = {
        "kind": "pixels",
        "splits": splits,
        **described,
        "pixels": about,
        **origin(PROGRAM, argv, given, "pillow", "pyarrow"),
    }
    place.publish(manifest, report.as_json(), options.overwrite)
    return splits, about


def _found(options: argparse.Namespace, report: Report) -> dict[str, list[Found]]:
    """Return the images of each split."""
    found = {
        name: list(find(source, options.image_field, options.label_field, report))
        for name in SPLITS
        if (source := getattr(options, name)) is not None
    }
    return cut(found, shared.shares(options))


@dataclass
class _Writing:
    """Writes the shards of all splits and collects the sizes of their images."""

    labels: list[str]
    tokenizer: Tokenizer
    report: Report
    options: argparse.Namespace
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    first: dict[tuple[int, int], str] = field(default_factory=dict)
    homes: dict[bytes, str] = field(default_factory=dict)
    """Split of each image, by the hash of its content."""

    @property
    def reader(self) -> PixelReader:
        """Reader with the settings of the command line."""
        options = self.options
        return PixelReader(options.size, max(MODES) if options.colour else min(MODES), options.levels, options.sample)

    def write(self, folder: Path, split: str, images: list[Found]) -> SplitEntry:
        """Write the shards of a split and return the manifest's entry."""
        shards = Shards(folder, split, COLUMNS, tokenizer.size(self.tokenizer))
        vocab, levels = self.tokenizer.get_vocab(), 0
        for found, pixels in self._valid(split, images):
            self.sizes[pixels.size] += 1
            self.first.setdefault(pixels.size, found.name)
            if len(self.sizes) > 1:
                continue  # The preparation fails later; the sizes are still counted for the error message.
            name = found.label if self.labels else None  # Labels are dropped if training has none.
            label = NO_LABEL if name is None else self.labels.index(name)
            target = [] if name is None else [vocab[name]]
            shards.add({"image": pixels.levels, "label": label, "name": found.name}, [(target, name or "")])
            self.report.documents += 1
            levels += len(pixels.levels)
        # The predicted symbols are levels of one byte each, so bits per byte are bits per dimension.
        return {**shards.close(), "tokens": levels, "bytes": levels}

    def check_sizes(self) -> None:
        """Check the sizes of the images.

        Raises:
            DataError: no image is valid, or the sizes differ.
        """
        if not self.sizes:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in self.report.bad.most_common())
            raise DataError(f"source {self.options.train} has no valid images ({reasons}). Check its images")
        if len(self.sizes) == 1:
            return
        counts = [f"{n:,} of {h}x{w} (first {self.first[h, w]})" for (h, w), n in self.sizes.most_common(5)]
        more = f" and {len(self.sizes) - 5} more sizes" if len(self.sizes) > 5 else ""
        raise DataError(f"images of several sizes: {', '.join(counts)}{more}. Scale them to one size with --size HxW")

    def _valid(self, split: str, images: list[Found]) -> Iterator[tuple[Found, Pixels]]:
        """Yield the valid images with their pixels; count and name the others in the report."""
        workers = min(self.options.workers, max(1, len(images) // EACH))
        batches = [images[at : at + BATCH] for at in range(0, len(images), BATCH)]
        read = Counter[str]()
        results = in_order(self.reader, batches, workers)
        shown = progress(results, split, len(images), lambda: read["images"], ("images", 1.0))
        for batch, result in zip(batches, shown, strict=True):
            read["images"] += len(batch)
            for found, pixels in zip(batch, result, strict=True):
                if isinstance(pixels, ImageError):
                    self.report.reject(found.name, pixels.reason, pixels.detail)
                elif self._is_usable(split, found, pixels):
                    yield found, pixels

    def _is_usable(self, split: str, found: Found, pixels: Pixels) -> bool:
        """Return whether an image belongs to a split; count what is invalid or unusual in the report."""
        if self.labels and found.label not in self.labels:
            reason = "no label" if found.label is None else "label not in training"
            self.report.reject(found.name, reason, found.label or "")
            return False
        if self.homes.setdefault(pixels.digest, split) != split and not shared.is_builtin(self.options.train):
            self.report.note(found.name, dropped(split))
            return False
        rows, columns = pixels.size
        if pixels.levels == pixels.levels[: len(pixels.levels) // (rows * columns)] * (rows * columns):
            self.report.note(found.name, ONE_COLOUR)
        return True


if __name__ == "__main__":
    shared.run_as_script(main)
