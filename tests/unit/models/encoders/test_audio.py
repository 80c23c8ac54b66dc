"""Audio encoders are independent of the batch for any body, and masks hide their parts alone."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.models.encoders.audio import ConvStack, Ear, SoundEncoder
from pipeline.models.encoders.text import BidirectionalStack, TransformerStack
from pipeline.models.layers.conformer import ConformerStack
from pipeline.models.lstm import LSTM

RATE, WIDTH = 8000, 16
BODIES = {
    "Conformer": lambda: ConformerStack(WIDTH, 2, 2, 5, 0.0),
    "LSTM": lambda: BidirectionalStack(LSTM, WIDTH, 2),
    "convolutions": lambda: ConvStack(WIDTH, 2, 5, 0.0),
    "Transformer": lambda: TransformerStack(WIDTH, 2, 2, None, 0.0),
}
every_body = pytest.mark.parametrize("body", BODIES)


def build(body: str) -> SoundEncoder:
    torch.manual_seed(1)
    return SoundEncoder(BODIES[body](), RATE, WIDTH, Ear(bands=20), 0.0).eval()


def source(lengths: list[int], longest: int | None = None, masks: int = 0) -> tuple[Tensor, ...]:
    torch.manual_seed(2)
    keep = torch.arange(longest or max(lengths)) < torch.tensor(lengths)[:, None]
    rows = [torch.randn(length) for length in lengths]
    waves = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    waves = nn.functional.pad(waves, (0, keep.shape[1] - waves.shape[1]))
    return waves, keep, torch.zeros(len(lengths), masks, 2), torch.zeros(len(lengths), masks, 2)


@pytest.mark.numeric
@every_body
def test_a_clip_is_encoded_alone_as_in_a_batch(body: str) -> None:
    encoder = build(body)
    lengths = [3000, 1, 850, 2400]
    with torch.no_grad():
        together = encoder(*source(lengths, 4000, masks=1))
        waves, keep, *masks = source(lengths)
        for row, length in enumerate(lengths):
            part = (
                waves[row : row + 1, :length],
                keep[row : row + 1, :length],
                *(each[row : row + 1] for each in masks),
            )
            alone = encoder(*part)
            count = int(alone.keep.sum())
            assert together.keep[row].tolist() == [True] * count + [False] * (together.keep.shape[1] - count)
            torch.testing.assert_close(together.values[row, :count], alone.values[0, :count], rtol=0, atol=2e-5)
            torch.testing.assert_close(together.summary[row], alone.summary[0], rtol=0, atol=2e-5)


def test_positions_counts_the_positions_of_the_output() -> None:
    encoder = build("convolutions")
    lengths = [1, 80, 81, 319, 320, 321, 4000]
    memory = encoder(*source(lengths))
    assert memory.keep.sum(1).tolist() == encoder.positions(np.array(lengths)).tolist() == [1, 1, 1, 1, 1, 2, 13]


@pytest.mark.numeric
def test_masks_hide_their_range_of_time_and_of_frequency_alone() -> None:
    encoder = build("convolutions")
    waves, keep, _, _ = source([8000, 4000])
    times = torch.tensor([[[0.25, 0.5]], [[0.0, 0.0]]])
    bands = torch.tensor([[[0.0, 0.0]], [[0.5, 0.75]]])
    open_, _ = encoder.features(*source([8000, 4000]))
    hidden, _ = encoder.features(waves, keep, times, bands)
    expected = open_.clone()
    expected[0, 25:50] = 0
    expected[1, :, 10:15] = 0
    assert torch.equal(hidden, expected)


def test_loudness_does_not_matter() -> None:
    encoder = build("convolutions")
    waves, *rest = source([8000])
    loud, _ = encoder.features(waves, *rest)
    soft, _ = encoder.features(0.2 * waves, *rest)
    assert (loud - soft).abs().max() < 0.02


def test_an_even_kernel_raises_an_error() -> None:
    with pytest.raises(ValueError, match="kernel=4 must be odd"):
        ConvStack(8, 1, 4, 0.0)
