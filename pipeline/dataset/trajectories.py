"""Trajectories on disk: a row holds an episode whole, what was seen, done and rewarded at each of its steps.

Chen et al. (2021), "Decision Transformer": the return-to-go of step t is the sum of the rewards from t to the end
of the episode. It is computed once, when an episode is written.

Legend: N episodes, L steps of an episode, S steps of all episodes, O numbers of an observation, A of an action.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64, Shaped

from pipeline.dataset.shard import Shard, all_batches, edges, flat, write_rows

Actions = Shaped[np.ndarray, "L *A"]  # Int64[np.ndarray, " L"] of choices, or Float32[np.ndarray, "L A"]


@dataclass(frozen=True)
class Episode:
    """One episode, ready to be written.

    Args:
        name: what it is called.
        observations: before each action.
        actions: the number of a choice, or several numbers.
        rewards: after each action.
    """

    name: str
    observations: Float32[np.ndarray, "L O"]
    actions: Actions
    rewards: Float32[np.ndarray, " L"]


def returns_to_go(rewards: Float32[np.ndarray, " L"]) -> Float32[np.ndarray, " L"]:
    """The sum of the rewards from each step to the last."""
    summed: Float32[np.ndarray, " L"] = np.cumsum(rewards[::-1], dtype=np.float64)[::-1].astype(np.float32)
    return summed


def no_action(numbers: int) -> Shaped[np.ndarray, "*A"]:
    """Return what stands for the action before the first: -1 among choices, NaN for each number.

    Args:
        numbers: A, numbers of an action; 0 where it is one of several choices.
    """
    return np.full(numbers, np.nan, np.float32) if numbers else np.array(-1)


def write_episodes(path: Path, episodes: Sequence[Episode]) -> Shard:
    """Write a shard of episodes and describe it."""
    action = pa.int64() if episodes[0].actions.ndim == 1 else pa.float32()
    columns = {"observations": pa.float32(), "actions": action, "rewards": pa.float32(), "returns": pa.float32()}
    schema = pa.schema({"name": pa.string(), **{name: pa.list_(kind) for name, kind in columns.items()}})
    return write_rows(path, schema, ((_row(one), len(one.rewards)) for one in episodes))


def _row(one: Episode) -> tuple[Any, ...]:
    return one.name, one.observations.reshape(-1), one.actions.reshape(-1), one.rewards, returns_to_go(one.rewards)


@dataclass(frozen=True)
class TrajectorySplit:
    """One split of a dataset of trajectories; pickled by its path, so that loader workers open it anew."""

    path: Path
    """The directory of the dataset."""
    name: str
    episodes: int
    steps: int
    """Of all episodes."""
    observation: int
    """Numbers of an observation."""
    action: int
    """Numbers of an action; 0 where it is one of several choices."""
    shards: tuple[Shard, ...] = field(repr=False)

    @classmethod
    def of(cls, path: Path, name: str, entry: Mapping[str, Any]) -> "TrajectorySplit":
        """The split as the manifest describes it."""
        counts = entry["episodes"], entry["steps"], entry["observation"], entry["action"]
        return cls(path, name, *counts, tuple(Shard(**shard) for shard in entry["shards"]))

    @cached_property
    def first_steps(self) -> Int64[np.ndarray, " _"]:
        """Where each episode begins among the steps of all, and after the last one their number."""
        return edges(self._batches, "rewards", self.path)

    @cached_property
    def observations(self) -> Float32[np.ndarray, "S O"]:
        """What was seen before each step."""
        found: Float32[np.ndarray, "S O"] = self._of_steps("observations").reshape(-1, self.observation)
        return found

    @cached_property
    def actions(self) -> Shaped[np.ndarray, "S *A"]:
        """What was done at each step."""
        found: np.ndarray = self._of_steps("actions")
        return found.reshape(-1, self.action) if self.action else found

    @cached_property
    def returns(self) -> Float32[np.ndarray, " S"]:
        """The return-to-go of each step."""
        found: Float32[np.ndarray, " S"] = self._of_steps("returns")
        return found

    def _of_steps(self, name: str) -> Any:
        return flat(self._batches, name, self.path)

    @cached_property
    def _batches(self) -> list[Any]:
        return all_batches(self.path, self.shards, self.episodes)

    def __reduce__(self) -> tuple[Any, ...]:
        counts = self.episodes, self.steps, self.observation, self.action
        return TrajectorySplit, (self.path, self.name, *counts, self.shards)
