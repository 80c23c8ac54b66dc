"""Sources of clips: manifests, directories with names that follow a pattern, and the layouts of published corpora."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from data_prep.audio import corpora, hub, kaldi, manifests
from data_prep.audio.clips import AUDIO_FIELDS, SUFFIXES, Clip, Naming, normalized
from data_prep.sources.walk import SPLIT_NAMES, name_of, split_folders, walk
from data_prep.workspace.report import Report
from pipeline.dataset.codecs.encoding import open_text, readable, suffix_of
from pipeline.errors import ConfigError, DataError

TABLES = (".csv", ".jsonl", ".json", ".tsv", ".parquet")
METADATA = (*(f"metadata{suffix}" for suffix in TABLES), "cuts.jsonl", "cuts.jsonl.gz")
Splits = dict[str, list[Clip]]


def find(source: str, naming: Naming, report: Report, divide: bool = True) -> Splits:
    """Return the clips of a source in a fixed order; those of splits of its own by split, else as `train`.

    Args:
        source: a directory, a manifest, or hub:NAME[:CONFIG[:SPLIT]].
        naming: names of the fields.
        report: counts invalid records, and what is left out.
        divide: whether folders or tables named train, validation and test are the splits.

    Raises:
        DataError: the source does not exist or holds no clips.
    """
    if source.startswith("hub:"):
        return {"train": list(hub.clips(source, naming, report))}
    path = Path(source)
    if path.is_dir():
        return _directory(path, naming, report, divide)
    if not path.is_file():
        raise DataError(
            f"source {source} does not exist. Name a directory, a manifest ({' '.join(TABLES)}), hub:NAME or builtin"
        )
    if path.name == kaldi.RECORDINGS:
        return {"train": list(kaldi.clips(path.parent, report))}
    return {"train": list(_manifest(path, naming, report))}


def _directory(path: Path, naming: Naming, report: Report, divide: bool) -> Splits:
    folders = split_folders(path) if divide else {}
    if naming.pattern is None:
        if divide and (tables := _split_tables(path, report)):
            return {split: list(manifests.clips(table, naming, report)) for split, table in tables.items()}
        if table := next((path / name for name in METADATA if (path / name).is_file()), None):
            return _in_folders(path, list(_manifest(table, naming, report)), folders)
    if folders:
        for other in path.iterdir():
            if other not in folders.values():
                report.leave_out(str(other), "beside the folders of the splits")
        return {split: list(_of_folder(folder, naming, report)) for split, folder in folders.items()}
    if naming.pattern is not None:
        return {"train": list(_by_pattern(path, naming.pattern, report))}
    if (path / kaldi.RECORDINGS).is_file():
        return {"train": list(kaldi.clips(path, report))}
    if found := corpora.find(path, report, divide):
        return found
    raise DataError(
        f"directory {path} has no metadata.csv, metadata.jsonl or *.trans.txt. Name a manifest, or describe the file "
        "names with --pattern, such as '{label}_{speaker}_{index}'"
    )


def _of_folder(folder: Path, naming: Naming, report: Report) -> Iterator[Clip]:
    """Yield the clips of the folder of a split, with its name in theirs."""
    for clips in _directory(folder, naming, report, divide=False).values():
        yield from (replace(clip, name=f"{folder.name}/{clip.name}") for clip in clips)


def _in_folders(path: Path, clips: list[Clip], folders: dict[str, Path]) -> Splits:
    """Return the clips of one manifest by the folder of a split that holds their files; others are for training."""
    found: Splits = {split: [] for split in ("train", *folders)}
    for clip in clips:
        inside = (split for split, folder in folders.items() if clip.path and clip.path.is_relative_to(folder))
        found[next(inside, "train")].append(clip)
    return found


def _split_tables(path: Path, report: Report) -> dict[str, Path]:
    """Return the tables of the splits, such as train.tsv and test.tsv or train_manifest.json and dev_manifest.json."""
    tables = sorted(file for file in path.iterdir() if suffix_of(file) in TABLES and file.is_file())
    found: dict[str, Path] = {}
    others = []
    for table in tables:
        name = table.name.partition(".")[0].lower().removesuffix("_manifest")
        split = next((split for split, names in SPLIT_NAMES.items() if name in names), None)
        if split is None:
            others.append(table)
        elif split in found:
            raise DataError(f"{table} and {found[split]} are both the {split} split. Name one of them with --{split}")
        else:
            found[split] = table
    if "train" not in found or len(found) == 1:
        return {}
    for table in others:
        report.leave_out(str(table), "table of no split")
    return found


def _manifest(path: Path, naming: Naming, report: Report) -> Iterator[Clip]:
    with open_text(path) as file, readable(path):
        head = file.readline(1 << 16)
    first, *others = head.decode(errors="replace").split("|")
    if others and "," not in first and not first.startswith("{") and first not in (naming.audio, *AUDIO_FIELDS):
        return corpora.ljspeech(path, report)
    return manifests.clips(path, naming, report)


def _by_pattern(path: Path, pattern: str, report: Report) -> Iterator[Clip]:
    expression = compiled(pattern)
    files = walk(path, SUFFIXES, report)
    for file in files:
        inner = file.relative_to(path)
        name = normalized((inner if "/" in pattern else Path(inner.name)).with_suffix("").as_posix())
        match = expression.fullmatch(name)
        if match is None:
            report.reject(str(file), f"name does not match --pattern {pattern}", f"compared {name}")
            continue
        yield Clip(name_of(inner.as_posix()), file, match.groupdict())
    if not files:
        raise DataError(f"directory {path} has no audio files ({', '.join(SUFFIXES)}). Name another directory")


def compiled(pattern: str) -> re.Pattern[str]:
    """Return the regular expression for a pattern with fields in braces; fields match as little as possible.

    Raises:
        ConfigError: a field has an invalid name or appears twice, or the pattern lacks fields.
    """
    parts = re.split(r"\{(\w*)\}", normalized(pattern))
    names = parts[1::2]
    if not names or len(set(names)) != len(names) or not all(name.isidentifier() for name in names):
        raise ConfigError(
            f"--pattern={pattern}: expected fields in braces, each once, such as '{{label}}_{{speaker}}_{{index}}'"
        )
    inside = "".join(f"(?P<{part}>[^/]+?)" if at % 2 else re.escape(part) for at, part in enumerate(parts))
    return re.compile(inside)
