"""What strategies that divide the model have in common: checkpoints go through pieces, by name.

So a run may go on under another strategy, or on another number of processes, from any of its checkpoints.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from pipeline import checkpoint
from pipeline.held import Held
from pipeline.pieces import Pieces


class Sharded(ABC):
    """Mixed into a Lightning strategy, before it."""

    path: Path  # of the checkpoint that is loaded
    restore_checkpoint_after_setup = True  # there is nothing to fill before the model is divided
    lightning_restore_optimizer = True

    @abstractmethod
    def held(self) -> Held:
        """What this process holds of weights and optimizer state."""

    @abstractmethod
    def take_weights(self, pieces: Pieces) -> None:
        """Fill this process's part of the weights."""

    @abstractmethod
    def take_optimizer(self, pieces: Pieces, kept: Mapping[str, Any]) -> None:
        """Fill this process's part of the optimizer's state; `kept` is what `Held` says of it besides pieces."""

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Nothing: `held` is what is saved."""
        return {}

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Nothing: `held` is what is saved."""
        return {}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """The plain values; the pieces are read where they are needed."""
        self.path = Path(checkpoint_path)
        plain = checkpoint.read_plain(self.path)
        return plain | {"optimizer_states": [plain["optimizer"]]}  # Lightning asks for the key

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Fill the weights."""
        self.take_weights(Pieces(self.path))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Fill the optimizer's state."""
        self.take_optimizer(Pieces(self.path), checkpoint["optimizer_states"][0])


def layers(module: nn.Module) -> list[nn.Module]:
    """The repeated parts of a network that hold parameters: what is gathered, or computed again, one at a time."""
    lists = (each for each in module.modules() if isinstance(each, nn.ModuleList))
    return [layer for each in lists for layer in each if any(True for _ in layer.parameters())]
