"""ZeRO: each process keeps a share of the optimizer's state (stage 1), of gradients (2), of weights too (3).

Rajbhandari et al. (2020), "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", by DeepSpeed.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor, nn
from torchmetrics import Metric

from pipeline.distributed.checkpoint import local_state as held
from pipeline.distributed.checkpoint.local_state import Held
from pipeline.distributed.checkpoint.shards import OPTIMIZER, WEIGHTS, Piece, Pieces, part_of_rank
from pipeline.distributed.strategies.deepspeed_layout import DeepSpeedLayout
from pipeline.distributed.strategies.sharded import DTYPES, Sharded, layers
from pipeline.errors import ConfigError


class ZeRO(Sharded, DeepSpeedStrategy):
    """DeepSpeed's optimizer, with the project's checkpoints.

    Args:
        stage: 1 divides the optimizer's state, 2 gradients too, 3 weights too.
        offload: keep what is divided in host memory.

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
        self.config["zero_force_ds_cpu_optimizer"] = False  # any optimizer of the config
        self.stage = stage

    def setup_environment(self) -> None:
        """Connect the processes: over NCCL on GPUs, over gloo on CPUs, where DeepSpeed trains just as well."""
        if isinstance(self.accelerator, CUDAAccelerator):
            super().setup_environment()
            return
        import deepspeed

        # none of its compiled kernels: gloo communicates, torch steps; and no compiler is asked what it could do
        deepspeed.ops.__compatible_ops__ = defaultdict(bool)
        self.parallel_devices = [torch.device("cpu", index) for index in range(len(self.parallel_devices or []))]
        super(DeepSpeedStrategy, self).setup_environment()

    @contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        self._init_config_if_needed()
        with super().model_sharded_context():
            yield

    def setup(self, trainer: pl.Trainer) -> None:
        """Hand the module to DeepSpeed; stage 3 gathers its layers one at a time.

        Raises:
            ConfigError: gradients are to be clipped in a way that DeepSpeed does not know.
        """
        if trainer.gradient_clip_val and trainer.gradient_clip_algorithm not in (None, "norm"):
            algorithm = getattr(trainer.gradient_clip_algorithm, "value", trainer.gradient_clip_algorithm)
            raise ConfigError(
                f"trainer.gradient_clip_algorithm={algorithm}: ZeRO clips by the norm; or train with ddp, fsdp"
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
        """Weights that are divided when they are built must have the precision that DeepSpeed computes with."""
        if dtype := DTYPES.get(str(self.precision_plugin.precision)):
            for parameter in module.parameters():
                parameter.data = parameter.data.to(dtype)

    def _move(self, module: nn.Module) -> None:
        """Move what is not divided to the device: DeepSpeed moves nothing of a module whose weights are."""
        for part in module.modules():
            if isinstance(part, Metric):
                part.to(self.root_device)
            for name, buffer in part.named_buffers(recurse=False):
                part.register_buffer(name, buffer.to(self.root_device), name not in part._non_persistent_buffers_set)

    def backward(self, closure_loss: Tensor, optimizer: Any, *arguments: Any, **named: Any) -> Tensor:
        """Differentiate; Lightning has divided the loss by the micro-batches of a step, so DeepSpeed must not."""
        return super().backward(closure_loss, optimizer, *arguments, scale_wrt_gas=False, **named)

    def optimizer_step(self, *arguments: Any, **named: Any) -> Any:
        """Step, and tell the task the norm that the gradient had before it was clipped."""
        result = super().optimizer_step(*arguments, **named)
        self._layout.accept()
        norm = self.deepspeed_engine.get_global_grad_norm()
        task: Any = self.module()
        task.norm = None if norm is None else torch.as_tensor(norm)
        return result

    def refuse_step(self, module: pl.LightningModule, scaled: bool) -> None:
        self._layout.refuse()

    @property
    def dropped_step(self) -> bool:  # type: ignore[override]
        return self._layout.overflowed

    def local_state(self, trainer: pl.Trainer) -> Held:
        layout = self._layout
        state = layout.inner.state
        found = {
            WEIGHTS + name: held.piece_of(tensor, self.global_rank, self.world_size)
            for name, tensor in self._whole(layout).items()
        }
        for part in layout.fragments():
            found[WEIGHTS + part.name] = Piece(part.of(part.flat), part.start, part.shape)
            for key, value in state.get(part.flat, {}).items():
                name = f"{OPTIMIZER}{part.name}/{key}"
                if value.shape == part.flat.shape:
                    found[name] = Piece(part.of(value), part.start, part.shape)
                else:
                    found[name] = part_of_rank(value, self.global_rank, self.world_size)
        return Held(found, {}, layout.groups(), layout.loss_scale())

    @torch.no_grad()
    def take_weights(self, pieces: Pieces) -> None:
        layout = self._layout
        for name, tensor in self._whole(layout).items():
            held.fill_tensor(tensor, pieces, WEIGHTS + name)
        for part in layout.fragments():
            held.require_tensor(pieces, WEIGHTS + part.name, part.shape)
            part.of(part.flat).copy_(pieces.read(WEIGHTS + part.name, part.start, part.start + part.size))
        layout.spread()

    @torch.no_grad()
    def take_optimizer(self, pieces: Pieces, kept: Mapping[str, Any]) -> None:
        layout = self._layout
        inner = layout.inner
        for group, before in zip(inner.param_groups, kept["groups"], strict=True):
            group.update({key: value for key, value in before.items() if key != "params"})
        for part in layout.fragments():
            for key, full in held.keys_of(pieces, part.name):
                if pieces.shapes[full] != part.shape:
                    on_device = inner.defaults.get("fused") or inner.defaults.get("capturable")
                    value = pieces.whole(full)
                    inner.state[part.flat][key] = value.to(part.flat.device) if on_device else value
                    continue
                whole = inner.state[part.flat].setdefault(key, torch.zeros_like(part.flat))
                part.of(whole).copy_(pieces.read(full, part.start, part.start + part.size))
        layout.set_loss_scale(kept["loss_scale"])

    @cached_property
    def _layout(self) -> DeepSpeedLayout:
        """The optimizer that DeepSpeed put around the one of the config."""
        names = held.names(self.module())
        return DeepSpeedLayout(self.deepspeed_engine.optimizer, self.stage, self.global_rank, names)

    def _whole(self, layout: DeepSpeedLayout) -> dict[str, Tensor]:
        """Buffers, and what is not trained: every process has all of it."""
        divided = {id(parameter) for group in layout.divided() for parameter in group}
        tensors = held.tensors(self.module())
        return {name: tensor for name, tensor in tensors.items() if id(tensor) not in divided}
