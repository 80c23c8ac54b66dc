"""The diff between the code and its commit is stored without secrets."""

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

from pipeline.runs.code import hash_of
from pipeline.tracking import artifacts


def test_the_diff_from_the_commit_is_stored_without_keys(written, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "my-secret")
    diff = SimpleNamespace(returncode=0, stdout="+key = 'my-secret'\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: diff)
    artifacts.keep_patch(written.run)
    assert (written.run.path / artifacts.PATCH).read_text() == "+key = '***'\n"
    diff.stdout = "+other = 1\n"
    artifacts.keep_patch(written.run)
    texts = {file.stem: file.read_text() for file in (written.run.path / "patches").iterdir()}
    first = hash_of("+key = 'my-secret'\n")
    assert texts == {first: "+key = '***'\n", hash_of("+other = 1\n"): "+other = 1\n"}


def test_a_clean_or_missing_checkout_leaves_no_file(written, monkeypatch):
    (written.run.path / artifacts.PATCH).write_text("of an earlier attempt")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0, stdout=""))
    artifacts.keep_patch(written.run)
    assert not (written.run.path / artifacts.PATCH).exists()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=128, stdout="no repository"))
    artifacts.keep_patch(written.run)
    assert not (written.run.path / artifacts.PATCH).exists()


def test_a_patch_that_cannot_be_written_does_not_fail(written, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0, stdout="+x = 1"))
    monkeypatch.setattr(artifacts, "write_durably", raising)
    artifacts.keep_patch(written.run)
    assert not (written.run.path / artifacts.PATCH).exists()


def test_names_of_artifacts_are_short_ascii_and_different_for_different_names():
    plain = "wide-2.1_b-checkpoint"
    assert artifacts.name_of_artifact(plain) == plain
    odd = [
        "zażółć-checkpoint",
        "zażołc-checkpoint",
        "模型-checkpoint",
        "型模-checkpoint",
        "a b-code",
        "x" * 300,
        "x" * 301,
    ]
    names = [artifacts.name_of_artifact(name) for name in odd]
    assert names[0].startswith("zazoc-checkpoint-")
    assert len(set(names)) == len(odd)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,128}", name) for name in names)
    assert artifacts._artifact("ż", "dataset", Path(__file__).parent, ["server.py"], {"a": 1}).metadata == {
        "a": 1,
        "name": "ż",
    }


def test_a_checkpoint_that_disappears_is_not_an_artifact(written, monkeypatch):
    place = written.run.path / "checkpoints" / "step-00000010"
    place.mkdir(parents=True)
    (place / "manifest.json").write_text("{}")

    def remove(*_, **__):
        shutil.rmtree(place)
        raise ValueError("Path must be a file or directory")

    monkeypatch.setattr("wandb.Artifact.add_reference", remove)
    record = {"kind": "checkpoint", "path": "checkpoints/step-00000010", "step": 10}
    assert artifacts.published(written.run, record, upload=False) is None


def raising(*_):
    raise OSError(28, "No space left on device")
