"""Raw sources become datasets: a `main` for each modality, here chosen by its name.

A modality runs by itself too: `python -m data_prep.text.command --help`.
"""

from importlib import import_module

from pipeline.errors import ConfigError

MODALITIES = {
    "audio": "clips of sound with transcripts or labels",
    "captions": "images with captions",
    "pairs": "pairs of texts: translations, words and their sounds, conversations and their replies",
    "pixels": "images as sequences of pixels",
    "recall": "questions that need memory: copying, selective copying, association, adding",
    "series": "tables of measurements",
    "text": "text of files, standard input, the hub or the built-in corpus",
    "trajectories": "episodes of observations, actions and rewards, of files or played on the spot",
}


def main(argv: list[str]) -> int:
    """Run the modality that comes first on the command line, as `unroll prepare MODALITY ...`.

    Raises:
        ConfigError: there is no such modality.
    """
    if not argv or argv[0] in ("-h", "--help"):
        known = "\n".join(f"  {name:14}{about}" for name, about in MODALITIES.items())
        print(f"usage: unroll prepare MODALITY ...\n\n{known}\n\nRun `unroll prepare MODALITY --help` for details.")
        return 0
    if argv[0] not in MODALITIES:
        raise ConfigError(f"cannot prepare {argv[0]!r}; choose one of {', '.join(MODALITIES)}")
    return int(import_module(f"data_prep.{argv[0]}.command").main(argv[1:]))
