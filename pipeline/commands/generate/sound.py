"""The front end of models of raw sound: a wave is drawn sample by sample and written as a sound file.

Each sample costs the same, however many were drawn before: the carried state is all that the next one needs.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.commands.generate.options import settings
from pipeline.commands.generate.trained import Trained, labels_of, open_model, vocabulary
from pipeline.dataset.codecs import audio
from pipeline.dataset.codecs.audio import END, LEVELS
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.generation.sampling import Greedy, Limits, Sample, Stepwise, stream

CONTAINERS = {".wav": "WAV", ".flac": "FLAC"}


def main(trained: Trained, arguments: argparse.Namespace) -> None:
    """Write a sound.

    Raises:
        UserError: no such checkpoint or label, or settings that cannot be.
    """
    if arguments.out is None:
        raise ConfigError(f"{trained} writes audio: give --out FILE.wav")
    file, labels, (choice, _) = arguments.out, arguments.prompt or [""], settings(arguments)
    if file.suffix.lower() not in CONTAINERS:
        raise ConfigError(f"--out {file}: name a .wav or a .flac file")
    if len(labels) > 1:
        raise ConfigError(f"--prompt: {file} holds one sound; give one label")
    speaker = Speaker.open(trained.name, arguments.checkpoint)
    speaker.speak(file, labels[0], arguments.seconds, arguments.stop, choice, arguments.seed)


@dataclass(frozen=True)
class Speaker:
    """A trained model of raw sound, and the labels that it can be asked for.

    Args:
        run: where it was trained.
        model: in eval mode.
        labels: in the order of their tokens; none where clips have no labels.
        device: where the model is.
    """

    run: Path
    model: Any
    labels: list[str]
    device: str

    @classmethod
    def open(cls, name: str, checkpoint: str) -> "Speaker":
        """Load a run or an exported model.

        Raises:
            CheckpointError: no such run or checkpoint, or no tokenizer in it.
        """
        run, model, device = open_model(name, checkpoint)
        tokenizer, _ = vocabulary(run / "tokenizer.json")
        return cls(run, model, labels_of(tokenizer) if model.labels else [], device)

    def speak(self, file: Path, label: str, seconds: float, stop: bool, choice: Any, seed: int) -> None:
        """Draw a wave and write it.

        Raises:
            ConfigError: a label that is not known.
            DataError: the file cannot be written.
            CheckpointError: the model says nothing that a sample could be chosen from.
        """
        opening = self.opening(label)
        limits = Limits(max(1, round(seconds * self.model.rate)), eos=END if stop else None)
        try:
            levels = self.levels(opening, choice or Sample(), limits, seed)
        except ValueError as error:
            raise CheckpointError(f"cannot generate with {self.run}: {error}") from error
        data = audio.encode_audio(audio.expand(levels), self.model.rate, 16, CONTAINERS[file.suffix.lower()])
        try:
            file.write_bytes(data)
        except OSError as error:
            raise DataError(f"--out {file} cannot be written: {error.strerror}") from error
        print(f"{file}: {len(levels) / self.model.rate:.2f} s at {self.model.rate} samples a second")

    def opening(self, prompt: str) -> list[int]:
        """The tokens before a clip: the end mark of the one before, and the label where there are some.

        Raises:
            ConfigError: a label that is not known, or none where one is wanted.
        """
        if not self.labels and not prompt:
            return [END]
        if prompt not in self.labels:
            known = f"one of {', '.join(self.labels)}" if self.labels else "none: it was trained without labels"
            raise ConfigError(f"--prompt {prompt!r}: {self.run} knows {known}")
        return [END, self.model.opening(self.labels.index(prompt))]

    def levels(self, opening: list[int], choice: Stepwise | Greedy, limits: Limits, seed: int) -> np.ndarray:
        """The mu-law levels of a clip, without its end mark."""
        forward = partial(self.model.within, ends=limits.eos is not None)
        found = [token for (token,) in stream(forward, [opening], choice, limits, [seed], self.device)]
        return np.array([token for token in found if token is not None and token < LEVELS], np.uint8)
