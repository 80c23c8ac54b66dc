"""A model that answers from memory: a language model that is asked, and counted by what it gets right.

Legend: B sequences, T positions, D features.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pipeline.data.batch import IGNORE
from pipeline.evaluation.metrics import Accuracy
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.tasks.language_model import LanguageModel
from pipeline.tasks.token_prediction import TokenHead

__all__ = ["Recaller"]


class Recaller(LanguageModel):
    """Answers with any causal network.

    Args:
        network: maps (B, T, D) and a state to (B, T, D) and a state; has a `width` D.
        vocab_size: V; the dataset knows it.
        head: how tokens become vectors and vectors become predictions.
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.
    """

    def __init__(
        self,
        network: nn.Module,
        vocab_size: int,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(network, vocab_size, head, optimizer, schedule)
        self.accuracy = Accuracy()

    def count_held_out(self, outputs: Float[Tensor, "B T D"], targets: Int64[Tensor, "B T"]) -> None:
        """Add a batch to the evaluation."""
        super().count_held_out(outputs, targets)
        keep = targets != IGNORE
        self.accuracy.update((self.output(outputs[keep]).argmax(-1) == targets[keep]).sum(), keep.sum())

    def log_held_out(self, prefix: str, split_name: str) -> float:
        """Log nats a symbol and how many of 100 are right, and forget it; its nats a symbol."""
        loss = float(self.held_out.compute())
        values = {**self.measured(loss), "accuracy": 100 * float(self.accuracy.compute())}
        self.held_out.reset()
        self.accuracy.reset()
        # not to the loggers: Monitor writes one row of all that a validation found
        self.log_dict({f"{prefix}/{name}": value for name, value in values.items()}, logger=False)
        return loss

    def report(self) -> list[str]:
        """What is reached without memory."""
        chance = self.data.chance
        return [f"  without memory, {name.replace('_', ' ')}: {value:.4f}" for name, value in chance.items()]

    @torch.no_grad()
    def examples(self, tokenizer: Any, count: int, tokens: int) -> list[dict[str, str]]:
        """The first questions of the validation split, and what was answered.

        Args:
            tokenizer: decodes tokens.
            count: questions.
            tokens: most of a question that are shown, its first ones.
        """
        data = self.data
        batch = data.batch("validation", np.arange(min(count, len(data.samples("validation")))))
        said = self(batch.inputs.to(self.device))[0].argmax(-1).cpu()
        rows = zip(batch.inputs, said, batch.targets != IGNORE, strict=True)
        return [
            {
                "prompt": tokenizer.decode(read[~asked][:tokens].tolist()),
                "text": tokenizer.decode(found[asked].tolist()),
            }
            for read, found, asked in rows
        ]
