"""The stack of layers of RNN, LSTM and GRU, with dropout on non-recurrent connections.

Each layer is one call of torch's fused kernel over all positions. Dropout between layers: Zaremba, Sutskever and
Vinyals (2014), "Recurrent Neural Network Regularization". Masks shared by all positions: Gal and Ghahramani (2016),
"A Theoretically Grounded Application of Dropout in Recurrent Neural Networks". Dropped recurrent weights: Merity,
Keskar and Socher (2018), "Regularizing and Optimizing LSTM Language Models".

Legend: B sequences, T positions, D features, H features of a layer.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.state import State

Fill = Callable[[Tensor], object]  # changes a tensor in place
# The parts that torch's kernels compute, in their order; None for the candidate, which is not a gate.
GATES: dict[str, tuple[str | None, ...]] = {
    "LSTM": ("input", "forget", None, "output"),
    "GRU": ("reset", "update", None),
}


def autocast_has_lstm(device: str) -> bool:
    """Return whether an LSTM can be computed in autocast's type: on processors without AVX-512, oneDNN has none."""
    if device != "cpu" or not torch.is_autocast_enabled(device):
        return True
    name = {torch.bfloat16: "bf16", torch.float16: "fp16"}[torch.get_autocast_dtype(device)]
    supported = getattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported", None)
    return supported is None or bool(supported())


class VariationalDropout(nn.Module):
    """Dropout with one mask per sequence, shared by all positions.

    Args:
        rate: fraction of the features dropped in training.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, inputs: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Set the dropped features to zero and rescale the others."""
        if not self.training or self.rate == 0.0:
            return inputs
        ones = inputs.new_ones(inputs.shape[0], 1, inputs.shape[2])
        return inputs * F.dropout(ones, self.rate)


