"""Estimates of memory agree with the tensors of real training steps and with the papers."""

import gc
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from pipeline.commands.plan import command as plan
from pipeline.commands.plan import memory
from pipeline.commands.plan.logits import ON_CPU, BlockRows
from pipeline.commands.plan.memory import STRATEGIES, Footprint, Model, _counting
from pipeline.commands.slurm.layout import Layout
from pipeline.models.transformer import TransformerLanguageModel
from pipeline.training.config import parse_config

CONFIGS = Path(__file__).parents[4] / "configs" / "text"
ONE = Layout(1, 1, 1, 0)
EVERYTHING: BlockRows = lambda rows, _: rows  # noqa: E731  # computed at once


def prepared(config: str, dataset: Path, *more: str) -> Any:
    """Return the parsed experiment on the tiny dataset."""
    given = [f"--config={CONFIGS / config}.yaml", f"--data.init_args.dataset={dataset}"]
    return parse_config([*given, "--data.init_args.global_batch_size=8", *more])


def measured(cli: Any) -> Model:
    """Return the sizes of a model, for one process."""
    precision = str(cli.config.trainer.precision)
    batches = partial(plan.largest, cli, ONE)
    return memory.measure_memory(
        partial(plan.make_task, cli), batches, precision, cli.config.execution.activation_checkpointing
    )


def real_peak(cli: Any) -> dict[str, int]:
    """Return the peak memory of two real steps by torch's MemTracker."""
    task = plan.make_task(cli)
    task.configure_model()
    return peak_of_steps(task, plan.largest(cli, ONE, None)[0])


def peak_of_steps(task: Any, batch: Any) -> dict[str, int]:
    """Return the peak memory of two steps of a task."""
    optimizer = task.optimizer_of(list(task.parameters()))
    tracker = MemTracker()
    tracker.track_external(task, optimizer)
    with tracker, torch.backends.mkldnn.flags(enabled=False):
        for _ in range(2):
            task.training_step(batch, 0).backward()
            optimizer.step()
            optimizer.zero_grad()
            tracker.reset_mod_stats()
    [peak] = tracker.get_tracker_snapshot("peak").values()
    return {getattr(kind, "name", str(kind)): size for kind, size in peak.items()}


@pytest.mark.numeric
@pytest.mark.parametrize("config", ["lstm", "transformer", "conv"])
def test_a_training_step_holds_what_was_counted(config: str, tiny_text_dataset: Path) -> None:
    model = measured(prepared(config, tiny_text_dataset))
    peak = real_peak(prepared(config, tiny_text_dataset))
    found = STRATEGIES["ddp"](model, 1)
    assert found.weights == peak["PARAM"]
    assert found.optimizer == pytest.approx(peak["OPT"], rel=1e-4)  # Adam also stores its step counts
    assert found.activations == pytest.approx(peak["ACT"] + peak["TEMP"], rel=0.12)
    # Gradients replace activations during the backward pass: the sum is an upper bound.
    assert peak["Total"] <= found.total * 1.01
    assert found.total - found.gradients <= peak["Total"] * 1.01


@pytest.mark.numeric
def test_a_step_with_logits_in_blocks_holds_what_was_counted(tiny_text_dataset: Path) -> None:
    cli = prepared("transformer", tiny_text_dataset)
    trainer, batches = plan.make_task(cli).trainer, partial(plan.largest, cli, ONE)

    def build() -> TransformerLanguageModel:
        task = TransformerLanguageModel(vocab_size=32_000, width=64, depth=1, heads=2)
        task.trainer = trainer
        return task

    at_once, blocks = (memory.measure_memory(build, batches, "32-true", False, rule) for rule in (EVERYTHING, ON_CPU))
    positions = batches(None)[0].targets.numel()
    assert at_once.kept > 3 * 4 * positions * 32_000 > 4 * blocks.kept
    with FakeTensorMode(allow_non_fake_inputs=True):
        peak = peak_of_steps(build(), batches(None)[0])
    found = STRATEGIES["ddp"](blocks, 1)
    assert found.activations == pytest.approx(peak["ACT"] + peak["TEMP"], rel=0.12)


