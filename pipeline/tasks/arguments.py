"""The arguments that a task was created with, as plain values that a checkpoint can hold."""

import dataclasses
import importlib
import inspect
from typing import Any

PACKAGE = "pipeline."
NOT_NEEDED = ("optimizer", "schedule")  # they do not change the outputs of a task


def plain_arguments(task: object) -> tuple[dict[str, Any], list[str]]:
    """Return the arguments of the constructor call that creates a task, and the names of those that are not plain.

    Must be called within the constructor. Plain are numbers, texts, None, lists and mappings of them, and settings of
    this package, which are frozen dataclasses of plain values.
    """
    found: dict[str, Any] = {}
    frame = inspect.currentframe()
    while frame := frame.f_back if frame else None:
        if frame.f_code.co_name == "__init__" and frame.f_locals.get("self") is task:
            names, _, keywords, values = inspect.getargvalues(frame)
            found = {name: values[name] for name in names if name != "self"} | (values[keywords] if keywords else {})
    plain = {name: _plain(value) for name, value in found.items() if _is_plain(value)}
    return plain, [name for name in found if name not in plain and name not in NOT_NEEDED]


def rebuilt_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that `plain_arguments` made plain."""
    return {name: _rebuilt(value) for name, value in arguments.items()}


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        of_package = type(value).__module__.startswith(PACKAGE)
        return of_package and all(_is_plain(getattr(value, each.name)) for each in fields)
    return value is None or isinstance(value, (bool, int, float, str))


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        settings = {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
        return {"class_path": f"{type(value).__module__}.{type(value).__qualname__}", "init_args": settings}
    return value


def _rebuilt(value: Any) -> Any:
    if isinstance(value, list):
        return [_rebuilt(each) for each in value]
    if not isinstance(value, dict):
        return value
    path = value.get("class_path", "")
    inner = {name: _rebuilt(each) for name, each in value.items()}
    if not (isinstance(path, str) and path.startswith(PACKAGE) and set(value) == {"class_path", "init_args"}):
        return inner
    module, _, name = path.rpartition(".")
    settings: Any = getattr(importlib.import_module(module), name)
    is_settings: bool = dataclasses.is_dataclass(settings)
    return settings(**inner["init_args"]) if is_settings else inner
