"""The non-public attributes of DeepSpeed in use exist in the versions that pyproject.toml allows."""

import inspect
from types import SimpleNamespace

import pytest

from pipeline.distributed.strategies.deepspeed_layout import NORMS, SCALER, DeepSpeedLayout

VERSIONS = "deepspeed 0.18 and 0.19"
OF_STAGE = {
    "stage_1_and_2.DeepSpeedZeroOptimizer": [
        "scaled_global_norm",
        "bit16_groups",
        "single_partition_of_fp32_groups",
        "update_lp_params",
        "overflow",
    ],
    "stage3.DeepSpeedZeroOptimizer_Stage3": [
        "_get_norm_groups",
        "fp16_groups",
        "grad_position",
        "get_param_id",
        "fp32_partitioned_groups_flat",
        "fp16_partitioned_groups_flat",
        "fp16_partitioned_groups",
        "trainable_param_groups",
        "checkpoint_event_prologue",
        "checkpoint_event_epilogue",
        "unflatten",
        "overflow",
    ],
}


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in OF_STAGE.items() for name in names])
def test_an_attribute_of_its_optimizers_exists(path: str, name: str) -> None:
    module, _, kind = path.partition(".")
    found = pytest.importorskip(f"deepspeed.runtime.zero.{module}")
    source = inspect.getsource(getattr(found, kind))
    assert f"self.{name}" in source or f"def {name}(" in source, f"{path}.{name} is in {VERSIONS}"


def test_attributes_of_its_bfloat16_optimizer_and_its_loss_scale_exist() -> None:
    source = inspect.getsource(pytest.importorskip("deepspeed.runtime.bf16_optimizer"))
    assert all(f"self.{name}" in source for name in ("bf16_groups", "fp32_groups_flat_partition"))
    assert "get_grads_for_norm" in source
    scaler = inspect.getsource(pytest.importorskip("deepspeed.runtime.fp16.loss_scaler").DynamicLossScaler)
    assert all(f"self.{name}" in scaler for name in SCALER)
    place = inspect.getsource(pytest.importorskip("deepspeed.utils.mixed_precision_linkage"))
    assert "_hp_mapping" in place


def test_steps_are_skipped_until_the_norm_is_computed_again() -> None:
    class Optimizer:
        overflow = True

        def scaled_global_norm(self) -> float:
            return 1.5

    layout = DeepSpeedLayout(Optimizer(), 1, 0, {})
    layout.refuse()
    assert layout.zero.scaled_global_norm() == float("inf")
    assert all(name in vars(layout.zero) for name in NORMS)
    layout.accept()
    assert layout.zero.scaled_global_norm() == 1.5
    assert layout.overflowed is True


def test_the_state_of_the_loss_scale_is_saved_and_restored() -> None:
    scaler = SimpleNamespace(cur_scale=8.0, cur_iter=3)
    layout = DeepSpeedLayout(SimpleNamespace(loss_scaler=scaler), 2, 0, {})
    assert layout.loss_scale() == {"cur_scale": 8.0, "cur_iter": 3}
    layout.set_loss_scale({"cur_scale": 4.0})
    assert scaler.cur_scale == 4.0
    assert DeepSpeedLayout(SimpleNamespace(), 2, 0, {}).loss_scale() == {}
