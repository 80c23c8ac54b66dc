"""First weights, their names and their order, carried states and outputs stay the same from version to version.

Models are found by walking `pipeline.models`; one that is not recorded yet is skipped.
"""

import inspect
import pkgutil
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pydoc import locate
from typing import Any

import pytest
import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import pipeline.models
from pipeline.optim import parameter_groups
from pipeline.runs.moved import SPLIT
from pipeline.tasks.classifier import Classifier
from pipeline.tasks.language_model import TokenHead
from pipeline.tasks.recall import Recaller
from tests.golden import recorded

CHOICES = {
    "observation_mean": [0.5, -1.0, 0.25],
    "observation_deviation": [1.0, 2.0, 0.5],
    **{"choices": 4, "low": [], "high": [], "best_return": 9.0, "return_scale": 10.0},
}
NUMBERS = CHOICES | {"choices": 0, "low": [-1.0, 0.0], "high": [1.0, 4.0]}
SIZES = {
    **{"vocab_size": 11, "source_vocab_size": 13, "classes": 5, "rate": 8000, "context": 24, "horizon": 6},
    **{"covariates": 2, "levels": 4, "rows": 4, "columns": 8, "channels": 2, "image_size": 32, "spaces": CHOICES},
    **{"width": 16, "depth": 2},
}


def modules() -> tuple[dict[str, type[nn.Module]], set[str]]:
    """All modules in the files of `pipeline.models` by name, and the names that these files export."""
    found, exported = {}, set[str]()
    for entry in pkgutil.walk_packages(pipeline.models.__path__, f"{pipeline.models.__name__}."):
        file = import_module(entry.name)
        classes = [each for each in vars(file).values() if isinstance(each, type) and issubclass(each, nn.Module)]
        own = {each.__name__: each for each in classes if each.__module__ == entry.name}
        found = own | found
        exported |= own.keys() & getattr(file, "__all__", ())
    return found, exported


FOUND, EXPORTED = modules()
Make = Callable[..., nn.Module]


def over_network(path: str, width: int, **given: Any) -> nn.Module:
    """A task and its network, by the path of the class that was both: `pipeline.models.policies.LSTMPolicy`."""
    task, network = map(locate, SPLIT[path])
    wanted = inspect.signature(task).parameters
    sizes = {name: size for name, size in (SIZES | given).items() if name in wanted}
    return task(network(width=width), **sizes)


VARIANTS: dict[str, Make] = {
    "RNN with relu": partial(FOUND["RNN"], nonlinearity="relu"),
    "LSTM, wider inside": partial(FOUND["LSTM"], depth=3, hidden=24, forget_bias=2.0),
    "GRU, wider inside": partial(FOUND["GRU"], depth=2, hidden=24),
    "NGram of order 2": partial(FOUND["NGram"], order=2, hidden=24),
    "ConvNet of kernel 3": partial(FOUND["ConvNet"], kernel=3, depth=4, cycle=3, hidden=24),
    "LinearRecurrence, wider inside": partial(FOUND["LinearRecurrence"], depth=2, hidden=24),
    "Transformer with learned positions": partial(
        FOUND["Transformer"], depth=2, positions=32, feedforward=FOUND["GELU"], hidden=40
    ),
    "Transformer with a window": partial(FOUND["Transformer"], depth=2, heads=2, window=4),
    "LSTMLanguageModel, untied": partial(FOUND["LSTMLanguageModel"], head=TokenHead(tied=False)),
    **{path.rpartition(".")[2]: partial(over_network, path) for path in SPLIT},
    "LSTMPolicy that gives numbers": partial(over_network, "pipeline.models.policies.LSTMPolicy", spaces=NUMBERS),
    "AttentionTranslator that multiplies": partial(
        FOUND["AttentionTranslator"], attention=FOUND["MultiplicativeAttention"], network=FOUND["LSTM"]
    ),
    "ShowAttendTell of deeper blocks": partial(
        FOUND["ShowAttendTell"],
        encoder=partial(FOUND["ResNet"], blocks=(1, 1), channels=8, block=FOUND["Bottleneck"]),
    ),
    "Classifier of pixels": lambda: Classifier(FOUND["PixelReader"](FOUND["LSTM"](width=16)), 5),
    "Recaller": lambda: Recaller(FOUND["GRU"](width=16), 11),
}
MAKES: dict[str, Make] = {name: FOUND[name] for name in sorted(EXPORTED) if name != "Translator"} | VARIANTS


def is_network(make: Make) -> bool:
    """Whether it makes a network, rather than a task with one in it."""
    made = getattr(make, "func", make)
    return isinstance(made, type) and not issubclass(made, LightningModule)


def build(make: Make) -> nn.Module:
    """A small one, from the seed that a run has by default."""
    wanted = inspect.signature(make).parameters
    open_ended = any(each.kind == each.VAR_KEYWORD for each in wanted.values())  # handed on, the width among them
    given = {name: size for name, size in SIZES.items() if name in wanted or (name == "width" and open_ended)}
    torch.manual_seed(1)
    return make(**{name: size for name, size in given.items() if name not in getattr(make, "keywords", {})})


def waves(*shape: int) -> Tensor:
    """Inputs that no generator draws."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float64).sin().view(shape)


def test_no_recorded_model_is_gone() -> None:
    assert recorded.read("weights").keys() <= MAKES.keys()


@pytest.mark.numeric
@pytest.mark.parametrize("name", MAKES)
def test_a_model_begins_with_the_weights_that_it_had(golden: Any, request: Any, name: str) -> None:
    """Normal and orthogonal draws differ in their last bits between processors, hence 1e-6."""
    if name not in recorded.read("weights") and not request.config.getoption("regenerate", default=[]):
        pytest.skip(f"not recorded yet: --regenerate weights --regenerate networks -k {name}")
    state = build(MAKES[name]).state_dict()
    golden("weights", name, {key: recorded.digest(value) for key, value in state.items()}, within=1e-6)


@pytest.mark.numeric
@pytest.mark.parametrize("name", [name for name in MAKES if is_network(MAKES[name])])
def test_a_network_computes_what_it_did(golden: Any, request: Any, name: str) -> None:
    """In float64, from first weights that are equal to 1e-6; the state is what `lanes` carries and checkpoints hold."""
    if name not in recorded.read("networks") and not request.config.getoption("regenerate", default=[]):
        pytest.skip(f"not recorded yet: --regenerate weights --regenerate networks -k {name}")
    network = build(MAKES[name]).double().eval()
    if "state" not in inspect.signature(network.forward).parameters:
        golden("networks", name, {"outputs": recorded.digest(network(waves(3, 24)))}, within=1e-5)
        return
    outputs, state = network(waves(3, 12, 16))
    kept = pytree.tree_map(lambda leaf: recorded.digest(leaf) if isinstance(leaf, Tensor) else leaf, state)
    golden("networks", name, {"outputs": recorded.digest(outputs), "state": kept}, within=1e-5)


def test_an_optimizer_has_its_parameters_in_the_order_in_which_it_had_them(golden: Any) -> None:
    for name in ("LSTMLanguageModel", "TransformerTranslator"):
        model = build(MAKES[name])
        names = {id(parameter): key for key, parameter in model.named_parameters()}
        groups = [
            {**group, "params": [names[id(each)] for each in group["params"]]} for group in parameter_groups(model)
        ]
        golden("optimizer", name, groups)
