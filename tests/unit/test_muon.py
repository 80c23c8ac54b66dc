"""Muon and AdamW as one optimizer take the steps of the two optimizers of torch, each with its own parameters."""

import copy
import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from pipeline.errors import ConfigError
from pipeline.models.assemblies.translators import AttentionTranslator
from pipeline.models.bag_of_words import BagOfWordsLanguageModel
from pipeline.models.conv import ConvNetLanguageModel
from pipeline.models.gru import GRULanguageModel
from pipeline.models.linear_recurrence import LinearRecurrenceLanguageModel
from pipeline.models.lstm import LSTM, LSTMLanguageModel
from pipeline.models.ngram import NGramLanguageModel
from pipeline.models.rnn import RNNLanguageModel
from pipeline.models.transformer import TransformerLanguageModel
from pipeline.optim import parameter_groups
from pipeline.optim.muon import Muon, hidden_matrices
from pipeline.tasks.forecaster import Forecaster
from pipeline.tasks.task import Task

RECURRENT = ["network.layers.#.kernel.weight_hh_l#", "network.layers.#.kernel.weight_ih_l#"]
FEEDFORWARD = [f"network.layers.#.feedforward.{name}.weight" for name in ("down", "gate", "up")]
HIDDEN: dict[type[Task], list[str]] = {
    TransformerLanguageModel: [
        "network.layers.#.attention.output.weight",
        "network.layers.#.attention.project.weight",
        *FEEDFORWARD,
    ],
    LSTMLanguageModel: RECURRENT,
    GRULanguageModel: RECURRENT,
    RNNLanguageModel: RECURRENT,
    ConvNetLanguageModel: [
        "network.layers.#.convolution.weight",
        "network.layers.#.mix.weight",
        "network.output.weight",
    ],
    LinearRecurrenceLanguageModel: [  # without its taps, a convolution
        "network.layers.#.branches.weight",
        *FEEDFORWARD,
        "network.layers.#.output.weight",
        "network.layers.#.recurrence.gates.weight",
    ],
    NGramLanguageModel: ["network.direct.weight", "network.hidden.weight", "network.output.weight"],
    BagOfWordsLanguageModel: ["network.layers.#.weight"],
}


def groups_by_name(task: nn.Module) -> list[list[str]]:
    """Return the names of the parameters in each group, with # for a number and each once."""
    names = {id(parameter): re.sub(r"\d+", "#", name) for name, parameter in task.named_parameters()}
    groups: list[dict[str, Any]] = parameter_groups(task, hidden_matrices(task))
    return [sorted({names[id(each)] for each in group["params"]}) for group in groups]


@pytest.mark.parametrize("model", HIDDEN, ids=lambda model: model.__name__)
def test_muon_trains_the_matrices_of_the_network(model: Any) -> None:
    hidden, matrices, vectors = groups_by_name(model(vocab_size=9, width=8))
    assert hidden == HIDDEN[model]
    assert set(matrices) <= {"embedding.weight", "output.weight", "network.layers.#.recurrence.taps"}
    assert "embedding.weight" in matrices
    assert "output.bias" in vectors


def test_embeddings_of_encoders_and_heads_and_maps_of_single_numbers_are_left_to_adamw() -> None:
    task: nn.Module = AttentionTranslator(vocab_size=9, source_vocab_size=7, width=8)
    hidden, matrices, _ = groups_by_name(task)
    assert matrices == ["decoder.attention.score.weight", "embedding.weight", "encoder.embedding.weight"]
    assert {"decoder.attention.key.weight", "encoder.layers.#.forth.layers.#.kernel.weight_hh_l#"} <= set(hidden)
    hidden, matrices, _ = groups_by_name(Forecaster(LSTM(8), horizon=3))
    assert hidden == RECURRENT
    assert matrices[-1] == "input.weight"
    assert all(name.startswith("head.") for name in matrices[:-1])


