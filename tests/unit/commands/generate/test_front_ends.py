"""Every task declares its input and output; each pair has a front end or an error message."""

import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

import pipeline.models
import pipeline.tasks
from pipeline.arguments import Parser
from pipeline.cli import main
from pipeline.commands.generate.command import FRONT_ENDS, REFUSED, example, front_end
from pipeline.commands.generate.options import add_options
from pipeline.commands.generate.trained import Trained
from pipeline.errors import ConfigError
from pipeline.tasks.task import Reads, Task, Writes

ABSTRACT = {"Task", "TokenPrediction", "LevelModel"}


def classes() -> Iterator[type]:
    """Yield all classes of the packages models and tasks."""
    for package in (pipeline.models, pipeline.tasks):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for each in vars(import_module(found.name)).values():
                if isinstance(each, type) and each.__module__ == found.name:
                    yield each


def tasks() -> list[type[Task]]:
    return [each for each in classes() if issubclass(each, Task) and each.__name__ not in ABSTRACT]


def reads_of(task: type[Task]) -> set[str]:
    """Return the kinds of input of a task; of a task with an encoder, those of all encoders."""
    if isinstance(inspect.getattr_static(task, "reads"), property):
        return {
            each.reads
            for each in classes()
            if isinstance(vars(each).get("reads"), str) and "encoders" in each.__module__
        }
    return {task.reads}


def test_the_tasks_were_found() -> None:
    assert {"LSTMLanguageModel", "Translator", "Classifier", "Policy"} <= {each.__name__ for each in tasks()}
    assert reads_of(next(each for each in tasks() if each.__name__ == "Classifier")) == {"text", "image", "audio"}


@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.__name__)
def test_every_task_declares_a_pair_that_is_known(task: type[Task]) -> None:
    assert task.writes in get_args(Writes)
    assert reads_of(task) <= set(get_args(Reads))
    assert {(reads, task.writes) for reads in reads_of(task)} <= FRONT_ENDS.keys() | REFUSED.keys()


def test_every_value_and_every_pair_belongs_to_a_task() -> None:
    pairs = {(reads, task.writes) for task in tasks() for reads in reads_of(task)}
    assert pairs == FRONT_ENDS.keys() | REFUSED.keys()
    assert {reads for reads, _ in pairs} == set(get_args(Reads))
    assert {writes for _, writes in pairs} == set(get_args(Writes))


@pytest.mark.parametrize("pair", FRONT_ENDS, ids="-".join)
def test_a_front_end_accepts_its_options_and_its_example(pair: tuple[Reads, Writes]) -> None:
    front = FRONT_ENDS[pair]
    everything, own = Parser(), Parser()
    add_options(everything)
    add_options(own, front.takes.split())
    assert not {f"--{name}" for name in front.takes.split()} - everything._option_string_actions.keys()
    assert own.parse_args(front.example.split())
    assert vars(own.parse_args([])) == vars(everything.parse_args([]))
    assert inspect.isfunction(import_module(f"pipeline.commands.generate.{front.module}").main)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("episode", "action"), r"^it is a policy: .* Run `unroll play it`$"),
        (
            ("image", "label"),
            r"^runs/it \(SimpleNamespace\) is a classifier: .* Measure its accuracy with `unroll test`$",
        ),
        (("series", "label"), "`unroll generate` does not support models from series to label"),
    ],
)
def test_a_pair_without_a_front_end_is_refused(pair: tuple[str, str], message: str) -> None:
    task = SimpleNamespace(reads=pair[0], writes=pair[1])
    with pytest.raises(ConfigError, match=message):
        front_end(Trained("it", Path("runs/it"), task))
    assert example(task) == ""


def test_help_alone_prints_every_option_and_help_of_a_run_its_own(
    babbler: SimpleNamespace, capsys: pytest.CaptureFixture
) -> None:
    assert main(["generate", "--help"]) == 0
    every = capsys.readouterr().out
    assert [name for front in FRONT_ENDS.values() for name in front.takes.split() if f"--{name}" not in every] == []
    with pytest.raises(SystemExit, match="0"):
        main(["generate", "babble", "--help"])
    own = capsys.readouterr().out
    assert own.startswith("usage: unroll generate babble [-h] ")
    assert "--prompt TEXT" in own
    assert "--chat" in own
    assert "--history" not in own
    assert "--lm" not in own
    assert babbler.loaded == []


def test_a_run_may_come_after_its_options(babbler: SimpleNamespace, capsys: pytest.CaptureFixture) -> None:
    written = []
    for command in (["babble", "--tokens", "4", "--prompt", "the"], ["--prompt", "the", "--tokens", "4", "babble"]):
        assert main(["generate", *command]) == 0
        written.append(capsys.readouterr().out)
    assert written[0] == written[1]
    assert main(["generate", "--tokens", "4"]) == 2
    assert "the following arguments are required: RUN; see `unroll generate --help`" in capsys.readouterr().err
