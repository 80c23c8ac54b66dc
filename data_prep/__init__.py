"""Raw sources become datasets: a `main` for each modality, here chosen by its name.

A modality runs by itself too: `python -m data_prep.text.command --help`.
"""

from importlib import import_module
from types import ModuleType

from pipeline.errors import ConfigError

MODALITIES = ("audio", "captions", "pairs", "pixels", "recall", "series", "text", "trajectories")


def main(argv: list[str]) -> int:
    """Run the modality that comes first on the command line, as `unroll prepare MODALITY ...`.

    Raises:
        ConfigError: there is no such modality.
    """
    if not argv or argv[0] in ("-h", "--help"):
        known = "\n".join(f"  {name:12} {(module(name).__doc__ or '').splitlines()[0]}" for name in MODALITIES)
        print(f"usage: unroll prepare MODALITY ...\n\n{known}\n\n`unroll prepare MODALITY --help` says more.")
        return 0
    if argv[0] not in MODALITIES:
        raise ConfigError(f"cannot prepare {argv[0]!r}; choose one of {', '.join(MODALITIES)}")
    return int(module(argv[0]).main(argv[1:]))


def module(name: str) -> ModuleType:
    """Import the module of a modality."""
    return import_module(f"data_prep.{name}.command")
