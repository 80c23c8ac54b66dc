"""The options of `unroll generate`; each has the same meaning for all models that accept it."""

import argparse
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pipeline.arguments import Parser, figure_file, file_to_write
from pipeline.errors import ConfigError

if TYPE_CHECKING:  # torch takes seconds to import
    from pipeline.generation.sampling import Choice, Limits

NEEDS = {**dict.fromkeys(("n_best", "length_penalty", "coverage_penalty"), "beam"), "lm_weight": "lm", "lm_bonus": "lm"}


WHOLE: dict[str, object] = {"type": int}
REAL: dict[str, object] = {"type": float}
SWITCH: dict[str, object] = {"action": "store_true", "default": False}
Add: TypeAlias = Callable[..., None]
"""Adds one option to a group, unless it is left out."""


def add_options(parser: Parser, takes: Collection[str] | None = None) -> None:
    """Add the named options, by default all; the others get their default values."""

    def add(group: Callable[..., argparse.Action], name: str, about: str, **more: object) -> None:
        parser.set_defaults(**{name.replace("-", "_"): more.get("default")})
        if takes is None or name in takes:
            group(f"--{name}", help=about, **more)

    _add_inputs(parser, add)
    _add_outputs(parser, add)
    _add_decoding(parser, add)


def _add_inputs(parser: Parser, add: Add) -> None:
    files: dict[str, object] = {"nargs": "+", "metavar": "FILE"}
    source = parser.add_argument_group("input (one of these)").add_mutually_exclusive_group().add_argument
    prompt = (
        "texts to continue (default: a new document), source texts, labels of sounds and images, or a piece of music"
    )
    add(source, "prompt", prompt, nargs="+", metavar="TEXT")
    add(source, "prompts", "read one prompt per line from FILE (- for standard input)", metavar="FILE")
    add(source, "chat", "chat with a model trained on dialogues, one line per turn", **SWITCH)
    add(source, "image", "images to caption, or to complete below their upper half (with --out FILE.png)", **files)
    add(source, "audio", "audio files of any sample rate to transcribe or classify (- for standard input)", **files)
    add(
        source,
        "history",
        "tables to forecast, in the layout of the dataset's source (.csv or .parquet)",
        type=Path,
        **files,
    )


def _add_outputs(parser: Parser, add: Add) -> None:
    other = parser.add_argument
    add(other, "tokens", "maximum number of new tokens, or frames of music (default: 200)", default=200, **WHOLE)
    add(other, "given", "frames of a piece of music to continue (default: 16)", default=16, metavar="N", **WHOLE)
    add(other, "min-tokens", "minimum number of new tokens (default: 0)", default=0, **WHOLE)
    add(
        other,
        "no-repeat",
        "never repeat N consecutive tokens in a text (default: 0, off)",
        default=0,
        metavar="N",
        **WHOLE,
    )
    stop = {"action": argparse.BooleanOptionalAction, "default": True}
    add(other, "stop", "stop a text or a sound at the EOS token (default: --stop)", **stop)
    add(other, "samples", "texts or images per prompt (default: 1)", default=1, **WHOLE)
    add(other, "seed", "random seed; sample k of each prompt uses seed + k (default: 0)", default=0, **WHOLE)
    add(other, "checkpoint", "checkpoint to load (default: best)", default="best", metavar="best|last|PATH")
    heat = {"type": file_to_write(".png", ".jpg"), "metavar": "FILE.png"}
    add(other, "attention", "plot the attention of each token over its source", **heat)
    add(other, "lm", "fuse CTC with a language model of the same vocabulary", metavar="RUN|DATASET")
    add(other, "lm-weight", "weight of the language model (default: 0.5)", **REAL)
    add(other, "lm-bonus", "bonus per token in nats (default: 0)", **REAL)
    add(other, "out", "write a sound (.wav, .flac), music (.mid) or a grid of images (.png)", type=Path, metavar="FILE")
    add(other, "seconds", "maximum duration of a sound (default: 2)", default=2.0, **REAL)
    add(other, "output", "write the forecast as CSV (default: standard output)", type=Path, metavar="FILE")
    add(other, "picture", "plot the forecast or the piano roll", type=figure_file, metavar="FILE.svg")
    add(other, "json", "print one JSON object per line", **SWITCH)


