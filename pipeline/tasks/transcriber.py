"""A transcriber says at every position of a sound a token or nothing; its loss sums over all ways to say the text.

Graves et al. (2006), "Connectionist Temporal Classification". What the loss is divided by are the tokens of the
transcripts with their end marks, as for other tasks, though no end mark is predicted.

Legend: B sequences, T positions, D features, V tokens of the vocabulary, L tokens of a transcript.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.state import width_of
from pipeline.tasks.generated_texts import Written
from pipeline.tasks.task import Reads, Task, Writes


@dataclass(frozen=True)
class Transcription:
    """How sounds are transcribed in a validation and a test, and how that is scored.

    Args:
        scores: what is measured on the texts; none are written without one.
        search: how texts are found; by the best path where it is None.
        validation_rows: sounds that a validation transcribes, the first ones; a test takes all.
    """

    scores: Sequence[Score] = ()
    search: PrefixSearch | None = None
    validation_rows: int = 256


class Transcriber(Task):
    """Prediction of a text from a sound, position by position, without being told where each token is said.

    Args:
        encoder: makes a memory of what a batch's `source` holds; has a `width` D and tells its `positions`.
        vocab_size: V; the dataset knows it. One output more is the blank.
        transcription: how sounds are transcribed in an evaluation, and how that is scored.
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.
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
            raise DataError("a transcriber learns transcripts, and the dataset has labels: name another one")
        super().__init__(optimizer, schedule)
        self.encoder, self.vocab_size, self.transcription = encoder, vocab_size, transcription
        self.output = nn.Linear(width_of(encoder), vocab_size + 1)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.seen, self.held_out = TokenLoss(), TokenLoss()
        self.written = Written()

    def shown(self, run: Path) -> list[Callback]:
        """A few transcripts."""
        return [Samples(run / "tokenizer.json")]

    def forward(self, *source: Tensor) -> tuple[Float[Tensor, "B T _"], Bool[Tensor, "B T"]]:
        """Logarithms of the probabilities of tokens and blank, and where there are positions."""
        memory = self.encoder(*source)
        return self.output(memory.values).float().log_softmax(-1), memory.keep

    def on_fit_start(self) -> None:
        """Look for transcripts that are too long to be said."""
        self.check("train", "validation")

    def on_validation_start(self) -> None:
        """Look for them where only a validation runs."""
        if self.trainer.state.fn == "validate":
            self.check("validation")

    def on_test_start(self) -> None:
        """Look for transcripts that are too long to be said."""
        self.check("test")

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """The micro-batch's share of the nats a token of the global batch."""
        logs, keep = self(*batch.source)
        nats = self._nats(logs, keep, batch.targets)
        self.seen.update(nats.detach(), (batch.targets != IGNORE).sum())
        return nats * self.loss_scale / batch.predictions

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Add the batch to the metrics."""
        self._evaluate(batch, "validation", self.transcription.validation_rows)

    def test_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Add the batch to the metrics."""
        self._evaluate(batch, "test", None)

    def on_validation_epoch_end(self) -> None:
        """Log loss and scores, and tell the schedule."""
        loss = self._log("val", "validation")
        if self.schedule is not None and not self.trainer.sanity_checking:
            self.schedule.observe(loss)

    def on_test_epoch_end(self) -> None:
        """Log loss and scores."""
        self._log("test", "test")

    def report(self) -> list[str]:
        """Where the texts are."""
        return self.written.report(self.transcription.scores)

    def transcribe(
        self, logs: Float[Tensor, "B T _"], keep: Bool[Tensor, "B T"], search: PrefixSearch | None = None
    ) -> list[list[int]]:
        """The tokens of each text."""
        found, lengths = logs.cpu().numpy(), keep.sum(1).tolist()
        search = search or self.transcription.search or BestPath()
        return [search(row[:length]) for row, length in zip(found, lengths, strict=True)]

    def examples(self, tokenizer: Any, count: int, tokens: int) -> list[dict[str, Any]]:
        """The first sounds of the validation split with their transcripts."""
        data = self.data
        source, names = data.show("validation", count)
        texts = self.transcribe(*self(*(part.to(self.device) for part in source)))
        rows = zip(names, texts, data.illustrate(source), strict=True)
        return [{"prompt": name, "text": tokenizer.decode(text), **more} for name, text, more in rows]

    def check(self, *names: str) -> None:
        """Raise DataError where a transcript needs more positions than its sound has: nothing could say it."""
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
                    f"{split.value('name', row)} ({name}) has {positions[row]} positions for a transcript that needs "
                    f"{needed[short[0]]} ({len(short)} such clips): lower ear.halvings or ear.hop, or leave them out"
                )

    def _evaluate(self, batch: PairBatch, split_name: str, rows: int | None) -> None:
        logs, keep = self(*batch.source)
        self.held_out.update(self._nats(logs, keep, batch.targets), (batch.targets != IGNORE).sum())
        divided = traits(self.trainer).divides_model  # then no process can write without the others
        if self.transcription.scores and not divided:
            data = self.data
            write = lambda places: self.transcribe(logs[places], keep[places])  # noqa: E731
            self.written.add(data, split_name, batch.ids.tolist(), rows, write)

    def _log(self, prefix: str, split_name: str) -> float:
        loss = float(self.held_out.compute())
        self.held_out.reset()
        scores = self.written.score(self, split_name, self.transcription.scores)
        # not to the loggers: Monitor writes one row of all that a validation found
        values = {f"{prefix}/{name}": value for name, value in {"loss": loss, **scores}.items()}
        self.log_dict(values, logger=False)
        return loss

    def _nats(self, logs: Tensor, keep: Tensor, targets: Int64[Tensor, "B L"]) -> Tensor:
        """The summed negative log-likelihood of the transcripts; rows that only fill the batch have none."""
        lengths = ((targets != IGNORE).sum(1) - 1).clamp(min=0)  # without the end mark
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
    """Positions that a text needs: one a token, and one for the blank between equal ones."""
    return len(tokens) + int((tokens[1:] == tokens[:-1]).sum())
