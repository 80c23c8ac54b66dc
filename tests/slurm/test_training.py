"""Whatever a cluster does to a run, it ends bit for bit like the run that nothing happened to."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(400)]
Runs = Callable[[str], Any]


def state_of(run: Path) -> dict[str, Any]:
    """The newest checkpoint of a run."""
    from pipeline.checkpoint import newest_first, read_state

    return read_state(newest_first(run / "checkpoints")[0])


def assert_equal(one: Any, two: Any) -> None:
    """Step, weights, optimizer, carried state and the journal's rows are the same numbers."""
    from pipeline.journal import read

    left, right = state_of(one.path), state_of(two.path)
    assert left["global_step"] == right["global_step"]
    for part in ("state_dict", "optimizer_states", "carried"):
        pairs = zip(*(torch.utils._pytree.tree_leaves(state.get(part)) for state in (left, right)), strict=True)
        assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)
    for key in ("train/loss", "val/loss"):
        this, that = (read(run.path).series(key) for run in (one, two))
        assert list(this.steps) == list(that.steps)
        assert list(this.values) == list(that.values)


def test_an_operator_requeues_a_run(training: Runs, straight: Any) -> None:
    run = training("operator").submit(hold=7)
    run.wait_until_held()
    run.cluster.tell("scontrol", "requeue", str(run.job))
    assert run.wait() == "COMPLETED", run.told()
    assert run.ended() == [(0, 75), (8, 0)]
    assert run.record["attempts"][0]["slurm_job"] == str(run.job)
    assert_equal(run, straight)


def test_the_time_limit_comes(training: Runs, straight: Any) -> None:
    run = training("limit").submit(hold=7, options=["--time=2", "--signal=USR1@60"])  # Slurm looks every 30 s
    run.until(lambda: [code for _, code in run.ended()] == [75], 150)
    run.go()
    assert run.wait() == "COMPLETED", run.told()
    assert "stopped and saved: the job is queued again" in run.told()
    assert run.ended()[-1][1] == 0
    assert_equal(run, straight)


def test_a_task_is_killed(training: Runs, straight: Any) -> None:
    run = training("killed").submit(hold=7)
    run.wait_until_held()
    os.kill(run.cluster.tasks(run.job)[-1], signal.SIGKILL)
    run.until(lambda: "queued again" in run.told(), 60)
    run.go()
    assert run.wait() == "COMPLETED", run.told()
    assert re.search(r"exit code 137 on node\S+, failure 1 in a row: queued again in 1 s", run.told())
    assert run.ended()[-1] == (6, 0)
    assert_equal(run, straight)


def test_a_failing_config_is_not_tried_again(training: Runs) -> None:
    run = training("failing").submit("--trainer.max_stepz=3")
    assert run.wait() == "FAILED"
    assert run.cluster.about(run.job)["ExitCode"] == "2:0"
    assert run.cluster.about(run.job)["Restarts"] == "0"
    assert run.told().count("max_stepz") == 1
    assert "exit code 2: starting again would not help" in run.told()
    assert run.ended() == []


def test_a_cancelled_run_stays_cancelled(training: Runs) -> None:
    run = training("cancelled").submit(hold=3)
    run.wait_until_held()
    run.cluster.tell("scancel", str(run.job))
    assert run.wait() == "CANCELLED"
    assert run.ended() == [(0, 75)]
    assert run.cluster.about(run.job)["Restarts"] == "0"
