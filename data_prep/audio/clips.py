"""Sources of audio clips: manifests, the layouts of LJSpeech and LibriSpeech, file name patterns, Hub data sets.

A clip has fields besides its audio: `text` (its transcript), `label`, `speaker`, and all other fields of the source.
"""

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TextIO

from data_prep.workspace.report import Report
from pipeline.errors import ConfigError, DataError

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".aif", ".au", ".sph")
AUDIO_FIELDS = ("audio_filepath", "audio", "file_name", "file", "path", "wav")
FIELDS = ("text", "label", "speaker")
Record = Mapping[str, object]


@dataclass(frozen=True)
class Clip:
    """An audio clip that has not been read yet, with its fields."""

    name: str
    path: Path | None
    fields: Mapping[str, str]
    data: bytes = field(default=b"", repr=False)
    """Content of the audio file, for a clip without its own file."""

    @property
    def size(self) -> int:
        """Size of the file in bytes, 0 if there is none."""
        return self._status[0]

    @property
    def signature(self) -> str:
        """String that changes when the file or the fields change."""
        return f"{self.name} {sorted(self.fields.items())} {self._status}"

    @cached_property
    def _status(self) -> tuple[int, int]:
        """Size of the file in bytes, and its modification time."""
        if self.path is None or not self.path.is_file():
            return len(self.data), 0
        status = self.path.stat()
        return status.st_size, status.st_mtime_ns

    def read(self) -> bytes:
        """Return the bytes of the file.

        Raises:
            OSError: the file cannot be read.
        """
        return self.data if self.path is None else self.path.read_bytes()


@dataclass(frozen=True)
class Naming:
    """Names of the fields in a source.

    Args:
        audio: field of the file name; by default the first of `AUDIO_FIELDS` that exists.
        text: field of the transcript.
        label: field of the label.
        speaker: field of the speaker.
        pattern: pattern of file names with fields in braces, `{label}_{speaker}_{index}`; of paths if it has a slash.
    """

    audio: str | None = None
    text: str = "text"
    label: str = "label"
    speaker: str = "speaker"
    pattern: str | None = None

    def named(self, record: Mapping[str, object]) -> dict[str, str]:
        """Return the fields of a record, those of `FIELDS` under their standard names."""
        kept = {key: str(value) for key, value in record.items() if isinstance(value, str | int)}
        standard = {name: kept[getattr(self, name)] for name in FIELDS if getattr(self, name) in kept}
        return kept | standard


def find(source: str, naming: Naming, report: Report) -> Iterator[Clip]:
    """Yield the clips of a source in a fixed order; records without a clip are counted as invalid.

    Args:
        source: a directory, a manifest (.jsonl, .csv, .tsv), or hub:NAME[:CONFIG[:SPLIT]].
        naming: names of the fields.
        report: counts invalid records.

    Raises:
        DataError: the source does not exist or holds no clips.
    """
    if source.startswith("hub:"):
        return _hub(source, naming, report)
    path = Path(source)
    if path.is_file():
        return _manifest(path, naming, report)
    if not path.is_dir():
        raise DataError(
            f"source {source} does not exist. Name a directory, a .jsonl, .csv or .tsv manifest, hub:NAME or builtin"
        )
    return _directory(path, naming, report)


def _directory(path: Path, naming: Naming, report: Report) -> Iterator[Clip]:
    if naming.pattern is not None:
        return _by_pattern(path, naming.pattern, report)
    for name in ("metadata.csv", "metadata.jsonl"):
        if (path / name).is_file():
            return _manifest(path / name, naming, report)
    if transcripts := sorted(path.rglob("*.trans.txt")):
        return _librispeech(transcripts, report)
    raise DataError(
        f"directory {path} has no metadata.csv, metadata.jsonl or *.trans.txt. Name a manifest, or describe the file "
        "names with --pattern, such as '{label}_{speaker}_{index}'"
    )


def _manifest(path: Path, naming: Naming, report: Report) -> Iterator[Clip]:
    if path.suffix == ".jsonl":
        return _records(path, _json_lines(path, report), naming, report)
    with _opened(path) as file:
        head = file.readline()
    if "|" in head and "," not in head.split("|")[0]:
        return _ljspeech(path, report)
    return _records(path, _rows(path), naming, report)


