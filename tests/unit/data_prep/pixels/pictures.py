"""Files of images that tests prepare, and the levels of a prepared dataset."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset.manifest import Dataset

Prepare = Callable[..., Dataset]
Capture = pytest.CaptureFixture[str]


def rows(dataset: Dataset, name: str = "train") -> np.ndarray:
    """Return the levels of a split's images."""
    split, about = dataset.splits[name], dataset.manifest["pixels"]
    shape = about["rows"], about["columns"], about["channels"]
    return np.stack([np.frombuffer(split.value("image", row), np.uint8).reshape(shape) for row in range(split.rows)])


def write_idx(path: Path, numbers: np.ndarray) -> Path:
    """Write an IDX file, compressed if its name ends with .gz."""
    data = struct.pack(f">BBBB{numbers.ndim}I", 0, 0, 8, numbers.ndim, *numbers.shape) + numbers.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def save(path: Path, values: np.ndarray) -> np.ndarray:
    """Write a PNG file, grey or colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return values
