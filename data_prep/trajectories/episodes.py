"""Conversion of records to episodes, with a reason for each record that cannot be one.

A record is cut where its flags, such as `terminated`, state the end of an episode. Steps after the last end are an
incomplete episode. A record without flags is one complete episode.

Legend: O numbers of an observation, A of an action, L steps.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Shaped

from data_prep.trajectories.files import ENDS, FIELDS
from data_prep.workspace.report import Report
from pipeline.dataset.trajectories import Episode, returns_to_go

MARKS = ("is_first", "is_last", "is_terminal", "episode_starts")  # of steps as in RLDS, whose last has no action
STEPS = ("total_steps", "total_timesteps", "episode_length")
RETURNS = ("total_return", "episode_return")
TOLERANCE = 1e-3  # of a stated return, relative to the sum of the absolute rewards
DEEPEST = 32  # axes of an array
TYPES = {"i": {int}, "f": {float}, "b": {bool}}  # of the entries of lists that are an array as they are
LARGEST = float(np.finfo(np.float32).max)
Part = Shaped[np.ndarray, "L *_"]


class InvalidEpisode(Exception):
    """An episode that cannot be used for training.

    Args:
        reason: the kind of the error, without data of the episode.
        detail: what was found.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def episodes(name: str, fields: Mapping[str, object], report: Report) -> Iterator[Episode]:
    """Yield the episodes of a record; count and name what is invalid in the report."""
    try:
        name, parts, ends, cut = _checked(name, _of_steps(fields) if "steps" in fields else fields)
    except InvalidEpisode as why:
        report.reject(name, why.reason, why.detail)
        return
    steps = len(ends)
    if not steps:
        report.empty += 1
    edges = [0, *(np.flatnonzero(ends) + 1).tolist()]
    for first, after in pairwise(edges if edges[-1] == steps else [*edges, steps]):
        whole = after - first == steps
        called = name if whole else f"{name}: steps {first} to {after - 1}"
        if not whole and cut:
            report.note(called, "one of several episodes of a record")
        try:
            yield _episode(called, [part[first:after] for part in parts], bool(ends[after - 1]))
        except InvalidEpisode as why:
            report.reject(called, why.reason, why.detail)


def _of_steps(fields: Mapping[str, object]) -> dict[str, object]:
    """Return the fields of an episode in the layout of RLDS: the last step has an observation alone."""
    steps = fields["steps"]
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise InvalidEpisode("steps that are not a list of objects")
    inside = [any(step.get(mark) for step in steps[:-1]) for mark in ("is_last", "is_terminal")]
    if any(inside) or any(step.get("is_first") for step in steps[1:]):
        raise InvalidEpisode("a first or last step inside the steps")
    over = bool(steps and steps[-1].get("is_last"))
    taken = steps[:-1] if over else steps
    return {
        **{field: value for field, value in fields.items() if field != "steps"},
        "observations": [step.get("observation") for step in steps],
        "actions": [step.get("action") for step in taken],
        "rewards": [step.get("reward") for step in taken],
        "terminated": over if any("is_last" in step for step in steps) else None,
    }


def _checked(name: str, fields: Mapping[str, object]) -> tuple[str, list[Part], Bool[np.ndarray, " L"], bool]:
    """Return name, arrays and ends of a record, and whether it was one row of a table.

    Raises:
        InvalidEpisode: fields are missing, are not numbers, or contradict each other.
    """
    if missing := [field for field in FIELDS if fields.get(field) is None]:
        raise InvalidEpisode(f"no {missing[0]}")
    if marks := [field for field in MARKS if fields.get(field) is not None]:
        raise InvalidEpisode(f"{marks[0]} outside of steps", "expected terminated, truncated or dones")
    parts = [_numbers(field, fields[field]) for field in FIELDS]
    steps = len(parts[1])
    if len(parts[0]) == steps + 1:
        parts[0] = parts[0][:-1]  # the observation after the last action
    flags = {field: _flags(field, fields[field]) for field in ENDS if fields.get(field) is not None}
    per_step = {field: flag for field, flag in flags.items() if len(flag) != 1}
    lengths = {field: len(part) for field, part in [*zip(FIELDS, parts, strict=True), *per_step.items()]}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{count} {field}" for field, count in lengths.items())
        raise InvalidEpisode("fields of different lengths", listed)
    if parts[2].size != steps:
        raise InvalidEpisode("rewards with more than one number per step")
    parts[2] = parts[2].reshape(steps)
    _compare(fields, parts[2])
    ends = np.zeros(steps, bool)
    for flag in per_step.values():
        ends |= flag
    if steps:
        ends[-1] |= not flags or any(flag.all() for field, flag in flags.items() if field not in per_step)
    return _name(name, fields), parts, ends, not isinstance(fields["rewards"], np.ndarray)


