"""Data parallel whose sums are the same numbers after a restart as before it, with any number of processes.

torch's DDP sums the gradients of its first step in other buckets than those of all later steps, and the order in
which more than two numbers are summed depends on where they lie in a bucket: a run that was continued would
differ in its last bits from one that was not.
"""

from contextlib import nullcontext
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel

from pipeline.distributed.strategies.traits import StrategyTraits


class FixedBuckets(DistributedDataParallel):
    """Sums in one and the same buckets from the first step on: those of the parameters in reverse order."""

    def __init__(self, module: Module, **options: Any) -> None:
        super().__init__(module, **options)
        self.reducer._push_all_rebuilt_params()  # what the first step would do, in an order that it would find out
        self.reducer._rebuild_buckets()

    def _build_params_for_reducer(self) -> tuple[list[Any], list[bool]]:
        """The parameters in the order in which their gradients become ready, or nearly."""
        parameters, sparse = super()._build_params_for_reducer()  # type: ignore[no-untyped-call]
        return parameters[::-1], sparse[::-1]


class DataParallel(StrategyTraits, DDPStrategy):
    """The model on every device, the global batch divided among them.

    Args:
        options: of torch's DDP.
    """

    def __init__(self, **options: Any) -> None:
        # uneven batches of an evaluation must not wait for each other's buffers
        super().__init__(**{"broadcast_buffers": False, **options})

    def _setup_model(self, model: Module) -> DistributedDataParallel:
        on_gpu = self.root_device.type == "cuda"
        aside = torch.cuda.stream(torch.cuda.Stream()) if on_gpu else nullcontext()  # type: ignore[no-untyped-call]
        with aside:
            return FixedBuckets(model, device_ids=self.determine_ddp_device_ids(), **self._ddp_kwargs)
