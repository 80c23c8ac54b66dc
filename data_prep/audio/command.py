"""Prepare a dataset of audio clips with transcripts or labels, stored as FLAC with one channel at one rate.

`unroll prepare audio SOURCE --output data/NAME`. Clips that are damaged, empty, clipped, misnamed, too short or too
long are counted and named in the dataset's report.
"""

import argparse
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from hashlib import blake2b
from itertools import groupby
from typing import Any

import pyarrow as pa

from data_prep.audio.clips import AUDIO_FIELDS, Clip
from data_prep.audio.decode import ClipDecoder, DecodedClip, Invalid, joined
from data_prep.audio.splits import clips_of_splits
from data_prep.audio.targets import Targets
from data_prep.workspace import options as shared
from data_prep.workspace import tokenizer
from data_prep.workspace.entries import origin, vocabulary
from data_prep.workspace.report import Report, progress
from data_prep.workspace.resumable_rows import Rows
from data_prep.workspace.splits import Where
from data_prep.workspace.workers import in_order
from data_prep.workspace.workspace import SPLITS, Workplace
from pipeline.arguments import Parser, non_negative_number, positive_integer, positive_number
from pipeline.errors import ConfigError, DataError

PROGRAM = "unroll prepare audio"
COLUMNS = {"audio": pa.binary(), "samples": pa.int64(), "name": pa.string(), "speaker": pa.string()}
SOURCE = """directory, manifest (.jsonl .json .csv .tsv .parquet wav.scp), hub:NAME[:CONFIG[:SPLIT]],
or builtin[:N] (N clips of telephone key tones, default: 2000)"""
AUDIO_FIELD = f"field of the file name (default: the first of {', '.join(AUDIO_FIELDS)})"
RATE = "resample all clips to this sampling rate (default: %(default)s)"
DURATIONS = "do not compare the durations of recordings that a manifest states with the decoded ones"
JOIN = "join MIN to MAX labelled clips of a speaker to a string, with the labels as its transcript"
EXAMPLES = """examples:
  unroll prepare audio builtin:500 --rate 8000 --tokenizer word --output data/keys
  unroll prepare audio recordings/ --pattern '{label}_{speaker}_{index}' --rate 8000 --test-where index=0-4 \\
      --output data/digits
  unroll prepare audio recordings/ --pattern '{label}_{speaker}_{index}' --rate 8000 --test-where index=0-4 \\
      --join 3 7 --tokenizer word --output data/digit-strings
  unroll prepare audio --train train.jsonl --validation val.jsonl --lowercase --output data/speech
To continue an interrupted preparation, run the same command again; with --join it starts over."""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, (__doc__ or "").split("\n")[0], EXAMPLES)
    add = parser.add_argument
    add("source", nargs="?", metavar="SOURCE", help=SOURCE)
    shared.add_output(parser)
    shared.add_workers(parser)
    splits = parser.add_argument_group("splits")
    add = splits.add_argument
    shared.add_splits(splits, metavar="SOURCE")
    for name, such in (("test", "index=0-4"), ("validation", "speaker=ann,bob")):
        described = f"hold out for {name} the clips whose fields have these values, for example {such}"
        add(f"--{name}-where", nargs="+", type=Where.of, default=[], metavar="FIELD=VALUES", help=described)
    shared.add_shares(splits, 0.05, "clips")
    add("--by-speaker", action="store_true", help="keep all clips of a speaker in one split")
    fields = parser.add_argument_group("fields")
    add = fields.add_argument
    add("--pattern", help="read fields from file names, or from paths if it has a slash: '{label}_{speaker}_{index}'")
    add("--audio-field", metavar="NAME", help=AUDIO_FIELD)
    for name, holds in (("text", "the transcript"), ("label", "the label"), ("speaker", "the speaker")):
        shared.add_field(fields, name, holds)
    add("--ignore-durations", action="store_true", help=DURATIONS)
    add("--labels", action="store_true", help="predict labels even if there are transcripts")
    sound = parser.add_argument_group("audio")
    add = sound.add_argument
    add("--rate", type=positive_integer, default=16000, metavar="HZ", help=RATE)
    for name, default, drop in (("min", 0.1, "shorter"), ("max", 30.0, "longer")):
        described = f"drop clips {drop} than S seconds (default: %(default)s)"
        add(f"--{name}-seconds", type=non_negative_number, default=default, metavar="S", help=described)
    shared.add_max_bad_share(sound, "clips")
    add("--join", nargs=2, type=positive_integer, metavar=("MIN", "MAX"), help=JOIN)
    times = "with --join: average number of strings that use a clip (default: %(default)s)"
    add("--join-times", type=positive_number, default=5.0, metavar="N", help=times)
    transcripts = parser.add_argument_group("transcripts")
    shared.add_tokenizer(transcripts, "character")
    transcripts.add_argument("--lowercase", action="store_true", help="convert transcripts to lower case")
    return parser


