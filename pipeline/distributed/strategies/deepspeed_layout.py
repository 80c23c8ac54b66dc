"""The flat layout of weights and optimizer state in DeepSpeed 0.18 and 0.19: every access to its non-public attributes.

tests/unit/distributed/strategies/test_deepspeed_layout.py checks that each attribute used here exists.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")  # state of the dynamic loss scale
INFINITE = torch.tensor(torch.inf)
# the methods that return the gradient's norm: in stages 1 and 2, in stage 3, in stage 1 with bfloat16
NORMS = {"scaled_global_norm": INFINITE, "_get_norm_groups": [INFINITE], "get_grads_for_norm": ([INFINITE], {})}


class Fragment(NamedTuple):
    """A range of a parameter and its position in a flat partition of this process."""

    name: str
    shape: tuple[int, ...]
    start: int
    size: int
    flat: Tensor
    offset: int

    def of(self, flat: Tensor) -> Tensor:
        """Return the elements of the fragment in a tensor with the layout of `flat`."""
        return flat.detach().narrow(0, self.offset, self.size)


class DeepSpeedLayout:
    """The layout of DeepSpeed's optimizer, which wraps the optimizer of the config.

    Args:
        optimizer: optimizer of DeepSpeed's engine.
        stage: stage of ZeRO.
        rank: rank of this process.
        names: names of the parameters, by identity.
    """

    def __init__(self, optimizer: Any, stage: int, rank: int, names: dict[int, str]) -> None:
        self.zero, self.stage, self.rank, self.names = optimizer, stage, rank, names

    @property
    def inner(self) -> Any:
        """The optimizer of the config, whose parameters are flat partitions."""
        return self.zero.optimizer

    @property
    def overflowed(self) -> bool:
        """Whether the last step dropped its gradient."""
        return bool(self.zero.overflow)

    def refuse(self) -> None:
        """Make the next step skip its update, as DeepSpeed does for a non-finite norm."""
        for name, value in NORMS.items():
            setattr(self.zero, name, lambda *_, value=value, **__: value)

    def accept(self) -> None:
        """Restore the computation of the norm for later steps."""
        for name in NORMS:
            vars(self.zero).pop(name, None)

    def loss_scale(self) -> dict[str, float]:
        """Return the state of the dynamic loss scale; empty without one."""
        scaler = getattr(self.zero, "loss_scaler", None)
        return {name: getattr(scaler, name) for name in SCALER if hasattr(scaler, name)}

    def set_loss_scale(self, state: Mapping[str, float]) -> None:
        """Restore a state that `loss_scale` returned."""
        for name, value in state.items():
            setattr(self.zero.loss_scaler, name, value)

    def groups(self) -> list[dict[str, Any]]:
        """Return the parameter groups of the config's optimizer, with parameter names in place of parameters."""
        trainable = (
            self.divided() if self.stage < 3 else [group["params"] for group in self.zero.trainable_param_groups]
        )
        return [
            {**group, "params": [self.names[id(parameter)] for parameter in parameters]}
            for group, parameters in zip(self.inner.param_groups, trainable, strict=True)
        ]

    def divided(self) -> list[list[Any]]:
        """Return the partitioned parameters, in the groups that are flattened together."""
        if self.stage == 3:
            return list(self.zero.fp16_groups)
        return list(self.zero.bit16_groups if hasattr(self.zero, "bit16_groups") else self.zero.bf16_groups)

    def fragments(self) -> Iterator[Fragment]:
        """Yield for each parameter the range, possibly empty, whose optimizer state is on this process."""
        for group, flat in zip(self.divided(), self._flats(), strict=True):
            for parameter in group:
                name = self.names[id(parameter)]
                if self.stage == 3:
                    _, offset, count = self.zero.grad_position[self.zero.get_param_id(parameter)]
                    start = self.rank * count
                    count = max(0, min(count, parameter.ds_numel - start))  # the last one is padded
                    yield Fragment(name, tuple(parameter.ds_shape), start, count, flat, offset)
                elif (place := parameter._hp_mapping) is None:  # it is on other processes entirely
                    yield Fragment(name, tuple(parameter.shape), 0, 0, flat, 0)
                else:
                    here, there = place.lp_fragment_address, place.hp_fragment_address
                    yield Fragment(name, tuple(parameter.shape), here.start, here.numel, flat, there.start)

    def frozen_fragments(self) -> Iterator[Fragment]:
        """Yield for each frozen parameter that is partitioned the range, possibly empty, that is on this process."""
        parameters = self.zero.module.parameters() if self.stage == 3 else ()
        for parameter in parameters:
            if parameter.requires_grad:
                continue
            flat = parameter.ds_tensor
            start = self.rank * flat.ds_numel
            count = max(0, min(flat.ds_numel, parameter.ds_numel - start))  # the last one is padded
            yield Fragment(self.names[id(parameter)], tuple(parameter.ds_shape), start, count, flat, 0)

    def spread(self) -> None:
        """Copy the master weights into the weights used in computation."""
        zero = self.zero
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

    def _flats(self) -> list[Tensor]:
        """Return this process's partition of the master weights of each group of `divided`."""
        zero = self.zero
        if self.stage == 3:
            return list(zero.fp32_partitioned_groups_flat)
        return list(
            zero.single_partition_of_fp32_groups
            if hasattr(zero, "single_partition_of_fp32_groups")
            else zero.fp32_groups_flat_partition
        )
