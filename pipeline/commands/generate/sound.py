"""The front end of raw audio models: a waveform is sampled step by step and written to a sound file.

The cost per sample is constant, because the carried state summarizes all previous samples.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.commands.generate.options import settings
from pipeline.commands.generate.trained import Trained, open_model, unknown_label
from pipeline.dataset.codecs import audio
from pipeline.dataset.codecs.audio import END, LEVELS
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.generation.sampling import Limits, Sample, Stepwise, stream
from pipeline.generation.vocabulary import vocabulary
from pipeline.runs.vocabulary_rows import labels_of
from pipeline.tasks.wave_model import WaveModel

CONTAINERS = {".wav": "WAV", ".flac": "FLAC"}


def main(trained: Trained, arguments: argparse.Namespace) -> None:
    """Write a sound.

    Raises:
        UserError: a checkpoint or label does not exist, or an option is invalid.
    """
    if arguments.out is None:
        raise ConfigError(f"{trained} generates audio. Give --out FILE.wav")
    file, labels, (choice, _) = arguments.out, arguments.prompt or [""], settings(arguments)
    if file.suffix.lower() not in CONTAINERS:
        raise ConfigError(f"--out={file}: expected a .wav or .flac file")
    if len(labels) > 1:
        raise ConfigError(f"--prompt: expected one label, got {len(labels)}")
    choice = choice or Sample()
    assert isinstance(choice, Stepwise)  # --beam is not an option of this front end
    generator = AudioGenerator.open(trained.name, arguments.checkpoint)
    generator.write(file, labels[0], arguments.seconds, arguments.stop, choice, arguments.seed)


@dataclass(frozen=True)
class AudioGenerator:
    """A trained raw audio model with its labels.

    Args:
        run: directory of the run or exported model.
        model: the model in eval mode.
        labels: labels in the order of their tokens; empty for a model without labels.
        device: device of the model.
    """

    run: Path
    model: WaveModel
    labels: list[str]
    device: str

    @classmethod
    def open(cls, name: str, checkpoint: str) -> "AudioGenerator":
        """Load a run or an exported model.

        Raises:
            CheckpointError: the run, its checkpoint or its tokenizer does not exist.
        """
        run, model, device = open_model(name, checkpoint)
        tokenizer, _ = vocabulary(run / "tokenizer.json")
        return cls(run, model, labels_of(tokenizer) if model.labels else [], device)

    def write(self, file: Path, label: str, seconds: float, stop: bool, choice: Stepwise, seed: int) -> None:
        """Generate a waveform and write it to a file.

        Raises:
            ConfigError: the label is unknown.
            DataError: the file cannot be written.
            CheckpointError: the model returns logits that are not finite.
        """
        opening = self.opening(label)
        limits = Limits(max(1, round(seconds * self.model.rate)), eos=END if stop else None)
        try:
            levels = self.levels(opening, choice, limits, seed)
        except ValueError as error:
            raise CheckpointError(f"cannot generate with {self.run}: {error}") from error
        data = audio.encode_audio(audio.expand(levels), self.model.rate, 16, CONTAINERS[file.suffix.lower()])
        try:
            file.write_bytes(data)
        except OSError as error:
            raise DataError(f"--out={file}: cannot be written: {error.strerror}") from error
        print(f"{file}: {len(levels) / self.model.rate:.2f} s at {self.model.rate} Hz")

    def opening(self, prompt: str) -> list[int]:
        """Return the tokens before a clip: EOS of the previous clip, and the label if the model has labels.

        Raises:
            ConfigError: the label is unknown, or missing.
        """
        try:
            return self.model.opening_of(prompt, self.labels)
        except ConfigError as error:
            raise ConfigError(f"--prompt={prompt}: {unknown_label(self.run, self.labels)}") from error

    def levels(self, opening: list[int], choice: Stepwise, limits: Limits, seed: int) -> np.ndarray:
        """Return the mu-law levels of a clip, without EOS."""
        forward = partial(self.model.within, ends=limits.eos is not None)
        found = [token for (token,) in stream(forward, [opening], choice, limits, [seed], self.device)]
        return np.array([token for token in found if token is not None and token < LEVELS], np.uint8)
