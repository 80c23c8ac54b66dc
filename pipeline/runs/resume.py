"""Start or resume a run: check that config, data and run match, choose the checkpoint, and record the attempt."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import yaml
from torch import nn

from pipeline.dataset.manifest import Dataset
from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.distributed.launch import one_thread, world_size
from pipeline.errors import CheckpointError, ConfigError
from pipeline.files import sha256
from pipeline.optim import Schedule, frozen_line
from pipeline.runs import identity, record
from pipeline.runs.changes import Change, Config, steps_of
from pipeline.runs.code import Code
from pipeline.runs.initial_weights import InitialWeights, match
from pipeline.runs.journal import last_saved
from pipeline.runs.match import Data, check_training, code_change
from pipeline.runs.run import Run, directory_of, name_of
from pipeline.runs.weights_source import open_source

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

OF_COMMAND = ("config", "run", "resume", "sweep", "from", "allow_changes", "profile")  # which a run does not store
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
        initial: weights that a new run starts from, known to the process that trains; None for new ones.
    """

    checkpoint: Path | None
    step: int
    finished: bool
    built: Any = field(default=None, compare=False, repr=False)
    initial: InitialWeights | None = field(default=None, compare=False, repr=False)


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
    built = cli.build()
    data = check_parts(*built[:2])
    with one_thread():
        initial = initial_weights(run, config, built[0], dataset)
        taken = (initial.record(), initial.lines()) if initial is not None else None
    if vars(config).get("from") and initial is None:
        print(f"run {run.name}: --from is not applied again, because the run has checkpoints", flush=True)
    if config.resume == "never" and (aside := run.put_aside()):
        print(f"run {run.name}: starting from the beginning; the previous run was renamed to {aside}", flush=True)
    changed = check(run, kept, data, config.allow_changes)
    if run.record.get("attempts"):
        identity.settle(run)
        run.record["dataset"] |= _describe(dataset)
    else:  # a run without attempts contains nothing that could be overwritten
        run.create(linked=data.facts.known(), dataset=_describe(dataset))
    checkpoint.clear_partial(run.checkpoints)
    start = _choose(run, kept)
    if vars(config).get("freeze") and not start.finished:
        print(f"run {run.name}: frozen: {frozen_line(built[0])}", flush=True)
    if taken is not None:
        _record_source(run, vars(config).get("from"), *taken)
    if not start.finished:
        code, processes = Code.running(), world_size(vars(config.trainer))
        if run.record["attempts"]:
            _print_changes(run, changed, code, processes)
            _print_rate(run, kept, start.step, built[0].schedule, data.steps_per_epoch)
        record.write_text(run.path, record.CONFIG, yaml.safe_dump(kept, sort_keys=False))
        for name, file in dataset.tokenizers.items():
            record.write_text(run.path, name, file.read_text(encoding="utf-8"))
        run.begin_attempt(processes, start.step, code, {each.key: [each.before, each.after] for each in changed})
    return replace(start, built=built)


def _record_source(run: Run, given: str | None, about: Mapping[str, object], lines: Iterable[str]) -> None:
    run.record["from"] = {"source": given or run.record["from"]["source"], **about}
    print(*(f"run {run.name}: {line}" for line in lines), sep="\n", flush=True)


def initial_weights(run: Run, config: "Namespace", model: object, dataset: Dataset) -> InitialWeights | None:
    """Return the weights that a run starts from; None if it starts from scratch, or has checkpoints.

    Args:
        run: the run.
        config: the parsed config.
        model: its model, perhaps on the meta device.
        dataset: its dataset.

    Raises:
        ConfigError: the run was started from other weights.
        CheckpointError: the weights do not exist, are damaged, or are those of another model.
    """
    new = config.resume == "never" or not run.record.get("attempts")
    given, before = vars(config).get("from"), None if new else run.record.get("from")
    if given and not new and not (before and _is_same_source(given, before)):
        started = f"started from {before['source']}" if before else "started without --from"
        raise ConfigError(f"--from={given}: run {run.name} was {started}. Choose another --run, or use --resume never")
    if not new and checkpoint.newest_first(run.checkpoints):
        return None
    if (place := given or (before and before["path"])) is None:
        return None
    source = open_source(place)
    if source.path.is_relative_to(run.path.absolute()):
        raise ConfigError(f"--from={given}: expected another run, got run {run.name} itself. Choose another --run")
    assert isinstance(model, nn.Module)
    return match(model, source, dataset.tokenizers)


def _is_same_source(given: str, before: Mapping[str, str]) -> bool:
    path = Path(given).absolute()
    places = (path, directory_of(given).absolute())
    return given == before["source"] or any(Path(before["path"]).is_relative_to(place) for place in places)


