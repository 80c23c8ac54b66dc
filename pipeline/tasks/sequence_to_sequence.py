"""Sequence-to-sequence learning: an encoder reads the source, a decoder predicts each token of the target.

Legend: B sequences, T positions, S positions of the source, V tokens of the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from pipeline.data.batch import PairBatch
from pipeline.distributed.strategies.traits import traits
from pipeline.errors import ConfigError
from pipeline.evaluation.metrics import Score
from pipeline.evaluation.text_scores import BLEU, ErrorRate
from pipeline.generation.beam import Beam
from pipeline.generation.sampling import Choice, Greedy, Limits, Sample, generate
from pipeline.generation.text_stream import text_of
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.runs.vocabulary_rows import Rows
from pipeline.state import State, width_of
from pipeline.tasks.generated_texts import GeneratedTexts, baselines
from pipeline.tasks.sources import audio_source, image_source, text_source
from pipeline.tasks.task import Reads, Writes
from pipeline.tasks.token_prediction import TokenEmbedding, TokenHead, TokenPrediction

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Evaluation:
    """Settings of text generation and scoring in validation and test.

    Args:
        scores: scores of the generated texts. Without scores, a validation generates no texts, and a test scores BLEU
            and word errors of at most `validation_rows` texts.
        beam: beam width; 1 for greedy decoding.
        length_penalty: exponent of the length in the beam's ranking: 0 for the log probability, 1 for its mean.
        coverage_penalty: weight of the penalty for source positions without attention in the beam's ranking.
        no_repeat: length of n-grams that are not generated twice in a text; 0 allows repetition.
        temperature: sample tokens at this temperature instead.
        tokens: maximum number of tokens of a text.
        validation_rows: maximum number of sources, evenly spaced over the split, that a validation generates texts for.
        baseline: also score baselines in a validation, as in each test: the most common target of the training split,
            and for pairs of texts the most common target token of each source token.
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
        """The decoding method."""
        if self.temperature is not None:
            return Sample(self.temperature)
        return Greedy() if self.beam == 1 else Beam(self.beam, self.length_penalty, self.coverage_penalty)


