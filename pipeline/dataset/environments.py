"""Environments are made by name and settings, as the dataset keeps them; one of ours asks for memory: key to door.

Hung et al. (2019), "Optimizing agent behavior over long time scales by transporting value", has the task as a
picture; here it is reduced to what has to be remembered. A key of one of K colours lies at the start. A corridor of
D steps follows, and at some of them a mirage of some key is seen. At the door the action names a colour: the reward
is 1 if it is that of the key, else 0, and the episode ends.

    observation  colour seen (K numbers, one of them 1, or none), whether it is the key, whether this is the door
    action       0 walks on, 1 .. K holds up the key of that colour, which only counts at the door

Legend: K keys, D steps of the corridor, O numbers of an observation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float32

from pipeline.errors import ConfigError

KEY_TO_DOOR = "unroll/KeyToDoor-v0"
MIRAGE = 0.25  # how likely a step of the corridor shows one


class KeyToDoor(gymnasium.Env[np.ndarray, int]):
    """See above; an episode has `delay` + 2 steps.

    Args:
        keys: K colours.
        delay: fewest and most steps of the corridor, between which each episode draws its own.
    """

    def __init__(self, keys: int = 4, delay: Sequence[int] = (2, 30)) -> None:
        self.keys, self.delay = keys, delay
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (keys + 2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(keys + 1)  # type: ignore[assignment]
        self.key = self.left = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Float32[np.ndarray, " O"], Any]:
        """Draw a key and the length of the corridor."""
        super().reset(seed=seed)
        self.key = int(self.np_random.integers(self.keys))
        self.left = int(self.np_random.integers(self.delay[0], self.delay[1], endpoint=True)) + 1
        return self._seen(self.key, is_key=True), {}

    def step(self, action: int) -> tuple[Float32[np.ndarray, " O"], float, bool, bool, Any]:
        """Walk on; at the door, open it."""
        if self.left == 0:
            return self._seen(None), float(action == 1 + self.key), True, False, {}
        self.left -= 1
        mirage = int(self.np_random.integers(self.keys)) if self.np_random.random() < MIRAGE else None
        return self._seen(mirage if self.left else None), 0.0, False, False, {}

    def _seen(self, colour: int | None, is_key: bool = False) -> Float32[np.ndarray, " O"]:
        seen = np.zeros(self.keys + 2, np.float32)
        if colour is not None:
            seen[colour] = 1.0
        seen[self.keys :] = is_key, self.left == 0
        return seen


gymnasium.register(KEY_TO_DOOR, entry_point="pipeline.dataset.environments:KeyToDoor")


def make(name: str, settings: Mapping[str, Any]) -> Any:
    """The environment of that name.

    Args:
        name: as Gymnasium has it registered, `CartPole-v1` for example.
        settings: what its constructor is given.

    Raises:
        ConfigError: there is none of that name, it does not take these settings, or it lacks a package.
    """
    try:
        return gymnasium.make(name, disable_env_checker=True, **settings)
    except (gymnasium.error.Error, TypeError, ImportError) as error:
        said = str(error).splitlines()[0]
        raise ConfigError(f"the environment {name} cannot be made: {said}") from error
