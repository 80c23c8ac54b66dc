"""Lightning's Trainer with the callbacks, loggers and strategy of a run, and those that the config adds."""

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import PassThroughProfiler, Profiler
from lightning.pytorch.strategies import Strategy
from rich.console import Console

from pipeline.callbacks.checkpointing import Checkpoints
from pipeline.callbacks.diagnosis import Diagnoses
from pipeline.callbacks.gradients import Gradients
from pipeline.callbacks.initial_weights import InitialCheckpoint
from pipeline.callbacks.initialization import InitialDraw
from pipeline.callbacks.nonfinite_guard import Guard
from pipeline.callbacks.optimizer_options import OptimizerOptions
from pipeline.callbacks.per_step_seed import Randomness
from pipeline.callbacks.profiling import Profiling
from pipeline.callbacks.progress_bar import Bar
from pipeline.callbacks.progress_lines import Lines
from pipeline.callbacks.step_clock import StepClock
from pipeline.callbacks.step_vote import StepVote
from pipeline.callbacks.system import System
from pipeline.callbacks.time_limit import TimeLimit
from pipeline.callbacks.train_metrics import Monitor
from pipeline.callbacks.utilization import Utilization
from pipeline.callbacks.watchdog import Watchdog
from pipeline.data.module import PlannedDataModule
from pipeline.distributed.checkpoint.directory import CheckpointDirectory
from pipeline.distributed.launch import count_processes, rank, started_elsewhere, world_size
from pipeline.distributed.lightning_internals import call_overridden_hooks, train_whole
from pipeline.distributed.strategies.data_parallel import DataParallel
from pipeline.distributed.strategies.fully_sharded import FullySharded
from pipeline.distributed.strategies.traits import StrategyTraits
from pipeline.distributed.strategies.zero import ZeRO
from pipeline.errors import ConfigError
from pipeline.optim import total_steps
from pipeline.optim.muon import Muon
from pipeline.runs.resume import Start
from pipeline.runs.run import Run
from pipeline.tasks.task import Task
from pipeline.tracking.journal_logger import JournalLogger
from pipeline.tracking.wandb_logger import wandb_logger

Row = Callable[[], dict[str, float]]  # returns a part of a row of the journal
PRECISIONS = ("32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16")


class Unprofiled(PassThroughProfiler):
    """No profiler, at a third of the cost of Lightning's, which is called fifty times per step."""

    nothing = nullcontext()

    def profile(self, action_name: str) -> Any:
        """Return a context that does nothing."""
        return self.nothing


def make_trainer(config: Namespace, run: Run, model: Task, data: PlannedDataModule, start: Start | None) -> Trainer:
    """Return the trainer of an attempt.

    Args:
        config: the instantiated config.
        run: the run.
        model: the task to train or evaluate.
        data: the data to train or evaluate on.
        start: how the attempt begins; None for an evaluation, which writes no record.
    """
    settings = dict(vars(config.trainer))
    settings["strategy"] = _strategy(settings["strategy"], world_size(settings), model if start else None)
    if started_elsewhere():  # a requeued job may run on a different number of nodes than the config names
        settings["devices"] = count_processes(settings)
        settings["num_nodes"] = world_size(settings) // settings["devices"]
    checkpoints = Checkpoints(config.checkpoints, vote := StepVote(), run.checkpoints)
    optimizer = OptimizerOptions(run.path)
    guard = Guard(config.guard, vote, checkpoints, optimizer)
    monitor = _monitor(run, model, vote, [guard.row, checkpoints.row, System().row], start is not None)
    own = [
        Watchdog(config.watchdog, run.path / "stacks"),
        Randomness(int(config.seed_everything)),
        optimizer,
        guard,
        monitor,
        *_time_limit(settings.pop("max_time"), monitor, vote),
        *model.preview_callbacks(run.path),
        *([Gradients(config.tracking.gradients)] if config.tracking.gradients is not None else []),
        *([Profiling(config.profile, run.path / "profile")] if start and config.profile is not None else []),
        *([Diagnoses(config.tracking.diagnosis, model)] if config.tracking.diagnosis is not None else []),
        config.execution,
        *(settings["callbacks"] or []),
        checkpoints,
        *_initial(config, start, checkpoints),
    ]
    draws = (console := Console()).is_terminal and not console.is_dumb_terminal
    shown = Bar(monitor, console) if draws else Lines(monitor)
    settings |= {
        "callbacks": [*own, shown] if start else [shown] if draws else [],
        "profiler": settings["profiler"] or Unprofiled(),
        "logger": _loggers(config, run, model, data) if start else False,
        # Lightning's Slurm environment would add signal handlers, a requeue and checks of its own.
        "plugins": [CheckpointDirectory(), LightningEnvironment(), *_listed(settings["plugins"])],
        "enable_checkpointing": start is not None,  # by the callback above
        "enable_progress_bar": False,  # Bar and Lines replace it
        "enable_model_summary": False,
        "use_distributed_sampler": False,  # the plan partitions the batches
        "default_root_dir": run.path,
    }
    return _with_profile(_built(settings, model), run.path)


