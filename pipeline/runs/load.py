"""Load the model of a run with the weights of one of its checkpoints."""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.dataset.facts import DataFacts
from pipeline.errors import CheckpointError, ConfigError
from pipeline.runs import record
from pipeline.runs.moved import update_config

MODEL_CONFIG = "model_config"  # key of a checkpoint in one file


def choose_checkpoint(run: Path, which: str) -> Path:
    """Verify and return the checkpoint selected by `which`.

    Args:
        run: the run's directory.
        which: `best` (by the run's `checkpoints.metric`; the last if none was validated), `last`, or a path.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
    """
    from pipeline.distributed.checkpoint import directory as checkpoint

    if which not in ("best", "last"):
        checkpoint.verify_checkpoint(Path(which))
        return Path(which)
    best = []
    if which == "best":
        best = checkpoint.by_metric(run / "checkpoints", record.read_config(run)["checkpoints"]["metric"])
    if best:
        checkpoint.verify_checkpoint(best[0][1])
        return best[0][1]
    found = checkpoint.latest(run / "checkpoints", lambda line: print(line, file=sys.stderr))
    if found is None:
        raise CheckpointError(f"run {run.name} has no checkpoint. Train it until the first one is saved.")
    return found[0]


def load_model(run: Path, checkpoint: str = "best") -> Any:
    """Load the task of a run with the weights of a checkpoint, in evaluation mode, on the CPU.

    Args:
        run: the run's directory.
        checkpoint: `best`, `last` or a path, see `choose_checkpoint`.

    Raises:
        CheckpointError: the checkpoint is missing or damaged, or has the weights of another model.
    """
    from pipeline.distributed.checkpoint.averaged import prefer_average
    from pipeline.distributed.checkpoint.directory import read_state

    chosen = choose_checkpoint(run, checkpoint)
    model = build_model(model_config(run))
    state = read_state(chosen)
    try:
        prefer_average(state, model, chosen.name)
        model.load_state_dict(state["state_dict"])
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{chosen} does not match the model of {run / 'config.yaml'}: {error}. Use a checkpoint of this run."
        ) from error
    model.directory = run
    return model.eval()


def read_file(file: Path) -> dict[str, Any]:
    """Read a checkpoint in one file.

    Raises:
        CheckpointError: it is missing or damaged, or it contains more than tensors and plain values.
    """
    import pickle

    import torch

    try:
        found: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{file} is not a checkpoint that can be read: {str(error).splitlines()[0]}") from error
    return found


def load_checkpoint(path: Path, state: dict[str, Any] | None) -> Any:
    """Return the task of one checkpoint in training mode, on the CPU.

    Args:
        path: directory of a checkpoint, or a file that `unroll checkpoint convert` wrote.
        state: content of the file; None for a directory.

    Raises:
        CheckpointError: it is missing or damaged, or it does not match its config.
    """
    from pipeline.distributed.checkpoint.averaged import prefer_average
    from pipeline.distributed.checkpoint.directory import read_state, verify_checkpoint

    if state is None:
        verify_checkpoint(path)
    config = state[MODEL_CONFIG] if state else model_config(path)
    state = state or read_state(path)
    model = build_model(update_config(config, "model"))
    try:
        prefer_average(state, model, path.name)
        model.load_state_dict(state["state_dict"])
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not match the model of its config: {error}") from error
    if path.is_dir():
        model.directory = path.absolute().parents[1]  # the run
    return model


def skeleton(run: Path) -> Any:
    """Build the task of a run on the meta device, without storage for weights, to read its declarations."""
    import torch

    with torch.device("meta"):
        return build_model(model_config(run))


def model_config(run: Path) -> dict[str, Any]:
    """Return class and arguments of a run's model, including those from its data, without files of initial weights."""
    config = _without_weights(record.read_config(run)["model"])
    assert isinstance(config, dict)
    return with_facts(config, DataFacts(**record.read_record(run)["linked"]))


def with_facts(config: dict[str, Any], facts: DataFacts) -> dict[str, Any]:
    """Return class and arguments of a model, with the data facts that its class has as parameters.

    Raises:
        ConfigError: the class cannot be imported.
    """
    module, _, name = config["class_path"].rpartition(".")
    try:
        model = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(
            f"class {config['class_path']} of the run was not found ({error}). Run this command in the directory of "
            "its file, or add that directory to PYTHONPATH"
        ) from error
    decided = facts.arguments_of(model)
    return {**config, "init_args": {**(config.get("init_args") or {}), **decided}}


def _without_weights(config: object) -> object:
    """Return a model's config without files of initial weights, because its checkpoints contain the weights."""
    if isinstance(config, list):
        return [_without_weights(part) for part in config]
    if not isinstance(config, dict):
        return config
    return {name: None if name == "weights" else _without_weights(part) for name, part in config.items()}


def build_model(config: Mapping[str, object]) -> Any:
    """Build the task of a config, with newly initialized weights."""
    from jsonargparse import ArgumentParser
    from lightning.pytorch import LightningModule

    from pipeline.runs import options

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model")
    with options.of_their_class():
        parsed = parser.parse_object({"model": config})
    return parser.instantiate_classes(parsed).model