def main(argv: list[str]) -> int:
    """Prepare a dataset of audio clips from the command line.

    Raises:
        ConfigError: the options contradict each other.
        DataError: a source or the output cannot be used.
    """
    options = _parser().parse_args(argv)
    _check(options)
    began = time.monotonic()
    place = shared.workplace(options)
    report = Report("clips")
    with place.entered():
        splits = _prepare(place, report, options, argv)
    print("\n".join(report.lines()))
    for name, entry in splits.items():
        print(f"{name}: {entry['rows']:,} clips, {entry['seconds']:,.0f} s, {entry['speakers']} speakers")
    print(f"{options.output} in {time.monotonic() - began:.1f} s")
    return 0


def _check(options: argparse.Namespace) -> None:
    shared.check_source(options, "clips")
    if options.min_seconds >= options.max_seconds:
        raise ConfigError(f"--min-seconds={options.min_seconds} must be below --max-seconds={options.max_seconds}")
    if options.join and options.join[0] > options.join[1]:
        raise ConfigError(f"--join {options.join[0]} {options.join[1]}: the minimum must come first")
    shared.check(options)


def _prepare(place: Workplace, report: Report, options: argparse.Namespace, argv: list[str]) -> dict[str, Any]:
    found = clips_of_splits(options, report)
    labelled = bool(options.join) or options.labels or not any("text" in clip.fields for clip in found["train"])
    target = "label" if labelled else "text"
    if not any(target in clip.fields for clip in found["train"]):
        fields = ", ".join(dict.fromkeys(name for clip in found["train"][:100] for name in clip.fields)) or "none"
        raise DataError(
            f"{options.train}: no clip has the field {target} (fields: {fields}). Name the field with --text-field or "
            "--label-field, or read fields from file names with --pattern"
        )
    targets = Targets(target, options, found["train"])
    place.begin([_fingerprint(found, targets)])
    if options.join:
        place.discard()  # Strings are drawn from all valid clips, so a part of them cannot be continued.
    described = vocabulary(place.save(targets.tokenizer), targets.tokenizer)
    splits = _write(place, found, targets, report, options)
    report.check(options.max_bad_share)
    for name in found:
        if name not in splits:
            raise DataError(f"the {name} split has no valid clips. Name a source with --{name}, or change the shares")
    about: dict[str, object] = {"rate": options.rate}
    if not targets.texts:
        about["labels"] = targets.labels
    given = [source for name in SPLITS if (source := getattr(options, name))]
    manifest = {
        "kind": "audio",
        "splits": splits,
        **described,
        "audio": about,
        **origin(PROGRAM, argv, given, "soundfile", "soxr", "tokenizers", "pyarrow"),
    }
    place.publish(manifest, report.as_json(), options.overwrite)
    return splits


