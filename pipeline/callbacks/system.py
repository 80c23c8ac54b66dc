"""How busy the machine of the first process is: its processor, its memory and its GPU."""

import os
import time
from contextlib import suppress

import torch


class System:
    """Measures from one row of the journal to the next."""

    def __init__(self) -> None:
        self.used, self.at = _used(), time.perf_counter()

    def row(self) -> dict[str, float]:
        """For the journal.

        `system/cpu` is processor seconds a second of this process and the workers that ended, `system/load` the
        processes of the machine that run or would, `system/gpu_memory_gb` what is taken on this process's GPU by all
        together, in 1e9 bytes, and `system/gpu_busy` the share of the last moment in which it computed, where the
        driver tells.
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
    with suppress(Exception):  # there may be no NVML, which raises errors of its own
        row["system/gpu_busy"] = torch.cuda.utilization() / 100
    return row
