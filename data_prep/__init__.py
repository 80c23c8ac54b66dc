"""Preparation of datasets from raw sources, with one command per modality.

Each modality is also a script: `python -m data_prep.text.command --help`.
"""

from importlib import import_module

from pipeline.errors import ConfigError

MODALITIES = {
    "audio": "audio clips with transcripts or labels",
    "captions": "images with captions",
    "music": "polyphonic music of MIDI files or piano rolls",
    "pairs": "pairs of texts: translations, pronunciations, conversations with replies",
    "pixels": "images as sequences of pixels",
    "recall": "synthetic memory tasks: copy, selective copy, association, adding",
    "series": "time series from tables",
    "text": "text of files, standard input, the Hub or the built-in corpus",
    "trajectories": "episodes of observations, actions and rewards, from files or an environment",
}


def main(argv: list[str]) -> int:
    """Run the command of the modality that is the first argument, for `unroll prepare MODALITY ...`.

    Raises:
        ConfigError: the modality is unknown.
    """
    if not argv or argv[0] in ("-h", "--help"):
        known = "\n".join(f"  {name:14}{about}" for name, about in MODALITIES.items())
        print(f"usage: unroll prepare MODALITY ...\n\n{known}\n\nRun `unroll prepare MODALITY --help` for details.")
        return 0
    if argv[0] not in MODALITIES:
        raise ConfigError(f"unknown modality {argv[0]!r}. Choose one of {', '.join(MODALITIES)}")
    return int(import_module(f"data_prep.{argv[0]}.command").main(argv[1:]))
