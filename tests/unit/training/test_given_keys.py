"""The command line overrides configs at every position, and every accepted key has an effect."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Trainer

from pipeline import cli
from pipeline.callbacks.checkpointing import CheckpointSettings
from pipeline.callbacks.layer_execution import Execution
from pipeline.callbacks.nonfinite_guard import GuardSettings
from pipeline.callbacks.watchdog import WatchdogSettings
from pipeline.errors import ConfigError
from pipeline.runs.run import Run
from pipeline.tracking.settings import Tracking
from pipeline.training import trainer
from pipeline.training.config import parse_config
from pipeline.training.given_keys import DEFAULTS, NO_EFFECT, configs_first

ROOT = Path(__file__).parents[3]
LSTM = str(ROOT / "configs" / "text" / "lstm.yaml")
OWN = {"checkpoints", "guard", "watchdog", "execution", "tracking"}
SETTINGS = (CheckpointSettings, GuardSettings, WatchdogSettings, Execution, Tracking)
PASSED = {  # arguments of Lightning's Trainer that it receives as they are, each with a value besides its default
    "accelerator": "cpu",
    "precision": "bf16-mixed",
    "fast_dev_run": 3,
    "max_epochs": 3,
    "min_epochs": 2,
    "max_steps": 7,
    "min_steps": 2,
    "limit_train_batches": 4,
    "limit_val_batches": 4,
    "limit_test_batches": 4,
    "overfit_batches": 2,
    "val_check_interval": 3,
    "check_val_every_n_epoch": 2,
    "num_sanity_val_steps": 1,
    "log_every_n_steps": 5,
    "gradient_clip_val": 0.5,
    "gradient_clip_algorithm": "value",
    "deterministic": True,
    "benchmark": True,
    "inference_mode": False,
    "profiler": "simple",
    "detect_anomaly": True,
    "sync_batchnorm": True,
    "reload_dataloaders_every_n_epochs": 1,
    "devices": "1",  # as the parser reads it
    "num_nodes": 1,
}
ABSTRACT = {"residual.ResidualBlock"}  # its subclasses use its arguments
REPLACED = {"strategy", "callbacks", "plugins", "max_time"}  # read or extended by `make_trainer`


@pytest.mark.parametrize("place", [0, 2, 4])
@pytest.mark.parametrize("form", ["--config=", "--config", "-c"])
def test_the_command_line_wins_wherever_it_stands(tmp_path: Path, place: int, form: str) -> None:
    for name, steps in (("one", 5), ("two", 6)):
        (tmp_path / f"{name}.yaml").write_text(f"trainer: {{max_steps: {steps}, log_every_n_steps: {steps}}}")
    files = [LSTM, *(str(tmp_path / f"{name}.yaml") for name in ("one", "two"))]
    configs = [[form + file] if form.endswith("=") else [form, file] for file in files]
    configs.insert(place, ["--trainer.max_steps", "7"])
    found = parse_config([argument for each in configs for argument in each]).config
    assert (found.trainer.max_steps, found.trainer.log_every_n_steps) == (7, 6)
    assert [Path(str(each)).name for each in found.config] == ["lstm.yaml", "one.yaml", "two.yaml"]


def test_only_configs_change_their_place() -> None:
    assert configs_first(["--a", "1", "--config", "x", "--b=2", "--config=y", "-c", "z", "--c"]) == (
        ["--config", "x", "--config=y", "-c", "z", "--a", "1", "--b=2", "--c"]
    )


@pytest.mark.parametrize("key", sorted(NO_EFFECT))
def test_a_key_without_an_effect_is_refused_in_every_spelling(
    tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    group, _, rest = key.partition(".")
    value = "false" if DEFAULTS.get(key, True) in (True, None) and group == "trainer" else "37"
    name = rest.removeprefix("init_args.")
    (tmp_path / "whole.yaml").write_text(yaml.safe_dump({group: nested(rest, yaml.safe_load(value))}))
    (tmp_path / "part.yaml").write_text(yaml.safe_dump(nested(rest, yaml.safe_load(value))))
    for given in (
        [f"--{key}", value],
        [f"--{key}={value}"],
        [f"--{group}.{name}={value}"],
        [f"--{group}", f"{{{name}: {value}}}"],
        [f"--config={tmp_path / 'whole.yaml'}"],
        [f"--{group}", str(tmp_path / "part.yaml")],
    ):
        assert cli.main(["fit", "--config", LSTM, *given]) == 2
        error = capsys.readouterr().err
        assert f"{key}={yaml.safe_load(value)} has no effect. {NO_EFFECT[key]}" in error, given
        assert error.count("\n") == 1


def nested(key: str, value: Any) -> dict[str, Any]:
    """Return a value below a dotted key."""
    first, _, rest = key.partition(".")
    return {first: nested(rest, value) if rest else value}


def test_a_default_may_be_given_as_in_the_config_of_a_run() -> None:
    given = [f"--{key}={yaml.safe_dump(value).split()[0]}" for key, value in DEFAULTS.items() if key in NO_EFFECT]
    assert parse_config(["--config", LSTM, *given]).config.trainer.accumulate_grad_batches == 1


def test_a_mapping_of_the_command_line_has_each_key_once() -> None:
    with pytest.raises(ConfigError, match="--trainer: the key max_steps is also in line 1"):
        parse_config(["--config", LSTM, "--trainer", "{max_steps: 1, max_steps: 2}"])


def test_every_key_of_the_trainer_is_passed_replaced_or_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_text_dataset: Path
) -> None:
    known = set(inspect.signature(Trainer).parameters)
    refused = {key.removeprefix("trainer.") for key in NO_EFFECT if key.startswith("trainer.")}
    assert known == PASSED.keys() | REPLACED | refused
    assert not (PASSED.keys() | REPLACED) & refused
    received: dict[str, Any] = {}
    plain = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    monkeypatch.setattr(trainer, "_built", lambda settings, _: received.update(settings) or plain)
    keys = [f"--trainer.{name}={str(value).lower()}" for name, value in PASSED.items()]
    parsed = parse_config(["--config", LSTM, *keys, f"--data.init_args.dataset={tiny_text_dataset}"])
    model, data, config = parsed.build()
    trainer.make_trainer(config, Run(tmp_path / "run"), model, data, None)
    assert {name: received[name] for name in PASSED} == PASSED


def test_a_profiler_reports_to_the_run(tmp_path: Path) -> None:
    quiet = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    profiled = trainer._with_profile(Trainer(profiler="simple", **quiet), tmp_path)
    with profiled.profiler.profile("read"):
        pass
    profiled.profiler.describe()
    profiled.profiler.teardown(None)
    assert "read" in (tmp_path / "profile.txt").read_text()
    trainer._with_profile(Trainer(**quiet), tmp_path)


def test_the_groups_of_keys_are_those_that_this_file_examines() -> None:
    parsed = parse_config(["--config", LSTM])
    assert {key.split(".")[0] for key in parsed.config.keys(branches=True)} - {"__default_config__"} == (
        OWN
        | {
            "model",
            "data",
            "trainer",
            "seed_everything",
            "run",
            "resume",
            "sweep",
            "profile",
            "config",
            "from",
            "freeze",
            "initialization",
            "allow_changes",
        }
    )


TREES = {
    path: ast.parse(path.read_text())
    for package in ("pipeline", "data_prep")
    for path in sorted((ROOT / package).rglob("*.py"))
}
READ = {
    node.attr
    for tree in TREES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
}  # names of all attributes that are read anywhere


def constructors() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield class and constructor of everything that a config can name."""
    rooms = [ROOT / "pipeline" / room for room in ("models", "tasks", "data", "callbacks")]
    for path, tree in TREES.items():
        if not any(path.is_relative_to(room) for room in rooms) and path.name != "optim.py":
            continue
        for kind in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
            for method in kind.body:
                named = f"{path.stem}.{kind.name}" not in ABSTRACT
                if named and isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    yield f"{path.stem}.{kind.name}", method


