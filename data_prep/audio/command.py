"""Clips of sound become a dataset: one channel at one rate, as lossless FLAC, each with a transcript or a label.

`unroll prepare audio SOURCE --output data/NAME`. What is broken, empty, clipped,
called wrongly or too short or long is counted and named in the dataset's report.
"""

import argparse
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from data_prep.audio import key_tones
from data_prep.audio.clips import Clip, Naming, find
from data_prep.audio.decode import Heard, Hearing, joined
from data_prep.workspace import options as shared
from data_prep.workspace import tokenizer
from data_prep.workspace.entries import origin, vocabulary
from data_prep.workspace.report import Report, progress
from data_prep.workspace.resumable_rows import Rows
from data_prep.workspace.splits import Where, divided
from data_prep.workspace.workers import in_order
from data_prep.workspace.workspace import SPLITS, Workplace
from pipeline.arguments import Parser, non_negative_number, positive_integer, positive_number
from pipeline.errors import ConfigError, DataError

PROGRAM = "unroll prepare audio"
COLUMNS = {"audio": pa.binary(), "samples": pa.int64(), "name": pa.string(), "speaker": pa.string()}
SOURCE = """directory, manifest (.jsonl .csv .tsv), hub:NAME[:CONFIG[:SPLIT]], or builtin[:N]: telephone key tones"""
EXAMPLES = """examples:
  unroll prepare audio builtin:500 --rate 8000 --tokenizer word --output data/keys
  unroll prepare audio recordings/ --pattern '{label}_{speaker}_{index}' --rate 8000 --test-where index=0-4 \\
      --output data/digits
  unroll prepare audio recordings/ --pattern '{label}_{speaker}_{index}' --rate 8000 --test-where index=0-4 \\
      --join 3 7 --tokenizer word --output data/digit-strings
  unroll prepare audio --train train.jsonl --validation val.jsonl --lowercase --output data/speech
A preparation that was stopped continues when the same command is given again; with --join it begins anew."""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, (__doc__ or "").split("\n")[0], EXAMPLES)
    add = parser.add_argument
    add("source", nargs="?", help=SOURCE)
    shared.add_output(parser)
    shared.add_workers(parser)
    splits = parser.add_argument_group("splits")
    add = splits.add_argument
    shared.add_splits(splits, metavar="SOURCE")
    for name, such in (("test", "index=0-4"), ("validation", "speaker=ann,bob")):
        described = f"hold out for {name} the clips whose fields have these values, such as {such}"
        add(f"--{name}-where", nargs="+", type=Where.of, default=[], metavar="FIELD=VALUES", help=described)
    shared.add_shares(splits, 0.05, "clips")
    add("--by-speaker", action="store_true", help="keep the clips of a speaker in one split")
    fields = parser.add_argument_group("fields")
    add = fields.add_argument
    add("--pattern", help="read fields from file names: '{label}_{speaker}_{index}'; with a slash in it, from paths")
    add("--audio-field", metavar="NAME", help="field that holds the file (default: the first usual name)")
    for name, holds in (("text", "the transcript"), ("label", "the label"), ("speaker", "the speaker")):
        shared.add_field(fields, name, holds)
    add("--labels", action="store_true", help="predict labels, even if there are transcripts")
    sound = parser.add_argument_group("sound")
    add = sound.add_argument
    add(
        "--rate",
        type=positive_integer,
        default=16000,
        metavar="HZ",
        help="sampling rate of all clips (default: %(default)s)",
    )
    for name, default, drop in (("min", 0.1, "shorter"), ("max", 30.0, "longer")):
        described = f"drop {drop} clips (default: %(default)s)"
        add(f"--{name}-seconds", type=non_negative_number, default=default, metavar="S", help=described)
    shared.add_max_bad_share(sound, "clips")
    add(
        "--join",
        nargs=2,
        type=positive_integer,
        metavar=("FEWEST", "MOST"),
        help="join labelled clips of a speaker to strings",
    )
    times = "average number of strings that use a clip (default: %(default)s)"
    add("--join-times", type=positive_number, default=5.0, metavar="N", help=times)
    transcripts = parser.add_argument_group("transcripts")
    shared.add_tokenizer(transcripts, "character")
    transcripts.add_argument("--lowercase", action="store_true", help="lower-case transcripts")
    return parser


