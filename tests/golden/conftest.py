"""Golden values: what a resumed run depends on, as the first version that was released with them computed it.

A run that an earlier version began continues exactly only while these values stay. Where a test here fails, such a run
would read other batches, draw other numbers or not load; usually the change that made it fail is a mistake. Where the
change is intended, name the files whose values are to be replaced, review the difference, and write in CHANGELOG.md
that runs begun before do not resume exactly:

    python -m pytest tests/golden --regenerate plans --regenerate weights
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.golden import recorded


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate",
        action="append",
        default=[],
        metavar="FILE",
        help="replace the golden values of tests/golden/values/FILE.json: earlier runs may not resume exactly",
    )


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`golden(FILE, NAME, VALUE, within=0.0)` compares a value with the one kept under that name.

    `within` is the largest difference of floats, absolute where they are below 1, relative above.
    """
    replaced = request.config.getoption("regenerate", default=[])

    def check(file: str, name: str, value: Any, within: float = 0.0) -> None:
        kept, found = recorded.read(file), json.loads(json.dumps(recorded.plain(value)))
        if file in replaced:
            recorded.write(file, kept | {name: found})
            return
        assert name in kept, f"{file}.json has no {name!r}: record it with --regenerate {file}"
        unequal = list(recorded.differences(kept[name], found, within, name))
        assert not unequal, f"{len(unequal)} values differ from {file}.json:\n" + "\n".join(unequal[:20])

    return check
