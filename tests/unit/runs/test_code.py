"""The version of the code is its commit, and a hash of what differs from it."""

import subprocess
from pathlib import Path

import pytest

from pipeline.runs import code
from pipeline.runs.code import Code


def test_a_changed_checkout_has_the_hash_of_its_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(code, "PACKAGE", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert Code.running() == Code(None, None)
    assert str(Code.running()) == "no commit"
    git("init")
    (tmp_path / "model.py").write_text("width = 1\n")
    git("add", "model.py")
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD")
    assert Code.running() == Code(commit, None)
    (tmp_path / "model.py").write_text("width = 2\n")
    changed = Code.running()
    assert changed.commit == f"{commit}-dirty"
    assert changed.diff == code.hash_of(git("diff", "HEAD") + "\n")
    assert str(changed) == f"commit {commit[:12]} with changes {changed.diff}"
    assert changed == Code.running()
    (tmp_path / "model.py").write_text("width = 3\n")
    assert Code.running().diff != changed.diff


def test_an_attempt_of_a_version_that_recorded_no_code_has_none() -> None:
    assert Code.of_attempt({"number": 1}) is None
    assert Code.of_attempt({"git_commit": None, "diff": None}) == Code(None, None)
