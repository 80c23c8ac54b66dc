"""A model of raw sound predicts each sample's mu-law level from those before it, and hears its label all the time.

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
        vocab_size: levels, end mark and labels; the data knows it.
        rate: samples a second; the data knows it.
        head: how tokens become vectors and vectors become predictions.
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.
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
