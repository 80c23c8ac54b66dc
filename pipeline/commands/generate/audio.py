"""The front end of models with audio input: label or transcribe files of any sample rate and number of channels."""

import argparse
import json
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
from pipeline.commands.generate.trained import Trained, open_model
from pipeline.dataset.manifest import MANIFEST, Dataset
from pipeline.errors import ConfigError, DataError
from pipeline.generation.ctc import BestPath, CachedLanguageModel, Language, PrefixBeam, PrefixSearch
from pipeline.generation.sampling import Choice, Greedy, Limits, generate
from pipeline.generation.text_stream import text_of
from pipeline.generation.vocabulary import vocabulary
from pipeline.models.kneser_ney import KneserNey
from pipeline.runs.vocabulary_rows import labels_of
from pipeline.tasks.sources import audio_source

ORDER = 3  # of the n-gram over transcripts
Recognise: TypeAlias = Callable[[tuple[Tensor, ...]], dict[str, object]]
"""Returns the fields to print for one file."""


def main(trained: Trained, arguments: argparse.Namespace) -> None:
    """Print the labels or transcripts of files.

    Raises:
        UserError: a checkpoint or file does not exist, or an option is invalid.
    """
    if not arguments.audio:
        raise ConfigError(f"{trained} takes audio as input. Give --audio FILE")
    choice, limits = settings(arguments)
    recogniser = Recogniser.open(trained.name, arguments.checkpoint)
    recognise: Recognise = recogniser.classify
    if trained.task.writes == "transcript":
        search = recogniser.search(arguments.beam, arguments.lm, arguments.lm_weight, arguments.lm_bonus)
        recognise = partial(recogniser.transcribe, search=search)
    if trained.task.writes == "text":
        limits = replace(limits, eos=recogniser.eos)
        recognise = partial(recogniser.spell, choice=choice or Greedy(), limits=limits, seed=arguments.seed)
    recogniser.print_all(arguments.audio, recognise, arguments.json)


@dataclass(frozen=True)
class Recogniser:
    """A trained model with audio input, and its tokenizer.

    Args:
        run: directory of the run or exported model.
        model: the model in eval mode.
        tokenizer: tokenizer of the run's dataset.
        eos: end-of-sequence token.
        device: device of the model.
    """

    run: Path
    model: Any
    tokenizer: Tokenizer
    eos: int
    device: str

    @classmethod
    def open(cls, name: str, checkpoint: str) -> "Recogniser":
        """Load a run or an exported model.

        Raises:
            CheckpointError: the run, its checkpoint or its tokenizer does not exist.
        """
        run, model, device = open_model(name, checkpoint)
        return cls(run, model, *vocabulary(run / "tokenizer.json"), device)

    def print_all(self, names: Sequence[str], recognise: Recognise, as_json: bool) -> None:
        """Print the label or transcript of each file, `(empty)` if it has no words; `-` is standard input.

        Raises:
            DataError: a file is missing, damaged or not an audio file.
        """
        for name in names:
            found = recognise(self.source(name))
            if as_json:
                print(json.dumps({"audio": name, **found}, ensure_ascii=False), flush=True)
            else:
                text = found["text"] or "(empty)"
                print(f"{name}: {text}" if len(names) > 1 else text, flush=True)

    def source(self, name: str) -> tuple[Tensor, ...]:
        """Read a file as the encoder's input."""
        try:
            source = audio_source(None if name == "-" else Path(name), self.model.encoder.mel.rate)
        except DataError as error:
            raise DataError(f"--audio={error}") from error
        return tuple(part.to(self.device) for part in source)

    @torch.no_grad()
    def classify(self, source: tuple[Tensor, ...]) -> dict[str, object]:
        """Return the most probable label."""
        shares = self.model(*source)[0].softmax(-1)
        best = int(shares.argmax())
        return {"text": labels_of(self.tokenizer)[best], "probability": round(float(shares[best]), 4)}

    @torch.no_grad()
    def transcribe(self, source: tuple[Tensor, ...], search: PrefixSearch) -> dict[str, object]:
        """Return the transcript that a CTC search finds."""
        [tokens] = self.model.transcribe(*self.model(*source), search)
        return {"text": text_of(self.tokenizer, self.eos, tokens)}

    @torch.no_grad()
    def spell(self, source: tuple[Tensor, ...], choice: Choice, limits: Limits, seed: int) -> dict[str, object]:
        """Return the transcript that a decoder generates token by token."""
        [[tokens, *_]] = generate(
            self.model, [[self.eos]], choice, limits, seed=seed, device=self.device, start=self.model.begin(source)
        )
        ended = tokens[-1] == self.eos
        return {"text": text_of(self.tokenizer, self.eos, tokens[:-1] if ended else tokens)}

    def search(self, beam: int | None, lm: str | None, weight: float | None, bonus: float | None) -> PrefixSearch:
        """Return the CTC search that the options select.

        Raises:
            ConfigError: `lm` is not a language model or has another vocabulary.
        """
        if lm is None:
            return BestPath() if beam is None else PrefixBeam(beam)
        search = PrefixBeam(beam or 8, 0.5 if weight is None else weight, bonus or 0.0)
        return search.fused(self.language(lm), self.eos)

    def language(self, name: str) -> Language:
        """Return the language model of a run, or an n-gram over the transcripts of a dataset.

        Raises:
            ConfigError: `name` is neither, or has another vocabulary.
        """
        known = self.tokenizer.get_vocab()
        if (Path(name) / MANIFEST).is_file():
            return transcript_ngram(Dataset.open(name), known)
        run, model, device = open_model(name, "best")
        tokenizer, eos = vocabulary(run / "tokenizer.json")
        if (model.reads, model.writes) != ("prompt", "text") or tokenizer.get_vocab() != known:
            raise ConfigError(f"--lm={name}: expected a language model or dataset with the vocabulary of {self.run}")
        return CachedLanguageModel(model, eos, device)


def transcript_ngram(dataset: Dataset, known: dict[str, int]) -> Language:
    """Fit an n-gram with modified Kneser-Ney smoothing to the transcripts of a dataset's training split.

    Raises:
        ConfigError: the dataset has another vocabulary, or no transcripts.
    """
    refusal = f"--lm={dataset.path}: expected a dataset of transcripts with the vocabulary of the run"
    if "target" not in dataset.vocabularies:  # datasets of numbers have none
        raise ConfigError(refusal)
    tokenizer, eos = vocabulary(dataset.target.file)
    if tokenizer.get_vocab() != known or "train" not in dataset.splits or dataset.kind == "tokens":
        raise ConfigError(refusal)
    split = dataset.splits["train"]
    sentences = [np.append(split.target(sample), eos).astype(np.int64) for sample in range(split.samples)]
    ngram = KneserNey.fit(np.concatenate(sentences), eos, dataset.target.size, ORDER)
    return lambda text: np.log(ngram.distribution(text))
