"""Whatever a cluster does to a run, it ends bit for bit like the run that nothing happened to."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(3600)]
if TYPE_CHECKING:
    from tests.slurm.conftest import Training

Runs = Callable[[str], "Training"]
PREPARE = "text --train train.txt --validation validation.txt --documents line --tokenizer character --output later"


def state_of(run: Path) -> dict[str, Any]:
    """The newest checkpoint of a run."""
    from pipeline.distributed.checkpoint.directory import newest_first, read_state

    return read_state(newest_first(run / "checkpoints")[0])


def assert_whole(run: "Training") -> None:
    """Every step is in the journal, once; every attempt in the record; and all of them are one run of W&B's."""
    from pipeline.runs.journal import read_journal

    journal, record = read_journal(run.path), run.record
    assert [row["step"] for row in journal.rows if "train/loss" in row] == [2, 4, 6, 8, 10, 12, 14]
    assert [row["step"] for row in journal.rows if "val/loss" in row] == [5, 10, 14]
    numbers = [attempt["number"] for attempt in record["attempts"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert journal.attempts == {each["number"]: each["start_step"] for each in record["attempts"]}
    segments = list((run.path / "wandb").glob("offline-run-*"))
    assert segments
    assert {segment.name.rpartition("-")[2] for segment in segments} == {record["wandb_id"]}


def assert_equal(one: "Training", two: "Training") -> None:
    """Step, weights, optimizer, carried state and the journal's rows are the same numbers."""
    from pipeline.runs.journal import read_journal

    assert_whole(one)
    left, right = state_of(one.path), state_of(two.path)
    assert left["global_step"] == right["global_step"]
    for part in ("state_dict", "optimizer_states", "carried"):
        pairs = zip(*(torch.utils._pytree.tree_leaves(state.get(part)) for state in (left, right)), strict=True)
        assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)
    for key in ("train/loss", "val/loss"):
        this, that = (read_journal(run.path).series(key) for run in (one, two))
        assert list(this.steps) == list(that.steps)
        assert list(this.values) == list(that.values)


def test_an_operator_requeues_a_run(training: Runs, straight: "Training") -> None:
    run = training("operator").submit(hold="7")
    run.wait_until_held()
    run.cluster.call("scontrol", "requeue", str(run.job))
    assert run.wait() == "COMPLETED", run.output()
    assert run.ended() == [(0, 75), (8, 0)]
    assert run.record["attempts"][0]["slurm_job"] == str(run.job)
    assert_equal(run, straight)


def test_the_time_limit_comes(training: Runs, straight: "Training") -> None:
    run = training("limit").submit(hold="7", options=["--time=60", "--signal=USR1@150"])
    run.wait_until_held()
    # Slurm checks the limit every 30 s, before the watchdog reports the waiting processes as hanging.
    run.cluster.call("scontrol", "update", f"JobId={run.job}", "TimeLimit=2")
    run.until(lambda: run.ended() and run.ended()[0][1] == 75)
    run.cluster.call("scontrol", "update", f"JobId={run.job}", "TimeLimit=60")
    run.go()
    assert run.wait() == "COMPLETED", run.output()
    assert "stopped and saved: requeued" in run.output()
    assert run.ended() == [(0, 75), (8, 0)]
    assert_equal(run, straight)


def test_a_job_of_higher_priority_takes_the_nodes(training: Runs, straight: "Training") -> None:
    run = training("preempted").submit(hold="7", options=["--partition=low"])
    run.wait_until_held()
    run.cluster.preempt("--nodes=4", "--exclusive")
    assert run.wait() == "COMPLETED", run.output()
    assert run.ended() == [(0, 75), (8, 0)]
    assert run.cluster.restarts(run.job) == 1
    assert_equal(run, straight)


def test_a_task_is_killed(training: Runs, straight: "Training") -> None:
    run = training("killed").submit(hold="7", nodes="1", tasks=2)
    run.wait_until_held()
    os.kill(run.cluster.tasks(run.job)[-1], signal.SIGKILL)
    run.until(lambda: "requeued in" in run.output())
    run.go()
    assert run.wait() == "COMPLETED", run.output()
    assert re.search(r"exit code 137 on node\S+, failure 1 in a row: requeued in 1 s", run.output())
    assert run.ended()[-1] == (6, 0)
    assert_equal(run, straight)


def test_a_node_loses_its_power(training: Runs, straight: "Training") -> None:
    run = training("node")
    if not run.cluster.isolated:
        pytest.skip("requires root to kill nodes")
    run.submit(hold="7")
    run.wait_until_held()
    lost = run.cluster.last_node(run.job)
    run.cluster.kill_node(lost)
    try:
        run.until(lambda: run.cluster.restarts(run.job) == 1)
        run.go()
        assert run.wait() == "COMPLETED", run.output()
        assert lost not in run.cluster.nodes_of(run.job)
    finally:
        run.cluster.start_node(lost)
        run.cluster.wait_for_nodes()
    assert run.ended()[-1] == (6, 0)
    assert_equal(run, straight)


def test_a_run_resumes_with_fewer_nodes_and_with_more(training: Runs, straight: "Training") -> None:
    from pipeline.callbacks import step_trace

    run = training("elastic").submit(hold="4,8", nodes="1-2", tasks=2)
    others = run.cluster.nodes[1:]
    run.wait_until_held(4)
    run.cluster.call("scontrol", "update", f"NodeName={','.join(others)}", "State=DRAIN", "Reason=test")
    run.cluster.call("scontrol", "requeue", str(run.job))
    run.wait_until_held(2, attempt=2)
    run.cluster.call("scontrol", "update", f"NodeName={','.join(others)}", "State=RESUME")
    run.cluster.call("scontrol", "requeue", str(run.job))
    assert run.wait() == "COMPLETED", run.output()
    assert [attempt["world_size"] for attempt in run.record["attempts"]] == [4, 2, 4]
    assert run.ended() == [(0, 75), (5, 75), (9, 0)]
    assert_whole(run)
    assert step_trace.compare_steps(step_trace.read_traces(straight.path), step_trace.read_traces(run.path))[0] is None


def test_an_array_waits_for_its_dataset_and_one_element_is_preempted(training: Runs) -> None:
    array = training("array")
    (array.folder / "grid.yaml").write_text(json.dumps([{"model.init_args.width": width} for width in (16, 16, 8, 24)]))
    directives = ["--partition=grace", "--cpus-per-task=2"]
    (array.folder / "here.yaml").write_text(json.dumps({"directives": directives, "shared": [str(array.folder)]}))
    command = [sys.executable, "-m", "pipeline", "submit", "lstm.yaml", "--run", "array", "--time", "1:00:00"]
    command += ["--array", "grid.yaml", "--profile", "here.yaml", "--prepare", f"{PREPARE} --workers 2"]
    environment = {**array.cluster.environment, **array.environment("7")}
    keys = ["--", "--data.init_args.dataset", "later"]
    subprocess.run([*command, *keys], check=True, cwd=array.folder, env=environment)
    elements = [training(f"array-{number}") for number in (1, 2, 3, 4)]
    for each in elements:
        each.job = json.loads((each.path / "jobs.jsonl").read_text())["job"]
        each.wait_until_held(1)
    array.cluster.preempt(f"--nodelist={array.cluster.last_node(elements[1].job)}")
    array.go()
    assert [each.wait() for each in elements] == ["COMPLETED"] * 4
    assert [each.ended() for each in elements] == [[(0, 0)], [(0, 75), (8, 0)], [(0, 0)], [(0, 0)]]
    assert len({each.record["wandb_id"] for each in elements}) == 4
    for each in elements:
        assert_whole(each)
    assert_equal(elements[1], elements[0])


def test_a_failing_config_is_not_requeued(training: Runs) -> None:
    run = training("failing").submit("--trainer.max_stepz=3")
    assert run.wait() == "FAILED"
    assert run.cluster.about(run.job)["ExitCode"] == "2:0"
    assert run.cluster.restarts(run.job) == 0
    assert run.output().count("max_stepz") == 1
    assert "exit code 2: not requeued" in run.output()
    assert run.ended() == []


def test_a_cancelled_run_stays_cancelled(training: Runs) -> None:
    run = training("cancelled").submit(hold="3")
    run.wait_until_held()
    run.cluster.call("scancel", str(run.job))
    assert run.wait() == "CANCELLED"
    assert run.ended() == [(0, 75)]
    assert run.cluster.restarts(run.job) == 0
