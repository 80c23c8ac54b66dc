"""A causal Transformer with attention over all earlier positions, or over a window of them.

Vaswani et al. (2017), "Attention Is All You Need", in the pre-norm form (Xiong et al., 2020, "On Layer
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

from pipeline.data.documents import Documents
from pipeline.errors import TooLongError
from pipeline.models.layers.attention import Cache, Rotation, SelfAttention, rotation, visible
from pipeline.models.layers.cross_attention import CrossAttention, Memory
from pipeline.models.layers.feedforward import SwiGLU, initialise
from pipeline.models.layers.local_attention import Local
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.state import State, latest_positions
from pipeline.tasks.language_model import LanguageModel, TokenHead

__all__ = ["Transformer", "TransformerLanguageModel"]


class TransformerBlock(nn.Module):
    """Self-attention, optional cross-attention, and a position-wise layer, each with a residual connection.

    Args:
        attention: the self-attention.
        feedforward: the position-wise layer.
        width: features in and out.
        depth: number of blocks; the output layers of their 2 * depth sublayers are initialized with a smaller
            scale, so that the residual stream keeps the scale of the input.
        dropout: fraction of what each layer adds that is dropped in training.
        cross: the cross-attention to a memory.
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
        keep: Bool[Tensor, "#B 1 T _"] | Local | None,
        turn: Rotation | None,
        memory: Tensor | None = None,
        inside: Bool[Tensor, "B S"] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], Cache, Tensor | None]:
        """Process T more inputs; return outputs, the extended cache, and the keys and values of the memory.

        Args:
            inputs: new inputs.
            cache: keys and values of the earlier positions.
            keep: attention mask, True where a position attends; or the part of the earlier positions that it attends
                to; None for all.
            turn: rotary embedding of the positions.
            memory: values of the memory (B, S, D), or its keys and values returned by an earlier call.
            inside: mask of the memory, True where it has a position.
        """
        attended, cache = self.attention(self.attention_norm(inputs), cache, keep, turn)
        inputs = inputs + self.dropout(attended)
        if self.cross is not None and self.cross_norm is not None:
            attended, memory = self.cross(self.cross_norm(inputs), memory, inside)
            inputs = inputs + self.dropout(attended)
        return inputs + self.dropout(self.feedforward(self.feedforward_norm(inputs))), cache, memory


