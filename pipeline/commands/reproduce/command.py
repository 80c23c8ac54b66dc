"""`unroll reproduce NAME`: repeat a published result, from the raw files to the figure, and compare the two.

The command verifies the files, prepares the dataset, trains one run per seed (`runs/published-NAME-SEED`), tests
it, and writes the result as JSON. After an interruption, the same command continues. It exits with 1 if the mean over
the seeds is outside of the recipe's band.
"""

import argparse
import json
import shlex
from pathlib import Path

from pipeline.arguments import Parser, non_negative_integer
from pipeline.commands.compare.baselines import ORDER
from pipeline.commands.planned_runs import run_unroll
from pipeline.commands.reproduce import page, sources
from pipeline.commands.reproduce.progress import PassedPoints
from pipeline.commands.reproduce.recipe import Recipe, read_recipe, recipes
from pipeline.commands.reproduce.result import (
    Scores,
    SeedResult,
    figure_of,
    machine,
    measured,
    read_results,
    result_of,
    write_result,
)
from pipeline.distributed import signals
from pipeline.errors import TRY_AGAIN
from pipeline.runs.code import Code
from pipeline.runs.run import Run, directory_of, processor_seconds

OUTSIDE = 1  # exit code
IN_CHECKOUT, ELSEWHERE = Path("docs/results/published"), Path("results")


class CommandFailed(Exception):
    """A command of the recipe ended with another exit code than 0; carries it."""


def main(argv: list[str]) -> int:
    """Reproduce a result, or list all of them.

    Returns:
        0 if the mean is inside the band, 1 if it is not, 75 after a stop, else the code of the command that failed.

    Raises:
        ConfigError: the recipe does not exist, or it is invalid.
        DataError: a file is missing or differs, or the dataset was prepared differently.
    """
    options = parse_arguments(argv)
    output = options.output or (IN_CHECKOUT if IN_CHECKOUT.is_dir() else ELSEWHERE)
    if options.list:
        page.print_table([*recipes()], read_results(output))
        return 0
    recipe = read_recipe(options.name)
    signals.install()
    try:
        seeds = reproduce(recipe, options.data, options.seeds)
    except CommandFailed as failure:
        [code] = failure.args
        if code == TRY_AGAIN:
            print(f"{recipe.name} stopped; the same command continues it", flush=True)
        return int(code)
    command = shlex.join(["unroll", "reproduce", recipe.name, "--seeds", *map(str, seeds)])
    result = result_of(recipe, seeds, command)
    write_result(file := output / f"{recipe.name}.json", result)
    print(page.verdict(recipe, result), f"result: {file}", sep="\n", flush=True)
    return 0 if result["inside"] else OUTSIDE


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = Parser(prog="unroll reproduce", description=__doc__)
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("name", nargs="?", metavar="NAME", help="recipe, a file configs/published/NAME.yaml")
    what.add_argument("--list", action="store_true", help="print all recipes, published figures, ours, and costs")
    described = "folder of the files of the recipe (default: the variable PIPELINE_DATA, or ../shared/data)"
    add("--data", type=Path, default=sources.FOLDER, metavar="DIR", help=described)
    described = "seeds; the figure is their mean (default: 1)"
    add("--seeds", type=non_negative_integer, nargs="+", default=[1], metavar="SEED", help=described)
    described = f"folder of the results (default: {IN_CHECKOUT} in a checkout, else {ELSEWHERE})"
    add("--output", type=Path, metavar="DIR", help=described)
    return parser.parse_args(argv)


def reproduce(recipe: Recipe, data: Path, seeds: list[int]) -> dict[int, SeedResult]:
    """Return what each seed gives.

    Raises:
        CommandFailed: a command failed or was stopped.
        UserError: see `main`.
    """
    files = sources.verified(recipe, data)
    _succeed(sources.prepare_dataset(recipe, files, run_unroll))
    if not recipe.config:
        return {1: measure_ngram(recipe)}
    return {seed: train_and_test(recipe, seed) for seed in dict.fromkeys(seeds)}


def train_and_test(recipe: Recipe, seed: int) -> SeedResult:
    """Train and test one seed; a finished run is only tested.

    Raises:
        CommandFailed: a command failed or was stopped.
    """
    directory = directory_of(recipe.run(seed))
    points = PassedPoints(recipe, directory)
    _succeed(run_unroll(recipe.fit(seed), meanwhile=points.look))
    points.print_new()
    file = directory / f"scores-{recipe.checkpoint}.json"
    test = [recipe.verb, "--run", recipe.run(seed), "--checkpoint", recipe.checkpoint, "--json", str(file)]
    _succeed(run_unroll(test))
    [scores, *_] = json.loads(file.read_text(encoding="utf-8")).values()
    return measured(recipe, Run(directory), scores)


def measure_ngram(recipe: Recipe) -> SeedResult:
    """Fit the Kneser-Ney n-gram on the dataset of a recipe and evaluate it.

    Raises:
        UserError: the dataset cannot be read, or the metric is unknown.
    """
    from pipeline.dataset.manifest import Dataset
    from pipeline.models import kneser_ney

    began = processor_seconds()
    found = kneser_ney.measure_baseline(Dataset.open(recipe.inputs, "tokens"), ORDER)
    splits = {"val": "validation", "test": "test"}
    scores: Scores = {
        f"{prefix}/{name}": value for prefix, split in splits.items() for name, value in found.get(split, {}).items()
    }
    return {
        "figure": figure_of(recipe, scores),
        "scores": scores,
        "parameters": found["ngrams"],
        "processor_seconds": round(processor_seconds() - began, 1),
        "commit": str(Code.running()),
        "machine": machine(),
    }


def _succeed(code: int) -> None:
    if code or signals.requested():
        raise CommandFailed(code or TRY_AGAIN)
