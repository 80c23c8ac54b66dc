"""The front end of models that listen: files of any rate and number of channels become labels or transcripts."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from pipeline.commands.generate.options import settings
from pipeline.commands.generate.trained import Trained, labels_of, open_model, vocabulary
from pipeline.dataset.codecs import audio
from pipeline.dataset.manifest import MANIFEST, Dataset
from pipeline.errors import ConfigError, DataError
from pipeline.generation.ctc import BestPath, CachedLanguageModel, Language, PrefixBeam, PrefixSearch
from pipeline.generation.sampling import Choice, Greedy, Limits, generate
from pipeline.generation.text_stream import text_of
from pipeline.models.kneser_ney import KneserNey

ORDER = 3  # of an n-gram counted from transcripts
Heard: TypeAlias = Callable[[tuple[Tensor, ...]], dict[str, Any]]
"""What is printed of a source."""


def main(trained: Trained, arguments: argparse.Namespace) -> None:
    """Print what is heard in files.

    Raises:
        UserError: no such checkpoint or file, or settings that cannot be.
    """
    if not arguments.audio:
        raise ConfigError(f"{trained} reads audio: give --audio FILE")
    choice, limits = settings(arguments)
    listener = Listener.open(trained.name, arguments.checkpoint)
    heard: Heard = listener.classify
    if trained.task.writes == "transcript":
        search = listener.search(arguments.beam, arguments.lm, arguments.lm_weight, arguments.lm_bonus)
        heard = partial(listener.transcribe, search=search)
    if trained.task.writes == "text":
        limits = replace(limits, eos=listener.eos)
        heard = partial(listener.spell, choice=choice or Greedy(), limits=limits, seed=arguments.seed)
    listener.listen(arguments.audio, heard, arguments.json)


@dataclass(frozen=True)
class Listener:
    """A trained model with its tokenizer; it says what it hears.

    Args:
        run: where it was trained.
        model: in eval mode.
        tokenizer: of the run's dataset.
        eos: the end mark.
        device: where the model is.
    """

    run: Path
    model: Any
    tokenizer: Tokenizer
    eos: int
    device: str

    @classmethod
    def open(cls, name: str, checkpoint: str) -> "Listener":
        """Load a run or an exported model.

        Raises:
            CheckpointError: no such run or checkpoint, or no tokenizer in it.
        """
        run, model, device = open_model(name, checkpoint)
        return cls(run, model, *vocabulary(run / "tokenizer.json"), device)

    def listen(self, names: Sequence[str], heard: Heard, as_json: bool) -> None:
        """Print what is heard in each file, `-` being standard input.

        Raises:
            DataError: a file that is none, or damaged; the message names it.
        """
        for name in names:
            found = heard(self.source(name))
            if as_json:
                print(json.dumps({"audio": name, **found}, ensure_ascii=False), flush=True)
            else:
                print(f"{name}: {found['text']}" if len(names) > 1 else found["text"], flush=True)

    def source(self, name: str) -> tuple[Tensor, ...]:
        """What an encoder is given of a file."""
        shown = "standard input" if name == "-" else name
        try:
            found = audio.decode_audio(sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes())
        except OSError as error:
            raise DataError(f"--audio {shown}: {error.strerror}; give a sound file") from error
        except audio.SoundError as error:
            raise DataError(f"--audio {shown}: {error}; give a WAV, FLAC, OGG or MP3 file") from error
        wave = torch.from_numpy(audio.at_rate(found, self.model.encoder.mel.rate))[None].to(self.device)
        nothing = wave.new_zeros(1, 0, 2)
        return wave, torch.ones_like(wave, dtype=torch.bool), nothing, nothing

    @torch.no_grad()
    def classify(self, source: tuple[Tensor, ...]) -> dict[str, Any]:
        """The most probable label."""
        shares = self.model(*source)[0].softmax(-1)
        best = int(shares.argmax())
        return {"text": labels_of(self.tokenizer)[best], "probability": round(float(shares[best]), 4)}

    @torch.no_grad()
    def transcribe(self, source: tuple[Tensor, ...], search: PrefixSearch) -> dict[str, Any]:
        """The text that a search finds."""
        [tokens] = self.model.transcribe(*self.model(*source), search)
        return {"text": text_of(self.tokenizer, self.eos, tokens)}

    @torch.no_grad()
    def spell(self, source: tuple[Tensor, ...], choice: Choice, limits: Limits, seed: int) -> dict[str, Any]:
        """The text that is written token by token."""
        [[tokens, *_]] = generate(
            self.model, [[self.eos]], choice, limits, seed=seed, device=self.device, start=self.model.begin(source)
        )
        ended = tokens[-1] == self.eos
        return {"text": text_of(self.tokenizer, self.eos, tokens[:-1] if ended else tokens)}

    def search(self, beam: int | None, lm: str | None, weight: float | None, bonus: float | None) -> PrefixSearch:
        """How a transcript is found.

        Raises:
            ConfigError: `lm` is no language model, or has another vocabulary.
        """
        if lm is None:
            return BestPath() if beam is None else PrefixBeam(beam)
        search = PrefixBeam(beam or 8, 0.5 if weight is None else weight, bonus or 0.0)
        return search.fused(self.language(lm), self.eos)

    def language(self, name: str) -> Language:
        """The language model that a run holds, or that is counted from the transcripts of a dataset.

        Raises:
            ConfigError: it is none, or has another vocabulary.
        """
        known = self.tokenizer.get_vocab()
        if (Path(name) / MANIFEST).is_file():
            return counted(Dataset.open(name), known)
        run, model, device = open_model(name, "best")
        tokenizer, eos = vocabulary(run / "tokenizer.json")
        if (model.reads, model.writes) != ("prompt", "text") or tokenizer.get_vocab() != known:
            raise ConfigError(f"--lm {name}: give a language model, or a dataset, with the vocabulary of {self.run}")
        return CachedLanguageModel(model, eos, device)


def counted(dataset: Dataset, known: dict[str, int]) -> Language:
    """An n-gram with modified Kneser-Ney smoothing, counted from the transcripts of a dataset's training split.

    Raises:
        ConfigError: the dataset has another vocabulary, or no transcripts.
    """
    refusal = f"--lm {dataset.path}: give a dataset of transcripts with the vocabulary of the run"
    if "target" not in dataset.vocabularies:  # of numbers
        raise ConfigError(refusal)
    tokenizer, eos = vocabulary(dataset.target.file)
    if tokenizer.get_vocab() != known or "train" not in dataset.splits or dataset.kind == "tokens":
        raise ConfigError(refusal)
    split = dataset.splits["train"]
    sentences = [np.append(split.target(sample), eos).astype(np.int64) for sample in range(split.samples)]
    ngram = KneserNey.fit(np.concatenate(sentences), eos, dataset.target.size, ORDER)
    return lambda text: np.log(ngram.distribution(text))
