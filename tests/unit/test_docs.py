"""The pages of the documentation: commands parse, Python blocks run, links lead somewhere, the README stays short."""

import argparse
import re
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest
import yaml

from pipeline.arguments import Parser
from pipeline.cli import VERBS
from pipeline.commands.fit import evaluation_arguments
from pipeline.commands.generate.options import add_options
from pipeline.commands.slurm import layout, queue
from pipeline.commands.verify_resume.command import parser as resume_parser
from pipeline.errors import ConfigError
from pipeline.training.config import parse_config

REPOSITORY = Path(__file__).parent.parent.parent
DOCS = sorted((REPOSITORY / "docs").rglob("*.md"))
PAGES = [*sorted(REPOSITORY.glob("*.md")), REPOSITORY / "slurm/README.md", *DOCS]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
FENCE = re.compile(r"^```(?:\{ \.)?(\S*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NO_RUN = re.compile(r'\bno-run="(.+)"')
SNIPPET = "--8<--"  # a place where mkdocs copies a part of another page, which is tested there
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:\.ci|configs|data_prep|docs|pipeline|slurm|tests)/[\w./*-]+)`")
TO_BE_MADE = ("mine.yaml", "moving_average.py", "moving_average.yaml", "/NAME.yaml", "test_english.py")
TRAINING = ("fit", "validate", "test")
ANY_EXPERIMENT = "--config=configs/text/lstm.yaml"  # in place of the config that a run has kept


class Parsed(Exception):
    """The options of a command are valid; carries them."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.options = options


class Fence(NamedTuple):
    """A fenced block of a page."""

    language: str
    about: str
    text: str


def fences(page: Path, *languages: str) -> Iterator[Fence]:
    """The blocks of a page in some languages."""
    for match in FENCE.finditer(page.read_text(encoding="utf-8")):
        if match[1] in languages and SNIPPET not in match[3]:
            yield Fence(*match.groups())


def statements(block: Fence) -> Iterator[list[str]]:
    """The shell commands of a block as words; of a console only what follows `$`. Variables are expanded."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    variables: dict[str, str] = {}
    pending = ""
    for line in lines:
        pending = f"{pending}\n{line}" if pending else line
        for name, value in variables.items():
            pending = re.sub(rf"\${name}\b", value, pending)
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:  # an open quotation: the command continues on the next line
            continue
        pending = ""
        if len(words) == 1 and (match := re.fullmatch(r"(\w+)=(.*)", words[0])):
            variables[match[1]] = match[2]
        yield words
    assert not pending, f"an open quotation: {pending}"


def commands(page: Path) -> list[list[str]]:
    """The calls of `unroll` on a page, without the name of the program."""
    found = []
    for words in (each for block in fences(page, "sh", "console") for each in statements(block)):
        while words:
            end = next((i for i, word in enumerate(words) if word in ("|", "&&", ";", ">")), len(words))
            call, words = words[:end], words[end + 1 :]
            while call and re.match(r"[A-Z_]+=", call[0]):
                call = call[1:]
            if call and Path(call[0]).name == "unroll":
                found.append(call[1:])
    return found


def parse(command: list[str]) -> None:
    """Parse a command as far as its options, and the config of those that have one.

    Raises:
        ConfigError: an option or a key is invalid.
    """
    verb, *rest = command
    if verb in ("--help", "VERB"):
        return
    assert verb in VERBS, f"{verb} is not a verb"
    if verb in TRAINING:
        parse_training(*(rest if verb == "fit" else evaluation_arguments(verb, rest)[0]))
    elif verb == "generate":  # its own parser needs the run
        parser = Parser(prog="unroll generate")
        parser.add_argument("run")
        add_options(parser)
        options_of(parser.parse_args, rest)
    elif verb == "verify-resume":
        options, keys = resume_parser().parse_known_args(rest)
        parse_training(*configs(options.config), *keys)
    else:
        options = options_of(import_module(VERBS[verb][0]).main, rest)
        if verb in ("plan", "submit"):
            first_of_grid = [f"--{each.split(',')[0]}" for each in getattr(options, "grid", [])]
            parse_training(*configs(options.configs), *layout.divided(rest)[1], *first_of_grid)


def options_of(main: Callable[[list[str]], object], arguments: list[str]) -> argparse.Namespace:
    """The options that a verb parses; `stop_after_parsing` ends it there."""
    with pytest.raises(Parsed) as stopped:
        main(arguments)
    return stopped.value.options


def configs(files: list[str]) -> list[str]:
    return [f"--config={file}" for file in files]


@cache
def parse_training(*arguments: str) -> None:
    """Parse a config with its overrides; no dataset is opened."""
    if "--help-all" in arguments:
        return
    given = [argument for argument in arguments if argument != "--print_config"]
    if not any(argument.startswith("--config") for argument in given):
        given = [ANY_EXPERIMENT, *given]
    parse_config(given)


@pytest.fixture
def stop_after_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the repository, `Parser.parse_args` raises what it parsed; the Slurm queue is empty."""

    def parse_args(parser: Parser, arguments: list[str]) -> NoReturn:
        raise Parsed(argparse.ArgumentParser.parse_args(parser, arguments))

    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(Parser, "parse_args", parse_args)
    monkeypatch.setattr(queue, "queue", dict)


@every_page
def test_every_command_parses(page: Path, stop_after_parsing: None) -> None:
    problems = []
    for command in commands(page):
        try:
            parse(command)
        except ConfigError as error:
            problems.append(f"unroll {shlex.join(command)}: {error}")
    assert problems == []


def test_the_commands_of_a_page_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    shell = [
        'on="--config a.yaml"',
        "unroll fit $on \\",
        "  --run b  # a comment",
        "X=1 unroll sync b",
        "zcat c | unroll prepare text -",
        "unroll fit --model '{a: 1,",
        "  b: 2}'",
    ]
    console = ["$ unroll status", "unroll output"]
    page.write_text("\n".join(["```sh", *shell, "```", "", "```console", *console, "```", ""]))
    assert commands(page) == [
        ["fit", "--config", "a.yaml", "--run", "b"],
        ["sync", "b"],
        ["prepare", "text", "-"],
        ["fit", "--model", "{a: 1,\n  b: 2}"],
        ["status"],
    ]


@pytest.mark.parametrize(
    "command", ["fit --config=configs/text/lstm.yaml --model.widht 1", "sync", "prepare text a --cut b"]
)
def test_a_wrong_command_is_found(command: str, stop_after_parsing: None) -> None:
    with pytest.raises(ConfigError):
        parse(command.split())


@every_page
def test_every_python_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "block"}
    for block in fences(page, "python"):
        code = compile(block.text, str(page), "exec")
        if not NO_RUN.search(block.about):
            assert not block.about.strip(), "a block that does not run states the reason"
            exec(code, namespace)


@every_page
def test_every_yaml_block_parses(page: Path, tmp_path: Path) -> None:
    for block in fences(page, "yaml"):
        config = yaml.safe_load(block.text)
        if {"model", "data"} <= config.keys() and "moving_average" not in block.text:
            (tmp_path / "config.yaml").write_text(block.text)
            parse_training(f"--config={tmp_path / 'config.yaml'}")


@every_page
def test_links_and_paths_lead_to_something(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    problems = []
    for target in LINK.findall(text):
        path, _, anchor = target.partition("#")
        if re.match(r"\w+:", path):
            continue
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            problems.append(target)
    for target in PATH.findall(text):
        if not target.endswith(TO_BE_MADE) and not any(REPOSITORY.glob(target.rstrip("/"))):
            problems.append(target)
    assert problems == []


def anchors(page: Path) -> set[str]:
    """The names of a page's headings in links."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 180


def test_every_page_is_in_the_navigation() -> None:
    navigation = re.findall(r": (\S+\.md)$", (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(navigation) == [str(page.relative_to(REPOSITORY / "docs")) for page in DOCS]


@pytest.mark.parametrize(
    "page", [page for page in DOCS if not page.with_suffix(".json").exists()], ids=lambda page: page.stem
)
def test_every_page_has_an_example(page: Path) -> None:
    assert list(fences(page, "sh", "console", "python", "yaml"))


def test_the_error_messages_on_the_pages_are_those_of_the_code() -> None:
    files = [file for folder in ("pipeline", "data_prep") for file in sorted((REPOSITORY / folder).rglob("*.py"))]
    files += sorted((REPOSITORY / "slurm").glob("*.sbatch"))
    code = re.sub(r'"\n\s*f?"', "", "".join(file.read_text(encoding="utf-8") for file in files))
    pages = [(REPOSITORY / "docs" / name).read_text(encoding="utf-8") for name in ("troubleshooting.md", "cluster.md")]
    messages = [each for page in pages for each in re.findall(r"^\| `([^`]* [^`]*)` \|", page, re.MULTILINE)]
    constant = {message: max(re.findall(r"\b[a-z]+(?: [a-z]+)*\b", message), key=len) for message in messages}
    assert len(messages) > 15
    assert {message: words for message, words in constant.items() if words not in code} == {}
