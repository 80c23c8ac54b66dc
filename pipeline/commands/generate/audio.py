"""Trained models that listen: files of any rate and number of channels become labels or transcripts."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from pipeline.arguments import refuse
from pipeline.commands.generate.text import EOS, UNK, open_model, vocabulary
from pipeline.dataset.codecs import audio
from pipeline.dataset.manifest import MANIFEST, Dataset
from pipeline.errors import ConfigError, DataError
from pipeline.generation.ctc import BestPath, Language, PrefixBeam, Read, Search
from pipeline.generation.sampling import Choice, Greedy, Limits, generate
from pipeline.generation.text_stream import text_of
from pipeline.models.kneser_ney import KneserNey
from pipeline.tasks.classifier import Classifier
from pipeline.tasks.language_model import LanguageModel
from pipeline.tasks.sequence_to_sequence import SequenceToSequence
from pipeline.tasks.transcriber import Transcriber

ORDER = 3  # of an n-gram counted from transcripts
COMMON = {"audio", "checkpoint", "json"}
TAKES: dict[type, set[str]] = {  # options of `unroll generate` that change what is heard
    Transcriber: {"beam", "lm", "lm_weight", "lm_bonus"},
    Classifier: set(),
    SequenceToSequence: {
        *("tokens", "min_tokens", "no_repeat", "seed", "greedy", "temperature", "top_k", "top_p"),
        *("beam", "length_penalty", "coverage_penalty"),
    },
}


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
            ConfigError: it does not listen.
        """
        run, model, device = open_model(name, checkpoint)
        if not hasattr(getattr(model, "encoder", None), "mel"):
            raise ConfigError(f"--audio: {run} ({type(model).__name__}) reads no sounds; see configs/audio")
        return cls(run, model, *vocabulary(run / "tokenizer.json"), device)

    def listen(self, names: Sequence[str], choice: Choice | None, arguments: argparse.Namespace) -> None:
        """Say what is heard in each file, `-` being standard input.

        Raises:
            DataError: a file that is none, or damaged; the message names it.
        """
        heard = self._way(choice, arguments)
        for name in names:
            found = heard(self.source(name))
            if arguments.json:
                print(json.dumps({"audio": name, **found}, ensure_ascii=False), flush=True)
            else:
                print(f"{name}: {found['text']}" if len(names) > 1 else found["text"], flush=True)

    def source(self, name: str) -> tuple[Tensor, ...]:
        """What an encoder is given of a file."""
        shown = "standard input" if name == "-" else name
        try:
            found = audio.load(sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes())
        except OSError as error:
            raise DataError(f"--audio {shown}: {error.strerror}; give a sound file") from error
        except audio.SoundError as error:
            raise DataError(f"--audio {shown}: {error}; give a WAV, FLAC, OGG or MP3 file") from error
        wave = torch.from_numpy(audio.at_rate(found, self.model.encoder.mel.rate))[None].to(self.device)
        nothing = wave.new_zeros(1, 0, 2)
        return wave, torch.ones_like(wave, dtype=torch.bool), nothing, nothing

    def _way(self, choice: Choice | None, arguments: argparse.Namespace) -> Any:
        """What the model does with a source; gives what is to be told."""
        kind = next(kind for kind in TAKES if isinstance(self.model, kind))
        refuse(arguments.given, COMMON | TAKES[kind], f"{self.run} ({type(self.model).__name__})")
        if kind is Transcriber:
            search = self._search(arguments)
            return lambda source: self._transcribe(source, search)
        if kind is Classifier:
            return self._classify
        limits = Limits(arguments.tokens, arguments.min_tokens, self.eos, arguments.no_repeat)
        return lambda source: self._spell(source, choice or Greedy(), limits, arguments.seed)

    @torch.no_grad()
    def _classify(self, source: tuple[Tensor, ...]) -> dict[str, Any]:
        labels = sorted(set(self.tokenizer.get_vocab()) - {EOS, UNK})
        shares = self.model(*source)[0].softmax(-1)
        best = int(shares.argmax())
        return {"text": labels[best], "probability": round(float(shares[best]), 4)}

    @torch.no_grad()
    def _transcribe(self, source: tuple[Tensor, ...], search: Search) -> dict[str, Any]:
        [tokens] = self.model.transcribe(*self.model(*source), search)
        return {"text": text_of(self.tokenizer, self.eos, tokens)}

    @torch.no_grad()
    def _spell(self, source: tuple[Tensor, ...], choice: Choice, limits: Limits, seed: int) -> dict[str, Any]:
        [[tokens, *_]] = generate(
            self.model, [[self.eos]], choice, limits, seed=seed, device=self.device, start=self.model.begin(source)
        )
        ended = tokens[-1] == self.eos
        return {"text": text_of(self.tokenizer, self.eos, tokens[:-1] if ended else tokens)}

    def _search(self, arguments: argparse.Namespace) -> Search:
        if arguments.lm is None:
            return BestPath() if arguments.beam is None else PrefixBeam(arguments.beam)
        search = PrefixBeam(arguments.beam or 8, arguments.lm_weight, arguments.lm_bonus)
        return search.fused(self.language(arguments.lm), self.eos)

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
        if not isinstance(model, LanguageModel) or tokenizer.get_vocab() != known:
            raise ConfigError(f"--lm {name}: give a language model, or a dataset, with the vocabulary of {self.run}")
        return Read(model, eos, device)


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
