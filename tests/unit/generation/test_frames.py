"""Keys are drawn independently with their probabilities."""

import math

import numpy as np
import pytest
import torch

from pipeline.dataset.music import KEYS
from pipeline.generation.frames import DrawKeys, continue_frames


@pytest.mark.numeric
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_frequency_of_a_key_is_its_probability(temperature: float) -> None:
    logits = torch.linspace(-3, 3, 7).expand(20_000, -1)
    uniform = torch.rand(20_000, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = DrawKeys(temperature)(logits, uniform).double().mean(0)
    expected = [1 / (1 + math.exp(-logit / temperature)) for logit in (-3, -2, -1, 0, 1, 2, 3)]
    assert found.tolist() == pytest.approx(expected, abs=4 * 0.5 / math.sqrt(20_000))  # four standard deviations


def test_what_cannot_be_continued_is_an_error() -> None:
    def not_finite(frames: torch.Tensor, state: object) -> tuple[torch.Tensor, object]:
        return torch.full(frames.shape, torch.nan), state

    with pytest.raises(ValueError, match="expected at least one frame to continue, got none"):
        continue_frames(not_finite, np.zeros((0, KEYS), bool), 3, DrawKeys(), 0)
    with pytest.raises(ValueError, match="the logits are not finite"):
        continue_frames(not_finite, np.zeros((1, KEYS), bool), 3, DrawKeys(), 0)
    with pytest.raises(ValueError, match="temperature=-1 must be a finite number of at least 0"):
        DrawKeys(-1)
