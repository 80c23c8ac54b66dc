"""Datasets, checkpoints and models as Weights & Biases artifacts that reference and identify files.

An artifact holds a manifest with the SHA-256 of every file, and a reference to the directory. Its digest follows
from these. The files themselves are uploaded only on request.
"""

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.files import write_durably
from pipeline.runs.code import hash_of, working_diff
from pipeline.runs.run import Run
from pipeline.tracking.redact import without_keys

if TYPE_CHECKING:
    from wandb import Artifact

PATCH, PATCHES = "code.patch", "patches"  # of the last attempt; of all attempts, by hash
LONGEST_NAME = 128  # characters of an artifact's name
LARGEST = 1_000_000  # bytes; a longer diff is not kept


def dataset(run: Run) -> "Artifact | None":
    """Return the artifact of the run's dataset; None if the dataset is not accessible."""
    about = run.record["dataset"]
    return _artifact(Path(about["path"]).name, "dataset", Path(about["path"]), ["dataset.json"], about)


def published(run: Run, record: Mapping[str, Any], upload: bool) -> "Artifact | None":
    """Return the artifact of a checkpoint or exported model in the journal; None if its files are missing.

    Args:
        run: the run.
        record: the journal's record with `path`, `step` and `metrics`.
        upload: include the files, not only a reference.
    """
    place = Path(record["path"])
    kind = record["kind"]
    about = {"step": record["step"], "run": run.name, **record.get("metrics", {})}
    files = {"checkpoint": ["manifest.json"], "model": ["README.md", "config.yaml"]}[kind]
    return _artifact(f"{run.name}-{kind}", kind, place if kind == "model" else run.path / place, files, about, upload)


def keep_patch(run: Run) -> None:
    """Write the diff between the checkout and its commit into the run, with secrets redacted, once per difference.

    Failures are ignored: training starts without the patch.
    """
    latest = run.path / PATCH
    with suppress(OSError):
        latest.unlink(missing_ok=True)
        diff = working_diff() or ""
        if 0 < len(diff) <= LARGEST:
            (run.path / PATCHES).mkdir(exist_ok=True)
            for file in (latest, run.path / PATCHES / f"{hash_of(diff)}.patch"):
                write_durably(file, lambda path: path.write_text(without_keys(diff), encoding="utf-8"))


def code(run: Run) -> "Artifact | None":
    """Return the artifact of the diff between the running code and its commit; None if they do not differ."""
    about = {"git_commit": run.record["git_commit"]}
    return _artifact(f"{run.name}-code", "code", run.path, [PATCH], about) if (run.path / PATCH).exists() else None


def _artifact(
    name: str, kind: str, directory: Path, files: list[str], metadata: dict[str, object], upload: bool = False
) -> "Artifact | None":
    import wandb

    def complete() -> bool:
        return all((directory / file).is_file() for file in files)

    if not complete():
        return None
    label = name_of_artifact(name)
    artifact = wandb.Artifact(label, kind, metadata=metadata if label == name else {**metadata, "name": name})
    try:
        _fill(artifact, directory, files, upload)
    except (OSError, ValueError):  # a file was not found
        if complete():
            raise
        return None  # a newer checkpoint replaced this one meanwhile
    return artifact


def _fill(artifact: "Artifact", directory: Path, files: list[str], upload: bool) -> None:
    if upload:
        artifact.add_dir(str(directory))  # copies: the directory may be removed before the upload completes
        return
    for file in files:
        artifact.add_file(str(directory / file), name=file)
    if artifact.type != "code":
        artifact.add_reference(directory.resolve().as_uri(), name="files", checksum=False)


def name_of_artifact(name: str) -> str:
    """Return a name that W&B accepts: ASCII, at most 128 characters, and another one for each name."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^\w.-]", "-", plain, flags=re.ASCII)
    if plain == name and len(name) <= LONGEST_NAME:
        return name
    return f"{plain[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
