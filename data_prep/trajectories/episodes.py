"""Reader of files of episodes, with a reason for each invalid episode.

    .jsonl, .parquet   one episode per row: observations, actions and rewards, each a list with an entry per step;
                       optionally terminated and truncated, of which one is true at the end of the episode: one value
                       per episode, or a list with an entry per step
    .npz               arrays over the steps of all episodes in sequence (the layout of D4RL): observations, actions,
                       rewards, terminals and optionally timeouts; a terminal or timeout ends an episode

Legend: O numbers of an observation, A of an action, L steps.
"""

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from pipeline.dataset.trajectories import Episode
from pipeline.errors import ConfigError, DataError

if TYPE_CHECKING:
    import gymnasium

FIELDS = ("observations", "actions", "rewards")
MARKS = ("terminated", "truncated")
Raw = tuple[str, Mapping[str, object] | None]  # name and fields of an episode; None if it is not a JSON object


class InvalidEpisode(Exception):
    """An episode that cannot be used for training; the message is the reason."""


def read(path: Path) -> Iterator[Raw]:
    """Yield the episodes of a file.

    Raises:
        DataError: the file is missing, damaged or of an unknown format.
    """
    if path.suffix not in FORMATS:
        raise DataError(f"{path}: unknown file extension {path.suffix!r}. Supported are {', '.join(FORMATS)}")
    try:
        yield from FORMATS[path.suffix](path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (pa.ArrowInvalid, zipfile.BadZipFile, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path} is damaged or not a {path.suffix} file ({error}). Write or copy it again") from error


def of_lines(path: Path) -> Iterator[Raw]:
    """Yield the JSON object of each line."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except ValueError:
                found = None
            yield f"{path.name}:{number}", found if isinstance(found, dict) else None


def of_rows(path: Path) -> Iterator[Raw]:
    """Yield the rows of a Parquet table."""
    from pyarrow import parquet

    number = 0
    for batch in parquet.ParquetFile(path).iter_batches(1024):
        for row in batch.to_pylist():
            number += 1
            yield f"{path.name}:{number}", row


def of_arrays(path: Path) -> Iterator[Raw]:
    """Divide arrays into episodes at terminals and timeouts; steps after the last one are an incomplete episode."""
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        raise DataError(f"{path}: expected several named arrays, got one array (.npy). Save them with numpy.savez")
    with loaded as arrays:
        if missing := [name for name in (*FIELDS, "terminals") if name not in arrays]:
            raise DataError(f"{path} has no array {missing[0]}, only {', '.join(arrays)}. Add it with numpy.savez")
        fields = {name: arrays[name] for name in FIELDS}
        ends = arrays["terminals"].astype(bool)
        if "timeouts" in arrays:
            ends = ends | arrays["timeouts"].astype(bool)
    if single := [name for name, values in {**fields, "terminals": ends}.items() if not values.ndim]:
        raise DataError(f"{path}: {single[0]} must be an array over the steps, got a single number")
    lengths = {name: len(values) for name, values in fields.items()} | {"terminals": len(ends)}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{path} has arrays of different lengths ({_listed(lengths)}). All need one entry per step")
    first = 0
    for last in [*np.flatnonzero(ends).tolist(), len(ends) - 1]:
        if first <= last:
            part = {name: values[first : last + 1] for name, values in fields.items()}
            yield f"{path.name}: steps {first} to {last}", {**part, "terminated": bool(ends[last])}
        first = last + 1


FORMATS: dict[str, Callable[[Path], Iterator[Raw]]] = {".jsonl": of_lines, ".parquet": of_rows, ".npz": of_arrays}


def episode(name: str, fields: Mapping[str, object] | None) -> Episode | None:
    """Convert the fields of an episode; return None if it has no steps.

    Raises:
        InvalidEpisode: the fields are missing, inconsistent or not finite.
    """
    if fields is None:
        raise InvalidEpisode("not a JSON object")
    if missing := [field for field in FIELDS if fields.get(field) is None]:
        raise InvalidEpisode(f"no {missing[0]}")
    observations, actions, rewards = (_numbers(field, fields[field]) for field in FIELDS)
    lengths = {field: len(part) for field, part in zip(FIELDS, (observations, actions, rewards), strict=True)}
    if len(set(lengths.values())) > 1:
        raise InvalidEpisode(f"fields of different lengths ({_listed(lengths)})")
    if not len(rewards):
        return None
    marks = [mark for field in MARKS if (mark := fields.get(field)) is not None]
    if marks and not any(any(mark[-1:]) if isinstance(mark, list) else mark for mark in marks):
        raise InvalidEpisode("incomplete: the last step is neither terminated nor truncated")
    for field, part in zip(FIELDS, (observations, actions, rewards), strict=True):
        if not np.isfinite(part).all():
            raise InvalidEpisode(f"NaN or infinite {field}")
    if rewards.ndim > 1:
        raise InvalidEpisode("rewards with more than one number per step")
    observations = observations.reshape(len(rewards), -1).astype(np.float32)
    return Episode(str(fields.get("name") or name), observations, actions, rewards.astype(np.float32))


def _numbers(field: str, values: object) -> np.ndarray:
    try:
        found = np.array(values)
    except ValueError as error:
        raise InvalidEpisode(f"{field} of different sizes") from error
    if not (np.issubdtype(found.dtype, np.number) or found.dtype == bool) or not found.ndim:
        raise InvalidEpisode(f"{field} are not numbers")
    return found


def _listed(lengths: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in lengths.items())


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

    def fitted(self, one: Episode, first: Episode) -> Episode:
        """Return the episode with its actions in the form of the dataset.

        Args:
            one: the episode.
            first: the first episode, whose sizes and kind of action the others must have.

        Raises:
            InvalidEpisode: observations or actions have another size or kind, or actions are out of range.
        """
        if (size := one.observations.shape[1]) != (expected := first.observations.shape[1]):
            raise InvalidEpisode(f"observations of {size} numbers, expected {expected}")
        discrete = self.low is None and (self.choices is not None or is_choice(first.actions))
        if discrete != is_choice(one.actions) and self.low is None:
            raise InvalidEpisode("actions of another kind than in the first episode")
        actions = one.actions if discrete else one.actions.reshape(len(one.rewards), -1).astype(np.float32)
        low = np.zeros(()) if discrete else self.low
        high = np.array((self.choices or np.inf) - 1) if discrete else self.high
        expected = first.actions[0].size if low is None or not low.ndim else len(low)
        if not discrete and actions.shape[1] != expected:
            raise InvalidEpisode(f"actions of {actions.shape[1]} numbers, expected {expected}")
        if low is not None and high is not None and ((actions < low).any() or (actions > high).any()):
            raise InvalidEpisode("actions out of range")
        kept = actions.astype(np.int64) if discrete else actions
        return Episode(one.name, one.observations, kept, one.rewards)


def is_choice(actions: np.ndarray) -> bool:
    """Return whether actions are discrete: one integer per step."""
    return bool(actions.ndim == 1 and not np.issubdtype(actions.dtype, np.floating))
