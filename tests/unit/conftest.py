"""Untrained runs for the tests of the verb `generate`."""

from types import SimpleNamespace

import pytest

import pipeline.runs.export  # noqa: F401  imported before fixtures replace the functions that it imports from load
from pipeline.errors import CheckpointError
from tests.unit.babbling import Babbler, word_tokenizer


@pytest.fixture
def babbler(tmp_path, monkeypatch):
    """A run directory with a word tokenizer; loading it returns a Babbler."""
    directory = tmp_path / "babble"
    directory.mkdir()
    tokenizer = word_tokenizer()
    tokenizer.save(str(directory / "tokenizer.json"))
    loading = SimpleNamespace(path=directory, model=Babbler(tokenizer.get_vocab_size()).eval(), loaded=[])

    def find_run(name):
        if name != "babble":
            raise CheckpointError(f"no run {name!r}")
        return directory

    def load_model(path, checkpoint="best"):
        loading.loaded.append((path, checkpoint))
        return loading.model

    monkeypatch.setattr("pipeline.runs.run.find_run", find_run)
    monkeypatch.setattr("pipeline.runs.load.load_model", load_model)
    monkeypatch.setattr("pipeline.runs.load.skeleton", lambda run: loading.model)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return loading
