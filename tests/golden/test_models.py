"""Initial weights, their names and order, carried states and outputs are unchanged between versions.

Models are found by walking `pipeline.models`; one that is not recorded yet is skipped.
"""

import inspect
import pkgutil
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pydoc import locate

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
from tests.golden.recorded import Golden

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
    """Return all modules in the files of `pipeline.models` by name, and the names that these files export."""
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


def over_network(path: str, width: int, **given: object) -> nn.Module:
    """Build a task and its network from the path of a former class of both: `pipeline.models.policies.LSTMPolicy`."""
    task, network = map(locate, SPLIT[path])
    parameters = inspect.signature(task).parameters
    sizes = {name: size for name, size in (SIZES | given).items() if name in parameters}
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
    """Return whether it builds a network rather than a task with a network."""
    made = getattr(make, "func", make)
    return isinstance(made, type) and not issubclass(made, LightningModule)


def build(make: Make) -> nn.Module:
    """Build a small model from the default seed of a run."""
    parameters = inspect.signature(make).parameters
    open_ended = any(each.kind == each.VAR_KEYWORD for each in parameters.values())  # passed on, including the width
    given = {name: size for name, size in SIZES.items() if name in parameters or (name == "width" and open_ended)}
    torch.manual_seed(1)
    return make(**{name: size for name, size in given.items() if name not in getattr(make, "keywords", {})})


def waves(*shape: int) -> Tensor:
    """Return inputs that do not depend on a generator."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float64).sin().view(shape)


def test_every_recorded_model_exists() -> None:
    assert recorded.read("weights").keys() <= MAKES.keys()


@pytest.mark.numeric
@pytest.mark.parametrize("name", MAKES)
def test_initial_weights_are_unchanged(golden: Golden, request: pytest.FixtureRequest, name: str) -> None:
    """Normal and orthogonal samples differ in their last bits between processors, hence the tolerance of 1e-6."""
    if name not in recorded.read("weights") and not request.config.getoption("regenerate", default=[]):
        pytest.skip(f"not recorded yet: --regenerate weights --regenerate networks -k {name}")
    state = build(MAKES[name]).state_dict()
    golden("weights", name, {key: recorded.digest(value) for key, value in state.items()}, within=1e-6)


@pytest.mark.numeric
@pytest.mark.parametrize("name", [name for name in MAKES if is_network(MAKES[name])])
def test_the_outputs_of_a_network_are_unchanged(golden: Golden, request: pytest.FixtureRequest, name: str) -> None:
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


def test_the_order_of_an_optimizers_parameters_is_unchanged(golden: Golden) -> None:
    for name in ("LSTMLanguageModel", "TransformerTranslator"):
        model = build(MAKES[name])
        names = {id(parameter): key for key, parameter in model.named_parameters()}
        groups = [
            {**group, "params": [names[id(each)] for each in group["params"]]} for group in parameter_groups(model)
        ]
        golden("optimizer", name, groups)
