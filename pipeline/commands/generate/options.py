"""The options of `unroll generate`: each means the same for all models that take it."""

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.arguments import Parser
from pipeline.errors import ConfigError

if TYPE_CHECKING:  # torch takes seconds to import: only once there is something to do
    from pipeline.generation.sampling import Choice, Limits

NEEDS = {**dict.fromkeys(("n_best", "length_penalty", "coverage_penalty"), "beam"), "lm_weight": "lm", "lm_bonus": "lm"}


def add_options(parser: Parser, takes: Collection[str] | None = None) -> None:
    """Add the options of these names; by default all. Those that are left out have their defaults all the same."""

    def add(group: Any, name: str, about: str, **more: Any) -> None:
        parser.set_defaults(**{name.replace("-", "_"): more.get("default")})
        if takes is None or name in takes:
            group.add_argument(f"--{name}", help=about, **more)

    files: dict[str, Any] = {"nargs": "+", "metavar": "FILE"}
    whole, real, switch = {"type": int}, {"type": float}, {"action": "store_true", "default": False}
    source = parser.add_argument_group("one of these").add_mutually_exclusive_group()
    prompt = "texts to continue (default: a new document) or to write from; labels of sounds and images"
    add(source, "prompt", prompt, nargs="+", metavar="TEXT")
    add(source, "prompts", "a file with one prompt a line; - is standard input", metavar="FILE")
    add(source, "chat", "talk with a model of dialogues: a line, a reply, a line, ...", **switch)
    add(source, "image", "images to write of, or, with --out FILE.png, halves to complete", **files)
    add(source, "audio", "sounds of any rate to transcribe or classify; - is standard input", **files)
    add(source, "history", "tables as they were prepared: .csv or .parquet", type=Path, **files)
    add(parser, "tokens", "most new tokens of a text (default: 200)", default=200, **whole)
    add(parser, "min-tokens", "fewest new tokens before the text may end (default: 0)", default=0, **whole)
    add(parser, "no-repeat", "no N tokens in a row twice in a text (default: 0, off)", default=0, metavar="N", **whole)
    stop = {"action": argparse.BooleanOptionalAction, "default": True}
    add(parser, "stop", "end a text or a sound at the end mark (default)", **stop)
    add(parser, "samples", "texts or images for each prompt (default: 1)", default=1, **whole)
    add(parser, "seed", "sample k of every prompt is drawn with seed + k (default: 0)", default=0, **whole)
    add(parser, "checkpoint", "which weights (default: best)", default="best", metavar="best|last|PATH")
    attention = "draw where a text looked at its source, token by token"
    add(parser, "attention", attention, type=Path, metavar="FILE.png")
    lm = "of CTC: a language model of the same vocabulary joins in"
    add(parser, "lm", lm, metavar="RUN|DATASET")
    add(parser, "lm-weight", "how much it counts (default: 0.5)", **real)
    add(parser, "lm-bonus", "for each token, in nats (default: 0)", **real)
    add(parser, "out", "write a sound (.wav, .flac) or a picture of images (.png)", type=Path, metavar="FILE")
    add(parser, "seconds", "longest sound (default: 2)", default=2.0, **real)
    add(parser, "output", "the forecast as CSV (default: standard output)", type=Path, metavar="FILE")
    add(parser, "picture", "draw the forecast too", type=Path, metavar="FILE.svg")
    add(parser, "json", "one JSON object a line", **switch)
    title = "choosing the next token (default: sampling at temperature 1; from a source, the most probable)"
    way = parser.add_argument_group(title)
    add(way, "temperature", "divides the logits: below 1 bolder, above 1 more varied", **real)
    add(way, "top-k", "sample from the k most probable tokens", **whole)
    add(way, "top-p", "sample from the fewest tokens that reach this share, in (0, 1]", **real)
    add(way, "greedy", "always the most probable token", **switch)
    add(way, "beam", "beam search", metavar="WIDTH", **whole)
    add(way, "n-best", "of the beam: write the N best texts (default: 1)", metavar="N", **whole)
    add(way, "length-penalty", "of the beam: 0 ranks by probability, 1 by its mean", **real)
    add(way, "coverage-penalty", "of the beam: what a source counts that is not looked at", **real)


def settings(arguments: argparse.Namespace) -> "tuple[Choice | None, Limits]":
    """How tokens are chosen, None where the model is to decide, and how many.

    Raises:
        ConfigError: settings that cannot be, or that contradict each other.
    """
    from pipeline.generation.sampling import Limits

    for name, other in NEEDS.items():
        if getattr(arguments, name) is not None and getattr(arguments, other) is None:
            raise ConfigError(f"{flag(name)} goes with {flag(other)}: give that too")
    if arguments.samples < 1:
        raise ConfigError(f"--samples {arguments.samples}: must be at least 1")
    if not 0 <= arguments.seed < 2**63 - arguments.samples:
        raise ConfigError(f"--seed {arguments.seed}: must be from 0 up, below 2^63")
    if arguments.beam is not None and arguments.samples > 1:
        raise ConfigError(f"--samples {arguments.samples}: a beam draws nothing; --n-best N writes its N best")
    if arguments.greedy and arguments.samples > 1:
        raise ConfigError("--greedy gives one text a prompt: leave out --samples, or sample")
    try:
        return _chosen(arguments), Limits(arguments.tokens, arguments.min_tokens, no_repeat=arguments.no_repeat)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def flag(name: str) -> str:
    """An option as it is written."""
    return f"--{name.replace('_', '-')}"


def _chosen(arguments: argparse.Namespace) -> "Choice | None":
    """The way of choosing that the options name; options of another way are refused."""
    from pipeline.generation.beam import Beam
    from pipeline.generation.sampling import Greedy, Sample

    cuts = {name: getattr(arguments, name) for name in ("temperature", "top_k", "top_p")}
    cuts = {name: value for name, value in cuts.items() if value is not None}
    ways = {"--greedy": arguments.greedy, "--beam": arguments.beam is not None}
    ways |= {flag(name): True for name in list(cuts)[:1]}
    named = [name for name, given in ways.items() if given]
    if len(named) > 1:
        raise ConfigError(f"{' and '.join(named)} are different ways of choosing a token: give one")
    settings = {name: getattr(arguments, name) for name, other in NEEDS.items() if other == "beam"}
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
