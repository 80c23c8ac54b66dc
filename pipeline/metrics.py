"""A metric is a sum over tokens divided once, globally: the same number on any number of processes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class TokenLoss(Metric):
    """Nats a token: the summed negative log-likelihood over the number of predicted tokens."""

    full_state_update = False
    nats: Tensor
    predictions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("nats", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("predictions", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, nats: Tensor, predictions: Tensor) -> None:
        """Add one batch: its summed nats and the number of its predictions, both scalars."""
        self.nats += nats
        self.predictions += predictions

    def compute(self) -> Tensor:
        """Nats a token, over all processes."""
        return self.nats / self.predictions


def perplexity(nats: float) -> float:
    """exp of the nats a token, infinite where it overflows."""
    return math.exp(nats) if nats < 700 else math.inf


def bits_per_byte(nats: float, tokens: int, size: int) -> float:
    """Bits a byte of source text, given nats a token; comparable between tokenizers.

    Args:
        tokens: tokens of the text.
        size: its length in bytes of UTF-8.
    """
    return nats / math.log(2) * tokens / size


class Score(ABC):
    """A measure of written texts beside those that were to be written."""

    @abstractmethod
    def __call__(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Its values, by name; of each text's several references any counts."""
