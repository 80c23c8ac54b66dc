"""Audio clips are batched within a budget of seconds, and augmented as a function of the sample alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.audio import AudioDataModule
from pipeline.data.augmentation import Augmentation
from pipeline.data.batch import IGNORE, LabelBatch, PairBatch
from pipeline.data.batch_plan import NO_SAMPLE, MicroBatches, Share, Slice
from pipeline.dataset.codecs.audio import decode
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.plots.attention import GAP
from pipeline.evaluation.plots.figure import DPI, rendered

ALL = Augmentation(shift=0.02, gain=6.0, noise=10.0, speed=0.1, time_masks=2, mel_masks=1)


@pytest.mark.numeric
def test_a_batch_contains_sounds_and_transcripts(tiny_audio_dataset: Path) -> None:
    samples = AudioDataModule(tiny_audio_dataset).samples("train")
    ids = np.array([3, 0, NO_SAMPLE])
    batch = samples.__getitems__(Slice(ids, samples.predictions(ids), 0, 5, 0))
    assert isinstance(batch, PairBatch)
    waves, keep, *masks = batch.source
    for row, sample in enumerate((3, 0)):
        expected = decode(samples.split.value("audio", sample))
        assert torch.equal(waves[row, keep[row]], torch.from_numpy(expected))
        text = list(samples.split.references(sample)[0].encode())
        assert batch.targets[row, : len(text) + 1].tolist() == [*text, 256]
        assert batch.inputs[row, : len(text) + 1].tolist() == [256, *text]
    assert keep.sum(1).tolist() == [*samples.lengths[[3, 0]], 1]
    assert (batch.targets[2] == IGNORE).all()
    assert [mask.shape for mask in masks] == [(3, 0, 2)] * 2
    assert batch.predictions == int((batch.targets != IGNORE).sum())
    assert batch.padding == batch.positions - int(keep.sum()) - batch.predictions


def test_a_batch_contains_sounds_and_labels(tiny_labels_dataset: Path) -> None:
    data = AudioDataModule(tiny_labels_dataset)
    samples = data.samples("train")
    ids = np.array([7, NO_SAMPLE])
    batch = samples.__getitems__(Slice(ids, samples.predictions(ids), 0, 0, 0))
    assert isinstance(batch, LabelBatch)
    assert data.labels == sorted("123A456B789C*0#D")
    assert batch.labels.tolist() == [data.labels.index(samples.split.references(7)[0]), IGNORE]
    assert batch.predictions == 1
    assert data.facts.known() == {"classes": 16, "rate": 8000}


@pytest.mark.numeric
@pytest.mark.parametrize(("world", "limit"), [(1, None), (2, None), (3, 2.0)])
def test_any_number_of_processes_reads_the_same(tiny_audio_dataset: Path, world: int, limit: float | None) -> None:
    data = AudioDataModule(tiny_audio_dataset, 8.0, limit, ALL)
    samples = data.samples("train")
    plan = data.plan(samples)
    alone = list(MicroBatches(plan, Share(), samples.predictions))
    for k in (0, len(plan) - 1):
        whole = samples.__getitems__(alone[k])
        assert len(whole.ids) * samples.lengths[whole.ids].max() <= 8.0 * data.rate
        found = []
        for rank in range(world):
            share = Share.of_budget(data.budget, data.limit, world, rank)
            parts = list(MicroBatches(plan, share, samples.predictions))
            for slot in range(share.accumulation):
                batch = samples.__getitems__(parts[k * share.accumulation + slot])
                rows = zip(batch.ids, *batch.source, strict=True)
                found += [(wave[keep], times, mels) for sample, wave, keep, times, mels in rows if sample >= 0]
        expected = [(wave[keep], times, mels) for wave, keep, times, mels in zip(*whole.source, strict=True)]
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert all(map(torch.equal, one, other))


@pytest.mark.numeric
def test_sounds_change_with_the_epoch_and_not_in_evaluation(tiny_audio_dataset: Path) -> None:
    data = AudioDataModule(tiny_audio_dataset, augmentation=ALL)
    train, held_out = data.samples("train"), data.samples("validation")

    def wave(samples: object, epoch: int) -> torch.Tensor:
        return samples.__getitems__(Slice(np.array([2]), 0, epoch, 0, 0)).source[0]

    assert torch.equal(wave(train, 1), wave(train, 1))
    assert wave(train, 1).shape != wave(train, 2).shape
    assert torch.equal(wave(held_out, 1), wave(held_out, 2))
    assert torch.equal(wave(held_out, 1)[0], torch.from_numpy(decode(held_out.split.value("audio", 2))))


@pytest.mark.numeric
def test_each_augmentation_has_its_documented_effect() -> None:
    rate, chance = 8000, np.random.default_rng(1)
    tone = (0.3 * np.sin(2 * np.pi * 500 * np.arange(rate) / rate)).astype(np.float32)
    ramp = np.arange(1, rate + 1, dtype=np.float32)
    moved = Augmentation(shift=0.1).wave(ramp, rate, chance)
    [by] = np.unique((ramp - moved)[moved > 0])
    assert 0 < abs(by) <= 0.1 * rate
    assert len(moved) == len(ramp)
    assert (moved == 0).sum() == abs(by)
    loud = Augmentation(gain=6.0).wave(tone, rate, chance)
    ratio = loud[5] / tone[5]
    assert 0.5 <= ratio <= 2.0
    np.testing.assert_allclose(loud, tone * ratio, rtol=1e-5, atol=1e-7)
    noisy = Augmentation(noise=10.0).wave(tone, rate, chance)
    decibels = 10 * np.log10(np.mean(tone**2) / np.mean((noisy - tone) ** 2))
    assert 9.5 < decibels < 40.5
    fast = Augmentation(speed=0.2).wave(tone, rate, chance)
    power = np.abs(np.fft.rfft(fast * np.hanning(len(fast))))
    hertz = np.argmax(power) * rate / len(fast)
    assert hertz == pytest.approx(500 * len(tone) / len(fast), rel=0.01)
    assert len(fast) != len(tone)
    times, mels = Augmentation(time_masks=3, time_share=0.1, mel_masks=2, mel_share=0.5).masks(chance)
    assert (times.shape, mels.shape) == ((3, 2), (2, 2))
    assert (np.diff(times, axis=1) <= 0.1).all()
    assert (times >= 0).all()
    assert (times <= 1).all()


def test_a_picture_is_bright_where_a_token_attends(tiny_audio_dataset: Path) -> None:
    data = AudioDataModule(tiny_audio_dataset)
    source, names = data.show("validation", 1)
    looks = np.zeros((2, 10), np.float32)
    looks[0, 0] = looks[1, 9] = 1.0  # the first token at the beginning, the second at the end
    picture = np.asarray(rendered(data.picture(source, [55, 256], looks))).astype(int)
    whole = data.illustrate(source)[0]["sound"].picture
    step, paper = whole.width + GAP, DPI // 10
    starts = paper + step, paper + 2 * step
    bright = [picture[paper : paper + whole.height, at : at + whole.width].sum(2).mean(0) for at in starts]
    edge = whole.width // 10
    difference = bright[0] - bright[1]  # between two overlays of the same spectrogram
    assert difference[:edge].min() > 50
    assert difference[-edge:].max() < -50
    assert abs(difference[whole.width // 2]) < 1
    assert names == [data.dataset.splits["validation"].value("name", 0)]


def test_a_clip_longer_than_the_budget_is_reported(tiny_audio_dataset: Path) -> None:
    data = AudioDataModule(tiny_audio_dataset, global_batch_seconds=0.5)
    with pytest.raises(ConfigError, match=r"takes \d\.\d\d s, more than global_batch_seconds=0.5"):
        data.plan(data.samples("train"))


def test_invalid_settings_are_rejected(tiny_audio_dataset: Path, tiny_text_dataset: Path) -> None:
    with pytest.raises(ConfigError, match="global_batch_seconds=0"):
        AudioDataModule(tiny_audio_dataset, 0.0)
    with pytest.raises(ConfigError, match="per_device_batch_seconds=0"):
        AudioDataModule(tiny_audio_dataset, 3.0, 0.0)
    with pytest.raises(ConfigError, match=r"speed=1\.5 must be in \[0, 1\)"):
        Augmentation(speed=1.5)
    with pytest.raises(DataError, match="expected kind 'audio'"):
        AudioDataModule(tiny_text_dataset)
    with pytest.raises(ConfigError, match="per_device_batch_seconds=0"):
        Share.of_config({"global_batch_seconds": 3.0, "per_device_batch_seconds": 0}, 1)
