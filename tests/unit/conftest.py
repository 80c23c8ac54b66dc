"""Runs that were never trained, for the tests of the verb `generate`."""

import importlib
import sys
import types

import pytest

from pipeline.errors import CheckpointError
from tests.unit.babbling import Babbler, word_tokenizer


@pytest.fixture
def babbler(tmp_path, monkeypatch):
    """A run directory with a word tokenizer; loading it gives a Babbler."""
    directory = tmp_path / "babble"
    directory.mkdir()
    tokenizer = word_tokenizer()
    tokenizer.save(str(directory / "tokenizer.json"))
    loading = types.ModuleType("pipeline.run")
    loading.model = Babbler(tokenizer.get_vocab_size()).eval()
    loading.asked = []

    def find_run(name):
        if name != "babble":
            raise CheckpointError(f"no run {name!r}")
        return directory

    def load_model(path, checkpoint="best"):
        loading.asked.append((path, checkpoint))
        return loading.model

    loading.find_run, loading.load_model, loading.path = find_run, load_model, directory
    importlib.import_module("pipeline.exported")  # before, as it wants the real one
    monkeypatch.setitem(sys.modules, "pipeline.run", loading)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return loading
