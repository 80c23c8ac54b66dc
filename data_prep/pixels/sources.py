"""Where images without captions are found: IDX files, folders whose subfolders are classes, a hub, shapes drawn here.

An IDX file (LeCun, "The MNIST database") begins with 0, 0, the type of a number, how many axes there are, and the
length of each; images of unsigned bytes have three axes (or four, with colours), their labels one.

Legend: N images, H rows, W columns.
"""

import gzip
import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.sources.shapes import figures
from data_prep.workspace.options import builtin, is_builtin
from pipeline.errors import DataError

BYTE = 8  # IDX's type of unsigned bytes
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


class Found(NamedTuple):
    """An image that was not looked at yet."""

    name: str
    label: str | None
    image: np.ndarray | Path | bytes
    """Its values, or a file."""


def find(source: str, image_field: str, label_field: str) -> Iterator[Found]:
    """The images of a source, in a fixed order.

    Args:
        source: an IDX file, a folder, hub:NAME[:CONFIG[:SPLIT]] or builtin[:N].
        image_field: column of a hub data set that holds the image.
        label_field: and the one that holds the label.

    Raises:
        DataError: there is no such source, or nothing in it that is an image.
    """
    if source.startswith("hub:"):
        return _hub(source, image_field, label_field)
    if is_builtin(source):
        return _builtin(source)
    path = Path(source)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise DataError(f"there is no source {source}; name IDX files, a folder of images, hub:NAME or builtin")
    return _idx(path)


def _idx(path: Path) -> Iterator[Found]:
    """Images, with labels from the file beside them that is called likewise."""
    images = read_idx(path)
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        axes = " x ".join(map(str, images.shape))
        raise DataError(f"{path} holds {axes} numbers, no images (N x H x W, or N x H x W x 3): name the images' file")
    beside = path.with_name(path.name.replace("images", "labels").replace(f"idx{images.ndim}", "idx1"))
    labels = read_idx(beside) if beside != path and beside.is_file() else None
    if labels is not None and len(labels) != len(images):
        raise DataError(f"{beside} holds {len(labels)} labels for the {len(images)} images of {path}: one is damaged")
    for number, image in enumerate(images):
        yield Found(f"{path.name}:{number}", None if labels is None else str(labels[number]), image)


def read_idx(path: Path) -> np.ndarray:
    """The numbers in an IDX file of unsigned bytes, plain or .gz.

    Raises:
        DataError: it is no such file, or damaged.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): fetch it again") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != BYTE:
        raise DataError(f"{path} is no IDX file of unsigned bytes: name one, or a folder of images")
    begin = 4 + 4 * data[3]
    shape = np.frombuffer(data[4:begin], ">u4").tolist()
    if len(data) != begin + math.prod(shape):
        axes = " x ".join(map(str, shape))
        raise DataError(f"{path} is damaged: {axes} bytes are announced, {len(data) - begin} are there: fetch it again")
    return np.frombuffer(data, np.uint8, offset=begin).reshape(shape)


def _folder(path: Path) -> Iterator[Found]:
    """Image files; where they lie in a subfolder its name is their class."""
    found = (file for file in path.rglob("*") if file.suffix.lower() in PICTURES)
    files = sorted(file for file in found if not file.name.startswith("."))
    if not files:
        raise DataError(f"no file below {path} ends in {', '.join(PICTURES)}: name a folder of images, or IDX files")
    for file in files:
        inner = file.relative_to(path)
        yield Found(inner.as_posix(), inner.parts[0] if len(inner.parts) > 1 else None, file)


def _hub(source: str, image_field: str, label_field: str) -> Iterator[Found]:
    name, config, split = [*source.removeprefix("hub:").split(":"), "", ""][:3]
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    try:
        import datasets

        rows: Any = datasets.load_dataset(name, config or None, split=split or "train")
        classes = getattr(rows.features.get(label_field), "names", None)
        rows = rows.cast_column(image_field, datasets.Image(decode=False))  # bytes as they are
    except Exception as error:  # whatever the hub, the network or the builder has to say
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{source} cannot be loaded: {first[0]}; see --image-field") from error
    for number, row in enumerate(rows):
        image, label = row[image_field] or {}, row.get(label_field)
        named = None if label is None else str(classes[label] if classes else label)
        yield Found(f"{source}:{number}", named, image.get("bytes") or Path(image.get("path") or ""))


def _builtin(source: str) -> Iterator[Found]:
    drawn = figures(builtin(source, "drawings"))
    return (Found(f"drawing {n}", label, data) for n, (data, label) in enumerate(drawn))
