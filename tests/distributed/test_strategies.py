"""Every strategy learns the same as one process and resumes from the checkpoints of the others."""

import json
import signal
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.cli import main
from pipeline.runs import journal
from pipeline.tasks.token_output import TokenOutput
from tests.distributed.fixture_types import Fit, Rows, State
from tests.sweep import also

Apart = Callable[[Callable[[], int]], int]
STRATEGIES = {
    "ddp": "ddp",
    "fsdp": '{"class_path": "pipeline.distributed.strategies.FullySharded"}',
    "zero1": '{"class_path": "pipeline.distributed.strategies.ZeRO", "init_args": {"stage": 1}}',
    "zero2": '{"class_path": "pipeline.distributed.strategies.ZeRO", "init_args": {"stage": 2}}',
    "zero3": '{"class_path": "pipeline.distributed.strategies.ZeRO", "init_args": {"stage": 3}}',
}
LSTM, TRANSFORMER = (f"pipeline.models.{name}LanguageModel" for name in ("lstm.LSTM", "transformer.Transformer"))
SGD = ["model.init_args.optimizer.class_path", "torch.optim.SGD", "model.init_args.optimizer.init_args.lr", 0.1]
WHOLE = [*SGD, "model.init_args.dropout", 0.0]


def on(strategy: str, processes: int = 2) -> list[object]:
    if strategy.startswith("zero"):
        pytest.importorskip("deepspeed")
    return ["trainer.strategy", STRATEGIES[strategy], "trainer.devices", processes]


