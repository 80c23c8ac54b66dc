"""A gated linear recurrence, whose gates depend on the input alone, so that positions are computed in parallel.

De et al. (2024), "Griffin: Mixing Gated Linear Recurrences with Local Attention": the real-gated linear
recurrent unit (RG-LRU), with x_t the input after a short causal convolution,
    r_t = sigmoid(W_r x_t + b_r),   i_t = sigmoid(W_i x_t + b_i),   a_t = exp(-8 softplus(L) r_t)
    h_t = a_t * h_{t-1} + sqrt(1 - a_t^2) * (i_t * x_t)
gated by gelu of a second branch and followed by a SwiGLU layer, both pre-norm with residual connections.

Legend: B sequences, T positions, P positions of the past, D features, H features inside.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, once_differentiable
from torch.nn import functional as F

from pipeline.models.layers.causal_history import prepend
from pipeline.models.layers.feedforward import SwiGLU, initialise
from pipeline.models.layers.scan import earlier, scan, scan_gradient, scan_values
from pipeline.models.layers.short_convolution import short_convolution
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.state import State
from pipeline.tasks.language_model import LanguageModel, TokenHead

__all__ = ["LinearRecurrence", "LinearRecurrenceLanguageModel"]

TINY = 1e-24  # keeps the gradient of the root finite at a decay of one; rounding exceeds it at any other
SHARPNESS = 8.0  # Griffin's constant c, which scales the effect of the gate r on the decay


def through_autograd(
    gates: Float[Tensor, "B T _"], inputs: Float[Tensor, "B T H"], rate: Float[Tensor, " H"], initial: Tensor
) -> Float[Tensor, "B T H"]:
    """Return all h_t, given r and i before the sigmoid, x, and the rate 8 softplus(L); PyTorch derives the gradient."""
    remember, admit = torch.sigmoid(gates).chunk(2, -1)
    decay, scale = _decay_and_scale(remember, rate)
    return scan(decay, scale * admit * inputs, initial)


def _decay_and_scale(remember: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """Return a_t and sqrt(1 - a_t^2)."""
    change = torch.expm1(-rate * remember)  # a - 1, which avoids cancellation in 1 - a^2 = -(a - 1) (a + 1)
    scale = torch.sqrt(TINY - change * (change + 2))
    return change + 1, scale


class _GatedScan(torch.autograd.Function):
    """The gates and the scan with their gradient, in fewer passes over memory."""

    @staticmethod
    def forward(ctx: BackwardCFunction, gates: Tensor, inputs: Tensor, rate: Tensor, initial: Tensor) -> Tensor:
        opened = torch.sigmoid(gates)
        remember, admit = opened.chunk(2, -1)
        decay, scale = _decay_and_scale(remember, rate)
        states = scan_values(decay, (scale * admit).mul_(inputs), initial)
        ctx.save_for_backward(opened, decay, scale, inputs, rate, initial, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: BackwardCFunction, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        opened, decay, scale, inputs, rate, initial, states = list(ctx.saved_tensors)
        remember, admit = opened.chunk(2, -1)
        gradient = scan_gradient(decay, gradients[0])  # of each state, and so of each update
        # With a = exp(-rate r): d a = -a rate d r, and d sqrt(1 - a^2) = a^2 / sqrt(1 - a^2) rate d r.
        slope = earlier(states, initial).addcmul_(admit * inputs, decay / scale, value=-1)
        slope.mul_(decay).mul_(gradient)  # gradient of -rate r
        of_rate = -(slope * remember).sum((0, 1))
        of_gates = torch.empty_like(opened)
        of_remember, of_admit = of_gates.chunk(2, -1)
        torch.mul(slope, -rate, out=of_remember)
        of_update = gradient * scale
        torch.mul(of_update, inputs, out=of_admit)
        of_initial = gradient[:, 0] * decay[:, 0]
        return torch.ops.aten.sigmoid_backward(of_gates, opened), of_update.mul_(admit), of_rate, of_initial


gated_scan: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = _GatedScan.apply


class GatedRecurrence(nn.Module):
    """A short causal convolution followed by the RG-LRU.

    Args:
        hidden: features in and out.
        kernel: size of the convolution, in positions.
    """

    def __init__(self, hidden: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.taps = nn.Parameter(torch.empty(kernel, hidden))
        self.gates = nn.Linear(hidden, 2 * hidden)
        self.forgetting = nn.Parameter(torch.empty(hidden))
        nn.init.normal_(self.taps, std=kernel**-0.5)
        with torch.no_grad():  # At r = 1, the initial decays are uniform in [0.9, 0.999].
            rate = -torch.empty(hidden).uniform_(0.9, 0.999).log() / SHARPNESS
            self.forgetting.copy_(rate.expm1().log())  # the inverse of softplus

    def forward(
        self, inputs: Float[Tensor, "B T H"], state: tuple[Tensor, Tensor] | None
    ) -> tuple[Float[Tensor, "B T H"], tuple[Float[Tensor, "B H"], Float[Tensor, "B P H"]]]:
        """Return the states at all positions, and the last state with the last inputs for the next call."""
        carried, past = (None, None) if state is None else state
        mixed, past = self._mix(inputs, past)
        exact = torch.promote_types(mixed.dtype, torch.float32)
        if carried is None:
            carried = torch.zeros_like(mixed[:, 0], dtype=exact)
        rate = SHARPNESS * F.softplus(self.forgetting.to(exact))
        recurrence = through_autograd if torch.compiler.is_compiling() else gated_scan
        states = recurrence(self.gates(mixed).to(exact), mixed.to(exact), rate, carried.to(exact))
        return states.to(inputs.dtype), (states[:, -1].clone(), past)

    def gate_values(
        self, inputs: Float[Tensor, "B T H"], state: tuple[Tensor, Tensor] | None
    ) -> dict[str, Float[Tensor, "B T H"]]:
        """Return the values of the gates r and i at all positions, from 0 (closed) to 1."""
        mixed, _ = self._mix(inputs, None if state is None else state[1])
        remember, admit = torch.sigmoid(self.gates(mixed)).chunk(2, -1)
        return {"recurrence": remember, "input": admit}

    def _mix(self, inputs: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the output of the short convolution, and the last inputs for the next call."""
        extended, past = prepend(past, inputs, self.kernel - 1)
        return short_convolution(extended, self.taps), past


