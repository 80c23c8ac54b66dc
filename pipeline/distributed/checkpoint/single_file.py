"""A checkpoint as one file, for programs that know torch, Lightning or safetensors and not this project.

FILE.ckpt or FILE.pt    everything, as Lightning's own checkpoints are laid out
FILE.safetensors        the weights of training alone, each tensor whole
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.errors import ConfigError
from pipeline.files import write_durably

WHOLE, WEIGHTS = (".ckpt", ".pt"), ".safetensors"


def write_single_file(directory: Path, file: Path) -> None:
    """Write a checkpoint to one file, whatever strategy and number of processes it comes from.

    Raises:
        ConfigError: the file's suffix names no format, it is there already, or it cannot be written.
        CheckpointError: the checkpoint is damaged.
    """
    if file.suffix not in (*WHOLE, WEIGHTS):
        raise ConfigError(f"{file}: the suffix names the format, one of {', '.join((*WHOLE, WEIGHTS))}")
    if file.exists():
        raise ConfigError(f"{file} is there already: name another --output, or remove it")
    checkpoint.verify_checkpoint(directory)
    state = checkpoint.read_state(directory)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_durably(file, lambda path: _save(state, path, file.suffix))
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error}") from error


def _save(state: dict[str, Any], path: Path, suffix: str) -> None:
    from safetensors.torch import save_file

    if suffix in WHOLE:
        torch.save(state, path)
        return
    once: dict[int, tuple[str, Tensor]] = {}  # shared tensors under their first name
    for name, tensor in state["state_dict"].items():
        once.setdefault(tensor.data_ptr() if tensor.numel() else -len(once), (name, tensor.contiguous()))
    save_file(dict(once.values()), path, metadata={"format": "pt", "step": str(state["global_step"])})
