"""The keys that a command line and its configs give, checked before they are merged; later errors do not name the file.

A key is refused if it would have no effect, because its value is derived, or because a run has another part for it.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from itertools import islice
from pathlib import Path

import yaml
from lightning.pytorch import Trainer

from pipeline.dataset.facts import DataFacts
from pipeline.errors import ConfigError
from pipeline.runs.moved import complaint, renamed_key, renamed_option
from pipeline.training.config_errors import DuplicateKey, UniqueKeys, read_mapping

NO_EFFECT = {
    "trainer.accumulate_grad_batches": "Set data.init_args.global_batch_size and per_device_batch_size",
    "trainer.logger": "Every run has a journal and W&B: set tracking",
    "trainer.enable_checkpointing": "Every run saves checkpoints: set checkpoints",
    "trainer.enable_progress_bar": "A terminal shows a bar, and any other output shows lines",
    "trainer.enable_model_summary": "`unroll plan` prints the number of parameters",
    "trainer.enable_autolog_hparams": "config.yaml of the run holds all values",
    "trainer.use_distributed_sampler": "The batch plan divides the data among the processes",
    "trainer.default_root_dir": "Set --run",
    "trainer.limit_predict_batches": "Set trainer.limit_val_batches or limit_test_batches",
    "trainer.model_registry": "Set tracking.upload",
    "trainer.barebones": "Set tracking, checkpoints and guard",
    "data.init_args.seed": "Set seed_everything",
    **{f"model.init_args.{fact.name}": "It is a property of the dataset" for fact in fields(DataFacts)},
}  # keys without an effect, and what to set instead
DEFAULTS = {f"trainer.{name}": each.default for name, each in inspect.signature(Trainer).parameters.items()}
YAML = (".yaml", ".yml")


def configs_first(arguments: list[str]) -> list[str]:
    """Return a command line with its configs before all other options, which then override them."""
    configs: list[str] = []
    others: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument in ("-c", "--config"):
            configs += [argument, *islice(remaining, 1)]
        else:
            (configs if argument.startswith("--config=") else others).append(argument)
    return configs + others


def check_files(arguments: list[str]) -> None:
    """Check the config files of a command line.

    Raises:
        ConfigError: a file is missing, is not YAML, or is not a mapping of keys to values.
    """
    for option, value in _options(arguments):
        if option in ("-c", "--config"):
            read_mapping(Path(value), "--config ")


def check_names(arguments: list[str]) -> None:
    """Reject class paths and keys of version 0.1, and keys without an effect, in arguments and config files.

    Raises:
        ConfigError: a class was moved, a key was renamed or has no effect; the message gives the one to use.
    """
    for argument in arguments:
        path = Path(argument.removeprefix("--config="))
        if path.suffix in YAML and path.is_file():
            config = read_mapping(path)
            if line := complaint(yaml.safe_dump(config)) or renamed_key(config):
                raise ConfigError(f"{path}: {line}")
        elif line := complaint(argument) or renamed_option(argument):
            raise ConfigError(line)
    for where, key, value in _given(arguments):
        if key in NO_EFFECT and value not in (None, DEFAULTS.get(key)):
            raise ConfigError(f"{where}{key}={value} has no effect. {NO_EFFECT[key]}")


def with_effect(config: object, prefix: str = "") -> object:
    """Return the config of a run without the keys that have no effect; earlier versions wrote other values for them."""
    if not isinstance(config, Mapping):
        return config
    return {
        name: with_effect(part, f"{prefix}{name}.")
        for name, part in config.items()
        if f"{prefix}{name}" not in NO_EFFECT
    }


def _options(arguments: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the options of a command line with their values."""
    for at, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if argument.startswith("-"):
            yield option, value if equals else "".join(arguments[at + 1 : at + 2])


def _given(arguments: list[str]) -> Iterator[tuple[str, str, object]]:
    """Yield the file, the long form and the value of each key in the options of a command line and in their files."""
    for option, value in _options(arguments):
        if option in ("-c", "--config"):
            yield from _leaves(f"{value}: " if Path(value).suffix in YAML else "", "", _parsed(option, value))
        else:
            yield from _leaves("--", option.removeprefix("--"), _parsed(option, value))


def _leaves(where: str, key: str, value: object) -> Iterator[tuple[str, str, object]]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _leaves(where, f"{key}.{name}" if key else str(name), part)
    elif isinstance(value, str) and value.endswith(YAML) and Path(value).is_file():
        yield from _leaves(f"{value}: ", key, read_mapping(Path(value)))
    else:
        yield where, re.sub(r"^(model|data)\.(?!init_args\.|class_path$)", r"\1.init_args.", key), value


def _parsed(option: str, value: str) -> object:
    """Return the content of a config, or the value of another option; text that is not YAML is returned as it is.

    Raises:
        ConfigError: a mapping has a key twice.
    """
    if option in ("-c", "--config") and Path(value).suffix in YAML:
        return read_mapping(Path(value), "--config ")
    try:
        return yaml.load(value, UniqueKeys)
    except DuplicateKey as error:
        raise ConfigError(f"{option}: {error.problem}") from error
    except yaml.YAMLError:
        return value
