"""The weights of a run, a checkpoint, an exported model or a file, read one tensor at a time."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.distributed.checkpoint.averaged import AVERAGED
from pipeline.distributed.checkpoint.shards import WEIGHTS, ShardReader, open_safetensors
from pipeline.distributed.checkpoint.single_file import WEIGHTS as SAFETENSORS
from pipeline.distributed.checkpoint.single_file import WHOLE
from pipeline.errors import CheckpointError, ConfigError
from pipeline.runs import export
from pipeline.runs.load import choose_checkpoint, read_file
from pipeline.runs.run import find_run


@dataclass(frozen=True)
class WeightsSource:
    """Tensors by name, with their origin.

    Args:
        path: the checkpoint, the exported model or the file.
        title: its description.
        shapes: shapes of the tensors by name.
        read: returns a whole tensor on the CPU.
        aliases: names of tensors that are listed under another name, because they are shared.
        tokenizers: tokenizer files by their names in a run.
        run: name of the run that trained the weights; None if it is not known.
        step: optimizer steps of that run; None if they are not known.
    """

    path: Path
    title: str
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], Tensor]
    aliases: Mapping[str, str] = field(default_factory=dict)
    tokenizers: Mapping[str, Path] = field(default_factory=dict)
    run: str | None = None
    step: int | None = None

    def hash(self) -> str:
        """Return the SHA-256 of names, types, shapes and values; the same for a checkpoint and an export of it."""
        found = hashlib.sha256()
        for name in sorted([*self.shapes, *self.aliases]):
            tensor = self.read(self.aliases.get(name, name)).contiguous()
            found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
            found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return found.hexdigest()


def open_source(given: str, verify: bool = True) -> WeightsSource:
    """Open the weights of a source.

    Args:
        given: name or directory of a run, whose best checkpoint is used; a checkpoint; an exported model; a file of
            safetensors; or a file that `unroll checkpoint convert` wrote.
        verify: compare the hashes of a checkpoint.

    Raises:
        CheckpointError: it does not exist or is damaged.
    """
    path = Path(given)
    if path.suffix == SAFETENSORS or path.suffix in WHOLE:
        return _of_file(path)
    if export.is_exported(path):
        return _of_file(path / export.WEIGHTS, path)
    if not (path / checkpoint.MANIFEST).is_file():
        try:
            run = find_run(given)
        except (CheckpointError, ConfigError) as error:
            kinds = "a run, a checkpoint, an exported model or a file of weights"
            raise CheckpointError(f"from={given}: expected {kinds}; {error}") from error
        return _of_checkpoint(choose_checkpoint(run, "best"))
    if verify:
        checkpoint.verify_checkpoint(path)
    return _of_checkpoint(path)


def _of_checkpoint(path: Path) -> WeightsSource:
    plain, shards = checkpoint.read_plain(path), ShardReader(path)
    average: dict[str, Tensor] = plain.get(AVERAGED, {})
    run, step = path.absolute().parents[1], checkpoint.step_of(path)
    names = [name.removeprefix(WEIGHTS) for name in shards if name.startswith(WEIGHTS)]
    return WeightsSource(
        path=path.absolute(),
        title=f"run {run.name}, {path.name}" + (", averaged over steps" if average else ""),
        shapes={name: shards.shapes[WEIGHTS + name] for name in names},
        read=lambda name: average[name] if name in average else shards.whole(WEIGHTS + name),
        aliases=plain["aliases"],
        tokenizers=_tokenizers(run),
        run=run.name,
        step=step,
    )


def _of_file(file: Path, exported: Path | None = None) -> WeightsSource:
    """Return the weights of a file, or of the exported model that contains it."""
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist. Name a run, an exported model or a file of weights")
    shapes, read, aliases, about = (_whole if file.suffix in WHOLE else _safetensors)(file)
    run, step = about.get("run"), about.get("step")
    return WeightsSource(
        path=(exported or file).absolute(),
        title=str(exported or file) + (f" (run {run}, step {step})" if run and step else ""),
        shapes=shapes,
        read=read,
        aliases=aliases,
        tokenizers=_tokenizers(file.absolute().parent),
        run=str(run) if run else None,
        step=int(str(step)) if str(step).isdigit() else None,
    )


Opened = tuple[dict[str, tuple[int, ...]], Callable[[str], Tensor], dict[str, str], Mapping[str, object]]


def _safetensors(file: Path) -> Opened:
    """Return shapes, a reader, names of shared tensors and metadata of a file of safetensors."""
    opened = open_safetensors(file)
    shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118  # no mapping
    about = opened.metadata() or {}
    aliases = {name: first for name, first in about.items() if first in shapes and name not in shapes}
    return shapes, opened.get_tensor, aliases, about


def _whole(file: Path) -> Opened:
    """Return the same of a file in the layout of Lightning's checkpoints."""
    state = read_file(file)
    tensors = {name: value for name, value in state.get("state_dict", {}).items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{file} has no weights: expected the key state_dict. Name another file")
    first: dict[object, str] = {}
    names = {name: first.setdefault(value.data_ptr() or name, name) for name, value in tensors.items()}
    average = {names[name]: value for name, value in state.get(AVERAGED, {}).items()}
    kept = {name: average.get(name, value) for name, value in tensors.items() if names[name] == name}
    aliases = {name: one for name, one in names.items() if name != one}
    shapes = {name: tuple(value.shape) for name, value in kept.items()}
    return shapes, partial(dict.__getitem__, kept), aliases, {"step": state.get("global_step")}


def _tokenizers(directory: Path) -> dict[str, Path]:
    return {file.name: file for file in directory.glob(f"*{export.TOKENIZER}")}
