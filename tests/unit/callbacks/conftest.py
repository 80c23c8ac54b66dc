"""Fixtures shared by the tests of callbacks."""

from collections.abc import Mapping
from typing import Any

import pytest

from pipeline.callbacks import nonfinite_guard as guards


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """The faults that the guard writes to the journal."""
    found: list[Mapping[str, Any]] = []

    def journal_fault(trainer: object, fault: Mapping[str, Any], step: int | None = None) -> None:
        found.append({**fault, **({} if step is None else {"step": step})})

    monkeypatch.setattr(guards, "journal_fault", journal_fault)
    return found
