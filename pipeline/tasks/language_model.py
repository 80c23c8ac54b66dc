"""A language model predicts each token from those before it; its loss is the nats a token.

Legend: B sequences, T positions, D features, V tokens of the vocabulary.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from pipeline import state as states
from pipeline.data.batch import IGNORE, TokenBatch
from pipeline.generation.sampling import Limits, Sample, generate
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.state import State, width_of
from pipeline.tasks.document_resets import read_documents
from pipeline.tasks.task import Reads, Writes
from pipeline.tasks.token_prediction import TokenHead, TokenPrediction

__all__ = ["LanguageModel", "TokenHead"]


class LanguageModel(TokenPrediction):
    """Next-token prediction with any causal network.

    Args:
        network: maps (B, T, D) and a state to (B, T, D) and a state; has a `width` D.
        vocab_size: V; the dataset knows it.
        head: how tokens become vectors and vectors become predictions.
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.
    """

    reads: Reads = "prompt"
    writes: Writes = "text"

    def __init__(
        self,
        network: nn.Module,
        vocab_size: int,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(width_of(network), vocab_size, head, optimizer, schedule)
        self.network = network
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

    def costs(self, batch: TokenBatch) -> Float[Tensor, "B T"]:
        """Nats of the token after each position, the state new in each row; NaN where nothing is to be predicted."""
        outputs, _ = self._outputs(batch.inputs, None, None)
        logits = self.output(outputs).float().transpose(1, 2)
        nats = functional.cross_entropy(logits, batch.targets, ignore_index=IGNORE, reduction="none")
        return torch.where(batch.targets == IGNORE, torch.nan, nats)

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """The micro-batch's share of the nats a token of the global batch."""
        outputs = self._read(batch, self.carried)
        return self.training_loss(outputs, batch.targets) * self.loss_scale / batch.predictions

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Add the batch to the metric."""
        self.count_held_out(self._read(batch, self.held_out_states), batch.targets)

    test_step = validation_step

    def log_held_out(self, prefix: str, split_name: str) -> float:
        """Log what an evaluation of a split found, and forget it; its nats a token."""
        self.held_out_states.clear()
        return super().log_held_out(prefix, split_name)

    def examples(self, tokenizer: Any, count: int, tokens: int) -> list[dict[str, str]]:
        """Continuations of the empty prompt, the same seeds each time.

        Args:
            tokenizer: decodes tokens.
            count: texts.
            tokens: length of each.
        """
        eos = tokenizer.token_to_id("<eos>")
        choice, limits = Sample(temperature=0.8), Limits(tokens=tokens)
        [texts] = generate(self, [[eos]], choice, limits, samples=count, device=self.device)
        return [{"prompt": "", "text": tokenizer.decode(text)} for text in texts]

    def _read(self, batch: TokenBatch, carried: dict[int, State]) -> Tensor:
        """Outputs for a batch, continuing and leaving the carried state where there is one."""
        if batch.slot is None:
            return self._outputs(batch.inputs, None, batch.starts)[0]
        state = carried.get(batch.slot) if batch.step else None
        state = states.map_state(lambda leaf: leaf.to(batch.inputs.device), state)
        outputs, state = self._outputs(batch.inputs, state, None)
        carried[batch.slot] = states.detach(state)
        return outputs

    def _outputs(self, tokens: Tensor, state: State, starts: Tensor | None) -> tuple[Tensor, State]:
        return self._run(self.embedding(tokens), state, starts)

    def _run(self, inputs: Tensor, state: State, starts: Tensor | None) -> tuple[Tensor, State]:
        if starts is not None:
            return read_documents(self.network, inputs, starts), None
        outputs, state = self.network(inputs, state)
        return outputs, state
