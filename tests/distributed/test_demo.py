"""The demo shows what it says: by real commands, cut short."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import demo
from tests.timeouts import scaled

CONFIGS = Path(__file__).parent.parent.parent / "configs"


@pytest.mark.slow
def test_the_demo_stops_a_run_continues_it_and_compares_both(tmp_path: Path) -> None:
    shutil.copytree(CONFIGS, tmp_path / "configs")
    command = [sys.executable, "-m", "pipeline", "demo", "--steps", "40", "--stop-after", "10"]
    environment = os.environ | {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=scaled(250))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    [before, after] = re.findall(r"stood at step (\d+); the second attempt continued at step (\d+)", ran.stdout)[0]
    assert 10 <= int(before) <= int(after) < 40
    assert "exit code 75" in ran.stdout
    table = ran.stdout[ran.stdout.rindex("$ unroll compare") :]
    assert re.search(r"test/cider_d +[0-9.]+", table)
    assert re.search(r"test/word_error_rate +[0-9.]+", table)
    assert re.search(r"The keys that were pressed: [0-9 ]+\.", table)
    assert (tmp_path / "runs" / "demo-captions" / "attention.png").stat().st_size > 1000
    assert all(name in table for name in ("demo-lstm", "demo-transformer", "5-gram"))
    assert (tmp_path / "runs" / "compare.html").stat().st_size > 1000


def test_a_command_that_fails_ends_the_demo_with_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(demo.Failed) as failure:
        demo.run(["generate", "nobody"])
    assert failure.value.exit_code == 4


def test_the_demo_says_where_it_must_be_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "demo"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "root of the repository" in ran.stderr


def test_a_run_without_a_journal_stands_at_step_zero(tmp_path: Path) -> None:
    assert demo.last_step(tmp_path) == 0
