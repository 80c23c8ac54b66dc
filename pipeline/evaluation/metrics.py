"""Metrics as sums divided once, globally, so that they do not depend on the number of processes.

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
        self.nats.add_(nats)  # not +=, which would also assign the attribute, at ten times the cost
        self.predictions.add_(predictions)

    def compute(self) -> Tensor:
        """Return nats per token over all processes."""
        return self.nats / self.predictions


class Accuracy(Metric):
    """The fraction of correct predictions."""

    full_state_update = False
    right: Tensor
    predictions: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("right", "predictions"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, right: Tensor, predictions: Tensor) -> None:
        """Add one batch: the numbers of its correct predictions and of all its predictions, both scalars."""
        self.right += right
        self.predictions += predictions

    def compute(self) -> Tensor:
        """Return the fraction over all processes."""
        return self.right / self.predictions


class Returns(Metric):
    """The mean return of a policy's episodes."""

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
        """Return the mean over all processes."""
        return self.rewards / self.episodes


class Confusion(Metric):
    """The confusion matrix: counts of true classes (rows) by predicted classes (columns).

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
        """Add one batch; negative labels are ignored."""
        pairs = (labels * self.classes + found)[labels >= 0]
        self.counts += torch.bincount(pairs, minlength=self.classes**2).view(self.classes, self.classes)

    def compute(self) -> Int64[Tensor, "C C"]:
        """Return the counts of all processes."""
        return self.counts


def perplexity(nats: float) -> float:
    """Return exp of the nats per token, infinite if it overflows."""
    return math.exp(nats) if nats < 700 else math.inf


def bits_per_byte(nats: float, tokens: int, size: int) -> float:
    """Convert nats per token to bits per byte of source text, which are comparable between tokenizers.

    Args:
        nats: nats per token.
        tokens: number of tokens of the text.
        size: its length in bytes of UTF-8.
    """
    return nats / math.log(2) * tokens / size


class Score(ABC):
    """A score of generated texts against reference texts."""

    @abstractmethod
    def __call__(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Return the values by name; each text can have several references."""

    def signature(self) -> str | None:
        """Return the settings of the last value, as papers should report them; None if the name defines them."""
        return None
