"""The output layer of all tasks that predict tokens, and what is computed from its logits in blocks of positions.

The logits of all positions are the largest tensor of a training step: N V numbers, and as many for their gradient.
Above a limit they are computed block by block, with the gradients of the loss in the same pass, so that no block is
kept or computed twice. Wijmans et al. (2024), "Cut Your Losses in Large-Vocabulary Language Models", describe the
problem. `torch.nn.functional.linear_cross_entropy` (torch 2.13) has neither label smoothing nor a second, logged loss.

Legend: N positions of all sequences, D features, V tokens of the vocabulary, K positions of a block; `*S` any axes.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, FunctionCtx
from torch.nn import functional

from pipeline.data.batch import IGNORE

LIMIT = 1 << 26
"""Logits that a device computes at once, 256 MiB in float32; more of them in `SHARES` blocks.

A block costs it a kernel launch per operation, and reads and writes the gradient of the weight once.
"""
SHARES = 8
BLOCK = 1 << 23
"""Logits that a CPU computes at once, 32 MiB in float32, and of each block.

Measured on one core with N = 4,096, D = 512, V = 32,000: blocks of 4, 8 and 16 million logits take 0.84, 0.77 and 0.82
of the processor time of all logits at once, and 0.08, 0.10 and 0.14 of the memory.
"""


def block_rows(rows: int, vocab_size: int, device: str) -> int:
    """Return K, the positions of a block; all of them if the logits are few, or if they are compiled.

    A compiled loss is fused with the logits, and does not keep them in float32.
    """
    if torch.compiler.is_compiling() or rows * vocab_size <= (BLOCK if device == "cpu" else LIMIT):
        return rows
    return max(1, BLOCK // vocab_size) if device == "cpu" else -(-rows // SHARES)


class TokenOutput(nn.Linear):
    """A linear layer whose logits can be reduced block by block.

    All uses of the weight are inside `forward`, because strategies gather a divided weight in hooks of it.
    """

    block_rows: Callable[[int, int, str], int] = staticmethod(block_rows)  # of positions, V, kind of device

    def forward(
        self, outputs: Float[Tensor, "*S D"], read: "Callable[[TokenOutput, Tensor], object] | None" = None
    ) -> Any:
        """Return the logits, or what a function of this module returns for the layer and the outputs.

        Args:
            outputs: features of the positions.
            read: `partial(token_losses, targets=...)` or `most_probable`.
        """
        return super().forward(outputs) if read is None else read(self, outputs)


def token_losses(
    layer: TokenOutput, outputs: Float[Tensor, "*S D"], targets: Int64[Tensor, "*S"], smoothing: float = 0.0
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the summed loss in nats without and with label smoothing; ignored targets contribute nothing.

    Both come from one pass over the vocabulary. In blocks, only the smoothed loss has gradients, at least float32
    ones for the weight, and the backward pass can run once.
    """
    flat = targets.flatten()
    if (rows := layer.block_rows(len(flat), layer.out_features, outputs.device.type)) < len(flat):
        features, differs = outputs.flatten(0, -2), torch.is_grad_enabled()
        nats, smoothed = _in_blocks(features, layer.weight, layer.bias, flat, smoothing, rows, differs)
        return nats, smoothed
    logits = functional.linear(outputs, layer.weight, layer.bias).flatten(0, -2)
    log_probabilities = logits.to(_wide(logits.dtype)).log_softmax(-1)  # shared by both losses
    nats = functional.nll_loss(log_probabilities, flat, ignore_index=IGNORE, reduction="sum")
    if not smoothing:
        return nats, nats
    spread = -log_probabilities.mean(-1).masked_fill(flat == IGNORE, 0.0).sum()
    return nats, (1 - smoothing) * nats + smoothing * spread


@torch.no_grad()
def most_probable(layer: TokenOutput, outputs: Float[Tensor, "*S D"]) -> Int64[Tensor, "*S"]:
    """Return the most probable token at each position."""
    features = outputs.flatten(0, -2)
    blocks = torch.split(features, layer.block_rows(len(features), layer.out_features, outputs.device.type))
    found = [functional.linear(block, layer.weight, layer.bias).argmax(-1) for block in blocks]
    return torch.cat(found).view(outputs.shape[:-1])


class _Blocks(torch.autograd.Function):
    """The losses in blocks of positions; the forward pass computes the gradients, the backward pass scales them."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        features: Float[Tensor, "N D"],
        weight: Float[Tensor, "V D"],
        bias: Float[Tensor, " V"] | None,
        targets: Int64[Tensor, " N"],
        smoothing: float,
        rows: int,
        differs: bool,
    ) -> tuple[Tensor, Tensor]:
        kind = features.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else features.dtype
        cast, cast_bias = weight.to(dtype), None if bias is None else bias.to(dtype)
        sums = torch.zeros(2, dtype=_wide(dtype), device=features.device)  # nats, and of the uniform distribution
        if differs:
            of_features, of_weight = torch.empty_like(features), torch.zeros_like(weight, dtype=sums.dtype)
            of_bias = None if bias is None else torch.zeros_like(bias, dtype=sums.dtype)
        with torch.autocast(kind, enabled=False):
            for start in range(0, len(targets), rows):
                block, target = features[start : start + rows].to(dtype), targets[start : start + rows, None]
                logits = block @ cast.T if cast_bias is None else torch.addmm(cast_bias, block, cast.T)
                change = _add_losses(sums, logits, target, smoothing)
                del logits
                if not differs:
                    continue
                if of_bias is not None:
                    of_bias += change.sum(0)
                change = change.to(dtype)
                of_features[start : start + rows] = change @ cast
                if of_weight.dtype == dtype:
                    of_weight.addmm_(change.T, block)
                else:
                    of_weight += change.T @ block
                del change
        if differs:
            ctx.save_for_backward(of_features, of_weight, *([] if of_bias is None else [of_bias]))
        nats = sums[0].clone()
        ctx.mark_non_differentiable(nats)
        return nats, (1 - smoothing) * nats + smoothing * sums[1]

    @staticmethod
    def backward(ctx: BackwardCFunction, _: Tensor, scale: Tensor) -> tuple[Tensor | None, ...]:
        # In place: the gradient of the weight can be the largest tensor of a step.
        scaled = [each.mul_(scale) for each in ctx.saved_tensors]
        return (*scaled, *[None] * (7 - len(scaled)))


_in_blocks: Callable[..., tuple[Tensor, Tensor]] = _Blocks.apply


def _add_losses(
    sums: Float[Tensor, "2"], logits: Float[Tensor, "K V"], target: Int64[Tensor, "K 1"], smoothing: float
) -> Float[Tensor, "K V"]:
    """Add the losses of a block to the sums; return the gradient of the smoothed loss by the logits.

    It is the probability of a token minus that in the smoothed target.
    """
    keep, place = target != IGNORE, target.clamp(min=0)
    logs = logits.log_softmax(-1, dtype=sums.dtype)
    sums[0] -= (logs.gather(1, place) * keep).sum()
    if smoothing:
        sums[1] -= (logs.mean(-1, keepdim=True) * keep).sum()
    change = logs.exp_()
    if smoothing:
        change -= smoothing / change.shape[1]
    change.scatter_add_(1, place, torch.full_like(place, smoothing - 1, dtype=change.dtype))
    return change.mul_(keep)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Return the type of sums: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)
