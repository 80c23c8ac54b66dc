"""Finds the configs that are shipped with Unroll: inside the installed package, or beside it in a checkout."""

from pathlib import Path

from pipeline.errors import ConfigError

PACKAGE = Path(__file__).parents[1]
CONFIGS = next(filter(Path.is_dir, (PACKAGE / "configs", PACKAGE.parent / "configs")), PACKAGE / "configs")


def shipped(name: str) -> Path:
    """The shipped config `name`, such as `demo/lstm.yaml`.

    Raises:
        ConfigError: no config of that name is shipped.
    """
    path = CONFIGS / name
    if not path.is_file():
        raise ConfigError(f"no shipped config {name}: expected {path}; reinstall Unroll")
    return path
