"""Fixtures: runs to show on a comparison page."""

import math
from dataclasses import replace

import pytest

from pipeline.commands.compare.rows import Entry
from pipeline.commands.compare.seeds import together
from pipeline.runs.journal import JournalWriter, read_journal


@pytest.fixture
def entry(tmp_path):
    def make(name, losses, sample="was <b>there</b> & left"):
        writer = JournalWriter(tmp_path / f"run-{abs(hash(name))}")
        for step, loss in enumerate(losses, start=1):
            clock = (1, 10 * step, 1000 * step, 30.0 * step)
            values = {"train/loss": loss, "val/perplexity": math.exp(loss), "val/bits_per_byte": loss / 2}
            writer.metrics(*clock, values)
            writer.samples(*clock, [{"prompt": "The cat", "text": f"{sample} {step}"}])
        return Entry(name, read_journal(writer.path.parent), "LSTMLanguageModel", 10, 1000, math.exp(min(losses)), 0.5)

    return make


@pytest.fixture
def tournament(entry, tmp_path):
    """A group of two entrants with two seeds each, one of which was diagnosed."""
    runs = []
    for name, losses in (("lstm", [3, 2, 1.5]), ("a-network-of-a-very-long-name-indeed", [3, 2.5, 2])):
        for seed in (1, 2):
            one = entry(f"{name}-{seed}", [loss + 0.1 * seed for loss in losses])
            cost = {"seconds": 10.0 * len(name), "flops": 1e9 * seed}
            runs.append(replace(one, tournament="t", entrant=name, dataset="c", directory=tmp_path / name, **cost))
    (tmp_path / "lstm").mkdir()
    (tmp_path / "lstm" / "diagnosis.json").write_text('{"positions": 64, "field": 48, "memory": 12}')
    (tmp_path / "lstm" / "diagnosis.png").write_bytes(b"a picture")
    [group] = together(runs)
    return replace(group, baseline=Entry("5-gram", perplexity=4.0, bits_per_byte=1.1))
