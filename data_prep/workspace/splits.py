"""Clips are divided among splits: by what their fields say, or by shares, of clips or of speakers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol, TypeVar

from pipeline.errors import ConfigError, DataError

HELD_OUT = ("test", "validation")


class Named(Protocol):
    """A sample that has a name, and fields such as its speaker."""

    @property
    def name(self) -> str:
        """What the sample is called."""

    @property
    def fields(self) -> Mapping[str, str]:
        """What is known of the sample."""


Clip = TypeVar("Clip", bound=Named)


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

    def holds(self, clip: Named) -> bool:
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
    wanted = {name: shares[name] for name in HELD_OUT if name not in splits and shares[name]}
    whole, splits["train"] = splits["train"], []
    places = _by_speaker(whole, wanted) if by_speaker else by_name([clip.name for clip in whole], wanted)
    for name in wanted:
        splits[name] = []
    for clip, name in zip(whole, places, strict=True):
        splits[name].append(clip)
    if by_speaker:
        _check_speakers(splits)
    return splits


def _at(said: str) -> float:
    """A number in 0..1 for a text, always the same."""
    return int.from_bytes(blake2b(said.encode(), digest_size=8).digest(), "big") / 2**64


def by_name(names: Sequence[str], shares: Mapping[str, float]) -> list[str]:
    """The split of each name: where its hash falls."""
    places = []
    for name in names:
        at, place = _at(name), "train"
        for split, share in shares.items():
            if 0 <= at < share:
                place = split
            at -= share
        places.append(place)
    return places


def _by_speaker(clips: Sequence[Named], shares: Mapping[str, float]) -> list[str]:
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


def _speaker(clip: Named) -> str:
    if not clip.fields.get("speaker"):
        raise DataError(f"{clip.name} has no speaker, which --by-speaker needs: name the field with --speaker-field")
    return clip.fields["speaker"]


def _check_speakers(splits: Mapping[str, Sequence[Named]]) -> None:
    home: dict[str, str] = {}
    for name, clips in splits.items():
        for clip in clips:
            if (other := home.setdefault(_speaker(clip), name)) != name:
                raise DataError(
                    f"speaker {_speaker(clip)} is in {other} and in {name} ({clip.name}): leave out --by-speaker, or "
                    "divide otherwise"
                )
