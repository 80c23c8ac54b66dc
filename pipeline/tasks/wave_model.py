"""Autoregressive models of raw audio over mu-law levels, conditioned on a class label.

Van den Oord et al. (2016), "WaveNet: A Generative Model for Raw Audio".
"""

from torch import nn

from pipeline.dataset.codecs.audio import LEVELS
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.tasks.level_model import LevelModel
from pipeline.tasks.task import Writes
from pipeline.tasks.token_prediction import TokenHead


class WaveModel(LevelModel):
    """Next-level prediction with any causal network.

    Args:
        network: maps (B, T, D) and a state to (B, T, D) and a state; has a `width` D.
        vocab_size: levels, EOS and labels, set from the data.
        rate: samples per second, set from the data.
        head: settings of the embedding and the output layer.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
    """

    writes: Writes = "audio"

    def __init__(
        self,
        network: nn.Module,
        vocab_size: int,
        rate: int,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(network, vocab_size, LEVELS, head, optimizer, schedule)
        self.rate = rate
