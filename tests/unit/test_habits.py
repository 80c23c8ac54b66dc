"""Rules of the code base that every file follows."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parent.parent.parent
FILES = sorted(path for package in ("pipeline", "data_prep") for path in (REPOSITORY / package).rglob("*.py"))
EACH_FILE = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions and methods of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, FUNCTIONS):
            yield node


def test_the_packages_were_found() -> None:
    assert {"cli.py", "state.py", "text.py"} <= {path.name for path in FILES}


@EACH_FILE
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@EACH_FILE
def test_a_function_fits_on_a_screen(path: Path) -> None:
    lengths = {f.name: (f.end_lineno or 0) - f.lineno + 1 for f in functions(path)}
    assert {name: length for name, length in lengths.items() if length > 50} == {}


def test_tests_can_be_read_in_one_sitting_too() -> None:
    files = sorted((REPOSITORY / "tests").rglob("*.py"))
    assert len(files) > 150
    assert [path for path in files if len(path.read_text(encoding="utf-8").splitlines()) > 300] == []


def test_most_functions_are_short() -> None:
    lengths = sorted((f.end_lineno or 0) - f.lineno + 1 for path in FILES for f in functions(path))
    assert len(lengths) > 2000
    assert lengths[len(lengths) // 2] <= 8
    assert lengths[len(lengths) * 9 // 10] <= 25


SAME_MEANING = {"main", "parser", "parse_arguments"}  # of each verb of the command line


def test_a_public_name_of_a_module_stands_once() -> None:
    """One name, one meaning: functions and classes."""
    found: dict[str, list[str]] = {}
    for path in (path for path in FILES if path.is_relative_to(REPOSITORY / "pipeline")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.ClassDef, *FUNCTIONS)) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(path.name)
    assert len(found) > 500
    assert {name: paths for name, paths in found.items() if len(paths) > 1 and name not in SAME_MEANING} == {}


def test_the_type_checker_is_rarely_overruled() -> None:
    lines = [line for path in FILES for line in path.read_text(encoding="utf-8").splitlines()]
    assert sum("type: ignore" in line for line in lines) <= 28


def test_values_have_types() -> None:
    """`Any` remains at the border to libraries."""
    lines = [line for path in FILES for line in path.read_text(encoding="utf-8").splitlines()]
    assert sum(re.search(r"\bAny\b", line) is not None for line in lines) <= 373


def test_private_attributes_of_lightning_and_deepspeed_stand_in_one_file_each() -> None:
    """Looks for those that are used: a new one belongs into the same file."""
    lightning = (
        r"\b_(?:should_accumulate|should_check_val_fx|data_fetcher|has_run|checkpoint_connector|val_check_time\w*)\b"
    )
    deepspeed = (
        r"\b(?:_hp_mapping|fp32_partitioned_groups_flat|single_partition_of_fp32_groups|grad_position|bit16_groups)\b"
    )
    for names, owner in ((lightning, "lightning_internals.py"), (deepspeed, "deepspeed_layout.py")):
        assert {path.name for path in FILES if re.search(names, path.read_text(encoding="utf-8"))} == {owner}


def test_no_class_is_changed_from_outside() -> None:
    assert [path for path in FILES if re.search(r"__(?:class|init)__ = ", path.read_text(encoding="utf-8"))] == []


def test_nobody_asks_which_strategy_it_is() -> None:
    asking = re.compile(r"isinstance\([\w.]*strategy, (?!str\))")
    found = [path for path in FILES if asking.search(path.read_text(encoding="utf-8"))]
    assert [path.parent.name for path in found] == ["strategies"]


@EACH_FILE
def test_a_file_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if path.name == "__init__.py" and not path.read_text(encoding="utf-8").strip():
        return  # an empty file marks a package and needs no words
    assert docstring is not None
    assert docstring.split("\n\n")[0].rstrip().endswith((".", ":"))


@EACH_FILE
def test_no_path_of_one_machine_is_in_the_code(path: Path) -> None:
    assert re.findall(r"/(?:work|tmp|home|root|Users)/\S*", path.read_text(encoding="utf-8")) == []


def test_tasks_and_commands_decide_by_declarations() -> None:
    """Not by what an object happens to have."""
    package = REPOSITORY / "pipeline"
    files = [*package.glob("commands/**/*.py"), *package.glob("tasks/*.py"), package / "runs" / "export.py"]
    assert len(files) > 50
    assert [path for path in files if "hasattr(" in path.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_malicious_uploads_of_lightning_cannot_be_installed(version: str) -> None:
    import tomllib

    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        wanted = [Requirement(line) for line in tomllib.load(file)["project"]["dependencies"]]
    [lightning] = [one for one in wanted if one.name == "lightning"]
    assert not lightning.specifier.contains(version)
    assert lightning.specifier.contains("2.6.1")


def test_every_pin_is_one_exact_version_without_an_address() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin)] == []
    assert len(pins) > 50


def test_every_requirement_is_met_by_its_pin() -> None:
    import tomllib

    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    extras = [line for group in project["optional-dependencies"].values() for line in group]
    for one in map(Requirement, [*project["dependencies"], *extras]):
        assert one.specifier.contains(pins[one.name.lower().replace("_", "-")]), one


@pytest.mark.parametrize("arguments", [["--help"], [], ["nonsense"], ["prepare", "--help"], ["prepare", "nonsense"]])
def test_help_and_mistakes_do_not_wait_for_torch(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from pipeline.cli import main\n"
        f"main({arguments!r})\n"
        "heavy = {'torch', 'lightning', 'datasets', 'wandb', 'tokenizers', 'numpy'}\n"
        "print('imported:', sorted(heavy & set(sys.modules)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert ran.stdout.splitlines()[-1] == "imported: []"


def test_every_make_target_explains_itself() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    [phony] = re.findall(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    explained = set(re.findall(r"^([a-z-]+):.*## \S", makefile, flags=re.MULTILINE))
    assert set(phony.split()) == explained


def comparisons_of_floats() -> Iterator[tuple[Path, ast.FunctionDef]]:
    """Tests that compare results of torch."""
    compares = re.compile(r"assert_close|allclose|approx\(|torch\.equal|isclose")
    for folder in ("unit", "golden"):
        for path in sorted((REPOSITORY / "tests" / folder).rglob("test_*.py")):
            text = path.read_text(encoding="utf-8")
            if not re.search(r"^\s*(import|from) torch", text, re.M) or re.search(r"^pytestmark.*numeric", text, re.M):
                continue
            for node in ast.parse(text).body:
                source = ast.get_source_segment(text, node) or ""
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and compares.search(source):
                    yield path, node


def test_tests_that_compare_floats_run_as_on_other_processors() -> None:
    found = [
        (path, node.name, {ast.unparse(each).removeprefix("pytest.mark.") for each in node.decorator_list})
        for path, node in comparisons_of_floats()
    ]
    assert len(found) > 100
    unmarked = [f"{path.name}: {name}" for path, name, marks in found if not marks & {"numeric", "learns"}]
    assert not unmarked, f"mark with @pytest.mark.numeric (or learns, where it trains to a bound): {unmarked}"


def test_tests_of_learning_record_what_they_reach() -> None:
    """So that `--seeds 10` prints how far the bound is from it."""
    texts = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "tests" / "unit").rglob("test_*.py")]
    trees = [node for text in texts for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    marked = [node for node in trees if "pytest.mark.learns" in map(ast.unparse, node.decorator_list)]
    assert len(marked) > 8
    for node in marked:
        assert {"seed", "record_property"} <= {argument.arg for argument in node.args.args}, node.name


def test_every_number_of_the_benchmarks_comes_from_a_file() -> None:
    """A page with numbers is what its JSON file renders to."""
    check = [sys.executable, REPOSITORY / "tests" / "benchmarks" / "page.py", "--check"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
