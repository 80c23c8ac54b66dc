"""Names of version 0.1 and their replacements: runs, checkpoints, journals and exports of that layout still open.

A config that a user gives is not changed: the error for an old class path or key names the new one.
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
    "pipeline.models.attention": "pipeline.models.layers.attention",
    "pipeline.models.captioners": "pipeline.models.assemblies.captioners",
    "pipeline.models.conformer": "pipeline.models.layers.conformer",
    "pipeline.models.decoders": "pipeline.models.assemblies.decoders",
    "pipeline.models.encoders": "pipeline.models.encoders.text",
    "pipeline.models.feedforward": "pipeline.models.layers.feedforward",
    "pipeline.models.image_encoders": "pipeline.models.encoders.image",
    "pipeline.models.keywords": "pipeline.models.assemblies.keyword_spotters",
    "pipeline.models.listening": "pipeline.models.encoders.audio",
    "pipeline.models.memory": "pipeline.models.layers.cross_attention",
    "pipeline.models.past": "pipeline.models.layers.causal_history",
    "pipeline.models.patch_transformer": "pipeline.models.assemblies.patch_transformer",
    "pipeline.models.pixel_reader": "pipeline.models.encoders.pixel_reader",
    "pipeline.models.pretrained_images": "pipeline.models.encoders.pretrained_images",
    "pipeline.models.raster": "pipeline.models.layers.raster",
    "pipeline.models.recurrent": "pipeline.models.layers.recurrent",
    "pipeline.models.residual": "pipeline.models.layers.residual",
    "pipeline.models.scan": "pipeline.models.layers.scan",
    "pipeline.models.spectrogram": "pipeline.models.layers.log_mel",
    "pipeline.models.transcribers": "pipeline.models.assemblies.transcribers",
    "pipeline.models.translators": "pipeline.models.assemblies.translators",
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
RENAMED = {
    "pipeline.evaluation.caption_scores.METEOR": "pipeline.evaluation.caption_scores.METEORWithoutSynonyms",
    "pipeline.models.encoders.image.PatchTransformer": "pipeline.models.encoders.image.VisionTransformer",
}
"""New classes by old ones, both in the modules of today."""
POLICY, FORECASTER = "pipeline.tasks.policy.Policy", "pipeline.tasks.forecaster.Forecaster"
WAVE_MODEL = "pipeline.tasks.wave_model.WaveModel"
SPLIT: dict[str, tuple[str, str]] = {
    "pipeline.models.forecasters.ConvForecaster": (FORECASTER, "pipeline.models.conv.ConvNet"),
    "pipeline.models.forecasters.GRUForecaster": (FORECASTER, "pipeline.models.gru.GRU"),
    "pipeline.models.forecasters.LSTMForecaster": (FORECASTER, "pipeline.models.lstm.LSTM"),
    "pipeline.models.forecasters.LinearRecurrenceForecaster": (
        FORECASTER,
        "pipeline.models.linear_recurrence.LinearRecurrence",
    ),
    "pipeline.models.forecasters.RNNForecaster": (FORECASTER, "pipeline.models.rnn.RNN"),
    "pipeline.models.forecasters.TransformerForecaster": (FORECASTER, "pipeline.models.transformer.Transformer"),
    "pipeline.models.policies.ConvPolicy": (POLICY, "pipeline.models.conv.ConvNet"),
    "pipeline.models.policies.GRUPolicy": (POLICY, "pipeline.models.gru.GRU"),
    "pipeline.models.policies.LSTMPolicy": (POLICY, "pipeline.models.lstm.LSTM"),
    "pipeline.models.policies.LinearRecurrencePolicy": (POLICY, "pipeline.models.linear_recurrence.LinearRecurrence"),
    "pipeline.models.policies.RNNPolicy": (POLICY, "pipeline.models.rnn.RNN"),
    "pipeline.models.policies.TransformerPolicy": (POLICY, "pipeline.models.transformer.Transformer"),
    "pipeline.models.waves.WaveLSTM": (WAVE_MODEL, "pipeline.models.lstm.LSTM"),
    "pipeline.models.waves.WaveNet": (WAVE_MODEL, "pipeline.models.conv.ConvNet"),
}
"""Tasks and networks by the classes that took the arguments of both; all other arguments are the network's."""
OF_TASK = {
    *("spaces", "return_conditioned", "rollout", "horizon", "covariates", "forecast", "vocab_size", "rate", "head"),
    *("optimizer", "schedule"),
}
"""Arguments of these tasks; none of their networks has one of the same name."""
KEYS = {
    "data.cut": "order",
    "execution.recompute": "activation_checkpointing",
    "guard.returns": "max_rollbacks",
    "head.activation_penalty": "ar_weight",
    "head.slowness_penalty": "tar_weight",
    "model.conditioned": "return_conditioned",
    "model.playing": "rollout",
    "model.sampled_inputs": "scheduled_sampling",
    "model.saying": "forecast",
    "playing.asked": "target_return",
    "saying.outcome": "likelihood",
    "saying.paths": "num_samples",
    "saying.reach": "chunk_length",
}
"""New keys of a config by old ones, each after the key that holds it; `init_args` is skipped."""
VALUES = {"data.cut": {"lanes": "contiguous", "windows": "shuffled"}}
"""New values of these keys by old ones."""
METRICS = {"train/refused_steps": "train/skipped_steps"}
"""New keys of a row of the journal by old ones."""
FAULTS = {
    "checkpoint not removed": "checkpoint_not_removed",
    "checkpoint not saved": "checkpoint_not_saved",
    "step refused": "step_skipped",
    "went back": "rolled_back",
}
"""New values of `fault` in a row of the journal by old ones."""
DOTTED = re.compile(r"\bpipeline(?:\.\w+)+")


