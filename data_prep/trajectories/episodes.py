"""Episodes are read from files, one after the other, and what makes one unfit to learn from is said in a few words.

    .jsonl, .parquet   an episode a row: observations, actions, rewards, each a list with an entry for each step;
                       and where they are known terminated and truncated, of which one is true at an episode's end:
                       one of each, or a list with an entry for each step
    .npz               arrays over the steps of all episodes, one after the other (the layout of D4RL): observations,
                       actions, rewards, terminals, and where there are some timeouts; an end mark ends an episode

Legend: O numbers of an observation, A of an action, L steps.
"""

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from pipeline.dataset.trajectories import Episode
from pipeline.errors import ConfigError, DataError

FIELDS = ("observations", "actions", "rewards")
MARKS = ("terminated", "truncated")
Raw = tuple[str, Mapping[str, Any] | None]  # what an episode is called and its fields; None: it cannot be read


class Unfit(Exception):
    """Why an episode cannot be learned from."""


def read(path: Path) -> Iterator[Raw]:
    """The episodes of a file.

    Raises:
        DataError: it is missing, damaged as a whole, or of no known format.
    """
    if path.suffix not in FORMATS:
        raise DataError(f"{path}: {path.suffix!r} is no known ending; readable are {', '.join(FORMATS)}")
    try:
        yield from FORMATS[path.suffix](path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (pa.ArrowInvalid, zipfile.BadZipFile, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path} is damaged or no {path.suffix} file: {error}") from error


def of_lines(path: Path) -> Iterator[Raw]:
    """A JSON object a line."""
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
    """A row of a Parquet table."""
    from pyarrow import parquet

    number = 0
    for batch in parquet.ParquetFile(path).iter_batches(1024):
        for row in batch.to_pylist():
            number += 1
            yield f"{path.name}:{number}", row


def of_arrays(path: Path) -> Iterator[Raw]:
    """Arrays cut at their end marks; steps after the last of them are an episode that ends early."""
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        raise DataError(f"{path} is one array (.npy), not several: save them with numpy.savez")
    with loaded as arrays:
        if missing := [name for name in (*FIELDS, "terminals") if name not in arrays]:
            raise DataError(f"{path} lacks the array {missing[0]}; it holds {', '.join(arrays)}")
        fields = {name: arrays[name] for name in FIELDS}
        ends = arrays["terminals"].astype(bool)
        if "timeouts" in arrays:
            ends = ends | arrays["timeouts"].astype(bool)
    if single := [name for name, values in {**fields, "terminals": ends}.items() if not values.ndim]:
        raise DataError(f"{path} has {single[0]} that are one number: an array over the steps is wanted")
    lengths = {name: len(values) for name, values in fields.items()} | {"terminals": len(ends)}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{path} has arrays of different lengths ({_said(lengths)}): it cannot be cut into episodes")
    first = 0
    for last in [*np.flatnonzero(ends).tolist(), len(ends) - 1]:
        if first <= last:
            part = {name: values[first : last + 1] for name, values in fields.items()}
            yield f"{path.name}: steps {first} to {last}", {**part, "terminated": bool(ends[last])}
        first = last + 1


FORMATS: dict[str, Callable[[Path], Iterator[Raw]]] = {".jsonl": of_lines, ".parquet": of_rows, ".npz": of_arrays}


def episode(name: str, fields: Mapping[str, Any] | None) -> Episode | None:
    """The episode that these fields are, None where it has no steps.

    Raises:
        Unfit: they are none to learn from.
    """
    if fields is None:
        raise Unfit("no JSON object")
    if missing := [field for field in FIELDS if fields.get(field) is None]:
        raise Unfit(f"without {missing[0]}")
    observations, actions, rewards = (_numbers(field, fields[field]) for field in FIELDS)
    lengths = {field: len(part) for field, part in zip(FIELDS, (observations, actions, rewards), strict=True)}
    if len(set(lengths.values())) > 1:
        raise Unfit(f"fields of different lengths ({_said(lengths)})")
    if not len(rewards):
        return None
    marks = [mark for field in MARKS if (mark := fields.get(field)) is not None]
    if marks and not any(any(mark[-1:]) if isinstance(mark, list) else mark for mark in marks):
        raise Unfit("ends early: its last step is neither terminated nor truncated")
    for field, part in zip(FIELDS, (observations, actions, rewards), strict=True):
        if not np.isfinite(part).all():
            raise Unfit(f"NaN or infinite {field}")
    if rewards.ndim > 1:
        raise Unfit("rewards that are no single numbers")
    observations = observations.reshape(len(rewards), -1).astype(np.float32)
    return Episode(str(fields.get("name") or name), observations, actions, rewards.astype(np.float32))


def _numbers(field: str, values: Any) -> Any:
    try:
        found = np.array(values)
    except ValueError as error:
        raise Unfit(f"{field} of different sizes") from error
    if not (np.issubdtype(found.dtype, np.number) or found.dtype == bool) or not found.ndim:
        raise Unfit(f"{field} that are no numbers")
    return found


def _said(lengths: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in lengths.items())


@dataclass(frozen=True)
class Bounds:
    """What an action may be: one of several choices, or numbers in a range; what is None is learned from the data.

    Args:
        choices: how many there are.
        low: of each of an action's numbers the least, or one for all of them.
        high: the largest.
    """

    choices: int | None = None
    low: Float64[np.ndarray, "*A"] | None = None
    high: Float64[np.ndarray, "*A"] | None = None

    @classmethod
    def of_space(cls, space: Any) -> "Bounds":
        """What an environment takes.

        Raises:
            ConfigError: neither choices from 0 up nor a row of numbers.
        """
        from gymnasium import spaces

        if isinstance(space, spaces.Discrete) and not space.start:
            return cls(choices=int(space.n))
        if isinstance(space, spaces.Box) and len(space.shape) == 1 and space.is_bounded():
            return cls(low=space.low.astype(np.float64), high=space.high.astype(np.float64))
        raise ConfigError(
            f"actions of the kind {space} cannot be learned: only choices from 0 up, or numbers in a range"
        )

    def fitted(self, one: Episode, first: Episode) -> Episode:
        """The episode with its actions as the dataset holds them.

        Args:
            one: the episode.
            first: the one that the others must be like.

        Raises:
            Unfit: observations of another size, actions of another kind or size or outside the range.
        """
        if (size := one.observations.shape[1]) != (wanted := first.observations.shape[1]):
            raise Unfit(f"observations of {size} numbers, not {wanted}")
        discrete = self.low is None and (self.choices is not None or is_choice(first.actions))
        if discrete != is_choice(one.actions) and self.low is None:
            raise Unfit("actions of another kind than those of the first episode")
        actions = one.actions if discrete else one.actions.reshape(len(one.rewards), -1).astype(np.float32)
        low = np.zeros(()) if discrete else self.low
        high = np.array((self.choices or np.inf) - 1) if discrete else self.high
        wanted = first.actions[0].size if low is None or not low.ndim else len(low)
        if not discrete and actions.shape[1] != wanted:
            raise Unfit(f"actions of {actions.shape[1]} numbers, not {wanted}")
        if low is not None and high is not None and ((actions < low).any() or (actions > high).any()):
            raise Unfit("actions outside the range")
        kept = actions.astype(np.int64) if discrete else actions
        return Episode(one.name, one.observations, kept, one.rewards)


def is_choice(actions: Any) -> bool:
    """Whether actions are whole numbers, one a step."""
    return bool(actions.ndim == 1 and not np.issubdtype(actions.dtype, np.floating))
