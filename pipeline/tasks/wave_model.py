"""A model of raw sound predicts each sample's mu-law level from those before it, and hears its label all the time.

Van den Oord et al. (2016), "WaveNet: A Generative Model for Raw Audio". Where clips open with a label, its vector is
added to the input at every position up to the clip's end mark (the global condition of section 2.5), and lives in the
carried state.

Legend: B sequences, T positions, D features.
"""

from pathlib import Path

import torch
from jaxtyping import Float, Int64
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.sound import END, FIRST_LABEL
from pipeline.state import State
from pipeline.tasks.language_model import LanguageModel
from pipeline.tasks.token_prediction import TokenHead


class WaveModel(LanguageModel):
    """Next-level prediction with any causal network.

    Args:
        network: maps (B, T, D) and a state to (B, T, D) and a state; has a `width` D.
        vocab_size: levels, end mark and labels; the data knows it.
        rate: samples a second; the data knows it.
        head: how tokens become vectors and vectors become predictions.
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.
    """

    def __init__(
        self,
        network: nn.Module,
        vocab_size: int,
        rate: int,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(network, vocab_size, head, optimizer, schedule)
        self.rate = rate

    def shown(self, run: Path) -> list[Callback]:
        """No texts: a sound is written with `unroll generate --out`."""
        return []

    def _outputs(self, tokens: Tensor, state: State, starts: Tensor | None) -> tuple[Tensor, State]:
        inputs = self.embedding(tokens)
        if self.vocab_size == FIRST_LABEL:
            return self._run(inputs, state, starts)
        before, inner = (inputs.new_zeros(len(inputs), self.network.width), None) if state is None else state
        condition = held(tokens, inputs, before)
        outputs, inner = self._run(inputs + condition, inner, starts)
        return outputs, None if starts is not None else (condition[:, -1].clone(), inner)


def held(
    tokens: Int64[Tensor, "B T"], inputs: Float[Tensor, "B T D"], before: Float[Tensor, "B D"]
) -> Float[Tensor, "B T D"]:
    """The vector of the clip's label at each position, nothing from its end mark to the next label.

    Args:
        tokens: levels, end marks and labels.
        inputs: their vectors.
        before: what was held before the first position.
    """
    places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    last = torch.where(tokens >= END, places, -1).cummax(1).values  # end mark or label
    heard = tokens.take_along_dim(last.clamp(min=0), 1) >= FIRST_LABEL
    found = inputs.take_along_dim(last.clamp(min=0)[..., None], 1) * heard[..., None]
    return torch.where(last[..., None] >= 0, found, before[:, None])
