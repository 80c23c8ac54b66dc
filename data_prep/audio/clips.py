"""A clip of a source: its recording, the part of it that the clip is, and its fields.

A clip has fields besides its audio: `text` (its transcript), `label`, `speaker`, and all other fields of the source.
"""

import os
import stat
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from data_prep.sources.walk import name_of

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".aif", ".au", ".sph")
AUDIO_FIELDS = ("audio_filepath", "audio", "file_name", "file", "path", "wav")
FIELDS = {  # the fields of a clip: the first of these names that a record has
    "text": ("text", "sentence", "transcription", "transcript"),
    "label": ("label",),
    "speaker": ("speaker", "speaker_id", "client_id"),
}
INVISIBLE = ("Cf", "Cc")  # Unicode categories of characters that are not text alone
Record = Mapping[str, object]


class Part(NamedTuple):
    """The part of a recording that a clip is, and what the source states about the recording."""

    start: float = 0.0
    """Seconds before the part."""
    seconds: float | None = None
    """Duration; None to the end of the recording."""
    channel: int | None = None
    """Channel, from 0; None mixes all."""
    recording: float | None = None
    """Stated duration of the recording in seconds."""
    rate: int | None = None
    """Stated sampling rate of the recording in hertz."""
    channels: int | None = None
    """Stated number of channels of the recording."""

    @property
    def shown(self) -> str:
        """The interval as a W3C media fragment; empty for the whole recording."""
        if self.start == 0 and self.seconds is None:
            return ""
        end = "" if self.seconds is None else f",{round(self.start + self.seconds, 3):.12g}"
        return f"#t={round(self.start, 3):.12g}{end}"


WHOLE = Part()


@dataclass(frozen=True)
class Clip:
    """An audio clip that has not been read yet, with its fields."""

    name: str
    path: Path | None
    fields: Mapping[str, str]
    data: bytes = field(default=b"", repr=False)
    """Content of the audio file, for a clip without its own file."""
    part: Part = WHOLE

    @property
    def size(self) -> int:
        """Size of the file in bytes, 0 if there is none."""
        return len(self.data) if self._status is None else self._status.st_size

    @property
    def signature(self) -> str:
        """String that changes when the file or the fields change."""
        changed = self._status.st_mtime_ns if self._status else 0
        return f"{self.name} {sorted(self.fields.items())} {self.size} {changed} {tuple(self.part)}"

    @cached_property
    def recording(self) -> tuple[object, ...]:
        """Identity of the audio file, whatever the path that names it."""
        if self.path is None:
            return (blake2b(self.data, digest_size=16).digest(),)
        if self._status is None or not self._status.st_ino:
            return (os.path.realpath(self.path),)
        return self._status.st_dev, self._status.st_ino

    @property
    def identity(self) -> tuple[object, ...]:
        """Identity of the recording and the part, to a millisecond."""
        start, seconds, channel, *_ = self.part
        return *self.recording, round(start, 3), None if seconds is None else round(seconds, 3), channel

    @cached_property
    def _status(self) -> os.stat_result | None:
        """Status of a regular file, None if there is none."""
        try:
            status = None if self.path is None else self.path.stat()
        except (OSError, ValueError):  # a name with a NUL character raises ValueError
            return None
        return status if status is not None and stat.S_ISREG(status.st_mode) else None

    def read(self) -> bytes:
        """Return the bytes of the file.

        Raises:
            OSError: the file cannot be read.
        """
        if self.path is None:
            return self.data
        if self._status is None and self.path.exists():
            raise OSError(0, "not a regular file")  # reading a pipe would wait for its writer
        return self.path.read_bytes()


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

    def fields(self, record: Record) -> dict[str, str]:
        """Return the fields of a record, those of `FIELDS` under their standard names."""
        kept = {key: normalized(str(value)) for key, value in record.items() if isinstance(value, str | int)}
        for name, others in FIELDS.items():
            names = others if getattr(self, name) == name else (getattr(self, name),)
            if found := next((each for each in names if each in kept), None):
                kept[name] = kept[found]
        return kept


LONGEST_NAME, LONGEST_PATH = 255, 1000  # bytes and characters: file systems report an error for longer ones


class Files:
    """Finds the files that a manifest names, by the normal form of their names.

    Args:
        folders: where relative names begin, in the order in which they are tried.
    """

    def __init__(self, *folders: Path) -> None:
        self.folders = folders
        self._listed: dict[Path, dict[str, str]] = {}

    def find(self, name: str) -> Path:
        """Return the path of a file, which does not exist if nothing has this name."""
        longest = max((len(part.encode(errors="replace")) for part in name.split("/")), default=0)
        if "\0" in name or longest > LONGEST_NAME or len(name) > LONGEST_PATH:
            return self.folders[0] / name.replace("\0", "").replace("/", "-")[:40]
        for folder in self.folders:
            if (path := folder / name).is_file():
                return path
        for written in dict.fromkeys((name, name.strip().replace("\\", "/"))):
            for folder in self.folders:
                if (found := self._normal(folder, written)) is not None:
                    return found
        return self.folders[0] / name

    def _normal(self, folder: Path, name: str) -> Path | None:
        """Return the file whose name has the same normal form."""
        path = folder
        for part in PurePosixPath(name).parts:
            if not (path / part).exists():
                if (written := self._names(path).get(unicodedata.normalize("NFC", part))) is None:
                    return None
                part = written
            path /= part
        return path if path.is_file() else None

    def _names(self, folder: Path) -> dict[str, str]:
        """Return the names in a folder by their normal forms."""
        if folder not in self._listed:
            try:
                names = os.listdir(folder)
            except OSError:
                names = []
            self._listed[folder] = {unicodedata.normalize("NFC", name): name for name in names}
        return self._listed[folder]


def normalized(text: str) -> str:
    """Return a text in Unicode's normal form NFC, with single spaces; empty if nothing in it is visible."""
    text = " ".join(name_of(text).replace("\ufeff", "").split())
    if not text.isascii() and all(each == " " or unicodedata.category(each) in INVISIBLE for each in text):
        return ""
    return text
