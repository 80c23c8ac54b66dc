"""The record of a run is read only if this version supports its format."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.errors import CheckpointError
from pipeline.runs.record import read_record

RUNS = Path(__file__).parents[3] / "tests" / "fixtures" / "runs_0_1"


def test_a_run_of_a_later_format_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(RUNS, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "runs" / "text" / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 2}))
    with pytest.raises(CheckpointError, match="format=2: expected at most 1"):
        read_record(file.parent)
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    for verb in (["fit", "--run", "text"], ["validate", "--run", "text"], ["generate", "text", "--prompt", "a"]):
        assert cli.main(verb) == 4
        error = capsys.readouterr().err
        assert error.startswith("unroll: error: ")
        assert error.count("\n") == 1
        assert "run.json: format=2" in error
    locks = {tmp_path / "runs" / ".text.lock"}
    after = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file() and path not in locks}
    assert after == before
