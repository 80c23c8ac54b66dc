"""Execution of a network's layers in training: plain, compiled, or with activation checkpointing."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch._inductor.runtime.cache_dir_utils import default_cache_dir
from torch.utils.checkpoint import checkpoint

from pipeline.distributed.strategies.sharded import layers
from pipeline.distributed.strategies.traits import traits
from pipeline.errors import ConfigError


class Execution(Callback):
    """Changes how each layer runs forward, under every strategy; names and weights stay the same.

    Args:
        compile: compile each layer, and the loss of tokens, with `torch.compile`; the first steps take about a minute,
            later ones are faster. Evaluation and generation, whose shapes change from call to call, are not compiled.
            Compiled code is kept in the user's cache directory, so a restart does not compile again.
        activation_checkpointing: keep only the inputs of each layer and recompute the rest in the backward
            pass (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"). About a third more computation,
            far less memory, the same results.

    Raises:
        ConfigError: `torch.compile` requires a C++ compiler, which is not installed.
    """

    def __init__(self, compile: bool = False, activation_checkpointing: bool = False) -> None:
        self.compile, self.activation_checkpointing = compile, activation_checkpointing
        if compile and not shutil.which(os.environ.get("CXX", "g++")):
            raise ConfigError("execution.compile=true requires a C++ compiler: install g++, or set it to false")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Change the layers, after the strategy has wrapped them."""
        if not self.compile and not self.activation_checkpointing:
            return
        if self.compile:
            keep_compiled()
        for layer in layers(pl_module):
            layer.forward = partial(_run, layer, layer.forward, self._changed(layer.forward))
        if not self.compile or traits(trainer).gathers_in_hooks:
            return
        for name in getattr(pl_module, "compiled", ()):
            setattr(pl_module, name, torch.compile(getattr(pl_module, name)))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the layers."""
        for layer in layers(pl_module):
            layer.__dict__.pop("forward", None)
        for name in getattr(pl_module, "compiled", ()):
            pl_module.__dict__.pop(name, None)

    def _changed(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        if self.compile:
            forward = torch.compile(forward)
        return partial(checkpoint, forward, use_reentrant=False) if self.activation_checkpointing else forward


def keep_compiled() -> None:
    """Make `torch.compile` keep its code in the user's cache directory, unless a variable names another place.

    Its default is below /tmp, which a job loses when it is requeued to another node. The code is executed when it is
    loaded, so it is not a part of a run, which others may copy and continue.
    """
    try:
        directory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unroll" / "compiled"
    except RuntimeError:  # a user without a home directory
        return
    for name, folder in (("TORCHINDUCTOR_CACHE_DIR", directory), ("TRITON_CACHE_DIR", directory / "triton")):
        if os.environ.get(name, default := default_cache_dir()) == default:  # which torch sets when it is imported
            os.environ[name] = str(folder)


def _run(layer: nn.Module, plain: Callable[..., Any], changed: Callable[..., Any], *inputs: Any) -> Any:
    return (changed if layer.training else plain)(*inputs)
