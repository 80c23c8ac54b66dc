"""Captioned images that tests prepare, and the captions of a prepared dataset."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from data_prep.captions import command as captions
from data_prep.sources.shapes import drawn
from pipeline.dataset.codecs.image import decode_image
from pipeline.dataset.manifest import Dataset

WHOLE = ["--validation-share", 0, "--test-share", 0, "--tokenizer", "byte", "--workers", 1]
COUNT = 24
Capture = pytest.CaptureFixture[str]


def prepare(output: Path, *arguments: object) -> Dataset:
    assert captions.main([*map(str, arguments), "--output", str(output)]) == 0
    return Dataset.open(output, kind="captions")


def rows(dataset: Dataset, split: str = "train") -> dict[str, list[str]]:
    """Return the captions of every image by name, after checking their tokens and the image."""
    tokenizer = Tokenizer.from_file(str(dataset.target.file))
    found, part = {}, dataset.splits[split]
    for row in range(part.rows):
        samples = range(part.first_samples[row], part.first_samples[row + 1])
        assert [tokenizer.decode(part.target(sample)) for sample in samples] == part.references(row)
        assert decode_image(part.value("image", row)).mode == "RGB"
        found[part.value("name", row)] = part.references(row)
    return found


def expected(prefix: str = "") -> dict[str, set[str]]:
    return {f"{prefix}{number}.jpg": set(drawn(number)[1]) for number in range(COUNT)}


def as_sets(found: dict[str, list[str]]) -> dict[str, set[str]]:
    return {name: set(captions) for name, captions in found.items()}


def report_of(dataset: Dataset) -> dict[str, Any]:
    """Return the report of a dataset."""
    report: dict[str, Any] = json.loads((dataset.path / "report.json").read_text(encoding="utf-8"))
    return report


def counts(dataset: Dataset, part: str = "bad") -> dict[str, int]:
    """Return the number of invalid records, notes or files left out, by reason."""
    return {reason: entry["count"] for reason, entry in report_of(dataset).get(part, {}).items()}


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """Write a tar file of these members."""
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            file.addfile(about, io.BytesIO(data))
    return path
