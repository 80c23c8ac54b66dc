"""Golden values as files, and how two of them are compared."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

VALUES = Path(__file__).parent / "values"


def read(file: str) -> dict[str, Any]:
    """The values of a file, by name; none where there is no such file."""
    path = VALUES / f"{file}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def digest(values: Any) -> list[Any]:
    """Shape, root mean square, and a sum in which each position counts by another factor: of any array of numbers.

    So a fixture stays small, and one element that differs, or two that are exchanged, are noticed.
    """
    array = values.detach().cpu().double().numpy() if isinstance(values, torch.Tensor) else np.asarray(values, float)
    flat, scale = array.ravel(), math.sqrt(max(array.size, 1))
    weighted = float(flat @ np.cos(np.arange(array.size))) / scale
    return [list(array.shape), rounded(float(np.linalg.norm(flat)) / scale), rounded(weighted)]


def rounded(value: float) -> float:
    """Eight digits: more than any comparison of digests regards."""
    return float(f"{value:.8g}")


def plain(value: Any) -> Any:
    """Numbers, text, lists and mappings by text, as JSON holds them."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | torch.Tensor):
        return value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


def differences(kept: Any, found: Any, within: float, where: str) -> Iterator[str]:
    """A line for each value that differs; the order of names counts."""
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
    """Two levels of names, a line for each of the second; sorted, so that a difference is short."""
    parts = []
    for name, value in sorted(values.items()):
        if isinstance(value, dict):
            lines = [f"  {json.dumps(key)}: {json.dumps(part)}" for key, part in value.items()]
            parts.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
        else:
            parts.append(f" {json.dumps(name)}: {json.dumps(value)}")
    VALUES.mkdir(exist_ok=True)
    (VALUES / f"{file}.json").write_text("{\n" + ",\n".join(parts) + "\n}\n")
