"""Configs of former classes that combined task and network build the same model from a task with a nested network."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from pydoc import locate

import pytest
import torch
import yaml
from torch import nn

from pipeline import cli
from pipeline.models.conv import ConvNet
from pipeline.models.gru import GRU
from pipeline.models.linear_recurrence import LinearRecurrence
from pipeline.models.lstm import LSTM
from pipeline.models.rnn import RNN
from pipeline.models.transformer import Transformer
from pipeline.runs.load import build_model
from pipeline.runs.moved import OF_TASK, SPLIT, complaint, update_config
from pipeline.tasks.forecaster import Forecaster, ForecastSettings
from pipeline.tasks.likelihoods import StudentT
from pipeline.tasks.policy import Policy, RolloutSettings
from pipeline.tasks.token_prediction import TokenHead
from pipeline.tasks.wave_model import WaveModel

SPACES = {
    **{"observation_mean": [1.0, -2.0], "observation_deviation": [2.0, 0.5], "choices": 3, "low": [], "high": []},
    **{"best_return": 9.0, "return_scale": 10.0},
}
KEPT = ("return_conditioned", "rollout", "target_return", "horizon", "covariates", "chunk_length", "rate", "classes")
STUDENT = {"class_path": "pipeline.tasks.likelihoods.StudentT"}
POLICY = {"spaces": SPACES, "conditioned": False, "playing": {"episodes": 5, "asked": 2.0}}
FORECASTER = {"horizon": 4, "covariates": 2, "saying": {"outcome": STUDENT, "reach": 2, "dropout": 0.3, "paths": 7}}
WAVE = {"vocab_size": 260, "rate": 8000, "head": {"tied": False}}
STACK = {"width": 8, "depth": 2, "hidden": 12, "dropout": 0.1, "input_dropout": 0.2, "output_dropout": 0.3}
CONV = {"width": 8, "depth": 3, "hidden": 12, "kernel": 3, "cycle": 2, "dropout": 0.1}
RECURRENCE = {"width": 8, "depth": 2, "hidden": 12, "kernel": 3, "dropout": 0.1}
TRANSFORMER = {"width": 8, "depth": 2, "heads": 2, "hidden": 20, "dropout": 0.1, "positions": 16, "window": 4}
NETWORKS: dict[str, tuple[Callable[..., nn.Module], dict[str, object]]] = {
    "RNN": (RNN, {"nonlinearity": "relu", **STACK}),
    "GRU": (GRU, STACK),
    "LSTM": (LSTM, {"forget_bias": 2.0, **STACK}),
    "Conv": (ConvNet, CONV),
    "LinearRecurrence": (LinearRecurrence, RECURRENCE),
    "Transformer": (Transformer, {"feedforward": "pipeline.models.layers.feedforward.GELU", **TRANSFORMER}),
}


def policy(network: nn.Module) -> Policy:
    return Policy(network, SPACES, return_conditioned=False, rollout=RolloutSettings(5, 2.0))


def forecaster(network: nn.Module) -> Forecaster:
    return Forecaster(network, 4, 2, ForecastSettings(StudentT(), 2, num_samples=7, dropout=0.3))


def wave_model(network: nn.Module) -> WaveModel:
    return WaveModel(network, 260, 8000, TokenHead(tied=False))


EXPECTED: dict[str, tuple[dict[str, object], Callable[[nn.Module], nn.Module], str]] = {
    **{f"pipeline.models.policies.{name}Policy": (POLICY, policy, name) for name in NETWORKS},
    **{f"pipeline.models.forecasters.{name}Forecaster": (FORECASTER, forecaster, name) for name in NETWORKS},
    "pipeline.models.waves.WaveNet": (WAVE, wave_model, "Conv"),
    "pipeline.models.waves.WaveLSTM": (WAVE, wave_model, "LSTM"),
}
"""By former class: the arguments of the task, a function that builds it around a network, and the network."""


def of_signature(make: Callable[..., object]) -> set[str]:
    return set(inspect.signature(make).parameters)


def test_the_table_of_this_test_has_every_class() -> None:
    assert EXPECTED.keys() == SPLIT.keys()


def test_no_argument_of_a_task_is_one_of_its_network() -> None:
    tasks = {locate(task) for task, _ in SPLIT.values()}
    assert set().union(*(of_signature(task) for task in tasks)) == {"network", *OF_TASK}  # type: ignore[arg-type]
    for _, options in NETWORKS.values():
        assert not options.keys() & {"network", *OF_TASK}


@pytest.mark.numeric
@pytest.mark.parametrize("name", EXPECTED)
def test_a_flat_config_builds_the_same_model_as_before(name: str) -> None:
    of_task, make, network = EXPECTED[name]
    make_network, options = NETWORKS[network]
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.25}}
    schedule = {"class_path": "pipeline.optim.WarmupCosine", "init_args": {"warmup_steps": 3}}
    flat = {"class_path": name, "init_args": {**of_task, "optimizer": optimizer, "schedule": schedule, **options}}
    config = update_config(flat, "model")
    assert update_config(config, "model") == config
    torch.manual_seed(1)
    built = build_model(config)
    torch.manual_seed(1)
    expected = make(make_network(**{key: _made(value) for key, value in options.items()}))
    assert type(built) is type(expected)
    assert repr(built) == repr(expected)  # includes dropout rates, kernels, nonlinearities
    found, expected_state = built.state_dict(), expected.state_dict()
    assert list(found) == list(expected_state)
    assert all(torch.equal(found[key], expected_state[key]) for key in expected_state)
    for key in KEPT:
        assert getattr(built, key, None) == getattr(expected, key, None)
    if isinstance(expected, Forecaster):
        assert isinstance(built.likelihood, StudentT)
        assert replace(built.forecast, likelihood=None) == replace(expected.forecast, likelihood=None)
    assert (built.check_optimizer().param_groups[0]["lr"], built.schedule.warmup_steps) == (0.25, 3)


def _made(value: object) -> object:
    return locate(value) if isinstance(value, str) and value.startswith("pipeline.") else value


def test_a_class_without_arguments_and_one_inside_a_list_are_split_too() -> None:
    [found] = update_config([{"class_path": "pipeline.models.policies.GRUPolicy"}])
    network = {"class_path": "pipeline.models.gru.GRU", "init_args": {}}
    assert found == {"class_path": "pipeline.tasks.policy.Policy", "init_args": {"network": network}}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_split_class_in_a_users_config_is_reported_with_its_new_form(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    task, network = SPLIT[name]
    form = f"{{class_path: {task}, init_args: {{network: {{class_path: {network}, init_args: {{...}}}}, ...}}}}"
    line = f"{name} is now a task and its network: use {form}"
    assert complaint(f"model: {name}") == line
    Path("mine.yaml").write_text(yaml.safe_dump({"model": {"class_path": name, "init_args": {"width": 8}}}))
    Path("bare.yaml").write_text("seed_everything: 1\n")
    for arguments in (["--config", "mine.yaml"], ["--config", "bare.yaml", f"--model={name}"]):
        assert cli.main(["fit", *arguments, "--run", "new"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert line in error