def main(argv: list[str]) -> int:
    """Prepare a dataset of clips as the command line asks.

    Raises:
        ConfigError: the options contradict each other.
        DataError: a source or the output cannot be used; the message names it.
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
        raise ConfigError(f"--min-seconds {options.min_seconds} must be below --max-seconds {options.max_seconds}")
    if options.join and options.join[0] > options.join[1]:
        raise ConfigError(f"--join {options.join[0]} {options.join[1]}: expected the fewest clips first")
    shared.check(options)


def _prepare(place: Workplace, report: Report, options: argparse.Namespace, argv: list[str]) -> dict[str, Any]:
    found = _found(options, report)
    labelled = bool(options.join) or options.labels or not any("text" in clip.fields for clip in found["train"])
    wanted = "label" if labelled else "text"
    if not any(wanted in clip.fields for clip in found["train"]):
        fields = ", ".join(dict.fromkeys(name for clip in found["train"][:100] for name in clip.fields)) or "none"
        raise DataError(
            f"{options.train}: no clip has a {wanted}; its fields are {fields}: name one with --text-field or "
            "--label-field, or give --pattern"
        )
    targets = Targets(wanted, options, found["train"])
    place.begin([_fingerprint(found, targets)])
    if options.join:
        place.forget()  # strings are drawn from all clips that can be heard
    described = vocabulary(place.save(targets.tokenizer), targets.tokenizer)
    splits = _write(place, found, targets, report, options)
    report.check(options.max_bad_share)
    for name in found:
        if name not in splits:
            raise DataError(f"no usable clip fell to the {name} split: give it a source, or other shares")
    about: dict[str, Any] = {"rate": options.rate}
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


def _found(options: argparse.Namespace, report: Report) -> dict[str, list[Clip]]:
    """The clips of each split."""
    naming = Naming(
        options.audio_field, options.text_field, options.label_field, options.speaker_field, options.pattern
    )
    named = {}
    for name in SPLITS:
        if (source := getattr(options, name)) is None:
            continue
        if shared.is_builtin(source):
            named[name] = list(key_tones.clips(shared.builtin(source, "clips"), options.labels))
        else:
            named[name] = list(find(source, naming, report))
    wheres = {"test": options.test_where, "validation": options.validation_where}
    return divided(named, wheres, shared.shares(options), options.by_speaker)


class Targets:
    """What is to be predicted of each clip: its label, or the tokens of its transcript.

    Args:
        field: `label` or `text`.
        options: the command line.
        clips: of the training split.
    """

    def __init__(self, field: str, options: argparse.Namespace, clips: list[Clip]) -> None:
        self.field, self.lowercase = field, options.lowercase
        self.texts = field == "text" or bool(options.join)
        said = [self.of(clip.fields) for clip in clips if field in clip.fields]
        self.labels = sorted(set(said)) if field == "label" else []
        if not self.texts:
            self.tokenizer = tokenizer.label(said)
        else:
            self.tokenizer = tokenizer.made(options.tokenizer, said, options.vocab_size)
        self.unknown = self.tokenizer.token_to_id(tokenizer.UNK)

    def of(self, fields: Any) -> str:
        """The label or the transcript."""
        text: str = fields[self.field].strip()
        return text.lower() if self.lowercase else text

    def tokens(self, text: str) -> list[int]:
        """As the model is to predict it."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)


def _fingerprint(found: dict[str, list[Clip]], targets: Targets) -> str:
    """What tells whether clips and vocabulary are those of an earlier start."""
    clips = (f"{split} {clip.signature}" for split, clips in found.items() for clip in clips)
    said = "\n".join([targets.tokenizer.to_str(), *clips])
    return blake2b(said.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _write(
    place: Workplace, found: dict[str, list[Clip]], targets: Targets, report: Report, options: argparse.Namespace
) -> dict[str, Any]:
    """Hear what was not heard yet and write the shards; what the manifest says of the splits."""
    told = [(split, clip) for split, clips in found.items() for clip in clips if _is_told(clip, targets, report)]
    rows = Rows(place, COLUMNS, tokenizer.size(targets.tokenizer))
    if place.state.pieces:
        print(f"continuing after {place.state.pieces:,} clips", file=sys.stderr)
    heard = _heard(told, rows, targets, options)
    for split, clip in _strings(heard, options) if options.join else heard:
        tokens = targets.tokens(clip.target)
        if targets.texts and targets.unknown in tokens:
            rows.report.note(clip.name, "characters or words that the vocabulary lacks")
        source = {"audio": clip.data, "samples": clip.samples, "name": clip.name, "speaker": clip.speaker}
        rows.add(split, source, [(tokens, clip.target)])
        entry = rows.entries[split]
        entry["seconds"] = entry.get("seconds", 0.0) + clip.samples / options.rate
        if clip.speaker:
            entry.setdefault("speakers", {})[clip.speaker] = True
    splits = rows.close()
    report.add(rows.report)
    return {name: entry | {"speakers": len(entry.get("speakers", {}))} for name, entry in splits.items()}


def _is_told(clip: Clip, targets: Targets, report: Report) -> bool:
    """Whether it is known what is to be predicted of a clip; else it is counted and named."""
    if not (clip.fields.get(targets.field) or "").strip():
        report.reject(clip.name, f"no {targets.field}")
    elif targets.labels and targets.of(clip.fields) not in targets.labels:
        report.reject(clip.name, f"a label that training lacks ({targets.of(clip.fields)})")
    else:
        return True
    return False


def _heard(
    told: list[tuple[str, Clip]], rows: Rows, targets: Targets, options: argparse.Namespace
) -> Iterator[tuple[str, Heard]]:
    """The usable clips with their splits, from the first that no earlier start has heard; others are counted."""
    hearing = Hearing(options.rate, options.min_seconds, options.max_seconds)
    todo = told[rows.place.state.pieces :]
    read, total = Counter[str](), sum(clip.size for _, clip in todo)
    workers = min(options.workers, max(1, len(todo) // 100))
    results = in_order(hearing, [clip for _, clip in todo], workers)
    for (split, clip), heard in zip(todo, progress(results, "hearing", total, lambda: read["bytes"]), strict=True):
        read["bytes"] += clip.size
        if isinstance(heard, str):
            rows.report.reject(clip.name, heard)
        else:
            rows.report.documents += 1
            for reason in heard.notes:
                rows.report.note(clip.name, reason)
            if heard.data:
                speaker = clip.fields.get("speaker", "")
                yield split, heard._replace(target=targets.of(clip.fields), speaker=speaker)
        rows.done(1)


def _strings(heard: Iterator[tuple[str, Heard]], options: argparse.Namespace) -> Iterator[tuple[str, Heard]]:
    """Strings of the clips of each split."""
    clips = defaultdict[str, list[Heard]](list)
    for split, clip in heard:
        clips[split].append(clip)
    for split, each in clips.items():
        made = joined(each, options.join, options.join_times, options.rate, SPLITS.index(split))
        yield from ((split, clip) for clip in made)


if __name__ == "__main__":
    shared.run_as_script(main)
