"""A witness writes down what each step of a training did, so that two trainings can be compared step by step.

runs/NAME/witness-00000.jsonl, one file a process, a line a micro-batch; steps that were trained again after a
kill are there twice.
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
    """What one process did with one micro-batch."""

    step: int
    """Optimizer steps done before."""
    rank: int
    slot: int
    """Micro-batches of this step done before."""
    processes: int
    slots: int
    """Micro-batches of a step."""
    samples: list[int]
    batch: str
    """Digest of the batch's tensors."""
    generators: str
    """Digest of the states of torch's generators afterwards."""
    loss: float
    """This process's part of the step's loss, times the number of processes."""


class Witness(Callback):
    """Writes the rows."""

    def __init__(self) -> None:
        self.begun = (0, 0)  # step and slot

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
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
    """A hash of the bytes of some tensors."""
    found = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def read_traces(run: Path) -> list[Row]:
    """The rows of all processes of a run, by step, rank and slot; those of one micro-batch in the order of time."""
    lines = [line for file in sorted(run.glob("witness-*.jsonl")) for line in file.read_text().splitlines()]
    return sorted((Row(**json.loads(line)) for line in lines), key=lambda row: row[:3])


def first_divergence(one: list[Row], two: list[Row]) -> str | None:
    """Where two trainings on the same number of processes part, in words; None if they never do.

    Args:
        one: a training that was not stopped.
        two: another, which may have trained some steps more than once.
    """
    expected = {row[:3]: row for row in one}
    for row in two:
        if row[:3] not in expected:
            return f"step {row.step + 1}, process {row.rank}: trained, and not by the other"
        wanted = expected[row[:3]]
        for field in Row._fields[3:]:
            ours, theirs = (json.dumps(getattr(each, field)) for each in (wanted, row))  # NaN is what it is
            if ours != theirs:
                return f"step {row.step + 1}, process {row.rank}: {field} {ours} and {theirs}"
    missing = expected.keys() - {row[:3] for row in two}
    return f"step {min(missing)[0] + 1}, process {min(missing)[1]}: not trained" if missing else None


def compare_steps(one: list[Row], two: list[Row]) -> tuple[str | None, float]:
    """Whether two trainings read the same global batches, on whatever numbers of processes.

    Returns:
        Where they part, in words, or None; and the largest relative difference of the loss of a step.
    """
    straight, other = global_batches(one), global_batches(two)
    apart = 0.0
    for step, [(samples, loss), *_] in straight.items():
        if step not in other:
            return f"step {step + 1}: not trained", apart
        for theirs, loss_of_theirs in other[step]:
            if samples != theirs:
                return f"step {step + 1}: samples {samples} and {theirs}", apart
            apart = max(apart, abs(loss - loss_of_theirs) / max(abs(loss), abs(loss_of_theirs)))
    return None, apart


def global_batches(rows: list[Row]) -> dict[int, list[tuple[list[int], float]]]:
    """Of each step, the samples in the order of the global batch, and their loss: for every time that it was trained.

    It does not matter on how many processes and in how many micro-batches.
    """
    groups: dict[tuple[int, int, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.step, row.processes, row.slots), []).append(row)
    found: dict[int, list[tuple[list[int], float]]] = {}
    for (step, processes, slots), group in sorted(groups.items()):
        once = list({row[:3]: row for row in group}.values())
        if len(once) == processes * slots:  # a kill may leave the rows of some processes
            samples = [sample for row in once for sample in row.samples]
            found.setdefault(step, []).append((samples, sum(row.loss for row in once) / processes))
    return found
