"""Where a run continues: which checkpoint, and whether config, dataset and run still belong together."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from pipeline.dataset.facts import DataFacts
from pipeline.dataset.manifest import Dataset
from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.distributed.launch import world_size
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.runs import record
from pipeline.runs.run import Run

# what decides which run this is: what it learns, from what, and where its epochs end
DECIDING = ("model.", "data.", "seed_everything", "trainer.limit_train_batches", "trainer.overfit_batches")
# what may differ between the attempts of a run: it decides how, not what
FREE = ("data.init_args.workers", "data.init_args.per_device_batch_", "data.init_args.dataset")
LIMITS = ("max_steps", "max_epochs", "max_time")  # a finished run goes on when one of them changes


@dataclass(frozen=True)
class Start:
    """How an attempt begins.

    Args:
        checkpoint: where it continues; None at the first step.
        step: optimizer steps until there.
        finished: there is nothing left to do.
        built: the model, the data and the instantiated config that were checked; None in another process.
    """

    checkpoint: Path | None
    step: int
    finished: bool
    built: Any = field(default=None, compare=False, repr=False)


def begin(run: Run, cli: Any) -> Start:
    """Check everything, choose the checkpoint, and record the attempt.

    Args:
        run: the run, new or not.
        cli: the parsed command line, with `config` and `parser`.

    Raises:
        ConfigError: the run was made with another model, other data or another seed.
        DataError: the dataset is missing, damaged or not the one that the run began with.
        CheckpointError: no checkpoint verifies.
    """
    config = cli.config
    if config.resume not in ("auto", "never"):
        raise ConfigError(f"--resume {config.resume}: auto or never")
    dataset = Dataset.open(Path(str(config.data.init_args.dataset)))
    if run.record.get("dataset", {}).get("stamp") != dataset.stamp:
        dataset.verify()  # reads all of it: not at each start of a run
    kept = kept_config(cli)
    built = _check(cli)
    facts = built[1].facts
    if config.resume == "never" and (aside := run.put_aside()):
        print(f"run {run.name}: starting anew; the run of that name is now {aside}", flush=True)
    if run.record.get("attempts"):
        _compare(run, kept, dataset, facts)
        run.record["dataset"]["stamp"] = dataset.stamp
    elif checkpoint.newest_first(run.checkpoints):
        raise CheckpointError(
            f"{run.path} has checkpoints and no run.json: restore it, give --run OTHER, or --resume never, which keeps "
            "them aside"
        )
    else:  # a run that never began an attempt has nothing to lose
        run.create(linked=facts.known(), dataset=_describe(dataset))
    checkpoint.clear_partial(run.checkpoints)
    start = _choose(run, kept)
    if not start.finished:
        record.write_text(run.path, record.CONFIG, yaml.safe_dump(kept, sort_keys=False))
        for name, file in dataset.tokenizers.items():
            record.write_text(run.path, name, file.read_text(encoding="utf-8"))
        run.begin_attempt(world_size(vars(config.trainer)), start.step)
    return replace(start, built=built)


def kept_config(cli: Any) -> dict[str, Any]:
    """The resolved config as a run keeps it, without what belongs to one command."""
    config: dict[str, Any] = yaml.safe_load(cli.parser.dump(cli.config, skip_none=False))
    return {key: value for key, value in config.items() if key not in ("config", "run", "resume", "sweep")}


def _check(cli: Any) -> tuple[Any, Any, Any]:
    """Return the model, the data and the instantiated config, where they fit together.

    Raises:
        ConfigError: before anything is written, where the model cannot be or the dataset has too little.
    """
    model, data, config = cli.build()
    model.check_optimizer()
    data.samples("validation")
    if not data.steps_per_epoch:
        raise ConfigError(f"the training split of {data.dataset.path} is empty: prepare more")
    return model, data, config


def _choose(run: Run, config: dict[str, Any]) -> Start:
    found = checkpoint.latest(run.checkpoints, lambda line: print(line, flush=True))
    if found is None:
        print(f"run {run.name}: starting at step 0, there is no checkpoint yet", flush=True)
        return Start(None, 0, False)
    path, manifest = found
    step = int(manifest["step"])
    for damaged in checkpoint.newest_first(run.checkpoints):
        if checkpoint.step_of(damaged) <= step:
            break
        checkpoint.put_aside(damaged)
    if is_finished(run, config):
        print(
            f"run {run.name}: finished at step {step}; raise trainer.max_steps or give --resume never",
            flush=True,
        )
        return Start(path, step, True)
    print(f"run {run.name}: continuing at step {step} from {path.name}, the newest that verifies", flush=True)
    return Start(path, step, False)


def is_finished(run: Run, config: dict[str, Any]) -> bool:
    """Whether a run finished within the limits that this config has."""
    if not run.record.get("attempts") or run.attempt["reason"] != "finished":
        return False
    before = record.read_config(run.path)["trainer"]
    return all(before[limit] == config["trainer"][limit] for limit in LIMITS)


def _compare(run: Run, config: dict[str, Any], dataset: Dataset, facts: DataFacts) -> None:
    for name, size in facts.known().items():
        if (before := run.record["linked"].get(name)) != size:
            raise CheckpointError(
                f"run {run.name} was made for {name}={before}, dataset {dataset.path} and its settings give {size}: "
                "use the run's dataset, or --run OTHER"
            )
    if run.record["dataset"]["checksum"] != dataset.checksum:
        raise DataError(
            f"dataset {dataset.path} is not the one that run {run.name} began with ({run.record['dataset']['path']}): "
            "prepare it as before, or give --run OTHER"
        )
    if changed := changes(run, config):
        raise ConfigError(
            f"run {run.name} was begun with another config: {'; '.join(changed)}. Give --run OTHER or --resume never"
        )


def changes(run: Run, config: dict[str, Any]) -> list[str]:
    """What of this config would make another run of it, in words."""
    before, after = _flatten(record.read_config(run.path)), _flatten(config)
    return [
        f"{key} was {before.get(key)!r} and is {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if decides(key) and before.get(key) != after.get(key)
    ]


def decides(key: str) -> bool:
    """Whether a run with another value of this key of the config would be another run."""
    return key.startswith(DECIDING) and not key.startswith(FREE)


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {key: value for name, part in tree.items() for key, value in _flatten(part, f"{prefix}{name}.").items()}


def _describe(dataset: Dataset) -> dict[str, Any]:
    told = ("audio", "dialogue", "series", "trajectories", "pixels")
    kept: dict[str, Any] = {key: dataset.manifest[key] for key in told if key in dataset.manifest}
    return {"path": str(dataset.path), "checksum": dataset.checksum, "stamp": dataset.stamp, **kept}
