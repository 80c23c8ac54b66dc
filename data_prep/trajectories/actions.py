"""Actions of a dataset: choices among N, or numbers in a range.

Whole numbers from 0, one per step, are choices; so are whole numbers written with a decimal point, unless most episodes
have other numbers. The kind of most episodes is that of the dataset.

Legend: A numbers of an action, L steps.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Shaped

from data_prep.trajectories.episodes import InvalidEpisode
from pipeline.dataset.trajectories import Episode, is_constant
from pipeline.errors import ConfigError, DataError

if TYPE_CHECKING:
    import gymnasium

HIGHEST = 2**31  # of a choice


@dataclass(frozen=True)
class Bounds:
    """The action space: a number of choices, or a range of numbers; values that are None are read from the data.

    Args:
        choices: number of discrete actions.
        low: minimum of each number of an action, or one minimum for all.
        high: maximum of each number of an action, or one maximum for all.
    """

    choices: int | None = None
    low: Float64[np.ndarray, "*A"] | None = None
    high: Float64[np.ndarray, "*A"] | None = None

    @classmethod
    def of_space(cls, space: "gymnasium.Space[Any]") -> "Bounds":
        """Return the bounds of an environment's action space.

        Raises:
            ConfigError: it is neither discrete from 0 nor a bounded vector.
        """
        from gymnasium import spaces

        if isinstance(space, spaces.Discrete) and not space.start:
            return cls(choices=int(space.n))
        if isinstance(space, spaces.Box) and len(space.shape) == 1 and space.is_bounded():
            return cls(low=space.low.astype(np.float64), high=space.high.astype(np.float64))
        raise ConfigError(
            f"action space {space} is not supported: expected Discrete from 0, or a bounded Box with one axis. "
            "Choose another environment"
        )

    def are_choices(self, episodes: Sequence[Episode]) -> bool:
        """Return whether the actions are choices: by the bounds, else by most episodes."""
        if self.choices or self.low is not None:
            return bool(self.choices)
        return 2 * sum(_are_whole(one.actions) for one in episodes) > len(episodes)

    def as_choices(self, actions: Shaped[np.ndarray, "L *_"]) -> Shaped[np.ndarray, " L"]:
        """Return the actions of an episode as indices.

        Raises:
            InvalidEpisode: they are not whole numbers, one per step, or out of range.
        """
        if not _are_integers(actions) and (actions.size != len(actions) or (actions != np.floor(actions)).any()):
            raise InvalidEpisode("actions of another kind", "numbers, expected choices")
        if actions.min() < 0 or actions.max() >= (self.choices or HIGHEST):
            raise InvalidEpisode("actions out of range", f"choices from {actions.min():g} to {actions.max():g}")
        return actions.reshape(-1).astype(np.int64)

    def as_numbers(self, actions: Shaped[np.ndarray, "L *_"], size: int) -> Shaped[np.ndarray, "L A"]:
        """Return the actions of an episode as numbers.

        Raises:
            InvalidEpisode: they are choices, of another size than expected, or out of range.
        """
        if self.low is None and size == 1 and _are_integers(actions):
            raise InvalidEpisode("actions of another kind", "choices, expected numbers")
        actions = actions.reshape(len(actions), -1).astype(np.float32)
        if actions.shape[1] != size:
            raise InvalidEpisode("actions of another size", f"{actions.shape[1]} numbers, expected {size}")
        if self.low is not None and ((actions < self.low).any() or (actions > self.high).any()):
            raise InvalidEpisode("actions out of range", f"numbers from {actions.min():g} to {actions.max():g}")
        return actions

    def size(self, episodes: Sequence[Episode]) -> int:
        """Return A: by the bounds, else that of most episodes."""
        if self.low is not None and self.low.ndim:
            return len(self.low)
        sizes = Counter(one.actions.size // len(one.actions) for one in episodes)
        return sizes.most_common(1)[0][0]

    def spaces(self, episodes: Sequence[Episode]) -> dict[str, Any]:
        """Return the manifest's entries of the action space of fitted episodes.

        Raises:
            DataError: whole numbers are too large for the number of steps to be choices.
        """
        actions = np.concatenate([one.actions for one in episodes])
        if actions.ndim == 1:
            choices = self.choices or int(actions.max()) + 1
            if choices > max(len(actions), self.choices or 0):
                raise DataError(
                    f"actions: expected choices from 0, got whole numbers up to {choices - 1:,} in {len(actions):,} "
                    "steps. Give --choices N, or --action-range LOW HIGH if they are quantities"
                )
            return {"choices": choices, "low": [], "high": []}
        ends = (actions.min(0), actions.max(0)) if self.low is None else (self.low, self.high)
        low, high = (np.broadcast_to(np.array(end, np.float64), actions.shape[1]) for end in ends)
        high = np.where(is_constant(low, high, np.dtype(np.float32)), low + 1e-3 * np.maximum(1, np.abs(low)), high)
        return {"choices": 0, "low": low.tolist(), "high": high.tolist()}


def described(spaces: dict[str, Any], episodes: Sequence[Episode]) -> str:
    """Return one line on the kind of the actions, and how many there are."""
    if not spaces["choices"]:
        return f"{numbers(len(spaces['low']))} from {min(spaces['low']):g} to {max(spaces['high']):g}"
    taken = len(np.unique(np.concatenate([one.actions for one in episodes])))
    return f"{spaces['choices']:,} choices" + (f", of which {taken:,} occur" if taken < spaces["choices"] else "")


def numbers(count: int) -> str:
    """Return `1 number` or `2 numbers`."""
    return f"{count} number{'s' if count > 1 else ''}"


def _are_integers(actions: np.ndarray) -> bool:
    return actions.size == len(actions) and actions.dtype.kind in "iub"


def _are_whole(actions: np.ndarray) -> bool:
    """Return whether the actions of an episode may be choices: one whole number per step."""
    if actions.size != len(actions) or _are_integers(actions):
        return actions.size == len(actions)
    return bool(((actions >= 0) & (actions < HIGHEST) & (actions == np.floor(actions))).all())
