"""Images become a dataset of sequences of pixels: grey or colour, row by row, every value one of a few levels.

`unroll prepare pixels SOURCE --output data/NAME`. Images that are damaged are counted
and named in the dataset's report; all of a dataset have one size, their own or that of `--size`.
"""

import argparse
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from data_prep.pixels.sources import Found, find
from data_prep.workspace import options as shared
from data_prep.workspace import tokenizer
from data_prep.workspace.entries import origin, vocabulary
from data_prep.workspace.report import Report, progress
from data_prep.workspace.shards import Shards
from data_prep.workspace.splits import cut
from data_prep.workspace.workers import in_order
from data_prep.workspace.workspace import SPLITS, Workplace
from pipeline.arguments import Parser, non_negative_integer
from pipeline.dataset.codecs.image import ImageError, decode_image
from pipeline.dataset.codecs.pixel_levels import MODES, quantise, values
from pipeline.errors import ConfigError, DataError

PROGRAM = "unroll prepare pixels"
COLUMNS = {"image": pa.binary(), "label": pa.int64(), "name": pa.string()}
NO_LABEL = -1  # in the column of labels
BATCH = 256  # images that a worker looks at in one go
EACH = 5000  # images for which another process is worth its start
LEVELS = (2, 16, 256)
EXAMPLES = """examples:
  unroll prepare pixels --train train-images-idx3-ubyte.gz --test t10k-images-idx3-ubyte.gz --size 14x14 --levels 2 \\
      --output data/mnist14
  unroll prepare pixels photographs/ --size 32x32 --levels 16 --colour --output data/thumbnails
  unroll prepare pixels builtin:2000 --size 14x14 --levels 2 --output data/figures"""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, (__doc__ or "").split("\n")[0], EXAMPLES)
    add = parser.add_argument
    add("source", nargs="?", help="IDX file (plain, .gz), folder of images (a subfolder a class), hub:NAME or builtin")
    shared.add_output(parser)
    shared.add_workers(parser)
    splits = parser.add_argument_group("splits")
    shared.add_splits(splits, metavar="SOURCE")
    shared.add_shares(splits, 0.05, "images")
    images = parser.add_argument_group("images")
    add = images.add_argument
    add("--size", type=_size, metavar="HxW", help="scale to H rows and W columns, as 14x14 (default: their own size)")
    add("--colour", action="store_true", help="store red, green and blue, three levels per pixel (default: grey)")
    add("--levels", type=int, choices=LEVELS, default=256, help="levels of each value (default: %(default)s)")
    add(
        "--sample",
        type=non_negative_integer,
        metavar="SEED",
        help="with 2 levels: draw white with the grey value as probability",
    )
    shared.add_field(images, "image", "the image, in a hub data set")
    shared.add_field(images, "label", "the class, in a hub data set")
    shared.add_max_bad_share(images, "images")
    return parser


