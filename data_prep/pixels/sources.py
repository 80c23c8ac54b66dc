"""Sources of images without captions: IDX files, directories, Hub data sets, generated drawings.

An IDX file (LeCun, "The MNIST database") begins with 0, 0, the data type, the number of axes and the length of each
axis. Images of unsigned bytes have three axes (four in colour), their labels one.

Legend: N images, H rows, W columns.
"""

import gzip
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.sources.shapes import figures
from data_prep.sources.walk import name_of, walk
from data_prep.workspace.options import builtin_count, is_builtin
from data_prep.workspace.report import Report
from pipeline.dataset.codecs.encoding import readable
from pipeline.dataset.codecs.image import SUFFIXES
from pipeline.errors import DataError

BYTE = 8  # code of unsigned bytes in IDX files
GZIP = b"\x1f\x8b"  # first bytes of a file compressed with gzip


class Found(NamedTuple):
    """An image that has not been decoded yet."""

    name: str
    label: str | None
    image: np.ndarray | Path | bytes
    """Pixel values, or a file: its path or content."""


def find(source: str, image_field: str, label_field: str, report: Report) -> Iterator[Found]:
    """Yield the images of a source in a fixed order.

    Args:
        source: an IDX file, a directory, hub:NAME[:CONFIG[:SPLIT]] or builtin[:N].
        image_field: column of the image in a Hub data set.
        label_field: column of the label in a Hub data set.
        report: counts files that are left out.

    Raises:
        DataError: the source does not exist or holds no images.
    """
    if source.startswith("hub:"):
        return _hub(source, image_field, label_field)
    if is_builtin(source):
        return _builtin(source)
    path = Path(source)
    if path.is_dir():
        return _folder(path, report)
    if not path.is_file():
        raise DataError(f"source {source} does not exist. Name an IDX file, a directory of images, hub:NAME or builtin")
    return _idx(path, report)


def _idx(path: Path, report: Report) -> Iterator[Found]:
    """Yield the images of an IDX file, with labels from the file of the matching name beside it, if it exists."""
    images = read_idx(path)
    axes = " x ".join(map(str, images.shape))
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        raise DataError(f"{path}: expected images of shape N x H x W or N x H x W x 3, got {axes}. Name another file")
    if not images.size:
        raise DataError(f"{path}: expected images, got {axes} values. Name another file")
    beside = _labels_beside(path, images.ndim)
    labels = None if beside is None else read_idx(beside)
    if labels is None:
        report.note(path.name, "no file of labels beside the images")
    elif labels.shape != images.shape[:1]:
        shape = " x ".join(map(str, labels.shape))
        raise DataError(
            f"{beside} has {shape} labels, but {path} has {len(images)} images. Download or copy both files again"
        )
    for number, image in enumerate(images):
        yield Found(f"{path.name}:{number}", None if labels is None else str(labels[number]), image)


def _labels_beside(path: Path, axes: int) -> Path | None:
    name = path.name.replace("images", "labels").replace(f"idx{axes}", "idx1")
    names = (name, name.removesuffix(".gz"), f"{name}.gz") if name != path.name else ()
    return next((file for name in names if (file := path.with_name(name)).is_file()), None)


def read_idx(path: Path) -> np.ndarray:
    """Read the numbers of an IDX file of unsigned bytes, plain or compressed with gzip.

    Raises:
        DataError: the file has another format or is damaged.
    """
    with readable(path):
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(GZIP) else data
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != BYTE or not data[3]:
        raise DataError(f"{path} is not an IDX file of unsigned bytes. Name an IDX file or a directory of images")
    begin = 4 + 4 * data[3]
    if len(data) < begin:
        raise DataError(f"{path} is damaged: it ends in its header. Download or copy it again")
    shape = np.frombuffer(data[4:begin], ">u4").tolist()
    if len(data) != begin + math.prod(shape):
        axes = " x ".join(map(str, shape))
        raise DataError(f"{path} is damaged: expected {axes} bytes, got {len(data) - begin}. Download or copy it again")
    return np.frombuffer(data, np.uint8, offset=begin).reshape(shape)


def _folder(path: Path, report: Report) -> Iterator[Found]:
    """Yield the image files of a directory; the class of an image is the name of its subdirectory, if any."""
    files = walk(path, SUFFIXES, report)
    if not files:
        raise DataError(f"directory {path} has no images ({', '.join(SUFFIXES)}). Name another one or an IDX file")
    for file in files:
        inner = file.relative_to(path)
        yield Found(name_of(inner.as_posix()), name_of(inner.parts[0]) if len(inner.parts) > 1 else None, file)


def _hub(source: str, image_field: str, label_field: str) -> Iterator[Found]:
    name, config, split = [*source.removeprefix("hub:").split(":"), "", ""][:3]
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    try:
        import datasets

        rows: Any = datasets.load_dataset(name, config or None, split=split or "train")
        classes = getattr(rows.features.get(label_field), "names", None)
        rows = rows.cast_column(image_field, datasets.Image(decode=False))  # keep the encoded bytes
    except Exception as error:  # The Hub, the network and the builders raise errors of many types.
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{source} cannot be loaded: {first[0]}. Check --image-field") from error
    for number, row in enumerate(rows):
        image = row[image_field] or {}
        data = image.get("bytes") or (Path(image["path"]) if image.get("path") else b"")
        yield Found(f"{source}:{number}", _named(row.get(label_field), classes), data)


def _named(label: object, classes: list[str] | None) -> str | None:
    """Return the name of a class; None if the label is missing, which is -1 in some test splits."""
    if classes:
        return classes[label] if isinstance(label, int) and 0 <= label < len(classes) else None
    return name_of(str(label)) if isinstance(label, str | int | float) else None


def _builtin(source: str) -> Iterator[Found]:
    drawn = figures(builtin_count(source, "drawings"))
    return (Found(f"drawing {n}", label, data) for n, (data, label) in enumerate(drawn))
