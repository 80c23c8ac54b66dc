"""Images of digits, and a function that prepares a source."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.pixels import command as pixels
from pipeline.dataset.manifest import Dataset
from tests.unit.data_prep.pixels.pictures import Prepare, write_idx


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """Return a function that prepares a source without held-out splits and opens the dataset."""

    def prepared(*arguments: str | Path) -> Dataset:
        shares = ["--validation-share", "0", "--test-share", "0", "--workers", "1"]
        output = tmp_path / "dataset"
        assert pixels.main([*map(str, arguments), *shares, "--overwrite", "--output", str(output)]) == 0
        return Dataset.open(output, kind="pixels")

    return prepared


@pytest.fixture
def digits(tmp_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write images of 6 x 4 pixels with labels, with the file names of MNIST."""
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (40, 6, 4), np.uint8), rng.integers(0, 3, 40).astype(np.uint8)
    for suffix in ("", ".gz"):
        write_idx(tmp_path / f"train-images-idx3-ubyte{suffix}", images)
        write_idx(tmp_path / f"train-labels-idx1-ubyte{suffix}", labels)
    return images, labels
