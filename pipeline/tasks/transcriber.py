"""Speech recognition with connectionist temporal classification (CTC).

Graves et al. (2006), "Connectionist Temporal Classification": the loss sums over all alignments of a transcript to
the positions. It is divided by the number of tokens with EOS, as in other tasks, although EOS is not predicted.

Legend: B sequences, T positions, D features, V tokens of the vocabulary, L tokens of a transcript.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional

from pipeline.callbacks.previews.samples import Samples
from pipeline.data.batch import IGNORE, PairBatch
from pipeline.distributed.strategies.traits import traits
from pipeline.errors import DataError
from pipeline.evaluation.metrics import Score, TokenLoss
from pipeline.generation.ctc import BestPath, PrefixSearch
from pipeline.generation.text_stream import text_of
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.runs.vocabulary_rows import Rows
from pipeline.state import width_of
from pipeline.tasks.generated_texts import GeneratedTexts, baselines
from pipeline.tasks.sources import audio_source
from pipeline.tasks.task import Reads, Task, Writes

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Transcription:
    """Settings of decoding and scoring in validation and test.

    Args:
        scores: scores of the transcripts; without scores no transcripts are decoded.
        search: decoding method (default: best path).
        validation_rows: maximum number of clips, evenly spaced over the split, that a validation transcribes; a test
            transcribes all.
    """

    scores: Sequence[Score] = ()
    search: PrefixSearch | None = None
    validation_rows: int = 256


class Transcriber(Task):
    """Predicts a transcript from audio, without an alignment of tokens to positions.

    Args:
        encoder: maps a batch's `source` to a memory; has a `width` D and a method `positions`.
        vocab_size: V, set from the dataset. The output layer has one more output, the blank.
        transcription: how audio is decoded and scored in an evaluation.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
    """

    reads: Reads = "audio"
    writes: Writes = "transcript"

    def __init__(
        self,
        encoder: nn.Module,
        vocab_size: int,
        transcription: Transcription = Transcription(),  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        if not vocab_size:
            raise DataError("a transcriber requires transcripts, but the dataset has labels: use another dataset")
        super().__init__(optimizer, schedule)
        self.encoder, self.vocab_size, self.transcription = encoder, vocab_size, transcription
        self.output = nn.Linear(width_of(encoder), vocab_size + 1)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.seen, self.held_out = TokenLoss(), TokenLoss()
        self.written = GeneratedTexts()

    def vocabulary_rows(self) -> dict[str, Rows]:
        """Return the parameters of the output layer, whose last row is the blank."""
        return dict.fromkeys(("output.weight", "output.bias"), Rows())

    def preview_callbacks(self, run: Path) -> list[Callback]:
        """Return the callback that shows transcripts."""
        return [Samples(run / "tokenizer.json")]

    def forward(self, *source: Tensor) -> tuple[Float[Tensor, "B T _"], Bool[Tensor, "B T"]]:
        """Return the log probabilities of tokens and blank, and the mask of the positions."""
        memory = self.encoder(*source)
        return self.output(memory.values).float().log_softmax(-1), memory.keep

    def on_fit_start(self) -> None:
        """Check for transcripts that are longer than their audio."""
        super().on_fit_start()
        self.check("train", "validation")

    def on_validation_start(self) -> None:
        """Check for transcripts that are longer than their audio if only a validation runs."""
        if self.trainer.state.fn == "validate":
            self.check("validation")

    def on_test_start(self) -> None:
        """Check for transcripts that are longer than their audio."""
        self.check(self.data.test_split)

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """Return the micro-batch's contribution to the nats per token of the global batch."""
        logs, keep = self(*batch.source)
        nats = self._nats(logs, keep, batch.targets)
        self.seen.update(nats.detach(), (batch.targets != IGNORE).sum())
        return nats * self.loss_scale / batch.predictions

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Add the batch to the metrics."""
        self._evaluate(batch, "validation", self.transcription.validation_rows)

    def test_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Add the batch to the metrics."""
        self._evaluate(batch, self.data.test_split, None)

    def on_validation_epoch_end(self) -> None:
        """Log loss and scores, and pass the loss to the schedule."""
        loss = self._log("val", "validation")
        if self.schedule is not None and not self.trainer.sanity_checking:
            self.schedule.observe(loss)

    def on_test_epoch_end(self) -> None:
        """Log loss and scores."""
        self._log("test", self.data.test_split)

    def report(self) -> list[str]:
        """Return the signatures of the scores, and the file with the transcripts."""
        return self.written.report()

    @property
    def scored(self) -> str:
        """How many transcripts the last evaluation scored; empty if it scored all, or none."""
        return self.written.scored

    def transcribe(
        self, logs: Float[Tensor, "B T _"], keep: Bool[Tensor, "B T"], search: PrefixSearch | None = None
    ) -> list[list[int]]:
        """Return the tokens of each transcript."""
        found, lengths = logs.cpu().numpy(), keep.sum(1).tolist()
        search = search or self.transcription.search or BestPath()
        return [search(row[:length]) for row, length in zip(found, lengths, strict=True)]

    @torch.no_grad()
    def generate(self, source: str | Path, search: PrefixSearch | None = None) -> str:
        """Return the transcript of an audio file.

        Args:
            source: the file.
            search: CTC search (default: that of the settings).

        Raises:
            CheckpointError: the task has no tokenizer: it was not loaded by `from_pretrained`.
            DataError: the file is missing or damaged.
        """
        tokenizer, eos = self.vocabulary()
        encoder: Any = self.encoder
        clip = audio_source(Path(source), encoder.mel.rate)
        self.eval()
        logs, keep = self(*(part.to(self.device) for part in clip))
        [tokens] = self.transcribe(logs, keep, search)
        return text_of(tokenizer, eos, tokens)

    def examples(self, tokenizer: "Tokenizer", count: int, tokens: int) -> list[dict[str, object]]:
        """Return the first clips of the validation split with their transcripts."""
        data = self.data
        source, names = data.show("validation", count)
        texts = self.transcribe(*self(*(part.to(self.device) for part in source)))
        rows = zip(names, texts, data.illustrate(source), strict=True)
        return [{"prompt": name, "text": tokenizer.decode(text), **more} for name, text, more in rows]

    def check(self, *names: str) -> None:
        """Raise DataError if a transcript requires more positions than its audio has, so that CTC has no path."""
        data = self.data
        for name in names:
            split = data.samples(name).split
            fastest = 1 + (data.augmentation.speed if data.augmentation and name == "train" else 0)
            positions = self.encoder.positions((split.numbers("samples") / fastest).astype(np.int64))  # type: ignore[operator]
            needed = np.array([_needed(split.target(sample)) for sample in range(split.samples)])
            rows = np.searchsorted(split.first_samples, np.arange(split.samples), "right") - 1
            if len(short := np.flatnonzero(positions[rows] < needed)):
                row = int(rows[short[0]])
                raise DataError(
                    f"{split.value('name', row)} ({name}) has {positions[row]} positions, but its transcript requires "
                    f"{needed[short[0]]} ({len(short)} such clips): lower ear.halvings or ear.hop, or remove the clips"
                )

    def _evaluate(self, batch: PairBatch, split_name: str, rows: int | None) -> None:
        logs, keep = self(*batch.source)
        self.held_out.update(self._nats(logs, keep, batch.targets), (batch.targets != IGNORE).sum())
        divided = traits(self.trainer).divides_model  # With a divided model, no process can decode alone.
        if self.transcription.scores and not divided:
            data = self.data
            write = lambda places: self.transcribe(logs[places], keep[places])  # noqa: E731
            self.written.add(data, split_name, batch.ids.tolist(), rows, write)

    def _log(self, prefix: str, split_name: str) -> float:
        loss = float(self.held_out.compute())
        self.held_out.reset()
        without_model = baselines(self.data, split_name) if prefix == "test" else {}
        scores = self.written.score(self, split_name, self.transcription.scores, without_model)
        # Not to the loggers: Monitor writes one row with all results of a validation.
        values = {f"{prefix}/{name}": value for name, value in {"loss": loss, **scores}.items()}
        self.log_dict(values, logger=not self.writes_rows)
        return loss

    def _nats(self, logs: Tensor, keep: Tensor, targets: Int64[Tensor, "B L"]) -> Tensor:
        """Return the summed negative log-likelihood of the transcripts; padding rows contribute nothing."""
        lengths = ((targets != IGNORE).sum(1) - 1).clamp(min=0)  # without EOS
        nats = functional.ctc_loss(
            logs.transpose(0, 1),
            targets.clamp(min=0),
            keep.sum(1),
            lengths,
            blank=self.vocab_size,
            reduction="none",
        )
        return torch.where((targets != IGNORE).any(1), nats, 0).sum()


def _needed(tokens: np.ndarray) -> int:
    """Return the positions that a text requires: one per token, and a blank between equal tokens."""
    return len(tokens) + int((tokens[1:] == tokens[:-1]).sum())
