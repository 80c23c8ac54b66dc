"""Scripted controllers play environments well, badly and in between, so that there is data of mixed quality.

Each episode is played with a skill of its own: the controller of a classic control task acts as it knows with that
probability and else at random. At the door of key to door, three kinds of players meet: those who remember the key
(35 %), those who take the last mirage for it (45 %), and those who guess. So the commonest action is the mirage's.

Legend: O numbers of an observation.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32

from pipeline.dataset.trajectories import Episode

Seen = Float32[np.ndarray, " O"]
Player = Callable[[Seen], Any]  # what to do, given what is seen
REMEMBER, MISTAKE = 0.35, 0.45  # shares of the players at the door; the rest guess


def balance(seen: Seen) -> int:
    """CartPole: push the cart to the side to which the pole falls."""
    return int(seen @ np.array([0.1, 0.3, 5.0, 1.0]) > 0)


def rock(seen: Seen) -> int:
    """MountainCar: push in the direction of the movement."""
    return 2 if seen[1] >= 0 else 0


def swing(seen: Seen) -> Float32[np.ndarray, " 1"]:
    """Pendulum: pump energy until it suffices to stand, then hold (Astrom and Furuta 2000)."""
    cosine, sine, speed = (float(number) for number in seen)
    missing = 15 - (speed**2 / 2 + 15 * cosine)
    torque = -(10 * sine + 2 * speed) if cosine > 0.9 else 2 * np.sign((speed or 1.0) * missing)
    return np.array([np.clip(torque, -2, 2)], np.float32)


SCRIPTED: dict[str, Player] = {"CartPole-v1": balance, "MountainCar-v0": rock, "Pendulum-v1": swing}


def unsteady(known: Player, space: Any, chance: np.random.Generator) -> Player:
    """A controller that acts at random as often as its skill of this episode leaves."""
    skill = chance.uniform()
    space.seed(int(chance.integers(2**31)))
    return lambda seen: known(seen) if chance.random() < skill else space.sample()


def at_the_door(keys: int, chance: np.random.Generator) -> Player:
    """A player of key to door."""
    kind, believed = chance.random(), int(chance.integers(keys))

    def act(seen: Seen) -> int:
        nonlocal believed
        is_key, is_door = seen[keys:]
        looks = is_key if kind < REMEMBER else not is_key if kind < REMEMBER + MISTAKE else False
        if looks and seen[:keys].any():
            believed = int(seen[:keys].argmax())
        return 1 + believed if is_door else 0

    return act


def play(name: str, settings: dict[str, Any], count: int, seed: int) -> Iterator[Episode]:
    """So many episodes of an environment, the same ones for the same seed."""
    from pipeline.dataset.environments import KEY_TO_DOOR, make  # Gymnasium: only once there is something to play

    game = make(name, settings)
    for number in range(count):
        chance = np.random.default_rng((seed, number))
        player = (
            at_the_door(settings["keys"], chance)
            if name == KEY_TO_DOOR
            else unsteady(SCRIPTED[name], game.action_space, chance)
        )
        yield _played(f"{name.rsplit('/')[-1]}-{number:06d}", game, player, int(chance.integers(2**31)))


def _played(name: str, game: Any, player: Player, seed: int) -> Episode:
    seen, _ = game.reset(seed=seed)
    steps: list[tuple[Seen, Any, float]] = []
    over = False
    while not over:
        action = player(seen)
        after, reward, terminated, truncated, _ = game.step(action)
        steps.append((seen, action, float(reward)))
        seen, over = after, terminated or truncated
    observations, actions, rewards = (np.array(part) for part in zip(*steps, strict=True))
    return Episode(name, observations.astype(np.float32), actions, rewards.astype(np.float32))
