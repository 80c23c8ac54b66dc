"""Batches of images and captions are the same for any number of processes and after any interruption."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer

from data_prep.sources.shapes import drawn
from pipeline.data.batch import IGNORE
from pipeline.data.batch_plan import NO_SAMPLE, MicroBatches, Share, Slice
from pipeline.data.captions import ImageCaptionDataModule, Views
from pipeline.dataset.codecs.image import View, decode_image, pixels, square
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.records import RecordSplit
from pipeline.errors import ConfigError, DataError, SampleError

EOS = 256


def slice_of(ids: list[int], epoch: int = 0) -> Slice:
    return Slice(np.array(ids), 7, epoch, 3, 0)


@pytest.mark.numeric
def test_a_batch_contains_the_image_of_each_caption(tiny_captions_dataset: Path) -> None:
    data = ImageCaptionDataModule(tiny_captions_dataset, image_size=32, smallest_crop=1.0)
    samples = data.samples("validation")
    batch = samples.__getitems__(slice_of([0, 1, 5, NO_SAMPLE]))
    [images] = batch.source
    assert images.shape == (4, 3, 32, 32)
    assert images.dtype == torch.uint8
    tokenizer = Tokenizer.from_file(str(data.dataset.target.file))
    for place, sample in enumerate((0, 1, 5)):
        row = samples.split.row_of(sample)
        number = int(samples.split.value("name", row).split()[1])
        image, captions = drawn(number)
        whole = decode_image(image, 32)
        shown = pixels(square(whole, View.central(*whole.size), 32))
        assert (images[place].numpy() == shown).all()
        target = batch.targets[place]
        text = tokenizer.decode(target[(target != IGNORE) & (target != EOS)].tolist())
        assert text in captions
        assert batch.inputs[place, 0] == EOS
        assert torch.equal(batch.inputs[place, 1 : len(text)], target[: len(text) - 1])
    assert not images[3].any()
    assert (batch.targets[3] == IGNORE).all()
    assert (batch.predictions, batch.step) == (7, 3)
    assert (batch.padding, batch.positions) == (int((batch.targets == IGNORE).sum()), batch.targets.numel())


@pytest.mark.numeric
def test_a_crop_depends_on_seed_epoch_and_sample_alone(tiny_captions_dataset: Path) -> None:
    def seen(ids: list[int], epoch: int = 0, seed: int = 5) -> torch.Tensor:
        data = ImageCaptionDataModule(tiny_captions_dataset, 32, 0.5, seed=seed)
        return data.samples("train").__getitems__(slice_of(ids, epoch)).source[0]

    together = seen([3, 4, 8])
    assert torch.equal(together[1:2], seen([4]))
    for other in (seen([3, 4, 8], epoch=1), seen([3, 4, 8], seed=6)):
        assert (other != together).flatten(1).any(1).all()
    data = ImageCaptionDataModule(tiny_captions_dataset, 32, 0.5)
    held_out = data.samples("validation")
    assert torch.equal(
        held_out.__getitems__(slice_of([2], 0)).source[0], held_out.__getitems__(slice_of([2], 9)).source[0]
    )


def test_crops_are_inside_the_image_and_half_are_mirrored() -> None:
    views, image = Views(0.5, True, 1), Image.new("RGB", (60, 40))
    drawn_views = [views(image, 0, sample) for sample in range(400)]
    for view in drawn_views:
        assert 20 <= view.side <= 40
        assert 0 <= view.left <= 60 - view.side
        assert 0 <= view.top <= 40 - view.side
    assert 160 < sum(view.mirrored for view in drawn_views) < 240
    assert not any(Views(0.5, False, 1)(image, 0, sample).mirrored for sample in range(50))
    assert max(view.left for view in drawn_views) > 30


@pytest.mark.parametrize(("world", "limit"), [(1, None), (2, None), (3, 300)])
def test_any_number_of_processes_sees_the_same_global_batches(
    tiny_captions_dataset: Path, world: int, limit: int | None
) -> None:
    data = ImageCaptionDataModule(tiny_captions_dataset, 16, global_batch_tokens=800)
    samples = data.samples("train")
    plan = data.plan(samples)
    shares = [Share.of_budget(800, limit, world, rank) for rank in range(world)]
    parts = [list(MicroBatches(plan, share, samples.predictions)) for share in shares]
    slots = shares[0].accumulation
    assert {len(part) for part in parts} == {len(plan) * slots}
    for k in range(len(plan)):
        mine = [parts[rank][k * slots + slot] for rank in range(world) for slot in range(slots)]
        ids = np.concatenate([part.ids for part in mine])
        assert ids[ids != NO_SAMPLE].tolist() == plan.batch(0, k).tolist()
        assert int(samples.lengths[plan.batch(0, k)].max()) * len(plan.batch(0, k)) <= 800


def damaged(dataset: Path, target: Path) -> tuple[Path, str]:
    """Return a copy of a dataset with one corrupt JPEG among the training images, and its name."""
    shutil.copytree(dataset, target)
    split: RecordSplit = Dataset.open(dataset).splits["train"]
    row = int(split.rows // 2)
    image = split.value("image", row)
    [file] = [target / shard.file for shard in split.shards]
    data = file.read_bytes()
    at = data.index(image)
    file.write_bytes(data[:at] + b"\0" * 40 + data[at + 40 :])
    return target, split.value("name", row)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_reported_by_its_name(tiny_captions_dataset: Path, tmp_path: Path, workers: int) -> None:
    dataset, name = damaged(tiny_captions_dataset, tmp_path / "damaged")
    data = ImageCaptionDataModule(dataset, 16, workers=workers)
    samples = data.samples("train")
    loader = data._loader(samples, MicroBatches(data.plan(samples), Share(), samples.predictions))
    with pytest.raises(SampleError) as caught:
        list(loader)
    assert str(caught.value).startswith(f"{dataset}, train: {name} (row ")
    assert str(caught.value).endswith("so the dataset is damaged: prepare it again with `unroll prepare captions`")
    assert (caught.value.exit_code, caught.value.shared) == (3, False)


def test_invalid_settings_are_rejected(tiny_captions_dataset: Path, tiny_pairs_dataset: Path) -> None:
    with pytest.raises(ConfigError, match=r"smallest_crop=1\.5"):
        ImageCaptionDataModule(tiny_captions_dataset, smallest_crop=1.5)
    with pytest.raises(DataError, match="expected kind 'captions'"):
        ImageCaptionDataModule(tiny_pairs_dataset)
    data = ImageCaptionDataModule(tiny_captions_dataset, global_batch_tokens=60)
    with pytest.raises(ConfigError, match="more than global_batch_tokens=60"):
        data.plan(data.samples("train"))
