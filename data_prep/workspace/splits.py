"""Assignment of samples to splits: by the values of their fields, or by fractions of the samples or speakers."""

import unicodedata
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol, TypeVar

from data_prep.workspace.report import Report
from pipeline.errors import DataError

HELD_OUT = ("test", "validation")


class Named(Protocol):
    """A sample with a name."""

    @property
    def name(self) -> str:
        """Name of the sample."""


class Described(Named, Protocol):
    """A sample with a name and fields, such as its speaker."""

    @property
    def fields(self) -> Mapping[str, str]:
        """Values of the fields, by name."""


Sample = TypeVar("Sample", bound=Named)
Clip = TypeVar("Clip", bound=Described)


@dataclass(frozen=True)
class Where:
    """A condition on a clip: the field has one of the values."""

    field: str
    values: frozenset[str]

    @classmethod
    def of(cls, text: str) -> "Where":
        """Parse `field=value,value` or `field=0-4`, for `type=`."""
        field, equals, listed = unicodedata.normalize("NFC", text).partition("=")
        if not field or not listed or not equals:
            raise ArgumentTypeError(f"expected FIELD=VALUE,VALUE or FIELD=0-4, got {text}")
        values: set[str] = set()
        for value in listed.split(","):
            first, dash, last = value.partition("-")
            if dash and first.isdigit() and last.isdigit():
                values.update(map(str, range(int(first), int(last) + 1)))
            else:
                values.add(value)
        return cls(field, frozenset(values))

    def holds(self, clip: Described) -> bool:
        """Return whether the clip meets the condition."""
        return clip.fields.get(self.field) in self.values


def divided(
    named: Mapping[str, Sequence[Clip]],
    wheres: Mapping[str, Sequence[Where]],
    shares: Mapping[str, float],
    by_speaker: bool,
) -> dict[str, list[Clip]]:
    """Return the clips of each split.

    Args:
        named: clips of the splits with their own source, among them `train`.
        wheres: conditions of each held-out split; training clips that meet all of them move to the split.
        shares: fraction of the training clips for each split with neither source nor conditions.
        by_speaker: keep all clips of a speaker in one split.

    Raises:
        DataError: no clip meets a split's conditions, a speaker is in two splits, there are fewer speakers than
            splits, or a clip has no speaker.
    """
    splits = {name: list(clips) for name, clips in named.items()}
    for name in HELD_OUT:
        if not has(splits, name) and wheres[name]:
            taken = [clip for clip in splits["train"] if all(where.holds(clip) for where in wheres[name])]
            if not taken:
                listed = " ".join(f"{where.field}={','.join(sorted(where.values))}" for where in wheres[name])
                raise DataError(f"--{name}-where {listed}: no clip matches. Check the values of the fields")
            splits[name] = taken
            chosen = set(map(id, taken))
            splits["train"] = [clip for clip in splits["train"] if id(clip) not in chosen]
    splits = cut(splits, shares, _by_speaker if by_speaker else by_name)
    if by_speaker:
        _check_speakers(splits)
    return splits


def has(splits: Iterable[str], name: str) -> bool:
    """Return whether a split is among splits, for `test` also as one of several test sets."""
    return any(split == name or split.startswith(f"{name}-") for split in splits)


def dropped(split: str) -> str:
    """Return the note on a record that is not written to a split because another split has it."""
    return f"in another split too: dropped from {'training' if split == 'train' else split}"


def _at(text: str) -> float:
    """Return a hash of the text as a number in [0, 1)."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64


def split_of(text: str, shares: Mapping[str, float]) -> str:
    """Return the split of a text, by its hash."""
    at, edge = _at(text), 0.0
    for split, share in shares.items():
        edge += share
        if at < edge:
            return split
    return "train"


def by_name(samples: Sequence[Named], shares: Mapping[str, float]) -> list[str]:
    """Return the split of each sample, by the hash of its name; no split is empty if there are enough samples."""
    found = [split_of(sample.name, shares) for sample in samples]
    for split in shares:
        training = [at for at, other in enumerate(found) if other == "train"]
        if split not in found and len(training) > 1:
            found[min(training, key=lambda at: _at(samples[at].name))] = split
    return found


def by_identity(
    report: Report, identity: Callable[[Sample], bytes], samples: Sequence[Sample], shares: Mapping[str, float]
) -> list[str]:
    """Return the split of each sample, by the hash of its name; copies are in the split of the first.

    A split that is empty by chance, as with few samples, takes one of the largest split.

    Args:
        report: counts copies and moved samples.
        identity: returns what copies of a sample have in common.
        samples: the samples.
        shares: fraction of the samples for each split but `train`.
    """
    first: dict[bytes, str] = {}
    names = []
    for sample in samples:
        if (same := blake2b(identity(sample), digest_size=16).digest()) in first:
            report.note(sample.name, f"copy of an earlier {report.kind.removesuffix('s')}", first[same])
        names.append(first.setdefault(same, sample.name))
    home = {name: split_of(name, shares) for name in names}
    for split in ("train", *shares):
        held = Counter(home.values())
        fullest, count = held.most_common(1)[0] if held else ("train", 0)
        if not held[split] and count > 1:
            moved = next(name for name, found in home.items() if found == fullest)
            home[moved] = split
            report.note(moved, f"moved to the {split} split, which was empty")
    return [home[name] for name in names]


def cut(
    splits: Mapping[str, Sequence[Sample]],
    shares: Mapping[str, float],
    assign: Callable[[Sequence[Sample], Mapping[str, float]], list[str]] = by_name,
) -> dict[str, list[Sample]]:
    """Hold out training samples for the splits without samples of their own.

    Args:
        splits: samples of the splits with their own source, among them `train`.
        shares: fraction of the training samples for each other split.
        assign: returns the split of each training sample.
    """
    missing = {name: shares[name] for name in HELD_OUT if not has(splits, name) and shares[name]}
    assigned = list(zip(splits["train"], assign(splits["train"], missing), strict=True))
    parts = {name: [sample for sample, split in assigned if split == name] for name in ("train", *missing)}
    return {name: list(samples) for name, samples in splits.items()} | parts


def _by_speaker(clips: Sequence[Described], shares: Mapping[str, float]) -> list[str]:
    """Return the split of each clip; whole speakers fill each held-out split, in the order of their hashes."""
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
            f"--by-speaker: expected a speaker for every split, got {len(counts)} and none left for {empty[0]}. "
            "Set --validation-share or --test-share to 0, or omit --by-speaker"
        )
    return [home[_speaker(clip)] for clip in clips]


def _speaker(clip: Described) -> str:
    if not clip.fields.get("speaker"):
        raise DataError(f"{clip.name}: no speaker, but --by-speaker requires one. Name its field with --speaker-field")
    return clip.fields["speaker"]


def _check_speakers(splits: Mapping[str, Sequence[Described]]) -> None:
    home: dict[str, str] = {}
    for name, clips in splits.items():
        for clip in clips:
            if (other := home.setdefault(_speaker(clip), name)) != name:
                raise DataError(
                    f"--by-speaker: speaker {_speaker(clip)} is in both {other} and {name} ({clip.name}). "
                    "Change the sources or conditions of the splits, or omit --by-speaker"
                )
