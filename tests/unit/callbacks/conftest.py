"""Fixtures shared by the tests of callbacks."""

from collections.abc import Mapping
from typing import Any

import pytest

from pipeline.callbacks import nonfinite_guard as guards


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """The faults that the guard writes to the journal."""
    found: list[Mapping[str, Any]] = []
    monkeypatch.setattr(guards, "journal_fault", lambda trainer, fault: found.append(fault))
    return found
