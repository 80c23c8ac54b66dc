"""How much memory a device needs to train, by strategy, before anything is trained.

Weights, gradients and optimizer state are divided as Rajbhandari et al. (2020), "ZeRO: Memory Optimizations Toward
Training Trillion Parameter Models" (figure 1), and Zhao et al. (2023), "PyTorch FSDP" say. Activations are counted:
the task's own training step is run on tensors that have shapes and no memory, and what autograd keeps is added up.

Legend: N parameters, W devices, c bytes of a number that is computed with, k bytes of optimizer state a parameter.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch.utils._pytree import tree_map

from pipeline.callbacks.layer_execution import Execution
from pipeline.distributed.strategies.sharded import DTYPES, layers

Found = TypeVar("Found")
Build = Callable[[], Any]
Batches = Callable[[int | None], tuple[Any, Any]]  # rows; None for those that a process has

MASTER = 4  # bytes of a weight in float32
BUCKET = 200_000_000  # numbers in each of DeepSpeed's buffers for gradients and for weights, as Lightning sets it
PREFETCH = 50_000_000  # weights that ZeRO 3 gathers ahead


@dataclass(frozen=True)
class Footprint:
    """Bytes on one device.

    Args:
        weights: what the device keeps of them.
        gradients: the same.
        optimizer: its state, and the float32 copy of the weights where the strategy keeps one.
        buffers: what is gathered or sent at one time.
        activations: what the backward pass needs of the forward pass, and the largest gradient among them.
    """

    weights: int | float
    gradients: int | float
    optimizer: int | float
    buffers: int | float
    activations: int | float

    @property
    def total(self) -> float:
        """All of it."""
        return float(sum(getattr(self, field.name) for field in fields(self)))


@dataclass(frozen=True)
class Model:
    """What the sizes depend on.

    Args:
        parameters: N, all that are trained.
        layer: those of the largest layer.
        outside: those outside of all layers, such as an embedding.
        state: k, such as 8 for AdamW's two moments in float32.
        computed: c, 2 for bfloat16 and float16.
        kept: bytes of activations of a micro-batch.
        copies: bytes that autograd keeps whatever the size of the micro-batch, such as weights in bfloat16.
    """

    parameters: int
    layer: int
    outside: int
    state: float
    computed: int
    kept: int | float
    copies: int | float


def data_parallel(model: Model, devices: int) -> Footprint:
    """Everything on every device; with several, torch's DDP keeps gradients once more, in the buckets that it sums."""
    whole = MASTER * model.parameters
    buckets = whole if devices > 1 else 0
    return Footprint(whole, whole, model.state * model.parameters, buckets, model.kept + model.copies)


def zero(stage: int) -> Callable[[Model, int], Footprint]:
    """DeepSpeed's ZeRO: the optimizer's state divided (stage 1), gradients too (2), weights too (3).

    Its optimizer works on a float32 copy of the weights, in float32 too.
    """

    def footprint(model: Model, devices: int) -> Footprint:
        low = model.computed * model.parameters
        bucket = model.computed * min(BUCKET, model.parameters)
        gathered = model.computed * min(model.parameters, model.outside + model.layer + PREFETCH)
        return Footprint(
            weights=low / devices if stage == 3 else low,
            gradients=low / devices if stage >= 2 else low,
            optimizer=(MASTER + model.state) * model.parameters / devices,
            buffers=bucket + (gathered if stage == 3 else 0),
            activations=model.kept,
        )

    return footprint


def offloaded(model: Model, devices: int) -> Footprint:
    """ZeRO 3 whose shares lie in host memory: on the device is what is gathered, sent and computed."""
    whole = zero(3)(model, devices)
    return replace(whole, weights=0, gradients=0, optimizer=0)


def fully_sharded(model: Model, devices: int) -> Footprint:
    """Shards in float32; what is outside the layers, a layer and the next one gathered, one layer's gradient whole."""
    share = MASTER * model.parameters / devices
    gathered = model.computed * (model.outside + 2 * model.layer) + MASTER * max(model.layer, model.outside)
    return Footprint(share, share, model.state * model.parameters / devices, gathered, model.kept)


STRATEGIES: dict[str, Callable[[Model, int], Footprint]] = {
    "ddp": data_parallel,
    "deepspeed_zero1": zero(1),
    "deepspeed_zero2": zero(2),
    "deepspeed_zero3": zero(3),
    "zero3_offload": offloaded,
    "fsdp": fully_sharded,
}  # by the overlay of configs/run that takes it


