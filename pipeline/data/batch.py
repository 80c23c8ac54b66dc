"""What a network is fed: one NamedTuple of tensors a modality, with its shapes.

Legend: B sequences, S positions of a source, T positions, L steps of a context, H of a horizon, K covariates,
O numbers of an observation, A of an action.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float32, Float64, Int64, Shaped
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


class PairBatch(NamedTuple):
    """One rank's share of a global batch of sources with their targets."""

    source: tuple[Tensor, ...]
    """What the encoder is given: of a text, tokens (B, S) that end in an end mark, and where there are some; of
    images, pixels (B, 3, H, W) from 0 to 255; of sounds, samples (B, S) from -1 to 1, where there are some, and
    stretches (B, K, 2) of time and of frequency to be hidden, each from 0 to 1."""
    inputs: Int64[Tensor, "B T"]
    """Tokens read: the end mark, then the target."""
    targets: Int64[Tensor, "B T"]
    """Tokens to predict: the target, then the end mark; IGNORE where there is nothing to predict."""
    ids: Int64[Tensor, " B"]
    """The sample of each row, -1 for a row that only fills the batch."""
    predictions: int
    """Targets in the whole global batch, over all ranks and micro-batches: what the loss is divided by."""
    padding: int
    """Positions of this batch, sources and targets, at which there is nothing."""
    positions: int
    """All positions of this batch, sources and targets."""
    step: int
    """Which global batch of the epoch this is a part of."""
    slot: None = None
    """No state is carried from batch to batch."""


class LabelBatch(NamedTuple):
    """One rank's share of a global batch of sources with one label each."""

    source: tuple[Tensor, ...]
    """What the encoder is given, as in a `PairBatch`."""
    labels: Int64[Tensor, " B"]
    """The class of each source; IGNORE in a row that only fills the batch."""
    ids: Int64[Tensor, " B"]
    """The sample of each row, -1 for a row that only fills the batch."""
    predictions: int
    """Labels in the whole global batch, over all ranks and micro-batches: what the loss is divided by."""
    padding: int
    """Positions of this batch's sources at which there is nothing."""
    positions: int
    """All positions of this batch's sources."""
    step: int
    """Which global batch of the epoch this is a part of."""
    slot: None = None
    """No state is carried from batch to batch."""


class SeriesBatch(NamedTuple):
    """One rank's share of a global batch of windows of series."""

    context: Float32[Tensor, "B L"]
    """Standardised values that are read."""
    targets: Float32[Tensor, "B H"]
    """Standardised values to predict; where nothing was observed, the last value before."""
    observed: Bool[Tensor, "B H"]
    """Where a target is to be predicted; nowhere in a row that only fills the batch."""
    known: Float32[Tensor, "B L+H K"]
    """Covariates that are known ahead, at the steps of the context and the horizon."""
    naive_errors: Float64[Tensor, " B"]
    """Error of the seasonal naive forecast in the training part of each row's series."""
    ids: Int64[Tensor, " B"]
    """The sample of each row, -1 for a row that only fills the batch."""
    predictions: int
    """Targets in the whole global batch, over all ranks and micro-batches: what the loss is divided by."""
    step: int
    """Which global batch of the epoch this is a part of."""
    slot: None = None
    """No state is carried from batch to batch."""


class TrajectoryBatch(NamedTuple):
    """One rank's share of a global batch of stretches of episodes."""

    observations: Float32[Tensor, "B T O"]
    """What was seen before each action, in the units of the environment."""
    before: Shaped[Tensor, "B T *A"]
    """The action of the step before; -1, or NaN for numbers, at the first step of an episode."""
    returns: Float32[Tensor, "B T"]
    """The return-to-go of each step."""
    actions: Shaped[Tensor, "B T *A"]
    """What was done: the number of a choice (B, T), or numbers (B, T, A)."""
    inside: Bool[Tensor, "B T"]
    """Where there is a step: nowhere after an episode's end, nor in a row that only fills the batch."""
    ids: Int64[Tensor, " B"]
    """The sample of each row, -1 for a row that only fills the batch."""
    predictions: int
    """Actions in the whole global batch, over all ranks and micro-batches: what the loss is divided by."""
    padding: int
    """Positions of this batch at which there is nothing."""
    positions: int
    """All positions of this batch."""
    step: int
    """Which global batch of the epoch this is a part of."""
    slot: None = None
    """No state is carried from batch to batch."""
