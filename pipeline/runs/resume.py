"""Start or resume a run: choose the checkpoint, and check that config and dataset match the run."""

import inspect
import pydoc
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import yaml

from pipeline.dataset.facts import DataFacts
from pipeline.dataset.manifest import Dataset
from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.distributed.launch import world_size
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.runs import record
from pipeline.runs.journal import last_saved
from pipeline.runs.run import Run

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

# prefixes of keys that identify a run: its model, its data and the length of its epochs
DECIDING = ("model.", "data.", "seed_everything", "trainer.limit_train_batches", "trainer.overfit_batches")
# prefixes of keys below these that may differ between attempts, because results do not depend on them
FREE = ("data.init_args.workers", "data.init_args.per_device_batch_", "data.init_args.dataset")
LIMITS = ("max_steps", "max_epochs", "max_time", "fast_dev_run")  # a finished run continues if one of them changes


@runtime_checkable
class ParsedCommandLine(Protocol):
    """The parsed command line."""

    @property
    def config(self) -> "Namespace":
        """The resolved config."""

    @property
    def parser(self) -> "ArgumentParser":
        """The parser of the config."""

    def build(self) -> tuple[Any, Any, Any]:
        """Return the model, the data and the instantiated config."""


@dataclass(frozen=True)
class Start:
    """The start of an attempt.

    Args:
        checkpoint: the checkpoint to resume from; None at the first step.
        step: optimizer steps up to the checkpoint.
        finished: whether there is nothing left to train.
        built: the model, the data and the instantiated config that were checked; None in another process.
    """

    checkpoint: Path | None
    step: int
    finished: bool
    built: Any = field(default=None, compare=False, repr=False)


def begin(run: Run, cli: ParsedCommandLine) -> Start:
    """Check config, dataset and run, choose the checkpoint, and record the attempt.

    Args:
        run: the run, new or existing.
        cli: the parsed command line.

    Raises:
        ConfigError: the run was started with another model, other data or another seed.
        DataError: the dataset is missing, damaged or not that of the run.
        CheckpointError: there are checkpoints, but none is valid.
    """
    config = cli.config
    if config.resume not in ("auto", "never"):
        raise ConfigError(f"--resume={config.resume}: expected auto or never")
    dataset = Dataset.open(Path(str(config.data.init_args.dataset)))
    if run.record.get("dataset", {}).get("stamp") != dataset.stamp:
        dataset.verify()  # reads the whole dataset, so it is skipped if the stamp has not changed
    kept = kept_config(cli)
    built = _check(cli)
    facts = built[1].facts
    if config.resume == "never" and (aside := run.put_aside()):
        print(f"run {run.name}: starting from the beginning; the previous run was renamed to {aside}", flush=True)
    if run.record.get("attempts"):
        _compare(run, kept, dataset, facts)
        _print_limits(run, kept)
        run.record["dataset"]["stamp"] = dataset.stamp
    elif checkpoint.newest_first(run.checkpoints):
        raise CheckpointError(
            f"{run.path} has checkpoints but no run.json. Restore it, choose another --run, or use --resume never, "
            "which renames the directory."
        )
    else:  # a run without attempts contains nothing that could be overwritten
        run.create(linked=facts.known(), dataset=_describe(dataset))
    checkpoint.clear_partial(run.checkpoints)
    start = _choose(run, kept)
    if not start.finished:
        record.write_text(run.path, record.CONFIG, yaml.safe_dump(kept, sort_keys=False))
        for name, file in dataset.tokenizers.items():
            record.write_text(run.path, name, file.read_text(encoding="utf-8"))
        run.begin_attempt(world_size(vars(config.trainer)), start.step)
    return replace(start, built=built)


def kept_config(cli: ParsedCommandLine) -> dict[str, Any]:
    """Return the resolved config as a run stores it, without options of a single command."""
    config = yaml.safe_load(cli.parser.dump(cli.config, skip_none=False))
    return {key: value for key, value in config.items() if key not in ("config", "run", "resume", "sweep")}


def _check(cli: ParsedCommandLine) -> tuple[Any, Any, Any]:
    """Build and check the model, the data and the instantiated config, before anything is written.

    Raises:
        ConfigError: the model cannot be built, or the dataset is too small.
    """
    model, data, config = cli.build()
    model.check_optimizer()
    data.samples("validation")
    if not data.steps_per_epoch:
        raise ConfigError(f"the training split of {data.dataset.path} is empty. Prepare more data.")
    return model, data, config


