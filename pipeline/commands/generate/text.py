"""The front end of models that generate text: continuations of prompts, texts from texts, or captions of images.

A single text is streamed to the terminal; several are decoded in batches and printed when they are complete.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO, TextIOWrapper
from pathlib import Path

from pipeline.commands.generate.options import settings
from pipeline.commands.generate.trained import Trained
from pipeline.commands.generate.writer import Writer
from pipeline.dataset.codecs.encoding import HEAD, text_start
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.generation.sampling import Stepwise

MARK = "\ufeff"  # the byte order mark, which some terminals and editors put before a text


def main(trained: Trained, arguments: argparse.Namespace) -> None:
    """Generate texts.

    Raises:
        UserError: a checkpoint or file does not exist, or an option is invalid.
    """
    if trained.task.reads == "image" and not arguments.image:
        raise ConfigError(f"{trained} takes images as input. Give --image FILE")
    if trained.task.reads == "text" and not (arguments.prompt or arguments.prompts or arguments.chat):
        example = f"unroll generate {trained.name} --prompt 'your text'"
        raise ConfigError(f"{trained} generates a text from a source text. Give the source: {example}")
    prompts = arguments.image or read_prompts(arguments.prompt, arguments.prompts)
    choice, limits = settings(arguments)
    alone = (arguments.image or len(arguments.prompt or ()) == 1) and arguments.samples == 1
    if arguments.attention and not (alone and not arguments.json and not arguments.n_best):
        raise ConfigError("--attention: expected one --prompt, or --image. Omit --samples, --n-best and --json")
    several = {"--samples": arguments.samples > 1, "--n-best": arguments.n_best is not None, "--json": arguments.json}
    if arguments.chat and any(several.values()):
        option = next(name for name, given in several.items() if given)
        raise ConfigError(f"{option} cannot be combined with --chat. Omit one of the two")
    writer = Writer.open(trained.name, arguments.checkpoint)
    choice = choice or writer.default
    if arguments.stop:
        limits = replace(limits, eos=writer.eos)
    try:
        if arguments.chat:
            writer.chat((line.removeprefix(MARK) for line in sys.stdin), choice, limits, arguments.seed)
        elif arguments.attention:
            writer.draw(prompts, choice, limits, arguments.seed, arguments.attention)
        elif len(prompts) * arguments.samples == 1 and not arguments.json and isinstance(choice, Stepwise):
            writer.write_live(prompts[0], choice, limits, arguments.seed)
        else:
            samples = arguments.n_best or arguments.samples
            writer.write_all(prompts, choice, limits, samples, arguments.seed, arguments.json)
    except ValueError as error:
        raise CheckpointError(f"cannot generate with {writer.run}: {error}") from error


def read_prompts(texts: Sequence[str] | None, file: str | None) -> list[str]:
    """Return the prompts of the command line, of a file or of standard input; by default one empty prompt.

    Raises:
        DataError: the file is missing, empty or not UTF-8; UTF-16 is named with its conversion.
    """
    if file is None:
        return [text.removeprefix(MARK) for text in texts or [""]]
    name = "standard input" if file == "-" else file
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        text = TextIOWrapper(BytesIO(data[text_start(data[:HEAD], file) :]), "utf-8").read()
    except OSError as error:
        raise DataError(f"--prompts={name}: {error.strerror}. Give a text file with one prompt per line") from error
    except UnicodeDecodeError as error:
        raise DataError(f"--prompts={name}: byte {error.start} is not UTF-8. Give a text file") from error
    if not text:
        raise DataError(f"--prompts={name}: empty file. Write one prompt per line")
    return text.removesuffix("\n").split("\n")