def _size(said: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", said)
    if match is None:
        raise argparse.ArgumentTypeError(f"{said!r}: write rows x columns, as 14x14")
    return int(match[1]), int(match[2])


def main(argv: list[str]) -> int:
    """Prepare a dataset of pixels as the command line asks.

    Raises:
        ConfigError: the options contradict each other.
        DataError: a source or the output cannot be used; the message names it.
    """
    options = _parser().parse_args(argv)
    _check(options)
    began = time.monotonic()
    place = shared.workplace(options)
    report = Report("images")
    with place.entered(anew=True):  # images are read anew
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
    if options.sample is not None and options.levels != 2:
        raise ConfigError(f"--sample {options.sample} draws one of two levels: add --levels 2")
    shared.check(options)


def _prepare(
    place: Workplace, report: Report, options: argparse.Namespace, argv: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    found = _found(options)
    labels = sorted({image.label for image in found["train"] if image.label is not None})
    made = tokenizer.label(labels)
    described = vocabulary(place.save(made), made)
    writing = _Writing(labels, made, report, options)
    splits = {name: writing.write(place.path, name, found[name]) for name in SPLITS if name in found}
    report.check(options.max_bad_share)
    writing.check_sizes()
    for name, entry in splits.items():
        if not entry["rows"]:
            raise DataError(f"no usable image fell to the {name} split: give it a source, or other shares")
    [(rows, columns)] = writing.sizes
    about = {
        "rows": rows,
        "columns": columns,
        "channels": writing.looking.channels,
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


def _found(options: argparse.Namespace) -> dict[str, list[Found]]:
    """The images of each split."""
    found = {
        name: list(find(source, options.image_field, options.label_field))
        for name in SPLITS
        if (source := getattr(options, name)) is not None
    }
    return cut(found, shared.shares(options))


class Seen(NamedTuple):
    """An image that was looked at."""

    size: tuple[int, int]
    levels: bytes


@dataclass(frozen=True)
class Looking:
    """How images are looked at, in a worker.

    Args:
        size: rows and columns to scale to.
        channels: 1 of grey or 3 of colour.
        levels: of each value.
        seed: of drawn levels; None where they are rounded.
    """

    size: tuple[int, int] | None
    channels: int
    levels: int
    seed: int | None

    def __call__(self, batch: Sequence[Found]) -> list[Seen | str]:
        """Of each image its levels, or why there are none."""
        return [self._look(found) for found in batch]

    def _look(self, found: Found) -> Seen | str:
        try:
            image = _opened(found.image)
        except ImageError as error:
            return str(error)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        chance = None if self.seed is None else np.random.default_rng([self.seed, *found.name.encode()])
        seen = quantise(values(image, self.channels, self.size), self.levels, chance)
        return Seen((seen.shape[0], seen.shape[1]), seen.tobytes())


def _opened(image: np.ndarray | Path | bytes) -> Image.Image:
    if isinstance(image, np.ndarray):
        return Image.fromarray(image)
    return decode_image(image if isinstance(image, bytes) else image.read_bytes())


@dataclass
class _Writing:
    """The shards of all splits, and the sizes of the images that went into them."""

    labels: list[str]
    tokenizer: Any
    report: Report
    options: argparse.Namespace
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    first: dict[tuple[int, int], str] = field(default_factory=dict)

    @property
    def looking(self) -> Looking:
        """As the options say."""
        options = self.options
        return Looking(options.size, max(MODES) if options.colour else min(MODES), options.levels, options.sample)

    def write(self, folder: Path, split: str, images: list[Found]) -> dict[str, Any]:
        """Write the shards of a split; what the manifest says of it."""
        shards = Shards(folder, split, COLUMNS, tokenizer.size(self.tokenizer))
        levels = 0
        for found, seen in self._seen(split, images):
            self.sizes[seen.size] += 1
            self.first.setdefault(seen.size, found.name)
            if len(self.sizes) > 1:
                continue  # nothing will come of it but a report
            known = found.label if self.labels else None  # training knows none: then nobody asks for one
            label = NO_LABEL if known is None else self.labels.index(known)
            target = [] if known is None else [self.tokenizer.token_to_id(known)]
            shards.add({"image": seen.levels, "label": label, "name": found.name}, [(target, known or "")])
            self.report.documents += 1
            levels += len(seen.levels)
        # what is predicted are levels, a byte each: bits a byte are bits a dimension
        return shards.close() | {"tokens": levels, "bytes": levels}

    def check_sizes(self) -> None:
        """Raise DataError where there are no images, or images of several sizes."""
        if not self.sizes:
            raise DataError(f"no image of {self.options.train} can be used: {dict(self.report.bad)}")
        if len(self.sizes) == 1:
            return
        counts = [f"{n:,} of {h}x{w} (first {self.first[h, w]})" for (h, w), n in self.sizes.most_common(5)]
        more = f" and {len(self.sizes) - 5} more sizes" if len(self.sizes) > 5 else ""
        raise DataError(f"images of several sizes: {', '.join(counts)}{more}; give --size HxW, which scales all to one")

    def _seen(self, split: str, images: list[Found]) -> Iterator[tuple[Found, Seen]]:
        """The usable images; the others are counted and named."""
        workers = min(self.options.workers, max(1, len(images) // EACH))
        batches = [images[at : at + BATCH] for at in range(0, len(images), BATCH)]
        looked = Counter[str]()
        results = in_order(self.looking, batches, workers)
        shown = progress(results, split, len(images), lambda: looked["images"], ("images", 1.0))
        for batch, seen in zip(batches, shown, strict=True):
            looked["images"] += len(batch)
            for found, one in zip(batch, seen, strict=True):
                if isinstance(one, Seen) and (not self.labels or found.label in self.labels):
                    yield found, one
                    continue
                lacks = "no label" if found.label is None else f"a label that training lacks ({found.label})"
                self.report.reject(found.name, one if isinstance(one, str) else lacks)


if __name__ == "__main__":
    shared.run_as_script(main)
