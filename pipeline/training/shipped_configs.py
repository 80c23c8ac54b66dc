"""Paths of the configs shipped with Unroll: inside the installed package, or beside it in a checkout."""

from pathlib import Path

from pipeline.errors import ConfigError

PACKAGE = Path(__file__).parents[1]
CONFIGS = next(filter(Path.is_dir, (PACKAGE / "configs", PACKAGE.parent / "configs")), PACKAGE / "configs")


def shipped(name: str) -> Path:
    """Return the path of the shipped config `name`, such as `demo/lstm.yaml`.

    Raises:
        ConfigError: the config does not exist.
    """
    path = CONFIGS / name
    if not path.is_file():
        raise ConfigError(f"shipped config {name} not found: expected {path}; reinstall Unroll")
    return path
