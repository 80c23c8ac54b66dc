"""The clips of each split: read from their sources, without repetitions, and divided by fields or shares."""

import argparse
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from data_prep.audio import key_tones
from data_prep.audio.clips import Clip, Naming
from data_prep.audio.layouts import find
from data_prep.workspace import options as shared
from data_prep.workspace.report import Report
from data_prep.workspace.splits import divided, dropped
from data_prep.workspace.workspace import SPLITS
from pipeline.errors import ConfigError, DataError

OVERLAP = 0.05  # seconds that neighbouring parts of a recording may share by rounding


def clips_of_splits(options: argparse.Namespace, report: Report) -> dict[str, list[Clip]]:
    """Return the clips of each split.

    Args:
        options: the command line.
        report: counts invalid records, and what is left out.

    Raises:
        ConfigError: a split has both a source and a folder or table in the training source.
        DataError: a source does not exist or holds no clips, or the clips cannot be divided, or none is for training.
    """
    naming = Naming(
        options.audio_field, options.text_field, options.label_field, options.speaker_field, options.pattern
    )
    wheres = {"test": options.test_where, "validation": options.validation_where}
    named: dict[str, list[Clip]] = {}
    for name in SPLITS:
        if (source := getattr(options, name)) is None:
            continue
        if shared.is_builtin(source):
            own = {"train": list(key_tones.clips(shared.builtin_count(source, "clips"), options.labels))}
        else:
            own = find(source, naming, report, divide=name == "train" and not any(wheres.values()))
        if name in named:
            raise ConfigError(
                f"--{name}={source}: the training source has a {name} split of its own. Omit --{name}, or name the "
                "folder or table of training clips"
            )
        named |= own if name == "train" else {name: own["train"]}
    if options.ignore_durations:
        named = {name: [_without_duration(clip) for clip in clips] for name, clips in named.items()}
    kept = once(named, options.lowercase, report)
    if not named["train"]:
        report.check(options.max_bad_share)
        raise DataError(f"{options.train} has no clips. Name another source of training clips")
    if not kept["train"]:
        raise DataError(f"{options.train}: every clip is in a held-out split too. Name other clips for training")
    splits = divided(kept, wheres, shared.shares(options), options.by_speaker)
    note_overlaps(splits, report)
    return splits


def _without_duration(clip: Clip) -> Clip:
    return replace(clip, part=clip.part._replace(recording=None))


def once(splits: Mapping[str, Sequence[Clip]], lowercase: bool, report: Report) -> dict[str, list[Clip]]:
    """Return the clips of each split without repetitions, which held-out splits keep.

    Args:
        splits: clips of the splits with their own source.
        lowercase: whether transcripts and labels that differ in case alone are equal.
        report: counts what is left out, and clips that are listed with different transcripts or labels.
    """
    kept: dict[str, list[Clip]] = {}
    first: dict[tuple[object, ...], tuple[str, Clip]] = {}
    for split in sorted(splits, key=lambda split: (split == "train", split)):
        kept[split] = []
        for clip in splits[split]:
            home, earlier = first.setdefault(clip.identity, (split, clip))
            if earlier is clip:
                kept[split].append(clip)
            elif _targets(earlier, lowercase) != _targets(clip, lowercase):
                report.reject(clip.name, "listed before with another transcript or label", f"as {earlier.name}")
            elif home == split:
                report.leave_out(clip.name, "clip listed twice")
            else:
                report.note(clip.name, dropped(split), f"kept for {home}")
    return {split: kept[split] for split in splits}


def note_overlaps(splits: Mapping[str, Sequence[Clip]], report: Report) -> None:
    """Count clips that share more than `OVERLAP` seconds of a recording with a clip of another split."""
    recordings = defaultdict[object, list[tuple[float, float, str, Clip]]](list)
    for split, clips in splits.items():
        for clip in clips:
            start, seconds, channel, *_ = clip.part
            end = math.inf if seconds is None else start + seconds
            recordings[(*clip.recording, channel)].append((start, end, split, clip))
    for parts in recordings.values():
        latest: dict[str, tuple[float, Clip]] = {}  # the end that is furthest so far in each split
        for start, end, split, clip in sorted(parts, key=lambda part: part[:3]) if len(parts) > 1 else []:
            for other, (until, earlier) in latest.items():
                if other != split and min(until, end) - start > OVERLAP:
                    report.note(clip.name, "overlaps a clip of another split", f"{split}, and {earlier.name} {other}")
                    break
            if split not in latest or end > latest[split][0]:
                latest[split] = end, clip


def _targets(clip: Clip, lowercase: bool) -> tuple[str, ...]:
    found = (clip.fields.get("text", ""), clip.fields.get("label", ""))
    return tuple(text.lower() for text in found) if lowercase else found
