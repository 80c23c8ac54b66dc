"""Options are dropped when another class replaces theirs, at every key that accepts a class."""

import functools
import importlib
import inspect
import json
import pkgutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

import jsonargparse
import pytest
import yaml
from jsonargparse import _typehints
from lightning.pytorch import LightningDataModule, LightningModule

import pipeline
from pipeline.runs import options
from pipeline.runs.resume import kept_config
from pipeline.training import config as training
from pipeline.training.config import CommandLine, _print_dropped

CONFIGS = Path(__file__).parents[3] / "configs"
LSTM = CONFIGS / "text" / "lstm.yaml"
ZAREMBA = CONFIGS / "text" / "published" / "ptb_lstm_medium.yaml"
DROPPED = "model.init_args.optimizer: torch.optim.SGD replaces torch.optim.AdamW, whose options are dropped: "


class Key(NamedTuple):
    """A key that accepts a class."""

    owner: type
    name: str
    kind: type
    inputs: int  # arguments that a factory passes besides the options; 0 for an instance
    many: bool  # a list of classes


def keys() -> Iterator[Key]:
    """Yield the keys of every DataModule and task, and of every class that one of their keys accepts."""
    for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    roots: list[type] = [LightningModule, LightningDataModule]
    seen = set()
    while roots:
        for owner in _subclasses(roots.pop()):
            ours = owner.__module__.startswith("pipeline.") and owner.__module__ in sys.modules  # not of a template
            if owner in seen or not ours or inspect.isabstract(owner):
                continue
            seen.add(owner)
            found = list(keys_of(owner))
            roots += [key.kind for key in found]
            yield from found


def _subclasses(kind: type) -> Iterator[type]:
    yield kind
    for one in type.__subclasses__(kind):
        yield from _subclasses(one)


def keys_of(owner: type) -> Iterator[Key]:
    """Yield the keys of a class that accept a class with options; dataclasses and types are excluded."""
    for action in parser_of(owner)._actions:
        hint = getattr(action, "_typehint", None)
        if not isinstance(action, _typehints.ActionTypeHint) or get_origin(hint) is type:
            continue
        for kind in _typehints.get_class_types(hint):
            if not _typehints.is_subclasses_disabled(kind):
                yield Key(owner, action.dest, kind, _inputs(hint), _typehints.ActionTypeHint.supports_append(action))


def _inputs(hint: object) -> int:
    if isinstance((given := next(iter(get_args(hint)), None)), list):
        return len(given)
    return max(map(_inputs, get_args(hint)), default=0)


