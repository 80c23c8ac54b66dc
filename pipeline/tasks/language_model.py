"""Language modeling: each token is predicted from those before it; the loss is the cross-entropy in nats per token.

Legend: B sequences, T positions, D features, V tokens of the vocabulary.
"""

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from pipeline import state as states
from pipeline.data.batch import IGNORE, TokenBatch
from pipeline.data.documents import Documents
from pipeline.data.text import TextDataModule
from pipeline.distributed.strategies.traits import traits
from pipeline.errors import ConfigError
from pipeline.evaluation.neural_cache import CachedPositions, NeuralCache
from pipeline.generation.sampling import Choice, Limits, Sample, generate
from pipeline.generation.text_stream import text_of
from pipeline.generation.vocabulary import tokens_of
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.state import State, width_of
from pipeline.tasks.document_resets import ReadsDocuments, read_documents
from pipeline.tasks.task import Reads, Writes
from pipeline.tasks.token_prediction import TokenHead, TokenPrediction

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["LanguageModel", "TokenHead"]


class LanguageModel(TokenPrediction):
    """Next-token prediction with any causal network.

    Args:
        network: maps (B, T, D) and a state to (B, T, D) and a state; has a `width` D.
        vocab_size: V, set from the dataset.
        head: settings of the embedding and the output layer.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
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
        self.cache: NeuralCache | None = None  # of an evaluation
        self.cached: dict[int, CachedPositions] = {}

    def forward(
        self,
        tokens: Int64[Tensor, "B T"],
        state: State = None,
        documents: Documents | None = None,
    ) -> tuple[Float[Tensor, "B T V"], State]:
        """Return the logits of the token after each position, and the state after the last one.

        Args:
            tokens: input tokens.
            state: state returned by an earlier call; None at the beginning.
            documents: the documents in the rows, each of which is read alone; the returned state is None.
        """
        outputs, state = self._outputs(tokens, state, documents)
        return self.output(outputs), state

    def position_losses(self, batch: TokenBatch) -> Float[Tensor, "B T"]:
        """Return the loss in nats at each position, with a new state in each row; NaN without a target."""
        outputs, _ = self._outputs(batch.inputs, None, None)
        logits = self.output(outputs).float().transpose(1, 2)
        nats = functional.cross_entropy(logits, batch.targets, ignore_index=IGNORE, reduction="none")
        return torch.where(batch.targets == IGNORE, torch.nan, nats)

    def on_fit_start(self) -> None:
        """Refuse documents if the strategy cannot call a layer several times in a step."""
        super().on_fit_start()
        rows_only = traits(self.trainer).gathers_in_hooks and not isinstance(self.network, ReadsDocuments)
        if rows_only and isinstance(self.data, TextDataModule) and self.data.order.resets:
            raise ConfigError(
                f"data.order=documents: expected contiguous or shuffled with a {type(self.network).__name__} under "
                "ZeRO stage 3, got documents. Choose one of them or another strategy"
            )

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Return the micro-batch's contribution to the nats per token of the global batch."""
        outputs = self._read(batch, self.carried)
        return self.training_loss(outputs, batch.targets) * self.loss_scale / batch.predictions

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Add the batch to the metric."""
        outputs = self._read(batch, self.held_out_states)
        if self.cache is None:
            self.count_held_out(outputs, batch.targets)
            return
        past = self.cached.get(batch.slot) if batch.slot is not None and batch.step else None
        nats, after = self.cache.losses(outputs, self.output(outputs), batch.targets, past)
        self.held_out.update(nats.sum(), (batch.targets != IGNORE).sum())
        if batch.slot is not None:
            self.cached[batch.slot] = after

    test_step = validation_step

    def log_held_out(self, prefix: str, split_name: str) -> float:
        """Log and reset the metrics of an evaluation; return the nats per token."""
        self.held_out_states.clear()
        self.cached.clear()
        return super().log_held_out(prefix, split_name)

    def examples(self, tokenizer: "Tokenizer", count: int, tokens: int) -> list[dict[str, str]]:
        """Return continuations of the empty prompt, with the same seeds at each call.

        Args:
            tokenizer: decodes tokens.
            count: number of texts.
            tokens: length of each text.
        """
        eos = tokenizer.token_to_id("<eos>")
        assert eos is not None
        choice, limits = Sample(temperature=0.8), Limits(tokens=tokens)
        [texts] = generate(self, [[eos]], choice, limits, samples=count, device=self.device)
        return [{"prompt": "", "text": tokenizer.decode(text)} for text in texts]

    def generate(self, prompt: str = "", max_new_tokens: int = 200, choice: Choice | None = None, seed: int = 0) -> Any:
        """Return the text that continues a prompt, without the prompt, up to EOS or the maximum length.

        `unroll generate` prints the prompt first.

        Args:
            prompt: text to continue.
            max_new_tokens: maximum number of new tokens.
            choice: how each token is chosen (default: sampled; `Greedy()` and `Beam(8)` are others).
            seed: seed of the sampling.

        Raises:
            CheckpointError: the task has no tokenizer: it was not loaded by `from_pretrained`.
        """
        tokenizer, eos = self.vocabulary()
        row = tokens_of(tokenizer, prompt) or [eos]
        limits = Limits(max_new_tokens, eos=eos)
        self.eval()
        [[tokens, *_]] = generate(self, [row], choice or Sample(), limits, seed=seed, device=self.device)
        return text_of(tokenizer, eos, tokens[:-1] if tokens[-1] == eos else tokens, row)

    def _read(self, batch: TokenBatch, carried: dict[int, State]) -> Tensor:
        """Return the outputs for a batch; read and update the carried state if the batch has one."""
        if batch.slot is None:
            return self._outputs(batch.inputs, None, batch.documents)[0]
        state = carried.get(batch.slot) if batch.step else None
        state = states.map_state(lambda leaf: leaf.to(batch.inputs.device), state)
        outputs, state = self._outputs(batch.inputs, state, None)
        carried[batch.slot] = states.detach(state)
        return outputs

    def _outputs(self, tokens: Tensor, state: State, documents: Documents | None) -> tuple[Tensor, State]:
        return self._run(self.embedding(tokens), state, documents)

    def _run(self, inputs: Tensor, state: State, documents: Documents | None) -> tuple[Tensor, State]:
        if documents is not None:
            return read_documents(self.network, inputs, documents), None
        outputs, state = self.network(inputs, state)
        return outputs, state
