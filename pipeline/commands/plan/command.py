"""`unroll plan CONFIG... --nodes N --gpus-per-node G`: what a run will take, before it is submitted.

Parameters, memory of a device under each strategy, tokens of a step, and the time and the device-hours to its end.
"""

import argparse
import warnings
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

from pipeline.arguments import Parser
from pipeline.commands.slurm import layout, profile
from pipeline.commands.slurm.layout import Layout
from pipeline.errors import CheckpointError, OutOfMemoryError
from pipeline.runs import journal
from pipeline.runs.run import Run, find_run

GB = 1e9
ASSUMED = 80.0  # GB, where no device is here to ask
SLACK = 0.1  # of a device's memory: its libraries, and what lies between the tensors
LOOK = 8  # global batches whose tokens are counted
COLUMNS = ("weights", "gradients", "optimizer", "buffers", "activations")


class Rate(NamedTuple):
    """How fast tokens are trained on."""

    tokens: float
    """A second, on all devices."""
    source: str


def main(argv: list[str]) -> int:
    """Print the plan; exit code 5 where the config's own strategy does not fit.

    Raises:
        ConfigError: the config or the layout cannot be.
        DataError: the dataset is missing or damaged.
    """
    own, overrides = layout.divided(argv)
    options = parser().parse_args(own)
    from pipeline.commands.fit import quieten
    from pipeline.training.config import parse_config, run_directory

    quieten()
    warnings.filterwarnings("ignore", category=UserWarning)
    given = [f"--config={config}" for config in options.configs]
    named = ["--run", options.run] if options.run else []
    cli = parse_config([*given, *named, *overrides])
    shape = Layout.of(options)
    shape.check(vars(cli.config.trainer))
    run = run_directory(cli.config)
    tokens, steps = tell_size(cli, run.name, shape)
    code = tell_memory(cli, shape, options.memory)
    tell_time(None if steps is None else tokens * steps, find_rate(options, run, shape), shape)
    return code


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(
        prog="unroll plan",
        description="What a run will take. What follows -- overrides the config, as for `unroll fit`.",
    )
    add = result.add_argument
    add("configs", nargs="*", metavar="CONFIG", help="an experiment, then overlays; none: those kept in the run")
    add("--run", metavar="NAME", help="the run's name (default: from the name of the first config)")
    layout.add_layout_options(result)
    add("--memory", type=float, metavar="GB", help=f"of a device (default: of this one's, else {ASSUMED:g})")
    add("--rate", type=float, metavar="R", help="tokens a second of all devices together")
    add("--measured", metavar="RUN", help="take the rate from this run's journal (default: from the run's own)")
    return result


def tell_size(cli: Any, name: str, shape: Layout) -> tuple[float, int | None]:
    """Print parameters, step and length of the run; tokens of a step, and steps if they have an end."""
    from pipeline.optim import total_steps

    task, data, _ = cli.build()
    share = data.divide(shape.processes, 0)
    samples = data.samples("train")
    plan = data.plan(samples)
    counted = [samples.predictions(plan.batch(0, step)) for step in range(min(LOOK, len(plan)))]
    tokens, rows = fmean(counted), share.rows(len(plan.batch(0, 0)))
    trainer = cli.config.trainer
    steps = total_steps(trainer.max_epochs, trainer.max_steps, len(plan)) or None
    parameters = sum(parameter.numel() for parameter in task.parameters())
    micro = "1 micro-batch" if share.accumulation == 1 else f"{share.accumulation} micro-batches"
    optimizer = task.check_optimizer()
    options = [
        f"{key}={value}" for key, value in optimizer.defaults.items() if value is not None and value is not False
    ]
    _tell("run", f"{name}: {task.architecture}, {parameters:,} parameters")
    _tell("optimizer", f"{type(optimizer).__name__}: {', '.join(options)}")
    _tell("a step", f"{tokens:,.0f} tokens on {shape.processes} processes, {micro} of {rows} samples on each")
    _tell("an epoch", f"{len(plan):,} steps, {len(plan) * tokens / 1e6:,.1f} million tokens")
    end = "without end: give trainer.max_steps or max_epochs"
    _tell("the run", end if steps is None else f"{steps:,} steps, {steps * tokens / 1e6:,.1f} million tokens")
    return tokens, steps


