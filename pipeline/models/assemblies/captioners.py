"""Captioning models: an image encoder with a text decoder.

Vinyals et al. (2015), "Show and Tell"; Xu et al. (2015), "Show, Attend and Tell".
"""

from collections.abc import Callable
from typing import TypeAlias

from torch import nn

from pipeline.models.assemblies.decoders import AttentionDecoder, VectorDecoder
from pipeline.models.encoders.image import ImageEncoder, ResNet, VisionTransformer
from pipeline.models.layers.cross_attention import AdditiveAttention, Attention
from pipeline.models.lstm import LSTM
from pipeline.models.transformer import Transformer
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.tasks.sequence_to_sequence import Evaluation, SequenceToSequence
from pipeline.tasks.token_prediction import TokenHead

__all__ = ["ShowAndTell", "ShowAttendTell", "TransformerCaptioner"]

MakeEncoder: TypeAlias = Callable[[int, int], ImageEncoder]
"""Creates an encoder from the width of its memory and the size of its images."""


class ShowAndTell(SequenceToSequence):
    """A decoder that reads the image as one vector before the first token (Vinyals et al. 2015).

    Args:
        vocab_size: tokens of captions, set from the dataset.
        image_size: side length of the images in pixels, set from the data.
        encoder: class of the image encoder, with its arguments.
        network: class of the decoder's network.
        width: features of the decoder.
        depth: layers of the decoder.
        dropout: fraction of the decoder's features dropped in training.
        head: settings of the embedding and the output layer.
        evaluation: how texts are generated and scored in validation and test.
        scheduled_sampling: fraction of the decoder's inputs replaced by its own predictions in training.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
    """

    def __init__(
        self,
        vocab_size: int,
        image_size: int,
        encoder: MakeEncoder = ResNet,
        network: type[nn.Module] = LSTM,
        width: int = 256,
        depth: int = 1,
        dropout: float = 0.0,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        evaluation: Evaluation = Evaluation(),  # noqa: B008  # frozen
        scheduled_sampling: float = 0.0,
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        decoder = VectorDecoder(network(width=width, depth=depth, dropout=dropout))
        made = encoder(width, image_size)
        super().__init__(made, decoder, vocab_size, head, evaluation, scheduled_sampling, optimizer, schedule)


class ShowAttendTell(SequenceToSequence):
    """A decoder with soft attention to the regions of the image (Xu et al. 2015).

    Args:
        vocab_size: tokens of captions, set from the dataset.
        image_size: side length of the images in pixels, set from the data.
        encoder: class of the image encoder, with its arguments.
        network: class of the decoder's network.
        width: features of the decoder.
        depth: layers of the decoder.
        dropout: fraction of the decoder's features dropped in training.
        attention: class of the attention over the image regions.
        input_feeding: add the decoder's last attentional output to its next input.
        head: settings of the embedding and the output layer.
        evaluation: how texts are generated and scored in validation and test.
        scheduled_sampling: fraction of the decoder's inputs replaced by its own predictions in training.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
    """

    def __init__(
        self,
        vocab_size: int,
        image_size: int,
        encoder: MakeEncoder = ResNet,
        network: type[nn.Module] = LSTM,
        width: int = 256,
        depth: int = 1,
        dropout: float = 0.0,
        attention: type[Attention] = AdditiveAttention,
        input_feeding: bool = True,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        evaluation: Evaluation = Evaluation(),  # noqa: B008  # frozen
        scheduled_sampling: float = 0.0,
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        inner = network(width=width, depth=depth, dropout=dropout)
        decoder = AttentionDecoder(inner, attention, input_feeding, dropout)
        made = encoder(width, image_size)
        super().__init__(made, decoder, vocab_size, head, evaluation, scheduled_sampling, optimizer, schedule)


class TransformerCaptioner(SequenceToSequence):
    """A Transformer decoder with cross-attention to the regions of the image in every layer.

    Args:
        vocab_size: tokens of captions, set from the dataset.
        image_size: side length of the images in pixels, set from the data.
        encoder: class of the image encoder, with its arguments.
        width: features of the decoder.
        depth: blocks of the decoder.
        heads: number of attention heads.
        hidden: features inside the position-wise layers.
        dropout: fraction of the decoder's features and attention weights dropped in training.
        head: settings of the embedding and the output layer.
        evaluation: how texts are generated and scored in validation and test.
        scheduled_sampling: fraction of the decoder's inputs replaced by its own predictions in training.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
    """

    def __init__(
        self,
        vocab_size: int,
        image_size: int,
        encoder: MakeEncoder = VisionTransformer,
        width: int = 256,
        depth: int = 3,
        heads: int = 4,
        hidden: int | None = None,
        dropout: float = 0.1,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        evaluation: Evaluation = Evaluation(),  # noqa: B008  # frozen
        scheduled_sampling: float = 0.0,
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        decoder = Transformer(width, depth, heads, hidden, dropout, decodes=True)
        made = encoder(width, image_size)
        super().__init__(made, decoder, vocab_size, head, evaluation, scheduled_sampling, optimizer, schedule)
