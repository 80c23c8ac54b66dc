"""A metric is a sum over tokens divided once, globally: the same number on any number of processes.

Legend: B sequences, C classes.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor
from torchmetrics import Metric


class TokenLoss(Metric):
    """Nats per token: the summed negative log-likelihood over the number of predicted tokens."""

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
        """Nats per token, over all processes."""
        return self.nats / self.predictions


class Accuracy(Metric):
    """The share of predictions that are right."""

    full_state_update = False
    right: Tensor
    predictions: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("right", "predictions"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, right: Tensor, predictions: Tensor) -> None:
        """Add one batch: how many of its predictions are right, and how many there are, both scalars."""
        self.right += right
        self.predictions += predictions

    def compute(self) -> Tensor:
        """The share, over all processes."""
        return self.right / self.predictions


class Returns(Metric):
    """The mean return of the episodes that a policy played."""

    full_state_update = False
    rewards: Tensor
    episodes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rewards", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("episodes", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, returns: Sequence[float]) -> None:
        """Add the return of each episode."""
        self.rewards += sum(returns)
        self.episodes += len(returns)

    def compute(self) -> Tensor:
        """The mean, over all processes."""
        return self.rewards / self.episodes


class Confusion(Metric):
    """How often each class (row) was taken for each (column).

    Args:
        classes: C.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.add_state("counts", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, found: Int64[Tensor, " B"], labels: Int64[Tensor, " B"]) -> None:
        """Add one batch; negative labels do not count."""
        pairs = (labels * self.classes + found)[labels >= 0]
        self.counts += torch.bincount(pairs, minlength=self.classes**2).view(self.classes, self.classes)

    def compute(self) -> Int64[Tensor, "C C"]:
        """The counts of all processes."""
        return self.counts


def perplexity(nats: float) -> float:
    """exp of the nats per token, infinite where it overflows."""
    return math.exp(nats) if nats < 700 else math.inf


def bits_per_byte(nats: float, tokens: int, size: int) -> float:
    """Bits per byte of source text, given nats per token; comparable between tokenizers.

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

    def signature(self) -> str | None:
        """How the last value was computed, as a paper that reports it should say; None where the name says it."""
        return None
