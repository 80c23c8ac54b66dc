"""Recall tasks: a language model that answers questions from its memory, evaluated by accuracy.

Legend: B sequences, T positions, D features.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pipeline.data.batch import IGNORE
from pipeline.evaluation.metrics import Accuracy
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.tasks.language_model import LanguageModel
from pipeline.tasks.token_prediction import TokenHead

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Recaller"]


class Recaller(LanguageModel):
    """Predicts answers with any causal network.

    Args:
        network: maps (B, T, D) and a state to (B, T, D) and a state; has a `width` D.
        vocab_size: V, set from the dataset.
        head: settings of the embedding and the output layer.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
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
        self.accuracy.update(((self.most_probable(outputs) == targets) & keep).sum(), keep.sum())

    def log_held_out(self, prefix: str, split_name: str) -> float:
        """Log and reset nats per symbol and accuracy in percent; return the nats per symbol."""
        loss = float(self.held_out.compute())
        values = {**self.loss_metrics(loss), "accuracy": 100 * float(self.accuracy.compute())}
        self.held_out.reset()
        self.accuracy.reset()
        # Not to the loggers: Monitor writes one row with all results of a validation.
        self.log_dict({f"{prefix}/{name}": value for name, value in values.items()}, logger=not self.writes_rows)
        return loss

    def report(self) -> list[str]:
        """Return the scores that are reached without memory."""
        chance = self.data.chance
        return [f"  without memory, {name.replace('_', ' ')}: {value:.4f}" for name, value in chance.items()]

    @torch.no_grad()
    def examples(self, tokenizer: "Tokenizer", count: int, tokens: int) -> list[dict[str, str]]:
        """Return the first questions of the validation split with the predicted answers.

        Args:
            tokenizer: decodes tokens.
            count: number of questions.
            tokens: maximum number of tokens of a question, counted from its start.
        """
        data = self.data
        batch = data.batch("validation", np.arange(min(count, len(data.samples("validation")))))
        predicted = self(batch.inputs.to(self.device))[0].argmax(-1).cpu()
        rows = zip(batch.inputs, predicted, batch.targets != IGNORE, strict=True)
        return [
            {
                "prompt": tokenizer.decode(read[~is_answer][:tokens].tolist()),
                "text": tokenizer.decode(found[is_answer].tolist()),
            }
            for read, found, is_answer in rows
        ]