def check(run: Run, config: Config, data: Data | None, allowed: bool = False) -> list[Change]:
    """Check that an attempt with this config and data can begin; return the settings that it changes.

    Args:
        run: the run, new or existing.
        config: the resolved config, see `kept_config`.
        data: the data; None if another job prepares it.
        allowed: whether settings may change that change results.

    Raises:
        UserError: the run does not match, see `check_training`; or its record or its checkpoints have vanished.
    """
    if run.record.get("attempts"):
        if not checkpoint.newest_first(run.checkpoints) and (saved := last_saved(run.path)):
            raise CheckpointError(
                f"{run.checkpoints} has no checkpoint, but run {run.name} saved {saved}. Restore or mount the "
                "directory, fix its permissions, or use --resume never to start from the beginning."
            )
        found = check_training(run, config, data, allowed)
        if data is not None:
            _check_length(run, config, data.steps_per_epoch)
        return found
    if checkpoint.newest_first(run.checkpoints):
        raise CheckpointError(
            f"{run.path} has checkpoints but no run.json. Restore it, choose another --run, or use --resume never, "
            "which renames the directory."
        )
    return []


def kept_config(cli: ParsedCommandLine) -> Config:
    """Return the resolved config as a run stores it, without options of a single command."""
    config = yaml.safe_load(cli.parser.dump(cli.config, skip_none=False, skip_validation=True))  # it was parsed
    return {key: value for key, value in config.items() if key not in OF_COMMAND}


def check_parts(model: Any, data: Any) -> Data:
    """Check the model and the data before anything is written; return the data for a comparison with the run.

    Raises:
        ConfigError: the model cannot be built, or the dataset is too small.
    """
    model.check_optimizer()
    data.samples("validation")
    if not data.steps_per_epoch:
        raise ConfigError(f"the training split of {data.dataset.path} is empty. Prepare more data.")
    return Data(data.dataset, data.facts, data.steps_per_epoch)


def _print_changes(run: Run, changed: list[Change], code: Code, processes: int) -> None:
    """Print what differs from the previous attempt."""
    before = run.attempt
    if changed:
        print(f"run {run.name}: changed since attempt {before['number']}: {'; '.join(map(str, changed))}", flush=True)
    if before["world_size"] != processes:
        print(f"run {run.name}: processes={processes}, previously {before['world_size']}", flush=True)
    if line := code_change(run, code):
        print(line, flush=True)


def _print_rate(run: Run, config: Config, step: int, schedule: Schedule | None, per_epoch: int) -> None:
    """Print what another length of the training does to the learning rate, and the other choices."""
    if schedule is None:
        return
    before, after = (steps_of(each, per_epoch) for each in (record.read_config(run.path), config))
    old, new = (schedule.scale(step + 1, steps, per_epoch) for steps in (before, after))  # step has the old rate
    if old == new:
        return
    print(
        f"run {run.name}: the learning rate follows the new length: {new:.4g} of its full value after step {step + 1}, "
        f"not {old:.4g}",
        flush=True,
    )
    for option, about in schedule.choices(step, before).items():
        print(f"  to {about}: --model.init_args.schedule.init_args.{option}", flush=True)


def _check_length(run: Run, config: Config, per_epoch: int) -> None:
    """Raise ConfigError if the training is shorter than the run already is."""
    total = steps_of(config, per_epoch)
    done = max(map(checkpoint.step_of, checkpoint.newest_first(run.checkpoints)), default=0)
    if 0 < total < done:
        raise ConfigError(
            f"{limits_of(config)}: expected at least {done} steps, which run {run.name} has trained, got {total}. "
            "Increase the limit, or choose another --run."
        )


def _choose(run: Run, config: Config) -> Start:
    found, shown = checkpoint.latest(run.checkpoints, lambda line: print(line, flush=True)), name_of(run.path)
    if found is None:
        print(f"run {shown}: starting at step 0 (no checkpoint found)", flush=True)
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
    print(f"run {shown}: continuing at step {step} from {path.name}, the newest valid checkpoint", flush=True)
    return Start(path, step, False)


def limits_of(config: Config) -> str:
    """Return the limits of a training, as text."""
    given = {name: config["trainer"].get(name) for name in LIMITS}
    return ", ".join(f"trainer.{name}={value}" for name, value in given.items() if value not in (None, -1, False))


def is_finished(run: Run, config: Config) -> bool:
    """Return whether a run has finished under the limits of this config."""
    if not run.record.get("attempts") or run.attempt["reason"] != "finished":
        return False
    before = record.read_config(run.path)["trainer"]
    return all(before.get(limit) == config["trainer"].get(limit) for limit in LIMITS)


def _describe(dataset: Dataset) -> dict[str, object]:
    keys = ("audio", "dialogue", "series", "trajectories", "pixels", "music")
    kept = {key: dataset.manifest[key] for key in keys if key in dataset.manifest}
    tokenizers = {name: sha256(file) for name, file in dataset.tokenizers.items()}
    about = {"path": str(dataset.path), "checksum": dataset.checksum, "stamp": dataset.stamp, **kept}
    return about | ({"tokenizers": tokenizers} if tokenizers else {})
