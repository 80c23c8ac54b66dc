"""Captioning models learn to describe an image."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pipeline.data.batch import IGNORE
from pipeline.generation.beam import Beam
from pipeline.generation.sampling import Greedy, Limits, generate
from pipeline.models.assemblies.captioners import ShowAndTell, ShowAttendTell, TransformerCaptioner
from pipeline.models.encoders.image import ResNet, VisionTransformer
from pipeline.tasks.sequence_to_sequence import SequenceToSequence

EOS, RED, BLUE, TOP, BOTTOM = range(5)
SIZE = 16


def halves(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return images with one half in red or blue, and two words for the colour and the half."""
    chosen = torch.randint(0, 2, (count, 2), generator=torch.Generator().manual_seed(seed))
    images = torch.full((count, 3, SIZE, SIZE), 120, dtype=torch.uint8)
    for image, (colour, half) in zip(images, chosen.tolist(), strict=True):
        image[:, 8 * half : 8 * half + 8] = 0
        image[2 * colour, 8 * half : 8 * half + 8] = 255
    words = torch.stack([chosen[:, 0] + RED, chosen[:, 1] + TOP, torch.full((count,), EOS)], 1)
    return images, words.roll(1, 1), words


@pytest.mark.learns
@pytest.mark.parametrize(
    "model",
    [
        lambda: ShowAndTell(5, SIZE, lambda width, size: ResNet(width, size, (1, 1), 8), width=32),
        lambda: ShowAttendTell(5, SIZE, lambda width, size: ResNet(width, size, (1, 1), 8), width=32),
        lambda: TransformerCaptioner(
            5, SIZE, lambda width, size: VisionTransformer(width, size, 8, 32, 1, 4), width=32, depth=1, dropout=0.0
        ),
    ],
    ids=["ShowAndTell", "ShowAttendTell", "TransformerCaptioner"],
)
def test_it_learns_to_name_colour_and_half(
    model: object, seed: int, record_property: Callable[[str, float], None]
) -> None:
    torch.manual_seed(seed)
    task: SequenceToSequence = model()  # type: ignore[operator]
    optimizer, step, recent = torch.optim.Adam(task.parameters(), 0.002), 0, 1.0
    while recent > 0.01 and step < 800:  # ten seeds: 341 ± 29, 138 ± 13 and 132 ± 14 steps
        step += 1
        images, inputs, targets = halves(16, step)
        outputs, _ = task.decoder(task.embedding(inputs), task.begin((images,)))
        loss = task.training_loss(outputs, targets) / (targets != IGNORE).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recent = 0.9 * recent + 0.1 * loss.item()
    record_property("steps", step)
    assert recent <= 0.01
    images, _, targets = halves(20, 1000)
    task.eval()
    for choice in (Greedy(), Beam(1)):
        with torch.no_grad():
            found = generate(task, [[EOS]] * 20, choice, Limits(4, eos=EOS), start=task.begin((images,)))
        assert [best for best, *_ in found] == targets.tolist()
