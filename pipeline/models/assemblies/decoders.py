"""Decoders that condition an LSTM, a GRU or any other causal network on an encoded source.

A decoder implements the interface of networks, `forward(inputs, state)`, and `begin(memory)`, which returns the
initial state. It declares whether it `attends` to the memory; if so, it also has `forward_with_attention` and
`memory_mask`. The memory is part of the state, so operations on states (beam branching, batching, streaming) apply
to it as well.

Sutskever, Vinyals and Le (2014), "Sequence to Sequence Learning with Neural Networks", and Vinyals et al. (2015),
"Show and Tell": the source is one vector, the first input. Bahdanau et al. (2015) and Luong et al. (2015): at every
position t, the network's output h_t and a weighted mean c_t of the memory give o_t = tanh(W [h_t; c_t]). With input
feeding (Luong et al., section 3.3), o_t is added to the next input.

Legend: B sequences, T positions, S positions of the memory, D features.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pipeline.models.layers.cross_attention import AdditiveAttention, Attention, Memory
from pipeline.state import State, width_of


class VectorDecoder(nn.Module):
    """A network whose first input is the source's summary.

    Args:
        network: a recurrent network, or any network whose state can be carried in training.
    """

    attends = False

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.width = width_of(network)
        self.bridge = _linear(self.width, self.width)
        self.network = network

    def begin(self, memory: Memory) -> State:
        """Return the state after the summary."""
        return self.network(torch.tanh(self.bridge(memory.summary))[:, None], None)[1]

    def forward(self, inputs: Float[Tensor, "B T D"], state: State) -> tuple[Float[Tensor, "B T D"], State]:
        """Process T more inputs; the output at each position predicts the next input."""
        outputs, state = self.network(inputs, state)
        return outputs, state


class AttentionDecoder(nn.Module):
    """A network with attention to the memory at every position.

    The state is a tuple: values, keys and mask of the memory, the last output (None without input feeding), and the
    network's own state.

    Args:
        network: as in `VectorDecoder`.
        attention: class of the attention, created from a width.
        input_feeding: add the last attentional output to the network's next input. Positions are then processed
            sequentially, in training too.
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
        """Return the initial state for a memory."""
        fed = None if self.feed is None else torch.zeros_like(memory.summary)
        return memory.values, self.attention.key(memory.values), memory.keep, fed, self.start.begin(memory)

    def forward(self, inputs: Float[Tensor, "B T D"], state: State) -> tuple[Float[Tensor, "B T D"], State]:
        """Process T more inputs; the output at each position predicts the next input."""
        outputs, state, _ = self.forward_with_attention(inputs, state)
        return outputs, state

    def memory_mask(self, state: State) -> Bool[Tensor, "B S"]:
        """Return the mask of the memory in a state."""
        keep: Tensor = state[2]
        return keep

    def forward_with_attention(
        self, inputs: Float[Tensor, "B T D"], state: State
    ) -> tuple[Float[Tensor, "B T D"], State, Float[Tensor, "B T S"]]:
        """Return the outputs of `forward`, and the attention weights of each position over the memory."""
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
    ) -> tuple[Tensor, State, Tensor]:
        hidden, inner = self.start(inputs, inner)
        attended, weights = self.attention(hidden, keys, values, keep)
        return self.dropout(torch.tanh(self.join(torch.cat([hidden, attended], -1)))), inner, weights


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
