"""Golden values: values that a resumed run depends on, recorded by the first release that has them.

Runs of earlier versions resume exactly only while these values are unchanged. If a test fails, such runs would read
other batches, draw other random numbers or fail to load, so the change is usually a mistake. If the change is
intended, name the files whose values to replace, review the difference, and state in CHANGELOG.md that earlier runs
do not resume exactly:

    python -m pytest tests/golden --regenerate plans --regenerate weights
"""

import json

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
def golden(request: pytest.FixtureRequest) -> recorded.Golden:
    """`golden(FILE, NAME, VALUE, within=0.0)` compares a value with the recorded one.

    `within` is the tolerance of floats, absolute below 1 and relative above.
    """
    replaced = request.config.getoption("regenerate", default=[])

    def check(file: str, name: str, value: object, within: float = 0.0) -> None:
        kept, found = recorded.read(file), json.loads(json.dumps(recorded.plain(value)))
        if file in replaced:
            recorded.write(file, kept | {name: found})
            return
        assert name in kept, f"{file}.json has no {name!r}: record it with --regenerate {file}"
        unequal = list(recorded.differences(kept[name], found, within, name))
        assert not unequal, f"{len(unequal)} values differ from {file}.json:\n" + "\n".join(unequal[:20])

    return check
