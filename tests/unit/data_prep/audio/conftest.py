"""Small sources for the tests of `data_prep.audio`."""

import pytest

from data_prep.audio import command as audio


@pytest.fixture(autouse=True)
def _small_sources_may_be_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the limit for invalid clips, because sources of few clips exceed it."""
    main = audio.main
    monkeypatch.setattr(audio, "main", lambda argv: main([*argv, "--max-bad-share", "0.99"]))
