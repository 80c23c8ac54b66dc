"""Preparation of a source in the test's process."""

from pathlib import Path

import pytest

from data_prep.trajectories import command as trajectories
from pipeline.dataset.manifest import Dataset
from tests.unit.data_prep.trajectories.rows import Prepare


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """Return a function that prepares a source with options and opens the dataset."""

    def prepare(source: str | Path, *options: object) -> Dataset:
        arguments = [str(source), "--output", str(tmp_path / "data"), "--overwrite", *map(str, options)]
        assert trajectories.main(arguments) == 0
        return Dataset.open(tmp_path / "data", kind="trajectories")

    return prepare