@pytest.mark.numeric
def test_counted_tensors_are_freed_without_the_garbage_collector() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Softmax(-1))
    gc.collect()
    gc.disable()
    try:
        before = {id(each) for each in gc.get_objects()}  # other tests may hold graphs
        with _counting(network) as kept:
            network(torch.randn(2, 8)).sum()
        tensors = [each for each in gc.get_objects() if isinstance(each, Tensor) and id(each) not in before]
        left = [type(each) for each in tensors if each.grad_fn is not None]
    finally:
        gc.enable()
    assert list(kept.values()) == [2 * 8 * 4] * 3
    assert left == []


@pytest.mark.timeout(120)
def test_it_counts_after_this_process_computed_with_several_threads() -> None:
    """OpenMP threads are not forked: a child that waits for them would deadlock."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        ones = torch.ones(1000, 1000)
        assert float((ones + ones).sum()) == 2e6
        assert memory._in_a_process(lambda: int((ones + ones).sum())) == 2_000_000
    finally:
        torch.set_num_threads(threads)


@pytest.mark.numeric
def test_the_padding_of_documents_is_counted(tiny_text_dataset: Path) -> None:
    cut = "--data.init_args.order=documents"
    found, windows = (measured(prepared("lstm", tiny_text_dataset, *more)) for more in ([cut], []))
    assert found.parameters == windows.parameters
    assert found.kept == pytest.approx(1.47 * windows.kept, rel=0.05)  # positions of padded rows per input


def test_activation_checkpointing_saves_memory(tiny_text_dataset: Path) -> None:
    plain = measured(prepared("transformer", tiny_text_dataset))
    again = measured(prepared("transformer", tiny_text_dataset, "--execution.activation_checkpointing=true"))
    assert again.kept < 0.7 * plain.kept
    assert (again.parameters, again.layer, again.outside) == (plain.parameters, plain.layer, plain.outside)


def test_half_precision_halves_what_is_computed_with_and_keeps_copies_of_the_weights(tiny_text_dataset: Path) -> None:
    full = measured(prepared("transformer", tiny_text_dataset))
    half = measured(prepared("transformer", tiny_text_dataset, "--trainer.precision=bf16-mixed"))
    assert (full.computed, half.computed) == (4, 2)
    assert half.kept < full.kept
    layers = full.parameters - full.outside
    assert 0.9 * 2 * layers < half.copies < 2.2 * full.parameters


@pytest.mark.parametrize(
    ("make", "bytes_each"),
    [(torch.optim.AdamW, 8), (partial(torch.optim.SGD, lr=1), 0), (partial(torch.optim.SGD, lr=1, momentum=0.9), 4)],
)
def test_the_state_of_an_optimizer_is_measured(make: Any, bytes_each: float) -> None:
    assert memory.state_bytes(make) == bytes_each


@pytest.mark.numeric
def test_the_shares_are_those_of_the_zero_paper() -> None:
    """Figure 1 of Rajbhandari et al. 2020: 7.5 billion parameters, 64 devices, 16 bits, Adam; states only."""
    model = Model(7_500_000_000, 0, 0, 0, state=8.0, computed=2, kept=0.0, copies=0.0)
    states = {name: (each := STRATEGIES[name](model, 64)).total - each.buffers for name in STRATEGIES}
    assert states["deepspeed_zero1"] / 1e9 == pytest.approx(31.4, abs=0.05)
    assert states["deepspeed_zero2"] / 1e9 == pytest.approx(16.6, abs=0.05)
    assert states["deepspeed_zero3"] / 1e9 == pytest.approx(1.9, abs=0.05)
    assert states["ddp"] == 16 * 7_500_000_000  # float32: 4 + 4 + 8
    assert states["fsdp"] == 16 * 7_500_000_000 / 64


def test_one_device_has_no_buckets() -> None:
    model = Model(100, 0, 10, 20, state=8.0, computed=4, kept=5.0, copies=1.0)
    assert STRATEGIES["ddp"](model, 1) == Footprint(400, 400, 800, 0, 6)
