"""More cases of a behaviour that the other cases of a test already check: only `make test-all` runs them."""

import pytest
from _pytest.mark import ParameterSet


def also(*cases: object) -> list[ParameterSet]:
    """Return the cases, marked; a tuple holds the values of several parameters."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.sweep) for case in cases]
