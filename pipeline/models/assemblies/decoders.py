"""Decoders: networks that write while they look at an encoded source, with an LSTM, a GRU or any other inside.

A decoder keeps the network's contract, `forward(inputs, state)`, and has `begin(memory)`: the state before
anything was written. It declares whether it `attends` to the memory later: then it has `look` and `inside` too. The
memory lives in the state, so all that is done to states (a beam's branching, batches, streams) is done to it too.

Sutskever, Vinyals and Le (2014), "Sequence to Sequence Learning with Neural Networks"; Vinyals et al. (2015), "Show and
Tell": the source is one vector, read first. Bahdanau et al. (2015) and Luong et al. (2015): at every position a
weighted mean of the memory joins the network's output, o_t = tanh(W [h_t; c_t]); with input feeding (Luong et al.,
section 3.3) o_t joins the next input too.

Legend: B sequences, T positions, S positions of the memory, D features.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pipeline.models.layers.cross_attention import AdditiveAttention, Attention, Memory
from pipeline.state import State, width_of


class VectorDecoder(nn.Module):
    """A network whose first input is the source's summary; the source is seen no more after that.

    Args:
        network: a recurrent one, or any whose state can be carried in training.
    """

    attends = False

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.width = width_of(network)
        self.bridge = _linear(self.width, self.width)
        self.network = network

    def begin(self, memory: Memory) -> State:
        """The state after the summary was read."""
        return self.network(torch.tanh(self.bridge(memory.summary))[:, None], None)[1]

    def forward(self, inputs: Float[Tensor, "B T D"], state: State) -> tuple[Float[Tensor, "B T D"], State]:
        """Process T more inputs; the output at each position predicts the next input."""
        outputs, state = self.network(inputs, state)
        return outputs, state


class AttentionDecoder(nn.Module):
    """A network that looks at the memory at every position.

    The state is a tuple: values, keys and mask of the memory, the last output (None without input feeding), and
    the network's own state.

    Args:
        network: as of a `VectorDecoder`.
        attention: makes from a width what weighs the memory's positions.
        input_feeding: give the network its last output, with what was seen, beside its input. Positions are
            then read one after the other in training too.
        dropout: fraction of the outputs dropped in training.
    """

    attends = True

    def __init__(
        self,
        network: nn.Module,
        attention: type[Attention] = AdditiveAttention,
        input_feeding: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.width = width = width_of(network)
        self.start = VectorDecoder(network)
        self.attention = attention(width)
        self.join = _linear(2 * width, width)
        self.feed = _linear(2 * width, width) if input_feeding else None
        self.dropout = nn.Dropout(dropout)

    def begin(self, memory: Memory) -> State:
        """The state before anything was written."""
        fed = None if self.feed is None else torch.zeros_like(memory.summary)
        return memory.values, self.attention.key(memory.values), memory.keep, fed, self.start.begin(memory)

    def forward(self, inputs: Float[Tensor, "B T D"], state: State) -> tuple[Float[Tensor, "B T D"], State]:
        """Process T more inputs; the output at each position predicts the next input."""
        outputs, state, _ = self.look(inputs, state)
        return outputs, state

    def inside(self, state: State) -> Bool[Tensor, "B S"]:
        """Where the memory in a state holds something."""
        keep: Tensor = state[2]
        return keep

    def look(
        self, inputs: Float[Tensor, "B T D"], state: State
    ) -> tuple[Float[Tensor, "B T D"], State, Float[Tensor, "B T S"]]:
        """As `forward`, and where in the memory each position looked."""
        *memory, fed, inner = state
        if self.feed is None:
            outputs, inner, weights = self._look(inputs, inner, *memory)
            return outputs, (*memory, None, inner), weights
        steps = []
        for step in inputs.unbind(1):
            both = torch.cat([step, fed], -1)
            output, inner, weights = self._look((step + self.feed(both))[:, None], inner, *memory)
            fed = output[:, 0]
            steps.append((output, weights))
        outputs, weights = (torch.cat(parts, 1) for parts in zip(*steps, strict=True))
        return outputs, (*memory, fed, inner), weights

    def _look(
        self, inputs: Tensor, inner: State, values: Tensor, keys: Tensor, keep: Tensor
    ) -> tuple[Tensor, Any, Tensor]:
        hidden, inner = self.start(inputs, inner)
        seen, weights = self.attention(hidden, keys, values, keep)
        return self.dropout(torch.tanh(self.join(torch.cat([hidden, seen], -1)))), inner, weights


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
