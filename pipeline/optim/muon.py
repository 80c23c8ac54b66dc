"""Muon for the matrices of hidden layers, and AdamW for all other parameters, as one optimizer.

Jordan et al. (2024), "Muon: An optimizer for hidden layers in neural networks": the update is the momentum of the
gradient with all singular values close to 1. Liu et al. (2025), "Muon is Scalable for LLM Training": scaled to the
typical size of an update of AdamW, it takes the learning rate and the weight decay of AdamW.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.optimizer import ParamsT

from pipeline.errors import ConfigError

NETWORKS = ("network", "encoder", "decoder")  # parts of a task whose matrices are hidden
PRODUCTS = (nn.Linear, nn.RNNBase, nn.MultiheadAttention)  # layers that multiply by their matrices


class Muon(Optimizer):
    """Muon for hidden matrices, and fused AdamW for embeddings, heads, vectors and convolutions.

    Args:
        params: parameter groups; those with `hidden: True` are matrices that Muon trains.
        lr: learning rate of both parts.
        weight_decay: weight decay of matrices.
        momentum: momentum of Muon.
        nesterov: use Nesterov momentum in Muon.
        ns_steps: steps of the Newton-Schulz iteration, which brings singular values close to 1.
        adjust_lr_fn: scale of Muon's update: `match_rms_adamw` is that of AdamW; `original` requires a learning rate
            of its own, about 0.02.
        adamw_lr: learning rate of AdamW (default: `lr`).
        betas: decay of AdamW's averages of gradient and squared gradient.
        eps: term in the denominator of AdamW.

    Raises:
        ValueError: a value is out of range.
        ConfigError: this version of torch has no Muon.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        adjust_lr_fn: Literal["match_rms_adamw", "original"] = "match_rms_adamw",
        adamw_lr: float | None = None,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ConfigError(
                f"pipeline.optim.muon.Muon: expected torch 2.9 or later, got {torch.__version__}. Upgrade torch"
            )
        self.matrices: Optimizer = torch.optim.Muon(
            [torch.zeros(1, 1)], lr, weight_decay, momentum, nesterov, ns_steps=ns_steps, adjust_lr_fn=adjust_lr_fn
        )
        self.rest: Optimizer = AdamW(
            [torch.zeros(1)], lr if adamw_lr is None else adamw_lr, betas, eps, weight_decay, fused=True
        )
        super().__init__(params, {"hidden": False})
        self.defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
            "adamw_lr": adamw_lr,
            "betas": betas,
            "eps": eps,
        }

    def add_param_group(self, param_group: dict[str, object]) -> None:
        """Add a group; `hidden: True` gives it to Muon."""
        group = {"hidden": False, **param_group}
        super().add_param_group({**self._part(bool(group["hidden"])).defaults, **group})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Perform a step of both parts; skip it on the device where the attribute `found_inf` is 1."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        skip: Tensor | None = getattr(self, "found_inf", None)
        if skip is not None and is_free(skip):
            if skip:
                return loss
            skip = None
        vars(self.rest)["found_inf"] = skip
        for group in self.param_groups:
            part = self._part(group["hidden"])
            part.state, part.param_groups = self.state, [group]
            if skip is None or part is self.rest:
                part.step()
                continue
            for parameter in (each for each in group["params"] if each.grad is not None):
                part.param_groups = [{**group, "params": [parameter]}]
                self._step_gated(parameter, skip)
        return loss

    def _part(self, hidden: bool) -> Optimizer:
        """Return the optimizer of a group."""
        return self.matrices if hidden else self.rest

    def _step_gated(self, matrix: Tensor, skip: Tensor) -> None:
        """Step one matrix, and undo it on the device if the step is skipped: only this matrix is copied."""
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)  # as the first step does
        before = [(each, each.clone()) for each in (matrix, state["momentum_buffer"])]
        self.matrices.step()
        for tensor, copy in before:
            tensor.copy_(torch.where(skip.bool(), copy, tensor))


def is_free(skip: Tensor) -> bool:
    """Return whether the host can read a decision without waiting for a device."""
    return skip.is_cpu


def hidden_matrices(module: nn.Module) -> set[nn.Parameter]:
    """Return the matrices that Muon trains: of linear, recurrent and attention layers inside the networks of a task.

    Embeddings, heads, learned positions, convolutions and maps to or from a single number are not among them.
    """
    parts = (part for name, part in module.named_children() if name in NETWORKS)
    layers = (layer for part in parts for layer in part.modules() if isinstance(layer, PRODUCTS))
    found = (parameter for layer in layers for parameter in layer.parameters(recurse=False))
    return {each for each in found if each.ndim == 2 and min(each.shape) > 1}
