"""An optimizer in a config performs the same steps as in a plain torch loop."""

import copy
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from pipeline.commands.plan import command as plan
from pipeline.runs.load import build_model
from pipeline.training import config as training
from pipeline.training.config import CommandLine, _print_dropped

CONFIGS = Path(__file__).parents[3] / "configs"
LSTM = CONFIGS / "text" / "lstm.yaml"
ZAREMBA = CONFIGS / "text" / "published" / "ptb_lstm_medium.yaml"
# not applicable to a model of matrices and vectors with dense gradients
OTHER_OPTIMIZERS = {
    "LBFGS": "one group of parameters, and a closure that is evaluated several times per step",
    "Muon": "matrices only",
    "SparseAdam": "sparse gradients only",
}


def parse(*words: str) -> CommandLine:
    """Parse the command line with text/lstm.yaml and more arguments."""
    _print_dropped.cache_clear()
    return training.parse_config([f"--config={LSTM}", *words])


@pytest.fixture
def dataset(tiny_text_dataset: Path) -> list[str]:
    sizes = [f"--model.init_args.{option}" for option in ("width=8", "depth=1", "dropout=0")]
    return [f"--data.init_args.dataset={tiny_text_dataset}", *sizes]


def test_the_printed_config_and_the_plan_show_the_optimizer_that_runs(
    dataset: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--config={LSTM}", f"--config={ZAREMBA}", *dataset]
    task, _, _ = training.parse_config(words).build()
    defaults = task.check_optimizer().defaults
    assert (defaults["lr"], defaults["weight_decay"]) == (35.0, 0.0)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        training.parse_config([*words, "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["optimizer"]
    assert printed == {"class_path": "torch.optim.SGD", "init_args": defaults}
    plan.main([str(LSTM), str(ZAREMBA), "--", *dataset])
    shown = "lr=35.0, momentum=0.0, dampening=0.0, weight_decay=0.0"
    assert f"optimizer       SGD: {shown}" in capsys.readouterr().out.splitlines()


OPTIMIZERS = [
    name
    for name, found in vars(torch.optim).items()
    if inspect.isclass(found) and issubclass(found, torch.optim.Optimizer) and found is not torch.optim.Optimizer
]


def test_every_optimizer_of_torch_is_compared_or_left_out_for_a_reason() -> None:
    assert set(OPTIMIZERS) > OTHER_OPTIMIZERS.keys()
    assert len(OPTIMIZERS) - len(OTHER_OPTIMIZERS) >= 12


@pytest.mark.numeric
@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in OTHER_OPTIMIZERS])
def test_a_step_of_an_optimizer_of_torch_is_that_of_torch(name: str, dataset: list[str]) -> None:
    before = ["=" + ("Adam" if name == "SGD" else "SGD"), ".lr=0.5", ".weight_decay=0.3", ".maximize=true"]
    words = [f"--model.init_args.optimizer{word}" for word in (*before, f"=torch.optim.{name}")]
    task, _, _ = parse(*dataset, *words, "--model.init_args.schedule=null").build()
    task.configure_model()
    bare = copy.deepcopy(task)
    parameters = [list(model.parameters()) for model in (task, bare)]
    vectors = {"params": [each for each in parameters[1] if each.ndim < 2], "weight_decay": 0.0}  # never decayed here
    torch_optimizer: Callable[..., torch.optim.Optimizer] = getattr(torch.optim, name)
    optimizers = [
        task.configure_optimizers(),
        torch_optimizer([{"params": [each for each in parameters[1] if each.ndim >= 2]}, vectors]),
    ]
    initial = [each.clone() for each in parameters[0]]
    for model, optimizer in zip((task, bare), optimizers, strict=True):
        model(torch.arange(24).reshape(2, 12))[0].square().mean().backward()
        optimizer.step()
    assert type(optimizers[0]) is type(optimizers[1])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*parameters, strict=True))
    assert not any(torch.equal(after, each) for after, each in zip(parameters[0], initial, strict=True))


def test_a_rebuilt_model_has_the_optimizer_of_its_config() -> None:
    made = {"vocab_size": 9, "width": 8, "optimizer": {"class_path": "torch.optim.RMSprop", "init_args": {"lr": 0.1}}}
    task = build_model({"class_path": "pipeline.models.lstm.LSTMLanguageModel", "init_args": made})
    assert task.check_optimizer().defaults == torch.optim.RMSprop([torch.zeros(1)], lr=0.1).defaults