class RecurrenceBlock(nn.Module):
    """A gated recurrence and a position-wise layer, each with a residual connection.

    Args:
        width: features in and out.
        hidden: features of the recurrence.
        kernel: size of the short convolution, in positions.
        dropout: fraction of what each layer adds that is dropped in training.
    """

    def __init__(self, width: int, hidden: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.branches = nn.Linear(width, 2 * hidden)
        self.recurrence = GatedRecurrence(hidden, kernel)
        self.output = nn.Linear(hidden, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = SwiGLU(width, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.apply(initialise)

    def forward(
        self, inputs: Float[Tensor, "B T D"], state: tuple[Tensor, Tensor] | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Tensor, Tensor]]:
        """Process T more inputs."""
        gate, content = self.branches(self.norm(inputs)).chunk(2, -1)
        content, state = self.recurrence(content, state)
        inputs = inputs + self.dropout(self.output(F.gelu(gate) * content))
        return inputs + self.dropout(self.feedforward(self.feedforward_norm(inputs))), state


class LinearRecurrence(nn.Module):
    """A stack of gated linear recurrences.

    The state is a list with one pair per layer: h, shape (B, H), in float32 or higher precision, and the last inputs
    of the short convolution, shape (B, kernel - 1, H).

    Args:
        width: features in and out.
        depth: number of blocks.
        hidden: features of each recurrence (default: the width).
        kernel: size of each short convolution, in positions.
        dropout: fraction of the features dropped in training.

    Raises:
        ValueError: if the depth or the kernel is below 1.
    """

    def __init__(
        self,
        width: int = 256,
        depth: int = 4,
        hidden: int | None = None,
        kernel: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if depth < 1 or kernel < 1:
            raise ValueError(f"depth={depth} and kernel={kernel} must be at least 1")
        self.width = width
        self.layers = nn.ModuleList(RecurrenceBlock(width, hidden or width, kernel, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Float[Tensor, "B T D"], state: State = None) -> tuple[Float[Tensor, "B T D"], State]:
        """Process T more inputs; the output at each position predicts the next input."""
        states = [None] * len(self.layers) if state is None else state
        inputs, after = self.dropout(inputs), []
        for layer, before in zip(self.layers, states, strict=True):
            inputs, layer_state = layer(inputs, before)
            after.append(layer_state)
        return self.norm(inputs), after


class LinearRecurrenceLanguageModel(LanguageModel):
    """A language model whose network is a `LinearRecurrence`."""

    def __init__(
        self,
        vocab_size: int,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(LinearRecurrence(**network), vocab_size, head, optimizer, schedule)
