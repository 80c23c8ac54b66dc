"""The report on a CUDA device runs on the CPU, small, and keeps what an earlier report found."""

import json
import sys
from pathlib import Path

from tests import commands

ROWS = [
    "machine",
    "fit lstm",
    "gpt",
    "lstm",
    "gpt eager",
    "long context",
    "gpt bare",
    "generation",
    "head",
    "precisions",
]


def test_every_row_runs_small_on_the_cpu(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    output.write_text(json.dumps({"shakespeare": {"validation": 1.5, "date": "2026-01-01", "commit": "abc"}}))
    script = Path(__file__).with_name("gpu_report.py")
    command = [sys.executable, script, "--device", "cpu", "--tiny", "--output", output, "--rows", *ROWS]
    done = commands.run(command, 120)
    assert done.returncode == 0, done.stderr
    rows = json.loads(output.read_text())
    assert list(rows) == ["shakespeare", *ROWS]
    assert not [row for row in rows.values() if "error" in row], done.stderr
    assert rows["fit lstm"]["ratio"] > 0
    assert rows["shakespeare"] == {"validation": 1.5, "date": "2026-01-01", "commit": "abc"}
    page = output.with_suffix(".md").read_text()
    assert all(f"| {name} |" in page for name in ["shakespeare", *ROWS])
