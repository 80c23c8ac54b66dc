"""Transcribers: a sound becomes a text, by CTC over LSTMs, attention or Conformers, or by listening and spelling.

The same networks as for keywords, read at every position instead of once for all.
"""

from torch import nn

from pipeline.models.assemblies.decoders import AttentionDecoder
from pipeline.models.encoders.audio import Ear, SoundEncoder
from pipeline.models.encoders.text import BidirectionalStack, TransformerStack
from pipeline.models.layers.conformer import ConformerStack
from pipeline.models.layers.cross_attention import AdditiveAttention, Attention
from pipeline.models.lstm import LSTM
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.tasks.sequence_to_sequence import Evaluation, SequenceToSequence
from pipeline.tasks.token_prediction import TokenHead
from pipeline.tasks.transcriber import Transcriber, Transcription

__all__ = ["ConformerTranscriber", "LSTMTranscriber", "ListenAttendSpell", "TransformerTranscriber"]


class LSTMTranscriber(Transcriber):
    """CTC over bidirectional LSTMs (Graves, Mohamed and Hinton 2013).

    Args:
        vocab_size: tokens of transcripts; the dataset knows it.
        rate: samples a second; the dataset knows it.
        width: features.
        depth: layers of two LSTMs each.
        dropout: share of the features dropped in training.
        ear: how a sound becomes positions.
        network: class of the networks: any causal one of the house.
        transcription: how sounds are transcribed in an evaluation, and how that is scored.
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.
    """

    def __init__(
        self,
        vocab_size: int,
        rate: int,
        width: int = 144,
        depth: int = 2,
        dropout: float = 0.1,
        ear: Ear = Ear(),  # noqa: B008  # frozen
        network: type[nn.Module] = LSTM,
        transcription: Transcription = Transcription(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        encoder = SoundEncoder(BidirectionalStack(network, width, depth, dropout), rate, width, ear, dropout)
        super().__init__(encoder, vocab_size, transcription, optimizer, schedule)


class TransformerTranscriber(Transcriber):
    """CTC over attention alone.

    Args:
        vocab_size: tokens of transcripts; the dataset knows it.
        rate: samples a second; the dataset knows it.
        width: features.
        depth: blocks.
        heads: number of attention heads; must divide the width.
        dropout: share of the features and attention weights dropped in training.
        ear: how a sound becomes positions.
        transcription: how sounds are transcribed in an evaluation, and how that is scored.
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.
    """

    def __init__(
        self,
        vocab_size: int,
        rate: int,
        width: int = 144,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.1,
        ear: Ear = Ear(),  # noqa: B008  # frozen
        transcription: Transcription = Transcription(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        encoder = SoundEncoder(TransformerStack(width, depth, heads, None, dropout), rate, width, ear, dropout)
        super().__init__(encoder, vocab_size, transcription, optimizer, schedule)


class ConformerTranscriber(Transcriber):
    """CTC over Conformer blocks (Gulati et al. 2020).

    Args:
        vocab_size: tokens of transcripts; the dataset knows it.
        rate: samples a second; the dataset knows it.
        width: features.
        depth: blocks.
        heads: number of attention heads; must divide the width.
        kernel: positions that a block's convolution sees; odd.
        dropout: share of the features and attention weights dropped in training.
        ear: how a sound becomes positions.
        transcription: how sounds are transcribed in an evaluation, and how that is scored.
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.
    """

    def __init__(
        self,
        vocab_size: int,
        rate: int,
        width: int = 144,
        depth: int = 3,
        heads: int = 4,
        kernel: int = 15,
        dropout: float = 0.1,
        ear: Ear = Ear(),  # noqa: B008  # frozen
        transcription: Transcription = Transcription(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        encoder = SoundEncoder(ConformerStack(width, depth, heads, kernel, dropout), rate, width, ear, dropout)
        super().__init__(encoder, vocab_size, transcription, optimizer, schedule)


class ListenAttendSpell(SequenceToSequence):
    """Bidirectional LSTMs listen, an LSTM with attention spells (Chan et al. 2016).

    Args:
        vocab_size: tokens of transcripts; the dataset knows it.
        rate: samples a second; the dataset knows it.
        width: features.
        depth: layers of two LSTMs each that listen; one spells.
        dropout: share of the features dropped in training.
        ear: how a sound becomes positions.
        network: class of the networks: any causal one of the house.
        attention: how the memory is weighed.
        head: how tokens become vectors and vectors become predictions.
        evaluation: what a validation and a test write and score.
        scheduled_sampling: share of the decoder's inputs that are its own guesses in training.
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.
    """

    def __init__(
        self,
        vocab_size: int,
        rate: int,
        width: int = 144,
        depth: int = 2,
        dropout: float = 0.1,
        ear: Ear = Ear(),  # noqa: B008  # frozen
        network: type[nn.Module] = LSTM,
        attention: type[Attention] = AdditiveAttention,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        evaluation: Evaluation = Evaluation(),  # noqa: B008  # frozen
        scheduled_sampling: float = 0.0,
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        encoder = SoundEncoder(BidirectionalStack(network, width, depth, dropout), rate, width, ear, dropout)
        decoder = AttentionDecoder(network(width=width, depth=1, dropout=dropout), attention, dropout=dropout)
        super().__init__(encoder, decoder, vocab_size, head, evaluation, scheduled_sampling, optimizer, schedule)