class RecurrentLayer(nn.Module):
    """A fused recurrent kernel with optional dropout on its recurrent weights.

    Args:
        kernel: a one-layer `nn.RNN`, `nn.LSTM` or `nn.GRU` with `batch_first`.
        weight_drop: fraction of the recurrent weights set to zero in training, redrawn at each call.
        bias: initializes the input bias; the recurrent bias is initialized to zero.
    """

    def __init__(self, kernel: nn.RNNBase, weight_drop: float, bias: Fill = nn.init.zeros_) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight_drop = weight_drop
        self.states = 2 if isinstance(kernel, nn.LSTM) else 1
        weight, recurrent_weight, input_bias, recurrent_bias = kernel.parameters()
        for gate in weight.chunk(len(weight) // kernel.hidden_size):
            nn.init.xavier_uniform_(gate)
        for gate in recurrent_weight.chunk(len(weight) // kernel.hidden_size):
            nn.init.orthogonal_(gate)
        bias(input_bias)
        nn.init.zeros_(recurrent_bias)

    def forward(
        self, inputs: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B H"], ...] | None
    ) -> tuple[Float[Tensor, "B T H"], tuple[Float[Tensor, "B H"], ...]]:
        """Process T more inputs."""
        if self.states > 1 and not autocast_has_lstm(inputs.device.type):
            weight = next(self.kernel.parameters())
            if weight.dtype == torch.float32:  # under FSDP it has autocast's type, in which torch has another LSTM
                with torch.autocast("cpu", enabled=False):
                    return self._forward(inputs.float(), state)
        return self._forward(inputs, state)

    def _forward(self, inputs: Tensor, state: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        if state is None:
            state = (inputs.new_zeros(inputs.shape[0], self.kernel.hidden_size),) * self.states
        before = tuple(part[None].to(inputs.dtype) for part in state)
        outputs, *after = self._run(inputs, before)
        return outputs, tuple(part[0] for part in after)

    def gate_values(
        self, inputs: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B H"], ...] | None
    ) -> dict[str, Float[Tensor, "B T H"]]:
        """Recompute the gates at all positions, from 0 (closed) to 1, which the fused kernel does not return."""
        names = GATES.get(self.kernel.mode, ())
        outputs, _ = self.forward(inputs, state)
        first = torch.zeros_like(outputs[:, :1]) if state is None else state[0][:, None].to(outputs.dtype)
        weight, recurrent_weight, input_bias, recurrent_bias = self.kernel.parameters()
        hidden = F.linear(torch.cat([first, outputs[:, :-1]], 1), recurrent_weight, recurrent_bias)
        parts = (F.linear(inputs, weight, input_bias) + hidden).chunk(max(1, len(names)), -1)
        return {name: part.sigmoid() for name, part in zip(names, parts, strict=False) if name}

    def _run(self, inputs: Tensor, before: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the kernel's outputs, followed by the parts of its state, each of shape (1, B, H)."""
        start = before if self.states > 1 else before[0]
        if self.training and self.weight_drop > 0.0:
            return self._run_dropped(inputs, start)
        outputs, after = self.kernel(inputs, start)
        return (outputs, *after) if self.states > 1 else (outputs, after)

    def _run_dropped(self, inputs: Tensor, start: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run the kernel on a dropped copy of the recurrent weights; the stored weights receive the gradient."""
        weight, recurrent_weight, *biases = self.kernel.parameters()
        weights = [weight, F.dropout(recurrent_weight, self.weight_drop), *biases]
        fused = getattr(torch, self.kernel.mode.lower())  # torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu
        results: tuple[Tensor, ...] = fused(inputs, start, weights, True, 1, 0.0, True, False, True)
        return results


class RecurrentStack(nn.Module):
    """A stack of recurrent layers.

    The state is a list with one tuple per layer: (h,), or for an LSTM (h, c); each of shape (B, H).

    Args:
        kernel: creates a layer's kernel from its input size and its hidden size.
        bias: initializes the input bias of a layer.
        width: features in and out.
        depth: number of layers.
        hidden: features of all layers but the last, which has `width` (default: the width).
        dropout: fraction of the features dropped in training at the input of each layer and at the output.
        input_dropout: dropout at the input of the first layer (default: `dropout`).
        output_dropout: dropout at the output (default: `dropout`).
        variational: drop the same features at all positions of a sequence.
        weight_drop: fraction of the recurrent weights dropped in training.

    Raises:
        ValueError: a size is below 1, or a dropout rate is outside [0, 1).
    """

    def __init__(
        self,
        kernel: Callable[[int, int], nn.RNNBase],
        bias: Fill,
        width: int = 256,
        depth: int = 2,
        hidden: int | None = None,
        dropout: float = 0.0,
        input_dropout: float | None = None,
        output_dropout: float | None = None,
        variational: bool = False,
        weight_drop: float = 0.0,
    ) -> None:
        super().__init__()
        input_dropout = dropout if input_dropout is None else input_dropout
        output_dropout = dropout if output_dropout is None else output_dropout
        rates = [input_dropout] + [dropout] * (depth - 1) + [output_dropout]
        if depth < 1:
            raise ValueError(f"depth={depth} must be at least 1")
        if width < 1 or (hidden is not None and hidden < 1):
            raise ValueError(f"width={width} and hidden={hidden} must be at least 1")
        for rate in (*rates, weight_drop):
            if not 0.0 <= rate < 1.0:
                raise ValueError(f"dropout rate {rate}: expected a number in [0, 1)")
        self.width = width
        sizes = [width] + [hidden or width] * (depth - 1) + [width]
        self.layers = nn.ModuleList(RecurrentLayer(kernel(*each), weight_drop, bias) for each in pairwise(sizes))
        drop = VariationalDropout if variational else nn.Dropout
        self.dropouts = nn.ModuleList(drop(rate) for rate in rates)

    def forward(self, inputs: Float[Tensor, "B T D"], state: State = None) -> tuple[Float[Tensor, "B T D"], State]:
        """Process T more inputs; the output at each position predicts the next input."""
        states = [None] * len(self.layers) if state is None else state
        after = []
        for dropout, layer, before in zip(self.dropouts, self.layers, states, strict=False):
            inputs, layer_state = layer(dropout(inputs), before)
            after.append(layer_state)
        return self.dropouts[-1](inputs), after
