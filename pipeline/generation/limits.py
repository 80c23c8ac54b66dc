"""Limits on the length and the repetitions of generated texts.

Legend: R rows, V tokens of the vocabulary, N new tokens.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Limits:
    """Limits on the length and the repetitions of a continuation.

    Args:
        tokens: maximum number of new tokens, including EOS.
        at_least: minimum number of new tokens, including EOS.
        eos: the EOS token, which ends a row; None continues each row to its limit.
        no_repeat: length of n-grams that are not generated twice in a text (Paulus et al. 2018, section 2.5); 0
            allows repetition.

    Raises:
        ValueError: a limit is out of range.
    """

    tokens: int = 200
    at_least: int = 0
    eos: int | None = None
    no_repeat: int = 0

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"tokens={self.tokens} must be at least 1")
        if not 0 <= self.at_least <= self.tokens:
            raise ValueError(f"at_least={self.at_least} must be between 0 and tokens={self.tokens}")
        if self.no_repeat < 0:
            raise ValueError(f"no_repeat={self.no_repeat} must be at least 0")


def apply_limits(
    logits: Float[Tensor, "R V"],
    lengths: Int64[Tensor, " R"],
    texts: Int64[Tensor, "R N"],
    limits: Limits,
    each: int = 1,
) -> Float[Tensor, "R V"]:
    """Return logits without the tokens that the limits exclude; raise ValueError if none is left or is finite.

    Args:
        logits: logits of the next token.
        lengths: number of new tokens per row; 0 for finished rows.
        texts: the new tokens, followed by arbitrary values.
        limits: exclude EOS in rows that are too short, and tokens that repeat an n-gram.
        each: rows per prompt, for the message.
    """
    if limits.eos is not None and limits.at_least > 0:
        is_eos = torch.arange(logits.shape[1], device=logits.device) == limits.eos
        logits = logits.masked_fill((lengths + 1 < limits.at_least)[:, None] & is_eos, -torch.inf)
    if limits.no_repeat:
        logits = logits.masked_fill(repeats_ngram(texts, lengths, limits.no_repeat, logits.shape[1]), -torch.inf)
    usable = logits.amax(-1).isfinite()  # The maximum is NaN or infinite, or -infinite if all tokens are excluded.
    if not usable.all():
        row = int((~usable).nonzero()[0]) // each
        raise ValueError(f"row {row}: no token can be chosen, as logits are NaN, infinite or all excluded")
    return logits


def repeats_ngram(texts: Int64[Tensor, "R N"], lengths: Int64[Tensor, " R"], n: int, vocab: int) -> Bool[Tensor, "R V"]:
    """Return True for the tokens that would complete an n-gram that the text already has.

    Args:
        texts: tokens, followed by arbitrary values.
        lengths: number of tokens per text.
        n: length of the n-grams.
        vocab: V.
    """
    rows, longest = texts.shape
    forbidden = torch.zeros(rows, vocab + 1, dtype=torch.bool, device=texts.device)  # with one slot for no token
    if n > longest:
        return forbidden[:, :vocab]
    back = torch.arange(1 - n, 0, device=texts.device)
    last = texts.gather(1, (lengths[:, None] + back).clamp(min=0))  # the n - 1 tokens before the next one
    grams = texts.unfold(1, n, 1)
    inside = torch.arange(n - 1, longest, device=texts.device) < lengths[:, None]  # where an n-gram ends
    same = (grams[..., :-1] == last[:, None]).all(-1) & inside
    return forbidden.scatter(1, torch.where(same, grams[..., -1], vocab), True)[:, :vocab]
