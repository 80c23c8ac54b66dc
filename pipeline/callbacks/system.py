"""Utilization of the first process's machine: processor, memory and GPU."""

import os
import time
from contextlib import suppress

import torch


class System:
    """Measures utilization between two rows of the journal."""

    def __init__(self) -> None:
        self.used, self.at = _used(), time.perf_counter()

    def row(self) -> dict[str, float]:
        """Return the metrics for the journal.

        `system/cpu` is processor seconds per second of this process and its finished workers. `system/load` is the
        load average of the machine. `system/gpu_memory_gb` is the memory used on this process's GPU by all processes,
        in units of 1e9 bytes. `system/gpu_busy` is the recent utilization of the GPU, if the driver reports it.
        """
        used, now = _used(), time.perf_counter()
        row = {"system/cpu": (used - self.used) / max(now - self.at, 1e-9), "system/load": os.getloadavg()[0]}
        self.used, self.at = used, now
        return row | _gpu() if torch.cuda.is_available() else row


def _used() -> float:
    return sum(os.times()[:4])


def _gpu() -> dict[str, float]:
    free, total = torch.cuda.mem_get_info()
    row = {"system/gpu_memory_gb": (total - free) / 1e9}
    with suppress(Exception):  # without NVML, pynvml raises its own errors
        row["system/gpu_busy"] = torch.cuda.utilization() / 100
    return row
