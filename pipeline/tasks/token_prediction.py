"""What all tasks that predict tokens share: embedding, output head, nats a token, and what a validation logs.

Legend: B sequences, T positions, D features, V tokens of the vocabulary.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional

from pipeline.callbacks.previews.samples import Samples
from pipeline.data.batch import IGNORE
from pipeline.evaluation.metrics import TokenLoss, bits_per_byte, perplexity
from pipeline.optim import OptimizerCallable, Schedule
from pipeline.tasks.task import Task


@dataclass(frozen=True)
class TokenHead:
    """How tokens become vectors and vectors become predictions.

    Args:
        tied: predict with the embedding's own matrix (Press and Wolf 2017).
        word_dropout: share of the vocabulary whose embedding is dropped in a training step (Gal and
            Ghahramani 2016).
        ar_weight: weight of the squared outputs (alpha of Merity et al. 2017).
        tar_weight: weight of the squared change from one output to the next (beta of the same).
        label_smoothing: share of a target's probability that training spreads over all tokens (Szegedy et al.
            2016); what is logged is without it.
    """

    tied: bool = True
    word_dropout: float = 0.0
    ar_weight: float = 0.0
    tar_weight: float = 0.0
    label_smoothing: float = 0.0


class TokenEmbedding(nn.Embedding):
    """Looks tokens up; rows have length 1 for the output, and enter the network in unit variance.

    Args:
        vocab_size: V.
        width: D.
        word_dropout: share of the vocabulary that is dropped in a training step.
    """

    def __init__(self, vocab_size: int, width: int, word_dropout: float = 0.0) -> None:
        super().__init__(vocab_size, width)
        self.word_dropout = word_dropout

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.embedding_dim**-0.5)

    def forward(self, tokens: Int64[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Vectors of unit variance (Vaswani et al. 2017, section 3.4)."""
        weight = self.weight
        if self.training and self.word_dropout:
            weight = weight * functional.dropout(weight.new_ones(len(weight), 1), self.word_dropout)
        return functional.embedding(tokens, weight).mul(self.embedding_dim**0.5)


class TokenPrediction(Task):
    """Predicts tokens from vectors.

    Args:
        width: D.
        vocab_size: V; the dataset knows it.
        head: how tokens become vectors and vectors become predictions.
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.
    """

    def __init__(
        self, width: int, vocab_size: int, head: TokenHead, optimizer: OptimizerCallable, schedule: Schedule | None
    ) -> None:
        super().__init__(optimizer, schedule)
        self.vocab_size, self.head = vocab_size, head
        self.embedding = TokenEmbedding(vocab_size, width, head.word_dropout)
        self.output = nn.Linear(width, vocab_size)
        nn.init.zeros_(self.output.bias)
        if head.tied:
            self.output.weight = self.embedding.weight
        self.seen = TokenLoss()  # since the last log; whoever logs resets it
        self.held_out = TokenLoss()

    def shown(self, run: Path) -> list[Callback]:
        """Texts, written with the run's tokenizer."""
        return [Samples(run / "tokenizer.json")]

    def measured(self, loss: float) -> dict[str, float]:
        """Nats a token, and the perplexity."""
        return {"loss": loss, "perplexity": perplexity(loss)}

    def on_validation_epoch_end(self) -> None:
        """Log loss, perplexity and bits a byte, and tell the schedule."""
        loss = self.log_held_out("val", "validation")
        if self.schedule is not None and not self.trainer.sanity_checking:
            self.schedule.observe(loss)

    def on_test_epoch_end(self) -> None:
        """Log loss, perplexity and bits a byte."""
        self.log_held_out("test", "test")

    def log_held_out(self, prefix: str, split_name: str) -> float:
        """Log what an evaluation of a split found, and forget it; its nats a token."""
        loss = float(self.held_out.compute())
        self.held_out.reset()
        split = self.data.split(split_name)
        values = {
            **self.measured(loss),
            "bits_per_byte": bits_per_byte(loss, split.tokens, split.bytes),
        }
        # not to the loggers: Monitor writes one row of all that a validation found
        self.log_dict({f"{prefix}/{name}": value for name, value in values.items()}, logger=False)
        return loss

    def training_loss(self, outputs: Float[Tensor, "B T D"], targets: Int64[Tensor, "B T"]) -> Tensor:
        """The summed nats as training wants them: smoothed, with the penalties; counted unsmoothed in `seen`."""
        log_probabilities = self.output(outputs).flatten(0, 1).float().log_softmax(-1)  # once, for both losses
        flat = targets.flatten()
        nats = functional.nll_loss(log_probabilities, flat, ignore_index=IGNORE, reduction="sum")
        self.seen.update(nats.detach(), (flat != IGNORE).sum())
        if smoothing := self.head.label_smoothing:
            spread = -log_probabilities.mean(-1).masked_fill(flat == IGNORE, 0.0).sum()
            nats = (1 - smoothing) * nats + smoothing * spread
        return nats + self._penalty(outputs, targets != IGNORE)

    def count_held_out(self, outputs: Float[Tensor, "B T D"], targets: Int64[Tensor, "B T"]) -> None:
        """Add a batch to the evaluation."""
        self.held_out.update(self._nats(outputs, targets), (targets != IGNORE).sum())

    def _nats(self, outputs: Tensor, targets: Tensor) -> Tensor:
        logits = self.output(outputs).flatten(0, 1).float()
        return functional.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE, reduction="sum")

    def _penalty(self, outputs: Float[Tensor, "B T D"], keep: Bool[Tensor, "B T"]) -> Tensor:
        """AR and TAR of Merity et al. 2017 (section 4.5), summed over the same positions as the nats."""
        penalty = outputs.new_zeros(())
        if self.head.ar_weight:
            penalty = self.head.ar_weight * outputs.float().pow(2).mean(-1).masked_fill(~keep, 0.0).sum()
        if self.head.tar_weight:
            change = torch.diff(outputs.float(), dim=1)
            slow = change.pow(2).mean(-1).masked_fill(~keep[:, 1:], 0.0).sum()
            penalty = penalty + self.head.tar_weight * slow
        return penalty
