"""The planned memory of weights and optimizer state equals that of each process and its checkpoint shard."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from pipeline.commands.plan.memory import STRATEGIES, Model
from pipeline.distributed.checkpoint.directory import newest_first
from tests.distributed.fixture_types import Fit

ZERO = '{{"class_path": "pipeline.distributed.strategies.ZeRO", "init_args": {{"stage": {}}}}}'
STRATEGY = {
    "fsdp": '{"class_path": "pipeline.distributed.strategies.FullySharded"}',
    "deepspeed_zero1": ZERO.format(1),
    "deepspeed_zero2": ZERO.format(2),
    "deepspeed_zero3": ZERO.format(3),
}


def shard_bytes(file: Path, part: str) -> int:
    """Return the bytes of weights or optimizer state in a process's shard, without Adam's step counts."""
    with safe_open(file, "pt") as pieces:
        tensors = (pieces.get_tensor(name) for name in pieces.keys() if part in name and "/step" not in name)  # noqa: SIM118
        return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGY)
def test_a_process_holds_its_planned_share(fit: Fit, tmp_path: Path, name: str) -> None:
    if "zero" in name:
        pytest.importorskip("deepspeed")
    assert fit("run", "trainer.strategy", STRATEGY[name], "trainer.devices", 2, "trainer.max_steps", 2) == 0
    record = json.loads((tmp_path / "runs/run/run.json").read_text())
    files = sorted(newest_first(tmp_path / "runs/run/checkpoints")[0].glob("rank-*.safetensors"))
    size = record["parameters"]
    planned = STRATEGIES[name](Model(size, frozen=0, layer=0, outside=0, state=8.0, computed=4, kept=0, copies=0), 2)
    share = {"weights/": 4 * size / 2, "optimizer/": 8 * size / 2}
    # FSDP's weights are the float32 copy; ZeRO's optimizer keeps a float32 copy in addition to the weights
    assert planned.optimizer + (planned.weights if name == "fsdp" else 0) == sum(share.values())
    for part, one in share.items():
        assert [shard_bytes(file, part) for file in files] == pytest.approx([one, one], rel=0.02)
        assert sum(shard_bytes(file, part) for file in files) == 2 * one
