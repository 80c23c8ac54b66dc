"""A run and a dataset of a test."""

import shutil
from pathlib import Path

import pytest

from pipeline.runs.run import Run


@pytest.fixture
def dataset(tiny_text_dataset: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_text_dataset, tmp_path / "dataset"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "runs" / "one")