def _fingerprint(found: dict[str, list[Clip]], targets: Targets) -> str:
    """Return a hash that changes when the clips or the vocabulary change."""
    clips = (f"{split} {clip.signature}" for split, clips in found.items() for clip in clips)
    text = "\n".join([targets.tokenizer.to_str(), *clips])
    return blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _write(
    place: Workplace, found: dict[str, list[Clip]], targets: Targets, report: Report, options: argparse.Namespace
) -> dict[str, Any]:
    """Decode the remaining clips, write the shards and return the manifest's entries of the splits."""
    usable = [(split, clip) for split, clips in found.items() for clip in clips if targets.accept(clip, report)]
    targets.note_labels(report)
    rows = Rows(place, COLUMNS, tokenizer.size(targets.tokenizer))
    if place.state.pieces:
        print(f"continuing after {place.state.pieces:,} clips", file=sys.stderr)
    decoded = _decoded(usable, rows, targets, options)
    for split, clip in _strings(decoded, options) if options.join else decoded:
        tokens = targets.tokens(clip.target)
        if targets.texts:
            targets.note_transcript(clip, tokens, options.rate, rows.report)
        source = {"audio": clip.data, "samples": clip.samples, "name": clip.name, "speaker": clip.speaker}
        rows.add(split, source, [(tokens, clip.target)])
        entry = rows.entries[split]
        entry["seconds"] = entry.get("seconds", 0.0) + clip.samples / options.rate
        if clip.speaker:
            entry.setdefault("speakers", {})[clip.speaker] = True
    splits = rows.close()
    report.add(rows.report)
    return {name: entry | {"speakers": len(entry.get("speakers", {}))} for name, entry in splits.items()}


def _decoded(
    usable: list[tuple[str, Clip]], rows: Rows, targets: Targets, options: argparse.Namespace
) -> Iterator[tuple[str, DecodedClip]]:
    """Yield the decoded clips with their splits, after those of an earlier start; count invalid and dropped ones."""
    decoder = ClipDecoder(options.rate, options.min_seconds, options.max_seconds)
    todo = _by_recording(usable)[rows.place.state.pieces :]
    groups = [list(group) for _, group in groupby(todo, lambda item: item[1].recording)]
    read, total = Counter[str](), sum(group[0][1].size for group in groups)
    workers = min(options.workers, max(1, len(todo) // 100))
    results = in_order(decoder, [[clip for _, clip in group] for group in groups], workers)
    for group, found in zip(groups, progress(results, "decoding", total, lambda: read["bytes"]), strict=True):
        read["bytes"] += group[0][1].size
        for (split, clip), decoded in zip(group, found, strict=True):
            if isinstance(decoded, Invalid):
                rows.report.reject(clip.name, *decoded)
            else:
                rows.report.documents += 1
                for note in decoded.notes:
                    rows.report.note(clip.name, *note)
                if decoded.data:
                    digest = blake2b(decoded.data, digest_size=8).hexdigest()
                    if (home := rows.homes.setdefault(digest, split)) != split:
                        rows.report.note(clip.name, "the same audio as a clip of another split", f"{split}, and {home}")
                    speaker = clip.fields.get("speaker", "")
                    yield split, decoded._replace(target=targets.of(clip.fields), speaker=speaker)
            rows.done(1)


def _by_recording(usable: list[tuple[str, Clip]]) -> list[tuple[str, Clip]]:
    """Return the clips with those of a recording next to each other, so that it is decoded once."""
    groups = defaultdict[object, list[tuple[str, Clip]]](list)
    for item in usable:
        groups[item[1].recording].append(item)
    return [item for group in groups.values() for item in group]


def _strings(
    decoded: Iterator[tuple[str, DecodedClip]], options: argparse.Namespace
) -> Iterator[tuple[str, DecodedClip]]:
    """Yield strings of the clips of each split."""
    clips = defaultdict[str, list[DecodedClip]](list)
    for split, clip in decoded:
        clips[split].append(clip)
    for split, each in clips.items():
        made = joined(each, options.join, options.join_times, options.rate, SPLITS.index(split))
        yield from ((split, clip) for clip in made)


if __name__ == "__main__":
    shared.run_as_script(main)
