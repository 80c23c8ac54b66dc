"""The base of all tasks that predict tokens: embedding, output layer, loss in nats per token, and logged metrics.

Legend: B sequences, T positions, D features, V tokens of the vocabulary.
"""

from dataclasses import dataclass
from functools import partial
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
from pipeline.runs.vocabulary_rows import Rows
from pipeline.tasks.task import Task
from pipeline.tasks.token_output import TokenOutput, most_probable, token_losses


@dataclass(frozen=True)
class TokenHead:
    """Settings of the embedding and the output layer.

    Args:
        tied: share the weight of the embedding with the output layer (Press and Wolf 2017).
        word_dropout: fraction of the vocabulary whose embeddings are dropped in a training step (Gal and
            Ghahramani 2016).
        ar_weight: weight of activation regularization (AR; alpha of Merity et al. 2017).
        tar_weight: weight of temporal activation regularization (TAR; beta of Merity et al. 2017).
        label_smoothing: fraction of a target's probability that training spreads over all tokens (Szegedy et al.
            2016); logged losses are computed without it.
        scaled: multiply embeddings by the square root of D (Vaswani et al. 2017, section 3.4). With SGD, this also
            multiplies their effective learning rate by D.
    """

    tied: bool = True
    word_dropout: float = 0.0
    ar_weight: float = 0.0
    tar_weight: float = 0.0
    label_smoothing: float = 0.0
    scaled: bool = True


class TokenEmbedding(nn.Embedding):
    """A token embedding with rows of unit length, scaled to unit variance at the input of the network.

    Args:
        vocab_size: V.
        width: D.
        word_dropout: fraction of the vocabulary dropped in a training step.
        scaled: multiply the rows by the square root of D (Vaswani et al. 2017, section 3.4).
    """

    def __init__(self, vocab_size: int, width: int, word_dropout: float = 0.0, scaled: bool = True) -> None:
        super().__init__(vocab_size, width)
        self.word_dropout, self.scaled = word_dropout, scaled

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.embedding_dim**-0.5)

    def forward(self, tokens: Int64[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Return the rows of the tokens, of unit variance at first if they are scaled."""
        weight = self.weight
        if self.training and self.word_dropout:
            weight = weight * functional.dropout(weight.new_ones(len(weight), 1), self.word_dropout)
        vectors = functional.embedding(tokens, weight)
        return vectors.mul(self.embedding_dim**0.5) if self.scaled else vectors


class TokenPrediction(Task):
    """Predicts tokens from features.

    Args:
        width: D.
        vocab_size: V, set from the dataset.
        head: settings of the embedding and the output layer.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
    """

    def __init__(
        self, width: int, vocab_size: int, head: TokenHead, optimizer: OptimizerCallable, schedule: Schedule | None
    ) -> None:
        super().__init__(optimizer, schedule)
        self.vocab_size, self.head = vocab_size, head
        self.embedding = TokenEmbedding(vocab_size, width, head.word_dropout, head.scaled)
        self.output = TokenOutput(width, vocab_size)
        nn.init.zeros_(self.output.bias)
        if head.tied:
            self.output.weight = self.embedding.weight
        self.seen = TokenLoss()  # since the last log; the code that logs it resets it
        self.held_out = TokenLoss()

    compiled = ("token_losses",)

    def vocabulary_rows(self) -> dict[str, Rows]:
        """Return the parameters of the embedding and the output layer."""
        return dict.fromkeys(("embedding.weight", "output.weight", "output.bias"), Rows())

    def preview_callbacks(self, run: Path) -> list[Callback]:
        """Return the callback that shows generated texts."""
        return [Samples(run / "tokenizer.json")]

    def loss_metrics(self, loss: float) -> dict[str, float]:
        """Return the nats per token and the perplexity."""
        return {"loss": loss, "perplexity": perplexity(loss)}

    def on_validation_epoch_end(self) -> None:
        """Log loss, perplexity and bits per byte, and pass the loss to the schedule."""
        loss = self.log_held_out("val", "validation")
        if self.schedule is not None and not self.trainer.sanity_checking:
            self.schedule.observe(loss)

    def on_test_epoch_end(self) -> None:
        """Log loss, perplexity and bits per byte."""
        self.log_held_out("test", self.data.test_split)

    def log_held_out(self, prefix: str, split_name: str) -> float:
        """Log and reset the metrics of an evaluation; return the nats per token."""
        loss = float(self.held_out.compute())
        self.held_out.reset()
        split = self.data.split(split_name)
        values = {
            **self.loss_metrics(loss),
            "bits_per_byte": bits_per_byte(loss, split.tokens, split.bytes),
        }
        # Not to the loggers: Monitor writes one row with all results of a validation.
        self.log_dict({f"{prefix}/{name}": value for name, value in values.items()}, logger=not self.writes_rows)
        return loss

    def training_loss(self, outputs: Float[Tensor, "B T D"], targets: Int64[Tensor, "B T"]) -> Tensor:
        """Return the summed loss with label smoothing and penalties; `seen` counts it without them."""
        nats, smoothed = self.token_losses(outputs, targets)
        self.seen.update(nats.detach(), (targets != IGNORE).sum())
        return smoothed + self._penalty(outputs, targets != IGNORE)

    def token_losses(self, outputs: Float[Tensor, "B T D"], targets: Int64[Tensor, "B T"]) -> tuple[Tensor, Tensor]:
        """Return the summed loss in nats without and with label smoothing."""
        losses: tuple[Tensor, Tensor] = self.output(
            outputs, read=partial(token_losses, targets=targets, smoothing=self.head.label_smoothing)
        )
        return losses

    def most_probable(self, outputs: Float[Tensor, "B T D"]) -> Int64[Tensor, "B T"]:
        """Return the most probable token at each position."""
        tokens: Tensor = self.output(outputs, read=most_probable)
        return tokens

    def count_held_out(self, outputs: Float[Tensor, "B T D"], targets: Int64[Tensor, "B T"]) -> None:
        """Add a batch to the evaluation."""
        self.held_out.update(self._nats(outputs, targets), (targets != IGNORE).sum())

    def _nats(self, outputs: Tensor, targets: Tensor) -> Tensor:
        nats: Tensor = self.output(outputs, read=partial(token_losses, targets=targets))[0]
        return nats

    def _penalty(self, outputs: Float[Tensor, "B T D"], keep: Bool[Tensor, "B T"]) -> Tensor:
        """Return AR and TAR of Merity et al. 2017 (section 4.5), summed over the same positions as the loss."""
        penalty = outputs.new_zeros(())
        if self.head.ar_weight:
            penalty = self.head.ar_weight * outputs.float().pow(2).mean(-1).masked_fill(~keep, 0.0).sum()
        if self.head.tar_weight:
            change = torch.diff(outputs.float(), dim=1)
            slow = change.pow(2).mean(-1).masked_fill(~keep[:, 1:], 0.0).sum()
            penalty = penalty + self.head.tar_weight * slow
        return penalty
