"""Series on disk: a row is one whole series with the boundaries of training, validation and test.

A forecast in the test part may use the parts before it as context, as in practice. So the splits share their rows and
differ in the steps that they predict. Values are standardized with the mean and standard deviation of the training
part. A step that was not observed repeats the previous one and is never predicted.

Legend: N series, L steps of a series, K known covariates, S steps of all series, W windows, T steps of a window.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Float64, Int64

from pipeline.dataset.shard import Shard, SplitEntry, all_batches, edges, flat, joined, write_rows

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
        name: name of the series.
        start: timestamp of the first step.
        edges: first steps of training, validation and test, and the end of test.
        naive_error: mean absolute error, in standardized units, of the seasonal naive forecast in the training part.
        values: standardized values, forward-filled where nothing was observed.
        observed: True where a value was observed.
        known: standardized covariates that are known in advance.
    """

    name: str
    start: int
    edges: tuple[int, ...]
    naive_error: float
    values: Float32[np.ndarray, " L"]
    observed: Bool[np.ndarray, " L"]
    known: Float32[np.ndarray, "L K"]


def write_series(path: Path, all_series: Sequence[Series]) -> Shard:
    """Write a shard of series and return its manifest entry."""
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
    """One split of a dataset of series; it is pickled by path, so loader workers open the files themselves."""

    path: Path
    """The directory of the dataset."""
    name: str
    series: int
    steps: int
    """Observed steps of all series in this split."""
    covariates: int
    shards: tuple[Shard, ...] = field(repr=False)

    @classmethod
    def of(cls, path: Path, name: str, entry: SplitEntry) -> "SeriesSplit":
        """Create the split from its manifest entry."""
        counts = entry["series"], entry["steps"], entry["covariates"]
        return cls(path, name, *counts, tuple(Shard(**shard) for shard in entry["shards"]))

    @cached_property
    def names(self) -> list[str]:
        """The names of the series."""
        return list(joined(self._batches, "name", self.path))

    @cached_property
    def starts(self) -> Int64[np.ndarray, " N"]:
        """The timestamp of each series' first step."""
        found: Int64[np.ndarray, " N"] = joined(self._batches, "start", self.path)
        return found

    @cached_property
    def naive_errors(self) -> Float64[np.ndarray, " N"]:
        """The error of the seasonal naive forecast in the training part of each series."""
        found: Float64[np.ndarray, " N"] = joined(self._batches, "naive_error", self.path)
        return found

    @cached_property
    def first_steps(self) -> Int64[np.ndarray, " _"]:
        """The offset of each series in the concatenated steps, followed by their number."""
        return edges(self._batches, "values", self.path)

    @cached_property
    def values(self) -> Float32[np.ndarray, " S"]:
        """The concatenated steps of all series."""
        found: Float32[np.ndarray, " S"] = flat(self._batches, "values", self.path)
        return found

    @cached_property
    def known(self) -> Float32[np.ndarray, "S K"]:
        """The covariates known in advance, at the concatenated steps of all series."""
        found: Float32[np.ndarray, "S K"] = flat(self._batches, "known", self.path).reshape(
            int(self.first_steps[-1]), self.covariates
        )
        return found

    @cached_property
    def unobserved_before(self) -> Int64[np.ndarray, " _"] | None:
        """The cumulative number of unobserved steps in the concatenated series, or None if all are observed."""
        missing = ~flat(self._batches, "observed", self.path).astype(bool)
        return np.concatenate([[0], np.cumsum(missing)]) if missing.any() else None

    def windows(self, context: int, horizon: int, stride: int) -> Int64[np.ndarray, "W 2"]:
        """Return for each window its series, and the first step of its horizon in the concatenated series.

        Args:
            context: number of steps before the horizon, in this or an earlier split.
            horizon: number of steps to predict, all in this split.
            stride: steps between the starts of successive horizons.
        """
        found = [np.zeros((0, 2), np.int64)]
        for number, (first, after) in enumerate(self._parts.tolist()):
            begins = np.arange(max(first, context), after - horizon + 1, stride)
            found.append(np.stack([np.full(len(begins), number), self.first_steps[number] + begins], 1))
        return np.concatenate(found)

    @property
    def longest(self) -> int:
        """The number of steps that the longest series has in this split."""
        return int(np.diff(self._parts).max())

    @cached_property
    def _parts(self) -> Int64[np.ndarray, "N 2"]:
        """The first step of this split and the step after its last one, in each series."""
        cuts = np.stack([np.asarray(row) for batch in self._batches for row in batch.column("edges").to_pylist()])
        return cuts[:, PARTS.index(self.name) :][:, :2]

    @cached_property
    def _batches(self) -> list[pa.RecordBatch]:
        return all_batches(self.path, self.shards, self.series)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return SeriesSplit, (self.path, self.name, self.series, self.steps, self.covariates, self.shards)
