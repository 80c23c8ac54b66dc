"""The front end of models that write texts: a prompt that goes on, a text from a text, or a caption of an image.

One text is written to the terminal as it comes; several are decoded together, and written when they are done.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.commands.generate.options import settings
from pipeline.commands.generate.trained import Trained
from pipeline.commands.generate.writer import Writer
from pipeline.errors import CheckpointError, ConfigError, DataError


def main(trained: Trained, arguments: argparse.Namespace) -> None:
    """Write texts.

    Raises:
        UserError: no such checkpoint or file, or settings that cannot be.
    """
    if trained.task.reads == "image" and not arguments.image:
        raise ConfigError(f"{trained} reads images: give --image FILE")
    prompts = arguments.image or read_prompts(arguments.prompt, arguments.prompts)
    choice, limits = settings(arguments)
    alone = (arguments.image or len(arguments.prompt or ()) == 1) and arguments.samples == 1
    if arguments.attention and not (alone and not arguments.json and not arguments.n_best):
        raise ConfigError(
            "--attention draws one text: give one --prompt, or any --image, without --samples, --n-best and --json"
        )
    several = {"--samples": arguments.samples > 1, "--n-best": arguments.n_best is not None, "--json": arguments.json}
    if arguments.chat and any(several.values()):
        option = next(name for name, given in several.items() if given)
        raise ConfigError(f"{option}: --chat does not take it; leave it out")
    writer = Writer.open(trained.name, arguments.checkpoint)
    choice = choice or writer.default
    if arguments.stop:
        limits = replace(limits, eos=writer.eos)
    try:
        if arguments.chat:
            writer.chat(sys.stdin, choice, limits, arguments.seed)
        elif arguments.attention:
            writer.draw(prompts, choice, limits, arguments.seed, arguments.attention)
        elif len(prompts) * arguments.samples == 1 and not arguments.json and arguments.beam is None:
            writer.write_live(prompts[0], choice, limits, arguments.seed)
        else:
            samples = arguments.n_best or arguments.samples
            writer.write_all(prompts, choice, limits, samples, arguments.seed, arguments.json)
    except ValueError as error:
        raise CheckpointError(f"cannot generate with {writer.run}: {error}") from error


def read_prompts(texts: Sequence[str] | None, file: str | None) -> list[str]:
    """The prompts named on the command line, in a file or on standard input; without any, the empty one.

    Raises:
        DataError: a file that is missing, empty or not UTF-8.
    """
    if file is None:
        return list(texts or [""])
    name = "standard input" if file == "-" else file
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"--prompts {name}: {error.strerror}; give a text file with one prompt a line") from error
    except UnicodeDecodeError as error:
        raise DataError(f"--prompts {name}: byte {error.start} is not UTF-8; give a text file") from error
    if not text:
        raise DataError(f"--prompts {name}: empty; write one prompt a line")
    return text.removesuffix("\n").split("\n")
