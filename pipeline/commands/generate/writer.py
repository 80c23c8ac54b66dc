"""Trained models that generate text: language models continue a prompt, other models translate or caption a source."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np
import torch
from jaxtyping import Float
from tokenizers import Tokenizer
from torch import Tensor

from pipeline.commands.generate.trained import open_model
from pipeline.dataset.codecs.image import montage
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.plots.attention import against, photograph
from pipeline.evaluation.plots.figure import rendered
from pipeline.generation.sampling import Choice, Greedy, Limits, Sample, Stepwise, stream
from pipeline.generation.text_stream import TextStream, text_of, written
from pipeline.generation.vocabulary import tokens_of, vocabulary
from pipeline.runs.record import is_run, read_record
from pipeline.state import State
from pipeline.tasks.sources import image_source, text_source

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 64  # texts per batch


class GeneratedText(TypedDict):
    """The fields of one text in the JSON output."""

    text: str
    tokens: list[int]
    ended: bool
    score: NotRequired[float]


@dataclass(frozen=True)
class Writer:
    """A trained language model with its tokenizer, which continues prompts.

    Args:
        run: directory of the run or exported model.
        forward: the model in eval mode.
        tokenizer: tokenizer of the run's dataset.
        eos: end-of-sequence token.
        device: device of the model.
    """

    run: Path
    forward: Any
    tokenizer: Tokenizer
    eos: int
    device: str

    @property
    def default(self) -> Choice:
        """The decoding method if the user selects none."""
        return Sample()

    @classmethod
    def open(cls, name: str, checkpoint: str) -> "Writer":
        """Load a run or an exported model.

        Raises:
            CheckpointError: the run, its checkpoint or its tokenizer does not exist.
            ConfigError: a checkpoint is selected for an exported model, which has only one.
        """
        run, model, device = open_model(name, checkpoint)
        tokenizer, eos = vocabulary(run / "tokenizer.json")
        if model.reads == "image":
            return ImageWriter(run, model, tokenizer, eos, device)
        if model.reads == "text":
            return TextWriter(run, model, tokenizer, eos, device, *vocabulary(run / "source_tokenizer.json"))
        return cls(run, model, tokenizer, eos, device)

    def given(self, prompts: Sequence[str]) -> tuple[list[list[int]], State, list[str]]:
        """Return the tokens to continue, the state before them, and the texts to print before the generated ones."""
        return [tokens_of(self.tokenizer, prompt) or [self.eos] for prompt in prompts], None, list(prompts)

    def write_live(self, prompt: str, choice: Stepwise, limits: Limits, seed: int) -> None:
        """Generate one text and print each token immediately."""
        [row], start, [shown] = self.given([prompt])
        text = TextStream(self.tokenizer, self.eos, row)
        sys.stdout.write(shown)
        for (token,) in stream(self.forward, [row], choice, limits, [seed], self.device, start):
            if token is not None and token != limits.eos:
                sys.stdout.write(text.push(token))
                sys.stdout.flush()
        sys.stdout.write(text.finish() + "\n")

    def chat(self, lines: Iterable[str], choice: Choice, limits: Limits, seed: int) -> None:
        """Print a reply to each line.

        Raises:
            ConfigError: the model was not trained on dialogues.
        """
        raise ConfigError(
            f"--chat: {self.run} is a language model. Train a model of dialogues (unroll prepare pairs --dialogue)"
        )

    def draw(self, prompts: Sequence[str], choice: Choice, limits: Limits, seed: int, file: Path) -> None:
        """Generate a text per source, and plot the attention of each token over the source.

        Raises:
            ConfigError: the model has no source, or the file cannot be written.
        """
        raise ConfigError(f"--attention: {self.run} is a language model without a source. Omit --attention")

    def write_all(
        self, prompts: list[str], choice: Choice, limits: Limits, samples: int, seed: int, as_json: bool
    ) -> None:
        """Generate and print the texts of all prompts, in batches."""
        total = len(prompts) * samples
        for number, sample, shown, text in self.texts(prompts, choice, limits, samples, seed):
            if as_json:
                line = {"prompt": prompts[number], "sample": sample, **text}
                print(json.dumps(line, ensure_ascii=False), flush=True)
                continue
            if total > 1:
                score = f", score {text['score']:.3f}" if "score" in text else ""
                print(f"--- prompt {number + 1}, text {sample + 1}{score}")
            print(shown + text["text"], flush=True)

    def texts(
        self, prompts: list[str], choice: Choice, limits: Limits, samples: int, seed: int
    ) -> Iterator[tuple[int, int, str, GeneratedText]]:
        """Yield in order the prompt's number, the text's number, what to print before it, and the text."""
        each = max(1, ROWS // samples)
        for first in range(0, len(prompts), each):
            rows, start, shown = self.given(prompts[first : first + each])
            found = choice.complete(self.forward, rows, limits, samples, seed, self.device, start)
            for number, (row, before, continuations) in enumerate(zip(rows, shown, found, strict=True), start=first):
                for sample, (tokens, score) in enumerate(continuations):
                    ended = tokens[-1] == limits.eos
                    text = text_of(self.tokenizer, self.eos, tokens[:-1] if ended else tokens, row)
                    generated: GeneratedText = {"text": text, "tokens": tokens, "ended": ended}
                    if score is not None:
                        generated["score"] = score
                    yield number, sample, before, generated


@dataclass(frozen=True)
class SourceWriter(Writer):
    """A trained model that generates text from a source, such as a translator; the source is not printed."""

    @property
    def default(self) -> Choice:
        """The decoding method if the user selects none."""
        return Greedy()

    @torch.no_grad()
    def given(self, prompts: Sequence[str]) -> tuple[list[list[int]], State, list[str]]:
        """Return an EOS token as the start of each text, and the encoded sources."""
        return [[self.eos]] * len(prompts), self.forward.begin(self.source(prompts)), [""] * len(prompts)

    def source(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """Return the input of the encoder."""
        raise NotImplementedError

    def picture(
        self, source: tuple[Tensor, ...], words: Sequence[str], attention: Float[np.ndarray, "T S"]
    ) -> "Figure":
        """Plot the attention of each word of a text over one source."""
        raise NotImplementedError

    @torch.no_grad()
    def draw(self, prompts: Sequence[str], choice: Choice, limits: Limits, seed: int, file: Path) -> None:
        """Generate a text per source, and plot the attention of each token over the source."""
        pictures = []
        for number, _, _, text in self.texts(list(prompts), choice, limits, 1, seed):
            print(text["text"], flush=True)
            source = self.source([prompts[number]])
            attention = self.forward.alignment(source, text["tokens"], self.eos)
            pictures.append(rendered(self.picture(source, written(self.tokenizer, text["tokens"]), attention)))
        try:
            montage(pictures, 1).save(file)
        except OSError as error:
            raise ConfigError(f"--attention={file}: cannot be written ({error}). Give another file") from error


@dataclass(frozen=True)
class ImageWriter(SourceWriter):
    """A trained model that captions images; prompts are file names."""

    def given(self, prompts: Sequence[str]) -> tuple[list[list[int]], State, list[str]]:
        """Return the same as for every source; if there are several images, each caption follows its file name."""
        rows, start, shown = super().given(prompts)
        return rows, start, [f"{prompt}: " for prompt in prompts] if len(prompts) > 1 else shown

    def source(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """Read images and crop them to their largest central squares.

        Raises:
            DataError: a file cannot be read, or is not an image.
        """
        try:
            images = [image_source(Path(prompt), self.forward.encoder.size) for prompt in prompts]
        except DataError as error:
            raise DataError(f"--image={error}") from error
        return (torch.cat(images).to(self.device),)

    def picture(
        self, source: tuple[Tensor, ...], words: Sequence[str], attention: Float[np.ndarray, "T S"]
    ) -> "Figure":
        """Plot the attention of each word as a heat map over the image."""
        return photograph(source[0][0].cpu().numpy(), words, attention)


@dataclass(frozen=True)
class TextWriter(SourceWriter):
    """A trained model that generates texts from texts.

    Args:
        source_tokenizer: tokenizer of the sources.
        source_eos: end-of-sequence token of the sources.
    """

    source_tokenizer: Tokenizer
    source_eos: int

    def source(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """Encode the sources."""
        return tuple(part.to(self.device) for part in text_source(self.source_tokenizer, self.source_eos, prompts))

    def picture(
        self, source: tuple[Tensor, ...], words: Sequence[str], attention: Float[np.ndarray, "T S"]
    ) -> "Figure":
        """Plot the attention matrix of target words and source words."""
        return against(written(self.source_tokenizer, source[0][0].tolist()), words, attention)

    def chat(self, lines: Iterable[str], choice: Choice, limits: Limits, seed: int) -> None:
        """Print a reply to each line, given as many previous turns as in training.

        Raises:
            ConfigError: the model was not trained on dialogues.
        """
        dialogue = read_record(self.run)["dataset"].get("dialogue") if is_run(self.run) else None
        if dialogue is None:
            raise ConfigError(
                f"--chat: {self.run} was not trained on dialogues. Prepare them with `unroll prepare pairs --dialogue`"
            )
        turns: list[str] = []
        for number, line in enumerate(lines):
            if not line.strip():
                continue
            turns.append(line.strip())
            source = f" {dialogue['mark']} ".join(turns[-dialogue["history"] :])
            [(_, _, _, reply)] = self.texts([source], choice, limits, 1, seed + number)
            turns.append(reply["text"].strip())
            print(turns[-1], flush=True)
