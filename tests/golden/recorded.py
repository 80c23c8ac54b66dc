"""Files of golden values, and their comparison."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch


class Golden(Protocol):
    """Compares a value with the golden value of a name in a file, within a tolerance."""

    def __call__(self, file: str, name: str, value: object, within: float = 0.0) -> None: ...


VALUES = Path(__file__).parent / "values"


def read(file: str) -> dict[str, Any]:
    """Return the values of a file by name, or an empty dict without a file."""
    path = VALUES / f"{file}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def digest(values: torch.Tensor | np.ndarray | Sequence[float]) -> list[object]:
    """Return shape, root mean square and a weighted sum of an array, with another weight for each position.

    The digest is small, and detects a changed element or two exchanged elements.
    """
    array = values.detach().cpu().double().numpy() if isinstance(values, torch.Tensor) else np.asarray(values, float)
    flat, scale = array.ravel(), math.sqrt(max(array.size, 1))
    weighted = float(flat @ np.cos(np.arange(array.size))) / scale
    return [list(array.shape), rounded(float(np.linalg.norm(flat)) / scale), rounded(weighted)]


def rounded(value: float) -> float:
    """Round to eight digits, which exceeds the precision of all comparisons."""
    return float(f"{value:.8g}")


def plain(value: object) -> object:
    """Convert a value to JSON types: numbers, text, lists, and mappings with text as keys."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | torch.Tensor):
        return value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


def differences(kept: object, found: object, within: float, where: str) -> Iterator[str]:
    """Yield a line for each value that differs; the order of names is compared too."""
    if isinstance(kept, dict) and isinstance(found, dict) and list(kept) == list(found):
        for key in kept:
            yield from differences(kept[key], found[key], within, f"{where} / {key}")
    elif isinstance(kept, list) and isinstance(found, list) and len(kept) == len(found):
        for place, (one, other) in enumerate(zip(kept, found, strict=True)):
            yield from differences(one, other, within, f"{where}[{place}]")
    elif isinstance(kept, float | int) and isinstance(found, float | int) and not isinstance(kept, bool):
        if not abs(kept - found) <= within * max(1.0, abs(kept)):
            yield f"{where}: {kept} was kept, {found} is computed"
    elif kept != found:
        yield f"{where}: {kept} was kept, {found} is computed"


def write(file: str, values: dict[str, Any]) -> None:
    """Write two levels of names with a line per name of the second level, sorted to keep diffs short."""
    parts = []
    for name, value in sorted(values.items()):
        if isinstance(value, dict):
            lines = [f"  {json.dumps(key)}: {json.dumps(part)}" for key, part in value.items()]
            parts.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
        else:
            parts.append(f" {json.dumps(name)}: {json.dumps(value)}")
    VALUES.mkdir(exist_ok=True)
    (VALUES / f"{file}.json").write_text("{\n" + ",\n".join(parts) + "\n}\n")
