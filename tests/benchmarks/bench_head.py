"""Peak memory and time of output layer and loss, forward and backward: all logits at once, in blocks, and by torch.

    OMP_NUM_THREADS=1 taskset -c 0 python tests/benchmarks/bench_head.py [--rounds 2] [--device cpu]
        [--positions 4096] [--width 512] [--vocabulary 32000] [--output docs/benchmarks/cpu.json]

The way with all logits at once is that of compiled losses and of small vocabularies. `torch` is
`torch.nn.functional.linear_cross_entropy` in blocks, which has no label smoothing and exists from torch 2.13.

Memory is the maximum above that of weights and inputs: of one step in a process of its own, on a CPU the maximum
resident size. Time is that of the processor on a CPU; the ways take turns.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from results import Table, add_output
from torch import Tensor, nn

from pipeline.optim import AdamW
from pipeline.tasks import token_output
from pipeline.tasks.token_prediction import TokenHead, TokenPrediction

IGNORED = 7  # every seventh position has no target
WAYS = ("at once", "in blocks", "torch")


@dataclass(frozen=True)
class Head:
    """What is measured.

    Args:
        positions: N.
        width: D.
        vocabulary: V.
        half: compute in bfloat16 by autocast.
        smoothing: label smoothing.
        device: cuda or cpu.
    """

    positions: int = 4096
    width: int = 512
    vocabulary: int = 32_000
    half: bool = False
    smoothing: float = 0.0
    device: str = "cpu"

    def step(self, way: str) -> Callable[[], float]:
        """A function that computes loss and gradients and returns the loss per position."""
        torch.manual_seed(0)
        head = TokenHead(label_smoothing=self.smoothing)
        model = TokenPrediction(self.width, self.vocabulary, head, AdamW, None).to(self.device)
        outputs = torch.randn(1, self.positions, self.width, device=self.device, requires_grad=True)
        targets = torch.randint(self.vocabulary, (1, self.positions), device=self.device)
        targets[:, ::IGNORED] = -100

        def step() -> float:
            with torch.autocast(self.device, torch.bfloat16, enabled=self.half), logits_at_once(way == "at once"):
                loss = (chunked if way == "torch" else TokenPrediction.training_loss)(model, outputs, targets)
            (loss / self.positions).backward()  # type: ignore[no-untyped-call]
            outputs.grad = None
            model.zero_grad()
            return float(loss.detach()) / self.positions

        return step

    def ways(self) -> list[str]:
        """The ways that compute this loss."""
        has_torch = hasattr(nn.functional, "linear_cross_entropy") and not self.smoothing and not self.half
        return [way for way in WAYS if way != "torch" or has_torch]


@contextmanager
def logits_at_once(enabled: bool) -> Iterator[None]:
    """Compute all logits at once, however many they are."""
    before = token_output.BLOCK, token_output.LIMIT
    if enabled:
        token_output.BLOCK = token_output.LIMIT = 1 << 62
    try:
        yield
    finally:
        token_output.BLOCK, token_output.LIMIT = before


def chunked(model: TokenPrediction, outputs: Tensor, targets: Tensor) -> Tensor:
    """torch's own loss in blocks."""
    weight, bias = model.output.weight, model.output.bias
    options = nn.LinearCrossEntropyOptions()
    given = {"linear_bias": bias, "reduction": "sum", "ignore_index": -100, "options": options}
    loss: Tensor = nn.functional.linear_cross_entropy(outputs[0], weight, targets[0], **given)  # type: ignore[arg-type]
    return loss


def peak(head: Head, way: str) -> float:
    """MiB of a step above weights and inputs: the first one on a CPU, in a process of its own, else a later one."""
    step = head.step(way)
    if head.device == "cpu":
        before = resident()
        step()
        return resident() - before
    step()  # cuBLAS allocates its workspace
    torch.cuda.reset_peak_memory_stats()
    allocated = torch.cuda.memory_allocated()
    step()
    return (torch.cuda.max_memory_allocated() - allocated) / 2**20


def resident() -> float:
    """MiB of this process at most so far; getrusage has those of the process that started it too."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 2**10


def peak_apart(head: Head, way: str) -> float:
    """`peak` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak, (head, way))


def seconds(head: Head, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step by each way, which take turns; the first round, not counted, warms up."""
    steps = {way: head.step(way) for way in head.ways()}
    found: dict[str, list[float]] = {way: [] for way in steps}
    for turn in range(rounds + 1):
        for way, step in steps.items():
            began = clock(head)
            step()
            if turn:
                found[way].append(clock(head) - began)
    return found


def clock(head: Head) -> float:
    """Processor time on a CPU, otherwise the time once the device is done."""
    if head.device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def compare(head: Head, rounds: int, apart: bool = True) -> list[dict[str, Any]]:
    """A row for each way: peak MiB, seconds, and both as shares of those of all logits at once."""
    memory = {way: (peak_apart if apart else peak)(head, way) for way in head.ways()}
    times = seconds(head, rounds)
    first = times["at once"]
    return [
        {
            "": way,
            "peak_mib": memory[way],
            "seconds": median(times[way]),
            "share_of_memory": memory[way] / memory["at once"] if memory["at once"] else 1.0,
            "share_of_time": median(mine / other for mine, other in zip(times[way], first, strict=True)),
        }
        for way in memory
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name in ("positions", "width", "vocabulary"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Head, name))
    parser.add_argument("--device", default="cpu", choices=("cuda", "cpu"))
    parser.add_argument("--rounds", type=int, default=2)
    add_output(parser)
    options = parser.parse_args()
    about = (
        f"Output layer and loss, forward and backward: {options.positions:,} positions, width {options.width:,}, "
        f"vocabulary {options.vocabulary:,}. Memory is above that of weights and inputs."
    )
    table = Table("head", "Output layer and loss", about, options.output)
    kinds = [(False, 0.0), (False, 0.1)]
    if options.device == "cuda":  # many CPUs emulate bfloat16
        kinds.append((True, 0.0))
    for half, smoothing in kinds:
        head = Head(options.positions, options.width, options.vocabulary, half, smoothing, options.device)
        for row in compare(head, options.rounds):
            table.add(**row, precision="bf16-mixed" if half else "32-true", label_smoothing=smoothing)


if __name__ == "__main__":
    main()
