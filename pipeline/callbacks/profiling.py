"""A profile of a few training steps: the operators on host and device by time, and the memory of the device.

The profiler of torch records steps after a warm-up. Results of the training do not depend on it.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile, schedule

from pipeline.errors import ConfigError

WARM = 3  # steps before the profile: the first ones allocate, compile and choose kernels
LISTED = 10  # operators in the printed table
ALLOCATIONS = 100_000  # events in the record of the memory


class Profiling(Callback):
    """Writes a trace per process, and on a GPU a snapshot of its memory; the first process prints a table.

    A job that Slurm has requeued is not profiled again.

    Args:
        steps: optimizer steps to record.
        directory: directory of the files.
    """

    def __init__(self, steps: int, directory: Path) -> None:
        self.steps, self.directory = steps, directory
        self.profiler: profile | None = None
        self.first = 0  # step of the attempt
        self.name = ""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the warm-up."""
        if os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        self.first = trainer.global_step + WARM
        self.name = f"step-{self.first:08d}-rank-{trainer.global_rank:05d}"
        on_gpu = pl_module.device.type == "cuda"
        self.profiler = profile(
            activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])],
            schedule=schedule(wait=WARM - 1, warmup=1, active=self.steps, repeat=1),
            record_shapes=True,
            acc_events=True,
        )
        self.profiler.start()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Start to record the memory at the first step of the profile."""
        begins = trainer.global_step == self.first and batch_idx % trainer.accumulate_grad_batches == 0
        if self.profiler is not None and begins and pl_module.device.type == "cuda":
            torch.cuda.memory._record_memory_history(max_entries=ALLOCATIONS)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Count a step, and write the profile after the last one."""
        if self.profiler is None or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self.profiler.step()
        if trainer.global_step == self.first + self.steps:
            self._write(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the profile of a run that is shorter."""
        self._write(trainer, pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Write what has been recorded before an error or a stop."""
        self._write(trainer, pl_module)

    def _write(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.profiler is None:
            return
        profiler, self.profiler = self.profiler, None
        profiler.stop()
        recorded = min(self.steps, trainer.global_step - self.first)
        if recorded < 1:
            if trainer.is_global_zero:
                print(f"profile: nothing recorded, as the run ended before its step {self.first + 1}", flush=True)
            return
        trace = self.directory / f"{self.name}.json.gz"
        profiler.export_chrome_trace(str(trace))
        written = [trace]
        if pl_module.device.type == "cuda":
            written.append(self.directory / f"{self.name}-memory.pickle")
            dump: Callable[[str], None] = torch.cuda.memory._dump_snapshot
            dump(str(written[-1]))
            torch.cuda.memory._record_memory_history(enabled=None)
        if trainer.is_global_zero:
            print("\n".join([*table(profiler, recorded), *(f"profile: {file}" for file in written)]), flush=True)


def check_profile(steps: int | None) -> None:
    """Raise ConfigError unless a number of steps can be profiled."""
    if steps is not None and steps < 1:
        raise ConfigError(f"--profile={steps}: expected at least 1 step, got {steps}. Give a number of steps")


def table(profiler: profile, steps: int) -> list[str]:
    """Return the lines of a table of the operators that took most of the time of the device, or else of the host.

    Args:
        profiler: a profiler that has stopped.
        steps: number of steps that it recorded.
    """
    events: list[FunctionEventAvg] = list(profiler.key_averages())
    on_gpu = any(event.self_device_time_total for event in events)
    device = "GPU" if on_gpu else "CPU"

    def time_of(event: FunctionEventAvg) -> float:
        return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total)

    events = [event for event in events if not str(event.key).startswith("ProfilerStep")]
    whole = sum(map(time_of, events)) or 1.0
    room = max(20, shutil.get_terminal_size().columns - 45)
    title = f"operators of {steps} steps"
    lines = [f"{title:{room}} {'ms per step':>12} {f'share of {device}':>13} {'calls per step':>15}"]
    for event in sorted(events, key=time_of, reverse=True)[:LISTED]:
        share, milliseconds = time_of(event) / whole, time_of(event) / 1e3 / steps
        lines.append(f"{str(event.key)[:room]:{room}} {milliseconds:12.3f} {share:13.1%} {event.count / steps:15.1f}")
    return lines
