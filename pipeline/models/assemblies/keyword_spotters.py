"""Keyword spotting models: an LSTM, convolutions or a Transformer over a spectrogram."""

from torch import nn

from pipeline.models.encoders.audio import ConvStack, Ear, SoundEncoder
from pipeline.models.encoders.text import BidirectionalStack, TransformerStack
from pipeline.models.lstm import LSTM
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.tasks.classifier import Classifier

__all__ = ["ConvKeywords", "LSTMKeywords", "TransformerKeywords"]


class LSTMKeywords(Classifier):
    """Bidirectional LSTMs (Graves and Schmidhuber 2005) with mean pooling over all positions.

    Args:
        classes: number of labels, set from the dataset.
        rate: samples per second, set from the dataset.
        width: features.
        depth: layers of two LSTMs each.
        dropout: fraction of the features dropped in training.
        ear: settings of the audio front end.
        network: class of the networks, any causal network of this package.
        label_smoothing: fraction of a label's probability that training spreads over all classes.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
    """

    def __init__(
        self,
        classes: int | None,
        rate: int,
        width: int = 128,
        depth: int = 2,
        dropout: float = 0.1,
        ear: Ear = Ear(),  # noqa: B008  # frozen
        network: type[nn.Module] = LSTM,
        label_smoothing: float = 0.0,
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        body = BidirectionalStack(network, width, depth, dropout)
        super().__init__(SoundEncoder(body, rate, width, ear, dropout), classes, label_smoothing, optimizer, schedule)


class ConvKeywords(Classifier):
    """Depthwise separable convolutions (Zhang et al. 2017, "Hello Edge"), in residual blocks.

    Args:
        classes: number of labels, set from the dataset.
        rate: samples per second, set from the dataset.
        width: features.
        depth: blocks.
        kernel: size of the convolutions, in positions.
        dropout: fraction of the features dropped in training.
        ear: settings of the audio front end.
        label_smoothing: fraction of a label's probability that training spreads over all classes.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
    """

    def __init__(
        self,
        classes: int | None,
        rate: int,
        width: int = 128,
        depth: int = 4,
        kernel: int = 7,
        dropout: float = 0.1,
        ear: Ear = Ear(),  # noqa: B008  # frozen
        label_smoothing: float = 0.0,
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        body = ConvStack(width, depth, kernel, dropout)
        super().__init__(SoundEncoder(body, rate, width, ear, dropout), classes, label_smoothing, optimizer, schedule)


class TransformerKeywords(Classifier):
    """Attention over all positions (Berg, O'Connor and Cruz 2021, "Keyword Transformer").

    Args:
        classes: number of labels, set from the dataset.
        rate: samples per second, set from the dataset.
        width: features.
        depth: blocks.
        heads: number of attention heads; must divide the width.
        dropout: fraction of the features and attention weights dropped in training.
        ear: settings of the audio front end.
        label_smoothing: fraction of a label's probability that training spreads over all classes.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
    """

    def __init__(
        self,
        classes: int | None,
        rate: int,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.1,
        ear: Ear = Ear(),  # noqa: B008  # frozen
        label_smoothing: float = 0.0,
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        body = TransformerStack(width, depth, heads, None, dropout)
        super().__init__(SoundEncoder(body, rate, width, ear, dropout), classes, label_smoothing, optimizer, schedule)
