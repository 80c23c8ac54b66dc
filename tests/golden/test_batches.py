"""What is in a batch, and how it is augmented, stays the same from version to version."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from pipeline.data.audio import AudioDataModule
from pipeline.data.augmentation import Augmentation
from pipeline.data.batch_plan import NO_SAMPLE, MicroBatches, Slice
from pipeline.data.captions import ImageCaptionDataModule, Views
from pipeline.data.pairs import PairsDataModule
from pipeline.data.pixels import PixelDataModule, PixelLabelDataModule
from pipeline.data.raw_audio import WaveDataModule
from pipeline.data.recall import RecallDataModule
from pipeline.data.series import SeriesDataModule
from pipeline.data.text import TextDataModule
from pipeline.data.trajectories import TrajectoriesDataModule
from tests.golden import recorded

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
    "questions": ("recall", RecallDataModule, ROWS),
}


def holds_samples(part: Slice) -> bool:
    """Whether a micro-batch is more than filling."""
    return bool((part.ids != NO_SAMPLE).any())


def told(batch: Any) -> dict[str, Any]:
    """The fields of a batch: ids as they are, other tensors by their digests."""
    return {name: _told(name, value) for name, value in batch._asdict().items()}


def _told(name: str, value: Any) -> Any:
    if isinstance(value, tuple):
        return [_told(name, part) for part in value]
    return recorded.digest(value.nan_to_num(-1)) if isinstance(value, Tensor) and name != "ids" else value


@pytest.mark.numeric
@pytest.mark.parametrize("name", MODULES)
def test_a_batch_holds_what_it_held(golden: Any, request: pytest.FixtureRequest, name: str) -> None:
    """Of the second of two processes: the first two of two epochs; and the last of a validation.

    Sounds are sums of sines, whose last bits differ between processors: some samples may be rounded otherwise.
    """
    kind, make, options = MODULES[name]
    data = make(dataset=request.getfixturevalue(f"tiny_{kind}_dataset"), **options)
    train, held_out = data.samples("train"), data.samples("validation")
    share, plan = data.divide(2, 1), data.plan(train)
    found: dict[str, Any] = {"steps": len(plan), "accumulation": share.accumulation, "linked": data.facts.known()}
    for epoch in (0, 1):
        sampler = MicroBatches(plan, share, train.predictions, epoch * len(plan) * share.accumulation)
        for part in islice(filter(holds_samples, sampler), 2):
            found[f"epoch {epoch}, step {part.step}, micro-batch {part.slot}"] = told(train.__getitems__(part))
    alone = MicroBatches(data.plan_evaluation(held_out), data.divide(1, 0), held_out.predictions)
    *_, last = filter(holds_samples, alone)
    found["last of validation"] = told(held_out.__getitems__(last))
    golden("batches", name, found, within=1e-3 if kind in ("audio", "labels") else 1e-6)


def zigzag(samples: int) -> np.ndarray:
    """A sound that no library computes."""
    return ((np.arange(samples) * 37 % 101 - 50) / 100).astype(np.float32)


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["shift", "gain", "noise", "speed", "all"])
def test_a_sound_is_changed_as_it_was(golden: Any, name: str) -> None:
    augmentation = CHANGED if name == "all" else Augmentation(**{name: getattr(CHANGED, name)})
    changed = [augmentation.wave(zigzag(2000), 8000, np.random.default_rng((5, 1, n))) for n in range(4)]
    golden("batches", f"changed by {name}", [recorded.digest(each) for each in changed], within=1e-5)


def test_stretches_of_a_sound_are_hidden_where_they_were(golden: Any) -> None:
    masks = [CHANGED.masks(np.random.default_rng((5, 1, sample))) for sample in range(3)]
    golden("batches", "masks", masks, within=1e-7)


def test_an_image_is_cropped_where_it_was(golden: Any) -> None:
    views, image = Views(0.5, flip=True, seed=5), Image.new("RGB", (60, 40))
    found = {f"epoch {epoch}": [views(image, epoch, sample) for sample in range(6)] for epoch in (0, 1)}
    golden("batches", "views", found, within=1e-9)
