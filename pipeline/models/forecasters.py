"""The causal networks of the house as forecasters, each with a flat config: nothing but their names differs.

Legend: B windows, T positions, D features.
"""

from typing import Any

from pipeline.models.conv import ConvNet
from pipeline.models.gru import GRU
from pipeline.models.linear_recurrence import LinearRecurrence
from pipeline.models.lstm import LSTM
from pipeline.models.rnn import RNN
from pipeline.models.transformer import Transformer
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.tasks.forecaster import Forecaster, Saying

__all__ = [
    "ConvForecaster",
    "GRUForecaster",
    "LSTMForecaster",
    "LinearRecurrenceForecaster",
    "RNNForecaster",
    "TransformerForecaster",
]


class RNNForecaster(Forecaster):
    """The forecaster whose network is a `RNN`."""

    def __init__(
        self,
        horizon: int,
        covariates: int = 0,
        saying: Saying = Saying(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(RNN(**network), horizon, covariates, saying, optimizer, schedule)


class GRUForecaster(Forecaster):
    """The forecaster whose network is a `GRU`."""

    def __init__(
        self,
        horizon: int,
        covariates: int = 0,
        saying: Saying = Saying(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(GRU(**network), horizon, covariates, saying, optimizer, schedule)


class LSTMForecaster(Forecaster):
    """The forecaster whose network is a `LSTM`."""

    def __init__(
        self,
        horizon: int,
        covariates: int = 0,
        saying: Saying = Saying(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(LSTM(**network), horizon, covariates, saying, optimizer, schedule)


class ConvForecaster(Forecaster):
    """The forecaster whose network is a `ConvNet`."""

    def __init__(
        self,
        horizon: int,
        covariates: int = 0,
        saying: Saying = Saying(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(ConvNet(**network), horizon, covariates, saying, optimizer, schedule)


class LinearRecurrenceForecaster(Forecaster):
    """The forecaster whose network is a `LinearRecurrence`."""

    def __init__(
        self,
        horizon: int,
        covariates: int = 0,
        saying: Saying = Saying(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(LinearRecurrence(**network), horizon, covariates, saying, optimizer, schedule)


class TransformerForecaster(Forecaster):
    """The forecaster whose network is a `Transformer`."""

    def __init__(
        self,
        horizon: int,
        covariates: int = 0,
        saying: Saying = Saying(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(Transformer(**network), horizon, covariates, saying, optimizer, schedule)
