"""Music models: the loss of the literature, causality, padding, and generation through the carried state."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data.batch import MusicBatch
from pipeline.data.music import MusicDataModule
from pipeline.dataset.music import KEYS
from pipeline.models.conv import ConvNet
from pipeline.models.gru import GRU
from pipeline.models.linear_recurrence import LinearRecurrence
from pipeline.models.lstm import LSTM
from pipeline.models.rnn import RNN
from pipeline.models.transformer import Transformer
from pipeline.tasks.music_model import MusicModel

NETWORKS = [ConvNet, GRU, LSTM, LinearRecurrence, RNN, partial(Transformer, heads=2)]


def model(make: Callable[..., nn.Module] = LSTM) -> MusicModel:
    torch.manual_seed(1)
    return MusicModel(make(width=8, depth=2), 2).double().eval()


def batch_of(dataset: Path, ids: list[int]) -> MusicBatch:
    found: MusicBatch = MusicDataModule(dataset).batch("train", np.array(ids))
    return found


@pytest.mark.numeric
def test_the_loss_is_that_of_the_literature(tiny_music_dataset: Path) -> None:
    """Bai, Kolter and Koltun: -trace(y log(p)' + (1 - y) log(1 - p)') of each piece, over the number of frames."""
    task, given = model(), batch_of(tiny_music_dataset, [0, 3, 5])
    total, count = torch.zeros(()).double(), 0
    for row in range(3):
        size = int(given.inside[row].sum())
        p = task(given.inputs[row : row + 1, :size])[0][0].sigmoid()
        y = given.targets[row, :size].double()
        total -= torch.trace(y @ p.log().T + (1 - y) @ (1 - p).log().T)
        count += size
    # The loss itself is computed in float32.
    torch.testing.assert_close(task._nats(given).double() / given.predictions, total / count, rtol=1e-5, atol=0)
    assert torch.equal(task.position_losses(given).isnan(), ~given.inside)


@pytest.mark.numeric
@pytest.mark.parametrize("make", NETWORKS, ids=str)
def test_padding_changes_nothing_and_frames_depend_on_earlier_ones(
    make: Callable[..., nn.Module], tiny_music_dataset: Path
) -> None:
    task, given = model(make), batch_of(tiny_music_dataset, [0, 3, 5])

    def gradients(given: MusicBatch) -> list[torch.Tensor]:
        return list(torch.autograd.grad(task._nats(given), list(task.parameters())))

    wild = given._replace(
        inputs=given.inputs | ~given.inside[..., None], targets=given.targets | ~given.inside[..., None]
    )
    torch.testing.assert_close(task._nats(wild), task._nats(given))
    for one, two in zip(gradients(wild), gradients(given), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)
    later = given.inputs.clone()
    later[:, 9:] = ~later[:, 9:]
    torch.testing.assert_close(task(later)[0][:, :9], task(given.inputs)[0][:, :9])
    assert not torch.allclose(task(later)[0][:, 9], task(given.inputs)[0][:, 9])


@pytest.mark.numeric
@pytest.mark.parametrize("make", NETWORKS, ids=str)
def test_generated_frames_are_those_of_the_whole_piece_read_again(make: Callable[..., nn.Module]) -> None:
    from pipeline.generation.frames import DrawKeys

    task = model(make)
    given = np.random.default_rng(1).random((4, KEYS)) < 0.1
    new = task.generate(given, 6, DrawKeys(0.7), seed=3)
    chance = torch.Generator().manual_seed(3)
    whole = torch.from_numpy(np.concatenate([given, new]))[None]
    for step in range(6):
        logits = task(whole[:, : 4 + step])[0][0, -1].double()
        expected = torch.rand(KEYS, generator=chance, dtype=torch.float64) < torch.sigmoid(logits / 0.7)
        assert expected.tolist() == new[step].tolist()
    np.testing.assert_array_equal(task.generate(given, 3, DrawKeys(0.7), seed=3), new[:3])
    greedy = task.generate(given, 1, DrawKeys(0))
    np.testing.assert_array_equal(greedy[0], (task(whole[:, :4])[0][0, -1] > 0).numpy())
