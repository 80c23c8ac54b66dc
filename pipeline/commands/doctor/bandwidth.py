"""Measure all-reduce bandwidth: NCCL between GPUs, Gloo between CPUs.

Under srun or torchrun all processes take part; otherwise one process per GPU, at least two, is forked.
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
SIZE, ROUNDS = 16, 5  # MiB of float32 per all-reduce, and number of all-reduces


def measure_bandwidth(gpus: int) -> float:
    """Return the bus bandwidth in GB/s as nccl-tests defines it: 2 (W - 1) / W times bytes per second.

    Args:
        gpus: number of GPUs of this node.

    Raises:
        RuntimeError: the processes cannot connect, or do not respond.
    """
    if launch.started_elsewhere():
        return _sum_up(gpus)
    with tempfile.TemporaryDirectory() as folder:
        rate_file, processes = Path(folder) / "rate", max(2, gpus)
        code = launch.supervise(processes, partial(_write_rate, gpus, processes, rate_file))
        if code or not rate_file.exists():
            raise RuntimeError(f"{processes} processes on this node could not connect: exit code {code}")
        return float(rate_file.read_text())


def _write_rate(gpus: int, processes: int, rate_file: Path) -> int:
    """Measure in a forked process and return the exit code; rank 0 writes the bandwidth."""
    os.environ |= {"RANK": os.environ["LOCAL_RANK"], "WORLD_SIZE": str(processes)}
    try:
        rate = _sum_up(gpus)
    except Exception:  # the parent reports it
        return 1
    if os.environ["RANK"] == "0":
        rate_file.write_text(str(rate))
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
        float(numbers[0])  # wait for the device
        taken.append(time.perf_counter() - began)
    world = dist.get_world_size()
    right = bool((numbers == float(world) ** ROUNDS).all())
    dist.destroy_process_group()
    if not right:
        raise RuntimeError("the all-reduce returned a wrong sum")
    return 2 * (world - 1) / world * numbers.nbytes / median(taken) / 1e9
