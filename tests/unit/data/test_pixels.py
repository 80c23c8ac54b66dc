"""An image becomes a sequence: with a start token, shifted by one, read exactly once, in a fixed permutation."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.pixels import command as pixels
from pipeline.data.batch import IGNORE
from pipeline.data.batch_plan import MicroBatches, Share
from pipeline.data.pixels import PixelDataModule, PixelLabelDataModule
from pipeline.errors import ConfigError, DataError


def batches(data: PixelDataModule, name: str) -> list:
    """Return all batches of an evaluation."""
    samples = data.samples(name)
    plan = data.plan_evaluation(samples)
    return [samples.__getitems__(part) for part in MicroBatches(plan, Share(), samples.predictions)]


@pytest.mark.parametrize("labels", [True, False])
def test_every_image_is_predicted_once_after_its_start_token(labels: bool, tiny_pixels_dataset: Path) -> None:
    data = PixelDataModule(tiny_pixels_dataset, labels=labels, global_batch_size=8)
    split = data.split("validation")
    assert split.rows % 8  # so that the last batch has padding rows
    images = np.stack([np.frombuffer(split.value("image", row), np.uint8) for row in range(split.rows)])
    read = batches(data, "validation")
    inputs, targets = (torch.cat([getattr(batch, name) for batch in read]) for name in ("inputs", "targets"))
    assert np.array_equal(targets[: split.rows].numpy(), images)
    assert bool((targets[split.rows :] == IGNORE).all())
    assert np.array_equal(inputs[: split.rows, 1:].numpy(), images[:, :-1])
    openings = 3 + split.numbers("label") if labels else np.full(split.rows, 2)
    assert np.array_equal(inputs[: split.rows, 0].numpy(), openings)
    assert [batch.predictions for batch in read] == [48 * int((batch.targets[:, 0] != IGNORE).sum()) for batch in read]
    assert data.facts.known() == {"vocab_size": 3 + 3 * labels, "levels": 2, "rows": 8, "columns": 6, "channels": 1}


@pytest.mark.numeric
def test_a_permutation_depends_on_its_seed_alone(tiny_pixels_dataset: Path) -> None:
    plain = PixelLabelDataModule(tiny_pixels_dataset, global_batch_size=5)
    same, other = (PixelLabelDataModule(tiny_pixels_dataset, seed, global_batch_size=5) for seed in (1, 2))
    order = np.random.default_rng(1).permutation(48)
    for before, after, third in zip(*(batches(data, "test") for data in (plain, same, other)), strict=True):
        assert torch.equal(before.source[0][:, torch.from_numpy(order)], after.source[0])
        assert torch.equal(before.labels, after.labels)
        assert not torch.equal(after.source[0], third.source[0])
    split = plain.split("test")
    labels = torch.cat([batch.labels for batch in batches(plain, "test")])
    assert labels[: split.rows].tolist() == split.numbers("label").tolist()
    assert bool((labels[split.rows :] == IGNORE).all())
    assert plain.facts.known() == {"classes": 3}


@pytest.mark.numeric
def test_brightness_is_a_fraction_of_white(tmp_path: Path) -> None:
    output = tmp_path / "grey"
    assert pixels.main(["builtin:40", "--levels", "16", "--size", "4x4", "--output", str(output)]) == 0
    data = PixelLabelDataModule(output)
    samples = data.samples("train")
    [source] = samples.source(np.arange(3))
    assert np.allclose(source.numpy(), samples.pixels(np.arange(3)) / 15)
    names = [samples.split.value("name", row) for row in range(2)]
    shown, found = data.show("train", 2)
    assert found == names
    assert torch.equal(shown[0], source[:2])


def test_an_image_has_its_own_levels_in_any_order_of_training(tiny_pixels_dataset: Path) -> None:
    data = PixelDataModule(tiny_pixels_dataset, global_batch_size=16)
    samples = data.samples("train")
    part = next(iter(MicroBatches(data.plan(samples), Share(), samples.predictions)))
    batch = samples.__getitems__(part)
    for row, sample in enumerate(part.ids.tolist()):
        levels = np.frombuffer(samples.split.value("image", sample), np.uint8)
        assert np.array_equal(batch.targets[row].numpy(), levels)


def test_invalid_settings_are_rejected(tiny_pixels_dataset: Path, tiny_labels_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected kind 'pixels', got 'audio'"):
        PixelDataModule(tiny_labels_dataset)
    with pytest.raises(ConfigError, match="global_batch_size=0 must be at least 1"):
        PixelDataModule(tiny_pixels_dataset, global_batch_size=0)
    data = PixelDataModule(tiny_pixels_dataset, global_batch_size=1000)
    with pytest.raises(ConfigError, match="images, fewer than global_batch_size=1000"):
        data.plan(data.samples("train"))
    from PIL import Image

    for number in range(30):
        Image.new("L", (2, 2), number).save(tmp_path / f"{number}.png")
    output = tmp_path / "plain"
    assert pixels.main([str(tmp_path), "--validation-share", "0", "--test-share", "0", "--output", str(output)]) == 0
    with pytest.raises(ConfigError, match="have no labels; use labels=false"):
        PixelDataModule(output, labels=True)
    with pytest.raises(ConfigError, match="permutation=-1 must be a seed of at least 0"):
        PixelLabelDataModule(tiny_pixels_dataset, permutation=-1)
    with pytest.raises(DataError, match="have no labels"):
        PixelLabelDataModule(output)
