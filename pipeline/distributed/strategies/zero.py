"""ZeRO: each process keeps a share of the optimizer's state (stage 1), of gradients (2), of weights too (3).

Rajbhandari et al. (2020), "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", by DeepSpeed.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor, nn
from torchmetrics import Metric

from pipeline.distributed.checkpoint import local_state as held
from pipeline.distributed.checkpoint.local_state import Held
from pipeline.distributed.checkpoint.shards import OPTIMIZER, WEIGHTS, Piece, Pieces, share
from pipeline.distributed.strategies.sharded import DTYPES, Sharded, layers
from pipeline.errors import ConfigError

SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")  # DeepSpeed's dynamic loss scale
INFINITE = torch.tensor(torch.inf)
# the methods from which DeepSpeed's optimizers learn the norm: of stages 1 and 2, of 3, of 1 in bfloat16
NORMS = {"scaled_global_norm": INFINITE, "_get_norm_groups": [INFINITE], "get_grads_for_norm": ([INFINITE], {})}


class Fragment(NamedTuple):
    """A range of a parameter, and where it lies in a flat partition of this process."""

    name: str
    shape: tuple[int, ...]
    start: int
    size: int
    flat: Tensor
    offset: int

    def of(self, flat: Tensor) -> Tensor:
        """Its elements in a tensor laid out as `flat` is."""
        return flat.detach().narrow(0, self.offset, self.size)


class ZeRO(Sharded, DeepSpeedStrategy):
    """DeepSpeed's optimizer, with the project's checkpoints.

    Args:
        stage: 1 divides the optimizer's state, 2 gradients too, 3 weights too.
        offload: keep what is divided in host memory.

    Raises:
        ConfigError: DeepSpeed is not installed.
    """

    clips = True  # and measures the gradient's norm, in its step

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
        for name in NORMS:
            vars(self._zero()).pop(name, None)
        norm = self.deepspeed_engine.get_global_grad_norm()
        task: Any = self.module()
        task.norm = None if norm is None else torch.as_tensor(norm)
        return result

    def refuse(self) -> None:
        """Have the step that comes now drop its gradient, as DeepSpeed does when the norm is not finite."""
        for name, value in NORMS.items():
            setattr(self._zero(), name, lambda *_, value=value, **__: value)

    @property
    def dropped(self) -> bool:
        """Whether the last step dropped its gradient."""
        return bool(self._zero().overflow)

    def held(self) -> Held:
        state = self._inner().state
        found = {
            WEIGHTS + name: held.piece_of(tensor, self.global_rank, self.world_size)
            for name, tensor in self._whole().items()
        }
        for part in self._fragments():
            found[WEIGHTS + part.name] = Piece(part.of(part.flat), part.start, part.shape)
            for key, value in state.get(part.flat, {}).items():
                name = f"{OPTIMIZER}{part.name}/{key}"
                if value.shape == part.flat.shape:
                    found[name] = Piece(part.of(value), part.start, part.shape)
                else:
                    found[name] = share(value, self.global_rank, self.world_size)
        scaler = getattr(self._zero(), "loss_scaler", None)
        scale = {name: getattr(scaler, name) for name in SCALER if hasattr(scaler, name)}
        return Held(found, {}, self._groups(), scale)

    @torch.no_grad()
    def take_weights(self, pieces: Pieces) -> None:
        for name, tensor in self._whole().items():
            held.fill(tensor, pieces, WEIGHTS + name)
        for part in self._fragments():
            held.check(pieces, WEIGHTS + part.name, part.shape)
            part.of(part.flat).copy_(pieces.read(WEIGHTS + part.name, part.start, part.start + part.size))
        self._spread()

    @torch.no_grad()
    def take_optimizer(self, pieces: Pieces, kept: Mapping[str, Any]) -> None:
        inner = self._inner()
        for group, before in zip(inner.param_groups, kept["groups"], strict=True):
            group.update({key: value for key, value in before.items() if key != "params"})
        for part in self._fragments():
            for key, full in held.keys_of(pieces, part.name):
                if pieces.shapes[full] != part.shape:
                    on_device = inner.defaults.get("fused") or inner.defaults.get("capturable")
                    value = pieces.whole(full)
                    inner.state[part.flat][key] = value.to(part.flat.device) if on_device else value
                    continue
                whole = inner.state[part.flat].setdefault(key, torch.zeros_like(part.flat))
                part.of(whole).copy_(pieces.read(full, part.start, part.start + part.size))
        for name, value in kept["loss_scale"].items():
            setattr(self._zero().loss_scaler, name, value)

    def _fragments(self) -> Iterator[Fragment]:
        """The range of each parameter whose optimizer state lies here, possibly empty."""
        zero, named = self._zero(), held.names(self.module())
        for group, flat in zip(self._divided(), self._flats(), strict=True):
            for parameter in group:
                name = named[id(parameter)]
                if self.stage == 3:
                    _, offset, count = zero.grad_position[zero.get_param_id(parameter)]
                    start = self.global_rank * count
                    count = max(0, min(count, parameter.ds_numel - start))  # the last one is padded
                    yield Fragment(name, tuple(parameter.ds_shape), start, count, flat, offset)
                elif (place := parameter._hp_mapping) is None:  # all of it lies elsewhere
                    yield Fragment(name, tuple(parameter.shape), 0, 0, flat, 0)
                else:
                    here, there = place.lp_fragment_address, place.hp_fragment_address
                    yield Fragment(name, tuple(parameter.shape), here.start, here.numel, flat, there.start)

    def _divided(self) -> list[list[Any]]:
        """Parameters in the groups in which DeepSpeed lays them out flat."""
        zero = self._zero()
        if self.stage == 3:
            return list(zero.fp16_groups)
        return list(zero.bit16_groups if hasattr(zero, "bit16_groups") else zero.bf16_groups)

    def _flats(self) -> list[Tensor]:
        """This process's partition of each such group, in the precision in which weights are kept."""
        zero = self._zero()
        if self.stage == 3:
            return list(zero.fp32_partitioned_groups_flat)
        return list(
            zero.single_partition_of_fp32_groups
            if hasattr(zero, "single_partition_of_fp32_groups")
            else zero.fp32_groups_flat_partition
        )

    def _groups(self) -> list[dict[str, Any]]:
        inner, named = self._inner(), held.names(self.module())
        groups = self._divided() if self.stage < 3 else [g["params"] for g in self._zero().trainable_param_groups]
        return [
            {**group, "params": [named[id(parameter)] for parameter in parameters]}
            for group, parameters in zip(inner.param_groups, groups, strict=True)
        ]

    def _whole(self) -> dict[str, Tensor]:
        """Buffers, and what is not trained: every process has all of it."""
        divided = {id(parameter) for group in self._divided() for parameter in group}
        tensors = held.tensors(self.module())
        return {name: tensor for name, tensor in tensors.items() if id(tensor) not in divided}

    def _spread(self) -> None:
        """Have the weights that compute follow those that are kept."""
        zero = self._zero()
        if self.stage < 3:
            zero.update_lp_params()
            return
        zero.checkpoint_event_prologue()
        for kept, computing, parts in zip(
            zero.fp32_partitioned_groups_flat,
            zero.fp16_partitioned_groups_flat,
            zero.fp16_partitioned_groups,
            strict=True,
        ):
            computing.copy_(kept)
            for part, values in zip(parts, zero.unflatten(computing, parts), strict=True):
                part.data = values.data
        zero.checkpoint_event_epilogue()

    def _zero(self) -> Any:
        """DeepSpeed's optimizer around the one of the config."""
        return self.deepspeed_engine.optimizer

    def _inner(self) -> Any:
        """The optimizer of the config, over flat partitions."""
        return self._zero().optimizer
