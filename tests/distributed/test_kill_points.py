"""A run stopped at any points ends bitwise equal to an uninterrupted one."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from itertools import count

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pipeline.models
from pipeline.callbacks import step_trace
from pipeline.callbacks.fault_injection import BeforeBatch, Interrupt, WhileSaving, WhileValidating
from pipeline.commands.verify_resume.interruption_points import KILL, SAVING, TERM, Lengths
from pipeline.commands.verify_resume.trial import Trial, end_of
from pipeline.runs import journal
from tests.sweep import also

TryOut = Callable[..., Trial]
LENGTHS = Lengths(run=13, epoch=5, validation=4, checkpoint=3)
NUMBERS: Iterator[int] = count()  # each stopped run has a unique name
ORDERS = ["contiguous", "shuffled", "documents"]


def families() -> list[str]:
    """Return the class paths of the language models in pipeline.models."""
    modules = [each.name for each in pkgutil.walk_packages(pipeline.models.__path__, "pipeline.models.")]
    found = [(name, getattr(importlib.import_module(name), "__all__", ())) for name in modules]
    return [f"{name}.{each}" for name, names in found for each in names if each.endswith("LanguageModel")]


def assert_equal(trial: Trial, stops: list[Interrupt]) -> None:
    outcome = trial.stopped(f"stopped-{next(NUMBERS)}", stops)
    assert outcome.difference is None, f"{', then '.join(map(str, stops))}: {outcome}"
    assert len(outcome.resumed) == len(stops)


@st.composite
def stops(draw: st.DrawFn, processes: int, slots: int) -> list[Interrupt]:
    """Draw up to three stops of one run, in order."""
    found: list[Interrupt] = []
    for step in sorted(draw(st.sets(st.integers(0, LENGTHS.run - 1), min_size=1, max_size=3))):
        number, rank = draw(st.sampled_from([TERM, KILL])), draw(st.integers(0, processes - 1))
        kinds: list[Interrupt] = [BeforeBatch(number, rank, step, draw(st.integers(0, slots - 1)))]
        if step and step % LENGTHS.validation == 0:
            kinds.append(WhileValidating(number, rank, step, draw(st.integers(0, 2))))
        # an earlier stop may have saved this step
        if step and step % LENGTHS.checkpoint == 0 and (not found or vars(found[-1])["step"] < step - 1):
            kinds.append(WhileSaving(KILL, 0, step, draw(st.integers(0, SAVING - 1))))
        found.append(draw(st.sampled_from(kinds)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "slots"), [(1, 2), (2, 2), *also((1, 1))])
def test_stops_at_any_points_change_nothing(try_out: TryOut, processes: int, slots: int) -> None:
    trial = try_out(LENGTHS, "data.init_args.order", "contiguous", processes=processes, slots=slots)

    @settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(stops=stops(processes, slots))
    def check(stops: list[Interrupt]) -> None:
        assert_equal(trial, stops)

    check()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "validates"),
    [
        *[("trainer.max_epochs", "at the end"), ("trainer.max_steps", "in the middle")],
        *also(("trainer.max_epochs", "in the middle"), ("trainer.max_steps", "at the end")),
    ],
)
def test_the_very_end_of_an_epoch_survives_stop_after_stop(try_out: TryOut, limit: str, validates: str) -> None:
    lengths = LENGTHS._replace(run=10, validation=5 if validates == "at the end" else 3)
    keys = ["trainer.max_epochs", 2, "trainer.max_steps", -1] if limit == "trainer.max_epochs" else []
    trial = try_out(lengths, *keys)
    assert_equal(trial, [BeforeBatch(TERM, step=4), BeforeBatch(TERM, step=6)])
    assert_equal(trial, [BeforeBatch(TERM, step=4), BeforeBatch(KILL, step=5), BeforeBatch(TERM, step=8)])
    if validates == "at the end":
        assert_equal(trial, [WhileValidating(TERM, step=5, batch=1), WhileValidating(TERM, step=10, batch=1)])
        assert_equal(trial, [BeforeBatch(TERM, step=4), WhileValidating(KILL, step=5, batch=1)])


@pytest.mark.parametrize("processes", [1, 2])
def test_a_stop_in_a_validation_does_not_wait_for_its_end(try_out: TryOut, processes: int) -> None:
    average = {"class_path": "pipeline.callbacks.averaging.ExponentialAverage", "init_args": {"decay": 0.5}}
    trial = try_out(LENGTHS, "trainer.callbacks", [average], processes=processes)
    stops = [WhileValidating(TERM, processes - 1, step=step, batch=batch) for step, batch in [(4, 1), (4, 2), (13, 1)]]
    outcome = trial.stopped("validating", [*stops])
    assert outcome.difference is None
    assert outcome.resumed == [4, 4, 13]
    validated = journal.read_journal(trial.home / "validating").series("val/loss")
    assert list(validated.steps) == [4, 8, 12, 13]


@pytest.mark.parametrize("first", [5, 8])
def test_a_finished_run_continues_as_if_it_had_the_higher_limit_from_the_start(try_out: TryOut, first: int) -> None:
    trial = try_out(LENGTHS)
    shorter = Trial(trial.home, [*trial.arguments, f"--trainer.max_steps={first}"], trial.start)
    name = f"raised-{first}"
    assert shorter.attempt(name) == 0
    assert trial.attempt(name) == 0
    samples, _ = step_trace.compare_steps(*(step_trace.read_traces(trial.home / run) for run in ("straight", name)))
    assert samples is None
    straight, raised = (end_of(trial.home / run) for run in ("straight", name))
    for key, value in straight["state_dict"].items():
        assert torch.equal(raised["state_dict"][key], value)


@pytest.mark.slow
@pytest.mark.parametrize(("place", "model"), enumerate(families()))
def test_every_architecture_continues_exactly(try_out: TryOut, place: int, model: str) -> None:
    """Orders of data and numbers of processes alternate among the architectures."""
    order, processes = ORDERS[place % len(ORDERS)], 1 + place // len(ORDERS) % 2
    if "Transformer" in model and order == "contiguous":
        order = "documents"  # the model carries no state
    trial = try_out(LENGTHS, "data.init_args.order", order, processes=processes, model=model)
    assert_equal(trial, [BeforeBatch(TERM, processes - 1, step=6), BeforeBatch(KILL, processes - 1, step=11)])


@pytest.mark.parametrize("number", [TERM, KILL])
def test_a_run_that_moves_between_one_process_and_two_reads_the_same_batches(try_out: TryOut, number: int) -> None:
    keys: list[object] = ["data.init_args.order", "contiguous", "model.init_args.dropout", 0.0]
    one = try_out(LENGTHS, *keys, slots=4)  # the limit of a device stays: four micro-batches, or two on each of two
    two = try_out(LENGTHS, *keys, processes=2, slots=2)
    moments = [BeforeBatch(number, 0, step=4, slot=1), BeforeBatch(number, 0, step=8, slot=2)]
    outcome, apart = one.moved(f"moved-{number}", [two, one, two], moments)
    assert outcome.difference is None
    assert len(outcome.resumed) == 2
    assert apart < 1e-5
    straight, moved = (end_of(one.home / name)["carried"] for name in ("straight", f"moved-{number}"))
    pairs = zip(*(torch.utils._pytree.tree_leaves(state) for state in (straight, moved)), strict=True)
    for ours, theirs in pairs:  # the hidden state of all streams, in order
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
