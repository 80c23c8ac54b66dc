"""A directory of drawings and a table of their captions."""

import csv
from pathlib import Path

import pytest

from data_prep.sources.shapes import drawn
from tests.unit.data_prep.captions.photographs import COUNT


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a directory of drawings."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(COUNT):
        (folder / f"{number}.jpg").write_bytes(drawn(number)[0])
    return folder


@pytest.fixture
def table(images: Path, tmp_path: Path) -> Path:
    """Return a table of the captions of the drawings, one per row, not sorted by image."""
    captions = [(f"{number}.jpg", caption) for number in range(COUNT) for caption in drawn(number)[1]]
    with (file := tmp_path / "captions.csv").open("w") as opened:
        csv.writer(opened).writerows([("image", "caption"), *captions[::2], *captions[1::2]])
    return file
