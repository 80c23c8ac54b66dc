"""Padding: the share of an epoch's positions that hold nothing, in buckets and in a shuffled order of as many batches.

    python tests/benchmarks/bench_padding.py [CONFIG=DATASET ...] [--output docs/benchmarks/cpu.json]

CONFIG is a file of configs/ without its ending, such as pairs/transformer=data/en-de; without arguments, datasets are
made. Batches are built as training builds them. Packing several samples into a row can save at most this share. The
augmentation of sounds changes their speed after the batches are planned, so sounds are also measured as stored.
"""

import argparse
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from families import FAMILIES, prepared
from results import Table, add_output

from pipeline.data.batch_plan import Slice
from pipeline.training.config import parse_config

MADE = ("pairs", "captions", "transcription", "keywords")


def sources(given: list[str], folder: Path) -> Iterator[tuple[str, str, Path]]:
    """The name, the config and the dataset of each row."""
    for each in given:
        config, _, dataset = each.partition("=")
        yield f"{Path(dataset).name}, {config}", f"{config}.yaml", Path(dataset)
    for name in () if given else MADE:
        yield f"built-in {name}", FAMILIES[name].config, prepared(FAMILIES[name], folder)


def padding(samples: Any, batches: Iterable[Slice]) -> float:
    """The share of padding among the positions of batches."""
    found = [(batch.padding, batch.positions) for batch in map(samples.__getitems__, batches)]
    empty, positions = np.sum(found, axis=0)
    return float(empty / positions)


def shares(config: str, dataset: Path, *keys: str) -> dict[str, float]:
    """The batches of an epoch, and the share of padding in both orders."""
    _, data, _ = parse_config(["--config", config, f"--data.init_args.dataset={dataset}", *keys]).build()
    samples = data.samples("train")
    plan = data.plan(samples)
    order = np.random.default_rng(0).permutation(len(samples))
    orders = {
        "in_buckets": [plan.batch(0, k) for k in range(len(plan))],
        "shuffled": np.array_split(order, len(plan)),
    }
    found = {name: padding(samples, (Slice(ids, 0, 0, 0, 0) for ids in parts)) for name, parts in orders.items()}
    return {"samples": len(samples), "batches": len(plan), **found}


def measure(config: str, dataset: Path) -> dict[str, float]:
    """The shares of a dataset, also without augmentation."""
    found = shares(config, dataset)
    if config.startswith("audio"):
        found["in_buckets,_as_stored"] = shares(config, dataset, "--data.init_args.augmentation=null")["in_buckets"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("given", nargs="*", metavar="CONFIG=DATASET")
    add_output(parser)
    options = parser.parse_args()
    about = (
        "The share of padding among the positions of an epoch's batches, sources and targets. Packing several samples "
        "into a row can save at most the share in buckets as stored: augmentation changes the speed of sounds later."
    )
    table = Table("padding", "Padding", about, options.output)
    with tempfile.TemporaryDirectory() as folder:
        for name, config, dataset in sources(options.given, Path(folder)):
            table.add(data=name, **measure(config, dataset))


if __name__ == "__main__":
    main()
