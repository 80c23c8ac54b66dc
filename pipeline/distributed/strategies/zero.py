"""ZeRO: the optimizer state (stage 1), gradients (stage 2) and weights (stage 3) are partitioned among processes.

Rajbhandari et al. (2020), "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", by DeepSpeed.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor, nn
from torchmetrics import Metric

from pipeline.distributed.checkpoint import local_state
from pipeline.distributed.checkpoint.local_state import LocalState, OptimizerRecord
from pipeline.distributed.checkpoint.shards import OPTIMIZER, WEIGHTS, ShardReader, TensorShard, part_of_rank
from pipeline.distributed.strategies.deepspeed_layout import DeepSpeedLayout
from pipeline.distributed.strategies.sharded import DTYPES, Sharded, layers
from pipeline.errors import ConfigError


class ZeRO(Sharded, DeepSpeedStrategy):
    """DeepSpeed's ZeRO, with checkpoints in the project's format.

    Args:
        stage: 1 partitions the optimizer state, 2 also gradients, 3 also weights.
        offload: keep the optimizer state, and in stage 3 the weights, in host memory.

    Raises:
        ConfigError: DeepSpeed is not installed.
    """

    owns_gradients = True

    def __init__(self, stage: Literal[1, 2, 3] = 2, offload: bool = False) -> None:
        if not torch.cuda.is_available():
            os.environ["DS_ACCELERATOR"] = "cpu"  # before DeepSpeed is imported
        try:
            super().__init__(
                stage=stage,
                offload_optimizer=offload,
                offload_parameters=offload and stage == 3,
                logging_batch_size_per_gpu=1,
            )
        except ImportError as error:
            raise ConfigError(f"DeepSpeed cannot be imported ({error}): pip install 'unroll[deepspeed]'") from error
        assert isinstance(self.config, dict)
        self.config["zero_force_ds_cpu_optimizer"] = False  # allow any optimizer in the config
        self.stage = stage
        self.gathers_in_hooks = stage == 3

    def setup_environment(self) -> None:
        """Initialize the process group: NCCL on GPUs, gloo on CPUs."""
        if isinstance(self.accelerator, CUDAAccelerator):
            super().setup_environment()
            return
        import deepspeed

        # disable all compiled kernels, and with them the search for a compiler: gloo and torch do their work
        deepspeed.ops.__compatible_ops__ = defaultdict(bool)
        self.parallel_devices = [torch.device("cpu", index) for index in range(len(self.parallel_devices or []))]
        super(DeepSpeedStrategy, self).setup_environment()

    @contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        self._init_config_if_needed()
        with super().model_sharded_context():
            yield

    def setup(self, trainer: pl.Trainer) -> None:
        """Wrap the module in DeepSpeed's engine; stage 3 gathers its layers one at a time.

        Raises:
            ConfigError: DeepSpeed does not support the algorithm of gradient clipping.
        """
        if trainer.gradient_clip_val and trainer.gradient_clip_algorithm not in (None, "norm"):
            algorithm = getattr(trainer.gradient_clip_algorithm, "value", trainer.gradient_clip_algorithm)
            raise ConfigError(
                f"trainer.gradient_clip_algorithm={algorithm}: expected norm with ZeRO. "
                "Use configs/run/ddp.yaml or configs/run/fsdp.yaml for another algorithm."
            )
        if self.stage == 3:
            from deepspeed.utils import set_z3_leaf_modules

            module = self.module()
            set_z3_leaf_modules(module, [type(layer) for layer in layers(module)], raise_if_not_found=False)
            self._cast(module)
            self._move(module)
        super().setup(trainer)

    def divide(self, layer: nn.Module) -> None:
        if self.stage < 3:
            return
        import deepspeed

        self._cast(layer)
        deepspeed.zero.Init(module=layer, remote_device=self.remote_device, config_dict_or_path=self.config)

    def _cast(self, module: nn.Module) -> None:
        """Cast weights that are partitioned at construction to the precision in which DeepSpeed computes."""
        if dtype := DTYPES.get(str(self.precision_plugin.precision)):
            for parameter in module.parameters():
                parameter.data = parameter.data.to(dtype)

    def _move(self, module: nn.Module) -> None:
        """Move buffers and metrics to the device, which DeepSpeed skips in a module with partitioned weights."""
        for part in module.modules():
            if isinstance(part, Metric):
                part.to(self.root_device)
            for name, buffer in part.named_buffers(recurse=False):
                part.register_buffer(name, buffer.to(self.root_device), name not in part._non_persistent_buffers_set)

    def backward(self, closure_loss: Tensor, optimizer: Any, *args: object, **kwargs: object) -> Tensor:
        """Run the backward pass; Lightning has averaged the loss over micro-batches, so DeepSpeed must not."""
        return super().backward(closure_loss, optimizer, *args, scale_wrt_gas=False, **kwargs)

    def optimizer_step(
        self, optimizer: Any, closure: Callable[[], object], model: nn.Module | None = None, **kwargs: object
    ) -> object:
        """Step, and set the task's `norm` to the norm of the gradient before clipping."""
        result: object = super().optimizer_step(optimizer, closure, model, **kwargs)
        self._layout.accept()
        norm = self.deepspeed_engine.get_global_grad_norm()
        task: Any = self.module()
        task.norm = None if norm is None else torch.as_tensor(norm)
        return result

    def refuse_step(self, module: pl.LightningModule) -> None:
        self._layout.refuse()

    @property
    def dropped_step(self) -> bool:  # type: ignore[override]
        return self._layout.overflowed

    def local_state(self, trainer: pl.Trainer) -> LocalState:
        layout = self._layout
        state = layout.inner.state
        found = {
            WEIGHTS + name: local_state.local_shard(tensor, self.global_rank, self.world_size)
            for name, tensor in self._whole(layout).items()
        }
        for part in layout.fragments():
            found[WEIGHTS + part.name] = TensorShard(part.of(part.flat), part.start, part.shape)
            for key, value in state.get(part.flat, {}).items():
                name = f"{OPTIMIZER}{part.name}/{key}"
                if value.shape == part.flat.shape:
                    found[name] = TensorShard(part.of(value), part.start, part.shape)
                else:
                    found[name] = part_of_rank(value, self.global_rank, self.world_size)
        return LocalState(found, {}, layout.groups(), layout.loss_scale())

    @torch.no_grad()
    def restore_weights(self, shards: ShardReader) -> None:
        layout = self._layout
        for name, tensor in self._whole(layout).items():
            local_state.fill_tensor(tensor, shards, WEIGHTS + name)
        for part in layout.fragments():
            local_state.require_tensor(shards, WEIGHTS + part.name, part.shape)
            part.of(part.flat).copy_(shards.read(WEIGHTS + part.name, part.start, part.start + part.size))
        layout.spread()

    @torch.no_grad()
    def restore_optimizer(self, shards: ShardReader, kept: OptimizerRecord) -> None:
        layout = self._layout
        inner = layout.inner
        for group, before in zip(inner.param_groups, kept["groups"], strict=True):
            group.update({key: value for key, value in before.items() if key != "params"})
        for part in layout.fragments():
            for key, full in local_state.keys_of(shards, part.name):
                if shards.shapes[full] != part.shape:
                    on_device = inner.defaults.get("fused") or inner.defaults.get("capturable")
                    value = shards.whole(full)
                    inner.state[part.flat][key] = value.to(part.flat.device) if on_device else value
                    continue
                whole = inner.state[part.flat].setdefault(key, torch.zeros_like(part.flat))
                part.of(whole).copy_(shards.read(full, part.start, part.start + part.size))
        layout.set_loss_scale(kept["loss_scale"])

    @cached_property
    def _layout(self) -> DeepSpeedLayout:
        """The layout of DeepSpeed's optimizer, which wraps the optimizer of the config."""
        names = local_state.names(self.module())
        return DeepSpeedLayout(self.deepspeed_engine.optimizer, self.stage, self.global_rank, names)

    def _whole(self, layout: DeepSpeedLayout) -> dict[str, Tensor]:
        """Return buffers and frozen parameters, which are whole on every process."""
        divided = {id(parameter) for group in layout.divided() for parameter in group}
        tensors = local_state.tensors(self.module())
        return {name: tensor for name, tensor in tensors.items() if id(tensor) not in divided}
