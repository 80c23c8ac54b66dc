"""Which settings may change between the attempts of a run, and which changes change its results."""

import importlib
import inspect
import pkgutil

import pytest
from lightning.pytorch import LightningDataModule

import pipeline.data
from pipeline.runs.changes import Change, Effect, changes_between, shown


def test_the_size_of_a_micro_batch_may_change_for_every_kind_of_data() -> None:
    modules = [
        importlib.import_module(f"pipeline.data.{found.name}") for found in pkgutil.iter_modules(pipeline.data.__path__)
    ]
    kinds = {kind for module in modules for kind in vars(module).values() if inspect.isclass(kind)}
    keys = {
        f"data.init_args.{name}"
        for kind in kinds
        if issubclass(kind, LightningDataModule)
        for name in inspect.signature(kind.__init__).parameters
        if name.startswith("per_device")
    }
    assert len(keys) > 2
    assert {Change(key, 1, 2).effect for key in keys} == {Effect.PRINTED}


@pytest.mark.parametrize(
    ("effect", "keys"),
    [
        (
            Effect.ANOTHER_RUN,
            "model.init_args.width model.init_args.optimizer.class_path data.init_args.global_batch_size "
            "seed_everything trainer.limit_train_batches trainer.overfit_batches",
        ),
        (
            Effect.RESULTS,
            "trainer.gradient_clip_val trainer.gradient_clip_algorithm trainer.precision guard.spike "
            "model.init_args.optimizer.init_args.weight_decay",
        ),
        (
            Effect.PRINTED,
            "data.init_args.workers data.init_args.dataset trainer.max_steps trainer.strategy trainer.devices "
            "checkpoints.keep_last execution.compile models model.init_args.optimizer.init_args.lr "
            "model.init_args.schedule.init_args.decay_steps",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Effect) else "",
)
def test_what_a_changed_setting_does(effect: Effect, keys: str) -> None:
    assert {key: Change(key, "before", "after").effect for key in keys.split()} == dict.fromkeys(keys.split(), effect)


def test_a_setting_is_found_by_its_whole_name() -> None:
    effects = {
        "model.init_args.scheduled_sampling": Effect.ANOTHER_RUN,  # not a part of `schedule`
        "model.init_args.schedule.init_args.final_share": Effect.PRINTED,
        "model.init_args.optimizer.init_args.lr_decay": Effect.RESULTS,
        "model.init_args.optimizer.init_args.lr": Effect.PRINTED,
        "model.init_args.optimizer.init_args.amsgrad": Effect.ANOTHER_RUN,  # the checkpoint lacks its state
        "model.init_args.optimizer.init_args.fused": Effect.ANOTHER_RUN,
        "trainer.gradient_clip_val": Effect.RESULTS,
    }
    assert {key: Change(key, 1, 2).effect for key in effects} == effects


def test_another_spelling_is_no_change_of_results() -> None:
    assert Change("trainer.precision", None, "32-true").effect is Effect.PRINTED
    assert Change("trainer.precision", "bf16", "bf16-mixed").effect is Effect.PRINTED
    assert Change("trainer.precision", None, "bf16-mixed").effect is Effect.RESULTS
    assert Change("trainer.gradient_clip_val", 0, None).effect is Effect.PRINTED


def test_only_callbacks_with_a_state_in_the_checkpoint_change_results() -> None:
    trace = {"class_path": "pipeline.callbacks.step_trace.Witness"}
    average = {"class_path": "pipeline.callbacks.averaging.ExponentialAverage", "init_args": {"decay": 0.9}}
    assert Change("trainer.callbacks", None, [trace]).effect is Effect.PRINTED
    assert Change("trainer.callbacks", [average], [trace, average]).effect is Effect.PRINTED
    assert Change("trainer.callbacks", [trace], [trace, average]).effect is Effect.RESULTS
    slower = {**average, "init_args": {"decay": 0.99}}
    assert Change("trainer.callbacks", [average], [slower]).effect is Effect.RESULTS


def test_a_setting_that_an_earlier_version_lacked_is_printed_only() -> None:
    [change] = changes_between({"guard": {}}, {"guard": {"window": 100}})
    assert (change.key, change.effect) == ("guard.window", Effect.PRINTED)


def test_a_class_is_shown_as_a_call() -> None:
    strategy = {"class_path": "pipeline.distributed.strategies.zero.ZeRO", "init_args": {"stage": 2, "offload": False}}
    [change] = changes_between({"trainer": {"strategy": "auto"}}, {"trainer": {"strategy": strategy}})
    assert str(change) == "trainer.strategy=ZeRO(stage=2, offload=False), previously auto"
    assert shown([strategy, None]) == "[ZeRO(stage=2, offload=False), None]"
