"""From a source, a text is written: an encoder reads the source, a decoder predicts each token of the target.

Legend: B sequences, T positions, S positions of the source, V tokens of the vocabulary.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from pipeline.data.batch import PairBatch
from pipeline.distributed.strategies.traits import traits
from pipeline.evaluation.metrics import Score
from pipeline.generation.beam import Beam
from pipeline.generation.sampling import Choice, Greedy, Limits, Sample, generate
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.state import State, width_of
from pipeline.tasks.generated_texts import Written
from pipeline.tasks.task import Reads, Writes
from pipeline.tasks.token_prediction import TokenHead, TokenPrediction


@dataclass(frozen=True)
class Evaluation:
    """What a validation and a test write, and how it is scored.

    Args:
        scores: what is measured on the texts; none are written without one.
        beam: hypotheses of the search that writes them; 1 is the most probable token each time.
        length_penalty: of the beam: 0 ranks by probability, 1 by its mean.
        coverage_penalty: of the beam: what a source counts that was not looked at.
        no_repeat: no so many tokens in a row are written twice in a text; 0: they may.
        temperature: draw tokens at this temperature instead.
        tokens: most tokens of a text.
        validation_rows: sources that a validation writes for, the first ones; a test takes all.
        baseline: score beside it what says the commonest target of the training split to every source.
    """

    scores: Sequence[Score] = ()
    beam: int = 1
    length_penalty: float = 0.0
    coverage_penalty: float = 0.0
    no_repeat: int = 0
    temperature: float | None = None
    tokens: int = 100
    validation_rows: int = 256
    baseline: bool = False

    @property
    def choice(self) -> Choice:
        """How texts are written."""
        if self.temperature is not None:
            return Sample(self.temperature)
        return Greedy() if self.beam == 1 else Beam(self.beam, self.length_penalty, self.coverage_penalty)


class SequenceToSequence(TokenPrediction):
    """Prediction of a target, token by token, from a source.

    Args:
        encoder: makes a memory of what a batch's `source` holds; has a `width` D, and declares what it `reads`.
        decoder: a network of the same width that `begin`s with a memory, and declares whether it `attends` to it.
        vocab_size: V of targets; the dataset knows it.
        head: how tokens become vectors and vectors become predictions.
        evaluation: what a validation and a test write and score.
        scheduled_sampling: share of the decoder's inputs that are its own guesses in training: scheduled sampling
            (Bengio et al. 2015), in two passes over all positions (Mihaylova and Martins 2019).
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.

    Raises:
        ValueError: encoder and decoder differ in width, or no share is given as one.
    """

    writes: Writes = "text"

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        vocab_size: int,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        evaluation: Evaluation = Evaluation(),  # frozen
        scheduled_sampling: float = 0.0,
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        if encoder.width != decoder.width:
            raise ValueError(f"the encoder's width={encoder.width} is not the decoder's width={decoder.width}")
        if not 0 <= scheduled_sampling <= 1:
            raise ValueError(f"scheduled_sampling={scheduled_sampling} is no share: from 0 to 1")
        super().__init__(width_of(decoder), vocab_size, head, optimizer, schedule)
        self.encoder, self.decoder = encoder, decoder
        self.evaluation, self.scheduled_sampling = evaluation, scheduled_sampling
        self.written = Written()

    @property
    def reads(self) -> Reads:  # type: ignore[override]
        """What its encoder reads."""
        return self.encoder.reads  # type: ignore[return-value]

    def begin(self, source: tuple[Tensor, ...]) -> State:
        """The state before anything was written, for what a batch's `source` holds."""
        state: State = self.decoder.begin(self.encoder(*source))  # type: ignore[operator]
        return state

    def forward(self, tokens: Int64[Tensor, "B T"], state: State) -> tuple[Float[Tensor, "B T V"], State]:
        """Logits of the token after each position, and the state after the last one.

        Args:
            tokens: what is read: the end mark at the beginning.
            state: what `begin` or an earlier call returned.
        """
        outputs, state = self.decoder(self.embedding(tokens), state)
        return self.output(outputs), state

    def look(
        self, tokens: Int64[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T V"], State, Float[Tensor, "B T S"]]:
        """As `forward`, and where in the source each position looked.

        Raises:
            ValueError: the decoder looks at its source only once.
        """
        outputs, state, weights = self._looking.look(self.embedding(tokens), state)
        return self.output(outputs), state, weights

    def inside(self, state: State) -> Bool[Tensor, "B S"]:
        """Where the source in a state holds something to look at.

        Raises:
            ValueError: the decoder looks at its source only once.
        """
        keep: Tensor = self._looking.inside(state)
        return keep

    @property
    def _looking(self) -> Any:
        if self.decoder.attends:
            return self.decoder
        raise ValueError(f"a {type(self.decoder).__name__} reads its source once and pays no attention to it")

    @torch.no_grad()
    def alignment(self, source: tuple[Tensor, ...], tokens: Sequence[int], eos: int) -> Float[np.ndarray, "T S"]:
        """Where each token of a text looked when it was written from one source.

        Args:
            source: a batch's `source` of one row.
            tokens: the text, with its end mark where it has one.
            eos: the end mark.

        Raises:
            ValueError: the decoder looks at its source only once.
        """
        state = self.begin(source)
        _, _, weights = self.look(torch.tensor([[eos, *tokens[:-1]]], device=self.device), state)
        shares: np.ndarray = weights[0][:, self.inside(state)[0]].float().cpu().numpy()
        return shares

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """The micro-batch's share of the nats a token of the global batch."""
        state = self.begin(batch.source)
        outputs, _ = self.decoder(self.embedding(self._inputs(batch, state)), state)
        return self.training_loss(outputs, batch.targets) * self.loss_scale / batch.predictions

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Add the batch to the metric, and write the texts that are to be scored."""
        self._evaluate(batch, "validation", self.evaluation.validation_rows)

    def test_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Add the batch to the metric, and write its texts."""
        self._evaluate(batch, "test", None)

    def log_held_out(self, prefix: str, split_name: str) -> float:
        """Log what an evaluation of a split found, and forget it; its nats a token."""
        loss = super().log_held_out(prefix, split_name)
        beside = {"commonest_": self._commonest} if self.evaluation.baseline else {}
        for name, value in self.written.score(self, split_name, self.evaluation.scores, beside).items():
            self.log(f"{prefix}/{name}", value, logger=False)
        return loss

    @cached_property
    def _commonest(self) -> str:
        """The target that the training split holds most often, of equals the first."""
        split = self.data.dataset.splits["train"]
        counts: Counter[str] = Counter(text for row in range(split.rows) for text in split.references(row))
        return counts.most_common(1)[0][0]

    def report(self) -> list[str]:
        """How scores are computed that come in several ways, and where the texts are."""
        return self.written.report(self.evaluation.scores)

    def write(self, source: tuple[Tensor, ...], choice: Any, tokens: int) -> list[list[int]]:
        """The best text for each source, as tokens without an end mark."""
        eos = self.data.dataset.target.eos
        prompts = [[eos]] * len(source[0])
        limits = Limits(tokens, eos=eos, no_repeat=self.evaluation.no_repeat)
        found = generate(self, prompts, choice, limits, device=self.device, start=self.begin(source))
        return [best[:-1] if best[-1] == eos else best for best, *_ in found]

    def examples(self, tokenizer: Any, count: int, tokens: int) -> list[dict[str, Any]]:
        """Texts for the first sources of the validation split, and pictures of where they looked at the sources."""
        data = self.data
        sources, shown = data.show("validation", count)
        source = tuple(part.to(self.device) for part in sources)
        texts = self.write(source, self.evaluation.choice, tokens)
        rows = [{"prompt": said, "text": tokenizer.decode(text)} for said, text in zip(shown, texts, strict=True)]
        if not self.decoder.attends:
            return rows
        for at, (row, text) in enumerate(zip(rows, texts, strict=True)):
            one, text = tuple(part[at : at + 1] for part in source), [*text, data.dataset.target.eos]
            row["picture"] = data.picture(one, text, self.alignment(one, text, text[-1]))
        return rows

    def _inputs(self, batch: PairBatch, state: State) -> Tensor:
        """The decoder's inputs, some of them what it would have said itself."""
        if not self.scheduled_sampling:
            return batch.inputs
        with torch.no_grad():
            guesses = self(batch.inputs, state)[0].argmax(-1).roll(1, dims=1)
        own = torch.rand(batch.inputs.shape, device=guesses.device) < self.scheduled_sampling
        own[:, 0] = False  # the end mark with which every text begins
        return torch.where(own, guesses, batch.inputs)

    def _evaluate(self, batch: PairBatch, split_name: str, rows: int | None) -> None:
        state = self.begin(batch.source)
        outputs, _ = self.decoder(self.embedding(batch.inputs), state)
        self.count_held_out(outputs, batch.targets)
        divided = traits(self.trainer).divides_model  # then no process can write without the others
        if self.evaluation.scores and not divided:
            data = self.data
            self.written.add(data, split_name, batch.ids.tolist(), rows, lambda places: self._write(batch, places))

    def _write(self, batch: PairBatch, places: list[int]) -> list[list[int]]:
        source = tuple(part[places] for part in batch.source)
        return self.write(source, self.evaluation.choice, self.evaluation.tokens)
