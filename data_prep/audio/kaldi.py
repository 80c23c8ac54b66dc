"""Data directories of Kaldi: `wav.scp`, `text`, `utt2spk`, and `segments` of the recordings.

https://kaldi-asr.org/doc/data_prep.html
"""

import re
from collections.abc import Iterator
from pathlib import Path

from data_prep.audio.clips import WHOLE, Clip, Files, Part, normalized
from data_prep.audio.manifests import lines, part_between
from data_prep.workspace.report import Report
from pipeline.errors import DataError

RECORDINGS = "wav.scp"
SIDES = {"A": 0, "B": 1}  # channels of telephone calls


def clips(path: Path, report: Report) -> Iterator[Clip]:
    """Yield the utterances of a data directory.

    Raises:
        DataError: `wav.scp` names commands or archives instead of files.
    """
    recordings = _table(path / RECORDINGS, report)
    for name, file in recordings.items():
        if file.endswith("|") or re.search(r"\.ark:\d+$", file):
            raise DataError(
                f"{path / RECORDINGS}: expected audio files, got a command or an archive ({name} {file}). Commands are "
                "not run: write their output to files, for example with wav-copy, and name these"
            )
    texts, speakers, sides = (_table(path / name, report) for name in ("text", "utt2spk", "reco2file_and_channel"))
    durations = _durations(path / "reco2dur", report)
    files = Files(path, Path())
    for name, recording, part in _utterances(path, recordings, report):
        texts_and_speaker = {"text": texts.pop(name, ""), "speaker": speakers.get(name, "")}
        if recording not in recordings:
            report.reject(name, f"recording not in {RECORDINGS}", recording)
            continue
        if recording in durations:
            part = part._replace(recording=durations[recording])
        if part.channel is None and recording in sides:
            part = part._replace(channel=SIDES.get(sides[recording].split()[-1].upper()))
        fields = {key: normalized(value) for key, value in texts_and_speaker.items() if value}
        yield Clip(name, files.find(recordings[recording]), {"utterance": normalized(name), **fields}, part=part)
    for name in texts:
        report.reject(name, "text without an utterance in wav.scp or segments")


def _utterances(path: Path, recordings: dict[str, str], report: Report) -> Iterator[tuple[str, str, Part]]:
    """Yield the name, the recording and the part of each utterance."""
    segments = path / "segments"
    if not segments.is_file():
        yield from ((name, name, WHOLE) for name in recordings)
        return
    for name, line in _table(segments, report).items():
        recording, *times = line.split()
        if len(times) not in (2, 3):
            report.reject(name, "expected a recording, a start and an end in segments", line)
            continue
        start, end, *channel = times
        try:
            part = part_between(float(start), None if float(end) < 0 else float(end))  # -1 is the end of the recording
            yield name, recording, part._replace(channel=int(channel[0]) if channel and channel[0] != "-1" else None)
        except ValueError as error:
            report.reject(name, "invalid start or end", f"{line}: {error}")


def _durations(path: Path, report: Report) -> dict[str, float]:
    """Return the duration of each recording in seconds, as far as they are stated."""
    found = {}
    for name, written in _table(path, report).items():
        try:
            found[name] = float(written)
        except ValueError:
            report.reject(name, f"invalid duration in {path.name}", written)
    return found


def _table(path: Path, report: Report) -> dict[str, str]:
    """Return the rest of each line by its first word; nothing if the file does not exist."""
    found: dict[str, str] = {}
    for number, line in lines(path, report) if path.is_file() else ():
        name, *rest = line.split(maxsplit=1)
        if name in found:
            report.reject(f"{path}:{number}", "identifier twice in one file", name)
        else:
            found[name] = "".join(rest).strip()
    return found
