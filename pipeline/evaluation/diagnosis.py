"""What a trained network remembers, measured on a batch: how far back its loss, its outputs and its attention reach.

The gradient by lag (Bengio, Simard and Frasconi 1994; Pascanu, Mikolov and Bengio 2013): the norm of the derivative of
the loss at position t by the network's input at t - k; it vanishes or explodes with k. Saturation of gates and the
limits of it follow Karpathy, Johnson and Fei-Fei (2015), "Visualizing and Understanding Recurrent Networks".

All architectures have one interface: a task with a `network` that maps (B, T, D) and a state, and with
`costs(batch)`, the loss of each position. A module of the network may also have `gate_values(...)` or `weights(...)`,
which take the arguments of its `forward` and return its gates by name, (B, T, H), or its attention, (B, N, T, S).

Legend: B sequences, T positions, S positions looked at, D features, H features of a gate, N heads, K lags.
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

PROBES = 16  # positions whose loss is followed back
SHARE = 0.95  # of the gradient's norm that lies within the effective memory
LOW, HIGH = 0.1, 0.9  # a gate beyond these is saturated
Maps = dict[str, Float[Tensor, "N T S"]]  # attention by layer


@dataclass(frozen=True)
class Diagnosis:
    """What was measured; lists by lag or by position."""

    sequences: int
    positions: int
    gradient: list[float]
    """Mean norm of the derivative of a loss by the input at each lag."""
    memory: int
    """Effective memory: the smallest lag within which SHARE of the sum of these norms lies."""
    field: int
    """Receptive field: how many inputs, up to its own, can change the last output."""
    loss: list[float | None]
    """Mean loss at each position, None where nothing is predicted."""
    gates: dict[str, dict[str, float]]
    """Of each gate its mean, and the shares of its values below LOW and above HIGH."""
    attention: dict[str, dict[str, list[float]]]
    """Of each layer, by head: entropy in nats, that of equal weights, and the mean distance looked back."""

    def as_json(self) -> dict[str, Any]:
        """As a file or the journal holds it: strict JSON, which has no numbers that are not finite."""
        found: dict[str, Any] = strict(asdict(self))
        return found


def strict(value: Any) -> Any:
    """The same with None in place of numbers that are not finite."""
    if isinstance(value, dict):
        return {name: strict(part) for name, part in value.items()}
    if isinstance(value, list):
        return [strict(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def require_diagnosable(task: Any) -> None:
    """Raise ConfigError of a task that cannot be diagnosed."""
    if not hasattr(task, "position_losses") or getattr(task, "network", None) is None:
        raise ConfigError(
            f"{type(task).__name__} cannot be diagnosed: it does not tell what each position that a network reads "
            "costs, as language models, forecasters and classifiers with one causal network do"
        )


def spread_batch(data: Any, split: str, count: int, device: Any) -> Any:
    """A batch of so many samples, spread over a split.

    Args:
        data: the DataModule.
        split: its name.
        count: how many, all of them where there are fewer.
        device: where the batch goes.
    """
    there = len(data.samples(split))
    count = min(count, there)
    batch = data.batch(split, (2 * np.arange(count) + 1) * there // (2 * count))
    return map_state(lambda part: part.to(device), batch)


def diagnose(task: Any, batch: Any) -> tuple[Diagnosis, Maps]:
    """Measure on a batch, and take the attention of its first sequence; task and generators are left as they were.

    Args:
        task: has a `network`, and tells the `costs` of a batch.
        batch: of the task's kind, on its device.

    Raises:
        ConfigError: the task does not tell what its positions cost.
    """
    require_diagnosable(task)
    gates: dict[str, dict[str, float]] = {}
    attention: dict[str, dict[str, list[float]]] = {}
    maps: Maps = {}

    def see_gates(name: str, found: dict[str, Tensor]) -> None:
        gates.update({f"{name} {gate}": saturation(values) for gate, values in found.items()})

    def see_attention(name: str, found: Tensor) -> None:
        attention[name], maps[name] = looks(found), found[0].float().cpu()

    with evaluating(task), torch.enable_grad():
        with ExitStack() as hooks:
            hooks.callback(_watch(task.network, "gate_values", see_gates))
            hooks.callback(_watch(task.network, "weights", see_attention))
            inputs, costs = _read(task, batch)
        gradient = by_lag(inputs, costs)
        field = receptive_field(task.network, inputs.detach())
    loss = [None if value != value else value for value in costs.detach().nanmean(0).tolist()]
    sequences, positions = inputs.shape[:2]
    found = Diagnosis(sequences, positions, gradient, memory_of(gradient), field, loss, gates, attention)
    return found, maps


@contextmanager
def evaluating(task: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, then as it was; without cuDNN: its recurrent kernels have no gradient there."""
    modes = {module: module.training for module in task.modules()}
    task.eval()
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def by_lag(inputs: Float[Tensor, "B T D"], costs: Float[Tensor, "B T"]) -> list[float]:
    """The mean norm of the derivative of a cost by the input at each lag.

    Args:
        inputs: what the network read.
        costs: a function of the inputs; NaN where nothing is predicted.
    """
    length, predicted = costs.shape[1], ~costs.isnan()
    places = [place for place in range(length) if predicted[:, place].any()]
    if not places:
        return [0.0]
    places = [place for place in places if 2 * place >= places[-1]]  # so that most lags exist for each of them
    chosen = sorted({places[round(at)] for at in torch.linspace(0, len(places) - 1, PROBES).tolist()})
    total, count = torch.zeros(chosen[-1] + 1, dtype=torch.float64), torch.zeros(chosen[-1] + 1)
    for place in chosen:
        rows = predicted[:, place]
        (gradient,) = torch.autograd.grad(costs[rows, place].sum(), inputs, retain_graph=True)
        norms = gradient[rows, : place + 1].norm(dim=-1).double().sum(0).cpu()
        total[: place + 1] += norms.flip(0)
        count[: place + 1] += int(rows.sum())
    found: list[float] = (total / count).tolist()
    return found


