"""The input of a network: one NamedTuple of tensors per modality, with its shapes.

Legend: B sequences, S positions of a source, T positions, L steps of a context, H steps of a horizon, K covariates or
keys, O numbers of an observation, A numbers of an action.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped
from torch import Tensor

from pipeline.data.documents import Documents

IGNORE = -100  # target of a padding position, excluded from the loss


class TokenBatch(NamedTuple):
    """One rank's part of a global batch of text."""

    inputs: Int64[Tensor, "B T"]
    """Input tokens; the first position of a corpus reads the EOS token."""
    targets: Int64[Tensor, "B T"]
    """Target tokens, each the next input; IGNORE at padding."""
    documents: Documents | None
    """The documents in the rows, each of which is read alone. None if the state is never reset."""
    ids: Int64[Tensor, " B"]
    """The sample of each row; -1 in a row that only fills the batch."""
    predictions: int
    """Number of targets in the whole global batch, over all ranks and micro-batches; the loss is divided by it."""
    step: int
    """Index of the global batch within the epoch."""
    slot: int | None
    """Index of the carried state that this batch continues, if step > 0, and updates; None without a carried state."""


class PairBatch(NamedTuple):
    """One rank's part of a global batch of sources with their targets."""

    source: tuple[Tensor, ...]
    """Input of the encoder. Text: tokens (B, S) that end with an EOS token, and a mask of valid positions. Images:
    pixels (B, 3, H, W) from 0 to 255. Sounds: samples (B, S) from -1 to 1, a mask of valid positions, and masked
    intervals (B, K, 2) of time and of frequency, each from 0 to 1."""
    inputs: Int64[Tensor, "B T"]
    """Input tokens: the EOS token, then the target."""
    targets: Int64[Tensor, "B T"]
    """Target tokens: the target, then the EOS token; IGNORE at padding."""
    ids: Int64[Tensor, " B"]
    """The sample of each row; -1 in a row that only fills the batch."""
    predictions: int
    """Number of targets in the whole global batch, over all ranks and micro-batches; the loss is divided by it."""
    padding: int
    """Number of padding positions in this batch, sources and targets."""
    positions: int
    """Number of positions in this batch, sources and targets."""
    step: int
    """Index of the global batch within the epoch."""
    slot: None = None
    """No state is carried from batch to batch."""


class LabelBatch(NamedTuple):
    """One rank's part of a global batch of sources with one label each."""

    source: tuple[Tensor, ...]
    """Input of the encoder, as in a `PairBatch`."""
    labels: Int64[Tensor, " B"]
    """The class of each source; IGNORE in a row that only fills the batch."""
    ids: Int64[Tensor, " B"]
    """The sample of each row; -1 in a row that only fills the batch."""
    predictions: int
    """Number of labels in the whole global batch, over all ranks and micro-batches; the loss is divided by it."""
    padding: int
    """Number of padding positions in this batch's sources."""
    positions: int
    """Number of positions in this batch's sources."""
    step: int
    """Index of the global batch within the epoch."""
    slot: None = None
    """No state is carried from batch to batch."""


class SeriesBatch(NamedTuple):
    """One rank's part of a global batch of windows of time series."""

    context: Float32[Tensor, "B L"]
    """Standardized input values."""
    targets: Float32[Tensor, "B H"]
    """Standardized target values; at unobserved steps, the last value before."""
    observed: Bool[Tensor, "B H"]
    """True where a target is to be predicted; False in a row that only fills the batch."""
    known: Float32[Tensor, "B L+H K"]
    """Covariates that are known in advance, at the steps of the context and the horizon."""
    naive_errors: Float64[Tensor, " B"]
    """Error of the seasonal naive forecast in the training part of each row's series, for scaled errors."""
    ids: Int64[Tensor, " B"]
    """The sample of each row; -1 in a row that only fills the batch."""
    predictions: int
    """Number of targets in the whole global batch, over all ranks and micro-batches; the loss is divided by it."""
    step: int
    """Index of the global batch within the epoch."""
    slot: None = None
    """No state is carried from batch to batch."""


class TrajectoryBatch(NamedTuple):
    """One rank's part of a global batch of segments of episodes."""

    observations: Float[Tensor, "B T O"]
    """The observation before each action, in the units of the environment and the precision of the dataset."""
    before: Shaped[Tensor, "B T *A"]
    """The previous action; -1, or NaN for continuous actions, at the first step of an episode."""
    returns: Float32[Tensor, "B T"]
    """The return-to-go of each step."""
    actions: Shaped[Tensor, "B T *A"]
    """The actions: indices of discrete actions (B, T), or continuous actions (B, T, A)."""
    inside: Bool[Tensor, "B T"]
    """True at a step of the episode; False after its end and in a row that only fills the batch."""
    ids: Int64[Tensor, " B"]
    """The sample of each row; -1 in a row that only fills the batch."""
    predictions: int
    """Number of actions in the whole global batch, over all ranks and micro-batches; the loss is divided by it."""
    padding: int
    """Number of padding positions in this batch."""
    positions: int
    """Number of positions in this batch."""
    step: int
    """Index of the global batch within the epoch."""
    slot: None = None
    """No state is carried from batch to batch."""


class MusicBatch(NamedTuple):
    """One rank's part of a global batch of pieces of music."""

    inputs: Bool[Tensor, "B T K"]
    """The keys that sound in each frame but the last of its piece."""
    targets: Bool[Tensor, "B T K"]
    """The keys of the next frame."""
    inside: Bool[Tensor, "B T"]
    """True at a target of the piece; False after its end and in a row that only fills the batch."""
    ids: Int64[Tensor, " B"]
    """The sample of each row; -1 in a row that only fills the batch."""
    predictions: int
    """Number of targets in the whole global batch, over all ranks and micro-batches; the loss is divided by it."""
    padding: int
    """Number of padding positions in this batch."""
    positions: int
    """Number of positions in this batch."""
    step: int
    """Index of the global batch within the epoch."""
    slot: None = None
    """No state is carried from batch to batch."""


Batch = TokenBatch | PairBatch | LabelBatch | SeriesBatch | TrajectoryBatch | MusicBatch
