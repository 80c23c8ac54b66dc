"""Data facts are typed, linked to arguments of models, and sufficient to build a model in Python."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

import pipeline.data
import pipeline.models
from pipeline.data.module import PlannedDataModule
from pipeline.data.text import TextDataModule
from pipeline.dataset.facts import DataFacts
from pipeline.models.lstm import LSTMLanguageModel
from pipeline.tasks.forecaster import Forecaster
from pipeline.tasks.policy import Policy
from pipeline.tasks.task import Task
from pipeline.tasks.wave_model import WaveModel
from pipeline.training.config import parse_config

NAMES = {field.name for field in fields(DataFacts)}
CONFIG = Path(__file__).parents[3] / "configs" / "text" / "lstm.yaml"


def classes(package: ModuleType, base: type) -> Iterator[type]:
    """Yield the classes defined in a package."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        for found in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(found) and issubclass(found, base) and found.__module__ == module.name:
                yield found


def test_a_model_is_made_from_its_data(tiny_text_dataset: Path) -> None:
    data = TextDataModule(tiny_text_dataset)
    assert data.facts == DataFacts(vocab_size=257)
    model = LSTMLanguageModel(**data.facts.arguments_of(LSTMLanguageModel), width=8)
    assert model.vocab_size == 257


def test_arguments_include_parameters_that_a_constructor_passes_on() -> None:
    class Base:
        def __init__(self, rate: int, classes: int) -> None: ...

    class Hides(Base):
        def __init__(self, rate: int) -> None: ...

    class PassesOn(Base):
        def __init__(self, horizon: int, **more: int) -> None: ...

    class Inherits(PassesOn): ...

    facts = DataFacts(vocab_size=9, horizon=3, covariates=0, classes=2, rate=8000)
    assert facts.known() == {"vocab_size": 9, "horizon": 3, "covariates": 0, "classes": 2, "rate": 8000}
    assert facts.arguments_of(Hides) == {"rate": 8000}
    assert facts.arguments_of(PassesOn) == facts.arguments_of(Inherits) == {"horizon": 3, "classes": 2, "rate": 8000}


def test_an_unknown_fact_is_rejected() -> None:
    with pytest.raises(TypeError, match="vocabulary_size"):
        DataFacts(vocabulary_size=9)  # type: ignore[call-arg]


def test_every_data_module_returns_facts() -> None:
    kinds = list(classes(pipeline.data, PlannedDataModule))
    assert len(kinds) > 8
    for kind in kinds:
        assert inspect.signature(kind.facts.fget).return_annotation is DataFacts, kind  # type: ignore[attr-defined]


def test_required_arguments_of_a_model_are_facts_or_its_network() -> None:
    required = {
        each.name
        for kind in [*classes(pipeline.models, Task), Policy, Forecaster, WaveModel]
        for each in inspect.signature(kind).parameters.values()
        if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD
    }
    assert required - NAMES == {"encoder", "decoder", "network"}
    assert required >= {"vocab_size", "source_vocab_size", "horizon", "classes", "rate", "spaces"}


def test_the_command_line_links_every_fact() -> None:
    links = parse_config(["--config", str(CONFIG)]).parser._links_group._group_actions
    targets = {link.target[0] for link in links if link.apply_on == "instantiate"}
    assert targets == {f"model.init_args.{name}" for name in NAMES}
