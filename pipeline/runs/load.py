"""The model of a run with the weights of one of its checkpoints."""

import importlib
import sys
from pathlib import Path
from typing import Any

from pipeline.dataset.facts import DataFacts
from pipeline.errors import CheckpointError
from pipeline.runs import record


def choose_checkpoint(run: Path, which: str) -> Path:
    """The checkpoint that `which` names, verified.

    Args:
        run: the run's directory.
        which: `best` (by the run's `checkpoints.metric`, the last where none was validated), `last`, or a path.

    Raises:
        CheckpointError: there is none, or it is damaged.
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
        raise CheckpointError(f"run {run.name} has no checkpoint yet")
    return found[0]


def load_model(run: Path, checkpoint: str = "best") -> Any:
    """The task of a run with the weights of one of its checkpoints, in evaluation mode, on the CPU.

    Args:
        run: the run's directory.
        checkpoint: `best`, `last` or a path, as `choose_checkpoint` takes it.

    Raises:
        CheckpointError: no checkpoint, a damaged one, or weights of another model.
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
        raise CheckpointError(f"{chosen} does not fit the model of {run / 'config.yaml'}: {error}") from error
    return model.eval()


def skeleton(run: Path) -> Any:
    """The task of a run without storage for its weights, for what it declares."""
    import torch

    with torch.device("meta"):
        return build_model(model_config(run))


def model_config(run: Path) -> dict[str, Any]:
    """Class and arguments of a run's model, with those that its data decided, without files that it began with."""
    config: dict[str, Any] = _without_weights(record.read_config(run)["model"])
    return with_facts(config, DataFacts(**record.read_record(run)["linked"]))


def with_facts(config: dict[str, Any], facts: DataFacts) -> dict[str, Any]:
    """Return class and arguments of a model with what its data decides, where the class takes it."""
    module, _, name = config["class_path"].rpartition(".")
    decided = facts.arguments_of(getattr(importlib.import_module(module), name))
    return {**config, "init_args": {**(config.get("init_args") or {}), **decided}}


def _without_weights(config: Any) -> Any:
    """The config of a model that is trained: its weights are in its checkpoints."""
    if isinstance(config, list):
        return [_without_weights(part) for part in config]
    if not isinstance(config, dict):
        return config
    return {name: None if name == "weights" else _without_weights(part) for name, part in config.items()}


def build_model(config: dict[str, Any]) -> Any:
    """The task that a config names, with new weights."""
    from jsonargparse import ArgumentParser
    from lightning.pytorch import LightningModule

    from pipeline.runs import options

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model")
    with options.of_their_class():
        parsed = parser.parse_object({"model": config})
    return parser.instantiate_classes(parsed).model
