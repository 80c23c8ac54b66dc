"""`unroll generate RUN`: use a trained model; its task determines the inputs, the outputs and the options."""

import argparse
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from pipeline.arguments import Parser
from pipeline.commands.generate.options import add_options
from pipeline.commands.generate.trained import Trained
from pipeline.errors import ConfigError

if TYPE_CHECKING:  # torch takes seconds to import
    from pipeline.tasks.task import Reads, Task, Writes

ABOUT = "Use a trained model. The options depend on its task; `unroll generate RUN --help` lists those of a run."


class FrontEnd(NamedTuple):
    """The interface to models with the same kinds of input and output."""

    module: str
    """In this folder; its `main` takes the model and the options."""
    example: str
    """Options of the shortest command."""
    takes: str
    """Names of all options."""


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
    ("music", "music"): FrontEnd(
        "music", "--out FILE.mid", "prompt given out picture tokens checkpoint seed temperature greedy"
    ),
}
CLASSIFIED = "{0} is a classifier: `unroll generate` does not support it. Measure its accuracy with `unroll test`"
REFUSED: "dict[tuple[Reads, Writes], str]" = {
    ("text", "label"): CLASSIFIED,
    ("image", "label"): CLASSIFIED,
    ("episode", "action"): "{0.name} is a policy: `unroll generate` does not support it. Run `unroll play {0.name}`",
}


def main(argv: list[str]) -> int:
    """Generate with a trained model.

    Raises:
        UserError: a run, checkpoint or file does not exist, or an option is invalid.
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
        parser.error(f"{option}: not an option of {trained}. Its options: {takes}")
    import_module(f"{__package__}.{front.module}").main(trained, arguments)
    return 0


def example(task: "Task") -> str:
    """Return the options of the shortest command that uses a task; empty if there is none."""
    front = FRONT_ENDS.get((task.reads, task.writes))
    return front.example if front else ""


def front_end(trained: Trained) -> FrontEnd:
    """Return the front end of a trained model.

    Raises:
        ConfigError: there is none for its task.
    """
    pair = trained.task.reads, trained.task.writes
    if pair not in FRONT_ENDS:
        other = f"{{0}}: `unroll generate` does not support models from {pair[0]} to {pair[1]}"
        raise ConfigError(REFUSED.get(pair, other).format(trained))
    return FRONT_ENDS[pair]
