"""Estimate the memory per device for training, by strategy, without training.

Weights, gradients and optimizer state are sharded as in Rajbhandari et al. (2020), "ZeRO: Memory Optimizations Toward
Training Trillion Parameter Models" (figure 1), and Zhao et al. (2023), "PyTorch FSDP". Activations are counted: the
task's training step runs on fake tensors, which have shapes but no memory; the tensors saved by autograd are summed.

Legend: N trained parameters, F frozen ones, W devices, c bytes per number in computation, k bytes of optimizer state
per trained parameter.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch.utils._pytree import tree_map

from pipeline.callbacks.layer_execution import Execution
from pipeline.commands.plan.logits import ON_CPU, BlockRows, compute_as, counting_blocks
from pipeline.distributed.strategies.sharded import DTYPES, layers
from pipeline.optim import OptimizerCallable

if TYPE_CHECKING:
    from pipeline.tasks.task import Task

Found = TypeVar("Found")
Build = Callable[[], "Task"]
Batches = Callable[[int | None], tuple[Any, Any]]  # from the number of rows; None for a process's own number

MASTER = 4  # bytes of a weight in float32
BUCKET = 200_000_000  # numbers in each of DeepSpeed's buffers for gradients and weights, Lightning's default
PREFETCH = 50_000_000  # weights that ZeRO 3 gathers in advance


@dataclass(frozen=True)
class Footprint:
    """Bytes on one device.

    Args:
        weights: the device's part of the weights.
        gradients: the device's part of the gradients.
        optimizer: optimizer state, and the float32 copy of the weights if the strategy has one.
        buffers: gathered weights and communication buffers.
        activations: tensors saved for the backward pass, and the largest gradients of activations.
    """

    weights: int | float
    gradients: int | float
    optimizer: int | float
    buffers: int | float
    activations: int | float

    @property
    def total(self) -> float:
        """Return the sum of all parts."""
        return float(sum(getattr(self, field.name) for field in fields(self)))


@dataclass(frozen=True)
class Model:
    """The sizes of a model.

    Args:
        parameters: N, number of trainable parameters.
        frozen: F, number of parameters that are not trained.
        layer: parameters of the largest layer.
        outside: parameters outside of all layers, such as an embedding.
        state: k, for example 8 for AdamW's two moments in float32.
        computed: c, 2 for bfloat16 and float16.
        kept: bytes of activations per micro-batch.
        copies: bytes saved by autograd for any size of micro-batch, such as weights in bfloat16.
    """

    parameters: int
    frozen: int
    layer: int
    outside: int
    state: float
    computed: int
    kept: int | float
    copies: int | float


def data_parallel(model: Model, devices: int) -> Footprint:
    """Return the footprint of DDP: everything on every device, and if W > 1 the gradients again, in buckets."""
    whole = MASTER * model.parameters
    buckets = whole if devices > 1 else 0
    return Footprint(
        whole + MASTER * model.frozen, whole, model.state * model.parameters, buckets, model.kept + model.copies
    )


def zero(stage: int) -> Callable[[Model, int], Footprint]:
    """Return the footprint of DeepSpeed's ZeRO: sharded optimizer state (stage 1), gradients (2) and weights (3).

    Its optimizer has a float32 copy of the weights, even for training in float32.
    """

    def footprint(model: Model, devices: int) -> Footprint:
        low = model.computed * model.parameters
        weights = low + model.computed * model.frozen
        bucket = model.computed * min(BUCKET, model.parameters)
        gathered = model.computed * min(model.parameters + model.frozen, model.outside + model.layer + PREFETCH)
        return Footprint(
            weights=weights / devices if stage == 3 else weights,
            gradients=low / devices if stage >= 2 else low,
            optimizer=(MASTER + model.state) * model.parameters / devices,
            buffers=bucket + (gathered if stage == 3 else 0),
            activations=model.kept,
        )

    return footprint


def offloaded(model: Model, devices: int) -> Footprint:
    """Return the footprint of ZeRO 3 with shards in host memory: only buffers and activations are on the device."""
    whole = zero(3)(model, devices)
    return replace(whole, weights=0, gradients=0, optimizer=0)


def fully_sharded(model: Model, devices: int) -> Footprint:
    """Return the footprint of FSDP: float32 shards, the gathered outside and two layers, one layer's whole gradient."""
    share = MASTER * model.parameters / devices
    weights = share + MASTER * model.frozen / devices
    gathered = model.computed * (model.outside + 2 * model.layer) + MASTER * max(model.layer, model.outside)
    return Footprint(weights, share, model.state * model.parameters / devices, gathered, model.kept)


STRATEGIES: dict[str, Callable[[Model, int], Footprint]] = {
    "ddp": data_parallel,
    "deepspeed_zero1": zero(1),
    "deepspeed_zero2": zero(2),
    "deepspeed_zero3": zero(3),
    "zero3_offload": offloaded,
    "fsdp": fully_sharded,
}  # by the name of its overlay in configs/run


