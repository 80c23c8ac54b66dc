"""The non-public attributes of Lightning in use exist in the versions that pyproject.toml allows."""

import inspect
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.profilers import SimpleProfiler
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector

from pipeline.distributed import lightning_internals
from pipeline.distributed.lightning_internals import STEP_HOOKS

VERSIONS = "lightning 2.6.1 and 2.6.4 to 2.6.6"


@pytest.fixture
def trainer() -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, max_steps=7, max_epochs=3)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (_FitLoop, "_should_accumulate"),
        (_FitLoop, "skip"),
        (_FitLoop, "done"),
        (_FitLoop, "restarted_mid_epoch"),
        (_TrainingEpochLoop, "_should_check_val_fx"),
        (_TrainingEpochLoop, "_broadcast_sigterm_tensor"),
        (_EvaluationLoop, "run"),
        (_CheckpointConnector, "dump_checkpoint"),
    ],
)
def test_a_method_of_its_loops_exists(owner: type, name: str) -> None:
    assert hasattr(owner, name), (
        f"{owner.__name__}.{name} is in {VERSIONS}: see pipeline/distributed/lightning_internals.py"
    )


def test_attributes_of_its_trainer_and_loops_exist(trainer: Trainer) -> None:
    loop: Any = trainer.fit_loop
    assert trainer._val_check_time_interval is None  # type: ignore[attr-defined]
    assert isinstance(trainer._checkpoint_connector, _CheckpointConnector)
    assert loop._data_fetcher is None
    assert loop.epoch_loop.val_loop._has_run is False
    assert loop.epoch_loop.val_loop.restarting is False
    assert {"total", "current"} <= vars(loop.epoch_loop.batch_progress).keys()
    assert {"total", "current"} <= vars(loop.epoch_progress).keys()
    for name in lightning_internals.COUNTS:
        assert getattr(loop.epoch_loop.batch_progress.total, name) == 0


def test_its_fully_sharded_strategy_reads_the_size_of_the_mesh_from_one_attribute() -> None:
    assert "self._data_parallel_size" in inspect.getsource(ModelParallelStrategy.setup_environment)


def test_the_fit_loop_is_replaced_by_one_that_runs_without_steps_left(trainer: Trainer) -> None:
    before = trainer.fit_loop.epoch_loop
    trainer.fit_loop.epoch_progress.current.processed = 2
    lightning_internals.train_whole(trainer)
    assert type(trainer.fit_loop) is lightning_internals.WholeFitLoop
    assert trainer.fit_loop.epoch_loop is before
    assert before._broadcast_sigterm_tensor() is None  # the vote replaces it
    assert (trainer.max_steps, trainer.max_epochs, trainer.min_epochs, trainer.fit_loop.skip) == (7, 3, None, False)


class Counting(Callback):
    """Counts the steps that begin."""

    begun = 0

    def on_train_batch_start(self, *_: Any) -> None:
        self.begun += 1


class Line(BoringModel):
    """Counts the gradients; other hooks of a step are those of Lightning."""

    gradients = 0

    def on_after_backward(self) -> None:
        self.gradients += 1


def test_a_step_calls_the_overridden_hooks_and_no_other() -> None:
    profiler = SimpleProfiler()
    late = LambdaCallback(on_before_backward=lambda trainer, module, loss: late_losses.append(loss.detach()))
    late_losses: list[torch.Tensor] = []
    settings: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    counting, module = Counting(), Line()
    trainer = Trainer(
        accelerator="cpu", max_steps=3, limit_val_batches=0, callbacks=[counting, late], profiler=profiler, **settings
    )
    lightning_internals.call_overridden_hooks(trainer, module)
    before = inspect.getfullargspec(BoringModel().training_step)
    trainer.fit(module)
    assert (counting.begun, module.gradients, len(late_losses)) == (3, 3, 3)
    steps = {name: len(each) for name, each in profiler.recorded_durations.items() if len(each) == 3}
    named = [(owner, hook) for owner, _, hook in (name.rpartition(".") for name in steps) if hook in STEP_HOOKS]
    assert {(owner.partition("]")[0], hook) for owner, hook in named} == {
        ("[Callback", "on_train_batch_start"),
        ("[Callback", "on_before_backward"),
        ("[LightningModule", "on_after_backward"),
        ("[Strategy", "on_train_batch_start"),
    }
    assert len(named) == 4
    assert inspect.getfullargspec(module.training_step) == before  # as Lightning reads it


def test_the_current_hook_and_other_attributes_of_a_module_are_set() -> None:
    module, layer = lightning_internals.LightModule(), torch.nn.Linear(1, 1)
    assert vars(module)[lightning_internals.CURRENT_HOOK] is None  # as Lightning creates it
    setattr(module, lightning_internals.CURRENT_HOOK, "training_step")
    assert getattr(module, lightning_internals.CURRENT_HOOK) == "training_step"
    module.layer = layer
    assert dict(module.named_children()) == {"layer": layer}
