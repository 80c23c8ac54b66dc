"""Raw sources become datasets: one file a modality with a `main`, here chosen by its name.

A modality is a module here with a `main`; it runs by itself too: `python -m data_prep.text --help`.
"""

from importlib import import_module
from pkgutil import iter_modules

from pipeline.errors import ConfigError


def main(argv: list[str]) -> int:
    """Run the modality that comes first on the command line, as `unroll prepare MODALITY ...`.

    Raises:
        ConfigError: there is no such modality.
    """
    if not argv or argv[0] in ("-h", "--help"):
        known = "\n".join(f"  {name:10} {what}" for name, what in modalities().items())
        print(f"usage: unroll prepare MODALITY ...\n\n{known}\n\n`unroll prepare MODALITY --help` says more.")
        return 0
    if argv[0] not in modalities():
        raise ConfigError(f"cannot prepare {argv[0]!r}; choose one of {', '.join(modalities())}")
    return int(import_module(f"data_prep.{argv[0]}").main(argv[1:]))


def modalities() -> dict[str, str]:
    """The modules here that have a `main`, with their first sentences."""
    modules = {module.name: import_module(f"data_prep.{module.name}") for module in iter_modules(__path__)}
    runnable = {name: module for name, module in modules.items() if hasattr(module, "main")}
    return {name: (module.__doc__ or "").split("\n")[0] for name, module in runnable.items()}
