"""What is wrong with a config, in one line that names the key and the mend, from the many that jsonargparse says."""

import re
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from pipeline.errors import ConfigError, UserError
from pipeline.runs.moved import complaint, renamed_key, renamed_option

LISTED = 16  # keys of a class that a line may list
CLASS = r"class_path(?:=| )'([\w.]+)'"

# what jsonargparse adds to say through which types it went
NESTING = (
    "usage:",
    "tip:",
    "Problem with given class_path",
    "Does not validate",
    "Subtypes:",
    "Errors:",
    "Expected a <class 'NoneType'>",
    "Given value",
)


def check_files(arguments: list[str]) -> None:
    """Look at the config files that a command line names before they are merged: afterwards no error tells which.

    Raises:
        ConfigError: a file is missing, no YAML, or no mapping of keys to values.
    """
    for index, argument in enumerate(arguments):
        if argument in ("-c", "--config") and index + 1 < len(arguments):
            read_mapping(Path(arguments[index + 1]), "--config ")
        elif argument.startswith("--config="):
            read_mapping(Path(argument.removeprefix("--config=")), "--config ")


def check_names(arguments: list[str]) -> None:
    """Look for class paths and keys of version 0.1 in arguments and in the config files that they name.

    Raises:
        ConfigError: a class has moved or a key was renamed; the message gives the new name.
    """
    for argument in arguments:
        path = Path(argument.removeprefix("--config="))
        if path.suffix in (".yaml", ".yml") and path.is_file():
            config = read_mapping(path)
            if line := complaint(yaml.safe_dump(config)) or renamed_key(config):
                raise ConfigError(f"{path}: {line}")
        elif line := complaint(argument) or renamed_option(argument):
            raise ConfigError(line)


def read_mapping(
    path: Path, option: str = "", wanted: str = "an experiment or an overlay of configs/"
) -> dict[str, Any]:
    """Keys and values of a YAML file.

    Args:
        path: the file.
        option: what stands before its name on the command line.
        wanted: what the file should have been.

    Raises:
        ConfigError: it is missing, no YAML, or no mapping of keys to values.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        near = path.parent.glob(f"*{path.suffix}") if path.suffix else ()
        raise ConfigError(f"{option}{path}: {error.strerror}{meant(str(path), map(str, near))}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{option}{path}: byte {error.start} is not UTF-8: give a YAML file") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{option}{path}{line} is no YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{option}{path} is no YAML: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{option}{path} holds no keys with values: give {wanted}")
    return found


def own(error: BaseException | None) -> UserError | None:
    """The error of ours that jsonargparse wrapped in one of its own, if there is one."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def plainly(message: str, keys: Iterable[str] = ()) -> str:
    """The line for an error of jsonargparse.

    Args:
        message: what it says.
        keys: the keys that the command line knows.
    """
    where = ".init_args.".join(re.findall(r'Parser key "([^"]+)"', message))
    said = _unknown(message, keys) or _no_class(message) or _wrong_type(message)
    if said is None:
        return _shortened(message)
    return f"{where}: {said}" if where else said


def _unknown(message: str, keys: Iterable[str]) -> str | None:
    """A key that nothing has, or that is missing."""
    if found := re.search(r"unrecognized arguments: (\S+)", message):
        name = found[1].split("=")[0]
        if not name.startswith("-"):
            return f"{name} is no option{': give it as --config' if name.endswith(('.yaml', '.yml')) else ''}"
        if classes := re.findall(CLASS, message):
            name, keys = name.removeprefix("--"), _taken_by(classes[-1])
            return f"{classes[-1].rsplit('.', 1)[-1]} takes no {name!r}{meant(name, keys)}"
        return f"there is no option {name}{meant(name, (f'--{key}' for key in keys))}"
    if found := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return f"there is no key {found[1]}.{found[2]}{meant(f'{found[1]}.{found[2]}', keys)}"
    if found := re.search(r"Option '([\w.]+)' is not accepted", message):
        classes = re.findall(CLASS, message)
        if not classes:
            first, groups = found[1].split(".")[0], {key.split(".")[0] for key in keys}
            return f"there is no key {first!r}{meant(first, groups)}"
        taken = [key for key in _taken_by(classes[-1]) if "." not in key]
        listed = f"; it takes {', '.join(taken)}" if 0 < len(taken) <= LISTED else ""
        return f"{classes[-1].rsplit('.', 1)[-1]} takes no {found[1]!r}{meant(found[1], taken) or listed}"
    if found := re.search(r"arguments are required: (.*)", message):
        return f"the config names no {found[1]}: give an experiment of configs/ as --config, overlays after it"
    return None


def _no_class(message: str) -> str | None:
    """A class that is not there."""
    if found := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", message):
        with suppress(ImportError):
            return f"{found[1]} has no {found[2]}{meant(found[2], dir(import_module(found[1])))}"
    if found := re.search(r"No module named '([\w.]+)'", message):
        return f"there is no module {found[1]}"
    return None


def _wrong_type(message: str) -> str | None:
    """A value of another type than the key's."""
    given = re.search(r"(?:Got|Given) value: (.*?)(?:\. Got value: .*)?$", message, re.MULTILINE)
    types = [kind for kind in re.findall(r"Expected a <class '(?:\w+\.)*(\w+)'>", message) if kind != "NoneType"]
    choices = [
        choice.strip().strip("'")
        for literal in re.findall(r"Expected a typing\.Literal\[(.*?)\]", message)
        for choice in literal.split(",")
    ]
    if given is None:
        return None
    if (path := re.search(r"Expected a dot import path string: (.*)", message)) and not types:
        return f"{path[1]!r} is no class: name one with its module, as torch.optim.AdamW"
    if wanted := list(dict.fromkeys([*types, *choices])):
        return f"wants {' or '.join(wanted)}, not {given[1]!r}{meant(given[1], choices)}"
    return None


def _taken_by(class_path: str) -> list[str]:
    """The arguments of a class."""
    module, _, name = class_path.rpartition(".")
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_class_arguments(getattr(import_module(module), name), fail_untyped=False)
        return list(parser.get_defaults().keys(branches=True))
    except Exception:  # whatever a class has: only the suggestion is lost
        return []


def meant(name: str, known: Iterable[str]) -> str:
    """A question whether the nearest of the known names was meant; nothing where none is near."""
    found = get_close_matches(name, list(known), 1, 0.75)
    return f"; did you mean {found[0]}?" if found else ""


def _shortened(message: str) -> str:
    """The lines that say what is wrong, without usage and nesting."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(NESTING)]
    return ": ".join(part.rstrip(":") for part in dict.fromkeys(telling or lines))[:600]