def assert_close(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert one["global_step"] == two["global_step"]
    assert one["state_dict"].keys() == two["state_dict"].keys()
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], value, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "model", "order"),
    [
        *product(STRATEGIES, [LSTM], ["contiguous"]),
        *product(["fsdp", "zero3"], [TRANSFORMER], ["shuffled"]),
        *[("ddp", LSTM, "documents"), ("zero3", LSTM, "documents"), ("fsdp", TRANSFORMER, "documents")],
        *also(*product(["ddp", "zero1", "zero2"], [TRANSFORMER], ["shuffled"])),
        *also(("fsdp", LSTM, "documents"), *product(["ddp", "zero3"], [TRANSFORMER], ["documents"])),
    ],
)
def test_a_strategy_learns_what_one_process_learns(
    fit: Fit, state: State, apart: Apart, capfd: pytest.CaptureFixture[str], strategy: str, model: str, order: str
) -> None:
    """Two processes with two micro-batches per step each; the gradient is clipped (its norm is about 1)."""
    keys = [*WHOLE, "data.init_args.order", order, "trainer.gradient_clip_val", 0.25]
    assert fit("one", *keys, model=model) == 0
    code = fit("two", *keys, *on(strategy), "data.init_args.per_device_batch_size", 4, model=model)
    if (strategy, model, order) == ("zero3", LSTM, "documents"):  # DeepSpeed fails if a layer is called several times
        assert code == 2
        assert "data.order=documents: expected contiguous or shuffled with a LSTM" in capfd.readouterr().err
        return
    assert code == 0
    assert state("two")["accumulation"] == 2
    assert_close(state("one"), state("two"))
    if order == "contiguous":
        assert_is_evaluated("two", apart, capfd)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "precision"),
    [
        *((name, "32-true") for name in ("ddp", "fsdp", "zero3")),
        ("zero3", "bf16-mixed"),
        *also(("zero2", "32-true"), ("fsdp", "bf16-mixed")),
    ],
)
def test_a_strategy_computes_the_loss_in_blocks(
    fit: Fit, state: State, rows: Rows, monkeypatch: pytest.MonkeyPatch, strategy: str, precision: str
) -> None:
    """Two processes that never compute all logits learn what one process learns that computes them at once."""
    keys = [*WHOLE, "model.init_args.head.label_smoothing", 0.1, "data.init_args.order", "shuffled"]
    keys += ["trainer.precision", precision]
    assert fit("one", *keys, model=TRANSFORMER) == 0
    monkeypatch.setattr(TokenOutput, "block_rows", lambda _, rows, *more: rows // 3)
    assert fit("two", *keys, *on(strategy), model=TRANSFORMER) == 0
    losses = [
        [row[key] for row in rows(name) for key in ("train/loss", "val/loss") if key in row] for name in ("one", "two")
    ]
    assert len(losses[0]) > 5
    assert losses[1] == pytest.approx(losses[0], rel=1e-5 if precision == "32-true" else 0.01)
    if precision == "32-true":
        assert_close(state("one"), state("two"))


def assert_is_evaluated(run: str, apart: Apart, capfd: pytest.CaptureFixture[str]) -> None:
    """The run's best loss is found again, and every verb accepts the run."""
    expected = journal.read_journal(Path("runs") / run).best("val/loss")
    capfd.readouterr()
    assert apart(lambda: main(["validate", run])) == 0
    [printed] = [line.split() for line in capfd.readouterr().out.splitlines() if line.split()[:1] == ["val/loss"]]
    assert float(printed[1]) == pytest.approx(expected, abs=1e-4)  # four digits are printed
    verbs = {
        "test": [run, "--split", "validation"],
        "generate": [run, "--prompt", "a", "--tokens", "3"],
        "diagnose": [run],
        "compare": [run, "--html", f"{run}.html"],
        "status": [run],
        "checkpoint": ["verify", run],
        "checkpoint export": [run, "--output", f"{run}-model"],
        "checkpoint convert": [run, "--output", f"{run}.ckpt"],
        "checkpoint diff": [run, run],
    }
    codes = {verb: apart(partial(main, [*verb.split(), *rest])) for verb, rest in verbs.items()}
    assert codes == dict.fromkeys(verbs, 0), capfd.readouterr().err


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "ddp"])
def test_muon_is_refused_where_a_process_does_not_have_whole_matrices(
    fit: Fit, capfd: pytest.CaptureFixture[str], strategy: str
) -> None:
    assert fit("muon", *on(strategy), "model.init_args.optimizer.class_path", "pipeline.optim.muon.Muon") == 2
    [line] = [each for each in capfd.readouterr().err.splitlines() if "error" in each]
    assert line.startswith("unroll: error: model.init_args.optimizer=Muon: expected a strategy with whole matrices")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "zero2", *also("zero1", "zero3")])
def test_bfloat16_stays_near_float32_and_resumes_exactly(fit: Fit, state: State, rows: Rows, strategy: str) -> None:
    """Within 1 % of the loss in nats: products have 8 bits in bfloat16, and sums are in float32."""
    keys = ["trainer.precision", "bf16-mixed", *on(strategy)]
    assert fit("float32", "model.init_args.dropout", 0.0) == 0
    assert fit("bfloat16", *keys, "model.init_args.dropout", 0.0) == 0
    exact, near = ([row["val/loss"] for row in rows(name) if "val/loss" in row] for name in ("float32", "bfloat16"))
    assert len(exact) == 3
    assert near == pytest.approx(exact, rel=0.01)
    assert near != exact
    assert fit("stopped", *keys, "model.init_args.dropout", 0.0, die=(signal.SIGTERM, 7)) == 75
    assert fit("stopped", *keys, "model.init_args.dropout", 0.0) == 0
    assert_equal(state("bfloat16"), state("stopped"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "order", "strategy"),
    [
        *[(LSTM, "contiguous", "ddp"), (TRANSFORMER, "shuffled", "fsdp"), (TRANSFORMER, "shuffled", "zero3")],
        *also(*product([LSTM], ["contiguous"], ["fsdp", "zero1", "zero2", "zero3"])),
        *also(*product([TRANSFORMER], ["shuffled"], ["ddp", "zero1", "zero2"])),
    ],
)
def test_activation_checkpointing_changes_nothing(
    fit: Fit, state: State, strategy: str, model: str, order: str
) -> None:
    keys = [*on(strategy), "data.init_args.order", order, "trainer.max_steps", 5]
    assert fit("kept", *keys, model=model) == 0
    assert fit("again", *keys, "execution.activation_checkpointing", "true", model=model) == 0
    assert_equal(state("kept"), state("again"))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "ddp"])
