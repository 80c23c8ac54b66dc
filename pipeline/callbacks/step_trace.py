"""A trace of every training step, so that two trainings can be compared step by step.

The trace is runs/NAME/witness-00000.jsonl: one file per process, one line per micro-batch. Steps that were repeated
after a kill appear twice.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils import _pytree as pytree


class Row(NamedTuple):
    """The trace of one micro-batch on one process."""

    step: int
    """Completed optimizer steps before this micro-batch."""
    rank: int
    slot: int
    """Completed micro-batches of this step."""
    processes: int
    slots: int
    """Micro-batches per step."""
    samples: list[int]
    batch: str
    """Digest of the batch's tensors."""
    generators: str
    """Digest of torch's generator states after the micro-batch."""
    loss: float
    """This process's share of the step's loss, times the number of processes."""


class Witness(Callback):
    """Writes the trace."""

    def __init__(self) -> None:
        self.begun = (0, 0)  # step and slot

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        self.begun = trainer.global_step, batch_idx % trainer.accumulate_grad_batches

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, slot = self.begun
        generators = [torch.get_rng_state()]
        if pl_module.device.type == "cuda":
            generators.append(torch.cuda.get_rng_state(pl_module.device))
        row = Row(
            step,
            trainer.global_rank,
            slot,
            trainer.world_size,
            trainer.accumulate_grad_batches,
            batch.ids.tolist(),
            digest([leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor)]),
            digest(generators),
            float(outputs["loss"]),
        )
        with (Path(trainer.default_root_dir) / f"witness-{row.rank:05d}.jsonl").open("a") as file:
            file.write(json.dumps(row._asdict()) + "\n")


def digest(tensors: list[Tensor]) -> str:
    """Return a hash of the bytes of some tensors."""
    found = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def read_traces(run: Path) -> list[Row]:
    """Return the rows of all processes of a run by step, rank and slot, and by time for the same micro-batch."""
    lines = [line for file in sorted(run.glob("witness-*.jsonl")) for line in file.read_text().splitlines()]
    return sorted((Row(**json.loads(line)) for line in lines), key=lambda row: row[:3])


def first_divergence(one: list[Row], two: list[Row]) -> str | None:
    """Describe the first difference of two trainings on the same number of processes; None if there is none.

    Args:
        one: a training that was not interrupted.
        two: another training, which may have repeated steps.
    """
    expected = {row[:3]: row for row in one}
    for row in two:
        if row[:3] not in expected:
            return f"step {row.step + 1}, process {row.rank}: trained only by the second run"
        reference = expected[row[:3]]
        for field in Row._fields[3:]:
            left, right = (json.dumps(getattr(each, field)) for each in (reference, row))  # as text, NaN equals NaN
            if left != right:
                return f"step {row.step + 1}, process {row.rank}: {field} {left} and {right}"
    missing = expected.keys() - {row[:3] for row in two}
    return f"step {min(missing)[0] + 1}, process {min(missing)[1]}: not trained" if missing else None


def compare_steps(one: list[Row], two: list[Row]) -> tuple[str | None, float]:
    """Compare the global batches of two trainings, on any numbers of processes.

    Returns:
        A description of the first difference, or None, and the largest relative difference of a step's loss.
    """
    expected, found = global_batches(one), global_batches(two)
    difference = 0.0
    for step, [(samples, loss), *_] in expected.items():
        if step not in found:
            return f"step {step + 1}: not trained", difference
        for other_samples, other_loss in found[step]:
            if samples != other_samples:
                return f"step {step + 1}: samples {samples} and {other_samples}", difference
            difference = max(difference, abs(loss - other_loss) / max(abs(loss), abs(other_loss)))
    return None, difference


def global_batches(rows: list[Row]) -> dict[int, list[tuple[list[int], float]]]:
    """Return, per step and for each time it was trained, its samples in the order of the global batch and its loss.

    The result does not depend on the numbers of processes and micro-batches.
    """
    groups: dict[tuple[int, int, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.step, row.processes, row.slots), []).append(row)
    found: dict[int, list[tuple[list[int], float]]] = {}
    for (step, processes, slots), group in sorted(groups.items()):
        once = list({row[:3]: row for row in group}.values())
        if len(once) == processes * slots:  # a kill may leave the rows of only some processes
            samples = [sample for row in once for sample in row.samples]
            found.setdefault(step, []).append((samples, sum(row.loss for row in once) / processes))
    return found
