"""Where clips of sound are found: manifests, layouts of LJSpeech and LibriSpeech, names that follow a pattern, a hub.

A clip has fields besides its sound: `text` (its transcript), `label`, `speaker`, and whatever else the source tells.
"""

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from data_prep.workspace.report import Report
from pipeline.errors import ConfigError, DataError

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".aif", ".au", ".sph")
AUDIO_FIELDS = ("audio_filepath", "audio", "file_name", "file", "path", "wav")
WANTED = ("text", "label", "speaker")


@dataclass(frozen=True)
class Clip:
    """A sound that was not read yet, and what is known of it."""

    name: str
    path: Path | None
    fields: Mapping[str, str]
    data: bytes = field(default=b"", repr=False)
    """The file itself, where it lies in no file of its own."""

    @property
    def size(self) -> int:
        """Bytes of the file, 0 where there is none."""
        return self._status[0]

    @property
    def signature(self) -> str:
        """What changes with the clip, or with what is known of it."""
        return f"{self.name} {sorted(self.fields.items())} {self._status}"

    @cached_property
    def _status(self) -> tuple[int, int]:
        """Bytes of the file, and when it was changed."""
        if self.path is None or not self.path.is_file():
            return len(self.data), 0
        status = self.path.stat()
        return status.st_size, status.st_mtime_ns

    def read(self) -> bytes:
        """The file's bytes.

        Raises:
            OSError: it cannot be read.
        """
        return self.data if self.path is None else self.path.read_bytes()


@dataclass(frozen=True)
class Naming:
    """What the fields are called.

    Args:
        audio: the field of a manifest that names the file; by default the first usual name it has.
        text: the field that holds the transcript.
        label: the field that holds the label.
        speaker: the field that names the speaker.
        pattern: of file names, with fields in braces: `{label}_{speaker}_{index}`; with a slash in it, of paths.
    """

    audio: str | None = None
    text: str = "text"
    label: str = "label"
    speaker: str = "speaker"
    pattern: str | None = None

    def named(self, record: Mapping[str, Any]) -> dict[str, str]:
        """A record's fields, under our names."""
        kept = {key: str(value) for key, value in record.items() if isinstance(value, str | int)}
        ours = {name: kept[getattr(self, name)] for name in WANTED if getattr(self, name) in kept}
        return kept | ours


def find(source: str, naming: Naming, report: Report) -> Iterator[Clip]:
    """The clips of a source, in a fixed order; records that name none are counted as bad.

    Args:
        source: a directory, a manifest (.jsonl, .csv, .tsv), or hub:NAME[:CONFIG[:SPLIT]].
        naming: what the fields are called.
        report: where bad records are counted.

    Raises:
        DataError: there is no such source, or nothing in it that is a clip.
    """
    if source.startswith("hub:"):
        return _hub(source, naming, report)
    path = Path(source)
    if path.is_file():
        return _manifest(path, naming, report)
    if not path.is_dir():
        raise DataError(
            f"there is no source {source}; name a directory, a .jsonl or .csv manifest, hub:NAME or builtin"
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
        f"{path} holds no metadata.csv, metadata.jsonl or *.trans.txt: name a manifest, or say with --pattern how "
        "its files are called, such as '{label}_{speaker}_{index}'"
    )


def _manifest(path: Path, naming: Naming, report: Report) -> Iterator[Clip]:
    if path.suffix == ".jsonl":
        return _records(path, _json_lines(path, report), naming, report)
    with _opened(path) as file:
        head = file.readline()
    if "|" in head and "," not in head.split("|")[0]:
        return _ljspeech(path, report)
    return _records(path, _rows(path), naming, report)


def _opened(path: Path) -> Any:
    try:
        return path.open(encoding="utf-8", newline="")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _json_lines(path: Path, report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
            except ValueError:
                report.reject(f"{path}:{number}", "not JSON")
                continue
            if isinstance(record, dict):
                yield number, record
            else:
                report.reject(f"{path}:{number}", "no JSON object")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with _opened(path) as file:
        rows = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        try:
            yield from ((rows.line_num, row) for row in rows)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path} is no table in UTF-8 ({error}); name a .jsonl, .csv or .tsv manifest") from error


def _records(
    path: Path, records: Iterator[tuple[int, dict[str, Any]]], naming: Naming, report: Report
) -> Iterator[Clip]:
    for number, record in records:
        names = [naming.audio] if naming.audio else AUDIO_FIELDS
        file = next((record[name] for name in names if isinstance(record.get(name), str)), None)
        if file is None:
            report.reject(f"{path}:{number}", f"no file named (fields {', '.join(names)})")
            continue
        yield Clip(file, path.parent / file, naming.named(record))


def _ljspeech(path: Path, report: Report) -> Iterator[Clip]:
    """`ID|transcript|normalised transcript`, and a file of that name somewhere below."""
    files = {file.stem: file for file in _sounds(path.parent)}
    with _opened(path) as lines:
        for number, line in enumerate(lines, 1):
            name, *texts = line.rstrip("\r\n").split("|")
            if name not in files or not texts:
                report.reject(f"{path}:{number}", "no such file" if texts else "no transcript")
                continue
            yield Clip(files[name].name, files[name], {"text": texts[-1]})


def _librispeech(transcripts: list[Path], report: Report) -> Iterator[Clip]:
    """SPEAKER-CHAPTER.trans.txt with lines `SPEAKER-CHAPTER-NUMBER TRANSCRIPT`, beside the files."""
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
            report.reject(str(file), f"a name that is not like {pattern}")
            continue
        yield Clip(inner.as_posix() + file.suffix, file, match.groupdict())
    if not found:
        raise DataError(f"no file below {path} ends in {', '.join(SUFFIXES)}")


def compiled(pattern: str) -> re.Pattern[str]:
    """The regular expression for a pattern with fields in braces; a field is as short as it can be.

    Raises:
        ConfigError: a field is no name, or comes twice.
    """
    parts = re.split(r"\{(\w*)\}", pattern)
    names = parts[1::2]
    if not names or len(set(names)) != len(names) or not all(name.isidentifier() for name in names):
        raise ConfigError(f"--pattern {pattern!r} wants fields in braces, each once, such as '{{label}}_{{speaker}}'")
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
        found = found.cast_column(column, datasets.Audio(decode=False))  # bytes as they are
        classes = features[naming.label].names if hasattr(features.get(naming.label), "names") else None
    except Exception as error:  # whatever the hub, the network or the builder has to say
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{source} cannot be loaded: {first[0]}") from error
    for number, record in enumerate(found):
        audio = record.pop(column)
        if not audio or not (audio.get("bytes") or audio.get("path")):
            report.reject(f"{source}:{number}", f"no sound in {column!r}")
            continue
        fields = naming.named(record)
        if classes is not None:
            fields["label"] = str(classes[record[naming.label]])
        shown = audio.get("path") or f"{source}:{number}"
        yield Clip(shown, None if audio.get("bytes") else Path(shown), fields, audio.get("bytes") or b"")
