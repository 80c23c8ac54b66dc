"""Every shipped recipe is complete and can be run; a wrong one is refused with its key."""

from pathlib import Path

import pytest
import yaml

from pipeline.commands.reproduce.recipe import Recipe, read_recipe, recipes
from pipeline.errors import ConfigError
from pipeline.training.config import parse_config
from pipeline.training.shipped_configs import CONFIGS, located

RECIPES = [*recipes()]
every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
KNOWN = {
    "title": "Counting",
    "citation": "Doe 2020",
    "metric": "test/loss",
    "better": "lower",
    "published": 2,
    "band": [1, 3],
    "data": {"a.txt": "0" * 64, "a.txt.more": "1" * 64},
    "prepare": "text {data}/a.txt.more {data}/a.txt --tokenizer byte",
    "dataset": "data/counted",
    "cost": 1,
}


def written(folder: Path, **changes: object) -> Path:
    """Write the recipe `counting` with changes, without keys that are None."""
    content = {key: value for key, value in (KNOWN | changes).items() if value is not None}
    (folder / "counting.yaml").write_text(yaml.safe_dump(content))
    return folder


def test_the_recipes_were_found() -> None:
    assert {"ptb_kneser_ney", "shakespeare_small", "etth1_dlinear"} <= {recipe.name for recipe in RECIPES}


@every_recipe
def test_a_recipe_states_its_origin_and_a_band_around_the_published_figure_or_the_reason(recipe: Recipe) -> None:
    assert any(year in recipe.citation for year in map(str, range(1990, 2030))) or "readme" in recipe.citation.lower()
    assert recipe.contains(recipe.published) or recipe.note


@every_recipe
def test_the_preparation_uses_each_file_of_the_recipe(recipe: Recipe) -> None:
    files = {name: Path("found") / name for name in recipe.data}
    command = recipe.preparation(files)
    words = {word.partition("=")[2] or word for word in command}
    # The labels of an IDX file of images lie beside it.
    assert all(str(file).replace("labels-idx1", "images-idx3") in words for file in files.values())
    assert not any("{" in word for word in command)
    assert command[-2:] == ["--output", str(recipe.inputs)]
    assert recipe.inputs.parts[0] == "data"


@every_recipe
def test_the_configs_and_options_of_a_recipe_parse(recipe: Recipe) -> None:
    if not recipe.config:
        return
    assert all(Path(located(name)).resolve() == CONFIGS.parent / name for name in recipe.config)
    cli = parse_config(recipe.fit(seed=7)[1:])
    assert cli.config.seed_everything == 7
    assert Path(cli.config.data.init_args.dataset) == recipe.inputs  # not changed by an option


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"band": [3, 1]}, r"band=\[3.0, 1.0\]: expected a lower limit"),
        ({"data": {"a.txt": "abc"}}, "data: a.txt: expected a SHA-256 of 64 hexadecimal digits"),
        ({"cost": None}, "cost, gpu_minutes: expected one of the two"),
        ({"dataset": None}, "config, dataset: expected one of the two"),
        ({"better": "bigger"}, "better"),
        ({"citation": None}, "citation"),
        ({"publishd": 2}, "publishd"),
    ],
)
def test_an_invalid_recipe_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_recipe("counting", written(tmp_path, **changes))


def test_an_unknown_recipe_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no recipe 'guessing': expected one of counting"):
        read_recipe("guessing", written(tmp_path))


def test_a_file_whose_name_begins_with_that_of_another_one_is_not_confused_with_it(tmp_path: Path) -> None:
    recipe = read_recipe("counting", written(tmp_path))
    command = recipe.preparation({"a.txt": Path("x/a.txt.xz"), "a.txt.more": Path("x y/more")})
    assert command == ["prepare", "text", "x y/more", "x/a.txt.xz", "--tokenizer", "byte", "--output", "data/counted"]