def test_positions_convolutions_and_frozen_matrices_are_not_trained_by_muon() -> None:
    module = nn.Module()
    module.network = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3), nn.Embedding(4, 3), nn.Conv1d(3, 3, 2)])
    module.network.taps = nn.Parameter(torch.ones(2, 3))
    module.output = nn.Linear(3, 3)
    module.network[1].requires_grad_(False)
    hidden, matrices, vectors = parameter_groups(module, hidden_matrices(module))
    assert hidden == {"params": [module.network[0].weight], "hidden": True}
    shapes = [tuple(each.shape) for each in matrices["params"]]  # type: ignore[attr-defined]
    assert sorted(shapes) == [(2, 3), (3, 3), (3, 3, 2), (4, 3)]
    assert vectors["weight_decay"] == 0.0


def train(task: Task, *optimizers: torch.optim.Optimizer, steps: int = 4) -> list[torch.Tensor]:
    """Return the weights after steps on fixed batches."""
    for step in range(steps):
        torch.manual_seed(step)
        task(torch.randint(9, (2, 6)))[0].square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return [each.detach() for each in task.parameters()]


@pytest.mark.numeric
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(
    ("given", "of_matrices", "rest_lr"),
    [
        ({}, {}, 0.05),
        ({"adamw_lr": 0.01, "adjust_lr_fn": "original", "momentum": 0.8, "nesterov": False, "ns_steps": 3}, None, 0.01),
    ],
)
def test_the_steps_are_those_of_torch(
    given: dict[str, Any], of_matrices: dict[str, Any] | None, rest_lr: float, double: bool
) -> None:
    torch.manual_seed(1)
    task = TransformerLanguageModel(vocab_size=9, width=8, depth=2, heads=2)
    task = task.double() if double else task
    bare = copy.deepcopy(task)
    hidden, matrices, vectors = parameter_groups(bare, hidden_matrices(bare))
    if of_matrices is None:
        of_matrices = {name: value for name, value in given.items() if name != "adamw_lr"}
    settings: dict[str, Any] = {"adjust_lr_fn": "match_rms_adamw"} | of_matrices
    ours = Muon(parameter_groups(task, hidden_matrices(task)), lr=0.05, weight_decay=0.2, betas=(0.8, 0.9), **given)
    theirs = [
        torch.optim.Muon(hidden["params"], lr=0.05, weight_decay=0.2, **settings),  # type: ignore[arg-type]
        AdamW([matrices, vectors], lr=rest_lr, betas=(0.8, 0.9), weight_decay=0.2, fused=True),
    ]
    initial = [each.clone() for each in task.parameters()]
    after, expected = train(task, ours), train(bare, *theirs)
    assert all(torch.equal(one, two) for one, two in zip(after, expected, strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(after, initial, strict=True))


@pytest.mark.numeric
def test_a_loaded_optimizer_and_a_schedule_continue_exactly() -> None:
    torch.manual_seed(1)
    straight = LSTMLanguageModel(vocab_size=9, width=8, depth=1)
    stopped = copy.deepcopy(straight)

    def optimizer(task: Task) -> tuple[Muon, torch.optim.lr_scheduler.LambdaLR]:
        found = Muon(parameter_groups(task, hidden_matrices(task)), lr=0.05, adamw_lr=0.02)
        return found, torch.optim.lr_scheduler.LambdaLR(found, lambda step: 1 / (1 + step))

    one, by_step = optimizer(straight)
    for _ in range(6):
        train(straight, one, steps=1)
        by_step.step()
    assert [group["lr"] for group in one.param_groups] == pytest.approx([0.05 / 7, 0.02 / 7, 0.02 / 7])
    two, by_step = optimizer(stopped)
    for _ in range(3):
        train(stopped, two, steps=1)
        by_step.step()
    loaded, continued = optimizer(stopped)
    loaded.load_state_dict(copy.deepcopy(two.state_dict()))
    continued.load_state_dict(by_step.state_dict())
    for _ in range(3):
        train(stopped, loaded, steps=1)
        continued.step()
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), stopped.parameters(), strict=True))


def test_invalid_values_are_refused_before_the_model_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    task = LSTMLanguageModel(vocab_size=9, width=8, optimizer=lambda groups: Muon(groups, momentum=-1.0))
    with pytest.raises(ConfigError, match=r"model\.init_args\.optimizer: momentum should be >= 0 but is: -1\.0"):
        task.check_optimizer()
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ConfigError, match=r"expected torch 2\.9 or later"):
        Muon([torch.zeros(2)])
