"""A trained model exported to a directory, for inference.

DIR/model.safetensors   the weights, averaged if the checkpoint has an average
    config.yaml         the class of the model and its arguments
    tokenizer.json      the tokenizer of the dataset; for series, series.json with their layout and scale
    README.md           model card: architecture, size, metrics, dataset

Loading executes no code from the directory: the weights are numbers, and the config may only name classes of this
package, of torch, and of modules that the caller has imported.
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
    """Return whether a directory is an exported model."""
    return (directory / WEIGHTS).is_file() and (directory / CONFIG).is_file()


def write_export(directory: Path, run: Path, which: str, example: Callable[[Any], str]) -> Path:
    """Export the model of a run's checkpoint and return the checkpoint.

    Args:
        directory: directory to create; it appears complete or not at all.
        run: directory of the run.
        which: `best`, `last` or a path, see `choose_checkpoint`.
        example: returns options of `unroll generate` for the task; empty if the command does not support it.

    Raises:
        ConfigError: the directory exists or cannot be written.
        CheckpointError: the checkpoint is missing or damaged.
    """
    from safetensors.torch import save_model

    if directory.exists():
        raise ConfigError(f"--output={directory} exists. Choose another --output, or remove it.")
    chosen = choose_checkpoint(run, which)
    model = load_model(run, str(chosen))
    partial = directory.with_name(f".{directory.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        save_model(model, str(partial / WEIGHTS), {"run": run.name, "step": str(checkpoint.step_of(chosen))})
        (partial / CONFIG).write_text(yaml.safe_dump({"model": model_config(run)}, sort_keys=False))
        for file in run.glob(f"*{TOKENIZER}"):  # includes source_tokenizer.json
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
        raise ConfigError(f"--output={directory} cannot be written: {error}. Choose another --output.") from error
    return chosen


def load_export(directory: Path) -> Any:
    """Load an exported task in evaluation mode, on the CPU.

    Raises:
        CheckpointError: a file is missing or invalid, or the config names code that is not trusted.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model as load_weights

    model = build(directory)
    try:
        load_weights(model, directory / WEIGHTS)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{directory / WEIGHTS} cannot be read: {error}. Export the model again.") from error
    model.directory = directory
    return model.eval()


def build(directory: Path) -> Any:
    """Build an exported task with newly initialized weights.

    Raises:
        CheckpointError: its config is damaged, or names code that is not trusted.
    """
    file = directory / CONFIG
    try:
        config = update_config(yaml.safe_load(file.read_text())["model"], "model")
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise CheckpointError(f"{file} is not the config of an exported model: {error}") from error
    _refuse_foreign(config, file)
    try:
        return build_model(config)
    except Exception as error:  # jsonargparse raises errors of its own, of argparse and of constructors
        raise CheckpointError(f"the model of {file} cannot be built: {error}") from error


def _refuse_foreign(config: object, file: Path) -> None:
    """Raise CheckpointError if the config names a class outside this package, torch and imported modules."""
    for text in _texts(config):
        if "/" in text or Path(text).is_file():
            raise CheckpointError(
                f"{file} names the file {text!r}, but an exported model must not depend on other files. Remove it."
            )
        if DOTTED.fullmatch(text) and not _is_ours(text) and not _is_imported(text):
            raise CheckpointError(
                f"{file} names {text}, which is part of neither this package nor torch. If you trust it, import its "
                "module, then call LanguageModel.from_pretrained."
            )


def _texts(tree: object) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for part in parts:
        yield from _texts(part)


def _is_ours(name: str) -> bool:
    """Return whether a name is that of a class defined, not only imported, in a module of this package or torch."""
    module, _, attribute = name.rpartition(".")
    if not name.startswith(TRUSTED):
        return False
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return False
    return isinstance(found, type) and f"{found.__module__}.".startswith(TRUSTED)


def _is_imported(name: str) -> bool:
    """Return whether a name is that of a network or an optimizer in an imported module."""
    from torch import nn, optim

    module, _, attribute = name.rpartition(".")
    found = getattr(sys.modules.get(module), attribute, None)
    return isinstance(found, type) and issubclass(found, nn.Module | optim.Optimizer)


def _card(name: str, run: Run, chosen: Path, model: Any, example: str) -> str:
    """Return the README of an exported model."""
    manifest, data, kind = checkpoint.verify_checkpoint(chosen), run.record["dataset"], type(model)
    parts = {name: type(part) for name, part in model.named_children()}
    tokens = model.reads == "label" or model.writes in ("text", "transcript")  # that it predicts
    use = "Losses are in nats per token.\n\n" if tokens else ""
    use += f"```sh\nunroll generate {name} {example}\n```\n" if example else ""
    averaged = AVERAGED in checkpoint.read_state(chosen)
    facts = {
        "architecture": model.architecture,
        **{name: part.__name__ for name, part in parts.items() if part.__module__.startswith("pipeline.models")},
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        **({"vocabulary": f"{model.vocab_size:,} tokens"} if tokens else {}),
        **({"started from": run.record["from"]["source"]} if "from" in run.record else {}),
        "weights": f"run {run.name}, step {manifest['step']}" + (", averaged over steps" if averaged else ""),
        **{key: f"{value:.4f}" for key, value in sorted(manifest.get("metrics", {}).items())},
        "dataset": f"{Path(data['path']).name}, checksum {data['checksum']}",
        "commit": run.attempt.get("git_commit", run.record["git_commit"]) or "unknown",
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
