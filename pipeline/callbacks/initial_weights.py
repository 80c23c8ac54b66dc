"""The start of a run from the weights of another, under every strategy."""

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from pipeline.callbacks.checkpointing import Checkpoints
from pipeline.distributed.checkpoint.shards import Weights
from pipeline.distributed.strategies.traits import traits


class InitialCheckpoint(Checkpoint):
    """Loads initial weights and saves them at step 0, so that the run does not require their source again.

    Lightning calls a `Checkpoint` after all other callbacks. This one must follow `Checkpoints` in the list.

    Args:
        weights: the weights.
        checkpoints: the checkpoints of the run.
    """

    def __init__(self, weights: Weights, checkpoints: Checkpoints) -> None:
        self.weights, self.checkpoints = weights, checkpoints

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fill the parts of the model that the strategy keeps on this process."""
        traits(trainer).restore_weights(pl_module, self.weights)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the first checkpoint."""
        self.checkpoints.save_first(trainer)
