"""The commands `unroll fit`, `unroll validate` and `unroll test`."""

import logging
import sys
import warnings
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.evaluation.neural_cache import FORM, NeuralCache
from pipeline.runs.run import Run
from pipeline.tracking import sweep
from pipeline.training import output_streams
from pipeline.training.config import parse_config, run_directory
from pipeline.training.fit import EvaluationOptions, evaluate, fit


def main(argv: list[str]) -> int:
    """Run the command named by the first argument; return the exit code."""
    verb, arguments = argv[0], argv[1:]
    quieten()
    evaluation = EvaluationOptions()
    if verb == "fit":
        chosen = sweep.arguments_of_sweep(arguments)
        if chosen is None:
            return 0
    else:
        chosen, evaluation = evaluation_arguments(verb, arguments)
    cli = parse_config(chosen)
    run = Run(run_directory(cli.config))
    with output_streams.tolerate_closed_output():
        return fit(cli, run) if verb == "fit" else evaluate(cli, run, verb, evaluation)


def evaluation_arguments(verb: str, arguments: list[str]) -> tuple[list[str], EvaluationOptions]:
    """Return the arguments of an evaluation with `--run NAME` for a first argument NAME, and how to evaluate.

    Raises:
        ConfigError: the run is named twice, or an option has no value.
    """
    arguments = list(arguments)
    split = _taken("--split", arguments, "the name of a split") if verb == "test" else None
    checkpoint = _taken("--checkpoint", arguments, "best, last or a path")
    file, cache = _taken("--json", arguments, "a file"), _taken("--cache", arguments, FORM)
    evaluation = EvaluationOptions(
        split, checkpoint or "best", Path(file) if file else None, NeuralCache.parse(cache) if cache else None
    )
    if not arguments or arguments[0].startswith("-") or Path(arguments[0]).suffix in (".yaml", ".yml"):
        return arguments, evaluation
    if named := next((each for each in arguments if each == "--run" or each.startswith("--run=")), None):
        raise ConfigError(f"{arguments[0]}: expected one run, got also {named}. Omit one of them")
    return ["--run", *arguments], evaluation


def _taken(option: str, arguments: list[str], expected: str) -> str | None:
    """Remove an option that Lightning's command line does not have, and return its value."""
    for at, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name != option:
            continue
        if not equals and at + 1 == len(arguments):
            raise ConfigError(f"{option}: expected {expected}, got nothing. Add it")
        taken = value if equals else arguments.pop(at + 1)
        del arguments[at]
        return taken
    return None


def quieten() -> None:
    """Suppress Lightning's messages about intended settings; print other warnings in one line."""
    warnings.formatwarning = lambda message, *_, **__: f"unroll: warning: {message}\n"
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\.(pytorch|fabric)\..*", category=UserWarning)
    warnings.filterwarnings(
        "ignore", module=r"(lightning|torch|pipeline\.distributed\.strategies)\..*", category=FutureWarning
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
