"""A language model predicts each token from those before it; its loss is the nats a token.

Legend: B sequences, T positions, D features, V tokens of the vocabulary.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from pipeline import state as states
from pipeline.data.batch import IGNORE, TokenBatch
from pipeline.documents import read_documents
from pipeline.metrics import TokenLoss, bits_per_byte, perplexity
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.state import State
from pipeline.tasks.task import Task


@dataclass(frozen=True)
class TokenHead:
    """How tokens become vectors and vectors become predictions.

    Args:
        tied: predict with the embedding's own matrix (Press and Wolf 2017).
        word_dropout: share of the vocabulary whose embedding is dropped in a training step (Gal and
            Ghahramani 2016).
        activation_penalty: weight of the squared outputs (alpha of Merity et al. 2017).
        slowness_penalty: weight of the squared change from one output to the next (beta of the same).
    """

    tied: bool = True
    word_dropout: float = 0.0
    activation_penalty: float = 0.0
    slowness_penalty: float = 0.0


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


class LanguageModel(Task):
    """Next-token prediction with any causal network.

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
        head: TokenHead = TokenHead(),  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(optimizer, schedule)
        width = int(network.width)  # type: ignore[arg-type]
        self.network, self.vocab_size, self.head = network, vocab_size, head
        self.embedding = TokenEmbedding(vocab_size, width, head.word_dropout)
        self.output = nn.Linear(width, vocab_size)
        nn.init.zeros_(self.output.bias)
        if head.tied:
            self.output.weight = self.embedding.weight
        self.seen = TokenLoss()  # since the last log; whoever logs resets it
        self.held_out = TokenLoss()
        self.held_out_states: dict[int, State] = {}

    def forward(
        self,
        tokens: Int64[Tensor, "B T"],
        state: State = None,
        starts: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T V"], State]:
        """Logits of the token after each position, and the state after the last one.

        Args:
            tokens: what is read.
            state: what an earlier call returned; None at the beginning.
            starts: True where a document starts; the state is reset there, and None is returned for it.
        """
        outputs, state = self._outputs(tokens, state, starts)
        return self.output(outputs), state

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """The micro-batch's share of the nats a token of the global batch."""
        outputs, targets = self._read(batch, self.carried)
        nats = self._nats(outputs, targets)
        self.seen.update(nats.detach(), (targets != IGNORE).sum())
        return (nats + self._penalty(outputs)) * self.loss_scale / batch.predictions

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Add the batch to the metric."""
        outputs, targets = self._read(batch, self.held_out_states)
        self.held_out.update(self._nats(outputs, targets), (targets != IGNORE).sum())

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Log loss, perplexity and bits a byte, and tell the schedule."""
        loss = self._log_held_out("val", "validation")
        if self.schedule is not None and not self.trainer.sanity_checking:
            self.schedule.observe(loss)

    def on_test_epoch_end(self) -> None:
        """Log loss, perplexity and bits a byte."""
        self._log_held_out("test", "test")

    def _log_held_out(self, prefix: str, split_name: str) -> float:
        loss = float(self.held_out.compute())
        self.held_out.reset()
        self.held_out_states.clear()
        split = self.trainer.datamodule.dataset.splits[split_name]  # type: ignore[attr-defined]
        values = {
            "loss": loss,
            "perplexity": perplexity(loss),
            "bits_per_byte": bits_per_byte(loss, split.tokens, split.bytes),
        }
        # not to the loggers: Monitor writes one row of all that a validation found
        self.log_dict({f"{prefix}/{name}": value for name, value in values.items()}, logger=False)
        return loss

    def _read(self, batch: TokenBatch, carried: dict[int, State]) -> tuple[Tensor, Tensor]:
        """Outputs and targets of a batch, continuing and leaving the carried state where there is one."""
        if batch.slot is None:
            return self._outputs(batch.inputs, None, batch.starts)[0], batch.targets
        state = carried.get(batch.slot) if batch.step else None
        state = states.map_state(lambda leaf: leaf.to(batch.inputs.device), state)
        outputs, state = self._outputs(batch.inputs, state, None)
        carried[batch.slot] = states.detach(state)
        return outputs, batch.targets

    def _outputs(self, tokens: Tensor, state: State, starts: Tensor | None) -> tuple[Tensor, State]:
        inputs = self.embedding(tokens)
        if starts is not None:
            return read_documents(self.network, inputs, starts), None
        outputs, state = self.network(inputs, state)
        return outputs, state

    def _nats(self, outputs: Tensor, targets: Tensor) -> Tensor:
        logits = self.output(outputs).flatten(0, 1).float()
        return functional.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE, reduction="sum")

    def _penalty(self, outputs: Tensor) -> Tensor:
        """AR and TAR of Merity et al. 2017 (section 4.5), summed over positions as the nats are."""
        penalty = outputs.new_zeros(())
        if self.head.activation_penalty:
            penalty = self.head.activation_penalty * outputs.float().pow(2).mean(-1).sum()
        if self.head.slowness_penalty:
            change = torch.diff(outputs.float(), dim=1)
            penalty = penalty + self.head.slowness_penalty * change.pow(2).mean(-1).sum()
        return penalty