@functools.cache
def parser_of(owner: type, option: str | None = None) -> Any:
    """Return a parser of one option of a class, or of all, none of them required."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    others = {action.dest.split(".")[0] for action in parser_of(owner)._actions} - {option} if option else set()
    parser.add_class_arguments(owner, skip=others)
    for action in parser._actions:
        action.required = False
    return parser


@functools.cache
def subclass(kind: type, inputs: int, **defaults: int) -> str:
    """Create a subclass with these options and return its path."""

    def __init__(self: object, *given: object, **named: object) -> None:
        """Accept inputs and options."""

    positional, either = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("self", positional)]
    parameters += [inspect.Parameter(f"input_{k}", positional, annotation=Any) for k in range(inputs)]
    parameters += [inspect.Parameter(name, either, annotation=int, default=each) for name, each in defaults.items()]
    __init__.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    name = f"{kind.__name__}{inputs}{''.join(defaults).title()}"
    made = type(name, (kind,), {"__init__": __init__, "__module__": __name__})
    made.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    globals()[name] = made
    return f"{__name__}.{name}"


def parsed(key: Key, *values: dict[str, object]) -> object:
    """Return the value of a key after parsing one config per value."""
    words = []
    for value in values:
        config: object = [value] if key.many else value
        for name in reversed(key.name.split(".")):
            config = {name: config}
        words += ["--config", json.dumps(config)]
    config = parser_of(key.owner, key.name.split(".")[0]).parse_args(words)
    return json.loads(json.dumps(config.get(key.name), default=lambda part: part.as_dict()))


def expected_at(key: Key, expected: dict[str, object]) -> object:
    return [expected] if key.many else expected


def test_another_class_has_its_own_defaults_at_every_key_and_the_same_class_keeps_its_options() -> None:
    names = set()
    for key in keys():
        one, other = subclass(key.kind, key.inputs, shared=1, one=1), subclass(key.kind, key.inputs, shared=2, other=2)
        before = {"class_path": one, "init_args": {"shared": 7, "one": 7}}
        with options.of_their_class():
            changed = parsed(key, before, {"class_path": other})
        assert changed == expected_at(key, {"class_path": other, "init_args": {"shared": 2, "other": 2}}), key
        if (name := key.name.split(".")[-1]) not in names:
            names.add(name)
            with options.of_their_class():
                merged = parsed(key, before, {"class_path": one, "init_args": {"one": 8}})
            assert merged == expected_at(key, {"class_path": one, "init_args": {"shared": 7, "one": 8}}), key
            leaked = parsed(key, before, {"class_path": other})  # without the fix
            assert leaked == expected_at(key, {"class_path": other, "init_args": {"shared": 7, "other": 2}}), key
    assert names >= {"optimizer", "schedule", "network", "encoder", "decoder", "attention", "feedforward", "scores"}


def test_no_default_of_a_signature_reaches_another_class() -> None:
    classes = set()
    for key in keys():
        default = parser_of(key.owner).get_default(key.name)
        if not isinstance(default, dict):
            continue
        names = parser_of(_typehints.import_object(default["class_path"])).get_defaults(skip_validation=True).keys()
        shared = dict.fromkeys(set(names) - {"config", "params"} - {f"input_{k}" for k in range(9)}, 5)
        other = subclass(key.kind, key.inputs, **shared)
        with options.of_their_class():
            assert parsed(key, {"class_path": other}) == expected_at(key, {"class_path": other, "init_args": shared}), (
                key
            )
        classes.add(default["class_path"])
    assert "torch.optim.AdamW" in classes


def parse(*words: str) -> CommandLine:
    """Parse the command line with text/lstm.yaml and more arguments."""
    _print_dropped.cache_clear()
    return training.parse_config([f"--config={LSTM}", *words])


@pytest.mark.parametrize(
    "words",
    [
        ["--model.init_args.schedule.init_args.warmup_share=null"],
        ["--model.init_args.schedule.init_args={warmup_share: null}"],
        ["--model.init_args.schedule={class_path: pipeline.optim.WarmupCosine, init_args: {warmup_share: null}}"],
    ],
)
def test_null_reaches_an_argument_of_an_inner_class(words: list[str]) -> None:
    config: Any = kept_config(parse("--model.init_args.schedule.init_args.warmup_share=0.3", *words))
    assert config["model"]["init_args"]["schedule"]["init_args"]["warmup_share"] is None


@pytest.mark.parametrize(
    ("words", "key", "expected"),
    [
        (
            ["--model.init_args.optimizer=torch.optim.SGD"],
            "model.init_args.optimizer.init_args.weight_decay",
            0.0,
        ),
        (
            ["--model.init_args.optimizer.init_args.weight_decay=0.2", "--model.init_args.optimizer.class_path=Adam"],
            "model.init_args.optimizer.init_args.weight_decay",
            0.0,
        ),
        (
            ["--model.init_args.optimizer.init_args.weight_decay=0.2", "--model.init_args.optimizer=AdamW"],
            "model.init_args.optimizer.init_args.weight_decay",
            0.2,
        ),
        (
            ["--model.init_args.optimizer=torch.optim.adamw.AdamW"],  # the same class by another name
            "model.init_args.optimizer.init_args.weight_decay",
            0.05,
        ),
        (["--model=pipeline.models.gru.GRULanguageModel"], "model.init_args.dropout", 0.0),
        (
            ["--model.init_args.schedule.final_share=0.5", "--model.init_args.schedule=pipeline.optim.Plateau"],
            "model.init_args.schedule.init_args",
            {"factor": 0.25, "patience": 1, "threshold": 0.0, "cooldown": 0},
        ),
        (
            [
                f"--config={CONFIGS}/pixels/sequential_lstm.yaml",
                "--model.init_args.encoder.init_args.network=pipeline.models.gru.GRU",
            ],
            "model.init_args.encoder.init_args.network.init_args.width",
            256,
        ),
        (
            [f"--config={CONFIGS}/run/zero3_offload.yaml", f"--config={CONFIGS}/run/fsdp.yaml"],
            "trainer.strategy.init_args",
            {"reshard_after_forward": True},
        ),
        (
            [
                '--trainer.callbacks=[{"class_path": "ExponentialAverage", "init_args": {"decay": 0.5}}]',
                '--trainer.callbacks=[{"class_path": "pipeline.callbacks.averaging.TriggeredAverage"}]',
            ],
            "trainer.callbacks.0.init_args",
            {"patience": 5},
        ),
    ],
)
def test_a_class_named_on_the_command_line_drops_the_options_before_it(
    words: list[str], key: str, expected: object
) -> None:
    found: Any = kept_config(parse(*words))
    for name in key.split("."):
        found = found[int(name) if name.isdigit() else name]
    assert found == expected


def test_what_is_dropped_is_printed_once_and_a_resolved_config_drops_nothing_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--model.init_args.optimizer.lr=2", "--model.init_args.optimizer=SGD", "--model.init_args.optimizer.lr=3"]
    cli = parse(*words)
    training.parse_config([f"--config={LSTM}", *words])  # as a tournament, which parses each entrant twice
    printed = capsys.readouterr()
    assert printed.err == f"unroll: {DROPPED}lr=2.0, betas=(0.9, 0.98), weight_decay=0.05, fused=True\n"
    assert printed.out == ""
    saved = tmp_path / "config.yaml"
    saved.write_text(yaml.safe_dump(kept_config(cli)))
    assert kept_config(training.parse_config([f"--config={saved}"])) == kept_config(cli)
    monkeypatch.setenv("RANK", "1")
    parse(*words)
    assert capsys.readouterr().err == ""


def test_a_dropped_default_of_a_signature_is_reported_if_it_differs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _print_dropped.cache_clear()
    (config := tmp_path / "config.yaml").write_text(ZAREMBA.read_text().replace(", weight_decay: 0.0", ""))
    training.parse_config([f"--config={config}"])
    assert capsys.readouterr().err == f"unroll: {DROPPED}weight_decay=0.01\n"


def test_private_names_of_jsonargparse_are_those_of_its_version() -> None:
    names = (_typehints, "discard_init_args_on_class_path_change"), (_typehints.ActionTypeHint, "_check_type")
    before = [getattr(*name) for name in names]
    with options.of_their_class():
        assert all(getattr(*name) is not each for name, each in zip(names, before, strict=True))
    assert [getattr(*name) for name in names] == before
    assert version("jsonargparse").startswith("4.53."), "compare pipeline/runs/options.py with the new version"
