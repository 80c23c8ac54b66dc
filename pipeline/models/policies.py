"""The causal networks of the house as policies, each with a flat config: nothing but their names differs.

Legend: B rows, T positions, D features.
"""

from typing import Any

from pipeline.models.conv import ConvNet
from pipeline.models.gru import GRU
from pipeline.models.linear_recurrence import LinearRecurrence
from pipeline.models.lstm import LSTM
from pipeline.models.rnn import RNN
from pipeline.models.transformer import Transformer
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.tasks.policy import Playing, Policy

__all__ = ["ConvPolicy", "GRUPolicy", "LSTMPolicy", "LinearRecurrencePolicy", "RNNPolicy", "TransformerPolicy"]


class RNNPolicy(Policy):
    """The policy whose network is a `RNN`."""

    def __init__(
        self,
        spaces: dict[str, Any],
        conditioned: bool = True,
        playing: Playing = Playing(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(RNN(**network), spaces, conditioned, playing, optimizer, schedule)


class GRUPolicy(Policy):
    """The policy whose network is a `GRU`."""

    def __init__(
        self,
        spaces: dict[str, Any],
        conditioned: bool = True,
        playing: Playing = Playing(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(GRU(**network), spaces, conditioned, playing, optimizer, schedule)


class LSTMPolicy(Policy):
    """The policy whose network is a `LSTM`."""

    def __init__(
        self,
        spaces: dict[str, Any],
        conditioned: bool = True,
        playing: Playing = Playing(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(LSTM(**network), spaces, conditioned, playing, optimizer, schedule)


class ConvPolicy(Policy):
    """The policy whose network is a `ConvNet`."""

    def __init__(
        self,
        spaces: dict[str, Any],
        conditioned: bool = True,
        playing: Playing = Playing(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(ConvNet(**network), spaces, conditioned, playing, optimizer, schedule)


class LinearRecurrencePolicy(Policy):
    """The policy whose network is a `LinearRecurrence`."""

    def __init__(
        self,
        spaces: dict[str, Any],
        conditioned: bool = True,
        playing: Playing = Playing(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(LinearRecurrence(**network), spaces, conditioned, playing, optimizer, schedule)


class TransformerPolicy(Policy):
    """The policy whose network is a `Transformer`."""

    def __init__(
        self,
        spaces: dict[str, Any],
        conditioned: bool = True,
        playing: Playing = Playing(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(Transformer(**network), spaces, conditioned, playing, optimizer, schedule)
