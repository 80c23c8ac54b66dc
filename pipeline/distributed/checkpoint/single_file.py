"""A checkpoint as one file, for programs that read files of torch, Lightning or safetensors.

FILE.ckpt or FILE.pt    everything, in the layout of Lightning's checkpoints
FILE.safetensors        only the weights of training, each tensor whole
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.errors import ConfigError
from pipeline.files import write_durably

WHOLE, WEIGHTS = (".ckpt", ".pt"), ".safetensors"


def write_single_file(directory: Path, file: Path, more: Mapping[str, object] = MappingProxyType({})) -> None:
    """Write a checkpoint of any strategy and number of processes to one file.

    Args:
        directory: the checkpoint.
        file: file to create; its suffix is its format.
        more: entries to add to the full state.

    Raises:
        ConfigError: the file's suffix is not that of a format, the file exists, or it cannot be written.
        CheckpointError: the checkpoint is damaged.
    """
    if file.suffix not in (*WHOLE, WEIGHTS):
        raise ConfigError(f"--output={file}: expected suffix {', '.join(WHOLE)} or {WEIGHTS}, got {file.suffix!r}")
    if file.exists():
        raise ConfigError(f"--output={file} exists. Choose another --output, or remove the file.")
    checkpoint.verify_checkpoint(directory)
    state = {**checkpoint.read_state(directory), **more}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_durably(file, lambda path: _save(state, path, file.suffix))
    except OSError as error:
        raise ConfigError(f"--output={file} cannot be written: {error}. Choose another --output.") from error


def _save(state: dict[str, Any], path: Path, suffix: str) -> None:
    from safetensors.torch import save_file

    if suffix in WHOLE:
        torch.save(state, path)
        return
    once: dict[int, tuple[str, Tensor]] = {}  # safetensors stores a shared tensor once, under its first name
    shared: dict[str, str] = {}  # first names by the others, as in files of safetensors' `save_model`
    for name, tensor in state["state_dict"].items():
        place = tensor.data_ptr() if tensor.numel() else -len(once)
        first, _ = once.setdefault(place, (name, tensor.contiguous()))
        shared |= {} if first == name else {name: first}
    metadata = {**shared, "format": "pt", "step": str(state["global_step"])}
    save_file(dict(once.values()), path, metadata=metadata)
