"""Trajectories on disk: a row is one episode, with observation, action and reward of each step.

Chen et al. (2021), "Decision Transformer": the return-to-go of step t is the sum of the rewards from t to the end
of the episode. It is computed when an episode is written.

Legend: N episodes, L steps of an episode, S steps of all episodes, O numbers of an observation, A of an action.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Float32, Int64, Shaped

from pipeline.dataset.shard import Shard, SplitEntry, all_batches, edges, flat, write_rows

Actions = Shaped[np.ndarray, "L *A"]  # Int64[np.ndarray, " L"] if discrete, else Float32[np.ndarray, "L A"]


@dataclass(frozen=True)
class Episode:
    """One episode, ready to be written.

    Args:
        name: name of the episode.
        observations: observation before each action, in float32 or float64.
        actions: index of a discrete action, or A numbers of a continuous one.
        rewards: reward after each action.
    """

    name: str
    observations: Float[np.ndarray, "L O"]
    actions: Actions
    rewards: Float32[np.ndarray, " L"]


def returns_to_go(rewards: Float32[np.ndarray, " L"]) -> Float32[np.ndarray, " L"]:
    """Return the sum of the rewards from each step to the last."""
    summed: Float32[np.ndarray, " L"] = np.cumsum(rewards[::-1], dtype=np.float64)[::-1].astype(np.float32)
    return summed


def is_constant(
    low: Shaped[np.ndarray, " O"], high: Shaped[np.ndarray, " O"], dtype: np.dtype[Any]
) -> Bool[np.ndarray, " O"]:
    """Return which ranges are within the rounding of `dtype` at their scale.

    Args:
        low: minimum of each column.
        high: maximum of each column.
        dtype: type of the values.
    """
    constant: Bool[np.ndarray, " O"] = high - low <= 2 * np.finfo(dtype).eps * np.maximum(np.abs(low), np.abs(high))
    return constant


def no_action(numbers: int) -> Shaped[np.ndarray, "*A"]:
    """Return the placeholder of the action before the first: -1 if actions are discrete, else NaN.

    Args:
        numbers: A, numbers of a continuous action; 0 if actions are discrete.
    """
    return np.full(numbers, np.nan, np.float32) if numbers else np.array(-1)


def write_episodes(path: Path, episodes: Sequence[Episode]) -> Shard:
    """Write a shard of episodes and return its manifest entry."""
    action = pa.int64() if episodes[0].actions.ndim == 1 else pa.float32()
    wide = any(one.observations.dtype == np.float64 for one in episodes)
    observation = pa.float64() if wide else pa.float32()
    columns = {"observations": observation, "actions": action, "rewards": pa.float32(), "returns": pa.float32()}
    schema = pa.schema({"name": pa.string(), **{name: pa.list_(kind) for name, kind in columns.items()}})
    return write_rows(path, schema, ((_row(one), len(one.rewards)) for one in episodes))


def _row(one: Episode) -> tuple[object, ...]:
    return one.name, one.observations.reshape(-1), one.actions.reshape(-1), one.rewards, returns_to_go(one.rewards)


@dataclass(frozen=True)
class TrajectorySplit:
    """One split of a dataset of trajectories; it is pickled by path, so loader workers open the files themselves."""

    path: Path
    """The directory of the dataset."""
    name: str
    episodes: int
    steps: int
    """Steps of all episodes."""
    observation: int
    """Numbers of an observation."""
    action: int
    """Numbers of a continuous action; 0 if actions are discrete."""
    shards: tuple[Shard, ...] = field(repr=False)

    @classmethod
    def of(cls, path: Path, name: str, entry: SplitEntry) -> "TrajectorySplit":
        """Create the split from its manifest entry."""
        counts = entry["episodes"], entry["steps"], entry["observation"], entry["action"]
        return cls(path, name, *counts, tuple(Shard(**shard) for shard in entry["shards"]))

    @cached_property
    def first_steps(self) -> Int64[np.ndarray, " _"]:
        """The offset of each episode in the concatenated steps, followed by their number."""
        return edges(self._batches, "rewards", self.path)

    @cached_property
    def observations(self) -> Float[np.ndarray, "S O"]:
        """The observation before each step, in the precision of the source."""
        found: Float[np.ndarray, "S O"] = self._of_steps("observations").reshape(-1, self.observation)
        return found

    @cached_property
    def actions(self) -> Shaped[np.ndarray, "S *A"]:
        """The action of each step."""
        found: np.ndarray = self._of_steps("actions")
        return found.reshape(-1, self.action) if self.action else found

    @cached_property
    def returns(self) -> Float32[np.ndarray, " S"]:
        """The return-to-go of each step."""
        found: Float32[np.ndarray, " S"] = self._of_steps("returns")
        return found

    def _of_steps(self, name: str) -> np.ndarray:
        return flat(self._batches, name, self.path)

    @cached_property
    def _batches(self) -> list[pa.RecordBatch]:
        return all_batches(self.path, self.shards, self.episodes)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        counts = self.episodes, self.steps, self.observation, self.action
        return TrajectorySplit, (self.path, self.name, *counts, self.shards)
