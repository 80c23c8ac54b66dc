"""Data parallel training whose gradient sums are bitwise equal before and after a restart.

torch's DDP uses other gradient buckets in its first step than in all later ones. The order in which more than two
numbers are summed depends on their position in a bucket. So a resumed run would differ in its last bits from an
uninterrupted one.
"""

from contextlib import nullcontext
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.nn import Module, Parameter
from torch.nn.parallel import DistributedDataParallel

from pipeline.distributed.strategies.traits import StrategyTraits


class FixedBuckets(DistributedDataParallel):
    """DDP with the same buckets from the first step on: the parameters in reverse order."""

    def __init__(self, module: Module, **options: Any) -> None:
        super().__init__(module, **options)
        self.reducer._push_all_rebuilt_params()  # as in the first step of DDP, but in a fixed order
        self.reducer._rebuild_buckets()

    def _build_params_for_reducer(self) -> tuple[list[Parameter], list[bool]]:
        """Return the parameters in about the order in which their gradients become ready."""
        parameters, sparse = super()._build_params_for_reducer()  # type: ignore[no-untyped-call]
        return parameters[::-1], sparse[::-1]


class DataParallel(StrategyTraits, DDPStrategy):
    """Data parallel: every device has the whole model and a part of the global batch.

    Args:
        options: arguments of torch's DDP.
    """

    def __init__(self, **options: Any) -> None:
        # processes evaluate different numbers of batches, so they must not synchronize buffers per batch
        super().__init__(**{"broadcast_buffers": False, **options})

    def _setup_model(self, model: Module) -> DistributedDataParallel:
        on_gpu = self.root_device.type == "cuda"
        aside = torch.cuda.stream(torch.cuda.Stream()) if on_gpu else nullcontext()  # type: ignore[no-untyped-call]
        with aside:
            return FixedBuckets(model, device_ids=self.determine_ddp_device_ids(), **self._ddp_kwargs)
