"""Clips on disk and the datasets made from them, for the tests of `data_prep.audio`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from data_prep.audio import command as audio
from pipeline.dataset.manifest import Dataset

RATE = 8000


def tone(seconds: float, hertz: float = 440.0, rate: int = RATE) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def write(path: Path, samples: np.ndarray, rate: int = RATE, **how: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **how)


def prepare(source: Path | str, output: Path, *options: str) -> Dataset:
    shares = () if "--validation-share" in options else ("--validation-share", "0", "--test-share", "0")
    common = ["--output", str(output), "--rate", str(RATE), "--workers", "1", *shares]
    assert audio.main([str(source), *common, *options]) == 0
    return Dataset.open(output, "audio")


def texts(dataset: Dataset, split: str = "train") -> dict[str, str]:
    rows = dataset.splits[split]
    return {rows.value("name", row): rows.references(row)[0] for row in range(rows.rows)}


def bad(output: Path) -> dict[str, list[str]]:
    """Return the names of the invalid records by reason."""
    return {reason: each["first"] for reason, each in report(output)["bad"].items()}


def report(output: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((output / "report.json").read_text())
    return found


def speakers(dataset: Dataset, split: str = "train") -> list[str]:
    """Return the speakers of a split in order."""
    rows = dataset.splits[split]
    return [rows.value("speaker", row) for row in range(rows.rows)]
