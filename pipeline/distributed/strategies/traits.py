"""The properties and operations of a strategy that training depends on."""

import lightning.pytorch as pl

from pipeline.distributed.checkpoint import local_state
from pipeline.distributed.checkpoint.local_state import LocalState


class StrategyTraits:
    """Defaults for a strategy that keeps the whole model on each process; other strategies override them."""

    divides_model = False  # whether the model is partitioned, so that every process takes part in each computation
    owns_gradients = False  # whether gradients are measured and clipped inside the step, and are not accessible
    gathers_in_hooks = False  # whether each module collects its weights in a hook, which `torch.compile` cannot read
    dropped_step = False  # whether the last step skipped the update

    def refuse_step(self, module: pl.LightningModule) -> None:
        """Make the next optimizer step change nothing.

        Args:
            module: the module whose gradients are dropped.
        """
        for parameter in module.parameters():
            parameter.grad = None  # no optimizer touches a parameter without a gradient

    def local_state(self, trainer: pl.Trainer) -> LocalState:
        """Return this process's part of the weights and the optimizer state."""
        optimizer = trainer.optimizers[0] if trainer.optimizers else None
        return local_state.collect(trainer.lightning_module, optimizer, trainer.global_rank, trainer.world_size)


def traits(trainer: pl.Trainer) -> StrategyTraits:
    """Return the traits of the trainer's strategy; the defaults for a strategy of Lightning."""
    strategy: object = trainer.strategy
    return strategy if isinstance(strategy, StrategyTraits) else StrategyTraits()
