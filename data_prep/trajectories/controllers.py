"""Scripted controllers that play environments with varying skill, for data of mixed quality.

Each episode has its own skill: the controller of a classic control task acts by its rule with that probability and
at random otherwise. The players of key to door are of three kinds: 35 % remember the key, 45 % mistake the last mirage
for it, and the others guess. So the most frequent action at the door is the one of the mirage.

Legend: O numbers of an observation, A of an action.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from pipeline.dataset.trajectories import Episode

if TYPE_CHECKING:
    import gymnasium

Observation = Float32[np.ndarray, " O"]
Action = int | Float32[np.ndarray, " A"]
Controller = Callable[[Observation], Action]
REMEMBER, MISTAKE = 0.35, 0.45  # fractions of the players at the door; the others guess


def balance(observation: Observation) -> int:
    """CartPole: push the cart to the side to which the pole falls."""
    return int(observation @ np.array([0.1, 0.3, 5.0, 1.0]) > 0)


def rock(observation: Observation) -> int:
    """MountainCar: push in the direction of the movement."""
    return 2 if observation[1] >= 0 else 0


def swing(observation: Observation) -> Float32[np.ndarray, " 1"]:
    """Pendulum: pump energy until it suffices to swing up, then balance (Astrom and Furuta 2000)."""
    cosine, sine, speed = (float(number) for number in observation)
    missing = 15 - (speed**2 / 2 + 15 * cosine)
    torque = -(10 * sine + 2 * speed) if cosine > 0.9 else 2 * np.sign((speed or 1.0) * missing)
    return np.array([np.clip(torque, -2, 2)], np.float32)


SCRIPTED: dict[str, Controller] = {"CartPole-v1": balance, "MountainCar-v0": rock, "Pendulum-v1": swing}


def unsteady(controller: Controller, space: "gymnasium.Space[Any]", rng: np.random.Generator) -> Controller:
    """Return a controller that follows another one with a random probability (its skill), else acts at random."""
    skill = rng.uniform()
    space.seed(int(rng.integers(2**31)))
    return lambda observation: controller(observation) if rng.random() < skill else space.sample()


def at_the_door(keys: int, rng: np.random.Generator) -> Controller:
    """Return a random player of key to door."""
    kind, believed = rng.random(), int(rng.integers(keys))

    def act(observation: Observation) -> int:
        nonlocal believed
        is_key, is_door = observation[keys:]
        looks = is_key if kind < REMEMBER else not is_key if kind < REMEMBER + MISTAKE else False
        if looks and observation[:keys].any():
            believed = int(observation[:keys].argmax())
        return 1 + believed if is_door else 0

    return act


def play(name: str, settings: Mapping[str, Any], count: int, seed: int) -> Iterator[Episode]:
    """Yield `count` episodes of an environment; equal seeds give equal episodes."""
    from pipeline.dataset.environments import KEY_TO_DOOR, make  # imports Gymnasium, so not needed for files

    environment = make(name, settings)
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        controller = (
            at_the_door(settings["keys"], rng)
            if name == KEY_TO_DOOR
            else unsteady(SCRIPTED[name], environment.action_space, rng)
        )
        yield _played(f"{name.rsplit('/')[-1]}-{number:06d}", environment, controller, int(rng.integers(2**31)))


def _played(name: str, environment: "gymnasium.Env[Any, Any]", controller: Controller, seed: int) -> Episode:
    observation, _ = environment.reset(seed=seed)
    steps: list[tuple[Observation, Action, float]] = []
    over = False
    while not over:
        action = controller(observation)
        after, reward, terminated, truncated, _ = environment.step(action)
        steps.append((observation, action, float(reward)))
        observation, over = after, terminated or truncated
    observations, actions, rewards = (np.array(part) for part in zip(*steps, strict=True))
    return Episode(name, observations.astype(np.float32), actions, rewards.astype(np.float32))
