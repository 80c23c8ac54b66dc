"""The front end of music models: a piece is continued from its first frames, and written as MIDI and as sound.

The cost per frame of a recurrent network is constant, because the carried state summarizes all previous frames.

Legend: T frames, K keys.
"""

import argparse
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from pipeline.commands.generate.options import settings
from pipeline.commands.generate.trained import Trained, open_model
from pipeline.dataset.codecs import midi
from pipeline.dataset.codecs.audio import encode_audio
from pipeline.dataset.codecs.midi import BEATS_PER_MINUTE, MidiError, midi_of, read_midi
from pipeline.dataset.codecs.plucked_strings import RATE, rendered_notes
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.music import MusicSplit
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.evaluation.plots.piano_roll import piano_roll
from pipeline.generation.frames import DrawKeys
from pipeline.generation.sampling import Greedy, Sample
from pipeline.runs.record import RECORD, read_record


def main(trained: Trained, arguments: argparse.Namespace) -> None:
    """Write a piece.

    Raises:
        UserError: a checkpoint or piece does not exist, or an option is invalid.
    """
    file: Path | None = arguments.out
    if file is None or file.suffix.lower() not in midi.SUFFIXES:
        other = "" if file is None else f"--out={file}: expected a .mid file. "
        raise ConfigError(f"{other}{trained} generates music. Give --out FILE.mid, beside which FILE.wav is written")
    if len(arguments.prompt or []) > 1:
        raise ConfigError(f"--prompt: expected one piece, got {len(arguments.prompt)}")
    if arguments.given < 1:
        raise ConfigError(f"--given={arguments.given}: expected at least 1 frame")
    choice, limits = settings(arguments)
    draw = DrawKeys(0.0 if isinstance(choice, Greedy) else choice.temperature if isinstance(choice, Sample) else 1.0)
    run, model, _ = open_model(trained.name, arguments.checkpoint)
    given = _beginning(run, (arguments.prompt or [None])[0], model.steps_per_beat)[: arguments.given]
    try:
        new = model.generate(given, limits.tokens, draw, arguments.seed)
    except ValueError as error:
        raise CheckpointError(f"cannot generate with {run}: {error}") from error
    write_music(file, np.concatenate([given, new]), model.steps_per_beat)
    print(f"{file}, {file.with_suffix('.wav')}: {len(given)} given and {len(new)} new frames")
    if arguments.picture:
        try:
            piano_roll(np.concatenate([given, new]), len(given), model.steps_per_beat).save(arguments.picture)
        except (OSError, ValueError) as error:
            raise DataError(f"--picture={arguments.picture}: cannot be written: {error}. Give a .png file") from error


def _beginning(run: Path, prompt: str | None, steps_per_beat: int) -> Bool[np.ndarray, "T K"]:
    """Return the piece to continue: a MIDI file, a held-out piece by its name, or the first one by default.

    Raises:
        ConfigError: the piece does not exist.
        DataError: the file is damaged.
    """
    if prompt is not None and Path(prompt).suffix.lower() in midi.SUFFIXES and Path(prompt).is_file():
        try:
            return read_midi(Path(prompt).read_bytes(), steps_per_beat).frames
        except (MidiError, OSError) as error:
            raise DataError(f"--prompt={prompt}: {error}. Give another file") from error
    if not (run / RECORD).is_file():
        raise ConfigError(f"{run} is an exported model, which has no pieces. Give --prompt FILE.mid")
    path = read_record(run)["dataset"]["path"]
    splits: dict[str, MusicSplit] = Dataset.open(path, kind="music").splits
    held_out = [split for name, split in reversed(splits.items()) if name != "train"]  # the test split first
    if not held_out:
        raise ConfigError(f"{path} has no held-out pieces. Give --prompt FILE.mid")
    if prompt is None:
        return held_out[0].piece(0)
    for split in held_out:
        if prompt in split.names:
            return split.piece(split.names.index(prompt))
    raise ConfigError(
        f"--prompt={prompt}: expected a MIDI file, or a held-out piece of {path} such as {held_out[0].names[0]}"
    )


def write_music(file: Path, frames: Bool[np.ndarray, "T K"], steps_per_beat: int) -> None:
    """Write frames as a MIDI file, and as a WAV file beside it.

    Raises:
        DataError: a file cannot be written.
    """
    sound = encode_audio(rendered_notes(frames, 60 / BEATS_PER_MINUTE / steps_per_beat), RATE, container="WAV")
    for target, content in ((file, midi_of(frames, steps_per_beat)), (file.with_suffix(".wav"), sound)):
        try:
            target.write_bytes(content)
        except OSError as error:
            raise DataError(f"--out={target}: cannot be written: {error.strerror}") from error
