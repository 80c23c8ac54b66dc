"""Initial weights drawn from a distribution of the config, in place of those of the layers.

Each parameter has a random generator of its own, seeded by the seed of the run and by the parameter's name. So initial
weights depend neither on the strategy, of which a process may keep only shards, nor on other parameters.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from pipeline.distributed.checkpoint import local_state
from pipeline.distributed.checkpoint.shards import WEIGHTS
from pipeline.distributed.strategies.traits import traits
from pipeline.optim import matching_parameters


@dataclass(frozen=True)
class Initialization:
    """A distribution of initial weights, biases included.

    Args:
        distribution: uniform in [-scale, scale], or normal with mean 0 and standard deviation `scale`.
        scale: bound of the uniform distribution, standard deviation of the normal one.
        parameters: patterns of parameter names, such as `network.*`; `*` also matches dots.

    Raises:
        ValueError: the scale is negative.
    """

    distribution: Literal["uniform", "normal"]
    scale: float
    parameters: list[str] = field(default_factory=lambda: ["*"])

    def __post_init__(self) -> None:
        if self.scale < 0:
            raise ValueError(f"scale={self.scale}: expected at least 0")

    def draw(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Return initial values in float32."""
        if self.distribution == "normal":
            return torch.randn(shape, generator=generator, dtype=torch.float32) * self.scale
        return (2 * torch.rand(shape, generator=generator, dtype=torch.float32) - 1) * self.scale


@dataclass(frozen=True)
class DrawnWeights:
    """Weights drawn by name; buffers and parameters that no pattern matches keep their values.

    Args:
        initializations: by name of the parameter.
        seed: the seed of the run.
    """

    initializations: Mapping[str, Initialization]
    seed: int

    def fill(self, name: str, shape: Sequence[int], start: int, out: Tensor) -> None:
        """Overwrite a range of a flattened tensor, from `start` on."""
        name = name.removeprefix(WEIGHTS)
        if name not in self.initializations:
            return
        seed = hashlib.sha256(f"{self.seed} {name}".encode()).digest()[:8]
        generator = torch.Generator("cpu").manual_seed(int.from_bytes(seed, "big") >> 1)
        with torch.device("cpu"):
            values = self.initializations[name].draw(shape, generator)
        out.copy_(values.reshape(-1)[start : start + out.numel()])


def chosen(module: nn.Module, initializations: Sequence[Initialization]) -> dict[str, Initialization]:
    """Return the initialization of each parameter by its first name; later initializations replace earlier ones.

    Raises:
        ConfigError: a pattern matches no parameter.
    """
    names = local_state.names(module)
    found = {}
    for number, each in enumerate(initializations):
        for pattern in each.parameters:
            for parameter in matching_parameters(module, pattern, f"initialization[{number}].parameters").values():
                found[names[id(parameter)]] = each
    return found


class InitialDraw(Callback):
    """Draws the initial weights of a run, under every strategy, before the first step.

    Args:
        initializations: in the order in which they are applied.
        seed: the seed of the run.
    """

    def __init__(self, initializations: Sequence[Initialization], seed: int) -> None:
        self.initializations, self.seed = list(initializations), seed

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fill the parts of the model that the strategy keeps on this process, unless a checkpoint does."""
        if trainer.ckpt_path is None:
            traits(trainer).restore_weights(pl_module, DrawnWeights(chosen(pl_module, self.initializations), self.seed))