def test_a_killed_run_ends_bit_for_bit_like_the_straight_one(fit: Fit, state: State, strategy: str) -> None:
    keys = on(strategy)
    assert fit("straight", *keys) == 0
    assert fit("killed", *keys, die=(signal.SIGTERM, 4)) == 75
    assert fit("killed", *keys, die=(signal.SIGKILL, 9)) == 128 + signal.SIGKILL
    assert fit("killed", *keys) == 0
    assert_equal(state("straight"), state("killed"))


def assert_equal(one: dict[str, object], two: dict[str, object]) -> None:
    """Assert that two states are bitwise equal."""
    ones, twos = (torch.utils._pytree.tree_leaves(part(each)) for each in (one, two))
    assert len(ones) == len(twos) > 20
    for left, right in zip(ones, twos, strict=True):
        assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


def part(state: dict[str, object]) -> list[object]:
    return [state[key] for key in ("global_step", "state_dict", "optimizer_states")] + [state.get("carried")]


@pytest.mark.slow
@pytest.mark.parametrize("model", [TRANSFORMER, *also(LSTM)])
def test_a_run_moves_through_all_strategies_and_numbers_of_processes(fit: Fit, state: State, model: str) -> None:
    keys = ["model.init_args.dropout", 0.0, "data.init_args.order", "contiguous" if model is LSTM else "shuffled"]
    assert fit("straight", *keys, model=model) == 0
    ways = [("zero3", 2), ("fsdp", 2), ("zero1", 2), ("ddp", 2), ("fsdp", 1), ("zero2", 2), ("zero3", 1)]
    for step, (strategy, processes) in zip(range(1, 14, 2), ways, strict=True):  # two processes stop a step later
        assert fit("moving", *keys, *on(strategy, processes), model=model, die=(signal.SIGTERM, step)) == 75
    assert fit("moving", *keys, model=model) == 0
    assert_close(state("straight"), state("moving"))


@pytest.mark.parametrize("processes", [1, 2])
def test_the_loss_scale_of_float16_is_resumed(fit: Fit, state: State, processes: int, rows: Rows) -> None:
    """Uses Lightning's CPU plugin, as on GPUs; the scale grows every third step, and overflows."""
    scaler = {"device": "cpu", "init_scale": 2.0**20, "growth_interval": 3}
    scaled = {"precision": "16-mixed", "device": "cpu"}
    scaled["scaler"] = {"class_path": "torch.amp.GradScaler", "init_args": scaler}
    plugins = json.dumps([{"class_path": "lightning.pytorch.plugins.MixedPrecision", "init_args": scaled}])
    keys = ["trainer.plugins", plugins, "trainer.devices", processes, "trainer.gradient_clip_val", 1.0]
    keys += ["data.init_args.order", "shuffled"]  # LSTMs are not implemented in float16 on CPUs
    assert fit("straight", *keys, model=TRANSFORMER) == 0
    assert fit("killed", *keys, model=TRANSFORMER, die=(signal.SIGTERM, 4)) == 75
    assert fit("killed", *keys, model=TRANSFORMER, die=(signal.SIGKILL, 9)) == 128 + signal.SIGKILL
    assert fit("killed", *keys, model=TRANSFORMER) == 0
    assert_equal(state("straight"), state("killed"))
    one, two = (state(name)["MixedPrecision"] for name in ("straight", "killed"))
    assert one == two
    assert one["scale"] != 2.0**20
    assert one["_growth_tracker"] < 3
