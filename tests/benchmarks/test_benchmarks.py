"""The scripts of the benchmarks run small, store what they find, and their pages are rendered from their files."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import commands

HERE = Path(__file__).parent


def run(script: str, *arguments: object) -> str:
    """The output of a script."""
    command = [sys.executable, HERE / script, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = commands.run(command, 120, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rows(file: Path, table: str) -> list[dict[str, Any]]:
    """The rows of a table, whose circumstances are stored with it."""
    found = json.loads(file.read_text())[table]
    assert all(found[name] for name in ("title", "about", "date", "commit", "machine"))
    assert found["load"] >= 0
    assert "--output" not in found["command"]
    return list(found["rows"])


@pytest.mark.slow
def test_families_and_loaders_are_measured_and_stored_in_one_file(tmp_path: Path) -> None:
    output = tmp_path / "cpu.json"
    run("bench_fit.py", "recall", "--rounds", 1, "--seconds", 0.01, f"--output={output}")
    assert [row["family"] for row in rows(output, "families")] == ["recall"]
    small = ("--rounds", 1, "--batches", 2, "--tokens", 20_000, "--starts", 0)
    run("bench_loader.py", "documents", *small, "--output", output)
    assert {row["loader"] for row in rows(output, "loader")} == {"documents"}
    assert all(row["ratio"] > 0 for table in ("families", "loader") for row in rows(output, table))
    page = output.with_suffix(".md").read_text()
    assert "| recall |" in page
    assert "| documents |" in page


@pytest.mark.slow
def test_a_peer_trains_beside_unroll_and_one_that_is_not_installed_is_named(tmp_path: Path) -> None:
    output = tmp_path / "peers.json"
    small = ("--rounds", 1, "--steps", 1, "--longest", 5, "--environments", tmp_path / "none", "--installed")
    run("bench_peers.py", "speech", "translation", "generate 200", *small, "--output", output)
    speech, missing = rows(output, "training")
    assert missing == {"case": "translation", "peer": "joeynmt is not installed"}
    assert min(speech["ms per step"], speech["their ms per step"]) > 0
    assert speech["steps"] == 5
    assert speech["parameters"] == pytest.approx(speech["their parameters"], rel=0.05)
    assert rows(output, "generation") == [{"case": "generation", "peer": "transformers is not installed"}]
