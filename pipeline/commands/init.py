"""`unroll init DIR`: write the shipped configs and Slurm scripts to a directory, for editing."""

import shutil
from pathlib import Path

from pipeline.arguments import Parser
from pipeline.errors import ConfigError
from pipeline.training.shipped_configs import CONFIGS, SLURM


def main(argv: list[str]) -> int:
    """Write DIR/configs and DIR/slurm.

    Raises:
        ConfigError: one of them exists.
    """
    parser = Parser(prog="unroll init", description="Write the shipped configs and Slurm scripts to DIR, for editing.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="directory that gets configs/ and slurm/")
    target: Path = parser.parse_args(argv).directory
    folders = {source: target / source.name for source in (CONFIGS, SLURM)}
    for folder in folders.values():
        if folder.exists():
            raise ConfigError(f"{folder} exists. Choose another directory, or remove it")
    for source, folder in folders.items():
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"))
        print(f"{folder}: {sum(path.is_file() for path in folder.rglob('*'))} files")
    return 0