def _choose(run: Run, config: dict[str, Any]) -> Start:
    found = checkpoint.latest(run.checkpoints, lambda line: print(line, flush=True))
    if found is None:
        if saved := last_saved(run.path):
            raise CheckpointError(
                f"{run.checkpoints} has no checkpoint, but run {run.name} saved {saved}. Restore or mount the "
                "directory, fix its permissions, or use --resume never to start from the beginning."
            )
        print(f"run {run.name}: starting at step 0 (no checkpoint found)", flush=True)
        return Start(None, 0, False)
    path, manifest = found
    step = int(manifest["step"])
    for damaged in checkpoint.newest_first(run.checkpoints):
        if checkpoint.step_of(damaged) <= step:
            break
        checkpoint.put_aside(damaged)
    if is_finished(run, config):
        print(
            f"run {run.name}: finished at step {step} (limits: {limits_of(config)}). Increase the limit that was "
            "reached, or use --resume never.",
            flush=True,
        )
        return Start(path, step, True)
    print(f"run {run.name}: continuing at step {step} from {path.name}, the newest valid checkpoint", flush=True)
    return Start(path, step, False)


def limits_of(config: dict[str, Any]) -> str:
    """Return the limits of a training, as text."""
    given = {name: config["trainer"].get(name) for name in LIMITS}
    return ", ".join(f"trainer.{name}={value}" for name, value in given.items() if value not in (None, -1, False))


def is_finished(run: Run, config: dict[str, Any]) -> bool:
    """Return whether a run has finished under the limits of this config."""
    if not run.record.get("attempts") or run.attempt["reason"] != "finished":
        return False
    before = record.read_config(run.path)["trainer"]
    return all(before.get(limit) == config["trainer"].get(limit) for limit in LIMITS)


def _compare(run: Run, config: Mapping[str, object], dataset: Dataset, facts: DataFacts) -> None:
    for name, size in facts.known().items():
        if (before := run.record["linked"].get(name)) != size:
            raise CheckpointError(
                f"{name}={size}: expected {before} as in run {run.name}, got {size} from dataset {dataset.path} and "
                "its settings. Use the run's dataset, or choose another --run."
            )
    if run.record["dataset"]["checksum"] != dataset.checksum:
        raise DataError(
            f"dataset {dataset.path} is not that of run {run.name} ({run.record['dataset']['path']}). "
            "Prepare it with the same options, or choose another --run."
        )
    if changed := changes(run, config):
        raise ConfigError(
            f"run {run.name} was started with another config: {'; '.join(changed)}. "
            "Choose another --run, or use --resume never."
        )


def _print_limits(run: Run, config: Mapping[str, Any]) -> None:
    """Print a line if the length of the training differs from that of the last attempt."""
    before = record.read_config(run.path)["trainer"]
    changed = [
        f"trainer.{name}={config['trainer'][name]}, previously {before[name]}"
        for name in ("max_steps", "max_epochs")
        if config["trainer"][name] != before[name]
    ]
    if changed:
        print(f"run {run.name}: {'; '.join(changed)}. A decaying schedule follows the new length", flush=True)


def changes(run: Run, config: Mapping[str, object]) -> list[str]:
    """Return a description of each difference in the config that requires another run."""
    before, after = _flatten(record.read_config(run.path)), _flatten(config)
    return [
        f"{key}={after.get(key)!r}, previously {before.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if decides(key) and before.get(key) != after.get(key) and not (key not in before and _is_default(key, after))
    ]


def _is_default(key: str, config: Mapping[str, object]) -> bool:
    """Return whether an argument of a class, which the class did not have when the run began, has its default."""
    owner, _, name = key.rpartition(".init_args.")
    chosen = pydoc.locate(str(config.get(f"{owner}.class_path")))
    argument = inspect.signature(chosen).parameters.get(name) if isinstance(chosen, type) else None
    return argument is not None and bool(argument.default == config[key])


def decides(key: str) -> bool:
    """Return whether a different value of this key of the config requires another run."""
    return key.startswith(DECIDING) and not key.startswith(FREE)


def _flatten(tree: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {key: value for name, part in tree.items() for key, value in _flatten(part, f"{prefix}{name}.").items()}


def _describe(dataset: Dataset) -> dict[str, object]:
    keys = ("audio", "dialogue", "series", "trajectories", "pixels")
    kept = {key: dataset.manifest[key] for key in keys if key in dataset.manifest}
    return {"path": str(dataset.path), "checksum": dataset.checksum, "stamp": dataset.stamp, **kept}
