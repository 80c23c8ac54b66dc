"""Raw audio is a stream of levels: clip after clip, with labels before and EOS tokens after each."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipeline.data import raw_audio
from pipeline.data.batch_plan import MicroBatches, Share
from pipeline.data.raw_audio import END, FIRST_LABEL, WaveDataModule
from pipeline.dataset.codecs.audio import compress, decode
from pipeline.errors import ConfigError


def whole(data: WaveDataModule, name: str, labels: list[str]) -> np.ndarray:
    """Return the stream, concatenated clip by clip."""
    rows = data.dataset.splits[name]
    parts = []
    for row in range(rows.rows):
        opening = [FIRST_LABEL + labels.index(rows.references(row)[0])] if labels else []
        parts += [opening, compress(decode(rows.value("audio", row))), [END]]
    return np.concatenate(parts).astype(np.int64)


@pytest.mark.parametrize("labelled", [True, False])
def test_the_stream_is_the_concatenation_of_the_clips(labelled: bool, tiny_labels_dataset: Path) -> None:
    data = WaveDataModule(labels=labelled, dataset=tiny_labels_dataset)
    split = data.split("validation")
    expected = whole(data, "validation", sorted("123A456B789C*0#D") if labelled else [])
    assert split.tokens == len(expected)
    assert np.array_equal(split.read(0, split.tokens), expected)
    assert split.bytes == (expected < 256).sum()
    ends = np.flatnonzero(expected == END)
    assert split.starts(0, split.tokens).tolist() == [0, *(ends[:-1] + 1)]
    chance = np.random.default_rng(1)
    for _ in range(50):
        start, stop = sorted(chance.integers(0, split.tokens + 1, 2))
        assert np.array_equal(split.read(int(start), int(stop)), expected[start:stop])
        first = split.starts(int(start), int(stop))
        assert first.tolist() == [at for at in [0, *(ends[:-1] + 1)] if start <= at < stop]
    with pytest.raises(IndexError, match="is not inside"):
        split.read(0, split.tokens + 1)
    assert data.facts.known() == {"vocab_size": 257 + 16 * labelled, "rate": 8000}


def test_clips_in_memory_are_limited_by_their_levels(
    tiny_labels_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_audio, "HELD", 20_000)
    split = WaveDataModule(dataset=tiny_labels_dataset).split("validation")
    expected = whole(WaveDataModule(dataset=tiny_labels_dataset), "validation", [])
    assert len(expected) > 40_000
    for start in [*range(0, split.tokens - 900, 900), *range(split.tokens - 900, 0, -900)]:
        assert np.array_equal(split.read(start, start + 900), expected[start : start + 900])
        held = sum(map(len, split._held.values()))
        assert held == split._levels <= 20_000


def test_contiguous_windows_follow_each_other(tiny_labels_dataset: Path) -> None:
    data = WaveDataModule(
        labels=True, dataset=tiny_labels_dataset, order="contiguous", context=100, global_batch_size=3
    )
    samples = data.samples("validation")
    batches = [
        samples.__getitems__(part) for part in MicroBatches(data.plan_evaluation(samples), Share(), samples.predictions)
    ]
    lanes = [np.concatenate([batch.targets[row] for batch in batches]) for row in range(3)]
    stream = np.concatenate(lanes)
    assert np.array_equal(stream[stream >= 0], data.split("validation").read(0, data.split("validation").tokens))
    assert batches[0].inputs[0, 0] == END
    for before, after in pairwise(batches):
        assert (after.inputs[:, 0] == before.targets[:, -1])[after.targets[:, 0] >= 0].all()


def test_labels_are_rejected_if_there_are_none(tiny_audio_dataset: Path) -> None:
    with pytest.raises(ConfigError, match="have transcripts; use labels=false"):
        WaveDataModule(labels=True, dataset=tiny_audio_dataset)
