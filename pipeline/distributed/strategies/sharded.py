"""What strategies that divide the model have in common: checkpoints go through pieces, by name.

So a run may go on under another strategy, or on another number of processes, from any of its checkpoints.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.distributed.checkpoint.shards import Pieces
from pipeline.distributed.strategies.traits import StrategyTraits

DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}  # what weights are computed with, by precision


class Sharded(StrategyTraits, ABC):
    """Mixed into a Lightning strategy, before it."""

    divides_model = True
    path: Path  # of the checkpoint that is loaded
    restore_checkpoint_after_setup = True  # there is nothing to fill before the model is divided
    lightning_restore_optimizer = True

    @contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        """Divide each layer as soon as it has its place: no process ever holds the whole of a large model."""

        def divide(parent: nn.Module, name: str, child: nn.Module | None) -> None:
            if isinstance(parent, nn.ModuleList) and child is not None and is_layer(child):
                self.divide(child)

        hook = register_module_module_registration_hook(divide)
        try:
            yield
        finally:
            hook.remove()

    @abstractmethod
    def divide(self, layer: nn.Module) -> None:
        """Keep only this process's share of a layer's weights, where the strategy divides weights."""

    def module(self) -> nn.Module:
        """The model that is trained."""
        module: nn.Module | None = self.lightning_module  # type: ignore[attr-defined]
        assert module is not None
        return module

    @abstractmethod
    def take_weights(self, pieces: Pieces) -> None:
        """Fill this process's part of the weights."""

    @abstractmethod
    def take_optimizer(self, pieces: Pieces, kept: Mapping[str, Any]) -> None:
        """Fill this process's part of the optimizer's state; `kept` is the rest of `local_state`."""

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Nothing: `local_state` is what is saved."""
        return {}

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Nothing: `local_state` is what is saved."""
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
    return [layer for each in lists for layer in each if is_layer(layer)]


def is_layer(module: nn.Module) -> bool:
    """Whether a member of a ModuleList holds parameters."""
    return any(True for _ in module.parameters())
