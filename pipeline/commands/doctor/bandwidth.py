"""How fast processes add up numbers among each other: NCCL between GPUs, gloo between processors.

In a step that srun or torchrun started, all its processes take part; elsewhere two processes, or one for each GPU, are
forked for it.
"""

import os
import tempfile
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median

from pipeline.distributed import launch

PATIENCE = timedelta(seconds=90)
SIZE, ROUNDS = 16, 5  # MiB of float32 that are summed, and how often


def measure_bandwidth(gpus: int) -> float:
    """GB a second of the bus, as nccl-tests counts it: 2 (W - 1) / W times the bytes over the time.

    Args:
        gpus: of this node.

    Raises:
        RuntimeError: the processes do not meet, or do not answer.
    """
    if launch.started_elsewhere():
        return _sum_up(gpus)
    with tempfile.TemporaryDirectory() as folder:
        told, processes = Path(folder) / "rate", max(2, gpus)
        code = launch.supervise(processes, partial(_write_rate, gpus, processes, told))
        if code or not told.exists():
            raise RuntimeError(f"{processes} processes on this node did not meet: exit code {code}")
        return float(told.read_text())


def _write_rate(gpus: int, processes: int, told: Path) -> int:
    """Measure in a forked process; the first one writes the rate. Returns the exit code."""
    os.environ |= {"RANK": os.environ["LOCAL_RANK"], "WORLD_SIZE": str(processes)}
    try:
        rate = _sum_up(gpus)
    except Exception:  # the parent reports it
        return 1
    if os.environ["RANK"] == "0":
        told.write_text(str(rate))
    return 0


def _sum_up(gpus: int) -> float:
    import torch
    import torch.distributed as dist

    own = int(os.environ.get("LOCAL_RANK", "0"))
    where = torch.device("cuda", own) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(where)
    dist.init_process_group("nccl" if gpus else "gloo", init_method="env://", timeout=PATIENCE)
    numbers = torch.ones(SIZE * 2**18, device=where)
    taken = []
    for _ in range(ROUNDS):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(numbers)
        float(numbers[0])  # waits for the device
        taken.append(time.perf_counter() - began)
    world = dist.get_world_size()
    right = bool((numbers == float(world) ** ROUNDS).all())
    dist.destroy_process_group()
    if not right:
        raise RuntimeError("the sum over the processes is wrong")
    return 2 * (world - 1) / world * numbers.nbytes / median(taken) / 1e9
