"""Autoregressive models over quantized levels of raw audio or pixels, conditioned on a class label.

The vocabulary is the levels, then EOS, then the labels. If a sequence starts with a label, the label's embedding is
added to the input at every position up to the next EOS or label (global conditioning, van den Oord et al. 2016,
"WaveNet", section 2.5). It is part of the carried state.

Legend: B sequences, T positions, D features, V tokens of the vocabulary.
"""

from pathlib import Path

import torch
from jaxtyping import Float, Int64
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from pipeline.data.documents import Documents
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.runs.vocabulary_rows import Rows
from pipeline.state import State
from pipeline.tasks.language_model import LanguageModel
from pipeline.tasks.task import Reads
from pipeline.tasks.token_prediction import TokenHead


class LevelModel(LanguageModel):
    """Next-level prediction with any causal network.

    Args:
        network: maps (B, T, D) and a state to (B, T, D) and a state; has a `width` D.
        vocab_size: levels, EOS and labels, set from the data.
        levels: number of levels, set from the data.
        head: settings of the embedding and the output layer.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
    """

    reads: Reads = "label"

    def __init__(
        self,
        network: nn.Module,
        vocab_size: int,
        levels: int,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(network, vocab_size, head, optimizer, schedule)
        self.levels = levels

    @property
    def labels(self) -> int:
        """Number of labels."""
        return self.vocab_size - self.levels - 1

    def vocabulary_rows(self) -> dict[str, Rows]:
        """Return the parameters of the embedding and the output layer: rows of levels, EOS and labels."""
        return dict.fromkeys(super().vocabulary_rows(), Rows(labels=True, before=self.levels + 1))

    def preview_callbacks(self, run: Path) -> list[Callback]:
        """Return no callbacks, because levels are not text."""
        return []

    def opening(self, label: int | None) -> int:
        """Return the first token of a sequence: the label of its class, or EOS without a label."""
        return self.levels if label is None else self.levels + 1 + label

    def within(self, tokens: Int64[Tensor, "B T"], state: State, ends: bool) -> tuple[Float[Tensor, "B T V"], State]:
        """Return the outputs of `forward` with labels excluded, as no sequence starts inside another.

        Args:
            tokens: input tokens.
            state: state returned by an earlier call; None at the beginning.
            ends: whether EOS is allowed.
        """
        logits, state = self(tokens, state)
        logits[..., self.levels + ends :] = -torch.inf
        return logits, state

    def _outputs(self, tokens: Tensor, state: State, documents: Documents | None) -> tuple[Tensor, State]:
        inputs = self.embedding(tokens)
        if not self.labels:
            return self._run(inputs, state, documents)
        before, inner = (inputs.new_zeros(len(inputs), self.network.width), None) if state is None else state
        condition = label_condition(tokens, inputs, before, self.levels)
        outputs, inner = self._run(inputs + condition, inner, documents)
        return outputs, None if documents is not None else (condition[:, -1].clone(), inner)


def label_condition(
    tokens: Int64[Tensor, "B T"], inputs: Float[Tensor, "B T D"], before: Float[Tensor, "B D"], end: int
) -> Float[Tensor, "B T D"]:
    """Return the embedding of the sequence's label at each position, zeros from its EOS to the next label.

    Args:
        tokens: levels, EOS tokens and labels.
        inputs: their embeddings.
        before: the condition before the first position.
        end: the EOS token; labels are above it.
    """
    places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    last = torch.where(tokens >= end, places, -1).cummax(1).values  # EOS or label
    conditioned = tokens.take_along_dim(last.clamp(min=0), 1) > end
    found = inputs.take_along_dim(last.clamp(min=0)[..., None], 1) * conditioned[..., None]
    return torch.where(last[..., None] >= 0, found, before[:, None])
