"""Fully sharded data parallel: each process keeps a shard of every parameter and gathers a layer when it is needed.

Zhao et al. (2023), "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel", in its second form
(torch's `fully_shard`), in which shards are DTensors.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn

from pipeline.distributed.checkpoint import local_state
from pipeline.distributed.checkpoint.shards import Pieces
from pipeline.distributed.lightning_internals import set_data_parallel_size
from pipeline.distributed.strategies.sharded import DTYPES, Sharded

STEPS = ("training_step", "validation_step", "test_step")  # what runs the module besides its forward


class FullySharded(Sharded, ModelParallelStrategy):
    """FSDP2 over all processes: layers are gathered one at a time.

    Args:
        reshard_after_forward: drop a gathered layer after its forward pass and gather it again for the
            backward pass; False keeps it: more memory, less communication.
    """

    def __init__(self, reshard_after_forward: bool = True) -> None:
        super().__init__(tensor_parallel_size=1)
        self.reshard_after_forward = reshard_after_forward

    def setup_environment(self) -> None:
        """Connect the processes; all of them share one mesh."""
        set_data_parallel_size(self, self.num_nodes * self.num_processes)
        super().setup_environment()

    def setup(self, trainer: pl.Trainer) -> None:
        """Divide the module, then make the optimizer over its shards."""
        from torch.distributed.fsdp import register_fsdp_forward_method

        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        module = self.module()
        self.divide(module)  # what is left of it: the layers were divided when they were built
        for step in STEPS:
            register_fsdp_forward_method(module, step)
        if trainer.state.fn == "fit":
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()
        self.barrier()

    def take_weights(self, pieces: Pieces) -> None:
        local_state.take_weights(self.module(), pieces)

    def take_optimizer(self, pieces: Pieces, kept: Mapping[str, Any]) -> None:
        local_state.take_optimizer(self.module(), self.optimizers[0], pieces, kept)

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Micro-batches before the last add to the gradient without a word to the others."""
        module: Any = self.module()
        module.set_requires_gradient_sync(False)
        yield
        module.set_requires_gradient_sync(True)

    def divide(self, layer: nn.Module) -> None:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        computed = DTYPES.get(str(self.precision_plugin.precision))
        policy = MixedPrecisionPolicy(param_dtype=computed, reduce_dtype=torch.float32 if computed else None)
        fully_shard(
            layer.to(self.root_device),
            mesh=self.device_mesh["data_parallel"],
            mp_policy=policy,
            reshard_after_forward=self.reshard_after_forward,
        )
