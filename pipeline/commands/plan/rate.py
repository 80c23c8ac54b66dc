"""The speed of training for `unroll plan`: given, measured by a run or by a few steps now, or computed from FLOPs."""

import argparse
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from pipeline.commands.slurm.layout import Layout
from pipeline.dataset.unit import Unit
from pipeline.errors import CheckpointError, ConfigError, UserError
from pipeline.runs import journal, record
from pipeline.runs.changes import changes_between, is_below
from pipeline.runs.run import RUNS, Run, find_run

if TYPE_CHECKING:  # torch takes seconds to import
    from pipeline.data.module import PlannedDataModule
    from pipeline.evaluation.peak import Peak
    from pipeline.tasks.task import Task
    from pipeline.training.config import CommandLine

MFU = 0.3  # share of the peak that a computed speed assumes
GPU = "A100"  # assumed if this machine has none
SAME = ("model.", "data.", "execution.", "trainer.precision")  # keys of the config that determine the speed
EXCEPT = (
    "model.init_args.optimizer.",
    "model.init_args.schedule.",
    "data.init_args.dataset",
    "data.init_args.workers",
    "data.init_args.per_device_batch_",
)  # keys below them that hardly do


class Rate(NamedTuple):
    """The speed of training."""

    tokens: float
    """Predictions per second, on all devices together."""
    source: str


def add_rate_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that determine the speed to a parser."""
    add = parser.add_argument
    add("--rate", type=float, metavar="R", help="speed on all devices together, in the printed unit per second")
    add("--measured", metavar="RUN", help="read the rate from the journal of RUN (default: a run of this config)")
    add("--measure", type=int, metavar="N", help="train N steps on this machine to measure the rate")
    add("--device", metavar="GPU", help=f"GPU of a computed rate, such as H100 (default: this machine's, or {GPU})")
    add("--mfu", type=float, metavar="M", help=f"share of its peak for a computed rate (default: {MFU:g})")


def check_rate_options(options: argparse.Namespace) -> None:
    """Raise ConfigError if an option of `add_rate_options` is invalid."""
    if options.measure is not None and options.measure < 2:
        raise ConfigError(f"--measure={options.measure}: expected at least 2 steps, got {options.measure}. Increase it")
    if options.rate is not None and not 0 < options.rate < math.inf:
        raise ConfigError(f"--rate={options.rate:g}: expected a positive number, got {options.rate:g}. Change it")
    if options.mfu is not None and not 0 < options.mfu <= 1:
        raise ConfigError(f"--mfu={options.mfu:g}: expected a share from 0 to 1, got {options.mfu:g}. Change it")
    if options.device is not None:
        from pipeline.evaluation.peak import PEAKS, peak_of

        if peak_of(options.device, "32-true") is None:
            known = ", ".join(PEAKS)
            raise ConfigError(f"--device={options.device}: expected one of {known}, got {options.device}. Choose one")


def find_rate(
    options: argparse.Namespace, cli: "CommandLine", words: Sequence[str], run: Path, shape: Layout, unit: Unit
) -> Rate | None:
    """Return the speed; None if the FLOPs of the config cannot be counted.

    Args:
        options: the options of `add_rate_options`.
        cli: the parsed config.
        words: the arguments of `unroll fit` that give this config.
        run: directory of the run.
        shape: the processes to plan for.
        unit: unit of the rate on the command line.

    Raises:
        CheckpointError: the run given with --measured has not logged its rate.
        ConfigError: the training of --measure fails.
    """
    if options.rate is not None:
        return Rate(options.rate / unit.per_prediction, "given")
    if options.measure is not None:
        return measured_now(options.measure, words, shape)
    if options.measured:
        run = find_run(options.measured)
        if (found := rate_of(run, shape)) is None:
            raise CheckpointError(
                f"--measured={run.name}: the run has not logged its rate. Train at least trainer.log_every_n_steps"
            )
        return found
    if options.device is None and options.mfu is None:
        for each in (run, *alike(cli)):
            if has_devices_of(each, shape) and (found := rate_of(each, shape)):
                return found
    return computed(options, cli, shape)


def has_devices_of(run: Path, shape: Layout) -> bool:
    """Return whether a run was trained on the kind of device that is planned for, as far as its record shows."""
    try:
        device = Run(run).record.get("speed", {}).get("device", "")
    except CheckpointError:
        return False
    return not device or device.startswith("cpu") != bool(shape.gpus)


def rate_of(run: Path, shape: Layout) -> Rate | None:
    """Return the median rate of a run's journal, scaled to a number of processes; None if it has none."""
    if not (run / journal.FILE).exists():
        return None
    rates = journal.read_journal(run).series("train/tokens_per_second").values
    if not rates:
        return None
    processes = Run(run).attempt["world_size"]
    scaled = "" if processes == shape.processes else f", scaled by {shape.processes / processes:g}"
    return Rate(
        median(rates) * shape.processes / processes, f"measured by run {run.name} on {processes} processes{scaled}"
    )


