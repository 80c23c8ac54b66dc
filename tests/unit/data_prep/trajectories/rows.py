"""Small episodes as rows of a file, and what a dataset contains of them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.dataset.manifest import Dataset

Prepare = Callable[..., Dataset]


def episodes(count: int = 40, steps: int = 5) -> list[dict[str, Any]]:
    draw = np.random.default_rng(1)
    lengths = [steps + number % 3 for number in range(count)]
    return [
        {
            "observations": draw.normal(size=(length, 2)).round(3).tolist(),
            "actions": draw.integers(3, size=length).tolist(),
            "rewards": draw.normal(size=length).round(3).tolist(),
        }
        for length in lengths
    ]


def lines(folder: Path, rows: Sequence[str | dict[str, Any]]) -> Path:
    path = folder / "episodes.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def whole(dataset: Dataset) -> dict[bytes, tuple[list[int], list[float]]]:
    """Return actions and returns-to-go of the episodes of all splits, by their observations."""
    found = {}
    for split in dataset.splits.values():
        for first, after in zip(split.first_steps[:-1], split.first_steps[1:], strict=True):
            part = slice(first, after)
            found[split.observations[part].tobytes()] = split.actions[part].tolist(), split.returns[part].tolist()
    return found
