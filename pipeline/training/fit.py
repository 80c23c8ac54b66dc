"""An attempt of a run: check everything that can be checked, then start the processes.

Nothing is built and no file of the run is changed before config, dataset and checkpoint are known to match.
"""

import json
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer

from pipeline.arguments import available_cores
from pipeline.callbacks.profiling import check_profile
from pipeline.data.batch_plan import Share
from pipeline.data.module import PlannedDataModule
from pipeline.distributed import launch, rendezvous, signals
from pipeline.distributed.checkpoint.directory import by_metric
from pipeline.errors import TRY_AGAIN, CheckpointError, ConfigError, UserError, classify
from pipeline.evaluation.neural_cache import NeuralCache
from pipeline.files import write_durably
from pipeline.runs.initial_weights import match
from pipeline.runs.journal import last_saved
from pipeline.runs.load import choose_checkpoint
from pipeline.runs.match import Data, check_evaluation
from pipeline.runs.record import read_config
from pipeline.runs.resume import Start, begin, kept_config
from pipeline.runs.run import Run, find_run, name_of
from pipeline.runs.weights_source import open_source
from pipeline.tasks.language_model import LanguageModel
from pipeline.tasks.task import Task
from pipeline.tracking.artifacts import keep_patch
from pipeline.tracking.redact import error_line
from pipeline.tracking.settings import mode_given
from pipeline.tracking.wandb_logger import PatientWandbLogger
from pipeline.training.config import CommandLine
from pipeline.training.trainer import check_precision, make_trainer

LOCK_PATIENCE = 60.0  # seconds that a requeued attempt waits for the previous one to exit


Built = tuple[Task, PlannedDataModule, Namespace]


class EvaluationOptions(NamedTuple):
    """What an evaluation reads and writes."""

    split: str | None = None
    """The split of a test; None for every test split in turn."""
    checkpoint: str = "best"
    """`best`, `last` or a path, see `choose_checkpoint`."""
    file: Path | None = None
    """File for the scores as JSON, by split and name."""
    cache: NeuralCache | None = None
    """Cache of the last words of a language model."""


class Broadcast(TypedDict):
    """What the first process determines for all."""

    start: tuple[str, int, bool]
    """Checkpoint, step, and whether the run is finished."""
    record: dict[str, Any]


def fit(cli: CommandLine, run: Run) -> int:
    """Start or continue a run and return the exit code; the first process keeps the run's record."""
    check_precision(vars(cli.config.trainer))
    check_profile(cli.config.profile)
    mode_given()
    _check_division(cli.config)
    with ExitStack() as held:
        run, start = _begin(cli, run, held)
        if start.finished:
            return 0
        if launch.forks(vars(cli.config.trainer)):
            start = replace(start, built=None)  # each process builds its own
        work = partial(_fit, cli, run, start)
        if launch.rank():
            return _start(cli, work)
        try:
            code = _start(cli, work)
        except signals.Stopped:
            code = TRY_AGAIN
        except BaseException as error:
            run.end_attempt(f"failed: {error_line(error)}", error.exit_code if isinstance(error, UserError) else 1)
            raise
        reason = {0: "finished", TRY_AGAIN: "stopped"}.get(code, f"failed: exit code {code}")
        if not run.end_attempt(reason, code) and code == 0:
            return CheckpointError.exit_code  # the same command completes the record
        if code == TRY_AGAIN:
            saved = last_saved(run.path) or "nothing before the first step"
            print(f"run {run.name} stopped and saved {saved}; the same command continues it", flush=True)
        elif code == 0:
            print(run_summary(run), flush=True)
        return code


def first_cause(error: Exception) -> Exception:
    """Return the error that ended a training.

    Lightning moves the model to the CPU after an error. If the layers are not built yet, this raises another one.
    """
    hidden = isinstance(error, NotImplementedError) and "meta tensor" in str(error)
    return error.__context__ if hidden and isinstance(error.__context__, Exception) else error


@contextmanager
def _classified(trainer: Trainer) -> Iterator[None]:
    """Raise the UserError that an error of a training or an evaluation stands for."""
    try:
        yield
    except Exception as error:
        cause = first_cause(error)
        raise classify(cause, trainer.world_size) from cause


def run_summary(run: Run) -> str:
    """Return the lines printed after a finished run: its place, its best checkpoint, and the next commands.

    No checkpoint is verified, which would read all its bytes, and none is required: the last save may have failed.
    """
    metric = read_config(run.path)["checkpoints"]["metric"]
    best = [
        f", best checkpoint {path.name}, {metric} {value:.4f}" for value, path in by_metric(run.checkpoints, metric)
    ]
    name = shlex.quote(name_of(run.path))
    return (
        f"run {run.name} finished: {run.path}{''.join(best[:1])}\n"
        f"next: unroll test {name}; unroll generate {name} --help; unroll compare {name}"
    )


