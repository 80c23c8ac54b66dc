"""Two trees of tensors and plain values, compared leaf by leaf: equal in every bit, or how far apart.

Whoever compares two checkpoints, or a stopped run with a straight one, reads these rows.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

MEASURED = ("callbacks/Monitor/seconds",)  # wall-clock time: no two trainings have it in common
MISSING = object()


class Difference(NamedTuple):
    """What is known of one leaf."""

    name: str
    """Its place in the tree, parts joined by `/`."""
    is_tensor: bool
    what: str
    """`equal`, or what differs, in words."""
    absolute: float | None = None
    """Largest |a - b| of an element; None where the leaves are no numbers of one shape."""
    relative: float | None = None
    """Largest |a - b| / max(|a|, |b|) of an element."""

    @property
    def equal(self) -> bool:
        return self.what == "equal"


def compare(one: Any, two: Any) -> list[Difference]:
    """A row for every leaf that either tree has, in the order of the trees; measured times are left out."""
    ours, theirs = dict(leaves(one)), dict(leaves(two))
    names = [name for name in dict.fromkeys([*ours, *theirs]) if name not in MEASURED]
    return [_compare(name, ours.get(name, MISSING), theirs.get(name, MISSING)) for name in names]


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested dictionaries, lists and tuples, each with its place."""
    if not isinstance(tree, Mapping | list | tuple):
        yield prefix[:-1], tree
        return
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    for key, part in items:
        yield from leaves(part, f"{prefix}{key}/")


def same_bits(one: Tensor, two: Tensor) -> bool:
    """Whether two tensors are the same numbers, NaN and the sign of zero included."""
    if one.dtype != two.dtype or one.shape != two.shape:
        return False
    ours, theirs = (each.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for each in (one, two))
    return torch.equal(ours, theirs)


def _compare(name: str, one: Any, two: Any) -> Difference:
    is_tensor = isinstance(one, Tensor) or isinstance(two, Tensor)
    if one is MISSING or two is MISSING:
        return Difference(name, is_tensor, f"missing in {'A' if one is MISSING else 'B'}")
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return _compare_tensors(name, one, two)
    if is_tensor or type(one) is not type(two):
        return Difference(name, is_tensor, f"{type(one).__name__} and {type(two).__name__}")
    if one == two or (one != one and two != two):  # NaN is what it is
        return Difference(name, False, "equal", *([0.0, 0.0] if isinstance(one, int | float) else []))
    if isinstance(one, bool) or not isinstance(one, int | float):
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
    """Largest absolute and relative difference of two tensors of one shape."""
    ours, theirs = (each.detach().cpu().to(torch.float64) for each in (one, two))
    if not ours.numel():
        return 0.0, 0.0
    apart = torch.where(ours.eq(theirs) | (ours.isnan() & theirs.isnan()), 0.0, (ours - theirs).abs())
    largest = torch.maximum(ours.abs(), theirs.abs())
    return float(apart.max()), float(torch.where(apart == 0, 0.0, apart / largest).max())
