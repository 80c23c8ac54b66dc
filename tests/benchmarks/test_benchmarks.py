"""The scripts of the benchmarks run small, store what they find, and their pages are rendered from their files."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
Script = Callable[..., None]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Runs a script with arguments, in this process: importing the packages takes longer than measuring."""
    monkeypatch.syspath_prepend(HERE)
    for name, value in {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}.items():
        monkeypatch.setenv(name, value)

    def run(name: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        importlib.import_module(name).main()

    return run


def rows(file: Path, table: str) -> list[dict[str, Any]]:
    """The rows of a table, whose circumstances are stored with it."""
    found = json.loads(file.read_text())[table]
    assert all(found[name] for name in ("title", "about", "date", "commit", "machine"))
    assert found["load"] >= 0
    assert "--output" not in found["command"]
    return list(found["rows"])


@pytest.mark.slow
def test_families_and_loaders_are_measured_and_stored_in_one_file(script: Script, tmp_path: Path) -> None:
    output = tmp_path / "cpu.json"
    script("bench_fit", "recall", "--rounds", 1, "--seconds", 0.01, f"--output={output}")
    assert [row["family"] for row in rows(output, "families")] == ["recall"]
    small = ("--rounds", 1, "--batches", 2, "--tokens", 20_000)
    script("bench_loader", "documents", *small, "--output", output)
    assert {row["loader"] for row in rows(output, "loader")} == {"documents"}
    assert all(row["ratio"] > 0 for table in ("families", "loader") for row in rows(output, table))
    page = output.with_suffix(".md").read_text()
    assert "| recall |" in page
    assert "| documents |" in page


@pytest.mark.slow
def test_a_peer_trains_beside_unroll_and_one_that_is_not_installed_is_named(script: Script, tmp_path: Path) -> None:
    output = tmp_path / "peers.json"
    small = ("--rounds", 1, "--steps", 1, "--longest", 5, "--environments", tmp_path / "none", "--installed")
    script("bench_peers", "speech", "translation", "generate 200", *small, "--output", output)
    speech, missing = rows(output, "training")
    assert missing == {"case": "translation", "peer": "joeynmt is not installed"}
    assert min(speech["ms per step"], speech["their ms per step"]) > 0
    assert speech["steps"] == 5
    assert speech["parameters"] == pytest.approx(speech["their parameters"], rel=0.05)
    assert rows(output, "generation") == [{"case": "generation", "peer": "transformers is not installed"}]


def test_every_row_of_the_report_on_a_gpu_runs_small_on_the_cpu(script: Script, tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    before = {"validation": 1.5, "date": "2026-01-01", "commit": "abc"}
    output.write_text(json.dumps({"shakespeare": before}))
    chosen = ["machine", "fit lstm", "gpt", "lstm", "gpt eager", "long context", "gpt bare", "generation", "head"]
    chosen.append("precisions")
    script("gpu_report", "--device", "cpu", "--tiny", "--output", output, "--rows", *chosen)
    found = json.loads(output.read_text())
    assert list(found) == ["shakespeare", *chosen]
    assert not [row for row in found.values() if "error" in row]
    assert found["fit lstm"]["ratio"] > 0
    assert found["shakespeare"] == before
    page = output.with_suffix(".md").read_text()
    assert all(f"| {name} |" in page for name in found)
