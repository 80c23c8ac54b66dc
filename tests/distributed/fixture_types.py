"""Types of the fixtures of the distributed tests."""

from collections.abc import Callable
from typing import Any

Fit = Callable[..., int]
State = Callable[[str], dict[str, Any]]
Inject = Callable[[Callable[[], None]], None]
Rows = Callable[[str], list[dict[str, Any]]]
