"""Clips are assigned to splits by their fields, by the hash of their name, or by whole speakers."""

from argparse import ArgumentTypeError
from hashlib import blake2b

import pytest

from data_prep.audio.clips import Clip
from data_prep.workspace.splits import Where, by_name, divided
from pipeline.errors import DataError

NO_WHERES: dict[str, list[Where]] = {"validation": [], "test": []}


def clip(name: str, **fields: str) -> Clip:
    return Clip(name, None, fields)


def place(text: str) -> float:
    """Return the first eight bytes of the hash as a number in [0, 1)."""
    return int(blake2b(text.encode(), digest_size=8).hexdigest(), 16) / 2**64


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("take=1,two", {"1", "two"}),
        ("take=3", {"3"}),
        ("take=8-11,20", {"8", "9", "10", "11", "20"}),
        ("take=a-4,4-b,-5,5-", {"a-4", "4-b", "-5", "5-"}),
        ("take=a=b", {"a=b"}),
    ],
)
def test_a_condition_lists_values_and_ranges(text: str, values: set[str]) -> None:
    assert Where.of(text) == Where("take", frozenset(values))


@pytest.mark.parametrize("text", ["take", "=1", "take=", ""])
def test_an_invalid_condition_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match=f"expected FIELD=VALUE,VALUE or FIELD=0-4, got {text}$"):
        Where.of(text)


def test_a_clip_without_the_field_does_not_meet_the_condition() -> None:
    where = Where.of("take=1-2")
    assert [where.holds(clip("a", **fields)) for fields in ({"take": "2"}, {"take": "3"}, {}, {"text": "1"})] == [
        True,
        False,
        False,
        False,
    ]


def names(splits: dict[str, list[Clip]]) -> dict[str, list[str]]:
    return {split: [each.name for each in clips] for split, clips in splits.items()}


def test_clips_that_meet_all_conditions_are_held_out() -> None:
    clips = [clip(f"{take}{room}", take=take, room=room) for take in "123" for room in "xy"]
    wheres = {"validation": [Where.of("take=1")], "test": [Where.of("take=1-2"), Where.of("room=y")]}
    found = divided({"train": clips}, wheres, {"validation": 0.9, "test": 0.9}, by_speaker=False)
    assert names(found) == {"train": ["2x", "3x", "3y"], "test": ["1y", "2y"], "validation": ["1x"]}
    wheres = {**NO_WHERES, "test": [Where.of("take=9"), Where.of("room=x")]}
    with pytest.raises(DataError, match="--test-where take=9 room=x: no clip matches"):
        divided({"train": clips}, wheres, {}, by_speaker=False)


def test_equal_clips_are_distinguished_by_identity() -> None:
    one, same = clip("a", take="1"), clip("a", take="1")
    found = divided({"train": [one, same, clip("b")]}, {**NO_WHERES, "test": [Where.of("take=1")]}, {
        "validation": 0.0}, by_speaker=False)  # fmt: skip
    assert [each is other for each, other in zip(found["test"], (one, same), strict=True)] == [True, True]
    assert names(found)["train"] == ["b"]


def test_splits_with_their_own_source_are_unchanged() -> None:
    named = {"train": [clip("a")], "test": [clip("b")], "validation": [clip("c")]}
    shares = {"validation": 0.9, "test": 0.9}
    wheres = {"validation": [Where.of("x=1")], "test": [Where.of("x=1")]}
    found = divided(named, wheres, shares, by_speaker=False)
    assert names(found) == {"train": ["a"], "test": ["b"], "validation": ["c"]}
    assert named["train"] == [clip("a")]


def test_a_sample_is_assigned_by_the_hash_of_its_name() -> None:
    listed = [clip(f"clip {number}") for number in range(500)]
    found = by_name(listed, {"test": 0.1, "validation": 0.3})
    for one, split in zip(listed, found, strict=True):
        at = place(one.name)
        assert split == ("test" if at < 0.1 else "validation" if at < 0.4 else "train")
    assert by_name(listed, {}) == ["train"] * 500


def test_shares_of_clips_are_by_name_and_keep_the_order() -> None:
    clips = [clip(f"clip {number}") for number in range(300)]
    found = divided({"train": clips}, NO_WHERES, {"validation": 0.2, "test": 0.0}, by_speaker=False)
    assert found.keys() == {"train", "validation"}
    assert names(found)["validation"] == [one.name for one in clips if place(one.name) < 0.2]
    assert names(found)["train"] == [one.name for one in clips if place(one.name) >= 0.2]
    alone = divided({"train": clips[:1]}, NO_WHERES, {"validation": 0.0, "test": 1e-9}, by_speaker=False)
    assert names(alone) == {"train": ["clip 0"], "test": []}


def test_whole_speakers_fill_each_split_until_it_has_its_share() -> None:
    speakers = {"ann": 5, "bob": 1, "eve": 4, "joe": 6, "kim": 4}
    clips = [
        clip(f"{name} {take}", speaker=name) for take in range(6) for name, takes in speakers.items() if take < takes
    ]
    found = divided({"train": clips}, NO_WHERES, {"validation": 0.3, "test": 0.2}, by_speaker=True)
    order, expected = sorted(speakers, key=place), dict.fromkeys(speakers, "train")
    for split, share in (("test", 0.2), ("validation", 0.3)):
        held = 0
        while held < share * len(clips):
            held += speakers[order[0]]
            expected[order.pop(0)] = split
    assert {one.fields["speaker"]: split for split, mine in found.items() for one in mine} == expected
    assert sum(map(len, found.values())) == len(clips)
    assert [one.name for one in found["train"]] == [
        one.name for one in clips if expected[one.fields["speaker"]] == "train"
    ]


def test_a_share_that_one_speaker_fills_exactly_takes_no_second() -> None:
    clips = [clip(f"{name} {take}", speaker=name) for name in ("ann", "bob", "eve", "joe") for take in range(2)]
    found = divided({"train": clips}, NO_WHERES, {"validation": 0.25, "test": 0.25}, by_speaker=True)
    assert {split: len(mine) for split, mine in found.items()} == {"train": 4, "test": 2, "validation": 2}


def test_too_few_speakers_are_refused() -> None:
    clips = [clip("a", speaker="ann"), clip("b", speaker="bob")]
    with pytest.raises(DataError, match="expected a speaker for every split, got 2 and none left for train"):
        divided({"train": clips}, NO_WHERES, {"validation": 0.3, "test": 0.3}, by_speaker=True)
    with pytest.raises(DataError, match="expected a speaker for every split, got 1 and none left for train"):
        divided({"train": clips[:1]}, NO_WHERES, {"validation": 0.3, "test": 0.0}, by_speaker=True)


def test_a_speaker_in_two_splits_and_a_clip_without_one_are_refused() -> None:
    clips = [clip("a", speaker="ann"), clip("b", speaker="bob")]
    with pytest.raises(DataError, match=r"speaker ann is in both (test and train|train and test)"):
        divided({"train": clips, "test": [clip("c", speaker="ann")]}, NO_WHERES, {"validation": 0.0}, by_speaker=True)
    with pytest.raises(DataError, match="c: no speaker"):
        divided({"train": [*clips, clip("c")]}, NO_WHERES, {"validation": 0.0, "test": 0.0}, by_speaker=True)
    with pytest.raises(DataError, match="d: no speaker"):
        divided({"train": [clip("d", speaker="")]}, NO_WHERES, {"validation": 0.0, "test": 0.0}, by_speaker=True)
