"""Settings that differ between two attempts of a run, and what a difference does."""

import inspect
import pydoc
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple

from pipeline.runs import record
from pipeline.runs.run import Run

Config = Mapping[str, Any]  # a resolved config, see `kept_config`


class Effect(Enum):
    """What a changed setting does to a run."""

    ANOTHER_RUN = "requires another run"
    RESULTS = "changes results, and requires --allow-changes"
    PRINTED = "is printed"


DATASET = "data.init_args.dataset"
OPTIMIZER = "model.init_args.optimizer.init_args."
SCHEDULE = "model.init_args.schedule"
EFFECTS = {
    f"{OPTIMIZER}lr": Effect.PRINTED,
    f"{OPTIMIZER}adamw_lr": Effect.PRINTED,
    **{f"{OPTIMIZER}{name}": Effect.ANOTHER_RUN for name in ("amsgrad", "centered", "momentum", "fused", "capturable")},
    OPTIMIZER: Effect.RESULTS,
    SCHEDULE: Effect.PRINTED,
    "model.": Effect.ANOTHER_RUN,
    "data.init_args.workers": Effect.PRINTED,
    "data.init_args.per_device_batch_": Effect.PRINTED,
    DATASET: Effect.PRINTED,  # its content is compared
    "data.": Effect.ANOTHER_RUN,
    "seed_everything": Effect.ANOTHER_RUN,
    "freeze": Effect.ANOTHER_RUN,
    "initialization": Effect.ANOTHER_RUN,
    "trainer.limit_train_batches": Effect.ANOTHER_RUN,
    "trainer.overfit_batches": Effect.ANOTHER_RUN,
    "trainer.gradient_clip_": Effect.RESULTS,
    "trainer.precision": Effect.RESULTS,
    "trainer.plugins": Effect.RESULTS,
    "trainer.callbacks": Effect.RESULTS,
    "guard.": Effect.RESULTS,
}
"""Effects of settings, the first that fits, see `is_below`; all others are printed. Some options have a state."""
SPELLINGS: dict[str, list[set[object]]] = {
    "trainer.precision": [{None, 32, "32", "32-true"}, {"bf16", "bf16-mixed"}, {16, "16", "16-mixed"}],
    "trainer.gradient_clip_val": [{None, 0}],
    "trainer.gradient_clip_algorithm": [{None, "norm"}],
}
"""Values of a setting that mean the same."""
WHOLE = "trainer."  # below this key, a setting is compared with all of its parts


class Change(NamedTuple):
    """A setting that differs between two attempts."""

    key: str
    before: object
    after: object
    is_new: bool = False
    """Whether the version of unroll that wrote the previous config lacked the setting."""

    def __str__(self) -> str:
        return f"{self.key}={shown(self.after)}, previously {shown(self.before)}"

    @property
    def effect(self) -> Effect:
        """What the change does to a run."""
        found = next((effect for start, effect in EFFECTS.items() if is_below(self.key, start)), Effect.PRINTED)
        if found is Effect.RESULTS and (self.is_new or self._keeps_results()):
            return Effect.PRINTED
        return found

    def _keeps_results(self) -> bool:
        if self.key == "trainer.callbacks":
            return _with_state(self.before) == _with_state(self.after)
        return any({self.before, self.after} <= same for same in SPELLINGS.get(self.key, ()))


def is_below(key: str, start: str) -> bool:
    """Return whether a key is `start` or a part of its value; a `start` that ends in `.` or `_` is a prefix."""
    return key.startswith(start if start.endswith((".", "_")) else f"{start}.") or key == start


def changes(run: Run, config: Mapping[str, object]) -> list[Change]:
    """Return the settings that differ from those of the last attempt."""
    return changes_between(record.read_config(run.path), config)


def changes_between(old: Mapping[str, object], new: Mapping[str, object]) -> list[Change]:
    """Return the settings that differ between two configs, without new arguments that have their default."""
    before, after = dict(_flat(old)), dict(_flat(new))
    return [
        Change(key, before.get(key), after.get(key), key not in before)
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not (key not in before and _is_default(key, after))
    ]


def steps_of(config: Config, steps_per_epoch: int) -> int:
    """Return the optimizer steps of a whole run with this config; 0 without a limit."""
    from pipeline.optim import total_steps

    trainer = config["trainer"]
    return total_steps(trainer["max_epochs"], trainer["max_steps"], steps_per_epoch)


def shown(value: object) -> str:
    """Return the value of a setting as text, a class with its arguments as a call."""
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if not isinstance(value, Mapping) or "class_path" not in value:
        return str(value)
    arguments = (value.get("init_args") or {}).items()
    return f"{value['class_path'].rpartition('.')[2]}({', '.join(f'{name}={shown(each)}' for name, each in arguments)})"


def _with_state(callbacks: object) -> list[object]:
    """Return the callbacks whose state is part of a checkpoint, such as averages of weights."""
    from lightning.pytorch import Callback

    listed = callbacks if isinstance(callbacks, list) else [callbacks]
    kinds = [(each, pydoc.locate(str(each.get("class_path")))) for each in listed if isinstance(each, dict)]
    return [each for each, kind in kinds if getattr(kind, "state_dict", None) is not Callback.state_dict]


def _is_default(key: str, config: Mapping[str, object]) -> bool:
    """Return whether an argument of a class, which the class did not have when the run began, has its default.

    A part of an argument, such as `head.tied`, is compared with that part of the argument's default.
    """
    owner, _, names = key.rpartition(".init_args.")
    name, *parts = names.split(".")
    chosen = pydoc.locate(str(config.get(f"{owner}.class_path")))
    argument = inspect.signature(chosen).parameters.get(name) if isinstance(chosen, type) else None
    default = inspect.Parameter.empty if argument is None else argument.default
    for part in parts:
        default = getattr(default, part, inspect.Parameter.empty)
    return bool(default == config[key])


def _flat(tree: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    if not isinstance(tree, dict) or (prefix.startswith(WHOLE) and prefix != WHOLE):
        yield prefix[:-1], tree
        return
    for name, part in tree.items():
        yield from _flat(part, f"{prefix}{name}.")
