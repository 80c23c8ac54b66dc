"""The peak speed of a device, and the share of it that training reaches (model FLOPs utilization, MFU).

Chowdhery et al. (2022), "PaLM: Scaling Language Modeling with Pathways", appendix B: FLOPs of the model per second
over the peak of the devices. FLOPs that are repeated, as by activation checkpointing, do not count.
"""

import re
import time
from typing import NamedTuple

import torch

from pipeline.distributed.strategies.sharded import DTYPES

PEAKS: dict[str, tuple[float, float, float]] = {
    "B200": (2250, 1125, 75),
    "H200 NVL": (835.5, 417.5, 60),
    "H200": (989.4, 494.7, 66.9),
    "GH200": (989.4, 494.7, 66.9),
    "H100 PCIe": (756.5, 378, 51.2),
    "H100 NVL": (835.5, 417.5, 60),
    "H100": (989.4, 494.7, 66.9),
    "A100": (312, 156, 19.5),
    "A40": (149.7, 74.8, 37.4),
    "A10G": (70, 35, 35),
    "A10": (125, 62.5, 31.2),
    "L40S": (362, 183, 91.6),
    "L40": (181, 90.5, 90.5),
    "L4": (121, 60.5, 30.3),
    "T4": (65, 8.1, 8.1),
    "V100 PCIE": (112, 14, 14),
    "V100": (125, 15.7, 15.7),
}
"""TFLOP/s of dense matrix products in 16 bits, TF32 and float32, from NVIDIA's data sheets; a name precedes its parts.

The sheets of H100, H200, B200, L40S and L4 state the double, with sparsity. TF32 is float32 where a device lacks it.
In float32, convolutions and recurrent kernels of cuDNN use TF32 by default and may exceed this peak.
"""
SHEET = "data sheet"
SECONDS = 0.1  # of the measurement of a peak
SIZES = {"cpu": 512, "cuda": 4096}  # of the matrices that are multiplied


class Peak(NamedTuple):
    """The peak speed of a device."""

    flops: float
    """Per second."""
    source: str
    """Data sheet or measured."""


def device_name(device: torch.device) -> str:
    """Return the name of a device; that of a CPU states the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def peak_of(name: str, precision: str) -> Peak | None:
    """Return the peak of a GPU by its data sheet; None if it is not in the table, only a part, or emulates bfloat16.

    Args:
        name: the name of the GPU, as torch reports it.
        precision: precision of the trainer.
    """
    words = re.split(r"[\s-]+", name)
    found = next((peak for key, peak in PEAKS.items() if set(key.split()) <= set(words)), None)
    part = "MIG" in words or re.search(r"-\d+[ABCQ]$", name)  # of a GPU, as a virtual one is
    if found is None or part or (DTYPES.get(precision) == torch.bfloat16 and {"V100", "T4"} & set(words)):
        return None
    tf32 = torch.get_float32_matmul_precision() != "highest"
    return Peak(1e12 * found[0 if precision in DTYPES else 1 if tf32 else 2], SHEET)


def measure_peak(device: torch.device, precision: str) -> Peak:
    """Return the speed of a matrix product on a device: the fastest within SECONDS.

    Args:
        device: the device, idle except for this.
        precision: precision of the trainer.
    """
    size, dtype = SIZES.get(device.type, 512), DTYPES.get(precision, torch.float32)
    left, right = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    fastest, until = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < until or fastest == float("inf"):
        began = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        fastest = min(fastest, time.perf_counter() - began)
    return Peak(2 * size**3 / fastest, "measured")


def find_peak(device: torch.device, precision: str) -> Peak:
    """Return the peak of a device by its data sheet, or else as measured."""
    known = peak_of(device_name(device), precision) if device.type == "cuda" else None
    return known or measure_peak(device, precision)


def mfu(rate: float, flops: float, peak: float, devices: int = 1) -> float:
    """Return the share of the peak that training reaches.

    Args:
        rate: predictions per second, on all devices together.
        flops: FLOPs per prediction of a training step.
        peak: FLOPs per second of a device.
        devices: number of devices.
    """
    return rate * flops / (peak * devices)
