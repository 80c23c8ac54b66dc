"""What the tests of callbacks share."""

from typing import Any

import pytest

from pipeline.callbacks import nonfinite_guard as guards


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the guard writes to the journal."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(guards, "journal_fault", lambda trainer, fault: found.append(fault))
    return found