class Transformer(nn.Module):
    """A stack of causal Transformer blocks with a key/value cache.

    The state is a pair: the number of inputs read per row, shape (B,), and a list with the keys and values of each
    layer, each of shape (B, N, S, F). S is the length read so far, or `window - 1` with a window. The state of a
    decoder has two more parts: each layer's keys and values of the memory, and the memory's mask.

    Args:
        width: features in and out.
        depth: number of blocks.
        heads: number of attention heads; must divide the width.
        hidden: features inside the position-wise layer (default: chosen by `feedforward`).
        dropout: fraction of the features and attention weights dropped in training.
        positions: number of learned positions (default: rotary positions without a limit).
        window: number of positions attended to, including the position itself (default: all earlier positions).
        feedforward: makes the position-wise layer from width, hidden and dropout.
        decodes: add cross-attention to a memory, given to `begin`, to every layer.

    Raises:
        ValueError: the heads do not divide the width, the features of a head are odd with rotary positions, or
            depth, window or positions are below 1.
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
            raise ValueError(f"width={width} / heads={heads} must be even for rotary positions")
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
        """Return the initial state of a decoder for a memory."""
        nothing = torch.zeros(len(memory.keep), dtype=torch.int64, device=memory.keep.device)
        return nothing, [None] * len(self.layers), [memory.values] * len(self.layers), memory.keep

    def forward(self, inputs: Float[Tensor, "B T D"], state: State = None) -> tuple[Float[Tensor, "B T D"], State]:
        """Process T more inputs; the output at each position predicts the next input.

        Raises:
            ValueError: a state is carried in training without a window, so that it would grow without limit.
            TooLongError: there are more positions than learned ones.
        """
        nothing: list[Tensor | None] = [None] * len(self.layers)
        memories, inside = (nothing, None) if state is None or len(state) == 2 else state[2:]
        outputs, after, remembered = self._read(inputs, None if _is_new(state) else state[:2], memories, inside)
        return outputs, after if inside is None else (*after, remembered, inside)

    def read_documents(self, inputs: Float[Tensor, "B T D"], documents: Documents) -> Float[Tensor, "B T D"]:
        """Return the outputs of each document, as if it were read alone.

        Raises:
            TooLongError: a document has more positions than there are learned ones.
        """
        self._check_length(max(documents.lengths))
        keep = Local(self.window, documents.positions, documents.lengths, documents.offsets)
        inputs, turn = self._place(inputs, documents.positions)
        for layer in self.layers:
            inputs, *_ = layer(inputs, None, keep, turn)
        outputs: Tensor = self.norm(inputs)
        return outputs

    def memory_mask(self, state: State) -> Bool[Tensor, "B S"]:
        """Return the mask of the memory in a decoder's state."""
        keep: Tensor = state[3]
        return keep

    def forward_with_attention(
        self, inputs: Float[Tensor, "B T D"], state: State
    ) -> tuple[Float[Tensor, "B T D"], State, Float[Tensor, "B T S"]]:
        """Return the outputs of `forward`, and the cross-attention weights averaged over heads and layers."""
        weights: list[Tensor] = []
        crossing = [module for module in self.modules() if isinstance(module, CrossAttention)]

        def watch(cross: CrossAttention, given: tuple[Tensor, ...], _: object) -> None:
            weights.append(cross.weights(*given))

        watched = [cross.register_forward_hook(watch) for cross in crossing]
        try:
            outputs, state = self(inputs, state)
        finally:
            for each in watched:
                each.remove()
        return outputs, state, torch.stack(weights).mean(0)

    def _read(
        self, inputs: Tensor, state: State, memories: list[Tensor | None], inside: Tensor | None
    ) -> tuple[Tensor, State, list[Tensor | None]]:
        if self.training and state is not None and self.window is None:
            raise ValueError("window is not set: a Transformer requires it to train with a carried state")
        count = self._count(inputs, state)
        caches = [None] * len(self.layers) if state is None else state[1]
        keep = self._keep(inputs.shape[1], state)
        self._check_positions(inputs.shape[1], state)
        positions = torch.arange(inputs.shape[1], device=inputs.device)
        positions = positions[None] if state is None else count[:, None] + positions
        inputs, turn = self._place(inputs, positions)
        after, remembered = [], []
        for layer, cache, memory in zip(self.layers, caches, memories, strict=True):
            inputs, cache, memory = layer(inputs, cache, keep, turn, memory, inside)
            after.append(self._bound(cache))
            remembered.append(memory)
        return self.norm(inputs), (count + inputs.shape[1], after), remembered

    def _count(self, inputs: Tensor, state: State) -> Int64[Tensor, " B"]:
        if state is not None:
            counts: Tensor = state[0]
            return counts
        return torch.zeros(inputs.shape[0], dtype=torch.int64, device=inputs.device)

    def _keep(self, new: int, state: State) -> Bool[Tensor, "#B 1 T _"] | Local | None:
        """Return the attention mask, or what needs none: a window, or None for all earlier positions."""
        if state is not None:
            count, cached = state[0], state[1][0][0].shape[2]
            if new == 1 and count.device.type == "cpu" and bool((count >= cached).all()):
                return None  # The new position attends to every slot. On other devices, reading the counts would wait.
            return visible(count, new, cached, self.window)
        if self.window is None or new <= self.window:
            return None
        return Local(self.window)

    def _check_positions(self, new: int, state: State) -> None:
        if self.positions is None:
            return  # Reading the counts would synchronize with the device.
        self._check_length(new if state is None else new + int(state[0].max()))

    def _check_length(self, length: int) -> None:
        if self.positions is not None and length > (limit := self.positions.num_embeddings):
            raise TooLongError(f"positions={limit}: expected at least {length} learned positions. Increase or unset it")

    def _place(self, inputs: Tensor, positions: Int64[Tensor, "#B T"]) -> tuple[Tensor, Rotation | None]:
        """Return the inputs, with learned positions added, or the inputs and their rotary embedding."""
        if self.positions is None:
            return self.dropout(inputs), rotation(positions, self.width // self.heads, inputs.dtype)
        return self.dropout(inputs + self.positions(positions)), None

    def _bound(self, cache: Cache) -> Cache:
        """Return the cache, limited by a window to the last `window - 1` positions and padded with zeros in front."""
        if self.window is None:
            return cache
        size = self.window - 1
        if short := max(0, size - cache[0].shape[2]):
            cache = F.pad(cache[0], (0, 0, short, 0)), F.pad(cache[1], (0, 0, short, 0))
        return latest_positions(cache[0], size, 2), latest_positions(cache[1], size, 2)


def _is_new(state: State) -> bool:
    """Return whether a state has no inputs yet."""
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
