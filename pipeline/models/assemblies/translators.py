"""Translation models: text encoders with text decoders.

They apply to any pairs of texts, such as translation, pronunciation, or questions and answers.
"""

from collections.abc import Callable

from torch import nn

from pipeline.models.assemblies.decoders import AttentionDecoder, VectorDecoder
from pipeline.models.encoders.text import BidirectionalEncoder, TransformerEncoder
from pipeline.models.gru import GRU
from pipeline.models.layers.cross_attention import AdditiveAttention, Attention
from pipeline.models.lstm import LSTM
from pipeline.models.transformer import Transformer
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.tasks.sequence_to_sequence import Evaluation, SequenceToSequence
from pipeline.tasks.token_prediction import TokenHead

__all__ = ["AttentionTranslator", "LSTMTranslator", "TransformerTranslator", "Translator"]


class Translator(SequenceToSequence):
    """A text encoder with a decoder, composed in a config file.

    Args:
        vocab_size: tokens of targets, set from the dataset.
        source_vocab_size: tokens of sources, set from the dataset.
        encoder: creates the encoder from the number of source tokens.
        decoder: a decoder of the same width.
        head: settings of the embedding and the output layer.
        evaluation: how texts are generated and scored in validation and test.
        scheduled_sampling: fraction of the decoder's inputs replaced by its own predictions in training.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
    """

    def __init__(
        self,
        vocab_size: int,
        source_vocab_size: int,
        encoder: Callable[[int], nn.Module],
        decoder: nn.Module,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        evaluation: Evaluation = Evaluation(),  # noqa: B008  # frozen
        scheduled_sampling: float = 0.0,
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        made = encoder(source_vocab_size)
        super().__init__(made, decoder, vocab_size, head, evaluation, scheduled_sampling, optimizer, schedule)


class LSTMTranslator(SequenceToSequence):
    """An LSTM encoder that returns one vector, and an LSTM decoder (Sutskever et al. 2014).

    Args:
        vocab_size: tokens of targets, set from the dataset.
        source_vocab_size: tokens of sources, set from the dataset.
        width: features.
        depth: layers of the encoder, and of the decoder.
        dropout: fraction of the features dropped in training.
        head: settings of the embedding and the output layer.
        evaluation: how texts are generated and scored in validation and test.
        scheduled_sampling: fraction of the decoder's inputs replaced by its own predictions in training.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
    """

    def __init__(
        self,
        vocab_size: int,
        source_vocab_size: int,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        evaluation: Evaluation = Evaluation(),  # noqa: B008  # frozen
        scheduled_sampling: float = 0.0,
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        encoder = BidirectionalEncoder(source_vocab_size, LSTM, width, depth, dropout)
        decoder = VectorDecoder(LSTM(width=width, depth=depth, dropout=dropout))
        super().__init__(encoder, decoder, vocab_size, head, evaluation, scheduled_sampling, optimizer, schedule)


class AttentionTranslator(SequenceToSequence):
    """A recurrent encoder and decoder with attention to the source at every step (Bahdanau et al. 2015).

    Args:
        vocab_size: tokens of targets, set from the dataset.
        source_vocab_size: tokens of sources, set from the dataset.
        network: class of the recurrent networks.
        width: features.
        depth: layers of the encoder, and of the decoder.
        dropout: fraction of the features dropped in training.
        attention: class of the attention over the source.
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
        source_vocab_size: int,
        network: type[nn.Module] = GRU,
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
        encoder = BidirectionalEncoder(source_vocab_size, network, width, depth, dropout)
        inner = network(width=width, depth=depth, dropout=dropout)
        decoder = AttentionDecoder(inner, attention, input_feeding, dropout)
        super().__init__(encoder, decoder, vocab_size, head, evaluation, scheduled_sampling, optimizer, schedule)


class TransformerTranslator(SequenceToSequence):
    """A Transformer encoder and decoder (Vaswani et al. 2017), pre-norm with rotary positions.

    Args:
        vocab_size: tokens of targets, set from the dataset.
        source_vocab_size: tokens of sources, set from the dataset.
        width: features.
        depth: blocks of the encoder, and of the decoder.
        heads: number of attention heads.
        hidden: features inside the position-wise layers.
        dropout: fraction of the features and attention weights dropped in training.
        head: settings of the embedding and the output layer.
        evaluation: how texts are generated and scored in validation and test.
        scheduled_sampling: fraction of the decoder's inputs replaced by its own predictions in training.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
    """

    def __init__(
        self,
        vocab_size: int,
        source_vocab_size: int,
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
        encoder = TransformerEncoder(source_vocab_size, width, depth, heads, hidden, dropout)
        decoder = Transformer(width, depth, heads, hidden, dropout, decodes=True)
        super().__init__(encoder, decoder, vocab_size, head, evaluation, scheduled_sampling, optimizer, schedule)
