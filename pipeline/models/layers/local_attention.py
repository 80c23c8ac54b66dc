"""Causal attention inside of documents and windows, without a mask over all pairs of positions where a kernel exists.

On CUDA devices with half precision, one kernel reads all documents and windows (`torch.nn.attention.varlen`). On CPUs,
each document is a slice of its own, and a window is read in blocks, each of which attends to itself and to the block
before it. Elsewhere documents are separated by a mask.

Legend: B sequences, T positions, N heads, F features of a head, I inputs of all sequences.
"""

from functools import cache
from inspect import signature
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor
from torch.nn import functional as F

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:
    HAS_VARLEN = False
else:
    HAS_VARLEN = "window_size" in signature(varlen_attn).parameters
SMALLEST_BLOCK = 32  # positions; smaller blocks take longer than the products that they save


class Local(NamedTuple):
    """The earlier positions that a position attends to: those of its document, in its window."""

    window: int | None
    """Number of positions, including the position itself; None for all."""
    positions: Int64[Tensor, "B T"] | None = None
    """The position of each input in its document; None if each row is one document."""
    lengths: tuple[int, ...] = ()
    """Number of positions of each document, row by row."""
    offsets: Int32[Tensor, " _"] | None = None
    """The sums of these lengths, from 0."""

    def mask(self, length: int, device: torch.device) -> Bool[Tensor, "_ 1 {length} {length}"]:
        """Return the mask of rows of this length, True where a position attends."""
        place = torch.arange(length, device=device)
        back = place[:, None] - place
        seen = place[None] if self.positions is None else self.positions
        if self.window is not None:
            seen = seen.clamp(max=self.window - 1)
        return ((back >= 0) & (back <= seen[..., None]))[:, None]


def attend(
    query: Float[Tensor, "B N T F"],
    key: Float[Tensor, "B N S F"],
    value: Float[Tensor, "B N S F"],
    keep: Bool[Tensor, "#B 1 T S"] | Local | None,
    rate: float,
    causal: bool = True,
) -> Float[Tensor, "B N T F"]:
    """Return the attended values.

    Args:
        query: queries of the new positions.
        key: keys of all positions.
        value: values of all positions.
        keep: mask, True where a position attends; or the part of the earlier positions that it attends to; None for all
            of them. If there are more keys than queries, None requires one new position, which attends to all.
        rate: fraction of the attention weights that is dropped.
        causal: None means all earlier positions, else all positions.
    """
    if not isinstance(keep, Local):
        causal = causal and keep is None and key.shape[2] == query.shape[2]
        return F.scaled_dot_product_attention(query, key, value, keep, rate, is_causal=causal)
    features = query.shape[-1]
    halves = query.is_cuda and query.element_size() == 2
    if halves and not rate and features % 8 == 0 and features <= 256 and _has_varlen(query.device):
        return _in_one_kernel(query, key, value, keep)
    if keep.positions is None:
        return _in_blocks(query, key, value, keep, rate)
    if query.is_cpu and not torch.compiler.is_compiling():  # The lengths would be compiled as constants.
        return _in_slices(query, key, value, keep, rate)
    return F.scaled_dot_product_attention(query, key, value, keep.mask(query.shape[2], query.device), rate)


@cache
def _has_varlen(device: torch.device) -> bool:
    """Return whether the kernel for documents, FlashAttention 2, runs on a CUDA device."""
    return HAS_VARLEN and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def _in_one_kernel(query: Tensor, key: Tensor, value: Tensor, keep: Local) -> Tensor:
    rows, _, length, _ = query.shape
    offsets = keep.offsets
    if offsets is None:
        offsets = torch.arange(0, rows * length + 1, length, dtype=torch.int32, device=query.device)
    query, key, value = (part.transpose(1, 2).flatten(0, 1) for part in (query, key, value))
    window = (-1 if keep.window is None else keep.window - 1, 0)
    attended = varlen_attn(query, key, value, offsets, offsets, length, length, window_size=window)
    assert isinstance(attended, Tensor)
    return attended.view(rows, length, *attended.shape[1:]).transpose(1, 2)


def _in_slices(query: Tensor, key: Tensor, value: Tensor, keep: Local, rate: float) -> Tensor:
    packed = [part.transpose(0, 1).flatten(1, 2)[None] for part in (query, key, value)]  # (1, N, I, F)
    inside, attended = Local(keep.window), []
    pieces = (torch.split(part, list(keep.lengths), 2) for part in packed)
    for one, keys, values in zip(*pieces, strict=True):
        fits = keep.window is None or one.shape[2] <= keep.window
        attended.append(attend(one, keys, values, None if fits else inside, rate))
    heads = torch.cat(attended, 2).squeeze(0)  # (N, I, F)
    return heads.view(len(heads), len(query), -1, heads.shape[-1]).transpose(0, 1)


def _in_blocks(query: Tensor, key: Tensor, value: Tensor, keep: Local, rate: float) -> Tensor:
    """Divide the positions into blocks of at least a window; each attends to itself and to the block before it."""
    assert keep.window is not None
    length, size = query.shape[2], max(keep.window, SMALLEST_BLOCK)
    count = -(-length // size)
    if count < 3:
        return F.scaled_dot_product_attention(query, key, value, keep.mask(length, query.device), rate)
    fill = count * size - length

    def blocks(part: Tensor, front: int) -> Tensor:
        filled = F.pad(part, (0, 0, front, fill))
        return filled.view(*part.shape[:2], -1, size, part.shape[-1])

    def pairs(part: Tensor) -> Tensor:
        each = blocks(part, size)
        return _by_block(torch.cat([each[:, :, :-1], each[:, :, 1:]], 3))

    place = torch.arange(size, device=query.device)[:, None]
    other = torch.arange(-size, size, device=query.device)
    near = (other <= place) & (other > place - keep.window)
    first = torch.arange(count, device=query.device)[:, None, None] == 0
    seen = near & ~(first & (other < 0))  # Before the first block there is nothing.
    seen = seen.expand(len(query), -1, -1, -1).flatten(0, 1)[:, None]
    attended = F.scaled_dot_product_attention(_by_block(blocks(query, 0)), pairs(key), pairs(value), seen, rate)
    attended = attended.view(-1, count, *attended.shape[1:]).transpose(1, 2)
    return attended.flatten(2, 3)[:, :, :length]


def _by_block(part: Float[Tensor, "B N C L F"]) -> Float[Tensor, "B*C N L F"]:
    """Return blocks of L positions as sequences of their own."""
    return part.transpose(1, 2).flatten(0, 1)
