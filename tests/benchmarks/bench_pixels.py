"""The loader of images against a bare numpy loop, in turns; and, of a dataset, what counting costs an image.

    python tests/benchmarks/bench_pixels.py [--images 20000] [--rounds 5] [--counted data/mnist14]

Both hand over batches of 32 images of 14 x 14 levels in the same order, opened by their labels and shifted by one.
Counted are, for each label and place, how often a pixel has a level: alone, and after its left and upper neighbour.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

import data_prep.pixels.command
from pipeline.data.batch_plan import MicroBatches, Share
from pipeline.data.pixels import PixelDataModule

ROWS, BATCHES = 32, 500


def ours(data: PixelDataModule) -> float:
    """Seconds for BATCHES batches through the DataLoader that training uses."""
    images = data.samples("train")
    batches = iter(data._loader(images, MicroBatches(data.plan(images), Share(), images.predictions)))
    next(batches)
    began = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    return time.perf_counter() - began


def bare(data: PixelDataModule) -> float:
    """Seconds for the same batches from arrays in memory."""
    images = data.samples("train")
    plan, values, openings = data.plan(images), images.pixels(np.arange(len(images))), 3 + images.classes
    began = time.perf_counter()
    for step in range(1, BATCHES + 1):
        ids = plan.batch(0, step)
        targets = values[ids].astype(np.int64)
        inputs = np.concatenate([openings[ids, None], targets[:, :-1]], 1)
        assert (torch.from_numpy(inputs), torch.from_numpy(targets))[0].shape == (ROWS, data.positions)
    return time.perf_counter() - began


def counted(data: PixelDataModule, context: bool) -> dict[str, float]:
    """Return nats per image of label-conditioned pixel counts of the training split, with add-one smoothing."""
    about = data.about
    levels, shape = about["levels"], (-1, about["rows"], about["columns"] * about["channels"])

    def cells(name: str) -> tuple[np.ndarray, np.ndarray]:
        """Of each pixel the place, the label and the neighbours as one number, and its level."""
        images = data.samples(name)
        pixels = images.pixels(np.arange(len(images))).reshape(shape).astype(np.int64)
        left = np.pad(pixels, ((0, 0), (0, 0), (1, 0)))[..., :-1] * context
        above = np.pad(pixels, ((0, 0), (1, 0), (0, 0)))[:, :-1] * context
        places = np.arange(data.positions).reshape(1, *shape[1:]) + data.positions * images.classes[:, None, None]
        return (places * levels + left) * levels + above, pixels

    where, found = cells("train")
    counts = np.ones((data.positions * len(data.labels) * levels**2, levels))
    np.add.at(counts, (where.ravel(), found.ravel()), 1)
    nats = -np.log(counts / counts.sum(1, keepdims=True))
    heldout = {name: cells(name) for name in ("validation", "test")}
    return {name: float(nats[where, found].sum((1, 2)).mean()) for name, (where, found) in heldout.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--counted", type=Path, metavar="DATASET", help="only count the pixels of this one")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.counted:
        data = PixelDataModule(options.counted, labels=True)
        for name, context in (("alone", False), ("after its left and upper neighbour", True)):
            print(
                f"a pixel {name}:", *(f"{split} {n:.2f} nats per image" for split, n in counted(data, context).items())
            )
        return
    with tempfile.TemporaryDirectory() as folder:
        output, began = Path(folder) / "data", time.perf_counter()
        source = [f"builtin:{options.images}", "--size", "14x14", "--levels", "2", "--workers", "1"]
        assert data_prep.pixels.command.main([*source, "--output", str(output)]) == 0
        print(f"preparation, drawing among it: {options.images / (time.perf_counter() - began):,.0f} images/s")
        data = PixelDataModule(output, labels=True)
        pairs = [(ours(data), bare(data)) for _ in range(options.rounds)]
        ratio = median(theirs / mine for mine, theirs in pairs)
        rate = ROWS * BATCHES / median(mine for mine, _ in pairs)
        print(f"loader of images: {rate:,.0f} images/s, {ratio:.2f} of a bare numpy loop")


if __name__ == "__main__":
    main()
