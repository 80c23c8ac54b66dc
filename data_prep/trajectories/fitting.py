"""Episodes that fit together: sizes and kind of action of most, and one precision."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from data_prep.trajectories.actions import Bounds
from data_prep.trajectories.episodes import InvalidEpisode
from data_prep.workspace.report import Report
from pipeline.dataset.trajectories import Episode, is_constant


def fitting_episodes(found: Sequence[Episode], bounds: Bounds, report: Report) -> list[Episode]:
    """Return the episodes with the sizes and the kind of action of most; count and name the others in the report."""
    if not found:
        return []
    expected = Counter(one.observations.shape[1] for one in found).most_common(1)[0][0]
    choices, each, fitting = bounds.are_choices(found), bounds.size(found), []
    for one in found:
        try:
            if (size := one.observations.shape[1]) != expected:
                raise InvalidEpisode("observations of another size", f"{size} numbers, expected {expected}")
            actions = bounds.as_choices(one.actions) if choices else bounds.as_numbers(one.actions, each)
        except InvalidEpisode as why:
            report.reject(one.name, why.reason, why.detail)
            continue
        report.documents += 1
        fitting.append(replace(one, actions=actions))
    precision = _precision(fitting)
    return [replace(one, observations=one.observations.astype(precision)) for one in fitting]


def _precision(episodes: Sequence[Episode]) -> type[np.floating[Any]]:
    """Return float32, or float64 if some observations change by less than 10,000 times its rounding or underflow."""
    if all(one.observations.dtype == np.float32 for one in episodes):
        return np.float32
    columns = np.ascontiguousarray(np.concatenate([one.observations for one in episodes]).T)
    low, high, single = columns.min(1), columns.max(1), np.finfo(np.float32)
    rounding = np.maximum(single.eps * np.maximum(-low, high), single.tiny)
    changes = ~is_constant(low, high, columns.dtype)
    return np.float64 if (changes & (columns.std(1) < 1e4 * rounding)).any() else np.float32


def content(one: Episode) -> bytes:
    """Return what identifies an episode: its observations, actions and rewards."""
    return b"".join(part.tobytes() for part in (one.observations, one.actions, one.rewards))
