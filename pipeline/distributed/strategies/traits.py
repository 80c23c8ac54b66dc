"""What training asks of a strategy, so that nobody has to ask which one it is."""

import math
from typing import Any

import lightning.pytorch as pl

from pipeline.distributed.checkpoint import local_state
from pipeline.distributed.checkpoint.local_state import Held


class StrategyTraits:
    """The answers of a strategy that keeps the whole model on each process; others override them."""

    divides_model = False  # no process can compute without the others
    owns_gradients = False  # measures and clips them within its own step, and shows them to nobody
    dropped_step = False  # the last step dropped its gradient by itself

    def refuse_step(self, module: pl.LightningModule, scaled: bool) -> None:
        """Have the step that comes change nothing.

        Args:
            module: whose gradients are dropped.
            scaled: the loss is scaled for float16; the scaler looks for infinite gradients itself.
        """
        for parameter in module.parameters():
            if parameter.grad is not None and scaled:
                parameter.grad.fill_(math.inf)
            else:
                parameter.grad = None  # no optimizer touches a parameter without a gradient

    def local_state(self, trainer: pl.Trainer) -> Held:
        """What this process holds of weights and optimizer state."""
        optimizer = trainer.optimizers[0] if trainer.optimizers else None
        return local_state.hold(trainer.lightning_module, optimizer, trainer.global_rank, trainer.world_size)


def traits(trainer: pl.Trainer) -> StrategyTraits:
    """Of the trainer's strategy; one of Lightning's own keeps the whole model on each process."""
    strategy: Any = trainer.strategy
    return strategy if isinstance(strategy, StrategyTraits) else StrategyTraits()
