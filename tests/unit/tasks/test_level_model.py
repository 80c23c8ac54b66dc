"""A label is heard at every position of its sequence, and nowhere else."""

import pytest
import torch

from pipeline.tasks.level_model import held


@pytest.mark.numeric
def test_a_label_holds_until_its_clip_ends() -> None:
    read = torch.zeros(2, 40, dtype=torch.long)
    read[0, [0, 17]], read[0, 16] = torch.tensor([257, 259]), 256
    read[1, 30], read[1, 31] = 256, 258
    inputs = torch.arange(1.0, 81.0).view(2, 40, 1)
    before = torch.tensor([[-1.0], [-2.0]])
    expected = torch.cat([torch.full((16,), 1.0), torch.zeros(1), torch.full((23,), 18.0)])
    assert torch.equal(held(read, inputs, before, 256)[0, :, 0], expected)
    expected = torch.cat([torch.full((30,), -2.0), torch.zeros(1), torch.full((9,), 72.0)])
    assert torch.equal(held(read, inputs, before, 256)[1, :, 0], expected)
