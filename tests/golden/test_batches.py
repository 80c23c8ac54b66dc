"""Contents and augmentation of batches are unchanged between versions."""

from collections.abc import Callable
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from pipeline.data.audio import AudioDataModule
from pipeline.data.augmentation import Augmentation
from pipeline.data.batch_plan import NO_SAMPLE, MicroBatches, Slice
from pipeline.data.captions import ImageCaptionDataModule, Views
from pipeline.data.music import MusicDataModule
from pipeline.data.pairs import PairsDataModule
from pipeline.data.pixels import PixelDataModule, PixelLabelDataModule
from pipeline.data.raw_audio import WaveDataModule
from pipeline.data.recall import RecallDataModule
from pipeline.data.series import SeriesDataModule
from pipeline.data.text import TextDataModule
from pipeline.data.trajectories import TrajectoriesDataModule
from tests.golden import recorded
from tests.golden.recorded import Golden

CHANGED = Augmentation(
    shift=0.05, gain=6.0, noise=10.0, speed=0.1, time_masks=2, time_share=0.2, mel_masks=2, mel_share=0.3
)
ROWS = {"global_batch_size": 8, "per_device_batch_size": 2, "seed": 5}
TOKENS = {"global_batch_tokens": 120, "per_device_batch_tokens": 30, "seed": 5}
MODULES: dict[str, tuple[str, Callable[..., Any], dict[str, Any]]] = {
    "text in lanes": ("text", TextDataModule, {"order": "contiguous", "context": 16, **ROWS}),
    "text in windows": ("text", TextDataModule, {"order": "shuffled", "context": 16, **ROWS}),
    "text in documents": ("text", TextDataModule, {"order": "documents", "context": 16, **ROWS}),
    "pairs": ("pairs", PairsDataModule, TOKENS),
    "captions": (
        "captions",
        ImageCaptionDataModule,
        {"image_size": 24, "smallest_crop": 0.5, "flip": True, **TOKENS, "global_batch_tokens": 500},
    ),
    "sounds": (
        "audio",
        AudioDataModule,
        {"global_batch_seconds": 6.0, "per_device_batch_seconds": 2.0, "augmentation": CHANGED, "seed": 5},
    ),
    "sounds with labels": ("labels", AudioDataModule, {"global_batch_seconds": 4.0, "seed": 5}),
    "waves": ("labels", WaveDataModule, {"labels": True, "order": "contiguous", "context": 64, **ROWS}),
    "pixels": ("pixels", PixelDataModule, {"labels": True, **ROWS}),
    "pixels in another order": ("pixels", PixelLabelDataModule, {"permutation": 3, **ROWS}),
    "series": ("series", SeriesDataModule, {"context": 24, "horizon": 6, "stride": 5, **ROWS}),
    "whole episodes": ("trajectories", TrajectoriesDataModule, ROWS),
    "stretches of episodes": ("trajectories", TrajectoriesDataModule, {"context": 3, **ROWS}),
    "music": ("music", MusicDataModule, {"transpose": 5, **TOKENS}),
    "questions": ("recall", RecallDataModule, ROWS),
}


def holds_samples(part: Slice) -> bool:
    """Return whether a micro-batch has samples besides padding."""
    return bool((part.ids != NO_SAMPLE).any())


def summarized(batch: NamedTuple) -> dict[str, object]:
    """Return the fields of a batch: ids unchanged, other tensors as digests."""
    return {name: _summarized(name, value) for name, value in batch._asdict().items()}


def _summarized(name: str, value: object) -> object:
    if isinstance(value, tuple):
        return [_summarized(name, part) for part in value]
    return recorded.digest(value.nan_to_num(-1)) if isinstance(value, Tensor) and name != "ids" else value


@pytest.mark.numeric
@pytest.mark.parametrize("name", MODULES)
def test_the_contents_of_a_batch_are_unchanged(golden: Golden, request: pytest.FixtureRequest, name: str) -> None:
    """Check the second of two processes: the first two batches of two epochs, and the last one of a validation.

    Audio is a sum of sines, whose last bits differ between processors, so some samples may be rounded differently.
    """
    kind, make, options = MODULES[name]
    data = make(dataset=request.getfixturevalue(f"tiny_{kind}_dataset"), **options)
    train, held_out = data.samples("train"), data.samples("validation")
    share, plan = data.divide(2, 1), data.plan(train)
    found: dict[str, object] = {"steps": len(plan), "accumulation": share.accumulation, "linked": data.facts.known()}
    for epoch in (0, 1):
        sampler = MicroBatches(plan, share, train.predictions, epoch * len(plan) * share.accumulation)
        for part in islice(filter(holds_samples, sampler), 2):
            found[f"epoch {epoch}, step {part.step}, micro-batch {part.slot}"] = summarized(train.__getitems__(part))
    alone = MicroBatches(data.plan_evaluation(held_out), data.divide(1, 0), held_out.predictions)
    *_, last = filter(holds_samples, alone)
    found["last of validation"] = summarized(held_out.__getitems__(last))
    golden("batches", name, found, within=1e-3 if kind in ("audio", "labels") else 1e-6)


def zigzag(samples: int) -> np.ndarray:
    """Return audio that is computed without a library."""
    return ((np.arange(samples) * 37 % 101 - 50) / 100).astype(np.float32)


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["shift", "gain", "noise", "speed", "all"])
def test_the_augmentation_of_audio_is_unchanged(golden: Golden, name: str) -> None:
    augmentation = CHANGED if name == "all" else Augmentation(**{name: getattr(CHANGED, name)})
    changed = [augmentation.wave(zigzag(2000), 8000, np.random.default_rng((5, 1, n))) for n in range(4)]
    golden("batches", f"changed by {name}", [recorded.digest(each) for each in changed], within=1e-5)


def test_the_masks_of_audio_are_unchanged(golden: Golden) -> None:
    masks = [CHANGED.masks(np.random.default_rng((5, 1, sample))) for sample in range(3)]
    golden("batches", "masks", masks, within=1e-7)


def test_the_crop_of_an_image_is_unchanged(golden: Golden) -> None:
    views, image = Views(0.5, flip=True, seed=5), Image.new("RGB", (60, 40))
    found = {f"epoch {epoch}": [views(image, epoch, sample) for sample in range(6)] for epoch in (0, 1)}
    golden("batches", "views", found, within=1e-9)
