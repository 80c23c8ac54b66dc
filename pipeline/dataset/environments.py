"""Environments created from a name and settings, and one that requires memory: key to door.

Hung et al. (2019), "Optimizing agent behavior over long time scales by transporting value", define the task on images;
this version keeps only its memory requirement. The first observation is a key of one of K colours. A corridor of D
steps follows, in which distractor keys appear at random. At the door the action selects a colour: the reward is 1 if it
is that of the key, else 0, and the episode ends.

    observation  visible colour (one-hot of K, or zeros), whether it is the key, whether this is the door
    action       0 walks on, 1 .. K selects the key of that colour, which has an effect only at the door

Legend: K keys, D steps of the corridor, O numbers of an observation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float32

from pipeline.errors import ConfigError

KEY_TO_DOOR = "unroll/KeyToDoor-v0"
MIRAGE = 0.25  # probability of a distractor key per step of the corridor


class KeyToDoor(gymnasium.Env[np.ndarray, int]):
    """The key-to-door task; an episode has D + 2 steps.

    Args:
        keys: number K of colours.
        delay: minimum and maximum of D, the steps of the corridor, which is drawn per episode.
    """

    def __init__(self, keys: int = 4, delay: Sequence[int] = (2, 30)) -> None:
        self.keys, self.delay = keys, delay
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (keys + 2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(keys + 1)  # type: ignore[assignment]
        self.key = self.left = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[Float32[np.ndarray, " O"], dict[str, object]]:
        """Draw a key and the length of the corridor."""
        super().reset(seed=seed)
        self.key = int(self.np_random.integers(self.keys))
        self.left = int(self.np_random.integers(self.delay[0], self.delay[1], endpoint=True)) + 1
        return self._seen(self.key, is_key=True), {}

    def step(self, action: int) -> tuple[Float32[np.ndarray, " O"], float, bool, bool, dict[str, object]]:
        """Walk one step; at the door, use the selected key and end the episode."""
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
    """Create an environment.

    Args:
        name: name in Gymnasium's registry, such as `CartPole-v1`.
        settings: arguments of its constructor.

    Raises:
        ConfigError: the name is not registered, the settings are not accepted, or a package is missing.
    """
    try:
        return gymnasium.make(name, disable_env_checker=True, **settings)
    except (gymnasium.error.Error, TypeError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"environment {name} cannot be created: {reason}. Check its name and settings.") from error
