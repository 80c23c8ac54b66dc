"""A pixel reader returns its output at the last pixel as summary, and learns to classify images."""

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from pipeline.models.encoders.pixel_reader import PixelReader
from pipeline.models.gru import GRU


@pytest.mark.numeric
def test_the_summary_is_the_output_after_reading_pixel_by_pixel() -> None:
    torch.manual_seed(1)
    reader, pixels = PixelReader(GRU(width=16, depth=1)).double().eval(), torch.rand(3, 10, dtype=torch.float64)
    state = None
    for position in range(10):
        output, state = reader.network(reader.bright(2 * pixels[:, position, None, None] - 1), state)
    memory = reader(pixels)
    torch.testing.assert_close(memory.summary, output[:, 0])
    assert memory.values.shape == (3, 10, 16)
    assert bool(memory.keep.all())


@pytest.mark.learns
def test_images_that_differ_in_their_first_pixel_alone_are_classified(
    seed: int, record_property: Callable[[str, float], None]
) -> None:
    torch.manual_seed(seed)
    reader, head = PixelReader(GRU(width=16, depth=1)), torch.nn.Linear(16, 2)
    labels = torch.arange(16) % 2
    pixels = torch.rand(16, 1).expand(16, 20).clone()
    pixels[:, 0] = labels.float()
    optimizer = torch.optim.Adam([*reader.parameters(), *head.parameters()], lr=1e-2)
    steps, loss = 0, torch.tensor(torch.inf)
    while loss > 0.02 and steps < 500:  # guessing costs ln 2 = 0.69; ten seeds: 40 ± 11 steps
        steps += 1
        optimizer.zero_grad()
        loss = functional.cross_entropy(head(reader(pixels).summary), labels)
        loss.backward()
        optimizer.step()
    record_property("steps", steps)
    assert loss <= 0.02