def _opened(path: Path) -> TextIO:
    try:
        return path.open(encoding="utf-8", newline="")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _json_lines(path: Path, report: Report) -> Iterator[tuple[int, Record]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
            except ValueError:
                report.reject(f"{path}:{number}", "invalid JSON")
                continue
            if isinstance(record, dict):
                yield number, record
            else:
                report.reject(f"{path}:{number}", "not a JSON object")


def _rows(path: Path) -> Iterator[tuple[int, Record]]:
    with _opened(path) as file:
        rows = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        try:
            yield from ((rows.line_num, row) for row in rows)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"{path} is not a table in UTF-8 ({error}). Name a .jsonl, .csv or .tsv manifest"
            ) from error


def _records(path: Path, records: Iterator[tuple[int, Record]], naming: Naming, report: Report) -> Iterator[Clip]:
    for number, record in records:
        names = [naming.audio] if naming.audio else AUDIO_FIELDS
        file = next((value for name in names if isinstance(value := record.get(name), str)), None)
        if file is None:
            report.reject(f"{path}:{number}", f"no file name in fields {', '.join(names)}")
            continue
        yield Clip(file, path.parent / file, naming.named(record))


def _ljspeech(path: Path, report: Report) -> Iterator[Clip]:
    """Read lines `ID|transcript|normalized transcript`, with an audio file ID in the directory or below."""
    files = {file.stem: file for file in _sounds(path.parent)}
    with _opened(path) as lines:
        for number, line in enumerate(lines, 1):
            name, *texts = line.rstrip("\r\n").split("|")
            if name not in files or not texts:
                report.reject(f"{path}:{number}", "no such file" if texts else "no transcript")
                continue
            yield Clip(files[name].name, files[name], {"text": texts[-1]})


def _librispeech(transcripts: list[Path], report: Report) -> Iterator[Clip]:
    """Read files SPEAKER-CHAPTER.trans.txt with lines `SPEAKER-CHAPTER-NUMBER TRANSCRIPT`, beside the audio files."""
    for path in transcripts:
        with _opened(path) as lines:
            for number, line in enumerate(lines, 1):
                name, _, text = line.strip().partition(" ")
                file = next((each for suffix in SUFFIXES if (each := path.with_name(name + suffix)).is_file()), None)
                if file is None:
                    report.reject(f"{path}:{number}", "no such file")
                    continue
                yield Clip(file.name, file, {"text": text, "speaker": name.split("-")[0]})


def _by_pattern(path: Path, pattern: str, report: Report) -> Iterator[Clip]:
    expression = compiled(pattern)
    found = False
    for file in _sounds(path):
        found = True
        inner = file.relative_to(path).with_suffix("")
        match = expression.fullmatch(inner.as_posix() if "/" in pattern else inner.name)
        if match is None:
            report.reject(str(file), f"name does not match --pattern {pattern}")
            continue
        yield Clip(inner.as_posix() + file.suffix, file, match.groupdict())
    if not found:
        raise DataError(f"directory {path} has no audio files ({', '.join(SUFFIXES)}). Name another directory")


def compiled(pattern: str) -> re.Pattern[str]:
    """Return the regular expression for a pattern with fields in braces; fields match as little as possible.

    Raises:
        ConfigError: a field has an invalid name or appears twice, or the pattern lacks fields.
    """
    parts = re.split(r"\{(\w*)\}", pattern)
    names = parts[1::2]
    if not names or len(set(names)) != len(names) or not all(name.isidentifier() for name in names):
        raise ConfigError(
            f"--pattern={pattern}: expected fields in braces, each once, such as '{{label}}_{{speaker}}_{{index}}'"
        )
    inside = "".join(f"(?P<{part}>[^/]+?)" if at % 2 else re.escape(part) for at, part in enumerate(parts))
    return re.compile(inside)


def _sounds(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))


def _hub(source: str, naming: Naming, report: Report) -> Iterator[Clip]:
    name, config, split = [*source.removeprefix("hub:").split(":"), "", ""][:3]
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    column = naming.audio or "audio"
    try:
        import datasets

        found = datasets.load_dataset(name, config or None, split=split or "train")
        features = found.features
        found = found.cast_column(column, datasets.Audio(decode=False))  # keep the encoded bytes
        classes = features[naming.label].names if hasattr(features.get(naming.label), "names") else None
    except Exception as error:  # The Hub, the network and the builders raise errors of many types.
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{source} cannot be loaded: {first[0]}") from error
    for number, record in enumerate(found):
        audio = record.pop(column)
        if not audio or not (audio.get("bytes") or audio.get("path")):
            report.reject(f"{source}:{number}", f"no audio in column {column!r}")
            continue
        fields = naming.named(record)
        if classes is not None:
            fields["label"] = str(classes[record[naming.label]])
        shown = audio.get("path") or f"{source}:{number}"
        yield Clip(shown, None if audio.get("bytes") else Path(shown), fields, audio.get("bytes") or b"")
