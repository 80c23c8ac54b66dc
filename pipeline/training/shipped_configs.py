"""Paths of the shipped configs and Slurm scripts: inside the installed package, or beside it in a checkout."""

from pathlib import Path

from pipeline.errors import ConfigError

PACKAGE = Path(__file__).parents[1]
CONFIGS, SLURM = (
    next(filter(Path.is_dir, (PACKAGE / name, PACKAGE.parent / name)), PACKAGE / name) for name in ("configs", "slurm")
)


def shipped(name: str) -> Path:
    """Return the path of the shipped config `name`, such as `demo/lstm.yaml`.

    Raises:
        ConfigError: the config does not exist.
    """
    path = CONFIGS / name
    if not path.is_file():
        raise ConfigError(f"shipped config {name} not found: expected {path}; reinstall Unroll")
    return path


def located(name: str) -> str:
    """Return the path of a config: a file, or a shipped config such as `text/lstm.yaml` or `configs/text/lstm.yaml`."""
    path = Path(name)
    ours = CONFIGS / name.removeprefix("configs/")
    return str(ours) if not path.is_absolute() and not path.is_file() and ours.is_file() else name


def with_located(arguments: list[str]) -> list[str]:
    """Return a command line with the paths of its configs located."""
    found = list(arguments)
    for at, argument in enumerate(arguments):
        if argument.startswith("--config="):
            found[at] = f"--config={located(argument.removeprefix('--config='))}"
        elif at and arguments[at - 1] in ("-c", "--config"):
            found[at] = located(argument)
    return found
