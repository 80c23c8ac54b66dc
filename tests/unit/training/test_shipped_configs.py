"""The configs are shipped in the source archive and in the wheel that is built from it."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.training.shipped_configs import CONFIGS, shipped

ROOT = Path(__file__).parents[3]
TREE = ("configs", "data_prep", "docs", "pipeline", "slurm", "tests", ".ci", ".github")  # and the files beside them


# the commands of a user without a checkout, in one process
SESSION = """
from pipeline.cli import main
from pipeline.training.shipped_configs import CONFIGS
print(CONFIGS)
fit = "fit --config text/lstm.yaml --run a --data.init_args.dataset data --data.init_args.context 8"
fit += " --data.init_args.global_batch_size 4 --model.init_args.width 8 --trainer.max_steps 2 --trainer.max_epochs -1"
fit += " --trainer.limit_val_batches 1 --trainer.accelerator cpu"
submit = "submit text/lstm.yaml --nodes 2 --time 1:00:00 --dry-run -- --data.init_args.dataset data"
for command in (
    "init mine",
    "prepare text builtin --output data --tokenizer byte --workers 1",
    fit,
    submit,
    "generate a --prompt x --tokens 2",
):
    assert main(command.split()) == 0, command
assert main(["init", "mine"]) == 2
"""


def build(what: str, source: Path, target: Path) -> Path:
    """Build an sdist or a wheel of the tree in `source`."""
    command = f"import sys; from setuptools import build_meta; print(build_meta.build_{what}(sys.argv[1]))"
    ran = subprocess.run([sys.executable, "-c", command, str(target)], cwd=source, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return target / ran.stdout.split()[-1]


def test_a_shipped_config_is_found_by_its_name() -> None:
    assert shipped("demo/lstm.yaml") == CONFIGS / "demo" / "lstm.yaml"
    with pytest.raises(ConfigError, match=r"shipped config demo/nothing\.yaml not found"):
        shipped("demo/nothing.yaml")


def test_the_wheel_of_an_unpacked_source_archive_runs_the_demo(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    tree = tmp_path / "tree"
    tree.mkdir()
    for part in ROOT.iterdir():
        if part.name in TREE:
            shutil.copytree(part, tree / part.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif part.is_file() and part.name != ".git":  # a file in a second worktree
            shutil.copy(part, tree)
    with tarfile.open(build("sdist", tree, tmp_path)) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    [source] = (tmp_path / "unpacked").iterdir()
    files = {path.relative_to(tree) for path in tree.rglob("*") if path.is_file()}
    assert {path for path in files if not (source / path).is_file()} == set()
    wheel = build("wheel", source, tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    names = {path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.yaml")}
    installed = tmp_path / "installed" / "pipeline" / "configs"
    assert {path.relative_to(installed) for path in installed.rglob("*.yaml")} == names
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed"), "WANDB_MODE": "disabled"}
    found = subprocess.run([sys.executable, "-c", SESSION], cwd=empty, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    assert str(installed) in found.stdout
    assert "#SBATCH --nodes=2" in found.stdout
    assert {path.name for path in (empty / "mine" / "slurm").iterdir()} >= {"train.sbatch", "sweep.sbatch"}
    assert (empty / "mine" / "configs" / "text" / "lstm.yaml").read_text() == (CONFIGS / "text/lstm.yaml").read_text()