def evaluate(cli: CommandLine, run: Run, verb: str, how: EvaluationOptions) -> int:
    """Evaluate a checkpoint of a run and return the exit code.

    Args:
        cli: the parsed command line.
        run: the run.
        verb: `validate`, on the validation split, or `test`.
        how: the checkpoint, the split, the file of the scores, and the cache.

    Raises:
        UserError: the run does not exist, or it does not match the config and the data, see `check_evaluation`.
    """
    if cli.config.profile is not None:
        raise ConfigError(f"--profile={cli.config.profile}: only the steps of `unroll fit` are profiled. Remove it")
    run = Run(find_run(str(run.path)))
    built = cli.build()
    if how.cache and not isinstance(built[0], LanguageModel):
        raise ConfigError(
            f"--cache={how.cache}: expected a language model, got {built[0].architecture}. Omit the option"
        )
    splits = ["validation"] if verb == "validate" else built[1].test_splits(how.split)
    _check_evaluation(cli, run, built[1], splits)
    forks = launch.forks(vars(cli.config.trainer))  # then each process builds its own
    return _start(cli, partial(_evaluate, cli, run, splits, how, None if forks else built))


def _check_evaluation(cli: CommandLine, run: Run, data: PlannedDataModule, splits: list[str]) -> None:
    """Raise UserError if the run does not match what is evaluated."""
    used = Data(data.dataset, data.facts, data.steps_per_epoch)
    check_evaluation(run, kept_config(cli), used, named=cli.names_dataset)
    if not launch.rank() and run.record["dataset"]["stamp"] != data.dataset.stamp:
        data.dataset.verify(splits)  # a training verifies all of it


def _check_division(config: Namespace) -> None:
    """Raise ConfigError, before anything is written, if the global batch is not divisible among the processes."""
    Share.of_config(vars(config.data.init_args), launch.world_size(vars(config.trainer)))


def _begin(cli: CommandLine, run: Run, held: ExitStack) -> tuple[Run, Start]:
    """Return the run and its start; with a launcher, the first process determines it and broadcasts it."""

    def recorded() -> Start:
        start = begin(run, cli)
        if not start.finished and cli.config.tracking.code:
            keep_patch(run)
        return start

    if not launch.started_elsewhere():
        held.enter_context(run.lock())
        return run, recorded()

    begun: list[Start] = []

    def first() -> Broadcast:
        held.enter_context(run.lock(patience=LOCK_PATIENCE))
        begun.append(start := recorded())
        return {"start": (str(start.checkpoint or ""), start.step, start.finished), "record": run.record}

    received = rendezvous.broadcast_result(first, launch.world_size(vars(cli.config.trainer)))
    if begun:
        return run, begun[0]
    checkpoint, step, finished = received["start"]
    return Run(run.path, received["record"]), Start(Path(checkpoint) if checkpoint else None, step, finished)


def _start(cli: CommandLine, work: Callable[[], None]) -> int:
    """Run `work` in this process, or in one fork per device of the config, and return the exit code."""
    processes = launch.count_processes(vars(cli.config.trainer))

    def share_processor() -> int:
        if not torch.cuda.is_available() and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, available_cores() // processes))
        work()
        return 0

    return launch.supervise(processes, share_processor) if launch.forks(vars(cli.config.trainer)) else share_processor()


def _fit(cli: CommandLine, run: Run, start: Start) -> None:
    model, data, config = start.built or cli.build()
    if start.checkpoint is None and (source := run.record.get("from")):
        initial = match(model, open_source(source["path"], verify=False), data.dataset.tokenizers)
        start = replace(start, initial=initial)
    trainer = make_trainer(config, run, model, data, start)
    code = 1
    try:
        with _classified(trainer):
            trainer.fit(model, datamodule=data, ckpt_path=start.checkpoint, weights_only=True)
        code = 0
    except signals.Stopped:
        code = TRY_AGAIN
        raise
    finally:
        for logger in trainer.loggers:
            if isinstance(logger, PatientWandbLogger):
                logger.finish(code)


def _evaluate(cli: CommandLine, run: Run, splits: list[str], how: EvaluationOptions, built: Built | None) -> None:
    chosen = choose_checkpoint(run.path, how.checkpoint)
    model, data, config = built or cli.build()
    if isinstance(model, LanguageModel):
        model.cache = how.cache
    trainer: Trainer = make_trainer(config, run, model, data, None)
    title = f"{run.name}, {chosen.name}, on {data.dataset.path}" + (
        f", with a cache of {how.cache}" if how.cache else ""
    )
    scores = {}
    for name in splits:
        data.test_split = name
        evaluation = trainer.validate if name == "validation" else trainer.test
        with _classified(trainer):
            evaluation(model, datamodule=data, ckpt_path=chosen, weights_only=True, verbose=False)
        scores[name] = {key: float(value) for key, value in trainer.callback_metrics.items()}
        _print_scores(trainer, model, title if name in ("test", "validation") else f"{title}, {name}")
    if how.file and trainer.is_global_zero:
        text = json.dumps(scores, indent=1)
        write_durably(how.file, lambda new: new.write_text(text + "\n"))


def _print_scores(trainer: Trainer, model: Task, title: str) -> None:
    if trainer.is_global_zero:
        print(f"{title}:")
        width = max(32, *map(len, trainer.callback_metrics))
        for name, value in trainer.callback_metrics.items():
            print(f"  {name:{width}} {value:.4f}")
        for line in model.report():
            print(line)
