"""Compare two trees of tensors and plain values leaf by leaf: bitwise equality, and the largest differences.

It compares two checkpoints, or an interrupted run with an uninterrupted one.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

MEASURED = ("callbacks/Monitor/seconds",)  # wall-clock time, which differs between any two trainings
MISSING = object()


class Difference(NamedTuple):
    """The result of comparing one leaf."""

    name: str
    """Path in the tree, parts joined by `/`."""
    is_tensor: bool
    what: str
    """`equal`, or a description of the difference."""
    absolute: float | None = None
    """Largest |a - b| of an element; None unless the leaves are numbers of one shape."""
    relative: float | None = None
    """Largest |a - b| / max(|a|, |b|) of an element."""

    @property
    def equal(self) -> bool:
        return self.what == "equal"


def compare(one: object, two: object) -> list[Difference]:
    """Return a row for every leaf of either tree, in the order of the trees, without measured times."""
    ours, theirs = dict(leaves(one)), dict(leaves(two))
    names = [name for name in dict.fromkeys([*ours, *theirs]) if name not in MEASURED]
    return [_compare(name, ours.get(name, MISSING), theirs.get(name, MISSING)) for name in names]


def leaves(tree: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the leaves of nested dictionaries, lists and tuples, each with its path."""
    if not isinstance(tree, Mapping | list | tuple):
        yield prefix[:-1], tree
        return
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    for key, part in items:
        yield from leaves(part, f"{prefix}{key}/")


def same_bits(one: Tensor, two: Tensor) -> bool:
    """Return whether two tensors are bitwise equal, including NaN and the sign of zero."""
    if one.dtype != two.dtype or one.shape != two.shape:
        return False
    ours, theirs = (each.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for each in (one, two))
    return torch.equal(ours, theirs)


def _compare(name: str, one: object, two: object) -> Difference:
    is_tensor = isinstance(one, Tensor) or isinstance(two, Tensor)
    if one is MISSING or two is MISSING:
        return Difference(name, is_tensor, f"missing in {'A' if one is MISSING else 'B'}")
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return _compare_tensors(name, one, two)
    if is_tensor or type(one) is not type(two):
        return Difference(name, is_tensor, f"{type(one).__name__} and {type(two).__name__}")
    if one == two or (one != one and two != two):  # two NaN are equal
        return Difference(name, False, "equal", *([0.0, 0.0] if isinstance(one, int | float) else []))
    if isinstance(one, bool) or not isinstance(one, int | float) or not isinstance(two, int | float):
        return Difference(name, False, f"{one!r} and {two!r}")
    return Difference(name, False, f"{one} and {two}", *_distance(torch.tensor(one), torch.tensor(two)))


def _compare_tensors(name: str, one: Tensor, two: Tensor) -> Difference:
    if one.shape != two.shape:
        return Difference(name, True, f"shapes {tuple(one.shape)} and {tuple(two.shape)}")
    distance = _distance(one, two)
    if one.dtype != two.dtype:
        return Difference(name, True, f"types {one.dtype} and {two.dtype}", *distance)
    return Difference(name, True, "equal" if same_bits(one, two) else "differs", *distance)


def _distance(one: Tensor, two: Tensor) -> tuple[float, float]:
    """Return the largest absolute and relative difference of two tensors of one shape."""
    ours, theirs = (each.detach().cpu().to(torch.float64) for each in (one, two))
    if not ours.numel():
        return 0.0, 0.0
    apart = torch.where(ours.eq(theirs) | (ours.isnan() & theirs.isnan()), 0.0, (ours - theirs).abs())
    largest = torch.maximum(ours.abs(), theirs.abs())
    return float(apart.max()), float(torch.where(apart == 0, 0.0, apart / largest).max())
