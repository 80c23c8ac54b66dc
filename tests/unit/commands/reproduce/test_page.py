"""The tables of the documentation are those of the results, which are those of the recipes."""

from pathlib import Path

import pytest

from pipeline.commands.reproduce import command, page
from pipeline.commands.reproduce.recipe import recipes
from pipeline.commands.reproduce.result import evenly_spaced, read_results, result_of
from pipeline.runs.journal import MetricSeries

ROOT = Path(__file__).parents[4]
RECIPES = {recipe.name: recipe for recipe in recipes()}
RESULTS = read_results(ROOT / page.RESULTS)


def test_the_pages_are_what_the_files_give() -> None:
    for file, text in page.pages(ROOT):
        assert file.read_text(encoding="utf-8") == text, f"{file}: run python -m pipeline.commands.reproduce.page"


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_that_of_its_recipe(name: str) -> None:
    recipe, result = RECIPES[name], RESULTS[name]
    expected = result_of(recipe, {int(seed): each for seed, each in result["seeds"].items()}, result["command"])
    assert {**result, "date": ""} == {**expected, "date": ""}
    for each in result["seeds"].values():
        assert each["figure"] == each["scores"][recipe.metric]


def test_a_recipe_that_was_not_run_says_so_and_comes_last(capsys: pytest.CaptureFixture[str]) -> None:
    first, *others = RECIPES.values()
    last = others[-1]
    seeds = {1: {"figure": 7.0, "scores": {}, "parameters": 1, "processor_seconds": 90.0, "commit": "", "machine": ""}}
    rows = page.published_rows([first, last], {last.name: result_of(last, seeds, "")})
    assert [(row["recipe"], row["ours"]) for row in rows] == [
        (f"`{last.name}`", "7, outside the band"),
        (f"`{first.name}`", "not run yet"),
    ]
    assert command.main(["--list", "--output", "nowhere"]) == 0
    assert capsys.readouterr().out.count("not run yet") == len(RECIPES)


def test_a_long_curve_keeps_its_ends() -> None:
    steps = [*range(100, 10_100, 100)]
    curve = evenly_spaced(MetricSeries(steps, steps, [float(s) for s in steps], [1 / s for s in steps]))
    assert len(curve) == 20
    assert (curve[0], curve[-1]) == ((100, 1 / 100), (10_000, 1 / 10_000))
