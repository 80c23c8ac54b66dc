"""Results of recipes: one JSON file per recipe, with figures and everything that they depend on."""

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import NotRequired, TypedDict

from pipeline.arguments import available_cores
from pipeline.commands.reproduce.recipe import Recipe
from pipeline.errors import DataError
from pipeline.files import write_durably
from pipeline.runs.code import Code
from pipeline.runs.journal import MetricSeries, read_journal
from pipeline.runs.run import Run

THINNED = 20  # maximum number of points of a validation curve
Scores = dict[str, float]
Points = list[tuple[int, float]]


class SeedResult(TypedDict):
    """What one seed gave."""

    figure: float
    scores: Scores
    """All values that the test printed."""
    parameters: int
    processor_seconds: float | None
    """Of training, in all attempts; None if an attempt was killed before it could record them."""
    commit: str
    machine: str
    steps: NotRequired[int]
    curve: NotRequired[Points]
    """The metric in validations: optimizer steps and values."""
    points: NotRequired[dict[str, float]]
    """The metric at the steps of the recipe's points."""


class Result(TypedDict):
    """The content of a file."""

    citation: str
    metric: str
    published: float
    band: list[float]
    mean: float
    inside: bool
    command: str
    date: str
    seeds: dict[str, SeedResult]


def result_of(recipe: Recipe, seeds: Mapping[int, SeedResult], command: str) -> Result:
    """Return the result of a recipe: the mean over its seeds, compared with the band."""
    mean = fmean(each["figure"] for each in seeds.values())
    return {
        "citation": recipe.citation,
        "metric": recipe.metric,
        "published": recipe.published,
        "band": list(recipe.band),
        "mean": mean,
        "inside": recipe.contains(mean),
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "seeds": {str(seed): each for seed, each in seeds.items()},
    }


def write_result(file: Path, result: Result) -> None:
    """Write a result to a file, in a directory that is created if it does not exist."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1) + "\n"
    write_durably(file, lambda new: new.write_text(text, encoding="utf-8"))


def read_results(folder: Path) -> dict[str, Result]:
    """Return the results in a directory by the names of their recipes; empty if it does not exist.

    Raises:
        DataError: a file is damaged.
    """
    found = {}
    for file in sorted(folder.glob("*.json")):
        try:
            found[file.stem] = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{file} is not valid JSON ({error}). Remove it and run the recipe again") from error
    return found


def measured(recipe: Recipe, run: Run, scores: Scores) -> SeedResult:
    """Return what a finished run and its scores give.

    Raises:
        DataError: the metric of the recipe is not among the scores.
    """
    record = run.record
    attempts = record["attempts"]
    spent = [each.get("processor_seconds") for each in attempts]
    series = read_journal(run.path).series(recipe.validated)
    found: SeedResult = {
        "figure": figure_of(recipe, scores),
        "scores": scores,
        "parameters": record["parameters"],
        "processor_seconds": None if None in spent else round(sum(spent), 1),
        "commit": str(Code.of_attempt(attempts[-1])),
        "machine": machine(str(record.get("speed", {}).get("device", "cpu"))),
        "steps": record["steps"],
        "curve": evenly_spaced(series),
    }
    if passed := points_passed(recipe, series):
        found["points"] = {str(step): value for step, value in passed.items()}
    return found


def figure_of(recipe: Recipe, scores: Scores) -> float:
    """Return the metric of a recipe.

    Raises:
        DataError: it is not among the scores.
    """
    if recipe.metric not in scores:
        raise DataError(f"metric={recipe.metric}: expected one of {', '.join(scores)}. Correct it in the recipe")
    return scores[recipe.metric]


def points_passed(recipe: Recipe, series: MetricSeries) -> dict[int, float]:
    """Return the first validation at or after each of the recipe's points that training has passed."""
    rows = [*zip(series.steps, series.values, strict=True)]
    found = {point: next((value for step, value in rows if step >= point), None) for point in sorted(recipe.points)}
    return {point: value for point, value in found.items() if value is not None}


def evenly_spaced(series: MetricSeries) -> Points:
    """Return evenly spaced points of a curve, the first and the last one among them."""
    rows = [*zip(series.steps, series.values, strict=True)]
    if len(rows) <= THINNED:
        return rows
    return [rows[round(k * (len(rows) - 1) / (THINNED - 1))] for k in range(THINNED)]


def machine(device: str = "cpu") -> str:
    """Return the processor and the number of its cores, and the device of a training if it is another one."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = named[0] if named else platform.processor() or platform.machine()
    others = "" if device.startswith("cpu") else f", {device}"
    return f"{name}, {available_cores()} of {os.cpu_count()} cores{others}"
