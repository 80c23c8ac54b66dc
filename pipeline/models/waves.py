"""Models of raw sound under their names: networks for language, over mu-law levels."""

from typing import Any

from pipeline.models.conv import ConvNet
from pipeline.models.lstm import LSTM
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.tasks.token_prediction import TokenHead
from pipeline.tasks.wave_model import WaveModel

__all__ = ["WaveLSTM", "WaveNet"]


class WaveNet(WaveModel):
    """The model of raw sound whose network is a `ConvNet` (Van den Oord et al. 2016)."""

    def __init__(
        self,
        vocab_size: int,
        rate: int,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(ConvNet(**network), vocab_size, rate, head, optimizer, schedule)


class WaveLSTM(WaveModel):
    """The model of raw sound whose network is an `LSTM`, one step a sample."""

    def __init__(
        self,
        vocab_size: int,
        rate: int,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(LSTM(**network), vocab_size, rate, head, optimizer, schedule)
