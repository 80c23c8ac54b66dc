"""Build the archives of a release and run the wheel where nothing else is installed: `make release-check`.

    python tests/release.py [--torch 'torch==2.13.0 --extra-index-url URL']

The source archive is built from the tracked files, and the wheel from the unpacked source archive. `twine check` runs
in an environment of its own. The wheel is installed with its dependencies, at the pinned versions, into another one.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
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


def copy_tree(target: Path) -> Path:
    """Copy the files of the repository, without what is built or downloaded beside them."""
    target.mkdir()
    for part in ROOT.iterdir():
        if part.name in TREE:
            shutil.copytree(part, target / part.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif part.is_file() and part.name != ".git":  # a file in a second worktree
            shutil.copy(part, target)
    return target


def build(what: str, source: Path, target: Path) -> Path:
    """Build an sdist or a wheel of the tree in `source`."""
    command = f"import sys; from setuptools import build_meta; print(build_meta.build_{what}(sys.argv[1]))"
    ran = subprocess.run([sys.executable, "-c", command, str(target)], cwd=source, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return target / ran.stdout.split()[-1]


def unpack(archive: Path, target: Path) -> Path:
    """Unpack a source archive and return its only directory."""
    with tarfile.open(archive) as opened:
        opened.extractall(target, filter="data")
    [source] = target.iterdir()
    return source


def run_session(python: Path | str, folder: Path, installed: Path, **environment: str) -> None:
    """Run SESSION in an empty directory, and check that the shipped files are those of the installed package."""
    folder.mkdir()
    variables = {**os.environ, "WANDB_MODE": "disabled", **environment}
    ran = subprocess.run([python, "-c", SESSION], cwd=folder, env=variables, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert str(installed / "pipeline" / "configs") in ran.stdout
    assert "#SBATCH --nodes=2" in ran.stdout
    assert {path.name for path in (folder / "mine" / "slurm").iterdir()} >= {"train.sbatch", "sweep.sbatch"}
    ours = (ROOT / "configs" / "text" / "lstm.yaml").read_text()
    assert (folder / "mine" / "configs" / "text" / "lstm.yaml").read_text() == ours


def environment(folder: Path, *packages: str) -> Path:
    """Create a virtual environment with packages and return its interpreter."""
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin" / "pip", "install", "-q", *packages], check=True)
    return folder / "bin" / "python"


def main() -> None:
    """Build, check and try out both archives."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--torch", default="", help="the torch to install, with options of pip")
    torch = parser.parse_args().torch.split()
    with tempfile.TemporaryDirectory(prefix="unroll-release-") as name:
        place = Path(name)
        sdist = build("sdist", copy_tree(place / "tree"), place)
        wheel = build("wheel", unpack(sdist, place / "unpacked"), place)
        print(f"built {sdist.name} and {wheel.name}", flush=True)
        twine = environment(place / "twine", "twine")
        subprocess.run([twine, "-m", "twine", "check", "--strict", sdist, wheel], check=True)
        print("installing the wheel and its dependencies", flush=True)
        lines = (ROOT / "constraints.txt").read_text().splitlines(keepends=True)
        pinned = "".join(line for line in lines if not (torch and line.startswith("torch==")))
        (place / "constraints.txt").write_text(pinned)
        clean = environment(place / "clean", "-c", str(place / "constraints.txt"), *torch, str(wheel))
        [installed] = (place / "clean" / "lib").glob("python*/site-packages")
        run_session(clean, place / "empty", installed, PYTHONPATH="")
    print("the wheel prepares, trains, submits and generates in an environment of its own")


if __name__ == "__main__":
    main()
