"""Samples are divided among splits: by what their fields say, or by shares, of samples or of speakers."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol, TypeVar

from pipeline.errors import ConfigError, DataError

HELD_OUT = ("test", "validation")


class Named(Protocol):
    """A sample that has a name."""

    @property
    def name(self) -> str:
        """What the sample is called."""


class Described(Named, Protocol):
    """A sample that has fields too, such as its speaker."""

    @property
    def fields(self) -> Mapping[str, str]:
        """What is known of the sample."""


Sample = TypeVar("Sample", bound=Named)
Clip = TypeVar("Clip", bound=Described)


@dataclass(frozen=True)
class Where:
    """A condition on a clip: one of its fields has one of these values."""

    field: str
    values: frozenset[str]

    @classmethod
    def of(cls, said: str) -> "Where":
        """Read `field=value,value` or `field=0-4`.

        Raises:
            ConfigError: it is neither.
        """
        field, equals, listed = said.partition("=")
        if not field or not listed or not equals:
            raise ConfigError(f"{said!r} is no condition: write FIELD=VALUE,VALUE or FIELD=0-4")
        values: set[str] = set()
        for value in listed.split(","):
            first, dash, last = value.partition("-")
            if dash and first.isdigit() and last.isdigit():
                values.update(map(str, range(int(first), int(last) + 1)))
            else:
                values.add(value)
        return cls(field, frozenset(values))

    def holds(self, clip: Described) -> bool:
        """Whether the clip is meant."""
        return clip.fields.get(self.field) in self.values


def divided(
    named: Mapping[str, Sequence[Clip]],
    wheres: Mapping[str, Sequence[Where]],
    shares: Mapping[str, float],
    by_speaker: bool,
) -> dict[str, list[Clip]]:
    """The clips of each split.

    Args:
        named: splits that have a source of their own, `train` among them.
        wheres: conditions, all of which a clip of training meets to go to that split instead.
        shares: of the training clips, for splits with neither source nor conditions.
        by_speaker: no speaker may be in two splits; shares are then of speakers, in whole ones.

    Raises:
        DataError: no clip meets a split's conditions, a speaker is in two splits, there are fewer speakers than
            splits, or clips have no speaker.
    """
    splits = {name: list(clips) for name, clips in named.items()}
    for name in HELD_OUT:
        if name not in splits and wheres[name]:
            taken = [clip for clip in splits["train"] if all(where.holds(clip) for where in wheres[name])]
            if not taken:
                raise DataError(f"no clip meets the conditions of --{name}-where: look at the fields' values")
            splits[name] = taken
            chosen = set(map(id, taken))
            splits["train"] = [clip for clip in splits["train"] if id(clip) not in chosen]
    splits = cut(splits, shares, _by_speaker if by_speaker else by_name)
    if by_speaker:
        _check_speakers(splits)
    return splits


def _at(said: str) -> float:
    """A number in 0..1 for a text, always the same."""
    return int.from_bytes(blake2b(said.encode(), digest_size=8).digest(), "big") / 2**64


def split_of(said: str, shares: Mapping[str, float]) -> str:
    """Return the split of a text, by its hash."""
    at, edge = _at(said), 0.0
    for split, share in shares.items():
        edge += share
        if at < edge:
            return split
    return "train"


def by_name(samples: Sequence[Named], shares: Mapping[str, float]) -> list[str]:
    """Return the split of each sample, by the hash of its name."""
    return [split_of(sample.name, shares) for sample in samples]


def cut(
    splits: Mapping[str, Sequence[Sample]],
    shares: Mapping[str, float],
    divide: Callable[[Sequence[Any], Mapping[str, float]], list[str]] = by_name,
) -> dict[str, list[Sample]]:
    """Cut from training the held-out splits that have no samples of their own.

    Args:
        splits: samples of those that have a source, `train` among them.
        shares: of the training samples, for the others.
        divide: names the split of each training sample.
    """
    wanted = {name: shares[name] for name in HELD_OUT if name not in splits and shares[name]}
    places = list(zip(splits["train"], divide(splits["train"], wanted), strict=True))
    parts = {name: [sample for sample, place in places if place == name] for name in ("train", *wanted)}
    return {name: list(samples) for name, samples in splits.items()} | parts


def _by_speaker(clips: Sequence[Described], shares: Mapping[str, float]) -> list[str]:
    """Speakers in the order of their hashes go to each split until it has its share."""
    counts = Counter(_speaker(clip) for clip in clips)
    order = sorted(counts, key=_at)
    home = dict.fromkeys(order, "train")
    for name, share in shares.items():
        held = 0
        while order and held < share * len(clips):
            held += counts[order[0]]
            home[order.pop(0)] = name
    if empty := [name for name in ("train", *shares) if name not in home.values()]:
        raise DataError(
            f"--by-speaker: of {len(counts)} speakers none is left for the {empty[0]} split: set --validation-share "
            "or --test-share to 0, or leave out --by-speaker"
        )
    return [home[_speaker(clip)] for clip in clips]


def _speaker(clip: Described) -> str:
    if not clip.fields.get("speaker"):
        raise DataError(f"{clip.name} has no speaker, which --by-speaker needs: name the field with --speaker-field")
    return clip.fields["speaker"]


def _check_speakers(splits: Mapping[str, Sequence[Described]]) -> None:
    home: dict[str, str] = {}
    for name, clips in splits.items():
        for clip in clips:
            if (other := home.setdefault(_speaker(clip), name)) != name:
                raise DataError(
                    f"speaker {_speaker(clip)} is in {other} and in {name} ({clip.name}): leave out --by-speaker, or "
                    "divide otherwise"
                )
