"""Speeds are shown in the unit of the data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.audio import AudioDataModule
from pipeline.data.captions import ImageCaptionDataModule
from pipeline.data.music import MusicDataModule
from pipeline.data.pairs import PairsDataModule
from pipeline.data.pixels import PixelDataModule, PixelLabelDataModule
from pipeline.data.raw_audio import WaveDataModule
from pipeline.data.recall import RecallDataModule
from pipeline.data.series import SeriesDataModule
from pipeline.data.text import TextDataModule
from pipeline.data.trajectories import TrajectoriesDataModule
from pipeline.dataset.unit import Unit


@pytest.mark.parametrize(
    ("unit", "predictions", "text"),
    [
        (Unit(), 11022.6, "11,023 tokens/s"),
        (Unit(), 99.4, "99.4 tokens/s"),
        (Unit("images", 1 / 48), 2400.0, "50 images/s"),
        (Unit("seconds of audio", 0.25), 3.0, "0.75 seconds of audio/s"),
        (Unit("values"), 0.0, "0 values/s"),
    ],
)
def test_a_rate_has_the_unit_of_the_data(unit: Unit, predictions: float, text: str) -> None:
    assert unit.rate(predictions) == text


def test_a_run_of_version_0_1_has_the_unit_of_its_kind_of_model() -> None:
    assert Unit.of_record({}) == Unit("tokens")
    assert Unit.of_record({"linked": {"horizon": 24}}) == Unit("values")
    assert Unit.of_record({"linked": {"horizon": 24}, "unit": ["images", 0.5]}) == Unit("images", 0.5)


@pytest.mark.parametrize(
    ("module", "dataset", "options", "unit"),
    [
        (TextDataModule, "text", {}, Unit()),
        (PairsDataModule, "pairs", {}, Unit()),
        (ImageCaptionDataModule, "captions", {}, Unit()),
        (RecallDataModule, "recall", {}, Unit()),
        (PixelDataModule, "pixels", {}, Unit("images", 1 / 48)),
        (PixelLabelDataModule, "pixels", {}, Unit("images")),
        (SeriesDataModule, "series", {"context": 4, "horizon": 2}, Unit("values")),
        (TrajectoriesDataModule, "trajectories", {}, Unit("actions")),
        (MusicDataModule, "music", {}, Unit("frames")),
        (WaveDataModule, "labels", {"context": 100, "global_batch_size": 2}, Unit("seconds of audio", 1 / 8000)),
    ],
)
def test_the_unit_of_a_modality(
    module: Callable[..., Any], dataset: str, options: dict[str, int], unit: Unit, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(f"tiny_{dataset}_dataset")
    assert module(dataset=path, **options).unit == unit


@pytest.mark.parametrize("kind", ["audio", "labels"])
def test_an_epoch_of_clips_has_the_duration_of_its_clips(kind: str, request: pytest.FixtureRequest) -> None:
    data = AudioDataModule(request.getfixturevalue(f"tiny_{kind}_dataset"))
    clips = data.samples("train")
    batches = [data.batch("train", np.arange(first, min(first + 7, len(clips)))) for first in range(0, len(clips), 7)]
    seconds = sum(int(batch.source[1].sum()) for batch in batches) / 8000
    name, per_prediction = data.unit
    assert name == "seconds of audio"
    assert sum(batch.predictions for batch in batches) * per_prediction == pytest.approx(seconds)