def alike(cli: "CommandLine") -> Iterator[Path]:
    """Yield the runs here with the same model, batches and precision, the newest first."""
    from pipeline.runs.resume import kept_config

    mine = kept_config(cli)
    journals = [path for path in RUNS.glob(f"*/{journal.FILE}") if record.is_run(path.parent)]
    runs = [path.parent for path in sorted(journals, key=lambda path: path.stat().st_mtime, reverse=True)]
    for run in runs:
        with suppress(UserError):  # a run that cannot be read is not like this one
            if _is_alike(record.read_config(run), mine):
                yield run


def _is_alike(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Return whether two configs differ only in what hardly matters for the speed on a device."""
    keys = [change.key for change in changes_between(one, other)]
    matter = [key for key in keys if any(is_below(key, start) for start in SAME)]
    return all(any(is_below(key, start) for start in EXCEPT) for key in matter)


def measured_now(steps: int, words: Sequence[str], shape: Layout) -> Rate:
    """Train a few steps in a temporary run on this machine and return the rate of the second half.

    Raises:
        ConfigError: the training fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "measured"
        own = {"max_steps": steps, "max_epochs": -1, "limit_val_batches": 0, "log_every_n_steps": steps // 2}
        keys = [f"--trainer.{name}={value}" for name, value in own.items()]
        command = [sys.executable, "-m", "pipeline", "fit", *words, f"--run={run}", *keys]
        untracked = {**os.environ, "WANDB_MODE": "disabled"}
        done = subprocess.run([*command, "--checkpoints.every_minutes=null"], stdout=subprocess.DEVNULL, env=untracked)
        found = rate_of(run, shape) if done.returncode == 0 else None
        if found is None:
            raise ConfigError(
                f"--measure={steps}: training failed with exit code {done.returncode}. Fix the error above, or give "
                "--rate"
            )
        rates = journal.read_journal(run).series("train/tokens_per_second").values
        scale = found.tokens / median(rates)
        return Rate(rates[-1] * scale, f"measured by {steps} steps on this machine, scaled by {scale:g}")


def computed(options: argparse.Namespace, cli: "CommandLine", shape: Layout) -> Rate | None:
    """Return the rate by FLOPs, the peak of the devices and an assumed utilization; None if FLOPs are not known."""
    flops = flops_per_prediction(cli, cli.build_parts()[1])
    if flops is None:
        return None
    share = MFU if options.mfu is None else options.mfu
    name, peak = peak_for(options.device, shape, str(cli.config.trainer.precision))
    devices = shape.processes if shape.gpus or options.device else shape.nodes
    return Rate(
        share * peak.flops * devices / flops,
        f"computed: {flops:.3g} FLOPs per prediction, {share:.0%} of the peak of {devices} x {name}, "
        f"{peak.flops / 1e12:.3g} TFLOP/s, {peak.source}; --measure 20 measures it here",
    )


def flops_per_prediction(cli: "CommandLine", data: "PlannedDataModule") -> float | None:
    """Return the FLOPs of a training step per prediction, by the first micro-batch; None if they depend on values."""
    from pipeline.data.batch_plan import MicroBatches
    from pipeline.evaluation.flops import flops_of_shapes

    samples = data.samples("train")
    part = next(iter(MicroBatches(data.plan(samples), data.divide(1, 0), samples.predictions)))
    counted = flops_of_shapes(lambda: make_task(cli), samples.__getitems__(part))
    return counted / samples.predictions(part.ids) if counted else None


def make_task(cli: "CommandLine") -> "Task":
    """Return the task before `configure_model`, attached to a trainer with one process."""
    from lightning.pytorch import Trainer

    task: Task = cli.build()[0]
    task.trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return task


def peak_for(device: str | None, shape: Layout, precision: str) -> "tuple[str, Peak]":
    """Return the name of the device of a plan and its peak."""
    import torch

    from pipeline.evaluation.peak import find_peak, peak_of

    if device is None and (torch.cuda.is_available() or not shape.gpus):
        here = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return "this machine's GPU" if here.type == "cuda" else "this machine's CPU", find_peak(here, precision)
    found = peak_of(device or GPU, precision)
    assert found is not None
    return device or f"{GPU} (assumed)", found
