"""Fully sharded data parallel: each process keeps a shard of every parameter and gathers a layer when it is needed.

Zhao et al. (2023), "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel", as FSDP2 (torch's
`fully_shard`), in which shards are DTensors.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn

from pipeline.distributed.checkpoint import local_state
from pipeline.distributed.checkpoint.local_state import OptimizerRecord
from pipeline.distributed.checkpoint.shards import ShardReader
from pipeline.distributed.lightning_internals import set_data_parallel_size
from pipeline.distributed.strategies.sharded import DTYPES, Sharded

STEPS = ("training_step", "validation_step", "test_step")  # methods besides `forward` that run the module


class FullySharded(Sharded, ModelParallelStrategy):
    """FSDP2 over all processes: layers are gathered one at a time.

    Args:
        reshard_after_forward: free a gathered layer after its forward pass and gather it again for the backward
            pass. False keeps it gathered, which needs more memory and less communication.
    """

    def __init__(self, reshard_after_forward: bool = True) -> None:
        super().__init__(tensor_parallel_size=1)
        self.reshard_after_forward = reshard_after_forward

    def setup_environment(self) -> None:
        """Initialize the process group and one mesh over all processes."""
        set_data_parallel_size(self, self.num_nodes * self.num_processes)
        super().setup_environment()

    def setup(self, trainer: pl.Trainer) -> None:
        """Shard the module, then create the optimizer over the shards."""
        from torch.distributed.fsdp import register_fsdp_forward_method

        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        module = self.module()
        self.divide(module)  # the remaining parameters: the layers were sharded when they were built
        for step in STEPS:
            register_fsdp_forward_method(module, step)
        if trainer.state.fn == "fit":
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()
        self.barrier()

    def restore_optimizer(self, shards: ShardReader, kept: OptimizerRecord) -> None:
        local_state.restore_optimizer(self.module(), self.optimizers[0], shards, kept)

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Accumulate the gradients of micro-batches before the last without communication."""
        from torch.distributed.fsdp import FSDPModule

        module = self.module()
        assert isinstance(module, FSDPModule)
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
