"""Diagnosis of a trained network's memory on a batch: gradients by lag, receptive field, gates and attention.

The gradient by lag (Bengio, Simard and Frasconi 1994; Pascanu, Mikolov and Bengio 2013) is the norm of the derivative
of the loss at position t with respect to the network's input at t - k, which can vanish or explode with k. Gate
saturation and its thresholds follow Karpathy, Johnson and Fei-Fei (2015), "Visualizing and Understanding Recurrent
Networks".

All architectures share one interface: a task with a `network` that maps (B, T, D) and a state, and with
`position_losses(batch)`. A module of the network can also have `gate_values(...)` or `weights(...)`. They take the
arguments of its `forward` and return its gates by name, (B, T, H), or its attention weights, (B, N, T, S).

Legend: B sequences, T positions, S attended positions, D features, H features of a gate, N heads, K lags.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.state import map_state

PROBES = 16  # positions whose loss is differentiated
SHARE = 0.95  # fraction of the sum of gradient norms within the effective memory
LOW, HIGH = 0.1, 0.9  # thresholds of gate saturation
Maps = dict[str, Float[Tensor, "N T S"]]  # attention by layer


@dataclass(frozen=True)
class Diagnosis:
    """The results of a diagnosis; lists are by lag or by position."""

    sequences: int
    positions: int
    gradient: list[float]
    """Mean norm of the derivative of a loss with respect to the input at each lag."""
    memory: int
    """Effective memory: the smallest lag that covers the fraction SHARE of the sum of these norms."""
    field: int
    """Receptive field: number of inputs that can change the last output."""
    loss: list[float | None]
    """Mean loss at each position, None without predictions."""
    gates: dict[str, dict[str, float]]
    """Mean of each gate, and the fractions of its values below LOW and above HIGH."""
    attention: dict[str, dict[str, list[float]]]
    """Statistics of each layer, by head: entropy in nats, entropy of uniform weights, and mean distance."""

    def as_json(self) -> dict[str, object]:
        """Return the diagnosis as strict JSON, with None for numbers that are not finite."""
        return {name: finite_or_none(part) for name, part in asdict(self).items()}


def finite_or_none(value: object) -> object:
    """Return a JSON value with None in place of numbers that are not finite."""
    if isinstance(value, dict):
        return {name: finite_or_none(part) for name, part in value.items()}
    if isinstance(value, list):
        return [finite_or_none(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def require_diagnosable(task: nn.Module) -> None:
    """Raise ConfigError if a task cannot be diagnosed."""
    if not hasattr(task, "position_losses") or getattr(task, "network", None) is None:
        raise ConfigError(
            f"{type(task).__name__} cannot be diagnosed: expected a task with one causal network and position_losses. "
            "Use a language model, a forecaster, a policy or a classifier with one causal network"
        )


def spread_batch(data: Any, split: str, count: int, device: Any) -> Any:
    """Return a batch of `count` samples, spread evenly over a split.

    Args:
        data: the DataModule.
        split: name of the split.
        count: number of samples; all of them if there are fewer.
        device: device of the batch.
    """
    total = len(data.samples(split))
    count = min(count, total)
    batch = data.batch(split, (2 * np.arange(count) + 1) * total // (2 * count))
    return map_state(lambda part: part.to(device), batch)


def diagnose(task: Any, batch: Any) -> tuple[Diagnosis, Maps]:
    """Return the diagnosis on a batch, and the attention of its first sequence; the task's modes are restored.

    Args:
        task: a task with a `network` and `position_losses`.
        batch: a batch of the task on its device.

    Raises:
        ConfigError: the task cannot be diagnosed.
    """
    require_diagnosable(task)
    gates: dict[str, dict[str, float]] = {}
    attention: dict[str, dict[str, list[float]]] = {}
    maps: Maps = {}

    def record_gates(name: str, found: dict[str, Tensor]) -> None:
        gates.update({f"{name} {gate}": saturation(values) for gate, values in found.items()})

    def record_attention(name: str, found: Tensor) -> None:
        attention[name], maps[name] = attention_statistics(found), found[0].float().cpu()

    with evaluating(task), torch.enable_grad():
        with ExitStack() as hooks:
            hooks.callback(_watch(task.network, "gate_values", record_gates))
            hooks.callback(_watch(task.network, "weights", record_attention))
            inputs, losses = _read(task, batch)
        gradient = gradient_by_lag(inputs, losses)
        field = receptive_field(task.network, inputs.detach())
    loss = [None if value != value else value for value in losses.detach().nanmean(0).tolist()]
    sequences, positions = inputs.shape[:2]
    found = Diagnosis(sequences, positions, gradient, effective_memory(gradient), field, loss, gates, attention)
    return found, maps


@contextmanager
def evaluating(task: nn.Module) -> Iterator[None]:
    """Set evaluation mode, and disable cuDNN, whose recurrent kernels have no gradient in it; then restore both."""
    modes = {module: module.training for module in task.modules()}
    task.eval()
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def gradient_by_lag(inputs: Float[Tensor, "B T D"], losses: Float[Tensor, "B T"]) -> list[float]:
    """Return the mean norm of the derivative of a loss with respect to the input at each lag.

    Args:
        inputs: the network's inputs.
        losses: losses as a function of the inputs; NaN without a prediction.
    """
    length, predicted = losses.shape[1], ~losses.isnan()
    places = [place for place in range(length) if predicted[:, place].any()]
    if not places:
        return [0.0]
    places = [place for place in places if 2 * place >= places[-1]]  # so that most lags exist for each position
    chosen = sorted({places[round(at)] for at in torch.linspace(0, len(places) - 1, PROBES).tolist()})
    total, count = torch.zeros(chosen[-1] + 1, dtype=torch.float64), torch.zeros(chosen[-1] + 1)
    for place in chosen:
        rows = predicted[:, place]
        (gradient,) = torch.autograd.grad(losses[rows, place].sum(), inputs, retain_graph=True)
        norms = gradient[rows, : place + 1].norm(dim=-1).double().sum(0).cpu()
        total[: place + 1] += norms.flip(0)
        count[: place + 1] += int(rows.sum())
    found: list[float] = (total / count).tolist()
    return found


def effective_memory(gradient: list[float], share: float = SHARE) -> int:
    """Return the smallest lag that covers a fraction of the sum of norms."""
    reached = torch.tensor(gradient, dtype=torch.float64).cumsum(0)
    return int((reached < share * reached[-1]).sum())


@torch.no_grad()
def receptive_field(network: nn.Module, inputs: Float[Tensor, "B T D"]) -> int:
    """Return the number of inputs, counted back from the last, that can change a bit of the last output.

    All inputs from a lag on are changed together, so the largest lag with an effect is found by bisection.
    """
    output, length = network(inputs)[0][:, -1], inputs.shape[1]

    def has_effect(lag: int) -> bool:
        kept = length - lag
        changed = torch.cat([1 - 2 * inputs[:, :kept], inputs[:, kept:]], 1)
        return not torch.equal(network(changed)[0][:, -1], output)

    low, high = 0, length  # inputs at lags below `low` have an effect, inputs at lags from `high` on do not
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if has_effect(middle) else (low, middle)
    return low


def saturation(gate: Float[Tensor, "B T H"]) -> dict[str, float]:
    """Return the mean of a gate's values, and the fractions that are nearly closed and nearly open."""
    return {
        "mean": float(gate.mean()),
        "low": float((gate < LOW).double().mean()),
        "high": float((gate > HIGH).double().mean()),
    }


