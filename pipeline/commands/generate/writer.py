"""Trained models that write: a language model goes on from a prompt, a translator writes from a source."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from pipeline.commands.generate.trained import open_model, tokens_of, vocabulary
from pipeline.data.pairs import padded
from pipeline.dataset.codecs.image import ImageError, View, decode_image, montage, pixels, square
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.plots.attention import against, photograph
from pipeline.evaluation.plots.figure import rendered
from pipeline.generation.sampling import Choice, Greedy, Limits, Sample, stream
from pipeline.generation.text_stream import TextStream, text_of, written
from pipeline.runs.record import is_run, read_record
from pipeline.state import State

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 64  # texts decoded together


@dataclass(frozen=True)
class Writer:
    """A trained model with its tokenizer; it continues what it is given.

    Args:
        run: where it was trained.
        forward: the model in eval mode.
        tokenizer: of the run's dataset.
        eos: the end mark.
        device: where the model is.
    """

    run: Path
    forward: Any
    tokenizer: Tokenizer
    eos: int
    device: str

    @property
    def default(self) -> Choice:
        """How tokens are chosen where the user does not say."""
        return Sample()

    @classmethod
    def open(cls, name: str, checkpoint: str) -> "Writer":
        """Load a run or an exported model.

        Raises:
            CheckpointError: no such run or checkpoint, or no tokenizer in it.
            ConfigError: a checkpoint is asked for where there is none to choose.
        """
        run, model, device = open_model(name, checkpoint)
        tokenizer, eos = vocabulary(run / "tokenizer.json")
        if model.reads == "image":
            return ImageWriter(run, model, tokenizer, eos, device)
        if model.reads == "text":
            return TextWriter(run, model, tokenizer, eos, device, *vocabulary(run / "source_tokenizer.json"))
        return cls(run, model, tokenizer, eos, device)

    def given(self, prompts: Sequence[str]) -> tuple[list[list[int]], State, list[str]]:
        """The tokens to continue, the state before them, and what is shown before what is written."""
        return [tokens_of(self.tokenizer, prompt) or [self.eos] for prompt in prompts], None, list(prompts)

    def write_live(self, prompt: str, choice: Any, limits: Limits, seed: int) -> None:
        """Write one text as it comes."""
        [row], start, [shown] = self.given([prompt])
        text = TextStream(self.tokenizer, self.eos, row)
        sys.stdout.write(shown)
        for (token,) in stream(self.forward, [row], choice, limits, [seed], self.device, start):
            if token is not None and token != limits.eos:
                sys.stdout.write(text.push(token))
                sys.stdout.flush()
        sys.stdout.write(text.finish() + "\n")

    def chat(self, lines: Iterable[str], choice: Any, limits: Limits, seed: int) -> None:
        """Answer line by line.

        Raises:
            ConfigError: the model was not trained on dialogues.
        """
        raise ConfigError(
            f"--chat: {self.run} continues texts; train a model of dialogues (unroll prepare pairs --dialogue)"
        )

    def draw(self, prompts: Sequence[str], choice: Any, limits: Limits, seed: int, file: Path) -> None:
        """Write a text for each prompt, and a picture of where each of its tokens looked.

        Raises:
            ConfigError: the model looks at no source, or the file cannot be written.
        """
        raise ConfigError(f"--attention: {self.run} continues texts; a model that writes from a source looks at it")

    def write_all(
        self, prompts: list[str], choice: Choice, limits: Limits, samples: int, seed: int, as_json: bool
    ) -> None:
        """Write the texts of all prompts, a batch at a time."""
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
    ) -> Iterator[tuple[int, int, str, dict[str, Any]]]:
        """Number of the prompt, number of the text, what is shown before it, and the text, in order."""
        each = max(1, ROWS // samples)
        for first in range(0, len(prompts), each):
            rows, start, shown = self.given(prompts[first : first + each])
            found = choice.complete(self.forward, rows, limits, samples, seed, self.device, start)
            for number, (row, before, continuations) in enumerate(zip(rows, shown, found, strict=True), start=first):
                for sample, (tokens, score) in enumerate(continuations):
                    ended = tokens[-1] == limits.eos
                    text = text_of(self.tokenizer, self.eos, tokens[:-1] if ended else tokens, row)
                    ranked = {} if score is None else {"score": score}
                    yield number, sample, before, {"text": text, "tokens": tokens, "ended": ended, **ranked}


@dataclass(frozen=True)
class SourceWriter(Writer):
    """A trained model that writes from a source, of which nothing is repeated."""

    @property
    def default(self) -> Choice:
        """How tokens are chosen where the user does not say."""
        return Greedy()

    @torch.no_grad()
    def given(self, prompts: Sequence[str]) -> tuple[list[list[int]], State, list[str]]:
        """An end mark to begin with, and the encoded sources."""
        return [[self.eos]] * len(prompts), self.forward.begin(self.source(prompts)), [""] * len(prompts)

    def source(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """What the model reads."""
        raise NotImplementedError

    def picture(self, source: tuple[Tensor, ...], words: Sequence[str], looks: Any) -> "Figure":
        """Where the words of a text looked at one source."""
        raise NotImplementedError

    @torch.no_grad()
    def draw(self, prompts: Sequence[str], choice: Any, limits: Limits, seed: int, file: Path) -> None:
        """Write a text for each source, and a picture of where each of its tokens looked."""
        pictures = []
        for number, _, _, text in self.texts(list(prompts), choice, limits, 1, seed):
            print(text["text"], flush=True)
            source = self.source([prompts[number]])
            looks = self.forward.alignment(source, text["tokens"], self.eos)
            pictures.append(rendered(self.picture(source, written(self.tokenizer, text["tokens"]), looks)))
        try:
            montage(pictures, 1).save(file)
        except (OSError, ValueError) as error:
            raise ConfigError(f"--attention {file} cannot be written as a picture: {error}") from error


@dataclass(frozen=True)
class ImageWriter(SourceWriter):
    """A trained model that writes from images, named by their files."""

    def given(self, prompts: Sequence[str]) -> tuple[list[list[int]], State, list[str]]:
        """As for every source; of several images the name of each is shown."""
        rows, start, shown = super().given(prompts)
        return rows, start, [f"{prompt}: " for prompt in prompts] if len(prompts) > 1 else shown

    def source(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """The largest central squares of the images.

        Raises:
            DataError: a file that cannot be read, or is no image.
        """
        size = self.forward.encoder.size
        seen = []
        for prompt in prompts:
            try:
                image = decode_image(Path(prompt).read_bytes(), size)
            except OSError as error:
                raise DataError(f"--image {prompt}: {error.strerror}") from error
            except ImageError as error:
                raise DataError(f"--image {prompt}: {error}") from error
            seen.append(pixels(square(image, View.central(*image.size), size)))
        return (torch.from_numpy(np.stack(seen)).to(self.device),)

    def picture(self, source: tuple[Tensor, ...], words: Sequence[str], looks: Any) -> "Figure":
        """Heat over the photograph for each word."""
        return photograph(source[0][0].cpu().numpy(), words, looks)


@dataclass(frozen=True)
class TextWriter(SourceWriter):
    """A trained model that writes from texts.

    Args:
        source_tokenizer: of the sources.
        source_eos: the end mark of the sources.
    """

    source_tokenizer: Tokenizer
    source_eos: int

    def source(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """The tokens of the sources."""
        sources = [np.array([*tokens_of(self.source_tokenizer, each), self.source_eos]) for each in prompts]
        return tuple(part.to(self.device) for part in padded(sources, self.source_eos))

    def picture(self, source: tuple[Tensor, ...], words: Sequence[str], looks: Any) -> "Figure":
        """Word against word."""
        return against(written(self.source_tokenizer, source[0][0].tolist()), words, looks)

    def chat(self, lines: Iterable[str], choice: Any, limits: Limits, seed: int) -> None:
        """Answer line by line, with as many turns before each reply as in training.

        Raises:
            ConfigError: the model was not trained on dialogues.
        """
        dialogue = read_record(self.run)["dataset"].get("dialogue") if is_run(self.run) else None
        if dialogue is None:
            raise ConfigError(f"--chat: {self.run} is no run on dialogues (unroll prepare pairs --dialogue)")
        turns: list[str] = []
        for number, line in enumerate(lines):
            if not line.strip():
                continue
            turns.append(line.strip())
            source = f" {dialogue['mark']} ".join(turns[-dialogue["history"] :])
            [(_, _, _, reply)] = self.texts([source], choice, limits, 1, seed + number)
            turns.append(reply["text"].strip())
            print(turns[-1], flush=True)