def measure_memory(build: Build, batches: Batches, precision: str, activation_checkpointing: bool = False) -> Model:
    """Count a model's parameters and what a micro-batch makes autograd keep.

    Nothing is computed, on tensors without memory; but where a task decides by values, such as where documents start,
    one row is computed for real.

    Args:
        build: makes the task as the trainer gets it: its shapes, and `configure_model` for the rest.
        batches: a micro-batch and one of twice the rows, to separate what does not depend on the number of rows.
        precision: the trainer's.
        activation_checkpointing: the backward pass computes again what is inside a layer.
    """

    def without_memory() -> Model:
        mode = fake_tensor.FakeTensorMode(allow_non_fake_inputs=True)
        return _measured(build(), batches(None), mode, precision, activation_checkpointing)

    if (found := _in_a_process(without_memory)) is not None:
        return found
    rows = len(batches(None)[0].ids)
    one = _measured(build(), batches(1), nullcontext(), precision, activation_checkpointing)
    return replace(one, kept=one.kept * rows)


def _in_a_process(count: Callable[[], Found]) -> Found | None:
    """What `count` returns; None where it needs values of tensors without memory.

    In a process of its own, because what torch 2.13 leaves after such an exception ends the process that collects it.
    """
    unknown = (fake_tensor.DataDependentOutputException, fake_tensor.DynamicOutputShapeException)
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)

    def send() -> None:
        torch.set_num_threads(1)  # the threads of OpenMP were not forked: what waits for them waits for ever
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
        raise RuntimeError("the process that counts what autograd keeps ended without a result") from None
    process.join()
    if isinstance(found, Exception):
        raise found
    return cast("Found | None", found)


def _measured(task: Any, batches: tuple[Any, Any], mode: Any, precision: str, activation_checkpointing: bool) -> Model:
    dtype = DTYPES.get(precision)
    with mode, torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        task.configure_model()
        kept: list[float] = [_kept(task, _moved(batch, mode)) for batch in batches]
        repeated = layers(task)
        if activation_checkpointing and repeated:  # what is between the layers, and all that is inside of one of them
            Execution(activation_checkpointing=True).on_train_start(task.trainer, task)
            outside = [_kept(task, _moved(batch, mode)) for batch in batches]
            kept = [out + (all - out) / len(repeated) for all, out in zip(kept, outside, strict=True)]
    trained = {id(each): each.numel() for each in task.parameters() if each.requires_grad}
    inside = [{id(each): each.numel() for each in layer.parameters()} for layer in repeated]
    within = {key for layer in inside for key in layer}
    return Model(
        parameters=sum(trained.values()),
        layer=max((sum(layer.values()) for layer in inside), default=0),
        outside=sum(size for key, size in trained.items() if key not in within),
        state=state_bytes(task.optimizer_of),
        computed=MASTER if dtype is None else dtype.itemsize,
        kept=kept[1] - kept[0],
        copies=max(0, 2 * kept[0] - kept[1]),
    )


def state_bytes(optimizer_of: Callable[[Any], Any]) -> float:
    """Bytes that an optimizer keeps of each number of a matrix: it is asked to step on a small one."""
    matrix = nn.Parameter(torch.zeros(64, 64))
    optimizer = optimizer_of([{"params": [matrix]}])
    matrix.grad = torch.zeros_like(matrix)
    optimizer.step()
    kept = [value for value in optimizer.state[matrix].values() if isinstance(value, Tensor) and value.numel() > 1]
    return sum(value.nbytes for value in kept) / matrix.numel()


def _kept(task: Any, batch: Any) -> int:
    """Bytes of what autograd keeps of a training step, weights left out, and twice the largest of them.

    The largest are log-probabilities of all tokens: their gradient and that of the logits come before anything is
    let go.
    """
    with _counting(task) as kept:
        task.training_step(batch, 0)
    task.carried = {}
    return sum(kept.values()) + 2 * max(kept.values(), default=0)


@contextmanager
def _counting(task: nn.Module) -> Iterator[dict[int, int]]:
    """Bytes of each storage that autograd keeps meanwhile, those of weights left out."""
    weights = {each.untyped_storage()._cdata for each in [*task.parameters(), *task.buffers()]}
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        alone = tensor.detach()  # a node that keeps its own output would be a cycle, left to the garbage collector
        storage = alone.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes(), alone  # held, so that no other gets its number
        return alone

    sizes: dict[int, int] = {}
    # torch's own recurrent kernel keeps what a GPU's does, oneDNN's keeps more
    with torch.backends.mkldnn.flags(enabled=False), torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
        yield sizes
    sizes.update({number: size for number, (size, _) in kept.items()})


def _moved(batch: Any, mode: Any) -> Any:
    """The batch as tensors without memory, where they are to have none."""
    if not isinstance(mode, fake_tensor.FakeTensorMode):
        return batch
    return tree_map(lambda leaf: mode.from_tensor(leaf) if isinstance(leaf, Tensor) else leaf, batch)
