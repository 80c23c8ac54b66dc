"""Class paths of version 0.1 and where their modules are now: runs, checkpoints and exports of that layout still open.

A config that a user gives is not changed: the error for its class path names the new one.
"""

import re
from typing import Any

MOVED: dict[str, str] = {
    "pipeline.callbacks.bar": "pipeline.callbacks.progress_bar",
    "pipeline.callbacks.checkpoints": "pipeline.callbacks.checkpointing",
    "pipeline.callbacks.confusions": "pipeline.callbacks.previews.confusion_matrix",
    "pipeline.callbacks.execution": "pipeline.callbacks.layer_execution",
    "pipeline.callbacks.forecasts": "pipeline.callbacks.previews.forecasts",
    "pipeline.callbacks.guard": "pipeline.callbacks.nonfinite_guard",
    "pipeline.callbacks.interrupts": "pipeline.callbacks.fault_injection",
    "pipeline.callbacks.lines": "pipeline.callbacks.progress_lines",
    "pipeline.callbacks.monitor": "pipeline.callbacks.train_metrics",
    "pipeline.callbacks.paintings": "pipeline.callbacks.previews.images",
    "pipeline.callbacks.randomness": "pipeline.callbacks.per_step_seed",
    "pipeline.callbacks.samples": "pipeline.callbacks.previews.samples",
    "pipeline.callbacks.witness": "pipeline.callbacks.step_trace",
    "pipeline.caption_scores": "pipeline.evaluation.caption_scores",
    "pipeline.data.augment": "pipeline.data.augmentation",
    "pipeline.data.waves": "pipeline.data.raw_audio",
    "pipeline.decode_ctc": "pipeline.generation.ctc",
    "pipeline.outcomes": "pipeline.tasks.likelihoods",
    "pipeline.scores": "pipeline.evaluation.text_scores",
    "pipeline.strategies": "pipeline.distributed.strategies",
    "pipeline.strategies.data_parallel": "pipeline.distributed.strategies.data_parallel",
    "pipeline.strategies.fully_sharded": "pipeline.distributed.strategies.fully_sharded",
    "pipeline.strategies.sharded": "pipeline.distributed.strategies.sharded",
    "pipeline.strategies.zero": "pipeline.distributed.strategies.zero",
    "pipeline.tasks.forecasting": "pipeline.tasks.forecast_base",
    "pipeline.tasks.written": "pipeline.tasks.generated_texts",
}
"""New modules by old ones."""
DOTTED = re.compile(r"\bpipeline(?:\.\w+)+")


def new_path(name: str) -> str | None:
    """Return the class path of today for one whose module was moved; None where nothing moved."""
    module, _, attribute = name.rpartition(".")
    return f"{MOVED[module]}.{attribute}" if module in MOVED else None


def renamed(config: Any) -> Any:
    """Return a config with the class paths of today."""
    if isinstance(config, dict):
        return {key: renamed(value) for key, value in config.items()}
    if isinstance(config, list):
        return [renamed(value) for value in config]
    return (new_path(config) or config) if isinstance(config, str) else config


def complaint(text: str) -> str | None:
    """Return one line for the first class path in a text whose module was moved; None where there is none."""
    for name in DOTTED.findall(text):
        if path := new_path(name):
            return f"{name} has moved: use {path}"
    return None
