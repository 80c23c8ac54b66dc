"""Series on disk: a row holds one series whole, and the edges that cut it into training, validation and test.

A forecast in the test part may look back into the parts before it, as a user's forecast would: so the splits share
their rows, and differ in which steps they predict. Values are standardised with the mean and the deviation of
the training part; a step that was not observed repeats the one before it and is never predicted.

Legend: N series, L steps of a series, K known covariates, S steps of all series, W windows, T steps of a window.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Float64, Int64

from pipeline.dataset.shard import Shard, all_batches, edges, flat, joined, write_rows

PARTS = ("train", "validation", "test")
SCHEMA = pa.schema(
    {
        "name": pa.string(),
        "start": pa.int64(),
        "edges": pa.list_(pa.int64()),
        "naive_error": pa.float64(),
        "values": pa.list_(pa.float32()),
        "observed": pa.list_(pa.bool_()),
        "known": pa.list_(pa.float32()),
    }
)


@dataclass(frozen=True)
class Series:
    """One series, ready to be written.

    Args:
        name: what it is called.
        start: the stamp of its first step.
        edges: the steps at which training, validation and test begin, and where the last of them ends.
        naive_error: mean absolute error, in standardised units, of repeating the last season of the training part.
        values: standardised, forward-filled where nothing was observed.
        observed: where something was.
        known: covariates that are known ahead, standardised.
    """

    name: str
    start: int
    edges: tuple[int, ...]
    naive_error: float
    values: Float32[np.ndarray, " L"]
    observed: Bool[np.ndarray, " L"]
    known: Float32[np.ndarray, "L K"]


def write_series(path: Path, all_series: Sequence[Series]) -> Shard:
    """Write a shard of series and describe it."""
    rows = (
        (
            (one.name, one.start, one.edges, one.naive_error, one.values, one.observed, one.known.reshape(-1)),
            len(one.values),
        )
        for one in all_series
    )
    return write_rows(path, SCHEMA, rows)


@dataclass(frozen=True)
class SeriesSplit:
    """One split of a dataset of series; pickled by its path, so that loader workers open it anew."""

    path: Path
    """The directory of the dataset."""
    name: str
    series: int
    steps: int
    """Observed steps that fall to this split, of all series."""
    covariates: int
    shards: tuple[Shard, ...] = field(repr=False)

    @classmethod
    def of(cls, path: Path, name: str, entry: Mapping[str, Any]) -> "SeriesSplit":
        """The split as the manifest describes it."""
        counts = entry["series"], entry["steps"], entry["covariates"]
        return cls(path, name, *counts, tuple(Shard(**shard) for shard in entry["shards"]))

    @cached_property
    def names(self) -> list[str]:
        """What the series are called."""
        return list(joined(self._batches, "name", self.path))

    @cached_property
    def starts(self) -> Int64[np.ndarray, " N"]:
        """The stamp of each series' first step."""
        found: Int64[np.ndarray, " N"] = joined(self._batches, "start", self.path)
        return found

    @cached_property
    def naive_errors(self) -> Float64[np.ndarray, " N"]:
        """The error of the seasonal naive forecast in the training part of each series."""
        found: Float64[np.ndarray, " N"] = joined(self._batches, "naive_error", self.path)
        return found

    @cached_property
    def first_steps(self) -> Int64[np.ndarray, " _"]:
        """Where each series begins among the steps of all, and after the last one their number."""
        return edges(self._batches, "values", self.path)

    @cached_property
    def values(self) -> Float32[np.ndarray, " S"]:
        """The steps of all series, one series after the other."""
        found: Float32[np.ndarray, " S"] = flat(self._batches, "values", self.path)
        return found

    @cached_property
    def known(self) -> Float32[np.ndarray, "S K"]:
        """The covariates that are known ahead, at the steps of all series."""
        found: Float32[np.ndarray, "S K"] = flat(self._batches, "known", self.path).reshape(
            int(self.first_steps[-1]), self.covariates
        )
        return found

    @cached_property
    def unobserved_before(self) -> Int64[np.ndarray, " _"] | None:
        """How many of the first steps of all series were not observed, for each number of steps; None: no step was."""
        missing = ~flat(self._batches, "observed", self.path).astype(bool)
        return np.concatenate([[0], np.cumsum(missing)]) if missing.any() else None

    def windows(self, context: int, horizon: int, stride: int) -> Int64[np.ndarray, "W 2"]:
        """For each window its series, and the step, among those of all series, at which its horizon begins.

        Args:
            context: steps before the horizon, of this or an earlier split.
            horizon: steps that are predicted, all of this split.
            stride: steps from one horizon to the next.
        """
        cuts = np.stack([np.asarray(row) for batch in self._batches for row in batch.column("edges").to_pylist()])
        part = PARTS.index(self.name)
        found = [np.zeros((0, 2), np.int64)]
        for number, (first, after) in enumerate(cuts[:, part : part + 2].tolist()):
            begins = np.arange(max(first, context), after - horizon + 1, stride)
            found.append(np.stack([np.full(len(begins), number), self.first_steps[number] + begins], 1))
        return np.concatenate(found)

    @cached_property
    def _batches(self) -> list[Any]:
        return all_batches(self.path, self.shards, self.series)

    def __reduce__(self) -> tuple[Any, ...]:
        return SeriesSplit, (self.path, self.name, self.series, self.steps, self.covariates, self.shards)