def new_path(name: str) -> str | None:
    """Return the class path of today for one that was moved, renamed or split; None where nothing changed."""
    if name in SPLIT:
        return SPLIT[name][0]
    module, _, attribute = name.rpartition(".")
    path = f"{MOVED[module]}.{attribute}" if module in MOVED else name
    return None if (path := RENAMED.get(path, path)) == name else path


def update_config(config: Any, parent: str = "") -> Any:
    """Return a config with the class paths and keys of today, and with the networks of classes that were split.

    Args:
        config: all of it, or the part below `parent`.
        parent: the key that holds the part.
    """
    if isinstance(config, list):
        return [update_config(value, parent) for value in config]
    if not isinstance(config, dict):
        return (new_path(config) or config) if isinstance(config, str) else config
    found = {}
    for key, value in config.items():
        place = f"{parent}.{key}"
        below = parent if key == "init_args" else key
        value = VALUES.get(place, {}).get(value, value) if isinstance(value, str) else value
        found[KEYS.get(place, key)] = update_config(value, below)
    if (name := config.get("class_path")) not in SPLIT:
        return found
    given = found.get("init_args") or {}
    of_network = {key: value for key, value in given.items() if key not in OF_TASK}
    of_task = {key: value for key, value in given.items() if key in OF_TASK}
    network = {"class_path": SPLIT[name][1], "init_args": of_network}
    return {**found, "init_args": {"network": network, **of_task}}


def update_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of a journal with the keys and faults of today."""
    found = {METRICS.get(key, key): value for key, value in row.items()}
    return {**found, "fault": FAULTS.get(found["fault"], found["fault"])} if "fault" in found else found


def complaint(text: str) -> str | None:
    """Return one line for the first class path in a text that was moved, renamed or split; None where there is none."""
    for name in DOTTED.findall(text):
        if name in SPLIT:
            task, network = SPLIT[name]
            form = f"{{class_path: {task}, init_args: {{network: {{class_path: {network}, init_args: {{...}}}}, ...}}}}"
            return f"{name} is now a task and its network: use {form}"
        if path := new_path(name):
            return f"{name} has moved: use {path}"
    return None


def renamed_key(config: Any, parent: str = "") -> str | None:
    """Return one line for the first key of a config that was renamed; None where there is none.

    Args:
        config: all of it, or the part below `parent`.
        parent: the key that holds the part.
    """
    if isinstance(config, list):
        return next((line for value in config if (line := renamed_key(value, parent))), None)
    if not isinstance(config, dict):
        return None
    for key, value in config.items():
        place = f"{parent}.{key}"
        if place in KEYS:
            values = "".join(f" ({old} is now {new})" for old, new in VALUES.get(place, {}).items() if value == old)
            return f"{place} was renamed: use {parent}.{KEYS[place]}{values}"
        if line := renamed_key(value, parent if key == "init_args" else str(key)):
            return line
    return None


def renamed_option(argument: str) -> str | None:
    """Return one line for an option such as `--data.cut=lanes` whose key was renamed; None where none was."""
    name, _, value = argument.removeprefix("--").partition("=")
    nested: Any = value
    for key in reversed([part for part in name.split(".") if part != "init_args"]):
        nested = {key: nested}
    return renamed_key(nested) if argument.startswith("--") else None
