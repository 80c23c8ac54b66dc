"""`unroll plan CONFIG... --nodes N --gpus-per-node G`: estimate the cost of a run before it is submitted.

Prints parameters, memory per device under each strategy, tokens per step, time and device-hours.
"""

import argparse
import warnings
from functools import partial
from itertools import islice
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pipeline.arguments import Parser
from pipeline.commands import imports
from pipeline.commands.plan.rate import Rate, add_rate_options, check_rate_options, find_rate, make_task
from pipeline.commands.slurm import layout, profile
from pipeline.commands.slurm.layout import Layout
from pipeline.dataset.unit import Unit
from pipeline.errors import OutOfMemoryError
from pipeline.runs.record import CONFIG
from pipeline.runs.run import Run, find_run

if TYPE_CHECKING:  # torch takes seconds to import
    from pipeline.training.config import CommandLine

GB = 1e9
ASSUMED = 80.0  # GB per device if this machine has none
SLACK = 0.1  # share of a device's memory for libraries and fragmentation
LOOK = 8  # global batches whose tokens are counted
COLUMNS = ("weights", "gradients", "optimizer", "buffers", "activations")


def main(argv: list[str]) -> int:
    """Print the plan; return 5 if the config's strategy does not fit into memory.

    Raises:
        ConfigError: the config or the layout is invalid.
        DataError: the dataset is missing or damaged.
    """
    own, overrides = layout.divided(argv)
    options = parser().parse_args(own)
    check_rate_options(options)
    imports.load_lightning()
    from pipeline.commands.fit import quieten
    from pipeline.training.config import parse_config, run_directory

    quieten()
    warnings.filterwarnings("ignore", category=UserWarning)
    given = [f"--config={config}" for config in options.configs]
    named = ["--run", options.run] if options.run else []
    words = [*layout.start_overrides(options), *overrides]
    cli = parse_config([*given, *named, *words])
    shape = Layout.of(options)
    shape.check(vars(cli.config.trainer))
    run = run_directory(cli.config)
    tokens, steps, unit = print_size(cli, run.name, shape)
    code = print_memory(cli, shape, options.memory)
    if steps is not None:
        if not given:
            given = [f"--config={find_run(options.run) / CONFIG}"]
        rate = find_rate(options, cli, [*given, *words], run, shape, unit)
        print_time(tokens * steps, rate, shape, unit)
    return code


def parser() -> argparse.ArgumentParser:
    """Return the command line parser."""
    result = Parser(
        prog="unroll plan",
        description="Estimate memory, time and device-hours of a run. Options after -- override the config.",
    )
    add = result.add_argument
    add("configs", nargs="*", metavar="CONFIG", help="an experiment, then overlays (default: the config of --run)")
    add("--run", metavar="NAME", help="name of the run (default: from the first config)")
    layout.add_start_options(result)
    layout.add_layout_options(result)
    add("--memory", type=float, metavar="GB", help=f"memory per device (default: that of this machine, or {ASSUMED:g})")
    add_rate_options(result)
    return result


def print_size(cli: "CommandLine", name: str, shape: Layout) -> tuple[float, int | None, Unit]:
    """Print size and length of the run; return predictions per step, steps (None if unlimited) and the unit."""
    from pipeline.optim import frozen_line, total_steps
    from pipeline.runs.resume import initial_weights
    from pipeline.training.config import run_directory

    task, data, _ = cli.build()
    share = data.divide(shape.processes, 0)
    samples = data.samples("train")
    plan = data.plan(samples)
    counted = [samples.predictions(plan.batch(0, step)) for step in range(min(LOOK, len(plan)))]
    tokens, unit, rows = fmean(counted), data.unit, share.rows(len(plan.batch(0, 0)))
    trainer = cli.config.trainer
    steps = total_steps(trainer.max_epochs, trainer.max_steps, len(plan)) or None
    parameters = sum(parameter.numel() for parameter in task.parameters())
    micro = "1 micro-batch" if share.accumulation == 1 else f"{share.accumulation} micro-batches"
    optimizer = task.check_optimizer()
    options = [
        f"{key}={value}" for key, value in optimizer.defaults.items() if value is not None and value is not False
    ]
    _print("run", f"{name}: {task.architecture}, {parameters:,} parameters")
    if line := frozen_line(task):
        _print("frozen", line)
    source = initial_weights(Run(run_directory(cli.config)), cli.config, task, data.dataset)
    for number, line in enumerate(source.lines() if source else []):
        _print("" if number else "initial weights", line)
    _print("optimizer", f"{type(optimizer).__name__}: {', '.join(options)}")
    amount = tokens * unit.per_prediction
    _print("step", f"{amount:,.0f} {unit.name} on {shape.processes} processes, {micro} of {rows} samples per process")
    _print("epoch", f"{len(plan):,} steps, {len(plan) * amount / 1e6:,.1f} million {unit.name}")
    end = "unlimited: set trainer.max_steps or trainer.max_epochs"
    _print("training", end if steps is None else f"{steps:,} steps, {steps * amount / 1e6:,.1f} million {unit.name}")
    return tokens, steps, unit


