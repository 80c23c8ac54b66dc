"""Translators: encoders and decoders of texts under their names; a YAML says the rest.

Whatever comes as pairs of texts can be learned: languages, spelling and sound, question and answer.
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
    """Any encoder of texts with any decoder, put together in a YAML.

    Args:
        vocab_size: tokens of targets; the dataset knows it.
        source_vocab_size: tokens of sources; the dataset knows it.
        encoder: makes the encoder from the number of its tokens.
        decoder: a network of the same width that begins with a memory.
        head: how tokens become vectors and vectors become predictions.
        evaluation: what a validation and a test write and score.
        scheduled_sampling: share of the decoder's inputs that are its own guesses in training.
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.
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
    """One LSTM reads the source into a vector, another writes the target from it (Sutskever et al. 2014).

    Args:
        vocab_size: tokens of targets; the dataset knows it.
        source_vocab_size: tokens of sources; the dataset knows it.
        width: features.
        depth: layers of the encoder, and of the decoder.
        dropout: share of the features dropped in training.
        head: how tokens become vectors and vectors become predictions.
        evaluation: what a validation and a test write and score.
        scheduled_sampling: share of the decoder's inputs that are its own guesses in training.
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.
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
    """The decoder looks back at all positions of the source at every step (Bahdanau et al. 2015).

    Args:
        vocab_size: tokens of targets; the dataset knows it.
        source_vocab_size: tokens of sources; the dataset knows it.
        network: class of the recurrent networks.
        width: features.
        depth: layers of the encoder, and of the decoder.
        dropout: share of the features dropped in training.
        attention: what weighs the source's positions.
        input_feeding: give the decoder what it saw last, beside its input.
        head: how tokens become vectors and vectors become predictions.
        evaluation: what a validation and a test write and score.
        scheduled_sampling: share of the decoder's inputs that are its own guesses in training.
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.
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
    """Attention alone, in encoder and decoder (Vaswani et al. 2017), pre-norm with rotary positions.

    Args:
        vocab_size: tokens of targets; the dataset knows it.
        source_vocab_size: tokens of sources; the dataset knows it.
        width: features.
        depth: blocks of the encoder, and of the decoder.
        heads: number of attention heads.
        hidden: features inside the position-wise layers.
        dropout: share of the features and attention weights dropped in training.
        head: how tokens become vectors and vectors become predictions.
        evaluation: what a validation and a test write and score.
        scheduled_sampling: share of the decoder's inputs that are its own guesses in training.
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.
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
