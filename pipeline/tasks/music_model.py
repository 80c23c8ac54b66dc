"""Models of polyphonic music: the keys of the next frame, each with a probability of its own, by any causal network.

Boulanger-Lewandowski, Bengio and Vincent (2012), "Modeling temporal dependencies in high-dimensional sequences"; with
independent keys as in Bai, Kolter and Koltun (2018), "An Empirical Evaluation of Generic Convolutional and Recurrent
Networks for Sequence Modeling", section 4.3. The loss in nats of a frame is the sum over the keys of
    -log p_k if key k sounds, else -log (1 - p_k)
and its mean is over all frames of all pieces but the first of each, which is not predicted.

Legend: B pieces, T positions, K keys (88), N new frames.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.callbacks.previews.music import Rolls
from pipeline.data.batch import MusicBatch
from pipeline.dataset.music import KEYS
from pipeline.evaluation.key_baselines import key_baselines
from pipeline.evaluation.metrics import TokenLoss
from pipeline.generation.frames import DrawKeys, continue_frames
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.state import State, width_of
from pipeline.tasks.task import Reads, Task, Writes

__all__ = ["MusicModel"]


class MusicModel(Task):
    """Predicts the next frame with any causal network.

    Args:
        network: maps (B, T, D) and a state to (B, T, D) and a state; has a `width` D.
        steps_per_beat: frames of a quarter note, set from the data.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
    """

    reads: Reads = "music"
    writes: Writes = "music"

    def __init__(
        self,
        network: nn.Module,
        steps_per_beat: int,
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(optimizer, schedule)
        self.steps_per_beat = steps_per_beat
        width = width_of(network)
        self.input = nn.Linear(KEYS, width)
        self.network = network
        self.output = nn.Linear(width, KEYS)
        self.seen, self.held_out = TokenLoss(), TokenLoss()

    def forward(self, frames: Bool[Tensor, "B T K"], state: State = None) -> tuple[Float[Tensor, "B T K"], State]:
        """Return the logits of the keys in the next frame at each position, and the next state."""
        features, state = self.network(self.input(frames.to(self.input.weight.dtype)), state)
        logits: Tensor = self.output(features)
        return logits, state

    def generate(
        self,
        given: Bool[np.ndarray, "T K"],
        count: int = 200,
        draw: DrawKeys = DrawKeys(),  # noqa: B008  # frozen
        seed: int = 0,
    ) -> Bool[np.ndarray, "N K"]:
        """Return `count` frames that follow the given ones.

        Args:
            given: the frames before, at least one.
            count: number of new frames.
            draw: how the keys are chosen.
            seed: random seed.

        Raises:
            ValueError: no frames are given, or logits are not finite.
        """
        self.eval()
        return continue_frames(self, given, count, draw, seed, self.device)

    def position_losses(self, batch: MusicBatch) -> Float[Tensor, "B T"]:
        """Return the loss in nats of the frame that follows each position, NaN outside of the piece."""
        return torch.where(batch.inside, self._frame_losses(batch), torch.nan)

    def loss_metrics(self, loss: float) -> dict[str, float]:
        """Return the loss under the name of its unit too."""
        return {"loss": loss, "nats_per_frame": loss}

    def preview_callbacks(self, run: Path) -> list[Callback]:
        """Return the callback that continues pieces."""
        return [Rolls()]

    def training_step(self, batch: MusicBatch, batch_idx: int) -> Tensor:
        """Return the micro-batch's contribution to the nats per frame of the global batch."""
        nats = self._nats(batch)
        self.seen.update(nats.detach(), batch.inside.sum())
        return nats * self.loss_scale / batch.predictions

    def validation_step(self, batch: MusicBatch, batch_idx: int) -> None:
        """Add the batch to the metrics."""
        self.held_out.update(self._nats(batch), batch.inside.sum())

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Log the metrics, and pass the loss to the schedule."""
        loss = self._log("val")
        if self.schedule is not None and not self.trainer.sanity_checking:
            self.schedule.observe(loss)

    def on_test_epoch_end(self) -> None:
        """Log the metrics."""
        self._log("test")

    def report(self) -> list[str]:
        """Return the nats per frame of models that count keys in the training split."""
        splits = self.data.dataset.splits
        held_out = self.data.test_split if self.trainer.state.fn == "test" else "validation"
        found = key_baselines(splits["train"], splits[held_out])
        return [f"  {name}: {nats:.3f} nats per frame" for name, nats in found.items()]

    def _nats(self, batch: MusicBatch) -> Tensor:
        return torch.where(batch.inside, self._frame_losses(batch), 0.0).sum()

    def _frame_losses(self, batch: MusicBatch) -> Float[Tensor, "B T"]:
        logits, _ = self(batch.inputs)
        losses = F.binary_cross_entropy_with_logits(logits.float(), batch.targets.float(), reduction="none")
        return losses.sum(-1)

    def _log(self, prefix: str) -> float:
        loss = float(self.held_out.compute())
        self.held_out.reset()
        found = {f"{prefix}/{name}": value for name, value in self.loss_metrics(loss).items()}
        # Not to the loggers: Monitor writes one row with all results of a validation.
        self.log_dict(found, logger=not self.writes_rows)
        return loss
