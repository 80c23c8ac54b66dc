"""Raw sources become datasets: one file a modality with a `main`, here chosen by its name.

A modality is a module of this package that can be run: `python -m data_prep.text --help`.
"""

from importlib import import_module

from pipeline.errors import ConfigError

MODALITIES = {"text": "files of text, standard input, a hub data set or the built-in corpus"}


def main(argv: list[str]) -> int:
    """Run the modality that comes first on the command line, as `unroll prepare MODALITY ...`.

    Raises:
        ConfigError: there is no such modality.
    """
    known = "\n".join(f"  {name:8} {what}" for name, what in MODALITIES.items())
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: unroll prepare MODALITY ...\n\n{known}\n\n`unroll prepare MODALITY --help` says more.")
        return 0
    if argv[0] not in MODALITIES:
        raise ConfigError(f"cannot prepare {argv[0]!r}; choose one of {', '.join(MODALITIES)}")
    return int(import_module(f"data_prep.{argv[0]}").main(argv[1:]))
