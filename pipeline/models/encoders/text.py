"""Bidirectional encoders of texts, which return the positions of a memory and a summary.

Schuster and Paliwal (1997), "Bidirectional Recurrent Neural Networks": one network reads forward, another backward.
Both can be any causal network of this package. A Transformer encoder uses bidirectional attention instead.

Legend: B sequences, S positions, D features.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from pipeline.models.layers.attention import SelfAttention, rotation
from pipeline.models.layers.cross_attention import Memory
from pipeline.models.layers.feedforward import SwiGLU
from pipeline.models.lstm import LSTM
from pipeline.models.transformer import TransformerBlock
from pipeline.tasks.task import Reads
from pipeline.tasks.token_prediction import TokenEmbedding


class Bidirectional(nn.Module):
    """A causal network that reads forward and another that reads backward.

    Args:
        network: creates a network from its width.
        width: features in and out.
    """

    def __init__(self, network: Callable[[int], nn.Module], width: int) -> None:
        super().__init__()
        self.forth, self.back = network(width), network(width)
        self.join = nn.Linear(2 * width, width)
        nn.init.xavier_uniform_(self.join.weight)
        nn.init.zeros_(self.join.bias)

    def forward(
        self, inputs: Float[Tensor, "B S D"], keep: Bool[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B S D"], Float[Tensor, "B D"]]:
        """Return the outputs at all positions, and a projection of both networks' last outputs."""
        forth, _ = self.forth(inputs, None)
        back, _ = self.back(reverse(inputs, keep), None)
        last = keep.sum(1, keepdim=True)[..., None] - 1
        ends = [part.take_along_dim(last.expand(-1, -1, part.shape[2]), 1)[:, 0] for part in (forth, back)]
        summary = self.join(torch.cat(ends, -1))
        return self.join(torch.cat([forth, reverse(back, keep)], -1)), summary


def reverse(inputs: Float[Tensor, "B S D"], keep: Bool[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
    """Reverse the order of the kept positions, which come first; padding stays in place."""
    place = torch.arange(inputs.shape[1], device=inputs.device)
    back = torch.where(keep, keep.sum(1, keepdim=True) - 1 - place, place)
    return inputs.take_along_dim(back[..., None], 1)


class BidirectionalStack(nn.Module):
    """Layers of two networks each, which read forward and backward.

    Args:
        network: class of the networks: an LSTM, a GRU, a ConvNet, ...
        width: features in and out.
        depth: layers.
        dropout: fraction of the features dropped in training before each layer.
        network_depth: depth of each of a layer's two networks; each layer of a ConvNet doubles its receptive field.

    Raises:
        ValueError: the depth is below 1.
    """

    def __init__(
        self, network: type[nn.Module], width: int, depth: int, dropout: float = 0.0, network_depth: int = 1
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth={depth} must be at least 1")
        self.layers = nn.ModuleList(
            Bidirectional(lambda width: network(width=width, depth=network_depth), width) for _ in range(depth)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Float[Tensor, "B S D"], keep: Bool[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """Process the inputs; `keep` is False at padding, which is at the end of each row."""
        return self.read(inputs, keep)[0]

    def read(
        self, inputs: Float[Tensor, "B S D"], keep: Bool[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B S D"], Float[Tensor, "B D"]]:
        """Return the outputs at all positions, and a projection of the last outputs of the last layer's networks."""
        summary = inputs[:, 0]
        for layer in self.layers:
            inputs, summary = layer(self.dropout(inputs), keep)
        return inputs, summary


class BidirectionalEncoder(BidirectionalStack):
    """Layers of two networks each, which read a text forward and backward.

    Args:
        source_vocab_size: tokens of sources, set from the dataset.
        network: class of the networks: an LSTM, a GRU, a ConvNet, ...
        width: features of the memory.
        depth: layers.
        dropout: fraction of the features dropped in training before each layer and after the last.
        network_depth: depth of each of a layer's two networks; each layer of a ConvNet doubles its receptive field.

    Raises:
        ValueError: the depth is below 1.
    """

    reads: Reads = "text"

    def __init__(
        self,
        source_vocab_size: int,
        network: type[nn.Module] = LSTM,
        width: int = 256,
        depth: int = 1,
        dropout: float = 0.0,
        network_depth: int = 1,
    ) -> None:
        super().__init__(network, width, depth, dropout, network_depth)
        self.width = width
        self.embedding = TokenEmbedding(source_vocab_size, width)

    def forward(self, tokens: Int64[Tensor, "B S"], keep: Bool[Tensor, "B S"]) -> Memory:  # type: ignore[override]
        """Encode texts; `keep` is False at padding, which is at the end of each row."""
        values, summary = self.read(self.embedding(tokens), keep)
        return Memory(self.dropout(values), keep, summary)


class TransformerEncoder(nn.Module):
    """Transformer blocks with bidirectional attention and rotary positions (Vaswani et al. 2017; Su et al. 2021).

    Args:
        source_vocab_size: tokens of sources, set from the dataset.
        width: features of the memory.
        depth: number of blocks.
        heads: number of attention heads; must divide the width.
        hidden: features inside the position-wise layer (default: chosen by `feedforward`).
        dropout: fraction of the features and attention weights dropped in training.
        feedforward: makes the position-wise layer from width, hidden and dropout.

    Raises:
        ValueError: the heads do not divide the width into even parts.
    """

    reads: Reads = "text"

    def __init__(
        self,
        source_vocab_size: int,
        width: int = 256,
        depth: int = 4,
        heads: int = 4,
        hidden: int | None = None,
        dropout: float = 0.0,
        feedforward: Callable[[int, int | None, float], nn.Module] = SwiGLU,
    ) -> None:
        super().__init__()
        self.width = width
        self.embedding = TokenEmbedding(source_vocab_size, width)
        self.blocks = TransformerStack(width, depth, heads, hidden, dropout, feedforward)

    def forward(self, tokens: Int64[Tensor, "B S"], keep: Bool[Tensor, "B S"]) -> Memory:
        """Encode texts; `keep` is False at padding."""
        values = self.blocks(self.embedding(tokens), keep)
        kept = keep[..., None].to(values.dtype)
        return Memory(values, keep, (values * kept).sum(1) / kept.sum(1))


class TransformerStack(nn.Module):
    """Transformer blocks with bidirectional attention; arguments as in `TransformerEncoder`."""

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        hidden: int | None,
        dropout: float,
        feedforward: Callable[[int, int | None, float], nn.Module] = SwiGLU,
    ) -> None:
        super().__init__()
        if width % heads or width // heads % 2:
            raise ValueError(f"heads={heads} must divide width={width} into even parts")
        self.features = width // heads
        self.layers = nn.ModuleList(
            TransformerBlock(
                SelfAttention(width, heads, dropout, causal=False),
                feedforward(width, hidden, dropout),
                width,
                depth,
                dropout,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Float[Tensor, "B S D"], keep: Bool[Tensor, "B S"] | None) -> Float[Tensor, "B S D"]:
        """Attend from every position to all positions that `keep` marks; None for all."""
        positions = torch.arange(inputs.shape[1], device=inputs.device)
        turn = rotation(positions[None], self.features, inputs.dtype)
        visible = None if keep is None else keep[:, None, None].expand(-1, 1, inputs.shape[1], -1)
        inputs = self.dropout(inputs)
        for layer in self.layers:
            inputs, *_ = layer(inputs, None, visible, turn)
        outputs: Tensor = self.norm(inputs)
        return outputs
