"""A trained model in a directory of its own, for those who use it and do not train it.

DIR/model.safetensors   the weights, the averaged ones where the checkpoint has an average
    config.yaml         the class of the model and its arguments
    tokenizer.json      of the dataset that it was trained on; of series, series.json: how they are laid out and scaled
    README.md           what it is: architecture, size, what it measured, which data

Nothing in it is executed when it is loaded: the weights are numbers, and the config may only name classes of
this package, of torch, and of modules that the caller imported already.
"""

import importlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.distributed.checkpoint.averaged import AVERAGED
from pipeline.errors import CheckpointError, ConfigError
from pipeline.files import sync
from pipeline.runs.load import build_model, choose_checkpoint, load_model, model_config
from pipeline.runs.moved import update_config
from pipeline.runs.record import SERIES
from pipeline.runs.run import Run

WEIGHTS, CONFIG, TOKENIZER, CARD = "model.safetensors", "config.yaml", "tokenizer.json", "README.md"
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
TRUSTED = tuple(
    f"{place}."
    for place in (
        "pipeline.models",
        "pipeline.tasks",
        "pipeline.evaluation",
        "pipeline.generation",
        "pipeline.optim",
        "torch.nn",
        "torch.optim",
    )
)


def is_exported(directory: Path) -> bool:
    """Whether a directory is one that `write` makes."""
    return (directory / WEIGHTS).is_file() and (directory / CONFIG).is_file()


def write_export(directory: Path, run: Path, which: str, example: Callable[[Any], str]) -> Path:
    """Export the weights of a run's checkpoint; returns the checkpoint.

    Args:
        directory: made here; there whole or not at all.
        run: where the model was trained.
        which: `best`, `last` or a path, as `choose_checkpoint` takes it.
        example: options with which `unroll generate` uses a task; empty where it does not.

    Raises:
        ConfigError: there is something of that name already, or it cannot be written.
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    from safetensors.torch import save_model

    if directory.exists():
        raise ConfigError(f"{directory} is there already: name another --output, or remove it")
    chosen = choose_checkpoint(run, which)
    model = load_model(run, str(chosen))
    partial = directory.with_name(f".{directory.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        save_model(model, str(partial / WEIGHTS))
        (partial / CONFIG).write_text(yaml.safe_dump({"model": model_config(run)}, sort_keys=False))
        for file in run.glob(f"*{TOKENIZER}"):  # of the sources too, where they are texts
            shutil.copyfile(file, partial / file.name)
        record = Run(run).record
        if model.reads == "series":
            about = {"dataset": {"series": record["dataset"]["series"]}, "linked": record["linked"]}
            (partial / SERIES).write_text(json.dumps(about))
        (partial / CARD).write_text(_card(directory.name, Run(run), chosen, model, example(model)))
        for path in [*partial.iterdir(), partial]:
            sync(path)
        partial.rename(directory)
        sync(directory.parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ConfigError(f"{directory} cannot be written: {error}") from error
    return chosen


def load_export(directory: Path) -> Any:
    """The exported task in evaluation mode, on the CPU.

    Raises:
        CheckpointError: a file is missing, is something else than it should be, or names foreign code.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model as load_weights

    model = build(directory)
    try:
        load_weights(model, directory / WEIGHTS)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{directory / WEIGHTS} cannot be read: {error}") from error
    return model.eval()


def build(directory: Path) -> Any:
    """The exported task with new weights.

    Raises:
        CheckpointError: its config is damaged, or names foreign code.
    """
    file = directory / CONFIG
    try:
        config = update_config(yaml.safe_load(file.read_text())["model"], "model")
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise CheckpointError(f"{file} is not the config of an exported model: {error}") from error
    _refuse_foreign(config, file)
    try:
        return build_model(config)
    except Exception as error:  # jsonargparse raises its own, argparse's and what a constructor raised
        raise CheckpointError(f"{file} describes no model that can be built: {error}") from error


def _refuse_foreign(config: Any, file: Path) -> None:
    """Raise CheckpointError if the config names code that is neither ours nor torch's nor imported already."""
    for text in _texts(config):
        if "/" in text or Path(text).is_file():
            raise CheckpointError(f"{file} names the file {text!r}: an exported model has all it needs in itself")
        if DOTTED.fullmatch(text) and not _is_ours(text) and not _is_known(text):
            raise CheckpointError(
                f"{file} names {text}, which is neither of this package nor of torch: import its module yourself "
                "if you trust it, then call LanguageModel.from_pretrained"
            )


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for part in parts:
        yield from _texts(part)


def _is_ours(name: str) -> bool:
    """Whether a name is that of a class which is defined, not merely imported, in a module of this package or torch."""
    module, _, attribute = name.rpartition(".")
    if not name.startswith(TRUSTED):
        return False
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return False
    return isinstance(found, type) and f"{found.__module__}.".startswith(TRUSTED)


def _is_known(name: str) -> bool:
    """Whether a name is that of a network or an optimizer in a module that somebody imported."""
    from torch import nn, optim

    module, _, attribute = name.rpartition(".")
    found = getattr(sys.modules.get(module), attribute, None)
    return isinstance(found, type) and issubclass(found, nn.Module | optim.Optimizer)


def _card(name: str, run: Run, chosen: Path, model: Any, example: str) -> str:
    """What the README of an exported model says."""
    manifest, data, kind = checkpoint.verify_checkpoint(chosen), run.record["dataset"], type(model)
    parts = {name: type(part) for name, part in model.named_children()}
    tokens = model.reads == "label" or model.writes in ("text", "transcript")  # that it predicts
    use = "Losses are in nats a token.\n\n" if tokens else ""
    use += f"```sh\nunroll generate {name} {example}\n```\n" if example else ""
    averaged = AVERAGED in checkpoint.read_state(chosen)
    facts = {
        "architecture": model.architecture,
        **{name: part.__name__ for name, part in parts.items() if part.__module__.startswith("pipeline.models")},
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        **({"vocabulary": f"{model.vocab_size:,} tokens"} if tokens else {}),
        "weights": f"run {run.name}, step {manifest['step']}" + (", averaged over steps" if averaged else ""),
        **{key: f"{value:.4f}" for key, value in sorted(manifest.get("metrics", {}).items())},
        "dataset": f"{Path(data['path']).name}, checksum {data['checksum']}",
        "commit": run.record["git_commit"] or "unknown",
    }
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    return f"""# {name}

A model trained with unroll.

| | |
|---|---|
{rows}

{use}
```python
from {kind.__module__} import {kind.__name__}

model = {kind.__name__}.from_pretrained("{name}")  # in evaluation mode
```
"""
