"""Layouts of published corpora: LJSpeech, LibriSpeech, Speech Commands and VCTK."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from data_prep.audio.clips import SUFFIXES, Clip, normalized
from data_prep.audio.manifests import lines
from data_prep.sources.walk import name_of, walk
from data_prep.workspace.report import Report

LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}  # of Speech Commands
SUBSETS = {"train": "train-", "validation": "dev-", "test": "test-"}  # beginnings of LibriSpeech's folders
TRANSCRIPTS = ".trans.txt"
NO_FILE, NO_TRANSCRIPT = "no such file", "audio file without a transcript"


def find(path: Path, report: Report, divide: bool) -> dict[str, list[Clip]]:
    """Return the clips of a directory in a known layout by split; nothing if the layout is another one.

    Args:
        path: the directory.
        report: counts invalid records, and what is left out.
        divide: whether splits of the layout itself are kept.
    """
    if all((path / name).is_file() for name in LISTS.values()):
        found = _speech_commands(path, report)
    elif (path / "txt").is_dir() and (sounds := sorted(path.glob("wav48*"))):
        found = {"train": list(_vctk(path / "txt", sounds[0], report))}
    elif next(path.rglob(f"*{TRANSCRIPTS}"), None):
        found = _librispeech(path, report)
    else:
        return {}
    if divide and found.get("train"):
        return found
    return {"train": [clip for clips in found.values() for clip in clips]}


def ljspeech(path: Path, report: Report) -> Iterator[Clip]:
    """Yield the clips of lines `ID|transcript|normalized transcript`, with audio files ID beside or below the file."""
    files = defaultdict(list)
    for file in walk(path.parent, (*SUFFIXES, path.suffix), report):
        if file.suffix.lower() in SUFFIXES:
            files[normalized(file.stem)].append(file)
    width = 0
    for number, line in lines(path, report):
        name, *texts = line.split("|")
        width = width or len(texts)
        found = files[normalized(name)]
        if len(texts) != width:
            report.reject(f"{path}:{number}", "another number of fields than the first line")
        elif len(found) != 1:
            report.reject(f"{path}:{number}", "several files of this name" if found else NO_FILE, name)
        else:
            yield Clip(name_of(found[0].name), found[0], {"text": normalized(texts[-1])})


def _librispeech(path: Path, report: Report) -> dict[str, list[Clip]]:
    """Read files SPEAKER-CHAPTER.trans.txt with lines `SPEAKER-CHAPTER-NUMBER TRANSCRIPT`, beside the audio files."""
    files = walk(path, (*SUFFIXES, ".txt"), report)
    sounds = {(file.parent, file.stem): file for file in files if file.suffix.lower() in SUFFIXES}
    found: dict[str, list[Clip]] = {split: [] for split in SUBSETS}
    for table in (file for file in files if file.name.endswith(TRANSCRIPTS)):
        top = table.relative_to(path).parts[0]
        split = next((split for split, start in SUBSETS.items() if top.startswith(start)), "train")
        for number, line in lines(table, report):
            name, _, text = line.strip().partition(" ")
            if (file := sounds.pop((table.parent, name), None)) is None:
                report.reject(f"{table}:{number}", NO_FILE, name)
            else:
                found[split].append(
                    Clip(name_of(file.name), file, {"text": normalized(text), "speaker": name.split("-")[0]})
                )
    for file in sounds.values():
        report.leave_out(str(file), NO_TRANSCRIPT)
    return {split: clips for split, clips in found.items() if clips}


def _speech_commands(path: Path, report: Report) -> dict[str, list[Clip]]:
    """Read files LABEL/SPEAKER_nohash_NUMBER.wav, and the lists of those in the validation and test splits."""
    split_of = {normalized(line): split for split, name in LISTS.items() for _, line in lines(path / name, report)}
    found: dict[str, list[Clip]] = {split: [] for split in ("train", *LISTS)}
    for file in walk(path, SUFFIXES, report):
        inner = file.relative_to(path)
        if len(inner.parts) != 2 or inner.parts[0].startswith("_"):  # _background_noise_ is not a word
            report.leave_out(str(file), "not in the folder of a word")
            continue
        fields = {"label": normalized(inner.parts[0]), "speaker": normalized(file.stem.partition("_nohash_")[0])}
        name = name_of(inner.as_posix())
        found[split_of.pop(name, "train")].append(Clip(name, file, fields))
    for name, split in split_of.items():
        report.reject(name, NO_FILE, LISTS[split])
    return found


def _vctk(texts: Path, sounds: Path, report: Report) -> Iterator[Clip]:
    """Read files txt/SPEAKER/NAME.txt and wav48*/SPEAKER/NAME_mic1.flac; another microphone is left out."""
    transcripts = {(file.parent.name, file.stem): file for file in walk(texts, (".txt",), report)}
    seen = set()
    for file in walk(sounds, SUFFIXES, report):
        key = file.parent.name, re.sub(r"_mic\d+$", "", file.stem)
        if key in seen:
            report.leave_out(str(file), "another microphone")
        elif key not in transcripts:
            report.leave_out(str(file), NO_TRANSCRIPT)
        else:
            seen.add(key)
            text = " ".join(line for _, line in lines(transcripts[key], report))
            yield Clip(name_of(file.name), file, {"text": normalized(text), "speaker": normalized(key[0])})
    for key in sorted(transcripts.keys() - seen):
        report.reject(str(transcripts[key]), "transcript without an audio file")