def print_memory(cli: "CommandLine", shape: Layout, given: float | None) -> int:
    """Print the memory of each strategy and whether the config's strategy fits; return the exit code."""
    from pipeline.commands.plan.memory import STRATEGIES, measure_memory
    from pipeline.tasks.token_output import block_rows

    precision, execution = str(cli.config.trainer.precision), cli.config.execution
    in_blocks = partial(block_rows, device="cuda" if shape.gpus else "cpu")
    logits = (lambda rows, _: rows) if execution.compile else in_blocks
    batches = partial(largest, cli, shape)
    model = measure_memory(partial(make_task, cli), batches, precision, execution.activation_checkpointing, logits)
    found = {name: footprint(model, shape.processes) for name, footprint in STRATEGIES.items()}
    memory, source = _memory(given)
    print("", f"{'GB per device':18}" + "".join(f"{name:>13}" for name in (*COLUMNS, "total")), sep="\n")
    for name, each in found.items():
        sizes = [getattr(each, column) for column in COLUMNS]
        print(f"  {name:16}" + "".join(f"{size / GB:13.3f}" for size in (*sizes, each.total)))
    fitting = [name for name, each in found.items() if each.total <= (1 - SLACK) * memory * GB]
    chosen = own_strategy(cli.config.trainer.strategy)
    room = f"{memory:g} GB{source}, less {SLACK:.0%}"
    overlays = ", ".join(f"configs/run/{name}.yaml" for name in fitting)
    others = f"use one of {overlays}" if fitting else "no other strategy fits"
    print()
    if chosen is None:
        _print(
            "memory", f"{room}; these strategies fit: {', '.join(fitting) or 'none'} (the config's is not in the table)"
        )
        return 0
    if chosen in fitting:
        _print("memory", f"{chosen} (strategy of the config) fits in {room}")
        return 0
    smaller = (
        ""
        if fitting
        else "; try a smaller per_device_batch_size, configs/run/activation_checkpointing.yaml, or more devices"
    )
    _print("memory", f"{chosen} (strategy of the config) does NOT fit in {room}; {others}{smaller}")
    return OutOfMemoryError.exit_code


def print_time(tokens: float, rate: Rate | None, shape: Layout, unit: Unit) -> None:
    """Print time and device-hours of the run."""
    if rate is None:
        _print("time", "unknown: give --rate, or --measure N to train N steps here")
        return
    seconds = tokens / rate.tokens
    hours = seconds / 3600
    _print("time", f"{profile.clock(seconds)} at {unit.rate(rate.tokens)} ({rate.source})")
    _print("device-hours", f"{hours * shape.processes:,.1f}")


def own_strategy(strategy: Any) -> str | None:
    """Return the overlay of configs/run whose strategy equals the config's; None if there is none."""
    import yaml

    from pipeline.commands.plan.memory import STRATEGIES
    from pipeline.training.shipped_configs import CONFIGS

    if isinstance(strategy, str):
        return "ddp" if strategy in ("auto", "ddp") else None
    given = vars(strategy.init_args) if "init_args" in strategy else {}
    matches: dict[str, int] = {}
    for name in STRATEGIES:
        overlay = yaml.safe_load((CONFIGS / "run" / f"{name}.yaml").read_text())["trainer"]["strategy"]
        if isinstance(overlay, str) or overlay["class_path"].split(".")[-1] != strategy.class_path.split(".")[-1]:
            continue
        keys = overlay.get("init_args", {})
        if all(given.get(key) == value for key, value in keys.items()):
            matches[name] = len(keys)
    return max(matches, key=matches.__getitem__) if matches else None


def largest(cli: "CommandLine", shape: Layout, rows: int | None) -> tuple[Any, Any]:
    """Return the largest of a process's first micro-batches, cut to `rows` if given, and one with twice its rows."""
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
    """Return the GB per device, and their source in words."""
    import torch

    if given:
        return given, ""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory / GB, " of this machine's device"
    return ASSUMED, " (assumed; set --memory)"


def _print(name: str, text: str) -> None:
    print(f"{name:16}{text}")
