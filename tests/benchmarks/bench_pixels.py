"""What counting costs an image: a baseline for models of pixels.

    python tests/benchmarks/bench_pixels.py [--counted data/mnist14]

Counted are, for each label and place, how often a pixel has a level: alone, and after its left and upper neighbour.
Without `--counted` the images are drawings.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from families import FAMILIES, prepared
from results import Table, add_output

from pipeline.data.pixels import PixelDataModule


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
    parser.add_argument("--counted", type=Path, metavar="DATASET", help="count the pixels of this one")
    add_output(parser)
    options = parser.parse_args()
    table = Table("pixels", "Counted pixels", "Nats per image of pixels that are counted, by split.", options.output)
    with tempfile.TemporaryDirectory() as folder:
        data = PixelDataModule(options.counted or prepared(FAMILIES["pixels"], Path(folder)), labels=True)
        for name, context in (("alone", False), ("after its left and upper neighbour", True)):
            table.add(pixel=name, **counted(data, context))


if __name__ == "__main__":
    main()
