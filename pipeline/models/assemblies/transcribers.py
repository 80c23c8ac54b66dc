"""Speech recognition models: CTC over LSTMs, Transformers or Conformers, and Listen, Attend and Spell.

The encoders are those of keyword spotting, with an output at every position instead of one per clip.
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
        vocab_size: tokens of transcripts, set from the dataset.
        rate: samples per second, set from the dataset.
        width: features.
        depth: layers of two LSTMs each.
        dropout: fraction of the features dropped in training.
        ear: settings of the audio front end.
        network: class of the networks, any causal network of this package.
        transcription: how audio is decoded and scored in an evaluation.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
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
    """CTC over a Transformer encoder.

    Args:
        vocab_size: tokens of transcripts, set from the dataset.
        rate: samples per second, set from the dataset.
        width: features.
        depth: blocks.
        heads: number of attention heads; must divide the width.
        dropout: fraction of the features and attention weights dropped in training.
        ear: settings of the audio front end.
        transcription: how audio is decoded and scored in an evaluation.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
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
        vocab_size: tokens of transcripts, set from the dataset.
        rate: samples per second, set from the dataset.
        width: features.
        depth: blocks.
        heads: number of attention heads; must divide the width.
        kernel: size of the blocks' convolutions, in positions; odd.
        dropout: fraction of the features and attention weights dropped in training.
        ear: settings of the audio front end.
        transcription: how audio is decoded and scored in an evaluation.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
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
    """Listen, Attend and Spell: a bidirectional LSTM encoder, and an LSTM decoder with attention (Chan et al. 2016).

    Args:
        vocab_size: tokens of transcripts, set from the dataset.
        rate: samples per second, set from the dataset.
        width: features.
        depth: layers of two LSTMs each in the encoder; the decoder has one layer.
        dropout: fraction of the features dropped in training.
        ear: settings of the audio front end.
        network: class of the networks, any causal network of this package.
        attention: class of the attention over the memory.
        head: settings of the embedding and the output layer.
        evaluation: how texts are generated and scored in validation and test.
        scheduled_sampling: fraction of the decoder's inputs replaced by its own predictions in training.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
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
