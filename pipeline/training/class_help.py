"""Find the class that `--model.help NAME` and `--data.help NAME` mean, and list the project's classes in its help.

jsonargparse 4.53 lists every known subclass of an argument's class, hundreds for a network: all modules of torch and
torchmetrics. It has no setting for this, so one of its private functions is replaced while a help is printed.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jsonargparse import _typehints

from pipeline.errors import ConfigError

OPTION = re.compile(r"--(model|data)\.help(?:=(.*))?")


def with_class_paths(arguments: list[str]) -> list[str]:
    """Return arguments in which the name of a class after `--model.help` or `--data.help` is a whole class path.

    Raises:
        ConfigError: the name is missing, unknown or ambiguous; the message lists the classes.
    """
    found = list(arguments)
    for index, argument in enumerate(arguments):
        if not (match := OPTION.fullmatch(argument)):
            continue
        group, name = match[1], match[2]
        if name:
            found[index] = f"--{group}.help={class_path(group, name)}"
        elif name is None and index + 1 < len(arguments) and not arguments[index + 1].startswith("-"):
            found[index + 1] = class_path(group, arguments[index + 1])
        else:
            raise ConfigError(f"--{group}.help: expected a class: {', '.join(map(last, classes(group)))}")
    return found


@contextmanager
def own_classes() -> Iterator[None]:
    """List only networks of the project, and all optimizers, in a help printed in this context; or what else exists."""
    private: Any = _typehints
    known = private.get_all_subclass_paths

    def own(*arguments: Any, **more: Any) -> list[str]:
        found: list[str] = known(*arguments, **more)
        own = [path for path in found if path.startswith(("pipeline.", "torch.optim."))]
        return [path for path in own if path.startswith("pipeline.models.")] or own or found

    private.get_all_subclass_paths = own
    try:
        yield
    finally:
        private.get_all_subclass_paths = known


def class_path(group: str, name: str) -> str:
    """Return the path of the class with a name or a part of one: LSTMLanguageModel, or a path itself."""
    if "." in name:
        return name
    paths = list(classes(group))
    exact = [path for path in paths if last(path) == name]
    alike = exact or [path for path in paths if name.lower() in last(path).lower()]
    if len(alike) == 1:
        return alike[0]
    listed = ", ".join(map(last, alike or paths))
    raise ConfigError(f"--{group}.help={name}: {'several classes match' if alike else 'no such class'}: {listed}")


def last(path: str) -> str:
    """Return the last part of a class path."""
    return path.rpartition(".")[2]


def classes(group: str) -> Iterator[str]:
    """Yield the paths of the tasks, or of the DataModules."""
    from pipeline.data.module import PlannedDataModule
    from pipeline.tasks.task import Task

    base: type = Task if group == "model" else PlannedDataModule
    for room in ("pipeline.models", "pipeline.tasks") if group == "model" else ("pipeline.data",):
        for module in pkgutil.walk_packages(importlib.import_module(room).__path__, f"{room}."):
            for name, value in vars(importlib.import_module(module.name)).items():
                own = inspect.isclass(value) and value.__module__ == module.name
                if own and issubclass(value, base) and value is not base:
                    yield f"{module.name}.{name}"