def memory_of(gradient: list[float], share: float = SHARE) -> int:
    """The smallest lag within which a fraction of the norms' sum lies."""
    reached = torch.tensor(gradient, dtype=torch.float64).cumsum(0)
    return int((reached < share * reached[-1]).sum())


@torch.no_grad()
def receptive_field(network: nn.Module, inputs: Float[Tensor, "B T D"]) -> int:
    """How many inputs, counted back from the last, can change a bit of the last output.

    All inputs from some lag on are changed together, so the largest lag that tells is found by halving.
    """
    output, length = network(inputs)[0][:, -1], inputs.shape[1]

    def tells(lag: int) -> bool:
        kept = length - lag
        changed = torch.cat([1 - 2 * inputs[:, :kept], inputs[:, kept:]], 1)
        return not torch.equal(network(changed)[0][:, -1], output)

    low, high = 0, length  # the inputs at lags below `low` tell, those at lags from `high` on do not
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if tells(middle) else (low, middle)
    return low


def saturation(gate: Float[Tensor, "B T H"]) -> dict[str, float]:
    """Mean of a gate's values, and the shares of them that are nearly closed and nearly open."""
    return {
        "mean": float(gate.mean()),
        "low": float((gate < LOW).double().mean()),
        "high": float((gate > HIGH).double().mean()),
    }


def looks(weights: Float[Tensor, "B N T S"]) -> dict[str, list[float]]:
    """Entropy of each head, that of equal weights in the same places, and the mean distance that it looks back."""
    length, there = weights.shape[3], weights > 0
    entropy = torch.special.entr(weights.double()).sum(-1)
    uniform = there.sum(-1).double().log()
    query = torch.arange(length - weights.shape[2], length, device=weights.device)[:, None]
    back = (query - torch.arange(length, device=weights.device)).double()
    distance = (weights.double() * back).sum(-1)
    parts = {"entropy": entropy, "uniform": uniform, "distance": distance}
    return {name: part.mean((0, 2)).tolist() for name, part in parts.items()}


def _read(task: Any, batch: Any) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T"]]:
    """What the network reads of a batch, and the costs as a function of it."""
    seen: list[Tensor] = []

    def cut(network: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        seen.append(given[0].detach().requires_grad_())
        return (seen[-1], *given[1:])

    hook = task.network.register_forward_pre_hook(cut)
    try:
        costs = task.position_losses(batch)
    finally:
        hook.remove()
    [inputs] = seen
    return inputs, costs


def _watch(network: nn.Module, offer: str, see: Callable[[str, Any], None]) -> Callable[[], None]:
    """Have `see` called with what each module that has the method `offer` gives; returns what ends it."""

    def watched(name: str) -> Callable[..., None]:
        def look(module: nn.Module, given: tuple[Any, ...], _: Any) -> None:
            with torch.no_grad():
                see(name, getattr(module, offer)(*given))

        return look

    # a method: a layer or a parameter may have the same name
    offering = [(name, module) for name, module in network.named_modules() if hasattr(type(module), offer)]
    hooks = [module.register_forward_hook(watched(name)) for name, module in offering]

    def end() -> None:
        for hook in hooks:
            hook.remove()

    return end
