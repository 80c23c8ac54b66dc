"""A working directory for submissions; stubs of sbatch, squeue and scancel record their arguments."""

from pathlib import Path

import pytest
import yaml

COMMANDS = {
    "sbatch": 'echo "$@" >> sbatch.arguments; cat > sbatch.script; env > sbatch.environment; echo "42;cluster"',
    "squeue": "cat queue 2> /dev/null || true",
    "scancel": 'echo "$@" >> scancel.arguments',
}
REPOSITORY = Path(__file__).parents[4]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_text_dataset: Path) -> Path:
    """A working directory with an experiment, a profile, and Slurm's commands first on PATH."""
    (tmp_path / "bin").mkdir()
    for name, script in COMMANDS.items():
        command = tmp_path / "bin" / name
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    text = yaml.safe_load((REPOSITORY / "configs" / "text" / "lstm.yaml").read_text())
    text["data"]["init_args"] |= {"dataset": str(tiny_text_dataset), "global_batch_size": 16}
    Path("lstm.yaml").write_text(yaml.safe_dump(text))
    profile = {"partition": "gpu", "modules": ["cuda/12"], "environment": {"A": "b c"}, "directives": ["--exclusive"]}
    Path("mine.yaml").write_text(yaml.safe_dump({**profile, "shared": [str(tmp_path), str(tiny_text_dataset)]}))
    return tmp_path
