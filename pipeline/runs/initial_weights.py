"""Start a model from the weights of another: by name, rows of tokens by their text, everything else newly initialized.

Nothing is left out silently: the report names each tensor that does not fit, and each that is not used.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pipeline.distributed.checkpoint import local_state
from pipeline.distributed.checkpoint.shards import WEIGHTS
from pipeline.errors import CheckpointError, one_line
from pipeline.runs.vocabulary_rows import Rows, row_keys, row_name
from pipeline.runs.weights_source import WeightsSource, open_source

LISTED = 12  # tokens and tensors in a line


@runtime_checkable
class HasRows(Protocol):
    """A task."""

    def vocabulary_rows(self) -> dict[str, Rows]:
        """Return the parameters with a row per token or label, by name, and what their rows mean."""


@dataclass(frozen=True)
class Matching:
    """Rows of a parameter that are taken by the text of their tokens.

    Args:
        rows: row in the source for each row of the model; -1 for a new token.
        lacking: tokens of the model that the source does not have.
    """

    rows: Tensor
    lacking: Sequence[str]


@dataclass(frozen=True)
class InitialWeights:
    """The tensors of a model that are taken from a source.

    Args:
        source: the weights.
        taken: name in the source by name in the model.
        matched: tensors whose rows are taken by the text of tokens, by name in the model.
        new: tensors that are newly initialized, with the reason.
        unused: tensors of the source that the model does not use.
        by_position: tensors of equal size whose rows cannot be compared, because the source has no tokenizer.
    """

    source: WeightsSource
    taken: Mapping[str, str]
    matched: Mapping[str, Matching]
    new: Mapping[str, str]
    unused: Sequence[str]
    by_position: Sequence[str] = ()

    def fill(self, name: str, shape: Sequence[int], start: int, out: Tensor) -> None:
        """Overwrite a range of a flattened tensor, from `start` on; elements that are not taken keep their values."""
        name = name.removeprefix(WEIGHTS)
        if name not in self.taken or not out.numel():
            return
        values, stop = self.source.read(self.taken[name]), start + out.numel()
        if name not in self.matched:
            out.copy_(values.reshape(-1)[start:stop])
            return
        rows, values = self.matched[name].rows, values.reshape(len(values), -1)
        picked = values[rows.clamp(min=0)].reshape(-1)[start:stop].to(out.dtype)
        keep = (rows >= 0).repeat_interleave(values.shape[1])[start:stop]
        out.copy_(torch.where(keep, picked, out.cpu()))

    def record(self) -> dict[str, object]:
        """Return the ancestry, for `run.json` and W&B."""
        return {
            "path": str(self.source.path),
            "run": self.source.run,
            "step": self.source.step,
            "sha256": self.source.hash(),
            "taken": len(self.taken),
            "matched": {name: [int((each.rows >= 0).sum()), len(each.rows)] for name, each in self.matched.items()},
            "new": dict(self.new),
            "unused": list(self.unused),
        }

    def lines(self) -> list[str]:
        """Return the report."""
        found = [f"weights of {self.source.title}: {len(self.taken)} of {len(self.taken) + len(self.new)} tensors"]
        for name, each in self.matched.items():
            new = f"; new: {_listed(each.lacking)}" if each.lacking else ""
            found.append(f"{name}: {int((each.rows >= 0).sum())} of {len(each.rows)} rows by the text of tokens{new}")
        if self.by_position:
            found.append(f"rows of tokens by position, as the source has no tokenizer: {_listed(self.by_position)}")
        if self.new:
            found.append(f"newly initialized: {_listed([f'{name} ({why})' for name, why in self.new.items()])}")
        if self.unused:
            found.append(f"not used: {_listed(self.unused)}")
        return found


def start_from(model: nn.Module, given: str | Path, tokenizers: Mapping[str, Path] | None = None) -> InitialWeights:
    """Load the weights of a source into a model that has storage, and return what was taken.

    Args:
        model: the task.
        given: the source, see `open_source`.
        tokenizers: tokenizer files of the model's dataset, `data.dataset.tokenizers`; None takes rows of tokens only
            from a source whose number of tokens is the same, by position.

    Raises:
        CheckpointError: the source does not exist, is damaged, or has no tensor of the model.
    """
    found = match(model, open_source(str(given)), tokenizers or {})
    local_state.restore_weights(model, found)
    return found


def match(model: nn.Module, source: WeightsSource, tokenizers: Mapping[str, Path]) -> InitialWeights:
    """Return the tensors of a model, which may be on the meta device, that a source has.

    Raises:
        CheckpointError: there are none.
    """
    others: dict[str, list[str]] = {}
    for other, first in local_state.aliases(model).items():
        others.setdefault(first, []).append(other)
    rows = model.vocabulary_rows() if isinstance(model, HasRows) else {}
    taken: dict[str, str] = {}
    matched: dict[str, Matching] = {}
    new: dict[str, str] = {}
    by_position: list[str] = []
    for name, tensor in local_state.tensors(model).items():
        names = [name, *others.get(name, [])]
        there = next((each for each in names if each in source.shapes or each in source.aliases), None)
        if there is None:
            new[name] = "not in the source"
            continue
        there = source.aliases.get(there, there)
        shape, given = tuple(tensor.shape), source.shapes[there]
        found = _match_rows(rows[name], shape, given, tokenizers, source.tokenizers) if name in rows else None
        if isinstance(found, str) or (found is None and shape != given):
            new[name] = found if isinstance(found, str) else f"expected shape {shape}, got {given}"
            continue
        taken[name] = there
        if isinstance(found, Matching):
            matched[name] = found
        elif name in rows and rows[name].tokenizer in tokenizers.keys() - source.tokenizers.keys():
            by_position.append(name)
    if not taken:
        raise CheckpointError(
            f"{source.path} has no tensor of this model: expected tensors such as {_listed(list(new)[:3])}, got "
            f"{_listed(list(source.shapes)[:3])}. Use a source of the same architecture and size"
        )
    unused = sorted(source.shapes.keys() - set(taken.values()))
    return InitialWeights(source, taken, matched, new, unused, by_position)


def _match_rows(
    rows: Rows,
    shape: tuple[int, ...],
    given: tuple[int, ...],
    ours: Mapping[str, Path],
    theirs: Mapping[str, Path],
) -> Matching | str | None:
    """Return the rows of a source by the text of their tokens; None if all rows are equal; or why there are none."""
    if shape[1:] != given[1:]:
        return f"expected shape {shape}, got {given}"
    here, there = row_keys(rows, ours, shape[0]), row_keys(rows, theirs, given[0])
    if here == there or (shape == given and (here is None or there is None)):
        return None if shape == given else f"expected shape {shape}, got {given}"
    if here is None or there is None:
        return f"expected {shape[0]} rows, got {given[0]}, whose tokens are not known"
    places = {key: place for place, key in enumerate(there)}
    found = torch.tensor([places.get(key, -1) for key in here])
    if (found < 0).all():
        return "the source has none of its tokens"
    return Matching(found, [row_name(key) for key in here if key not in places])


def _listed(names: Sequence[str]) -> str:
    """Return names in a line; those that differ only in the number of a layer are counted."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"(?<=\.)\d+(?=\.)", "*", name), []).append(name)
    found = [each[0] if len(each) == 1 else f"{group} ({len(each)} tensors)" for group, each in groups.items()]
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return one_line(", ".join(found[:LISTED]) + more)
