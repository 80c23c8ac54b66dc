"""A model of levels predicts each one from those before it, and hears its label all the time: raw sound, or pixels.

The vocabulary is the levels, then an end mark, then the labels. Where a sequence opens with a label, its vector is
added to the input at every position up to the next end mark or label (the global condition of van den Oord et al. 2016,
"WaveNet", section 2.5), and lives in the carried state.

Legend: B sequences, T positions, D features, V tokens of the vocabulary.
"""

from pathlib import Path

import torch
from jaxtyping import Float, Int64
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.state import State
from pipeline.tasks.language_model import LanguageModel
from pipeline.tasks.task import Reads
from pipeline.tasks.token_prediction import TokenHead


class LevelModel(LanguageModel):
    """Next-level prediction with any causal network.

    Args:
        network: maps (B, T, D) and a state to (B, T, D) and a state; has a `width` D.
        vocab_size: levels, end mark and labels; the data knows it.
        levels: how many; the data knows it.
        head: how tokens become vectors and vectors become predictions.
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.
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
        """How many labels it knows."""
        return self.vocab_size - self.levels - 1

    def shown(self, run: Path) -> list[Callback]:
        """No texts."""
        return []

    def opening(self, label: int | None) -> int:
        """The token that opens a sequence of a class: its label, or the end mark where there are none."""
        return self.levels if label is None else self.levels + 1 + label

    def within(self, tokens: Int64[Tensor, "B T"], state: State, ends: bool) -> tuple[Float[Tensor, "B T V"], State]:
        """What `forward` gives without the labels, as no sequence begins in the middle of another.

        Args:
            tokens: what is read.
            state: what an earlier call returned; None at the beginning.
            ends: whether the end mark may come.
        """
        logits, state = self(tokens, state)
        logits[..., self.levels + ends :] = -torch.inf
        return logits, state

    def _outputs(self, tokens: Tensor, state: State, starts: Tensor | None) -> tuple[Tensor, State]:
        inputs = self.embedding(tokens)
        if not self.labels:
            return self._run(inputs, state, starts)
        before, inner = (inputs.new_zeros(len(inputs), self.network.width), None) if state is None else state
        condition = held(tokens, inputs, before, self.levels)
        outputs, inner = self._run(inputs + condition, inner, starts)
        return outputs, None if starts is not None else (condition[:, -1].clone(), inner)


def held(
    tokens: Int64[Tensor, "B T"], inputs: Float[Tensor, "B T D"], before: Float[Tensor, "B D"], end: int
) -> Float[Tensor, "B T D"]:
    """The vector of the sequence's label at each position, nothing from its end mark to the next label.

    Args:
        tokens: levels, end marks and labels.
        inputs: their vectors.
        before: what was held before the first position.
        end: the end mark; labels are above it.
    """
    places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    last = torch.where(tokens >= end, places, -1).cummax(1).values  # end mark or label
    heard = tokens.take_along_dim(last.clamp(min=0), 1) > end
    found = inputs.take_along_dim(last.clamp(min=0)[..., None], 1) * heard[..., None]
    return torch.where(last[..., None] >= 0, found, before[:, None])
