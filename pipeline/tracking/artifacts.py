"""Datasets, checkpoints and models as artifacts of Weights & Biases: where they are, and what proves it is them.

An artifact holds the manifest of the thing, which names the SHA-256 of every file, and a reference to the directory;
its own digest follows from these. The files themselves are sent only where that is asked for.
"""

import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.files import write_durably
from pipeline.runs.run import Run
from pipeline.tracking.redact import without_keys

PATCH = "code.patch"
LARGEST = 1_000_000  # bytes: a longer difference is no state of code that anybody reads


def dataset(run: Run) -> Any:
    """What the run learns from; None where it cannot be seen from here."""
    about = run.record["dataset"]
    return _artifact(Path(about["path"]).name, "dataset", Path(about["path"]), ["dataset.json"], about)


def published(run: Run, record: dict[str, Any], upload: bool) -> Any:
    """A checkpoint, or an exported model, that the journal tells of; None where it is not there any more.

    Args:
        run: the run.
        record: of the journal: `path`, `step`, `metrics`.
        upload: hold the files, not only a reference.
    """
    place = Path(record["path"])
    kind = record["kind"]
    about = {"step": record["step"], "run": run.name, **record.get("metrics", {})}
    files = {"checkpoint": ["manifest.json"], "model": ["README.md", "config.yaml"]}[kind]
    return _artifact(f"{run.name}-{kind}", kind, place if kind == "model" else run.path / place, files, about, upload)


def keep_patch(run: Run) -> None:
    """Write what the checkout differs in from its commit into the run, without anything that looks like a key.

    A patch that cannot be made or written is none: training begins all the same.
    """
    file = run.path / PATCH
    command = ["git", "-C", str(Path(__file__).parent), "diff", "HEAD"]
    with suppress(OSError, subprocess.TimeoutExpired):
        file.unlink(missing_ok=True)
        found = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10)
        if found.returncode == 0 and 0 < len(found.stdout) <= LARGEST:
            write_durably(file, lambda path: path.write_text(without_keys(found.stdout), encoding="utf-8"))


def code(run: Run) -> Any:
    """What the code that runs differs in from its commit; None where it does not."""
    about = {"git_commit": run.record["git_commit"]}
    return _artifact(f"{run.name}-code", "code", run.path, [PATCH], about) if (run.path / PATCH).exists() else None


def _artifact(name: str, kind: str, place: Path, files: list[str], about: dict[str, Any], upload: bool = False) -> Any:
    import wandb

    if not all((place / file).is_file() for file in files):
        return None
    artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", name), kind, metadata=about)
    if upload:
        artifact.add_dir(str(place))  # of a copy: the directory may be removed before all is sent
        return artifact
    for file in files:
        artifact.add_file(str(place / file), name=file)
    if kind != "code":
        artifact.add_reference(place.resolve().as_uri(), name="files", checksum=False)
    return artifact