def tell_memory(cli: Any, shape: Layout, given: float | None) -> int:
    """Print the table of strategies, and whether the config's own fits; the exit code."""
    from pipeline.commands.plan.memory import STRATEGIES, measure_memory

    config = cli.config
    batches = partial(largest, cli, shape)
    model = measure_memory(
        partial(make_task, cli), batches, str(config.trainer.precision), config.execution.activation_checkpointing
    )
    found = {name: footprint(model, shape.processes) for name, footprint in STRATEGIES.items()}
    memory, source = _memory(given)
    print("", f"{'GB a device':18}" + "".join(f"{name:>13}" for name in (*COLUMNS, "all")), sep="\n")
    for name, each in found.items():
        sizes = [getattr(each, column) for column in COLUMNS]
        print(f"  {name:16}" + "".join(f"{size / GB:13.3f}" for size in (*sizes, each.total)))
    fitting = [name for name, each in found.items() if each.total <= (1 - SLACK) * memory * GB]
    chosen = own_strategy(cli.config.trainer.strategy)
    room = f"{memory:g} GB{source}, less {SLACK:.0%}"
    others = f"would: {', '.join(f'configs/run/{name}.yaml' for name in fitting)}" if fitting else "nor does another"
    print()
    if chosen is None:
        _tell("memory", f"of {room}; the config takes a strategy of its own; these fit: {', '.join(fitting) or 'none'}")
        return 0
    if chosen in fitting:
        _tell("memory", f"{chosen}, which the config takes, fits in {room}")
        return 0
    smaller = (
        ""
        if fitting
        else "; try a smaller per_device_batch_size, configs/run/activation_checkpointing.yaml, or more devices"
    )
    _tell("memory", f"{chosen}, which the config takes, does NOT fit in {room}; {others}{smaller}")
    return OutOfMemoryError.exit_code


def tell_time(tokens: float | None, rate: Rate | None, shape: Layout) -> None:
    """Print how long the run takes."""
    if tokens is None:
        return
    if rate is None:
        _tell("time", "unknown: give --rate, or train a few steps and name that run with --measured")
        return
    seconds = tokens / rate.tokens
    hours = seconds / 3600
    _tell("time", f"{profile.clock(seconds)} at {rate.tokens:,.0f} tokens/s ({rate.source})")
    _tell("device-hours", f"{hours * shape.processes:,.1f}")


def find_rate(options: argparse.Namespace, run: Path, shape: Layout) -> Rate | None:
    """The rate that was given, else what a run's journal measured, for as many processes as there will be.

    Raises:
        CheckpointError: the run that was named has measured nothing.
    """
    if options.rate:
        return Rate(options.rate, "given")
    if options.measured:
        run = find_run(options.measured)
    rates = journal.read_journal(run).series("train/tokens_per_second").values if (run / journal.FILE).exists() else []
    if not rates:
        if options.measured:
            raise CheckpointError(f"run {run.name} has not measured its rate yet: train at least log_every_n_steps")
        return None
    processes = Run(run).attempt["world_size"]
    scaled = "" if processes == shape.processes else f", times {shape.processes / processes:g} for the processes"
    return Rate(
        median(rates) * shape.processes / processes, f"measured by run {run.name} on {processes} processes{scaled}"
    )


def own_strategy(strategy: Any) -> str | None:
    """The overlay of configs/run whose strategy a config takes; None where it is another one."""
    import yaml

    from pipeline.commands.plan.memory import STRATEGIES
    from pipeline.training.shipped_configs import CONFIGS

    if isinstance(strategy, str):
        return "ddp" if strategy in ("auto", "ddp") else None
    given = vars(strategy.init_args) if "init_args" in strategy else {}
    matches: dict[str, int] = {}
    for name in STRATEGIES:
        wanted = yaml.safe_load((CONFIGS / "run" / f"{name}.yaml").read_text())["trainer"]["strategy"]
        if isinstance(wanted, str) or wanted["class_path"].split(".")[-1] != strategy.class_path.split(".")[-1]:
            continue
        keys = wanted.get("init_args", {})
        if all(given.get(key) == value for key, value in keys.items()):
            matches[name] = len(keys)
    return max(matches, key=matches.__getitem__) if matches else None


def make_task(cli: Any) -> Any:
    """The task as the trainer gets it, with a trainer of one process to ask."""
    from lightning.pytorch import Trainer

    task, *_ = cli.build()
    quiet: Any = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    task.trainer = Trainer(accelerator="cpu", devices=1, **quiet)
    return task


def largest(cli: Any, shape: Layout, rows: int | None) -> tuple[Any, Any]:
    """The largest of a process's first micro-batches, of as many rows as asked for, and one of twice its rows."""
    import numpy as np
    from torch.utils._pytree import tree_leaves

    from pipeline.data.batch_plan import MicroBatches

    _, data, _ = cli.build()
    samples = data.samples("train")
    share = data.divide(shape.processes, 0)
    first = islice(MicroBatches(data.plan(samples), share, samples.predictions), LOOK * share.accumulation)
    found = [(part, samples.__getitems__(part)) for part in first]
    part, _ = max(found, key=lambda pair: sum(getattr(leaf, "nbytes", 0) for leaf in tree_leaves(pair[1])))
    ids = part.ids[:rows]
    once, twice = (samples.__getitems__(part._replace(ids=np.concatenate([ids] * times))) for times in (1, 2))
    return once, twice


def _memory(given: float | None) -> tuple[float, str]:
    """GB of a device, and where that is from."""
    import torch

    if given:
        return given, ""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory / GB, " of this machine's device"
    return ASSUMED, " (assumed: --memory says otherwise)"


def _tell(what: str, said: str) -> None:
    print(f"{what:16}{said}")
