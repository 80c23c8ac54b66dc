"""`unroll generate RUN` continues prompts with a trained language model, or writes from sources with another.

One text is written to the terminal as it comes; several are decoded together, and written when they are done.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.arguments import Parser, refuse
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.runs.record import SERIES, read_record
from pipeline.runs.run import find_run

if TYPE_CHECKING:  # torch takes seconds to import: only once there is something to do
    from pipeline.generation.sampling import Choice, Limits

BEAM = ("n_best", "length_penalty", "coverage_penalty")
GOES_WITH = {**dict.fromkeys(BEAM, "beam"), "lm": "audio", "lm_weight": "lm", "lm_bonus": "lm", "seconds": "out"}


def main(argv: list[str]) -> int:
    """The verb.

    Raises:
        UserError: no such run, checkpoint or file, or settings that cannot be.
    """
    record = record_of(argv[0]) if argv else {}
    if "series" in record.get("dataset", {}):
        from pipeline.commands.generate import series

        return series.main(argv, record)
    if "trajectories" in record.get("dataset", {}):
        raise ConfigError(f"{argv[0]} acts, and writes nothing: play it with `unroll play {argv[0]}`")
    asked = parser()
    arguments = asked.parse_args(argv)
    arguments.given = asked.given(arguments)
    prompts = read_prompts(arguments)
    choice, limits = settings(arguments)
    if arguments.audio is not None:
        from pipeline.commands.generate.audio import Listener

        Listener.open(arguments.run, arguments.checkpoint).listen(arguments.audio, choice, arguments)
        return 0
    if arguments.out is not None:
        make(prompts, choice, arguments)
        return 0
    from pipeline.commands.generate.text import Writer

    writer = Writer.open(arguments.run, arguments.checkpoint)
    if bool(arguments.image) != (writer.reads == "--image"):
        raise ConfigError(f"{writer.run} is told what to write from by {writer.reads}")
    choice = choice or writer.default
    if arguments.stop:
        limits = replace(limits, eos=writer.eos)
    try:
        if arguments.chat:
            refuse(arguments.given, arguments.given.keys() - {"samples", "n_best", "json"}, "--chat")
            writer.chat(sys.stdin, choice, limits, arguments.seed)
        elif arguments.attention:
            writer.draw(prompts, choice, limits, arguments.seed, arguments.attention)
        elif len(prompts) * arguments.samples == 1 and not arguments.json and arguments.beam is None:
            writer.write_live(prompts[0], choice, limits, arguments.seed)
        else:
            writer.write_all(prompts, choice, limits, arguments)
    except ValueError as error:
        raise CheckpointError(f"cannot generate with {writer.run}: {error}") from error
    return 0


def make(prompts: list[str], choice: "Choice | None", arguments: argparse.Namespace) -> None:
    """Write what is no text to the file that --out names: a picture, or a sound."""
    if arguments.out.suffix.lower() == ".png":
        from pipeline.commands.generate.images import Painter

        Painter.open(arguments.run, arguments.checkpoint).paint(choice, arguments)
        return
    from pipeline.commands.generate.sound import Speaker

    Speaker.open(arguments.run, arguments.checkpoint).speak(prompts, choice, arguments)


def record_of(name: str) -> dict[str, Any]:
    """What a run says of itself, or what an exported forecaster has kept of it; nothing where there is none."""
    exported = Path(name) / SERIES
    try:
        found: dict[str, Any] = json.loads(exported.read_text()) if exported.is_file() else read_record(find_run(name))
    except (CheckpointError, OSError, ValueError):
        return {}
    return found


def parser() -> Parser:
    """The command line; what is left out is None where a default would hide what the user asked for."""
    result = Parser(prog="unroll generate", description="Continue prompts with a trained model.")
    add = result.add_argument
    add("run", metavar="RUN|DIR", help="name of a run under runs/, its path, or an exported model")
    source = result.add_mutually_exclusive_group()
    source.add_argument(
        "--prompt", nargs="+", metavar="TEXT", help="texts to continue (default: a new document), or to write from"
    )
    source.add_argument(
        "--chat", action="store_true", help="talk with a model of dialogues: a line, a reply, a line, ..."
    )
    source.add_argument(
        "--image", nargs="+", metavar="FILE", help="images to write of, or, with --out FILE.png, halves to complete"
    )
    source.add_argument("--prompts", metavar="FILE", help="a file with one prompt a line; - is standard input")
    source.add_argument(
        "--audio", nargs="+", metavar="FILE", help="sounds of any rate to transcribe or classify; - is standard input"
    )
    add("--tokens", type=int, default=200, help="most new tokens of a text (default: 200)")
    add("--min-tokens", type=int, default=0, help="fewest new tokens before the text may end (default: 0)")
    add("--no-repeat", type=int, default=0, metavar="N", help="no N tokens in a row twice in a text (default: 0, off)")
    add(
        "--stop",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="end a text at the end mark (default)",
    )
    add("--samples", type=int, default=1, help="texts for each prompt (default: 1)")
    add("--seed", type=int, default=0, help="sample k of every prompt is drawn with seed + k (default: 0)")
    add("--checkpoint", default="best", metavar="best|last|PATH", help="which weights (default: best)")
    add("--attention", type=Path, metavar="FILE.png", help="draw where a text looked at its source, token by token")
    add("--lm", metavar="RUN|DATASET", help="with --audio and CTC: a language model of the same vocabulary joins in")
    add("--lm-weight", type=float, default=0.5, help="how much it counts (default: 0.5)")
    add("--lm-bonus", type=float, default=0.0, help="for each token, in nats (default: 0)")
    add("--out", type=Path, metavar="FILE", help="write a sound or a picture of images; --prompt is their label")
    add("--seconds", type=float, default=2.0, help="longest sound (default: 2)")
    add("--json", action="store_true", help="one JSON object a line")
    way = result.add_argument_group(
        "choosing the next token (default: sampling at temperature 1; from a source, the most probable)"
    )
    way.add_argument("--temperature", type=float, help="divides the logits: below 1 bolder, above 1 more varied")
    way.add_argument("--top-k", type=int, help="sample from the k most probable tokens")
    way.add_argument("--top-p", type=float, help="sample from the fewest tokens that reach this share, in (0, 1]")
    way.add_argument("--greedy", action="store_true", help="always the most probable token")
    way.add_argument("--beam", type=int, metavar="WIDTH", help="beam search")
    way.add_argument("--n-best", type=int, metavar="N", help="of the beam: write the N best texts (default: 1)")
    way.add_argument("--length-penalty", type=float, help="of the beam: 0 ranks by probability, 1 by its mean")
    way.add_argument("--coverage-penalty", type=float, help="of the beam: what a source counts that is not looked at")
    return result


def settings(arguments: argparse.Namespace) -> "tuple[Choice | None, Limits]":
    """How tokens are chosen, None where the model is to decide, and how many.

    Raises:
        ConfigError: settings that cannot be, or that contradict each other.
    """
    from pipeline.generation.sampling import Limits

    for name, other in GOES_WITH.items():
        if name in arguments.given and other not in arguments.given:
            raise ConfigError(f"{arguments.given[name]} goes with --{other}: give that too")
    if arguments.samples < 1:
        raise ConfigError(f"--samples {arguments.samples}: must be at least 1")
    if not 0 <= arguments.seed < 2**63 - arguments.samples:
        raise ConfigError(f"--seed {arguments.seed}: must be from 0 up, below 2^63")
    if arguments.beam is not None and arguments.samples > 1:
        raise ConfigError(f"--samples {arguments.samples}: a beam draws nothing; --n-best N writes its N best")
    if arguments.greedy and arguments.samples > 1:
        raise ConfigError("--greedy gives one text a prompt: leave out --samples, or sample")
    one = (arguments.image or len(arguments.prompt or ()) == 1) and arguments.samples == 1
    if arguments.attention and not (one and not arguments.json and not arguments.n_best):
        raise ConfigError(
            "--attention draws one text: give one --prompt, or any --image, without --samples, --n-best and --json"
        )
    try:
        return chosen(arguments), Limits(arguments.tokens, arguments.min_tokens, no_repeat=arguments.no_repeat)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def chosen(arguments: argparse.Namespace) -> "Choice | None":
    """The way of choosing that the options name; options of another way are refused."""
    from pipeline.generation.beam import Beam
    from pipeline.generation.sampling import Greedy, Sample

    cuts = {name: getattr(arguments, name) for name in ("temperature", "top_k", "top_p")}
    cuts = {name: value for name, value in cuts.items() if value is not None}
    ways = {"--greedy": arguments.greedy, "--beam": arguments.beam is not None}
    ways |= {f"--{name.replace('_', '-')}": True for name in list(cuts)[:1]}
    named = [name for name, given in ways.items() if given]
    if len(named) > 1:
        raise ConfigError(f"{' and '.join(named)} are different ways of choosing a token: give one")
    settings = {name: getattr(arguments, name) for name in BEAM}
    settings = {name: value for name, value in settings.items() if value is not None}
    if arguments.beam is not None:
        best = settings.pop("n_best", 1)
        beam = Beam(arguments.beam, **settings)
        if not 1 <= best <= beam.width:
            raise ConfigError(f"--n-best {best}: from 1 to the width of the beam, {beam.width}")
        return beam
    if arguments.greedy:
        return Greedy()
    return Sample(**cuts) if cuts else None


def read_prompts(arguments: argparse.Namespace) -> list[str]:
    """The prompts named on the command line, in a file or on standard input; without any, the empty one.

    Raises:
        DataError: a file that is missing, empty or not UTF-8.
    """
    if arguments.prompts is None:
        return list(arguments.image or arguments.prompt or [""])
    name = "standard input" if arguments.prompts == "-" else arguments.prompts
    try:
        if arguments.prompts == "-":
            text = sys.stdin.read()
        else:
            text = Path(arguments.prompts).read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"--prompts {name}: {error.strerror}; give a text file with one prompt a line") from error
    except UnicodeDecodeError as error:
        raise DataError(f"--prompts {name}: byte {error.start} is not UTF-8; give a text file") from error
    if not text:
        raise DataError(f"--prompts {name}: empty; write one prompt a line")
    return text.removesuffix("\n").split("\n")