def measure_memory(
    build: Build,
    batches: Batches,
    precision: str,
    activation_checkpointing: bool = False,
    logits: BlockRows = ON_CPU,
) -> Model:
    """Count a model's parameters and the activations that autograd saves for a micro-batch.

    The step runs on fake tensors. If the task depends on values of the batch, one row is computed
    with real tensors.

    Args:
        build: returns the task before `configure_model`.
        batches: returns a micro-batch and one of twice the rows, to separate bytes that do not depend on the rows.
        precision: precision of the trainer.
        activation_checkpointing: recompute the activations inside of layers in the backward pass.
        logits: positions whose logits the device computes at once.
    """

    def built(times: int = 1) -> "Task":
        task = build()
        task.configure_model()
        compute_as(logits, task, times)
        return task

    def without_memory() -> Model:
        mode = fake_tensor.FakeTensorMode(allow_non_fake_inputs=True)
        return _measured(built, batches(None), mode, precision, activation_checkpointing)

    if (found := _in_a_process(without_memory)) is not None:
        return found
    rows = len(batches(None)[0].ids)
    one = _measured(partial(built, rows), batches(1), nullcontext(), precision, activation_checkpointing)
    return replace(one, kept=one.kept * rows)


def _in_a_process(count: Callable[[], Found]) -> Found | None:
    """Return the result of `count`; None if it requires values of fake tensors.

    It runs in a process of its own: torch 2.13 crashes when the objects left by such an exception are collected.
    """
    unknown = (fake_tensor.DataDependentOutputException, fake_tensor.DynamicOutputShapeException)
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)

    def send() -> None:
        torch.set_num_threads(1)  # OpenMP threads are not forked: waiting for them would deadlock
        try:
            sender.send(count())
        except unknown:
            sender.send(None)
        except Exception as error:
            sender.send(error)

    process = fork.Process(target=send)
    process.start()
    sender.close()
    try:
        found = receiver.recv()
    except EOFError:
        raise RuntimeError("the process that counts the activations exited without a result") from None
    process.join()
    if isinstance(found, Exception):
        raise found
    return cast("Found | None", found)


def _measured(
    build: Build,
    batches: tuple[Any, Any],
    mode: AbstractContextManager[object],
    precision: str,
    activation_checkpointing: bool,
) -> Model:
    dtype = DTYPES.get(precision)
    with mode, torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        task = build()
        kept: list[float] = [_kept(task, _moved(batch, mode)) for batch in batches]
        repeated = layers(task)
        if activation_checkpointing and repeated:  # kept: the inputs of all layers, and all activations of one layer
            Execution(activation_checkpointing=True).on_train_start(task.trainer, task)
            outside = [_kept(task, _moved(batch, mode)) for batch in batches]
            kept = [out + (all - out) / len(repeated) for all, out in zip(kept, outside, strict=True)]
    sizes = {id(each): each.numel() for each in task.parameters()}
    trained = sum(each.numel() for each in task.parameters() if each.requires_grad)
    inside = [{id(each): each.numel() for each in layer.parameters()} for layer in repeated]
    within = {key for layer in inside for key in layer}
    return Model(
        parameters=trained,
        frozen=sum(sizes.values()) - trained,
        layer=max((sum(layer.values()) for layer in inside), default=0),
        outside=sum(size for key, size in sizes.items() if key not in within),
        state=state_bytes(task.optimizer_of),
        computed=MASTER if dtype is None else dtype.itemsize,
        kept=kept[1] - kept[0],
        copies=max(0, 2 * kept[0] - kept[1]),
    )


def state_bytes(optimizer_of: OptimizerCallable) -> float:
    """Return the bytes of optimizer state per parameter, measured by a step on a small matrix."""
    matrix = nn.Parameter(torch.zeros(64, 64))
    optimizer = optimizer_of([{"params": [matrix]}])
    matrix.grad = torch.zeros_like(matrix)
    optimizer.step()
    kept = [value for value in optimizer.state[matrix].values() if isinstance(value, Tensor) and value.numel() > 1]
    return sum(value.nbytes for value in kept) / matrix.numel()


def _kept(task: "Task", batch: object) -> int:
    """Return the bytes that autograd saves in a training step, weights excluded, plus the largest temporary tensors.

    They are two of the size of the largest saved one, such as the log probabilities of all tokens: their gradient and
    that of the logits are allocated before any activation is freed. Or they are those of a block of logits.
    """
    with counting_blocks(task) as (blocks, gradients), _counting(task) as kept:
        task.training_step(batch, 0)
    task.carried = {}
    largest = max((size for size in kept.values() if size not in gradients), default=0)
    return sum(kept.values()) + max(2 * largest, *blocks, 0)


@contextmanager
def _counting(task: nn.Module) -> Iterator[dict[int, int]]:
    """Yield a dictionary that receives at exit the bytes of each storage saved by autograd, weights excluded."""
    weights = {each.untyped_storage()._cdata for each in [*task.parameters(), *task.buffers()]}
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        alone = tensor.detach()  # a node that saves its own output would be a reference cycle
        storage = alone.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes(), alone  # kept alive, so that its address is not reused
        return alone

    sizes: dict[int, int] = {}
    # PyTorch's recurrent kernel saves the same tensors as on a GPU; oneDNN's saves more.
    with torch.backends.mkldnn.flags(enabled=False), torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
        yield sizes
    sizes.update({number: size for number, (size, _) in kept.items()})


def _moved(batch: Any, mode: AbstractContextManager[object]) -> Any:
    """Return the batch as fake tensors if `mode` is the fake tensor mode."""
    if not isinstance(mode, fake_tensor.FakeTensorMode):
        return batch
    return tree_map(lambda leaf: mode.from_tensor(leaf) if isinstance(leaf, Tensor) else leaf, batch)
