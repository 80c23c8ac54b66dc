"""The base of strategies that partition the model: checkpoints are saved and loaded as shards of named tensors.

So a run can continue from any checkpoint under another strategy or with another number of processes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.distributed.checkpoint.local_state import OptimizerRecord
from pipeline.distributed.checkpoint.shards import ShardReader
from pipeline.distributed.strategies.traits import StrategyTraits

DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}  # type of the weights in computation, by precision


class Sharded(StrategyTraits, ABC):
    """A mixin that precedes a Lightning strategy among the bases."""

    divides_model = True
    path: Path  # of the checkpoint that is loaded
    restore_checkpoint_after_setup = True  # the shards of the model exist only after setup
    lightning_restore_optimizer = True

    @contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        """Partition each layer as soon as it is added to a ModuleList, so no process holds a whole large model."""

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
        """Keep only this process's shard of a layer's weights, if the strategy partitions weights."""

    def module(self) -> nn.Module:
        """Return the model that is trained."""
        module: nn.Module | None = self.lightning_module  # type: ignore[attr-defined]
        assert module is not None
        return module

    @abstractmethod
    def restore_optimizer(self, shards: ShardReader, kept: OptimizerRecord) -> None:
        """Load this process's part of the optimizer state; `kept` is the rest of `local_state`."""

    def lightning_module_state_dict(self) -> dict[str, Tensor]:
        """Return nothing: `local_state` is saved instead."""
        return {}

    def optimizer_state(self, optimizer: object) -> dict[str, Tensor]:
        """Return nothing: `local_state` is saved instead."""
        return {}

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Return the plain values; the shards are read when they are needed."""
        self.path = Path(checkpoint_path)
        plain = checkpoint.read_plain(self.path)
        return plain | {"optimizer_states": [plain["optimizer"]]}  # Lightning requires the key

    def load_model_state_dict(self, checkpoint: Mapping[str, object], strict: bool = True) -> None:
        """Load the weights."""
        self.restore_weights(self.module(), ShardReader(self.path))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load the optimizer state."""
        self.restore_optimizer(ShardReader(self.path), checkpoint["optimizer_states"][0])


def layers(module: nn.Module) -> list[nn.Module]:
    """Return the repeated layers of a network that have parameters: the units of gathering and checkpointing."""
    lists = (each for each in module.modules() if isinstance(each, nn.ModuleList))
    return [layer for each in lists for layer in each if is_layer(layer)]


def is_layer(module: nn.Module) -> bool:
    """Return whether a member of a ModuleList has parameters."""
    return any(True for _ in module.parameters())