def _numbers(field: str, values: object) -> Part:
    """Return nested lists as an array.

    Raises:
        InvalidEpisode: they are ragged, or contain anything but numbers; for actions and flags, or true and false.
    """
    found = values if isinstance(values, np.ndarray) else _array(field, values)
    kinds = "iuf" if field in ("observations", "rewards") else "iufb"
    if not found.ndim or (found.size and found.dtype.kind not in kinds):
        raise InvalidEpisode(f"{field} are not numbers", f"{found.dtype}" if found.ndim else "a single value")
    return found


def _array(field: str, values: object) -> Part:
    if not isinstance(values, list):
        raise InvalidEpisode(f"{field} are not numbers", f"{type(values).__name__} instead of a list")
    return found if (found := _of_one_type(values)) is not None else _of_mixed_types(field, values)


def _of_one_type(values: list[Any]) -> Part | None:
    """Return nested lists of whole numbers only, of decimal numbers only or of truth values only; else None."""
    try:
        found = np.array(values)
    except ValueError:
        return None
    entries: Iterable[Any] = values
    for _ in range(found.ndim - 1):
        entries = chain.from_iterable(entries)
    kind = found.dtype.kind
    alike = kind in TYPES and found.ndim <= DEEPEST and set(map(type, entries)) == TYPES[kind]
    return found if alike else None


def _of_mixed_types(field: str, values: list[Any]) -> Part:
    """Return nested lists as an array, or the reason why they are not one."""
    try:
        array = pa.array(values)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidEpisode(f"{field} are not numbers", str(error)) from error
    shape, entries = [len(array)], iter(values)
    while pa.types.is_list(array.type) and len(shape) < DEEPEST:
        sizes = np.diff(array.offsets.to_numpy())
        if array.null_count or (len(sizes) and (sizes != sizes[0]).any()):
            raise InvalidEpisode(f"{field} of different sizes")
        shape.append(int(sizes[0]) if len(sizes) else 0)
        array, entries = array.flatten(), chain.from_iterable(entries)
    if array.null_count:
        raise InvalidEpisode(f"null in {field}")
    if not (pa.types.is_null(array.type) or pa.types.is_primitive(array.type)):
        raise InvalidEpisode(f"{field} are not numbers", f"{array.type}"[:40])
    if not pa.types.is_boolean(array.type) and bool in set(map(type, entries)):  # Arrow reads true as 1.0.
        raise InvalidEpisode(f"{field} are not numbers", "true or false among numbers")
    kind = np.float64 if pa.types.is_null(array.type) else None
    return np.asarray(array.to_numpy(zero_copy_only=False), kind).reshape(shape)


def _flags(field: str, values: object) -> Bool[np.ndarray, " _"]:
    """Return the flags of a field: one per step, or a single one for the record."""
    flag = _numbers(field, values if isinstance(values, list | np.ndarray) else [values])
    if flag.size != len(flag) or not np.isin(flag, (0, 1)).all():
        raise InvalidEpisode(f"{field} other than true and false")
    return flag.reshape(-1).astype(bool)


def _compare(fields: Mapping[str, object], rewards: Part) -> None:
    """Compare the facts that a record states about itself with those found."""
    for field in (*STEPS, *RETURNS):
        if fields.get(field) is None:
            continue
        stated = float(_numbers(field, [fields[field]]).flat[0])
        found = float(rewards.sum(dtype=np.float64)) if field in RETURNS else len(rewards)
        scale = float(np.abs(rewards).sum(dtype=np.float64)) if field in RETURNS else 0.0
        if not abs(stated - found) <= TOLERANCE * scale:
            raise InvalidEpisode(f"{field} other than found in the steps", f"{stated:g} stated, {found:g} found")


def _name(name: str, fields: Mapping[str, object]) -> str:
    """Return the name or the id that a record states, else its position in the file."""
    for field in ("name", "id"):
        if (stated := fields.get(field)) is None or stated == "":
            continue
        if isinstance(stated, bool) or not isinstance(stated, int | str) or not str(stated).isprintable():
            raise InvalidEpisode(f"{field} that is neither text nor a whole number")
        return str(stated)
    return name


def _episode(name: str, parts: list[Part], complete: bool) -> Episode:
    if not complete:
        raise InvalidEpisode("incomplete: the last step is neither terminated nor truncated")
    for field, part in zip(FIELDS, parts, strict=True):
        if not (np.abs(part.astype(np.float64, copy=False)) <= LARGEST).all():  # NaN is not
            beyond = np.isfinite(part).all()
            raise InvalidEpisode(f"{field} beyond the range of float32" if beyond else f"NaN or infinite {field}")
    observations, actions, rewards = parts
    narrow = np.result_type(observations.dtype, np.float32) == np.float32
    observations = observations.reshape(len(rewards), -1).astype(np.float32 if narrow else np.float64)
    rewards = rewards.astype(np.float32)
    if not observations.size:
        raise InvalidEpisode("observations without a number")
    with np.errstate(over="ignore"):
        returns = returns_to_go(rewards)
    if not np.isfinite(returns).all():
        raise InvalidEpisode("returns beyond the range of float32")
    return Episode(name, observations, actions, rewards)
