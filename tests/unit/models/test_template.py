"""The architecture that CONTRIBUTING.md shows as a template keeps the whole contract of networks."""

import inspect
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from pipeline.training.config import parse_config
from tests.unit.models import test_contract, test_contract_state, test_contract_training

REPOSITORY = Path(__file__).parent.parent.parent.parent
TEMPLATE = re.compile(r"start:architecture\] -->\n```python\n(.*?)```\n<!-- --8<-- \[end:architecture", re.DOTALL)
CONFIG = re.compile(r"moving_average\.yaml`:\n\n```yaml\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The file on the page, imported under the name that the page gives it."""
    [text] = TEMPLATE.findall((REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    path = tmp_path_factory.mktemp("template") / "moving_average.py"
    path.write_text(text)
    spec = spec_from_file_location("pipeline.models.moving_average", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module


def checks() -> Iterator[object]:
    """The contract tests that take any network, with each set of their other parameters."""
    for module in (test_contract, test_contract_state, test_contract_training):
        for name, function in vars(module).items():
            if not name.startswith("test_") or "make" not in inspect.signature(function).parameters:
                continue
            others = [
                mark.args for mark in function.pytestmark if mark.name == "parametrize" and mark.args[0] != "make"
            ]
            for index, values in enumerate(itertools.product(*(values for _, values in others))):
                given = dict(zip((name for name, _ in others), values, strict=True))
                yield pytest.param(function, given, id=f"{name}-{index}" if others else name)


@pytest.mark.parametrize(("check", "given"), list(checks()))
def test_the_template_keeps_the_contract(
    check: Callable[..., None],
    given: dict[str, object],
    template: ModuleType,
    record_property: Callable[[str, object], None],
) -> None:
    fixtures = {"make": template.MovingAverage, "seed": 1, "record_property": record_property}
    taken = inspect.signature(check).parameters
    check(**{name: value for name, value in fixtures.items() if name in taken}, **given)


def test_the_state_of_the_template_does_not_grow(template: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(test_contract_state.ALL, "template", template.MovingAverage)
    test_contract_state.test_the_state_does_not_grow("template")


def test_the_template_is_a_language_model(template: ModuleType) -> None:
    torch.manual_seed(1)
    model = template.MovingAverageLanguageModel(vocab_size=11, width=16)
    logits, state = model(torch.randint(11, (2, 5)))
    assert logits.shape == (2, 5, 11)
    assert state.shape == (2, 16)
    assert sorted(template.__all__) == ["MovingAverage", "MovingAverageLanguageModel"]


def test_the_config_on_the_page_is_one_of_the_template(template: ModuleType, tmp_path: Path) -> None:
    [text] = CONFIG.findall((REPOSITORY / "docs/extending.md").read_text(encoding="utf-8"))
    (tmp_path / "config.yaml").write_text(text)
    config = parse_config([f"--config={tmp_path / 'config.yaml'}"]).config
    assert config.model.class_path == yaml.safe_load(text)["model"]["class_path"]
