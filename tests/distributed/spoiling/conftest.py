"""Fixtures with runs that each test of this folder damages in its own copy."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distributed.fixture_types import Fit
from tests.distributed.spoiling.runs import OFTEN


@pytest.fixture(scope="package")
def home(fit_in: Callable[[Path], Fit], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a directory with the runs `straight` (14 steps) and `stopped` (at step 8)."""
    home = tmp_path_factory.mktemp("damage")
    fit = fit_in(home)
    assert fit("straight", *OFTEN) == 0
    assert fit("stopped", *OFTEN, die=(signal.SIGTERM, 7)) == 75
    return home


@pytest.fixture(autouse=True)
def _copy(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy the runs for each test."""
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