class SequenceToSequence(TokenPrediction):
    """Predicts a target, token by token, from a source.

    Args:
        encoder: maps a batch's `source` to a memory; has a `width` D, and declares what it `reads`.
        decoder: a network of the same width with `begin(memory)`, which declares whether it `attends` to the memory.
        vocab_size: V, tokens of targets, set from the dataset.
        head: settings of the embedding and the output layer.
        evaluation: how texts are generated and scored in validation and test.
        scheduled_sampling: fraction of the decoder's inputs replaced by its own predictions in training: scheduled
            sampling (Bengio et al. 2015), in two passes over all positions (Mihaylova and Martins 2019).
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.

    Raises:
        ValueError: encoder and decoder differ in width, or `scheduled_sampling` is outside [0, 1].
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
            raise ValueError(f"encoder width={encoder.width}: expected the decoder's width={decoder.width}")
        if not 0 <= scheduled_sampling <= 1:
            raise ValueError(f"scheduled_sampling={scheduled_sampling}: expected a number in [0, 1]")
        super().__init__(width_of(decoder), vocab_size, head, optimizer, schedule)
        self.encoder, self.decoder = encoder, decoder
        self.evaluation, self.scheduled_sampling = evaluation, scheduled_sampling
        self.written = GeneratedTexts()

    @property
    def reads(self) -> Reads:  # type: ignore[override]
        """Return the kind of input that the encoder reads."""
        return self.encoder.reads  # type: ignore[return-value]

    def vocabulary_rows(self) -> dict[str, Rows]:
        """Return the parameters of the embeddings of source and target, and of the output layer."""
        embeddings = (name for name, part in self.encoder.named_modules() if isinstance(part, TokenEmbedding))
        of_source = Rows("source_tokenizer.json")
        return super().vocabulary_rows() | {f"encoder.{name}.weight": of_source for name in embeddings}

    def begin(self, source: tuple[Tensor, ...]) -> State:
        """Return the decoder's initial state for a batch's `source`."""
        state: State = self.decoder.begin(self.encoder(*source))  # type: ignore[operator]
        return state

    def forward(self, tokens: Int64[Tensor, "B T"], state: State) -> tuple[Float[Tensor, "B T V"], State]:
        """Return the logits of the token after each position, and the state after the last one.

        Args:
            tokens: input tokens, which start with EOS.
            state: state returned by `begin` or an earlier call.
        """
        outputs, state = self.decoder(self.embedding(tokens), state)
        return self.output(outputs), state

    def forward_with_attention(
        self, tokens: Int64[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T V"], State, Float[Tensor, "B T S"]]:
        """Return the outputs of `forward`, and the attention weights of each position over the source.

        Raises:
            ConfigError: the decoder has no attention.
        """
        outputs, state, weights = self._attention_decoder.forward_with_attention(self.embedding(tokens), state)
        return self.output(outputs), state, weights

    def memory_mask(self, state: State) -> Bool[Tensor, "B S"]:
        """Return the mask of the source in a state, True where there is a position.

        Raises:
            ConfigError: the decoder has no attention.
        """
        keep: Tensor = self._attention_decoder.memory_mask(state)
        return keep

    @property
    def _attention_decoder(self) -> Any:
        if self.decoder.attends:
            return self.decoder
        raise ConfigError(f"decoder={type(self.decoder).__name__}: expected a decoder with attention")

    @torch.no_grad()
    def alignment(self, source: tuple[Tensor, ...], tokens: Sequence[int], eos: int) -> Float[np.ndarray, "T S"]:
        """Return the attention weights of each token of a text over its source.

        Args:
            source: a batch's `source` of one row.
            tokens: the text, with EOS if it has one.
            eos: the EOS token.

        Raises:
            ConfigError: the decoder has no attention.
        """
        state = self.begin(source)
        _, _, weights = self.forward_with_attention(torch.tensor([[eos, *tokens[:-1]]], device=self.device), state)
        aligned: np.ndarray = weights[0][:, self.memory_mask(state)[0]].float().cpu().numpy()
        return aligned

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """Return the micro-batch's contribution to the nats per token of the global batch."""
        state = self.begin(batch.source)
        outputs, _ = self.decoder(self.embedding(self._inputs(batch, state)), state)
        return self.training_loss(outputs, batch.targets) * self.loss_scale / batch.predictions

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Add the batch to the metric, and generate the texts to score."""
        self._evaluate(batch, "validation", self.evaluation.validation_rows)

    def test_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Add the batch to the metric, and generate its texts."""
        self._evaluate(batch, self.data.test_split, None if self.evaluation.scores else self.evaluation.validation_rows)

    def log_held_out(self, prefix: str, split_name: str) -> float:
        """Log and reset the metrics of an evaluation; return the nats per token."""
        loss = super().log_held_out(prefix, split_name)
        without_model = baselines(self.data, split_name) if self.evaluation.baseline or prefix == "test" else {}
        for name, value in self.written.score(self, split_name, self.scores(split_name), without_model).items():
            self.log(f"{prefix}/{name}", value, logger=not self.writes_rows)
        return loss

    def report(self) -> list[str]:
        """Return the signatures of the scores, and the file with the generated texts."""
        return self.written.report()

    @property
    def scored(self) -> str:
        """How many texts the last evaluation scored; empty if it scored all, or none."""
        return self.written.scored

    def scores(self, split_name: str) -> Sequence[Score]:
        """Return the scores of the texts generated for a split."""
        return self.evaluation.scores or (() if split_name == "validation" else self._default_scores)

    @cached_property
    def _default_scores(self) -> tuple[Score, ...]:
        return BLEU(), ErrorRate()

    def generate(
        self, source: str | Path, max_new_tokens: int = 200, choice: Choice | None = None, seed: int = 0
    ) -> str:
        """Return the text for one source: a translation, a reply, a caption or a transcript.

        Args:
            source: a text, or the file of an image or of audio, as the encoder reads it.
            max_new_tokens: maximum number of tokens.
            choice: how each token is chosen (default: the most probable one).
            seed: seed of a sampling choice.

        Raises:
            CheckpointError: the task has no tokenizer: it was not loaded by `from_pretrained`.
            DataError: the file is missing or damaged.
        """
        tokenizer, eos = self.vocabulary()
        limits = Limits(max_new_tokens, eos=eos, no_repeat=self.evaluation.no_repeat)
        self.eval()
        with torch.no_grad():
            start = self.begin(tuple(part.to(self.device) for part in self._source(source)))
        found = generate(self, [[eos]], choice or Greedy(), limits, seed=seed, device=self.device, start=start)
        [[tokens, *_]] = found
        return text_of(tokenizer, eos, tokens[:-1] if tokens[-1] == eos else tokens)

    def _source(self, source: str | Path) -> tuple[Tensor, ...]:
        if self.reads == "text":
            return text_source(*self.vocabulary("source_tokenizer.json"), [str(source)])
        encoder: Any = self.encoder
        return (
            (image_source(Path(source), encoder.size),)
            if self.reads == "image"
            else audio_source(Path(source), encoder.mel.rate)
        )

    def write(self, source: tuple[Tensor, ...], choice: Choice, tokens: int) -> list[list[int]]:
        """Return the best text for each source, as tokens without EOS."""
        eos = self.data.dataset.target.eos
        prompts = [[eos]] * len(source[0])
        limits = Limits(tokens, eos=eos, no_repeat=self.evaluation.no_repeat)
        found = generate(self, prompts, choice, limits, device=self.device, start=self.begin(source))
        return [best[:-1] if best[-1] == eos else best for best, *_ in found]

    def examples(self, tokenizer: "Tokenizer", count: int, tokens: int) -> list[dict[str, object]]:
        """Return texts for the first sources of the validation split, with pictures of the attention."""
        data = self.data
        sources, names = data.show("validation", count)
        source = tuple(part.to(self.device) for part in sources)
        texts = self.write(source, self.evaluation.choice, tokens)
        rows: list[dict[str, object]] = [
            {"prompt": name, "text": tokenizer.decode(text)} for name, text in zip(names, texts, strict=True)
        ]
        if not self.decoder.attends:
            return rows
        for at, (row, text) in enumerate(zip(rows, texts, strict=True)):
            one, text = tuple(part[at : at + 1] for part in source), [*text, data.dataset.target.eos]
            row["picture"] = data.picture(one, text, self.alignment(one, text, text[-1]))
        return rows

    def _inputs(self, batch: PairBatch, state: State) -> Tensor:
        """Return the decoder's inputs, some of them replaced by its own predictions (scheduled sampling)."""
        if not self.scheduled_sampling:
            return batch.inputs
        with torch.no_grad():
            guesses = self.most_probable(self.decoder(self.embedding(batch.inputs), state)[0]).roll(1, dims=1)
        own = torch.rand(batch.inputs.shape, device=guesses.device) < self.scheduled_sampling
        own[:, 0] = False  # the EOS at the start of every text
        return torch.where(own, guesses, batch.inputs)

    def _evaluate(self, batch: PairBatch, split_name: str, rows: int | None) -> None:
        state = self.begin(batch.source)
        outputs, _ = self.decoder(self.embedding(batch.inputs), state)
        self.count_held_out(outputs, batch.targets)
        divided = traits(self.trainer).divides_model  # With a divided model, no process can generate alone.
        if self.scores(split_name) and not divided:
            data = self.data
            self.written.add(data, split_name, batch.ids.tolist(), rows, lambda places: self._write(batch, places))

    def _write(self, batch: PairBatch, places: list[int]) -> list[list[int]]:
        source = tuple(part[places] for part in batch.source)
        return self.write(source, self.evaluation.choice, self.evaluation.tokens)
