"""What may change between the attempts of a run, and what may not."""

import importlib
import inspect
import pkgutil

import pytest
from lightning.pytorch import LightningDataModule

import pipeline.data
from pipeline.resume import decides


def test_how_much_a_device_takes_at_once_may_change_for_every_kind_of_data() -> None:
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
    assert not [key for key in keys if decides(key)]


@pytest.mark.parametrize(
    "key",
    ["model.init_args.width", "data.init_args.global_batch_size", "seed_everything", "trainer.limit_train_batches"],
)
def test_what_is_learned_and_from_what_may_not_change(key: str) -> None:
    assert decides(key)
