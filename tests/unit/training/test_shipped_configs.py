"""The configs are shipped in the source archive and in the wheel that is built from it."""

import sys
import zipfile
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.training.shipped_configs import CONFIGS, shipped
from tests.release import build, copy_tree, run_session, unpack


def test_a_shipped_config_is_found_by_its_name() -> None:
    assert shipped("demo/lstm.yaml") == CONFIGS / "demo" / "lstm.yaml"
    with pytest.raises(ConfigError, match=r"shipped config demo/nothing\.yaml not found"):
        shipped("demo/nothing.yaml")


def test_the_wheel_of_an_unpacked_source_archive_runs_the_demo(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    tree = copy_tree(tmp_path / "tree")
    source = unpack(build("sdist", tree, tmp_path), tmp_path / "unpacked")
    files = {path.relative_to(tree) for path in tree.rglob("*") if path.is_file()}
    assert {path for path in files if not (source / path).is_file()} == set()
    wheel = build("wheel", source, tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    names = {path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.yaml")}
    installed = tmp_path / "installed" / "pipeline" / "configs"
    assert {path.relative_to(installed) for path in installed.rglob("*.yaml")} == names
    run_session(sys.executable, tmp_path / "empty", tmp_path / "installed", PYTHONPATH=str(tmp_path / "installed"))