def attention_statistics(weights: Float[Tensor, "B N T S"]) -> dict[str, list[float]]:
    """Return the entropy of each head, the entropy of uniform weights, and the mean distance of attended positions."""
    length, there = weights.shape[3], weights > 0
    entropy = torch.special.entr(weights.double()).sum(-1)
    uniform = there.sum(-1).double().log()
    query = torch.arange(length - weights.shape[2], length, device=weights.device)[:, None]
    back = (query - torch.arange(length, device=weights.device)).double()
    distance = (weights.double() * back).sum(-1)
    parts = {"entropy": entropy, "uniform": uniform, "distance": distance}
    return {name: part.mean((0, 2)).tolist() for name, part in parts.items()}


def _read(task: Any, batch: Any) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T"]]:
    """Return the network's inputs for a batch, and the losses as a function of them."""
    seen: list[Tensor] = []

    def cut(network: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        seen.append(given[0].detach().requires_grad_())
        return (seen[-1], *given[1:])

    hook = task.network.register_forward_pre_hook(cut)
    try:
        losses = task.position_losses(batch)
    finally:
        hook.remove()
    [inputs] = seen
    return inputs, losses


def _watch(network: nn.Module, method: str, record: Callable[[str, Any], None]) -> Callable[[], None]:
    """Call `record` with the result of the method of each module that has it; return a function that stops this."""

    def watched(name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def hook(module: nn.Module, given: tuple[object, ...], _: object) -> None:
            with torch.no_grad():
                record(name, getattr(module, method)(*given))

        return hook

    # Only methods count: a layer or a parameter can have the same name.
    having = [(name, module) for name, module in network.named_modules() if hasattr(type(module), method)]
    hooks = [module.register_forward_hook(watched(name)) for name, module in having]

    def end() -> None:
        for hook in hooks:
            hook.remove()

    return end