def test_every_argument_of_a_class_is_used() -> None:
    """A constructor reads each argument. If it only stores an argument, other code reads the attribute."""
    found, unused = 0, []
    for name, method in constructors():
        arguments = [each.arg for each in (*method.args.args[1:], *method.args.kwonlyargs)]
        stored = dict(stores(method))
        loaded = {node.id for node in ast.walk(method) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        found += len(arguments)
        unused += [f"{name}: {each}" for each in arguments if each not in loaded]
        unused += [f"{name}: {each}" for each, attribute in stored.items() if attribute not in READ]
    assert found > 500
    assert unused == []


def stores(method: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """Yield the arguments that a constructor only stores, each with the name of the attribute."""
    uses = [node.id for node in ast.walk(method) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    for node in ast.walk(method):
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        target, value = node.targets[0], node.value
        pairs = (
            zip(target.elts, value.elts, strict=False)
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
            else [(target, value)]
        )
        for left, right in pairs:
            if isinstance(left, ast.Attribute) and isinstance(right, ast.Name) and uses.count(right.id) == 1:
                yield right.id, left.attr


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda kind: kind.__name__)
def test_every_setting_is_read(settings: type) -> None:
    names = list(inspect.signature(settings).parameters)
    assert names
    assert [name for name in names if name not in READ] == []
