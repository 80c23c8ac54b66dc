"""A Transformer lets every position look at all before it, or at those within a window.

Vaswani et al. (2017), "Attention Is All You Need", with the norm in front (Xiong et al., 2020, "On Layer
Normalization in the Transformer Architecture"):
    x <- x + Attention(norm(x)),   x <- x + FeedForward(norm(x)),   y = norm(x)

Legend: B sequences, T positions, S cached positions, D features, N heads, F features of a head.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import TooLongError
from pipeline.models.layers.attention import Cache, Rotation, SelfAttention, rotation, visible
from pipeline.models.layers.cross_attention import CrossAttention, Memory
from pipeline.models.layers.feedforward import SwiGLU, initialise
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.state import State
from pipeline.tasks.language_model import LanguageModel, TokenHead

__all__ = ["Transformer", "TransformerLanguageModel"]


class TransformerBlock(nn.Module):
    """Self-attention, attention to a memory if there is one, and a position-wise layer, each added to what it read.

    Args:
        attention: the self-attention.
        feedforward: the position-wise layer.
        width: features in and out.
        depth: number of blocks; what each of their 2 * depth layers adds starts small, so that the sum keeps
            the scale of the input.
        dropout: fraction of what each layer adds that is dropped in training.
        cross: the attention to a memory.
    """

    def __init__(
        self,
        attention: SelfAttention,
        feedforward: nn.Module,
        width: int,
        depth: int,
        dropout: float,
        cross: CrossAttention | None = None,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = attention
        self.cross_norm = None if cross is None else nn.LayerNorm(width)
        self.cross = cross
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = feedforward
        self.dropout = nn.Dropout(dropout)
        self.apply(initialise)
        for part in (attention, feedforward, *([] if cross is None else [cross])):
            *_, last = (each for each in part.modules() if isinstance(each, nn.Linear))
            nn.init.normal_(last.weight, std=(2 * depth * last.in_features) ** -0.5)

    def forward(
        self,
        inputs: Float[Tensor, "B T D"],
        cache: Cache | None,
        keep: Bool[Tensor, "#B 1 T _"] | None,
        turn: Rotation | None,
        memory: Tensor | None = None,
        inside: Bool[Tensor, "B S"] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], Cache, Tensor | None]:
        """Read T more inputs; also gives keys and values, with those of the new positions, and the memory's.

        Args:
            inputs: what is read.
            cache: keys and values of the positions before.
            keep: where each position looks.
            turn: the rotation that stands for the positions.
            memory: values of the memory (B, S, D), or what an earlier call gave for it.
            inside: where the memory holds something.
        """
        attended, cache = self.attention(self.attention_norm(inputs), cache, keep, turn)
        inputs = inputs + self.dropout(attended)
        if self.cross is not None and self.cross_norm is not None:
            seen, memory = self.cross(self.cross_norm(inputs), memory, inside)
            inputs = inputs + self.dropout(seen)
        return inputs + self.dropout(self.feedforward(self.feedforward_norm(inputs))), cache, memory


class Transformer(nn.Module):
    """A stack of causal Transformer blocks with a key/value cache.

    The state is a pair: how many inputs each row has read, shape (B,), and a list with the keys and values of
    each layer, each of shape (B, N, S, F). S is the length read so far, or with a window always `window - 1`.
    A decoder's has two parts more: what each layer keeps of the memory, and where the memory holds something.

    Args:
        width: features in and out.
        depth: number of blocks.
        heads: number of attention heads; must divide the width.
        hidden: features inside the position-wise layer (default: chosen by `feedforward`).
        dropout: fraction of the features and attention weights dropped in training.
        positions: how many are learned; by default they are rotary and have no end.
        window: how many positions attention sees, its own the last; by default all before it.
        feedforward: makes the position-wise layer from width, hidden and dropout.
        decodes: every layer looks at a memory too, which `begin` is given.

    Raises:
        ValueError: the heads do not divide the width, or leave an odd number of features to each while
            positions are rotary, or if the depth, window or positions are below 1.
    """

    attends = True

    def __init__(
        self,
        width: int = 256,
        depth: int = 4,
        heads: int = 4,
        hidden: int | None = None,
        dropout: float = 0.0,
        positions: int | None = None,
        window: int | None = None,
        feedforward: Callable[[int, int | None, float], nn.Module] = SwiGLU,
        decodes: bool = False,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads={heads} must divide width={width}")
        if positions is None and width // heads % 2:
            raise ValueError(f"width={width} over heads={heads} must be even for rotary positions")
        if depth < 1 or (window is not None and window < 1) or (positions is not None and positions < 1):
            raise ValueError(f"depth={depth}, window={window} and positions={positions} must be at least 1")
        self.width = width
        self.heads = heads
        self.window = window
        self.positions = None if positions is None else nn.Embedding(positions, width)
        if self.positions is not None:
            nn.init.normal_(self.positions.weight, std=0.02)
        self.layers = nn.ModuleList(
            TransformerBlock(
                SelfAttention(width, heads, dropout),
                feedforward(width, hidden, dropout),
                width,
                depth,
                dropout,
                CrossAttention(width, heads, dropout) if decodes else None,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def begin(self, memory: Memory) -> State:
        """The state of a decoder that has read nothing yet."""
        nothing = torch.zeros(len(memory.keep), dtype=torch.int64, device=memory.keep.device)
        return nothing, [None] * len(self.layers), [memory.values] * len(self.layers), memory.keep

    def forward(self, inputs: Float[Tensor, "B T D"], state: State = None) -> tuple[Float[Tensor, "B T D"], State]:
        """Process T more inputs; the output at each position predicts the next input.

        Raises:
            ValueError: if a state is carried in training without a window (it would grow without end), or if
                there are more positions than the learned ones (TooLongError).
        """
        nothing: list[Tensor | None] = [None] * len(self.layers)
        memories, inside = (nothing, None) if state is None or len(state) == 2 else state[2:]
        outputs, after, remembered = self._read(inputs, None if _is_new(state) else state[:2], memories, inside)
        return outputs, after if inside is None else (*after, remembered, inside)

    def inside(self, state: State) -> Bool[Tensor, "B S"]:
        """Where the memory in a decoder's state holds something."""
        keep: Tensor = state[3]
        return keep

    def look(
        self, inputs: Float[Tensor, "B T D"], state: State
    ) -> tuple[Float[Tensor, "B T D"], State, Float[Tensor, "B T S"]]:
        """As a decoder's `forward`, and where in the memory each position looked: the mean over heads and layers."""
        seen: list[Tensor] = []
        crossing = [module for module in self.modules() if isinstance(module, CrossAttention)]
        watch: Any = lambda cross, given, _: seen.append(cross.weights(*given))  # noqa: E731
        watched = [cross.register_forward_hook(watch) for cross in crossing]
        try:
            outputs, state = self(inputs, state)
        finally:
            for each in watched:
                each.remove()
        return outputs, state, torch.stack(seen).mean(0)

    def _read(
        self, inputs: Tensor, state: State, memories: list[Tensor | None], inside: Tensor | None
    ) -> tuple[Tensor, State, list[Tensor | None]]:
        if self.training and state is not None and self.window is None:
            raise ValueError("a Transformer trains with a carried state only if window is set: its cache never ends")
        count = self._count(inputs, state)
        caches = [None] * len(self.layers) if state is None else state[1]
        keep = self._keep(inputs.shape[1], state)
        self._check_positions(inputs.shape[1], state)
        positions = count[:, None] + torch.arange(inputs.shape[1], device=inputs.device)
        inputs, turn = self._place(inputs, positions)
        after, remembered = [], []
        for layer, cache, memory in zip(self.layers, caches, memories, strict=True):
            inputs, cache, memory = layer(inputs, cache, keep, turn, memory, inside)
            after.append(self._bound(cache))
            remembered.append(memory)
        return self.norm(inputs), (count + positions.shape[1], after), remembered

    def _count(self, inputs: Tensor, state: State) -> Int64[Tensor, " B"]:
        if state is not None:
            counts: Tensor = state[0]
            return counts
        return torch.zeros(inputs.shape[0], dtype=torch.int64, device=inputs.device)

    def _keep(self, new: int, state: State) -> Bool[Tensor, "#B 1 T _"] | None:
        """Where to look, or None for plain causal attention, which has the fastest kernels."""
        if state is not None:
            return visible(state[0], new, state[1][0][0].shape[2], self.window)
        if self.window is None or new <= self.window:
            return None
        nothing = torch.zeros(1, dtype=torch.int64, device=self.norm.weight.device)
        return visible(nothing, new, 0, self.window)

    def _check_positions(self, new: int, state: State) -> None:
        if self.positions is None:
            return  # and no wait for the device to tell the counts
        length = new if state is None else new + int(state[0].max())
        if length > (known := self.positions.num_embeddings):
            raise TooLongError(f"position {length} is beyond positions={known}, the learned ones: ask for more or none")

    def _place(self, inputs: Tensor, positions: Int64[Tensor, "B T"]) -> tuple[Tensor, Rotation | None]:
        """The inputs with learned positions added, or the rotation that stands for the positions."""
        if self.positions is None:
            return self.dropout(inputs), rotation(positions, self.width // self.heads, inputs.dtype)
        return self.dropout(inputs + self.positions(positions)), None

    def _bound(self, cache: Cache) -> Cache:
        """With a window, the last `window - 1` positions, zeros in front where there are fewer."""
        if self.window is None:
            return cache
        size = self.window - 1
        short = max(0, size - cache[0].shape[2])
        key, value = (F.pad(part, (0, 0, short, 0)) for part in cache)
        excess = key.shape[2] - size
        return key[:, :, excess:].clone(), value[:, :, excess:].clone()


def _is_new(state: State) -> bool:
    """Whether nothing was read before."""
    return state is None or state[1][0] is None


class TransformerLanguageModel(LanguageModel):
    """A language model whose network is a `Transformer`."""

    def __init__(
        self,
        vocab_size: int,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(Transformer(**network), vocab_size, head, optimizer, schedule)