def _add_decoding(parser: Parser, add: Add) -> None:
    title = "decoding (default: sample at temperature 1; greedy for models with a source)"
    way = parser.add_argument_group(title).add_argument
    add(way, "temperature", "divide the logits by this: below 1 less varied, above 1 more", **REAL)
    add(way, "top-k", "sample from the k most probable tokens", **WHOLE)
    add(way, "top-p", "sample from the smallest set of tokens with this probability, in (0, 1]", **REAL)
    add(way, "greedy", "take the most probable token at each step", **SWITCH)
    add(way, "beam", "use beam search of this width", metavar="WIDTH", **WHOLE)
    add(way, "n-best", "with --beam, print the N best texts (default: 1)", metavar="N", **WHOLE)
    add(way, "length-penalty", "with --beam, 0 ranks by log-probability, 1 by its mean per token", **REAL)
    add(way, "coverage-penalty", "with --beam, weight of the penalty for source tokens without attention", **REAL)


def settings(arguments: argparse.Namespace) -> "tuple[Choice | None, Limits]":
    """Return the decoding method (None: the default of the model) and the limits on length.

    Raises:
        ConfigError: an option is invalid, or contradicts another one.
    """
    from pipeline.generation.sampling import Limits

    for name, other in NEEDS.items():
        if getattr(arguments, name) is not None and getattr(arguments, other) is None:
            raise ConfigError(f"{flag(name)} requires {flag(other)}")
    if arguments.samples < 1:
        raise ConfigError(f"--samples={arguments.samples}: expected at least 1")
    if not 0 <= arguments.seed < 2**63 - arguments.samples:
        raise ConfigError(f"--seed={arguments.seed}: expected a number from 0 to below 2^63")
    if arguments.beam is not None and arguments.samples > 1:
        raise ConfigError(f"--samples={arguments.samples}: --beam does not sample. Use --n-best N for its N best texts")
    if arguments.greedy and arguments.samples > 1:
        raise ConfigError(f"--samples={arguments.samples}: --greedy has one text per prompt. Omit one of the two")
    try:
        return _chosen(arguments), Limits(arguments.tokens, arguments.min_tokens, no_repeat=arguments.no_repeat)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def flag(name: str) -> str:
    """Return an option as it is typed."""
    return f"--{name.replace('_', '-')}"


def _chosen(arguments: argparse.Namespace) -> "Choice | None":
    """Return the decoding method named by the options; refuse options of another method."""
    from pipeline.generation.beam import Beam
    from pipeline.generation.sampling import Greedy, Sample

    cuts = {name: getattr(arguments, name) for name in ("temperature", "top_k", "top_p")}
    cuts = {name: value for name, value in cuts.items() if value is not None}
    ways = {"--greedy": arguments.greedy, "--beam": arguments.beam is not None}
    ways |= {flag(name): True for name in list(cuts)[:1]}
    named = [name for name, given in ways.items() if given]
    if len(named) > 1:
        raise ConfigError(f"{' and '.join(named)} are different decoding methods. Give one of them")
    settings = {name: getattr(arguments, name) for name, other in NEEDS.items() if other == "beam"}
    settings = {name: value for name, value in settings.items() if value is not None}
    if arguments.beam is not None:
        best = settings.pop("n_best", 1)
        beam = Beam(arguments.beam, **settings)
        if not 1 <= best <= beam.width:
            raise ConfigError(f"--n-best={best}: expected 1 to the width of the beam, {beam.width}")
        return beam
    if arguments.greedy:
        return Greedy()
    return Sample(**cuts) if cuts else None
