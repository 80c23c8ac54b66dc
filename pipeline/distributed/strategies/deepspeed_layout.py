"""The flat layout of weights and optimizer state in DeepSpeed 0.18 and 0.19: every access to its non-public attributes.

tests/unit/distributed/strategies/test_deepspeed_layout.py checks that each attribute used here exists.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")  # its dynamic loss scale
INFINITE = torch.tensor(torch.inf)
# the methods from which its optimizers learn the gradient's norm: of stages 1 and 2, of 3, of 1 in bfloat16
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


class DeepSpeedLayout:
    """DeepSpeed's optimizer around the one of the config.

    Args:
        optimizer: of DeepSpeed's engine.
        stage: of ZeRO.
        rank: of this process.
        names: of the parameters, by identity.
    """

    def __init__(self, optimizer: Any, stage: int, rank: int, names: dict[int, str]) -> None:
        self.zero, self.stage, self.rank, self.names = optimizer, stage, rank, names

    @property
    def inner(self) -> Any:
        """The optimizer of the config, over flat partitions."""
        return self.zero.optimizer

    @property
    def overflowed(self) -> bool:
        """Whether the last step dropped its gradient."""
        return bool(self.zero.overflow)

    def refuse(self) -> None:
        """Make the next step skip its update, as DeepSpeed does for a norm that is not finite."""
        for name, value in NORMS.items():
            setattr(self.zero, name, lambda *_, value=value, **__: value)

    def accept(self) -> None:
        """Restore the measurement of the norm for later steps."""
        for name in NORMS:
            vars(self.zero).pop(name, None)

    def loss_scale(self) -> dict[str, Any]:
        """The state of the dynamic loss scale, where there is one."""
        scaler = getattr(self.zero, "loss_scaler", None)
        return {name: getattr(scaler, name) for name in SCALER if hasattr(scaler, name)}

    def set_loss_scale(self, state: dict[str, Any]) -> None:
        """Take the state that `loss_scale` gave."""
        for name, value in state.items():
            setattr(self.zero.loss_scaler, name, value)

    def groups(self) -> list[dict[str, Any]]:
        """The parameter groups of the config's optimizer, with names of parameters."""
        trainable = (
            self.divided() if self.stage < 3 else [group["params"] for group in self.zero.trainable_param_groups]
        )
        return [
            {**group, "params": [self.names[id(parameter)] for parameter in parameters]}
            for group, parameters in zip(self.inner.param_groups, trainable, strict=True)
        ]

    def divided(self) -> list[list[Any]]:
        """Parameters in the groups in which they are laid out flat."""
        if self.stage == 3:
            return list(self.zero.fp16_groups)
        return list(self.zero.bit16_groups if hasattr(self.zero, "bit16_groups") else self.zero.bf16_groups)

    def fragments(self) -> Iterator[Fragment]:
        """The range of each parameter whose optimizer state lies here, possibly empty."""
        for group, flat in zip(self.divided(), self._flats(), strict=True):
            for parameter in group:
                name = self.names[id(parameter)]
                if self.stage == 3:
                    _, offset, count = self.zero.grad_position[self.zero.get_param_id(parameter)]
                    start = self.rank * count
                    count = max(0, min(count, parameter.ds_numel - start))  # the last one is padded
                    yield Fragment(name, tuple(parameter.ds_shape), start, count, flat, offset)
                elif (place := parameter._hp_mapping) is None:  # all of it lies elsewhere
                    yield Fragment(name, tuple(parameter.shape), 0, 0, flat, 0)
                else:
                    here, there = place.lp_fragment_address, place.hp_fragment_address
                    yield Fragment(name, tuple(parameter.shape), here.start, here.numel, flat, there.start)

    def spread(self) -> None:
        """Copy the weights that are kept into those that compute."""
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
        """This process's partition of each group of `divided`, in the precision in which weights are kept."""
        zero = self.zero
        if self.stage == 3:
            return list(zero.fp32_partitioned_groups_flat)
        return list(
            zero.single_partition_of_fp32_groups
            if hasattr(zero, "single_partition_of_fp32_groups")
            else zero.fp32_groups_flat_partition
        )
