"""What a network is fed: one NamedTuple of tensors a modality, with its shapes.

Legend: B sequences, T positions.
"""

from typing import NamedTuple

from jaxtyping import Bool, Int64
from torch import Tensor

IGNORE = -100  # a target that is not to be predicted: padding


class TokenBatch(NamedTuple):
    """One rank's share of a global batch of text."""

    inputs: Int64[Tensor, "B T"]
    """Tokens read; position 0 of a corpus reads the end mark."""
    targets: Int64[Tensor, "B T"]
    """Tokens to predict, each the next input; IGNORE where there is nothing to predict."""
    starts: Bool[Tensor, "B T"] | None
    """True where a document starts: the state is reset before this position. None where no row is cut."""
    ids: Int64[Tensor, " B"]
    """The sample of each row, -1 for a row that only fills the batch."""
    predictions: int
    """Targets in the whole global batch, over all ranks and micro-batches: what the loss is divided by."""
    step: int
    """Which global batch of the epoch this is a part of."""
    slot: int | None
    """Which carried state this batch continues, if step > 0, and leaves; None where no state is carried."""