def _initial(config: Namespace, start: Start | None, checkpoints: Checkpoints) -> list[Callback]:
    """Return the callbacks that set initial weights: drawn ones, then those of another run."""
    drawn = config.initialization if start else None
    source = start.initial if start else None
    return [
        *([InitialDraw(drawn, int(config.seed_everything))] if drawn else []),
        *([InitialCheckpoint(source, checkpoints)] if source else []),
    ]


def _monitor(run: Run, model: Task, vote: StepVote, others: list[Row], trains: bool) -> Monitor:
    """Return the callback that logs the metrics of training, with a clock that also measures the vote."""
    clock = StepClock()
    vote.agreement.timed = clock.during("agreement")
    utilization = Utilization(run, model.build) if trains and model.build else None
    return Monitor(run.attempt["number"] if trains else 0, others, utilization, clock)


def _with_profile(trainer: Trainer, directory: Path) -> Trainer:
    """Let the trainer's profiler, if there is one, write its report to a directory, not to Lightning's silenced log."""
    profiler: Profiler = vars(trainer)["profiler"]
    if not isinstance(profiler, PassThroughProfiler):
        profiler.dirpath, profiler.filename = profiler.dirpath or directory, profiler.filename or "profile"
    return trainer


def _strategy(given: str | Strategy, processes: int, trained: Task | None) -> str | Strategy:
    """Return the strategy for the config's; `trained` is None in an evaluation."""
    if trained is not None:
        _check_optimizer(given, trained)
    if isinstance(given, ZeRO) and trained is None:
        # DeepSpeed partitions weights together with an optimizer, which an evaluation does not have.
        given = "auto" if given.stage < 3 or processes == 1 else FullySharded()
    return DataParallel() if given in ("auto", "ddp") and processes > 1 else given


def _check_optimizer(given: str | Strategy, model: Task) -> None:
    """Raise ConfigError for Muon under a strategy that shards matrices, gradients or their momentum."""
    shards = isinstance(given, StrategyTraits) and (given.divides_model or given.owns_gradients)
    if shards and isinstance(model.check_optimizer(), Muon):
        raise ConfigError(
            "model.init_args.optimizer=Muon: expected a strategy with whole matrices on each process, got "
            f"{type(given).__name__}. Set --trainer.strategy=ddp, or use torch.optim.AdamW"
        )


def check_precision(settings: Mapping[str, object]) -> None:
    """Raise ConfigError for a precision that is not supported here.

    Args:
        settings: the trainer's part of the config.
    """
    precision = str(settings["precision"] or "32-true")
    if precision not in PRECISIONS:
        raise ConfigError(
            f"trainer.precision={precision}: expected 32-true, bf16-mixed (configs/run/bf16.yaml) or 16-mixed"
        )
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # checks without initializing CUDA, before forks
    on_cpu = settings["accelerator"] == "cpu" or (settings["accelerator"] == "auto" and not torch.cuda.is_available())
    if on_cpu and precision.startswith("16"):  # Lightning would silently use bfloat16
        raise ConfigError(
            f"trainer.precision={precision} (float16 with loss scaling) requires a GPU; on CPU use "
            "configs/run/bf16.yaml or 32-true"
        )


def _time_limit(limit: str | timedelta | dict[str, int] | None, monitor: Monitor, vote: StepVote) -> list[TimeLimit]:
    """Return the callback for `max_time`, in place of Lightning's timer, which includes validations."""
    if limit is None:
        return []
    try:
        return [TimeLimit(limit, monitor, vote)]
    except (MisconfigurationException, TypeError) as error:
        raise ConfigError(f"trainer.max_time={limit}: expected DD:HH:MM:SS or {{minutes: 10}}") from error


def _built(settings: dict[str, Any], model: Task) -> Trainer:
    try:
        trainer = Trainer(**settings)
    except (MisconfigurationException, ValueError) as error:
        raise ConfigError(f"trainer: {error}") from error
    train_whole(trainer)
    call_overridden_hooks(trainer, model)
    return trainer


def _loggers(config: Namespace, run: Run, model: Task, data: PlannedDataModule) -> list[Logger]:
    """Return the loggers of the first process, the journal and W&B, and record the model's size."""
    if rank():
        return []
    parameters = sum(parameter.numel() for parameter in model.parameters())
    limits = config.trainer.max_epochs, config.trainer.max_steps
    steps = total_steps(*limits, data.steps_per_epoch)
    run.write(architecture=model.architecture, parameters=parameters, steps=steps, unit=data.unit)
    loggers = [JournalLogger(run.path), wandb_logger(run)]
    return [logger for logger in loggers if logger is not None]


def _listed(value: object) -> list[object]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
