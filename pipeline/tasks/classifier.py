"""Classification of whole sequences; the loss is the cross-entropy in nats per label.

Legend: B sequences, D features, C classes.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional

from pipeline.callbacks.previews.confusion_matrix import Confusions
from pipeline.callbacks.previews.samples import Samples
from pipeline.data.batch import IGNORE, LabelBatch
from pipeline.errors import DataError
from pipeline.evaluation.metrics import Confusion, TokenLoss
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.runs.vocabulary_rows import Rows
from pipeline.state import width_of
from pipeline.tasks.task import Reads, Task, Writes

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Classifier(Task):
    """Predicts one label from the summary of an encoded source.

    Args:
        encoder: maps a batch's `source` to a memory with a summary; has a `width` D and declares what it `reads`.
        classes: C, set from the dataset.
        label_smoothing: fraction of a label's probability that training spreads over all classes; logged losses are
            computed without it.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
    """

    writes: Writes = "label"

    def __init__(
        self,
        encoder: nn.Module,
        classes: int | None,
        label_smoothing: float = 0.0,
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        if not classes:
            raise DataError("a classifier requires labels, but the dataset has transcripts: prepare it with --labels")
        super().__init__(optimizer, schedule)
        self.encoder, self.classes, self.label_smoothing = encoder, classes, label_smoothing
        self.output = nn.Linear(width_of(encoder), classes)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.seen, self.held_out = TokenLoss(), TokenLoss()
        self.confusion = Confusion(classes)

    @property
    def reads(self) -> Reads:  # type: ignore[override]
        """Return the kind of input that the encoder reads."""
        return self.encoder.reads  # type: ignore[return-value]

    def vocabulary_rows(self) -> dict[str, Rows]:
        """Return the parameters of the output layer."""
        return dict.fromkeys(("output.weight", "output.bias"), Rows(labels=True))

    def preview_callbacks(self, run: Path) -> list[Callback]:
        """Return the callbacks for predictions on a few sources and for the confusion matrix."""
        return [Samples(run / "tokenizer.json"), Confusions()]

    def forward(self, *source: Tensor) -> Float[Tensor, "B C"]:
        """Return the logits of the classes for a batch's `source`."""
        logits: Tensor = self.output(self.encoder(*source).summary)
        return logits

    @property
    def network(self) -> nn.Module | None:
        """The network that reads the sequence, or None if the encoder is not one causal network."""
        return getattr(self.encoder, "network", None)

    def position_losses(self, batch: LabelBatch) -> Float[Tensor, "B T"]:
        """Return the label's loss in nats at the last position, NaN at the others."""
        memory = self.encoder(*batch.source)
        logits = self.output(memory.summary).float()
        nats = functional.cross_entropy(logits, batch.labels, ignore_index=IGNORE, reduction="none")
        last = torch.where(batch.labels == IGNORE, torch.nan, nats)[:, None]
        return torch.cat([last.new_full((len(last), memory.values.shape[1] - 1), torch.nan), last], 1)

    def training_step(self, batch: LabelBatch, batch_idx: int) -> Tensor:
        """Return the micro-batch's contribution to the nats per label of the global batch."""
        logits = self(*batch.source).float()
        self.seen.update(_nats(logits.detach(), batch.labels), (batch.labels != IGNORE).sum())
        return _nats(logits, batch.labels, self.label_smoothing) * self.loss_scale / batch.predictions

    def validation_step(self, batch: LabelBatch, batch_idx: int) -> None:
        """Add the batch to the metrics."""
        logits = self(*batch.source).float()
        self.held_out.update(_nats(logits, batch.labels), (batch.labels != IGNORE).sum())
        self.confusion.update(logits.argmax(-1), batch.labels)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Log loss and accuracy, and pass the loss to the schedule."""
        loss = self._log("val")
        if self.schedule is not None and not self.trainer.sanity_checking:
            self.schedule.observe(loss)

    def on_test_epoch_end(self) -> None:
        """Log loss and accuracy."""
        self._log("test")

    def examples(self, tokenizer: "Tokenizer", count: int, tokens: int) -> list[dict[str, object]]:
        """Return the first sources of the validation split with their predicted classes."""
        data = self.data
        source, names = data.show("validation", count)
        logits = self(*(part.to(self.device) for part in source))
        rows = zip(names, logits.argmax(-1).tolist(), data.illustrate(source), strict=True)
        return [{"prompt": name, "text": data.labels[found], **more} for name, found, more in rows]

    def _log(self, prefix: str) -> float:
        loss = float(self.held_out.compute())
        self.counts = self.confusion.compute().cpu()
        self.held_out.reset()
        self.confusion.reset()
        accuracy = 100 * float(self.counts.trace() / self.counts.sum())
        # Not to the loggers: Monitor writes one row with all results of a validation.
        self.log_dict({f"{prefix}/loss": loss, f"{prefix}/accuracy": accuracy}, logger=not self.writes_rows)
        return loss

    def report(self) -> list[str]:
        """Return the accuracy of the most frequent class, and the confusion matrix of the last evaluation."""
        names, true = self.data.labels, self.counts.sum(1)
        most = int(true.argmax())
        baseline = f"always {names[most]!r}, the most frequent class: accuracy {100 * true[most] / true.sum():.4f}"
        width = max(5, *(len(name) + 1 for name in names))
        lines = [
            baseline,
            "true class (row), predicted class (column):",
            " " * width + "".join(f"{n:>{width}}" for n in names),
        ]
        for name, row in zip(names, self.counts.tolist(), strict=True):
            lines.append(f"{name:>{width}}" + "".join(f"{count:>{width}}" for count in row))
        return lines


def _nats(logits: Float[Tensor, "B C"], labels: Int64[Tensor, " B"], smoothing: float = 0.0) -> Tensor:
    return functional.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing)
