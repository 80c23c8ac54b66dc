"""`unroll generate RUN` uses a trained model: what its task reads and writes decides how, and by which options."""

import argparse
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.arguments import Parser
from pipeline.commands.generate.options import add_options
from pipeline.commands.generate.trained import Trained
from pipeline.errors import ConfigError

if TYPE_CHECKING:  # torch takes seconds to import: only once there is something to do
    from pipeline.tasks.task import Reads, Writes

ABOUT = "Use a trained model. It takes some of these options, by its task: `unroll generate RUN --help` prints which."


class FrontEnd(NamedTuple):
    """How models that read and write the same are used."""

    module: str
    """In this folder; its `main` takes what was found of the model, and the options."""
    example: str
    """The least that a model is given."""
    takes: str
    """Names of options."""


CHOICE = "checkpoint seed temperature top-k top-p greedy"
TOKENS = f"{CHOICE} tokens min-tokens no-repeat beam length-penalty coverage-penalty json"
TEXTS = f"{TOKENS} n-best stop samples attention"
FRONT_ENDS: "dict[tuple[Reads, Writes], FrontEnd]" = {
    ("prompt", "text"): FrontEnd("text", "--prompt TEXT", f"prompt prompts chat {TEXTS}"),
    ("text", "text"): FrontEnd("text", "--prompt TEXT", f"prompt prompts chat {TEXTS}"),
    ("image", "text"): FrontEnd("text", "--image FILE", f"image {TEXTS}"),
    ("audio", "text"): FrontEnd("audio", "--audio FILE", f"audio {TOKENS}"),
    ("audio", "transcript"): FrontEnd("audio", "--audio FILE", "audio checkpoint json beam lm lm-weight lm-bonus"),
    ("audio", "label"): FrontEnd("audio", "--audio FILE", "audio checkpoint json"),
    ("label", "audio"): FrontEnd("sound", "--out FILE.wav", f"prompt out seconds stop {CHOICE}"),
    ("label", "image"): FrontEnd("images", "--out FILE.png", f"prompt image out samples {CHOICE}"),
    ("series", "series"): FrontEnd("series", "--history FILE.csv", "history output picture checkpoint"),
}
CLASSIFIED = "{0} writes no texts: unroll test tells how often it is right"
REFUSED: "dict[tuple[Reads, Writes], str]" = {
    ("text", "label"): CLASSIFIED,
    ("image", "label"): CLASSIFIED,
    ("episode", "action"): "{0.name} acts, and writes nothing: play it with `unroll play {0.name}`",
}


def main(argv: list[str]) -> int:
    """The verb.

    Raises:
        UserError: no such run, checkpoint or file, or settings that cannot be.
    """
    parser = Parser(prog="unroll generate", usage="unroll generate RUN [OPTIONS]", description=ABOUT, add_help=False)
    add_options(parser)
    names = [each for each in parser.parse_known_args(argv)[1] if not each.startswith("-")]
    if not names and {"-h", "--help"} & set(argv):
        parser.print_help()
        return 0
    if not names:
        parser.error("the following arguments are required: RUN")
    trained = Trained.find(names[0])
    front = front_end(trained)
    parser = Parser(prog=f"unroll generate {trained.name}", description=str(trained))
    parser.add_argument("run", help=argparse.SUPPRESS)
    add_options(parser, front.takes.split())
    arguments, left = parser.parse_known_args(argv)
    if left:
        option = next((each for each in left if each.startswith("-")), left[0]).partition("=")[0]
        takes = ", ".join(f"--{name}" for name in front.takes.split())
        parser.error(f"{option}: {trained} does not take it, but {takes}")
    import_module(f"{__package__}.{front.module}").main(trained, arguments)
    return 0


def example(task: Any) -> str:
    """The options of the shortest command that uses a task; empty where there is none."""
    front = FRONT_ENDS.get((task.reads, task.writes))
    return front.example if front else ""


def front_end(trained: Trained) -> FrontEnd:
    """The front end of a trained model.

    Raises:
        ConfigError: there is none; the message says what to do instead.
    """
    pair = trained.task.reads, trained.task.writes
    if pair not in FRONT_ENDS:
        other = f"{{0}} reads {pair[0]} and writes {pair[1]}: `unroll generate` does not use such models"
        raise ConfigError(REFUSED.get(pair, other).format(trained))
    return FRONT_ENDS[pair]
