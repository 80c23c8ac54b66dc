"""Whatever a cluster does to a run, it ends bit for bit like the run that nothing happened to."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from pipeline.commands.slurm import status
from tests import commands

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(1500)]
if TYPE_CHECKING:
    from tests.slurm.conftest import Training

Runs = Callable[[str], "Training"]
STALE = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "nowhere"}
PREPARE = "text --train train.txt --validation validation.txt --documents line --tokenizer character --output later"


def state_of(run: Path) -> dict[str, Any]:
    """The newest checkpoint of a run."""
    from pipeline.distributed.checkpoint.directory import newest_first, read_state

    return read_state(newest_first(run / "checkpoints")[0])


def assert_whole(run: "Training") -> None:
    """Every step is in the journal, once; every attempt in the record."""
    from pipeline.runs.journal import read_journal

    journal, record = read_journal(run.path), run.record
    assert [row["step"] for row in journal.rows if "train/loss" in row] == [2, 4, 6, 8, 10, 12, 14]
    assert [row["step"] for row in journal.rows if "val/loss" in row] == [5, 10, 14]
    numbers = [attempt["number"] for attempt in record["attempts"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert journal.attempts == {each["number"]: each["start_step"] for each in record["attempts"]}


def assert_one_wandb_run(run: "Training") -> None:
    """All attempts have sent to one run of W&B."""
    segments = list((run.path / "wandb").glob("offline-run-*"))
    assert segments
    assert {segment.name.rpartition("-")[2] for segment in segments} == {run.record["wandb_id"]}


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


def test_a_run_survives_every_event(training: Runs, straight: "Training") -> None:
    options = ["--partition=low", "--time=60", "--signal=USR1@150"]
    options = ["--partition=low", "--time=60", "--signal=USR1@150"]
    run = training("life").submit(hold="3,5,7", options=options, WANDB_MODE="offline")
    run.wait_until_held(start=1)
    run.cluster.preempt("--nodes=4", "--exclusive")
    run.wait_until_held(start=2)
    # Slurm checks the limit every 30 s, before the watchdog reports the waiting processes as hanging.
    run.cluster.call("scontrol", "update", f"JobId={run.job}", "TimeLimit=2")
    run.until(lambda: run.ended()[1][1] == 75)
    run.cluster.call("scontrol", "update", f"JobId={run.job}", "TimeLimit=60")
    run.wait_until_held(start=3)
    assert run.record["attempts"][2]["slurm_job"] == str(run.job)
    os.kill(run.cluster.tasks(run.job)[-1], signal.SIGKILL)
    run.go(3)  # the other process finds out at its next step
    run.wait_until_held(start=4)
    starts = ["1 75 0 4", "2 75 4 6", rf"3 137 6 6 {run.cluster.prefix}\d"]
    if run.cluster.isolated:  # else it cannot kill a node
        starts.append(r"4 (lost|7|1\d\d) 6 6.*")
        lose_power(run, run.cluster.last_node(run.job))
    run.go(4)
    assert run.wait() == "COMPLETED", run.output()
    assert run.cluster.restarts(run.job) == len(starts)
    assert [start for start, _ in run.ended()] == [0, 4, 6, 6, 6][: len(starts) + 1]
    assert [run.ended()[k][1] for k in (0, 1, -1)] == [75, 75, 0]
    assert re.fullmatch("\n".join(starts), "\n".join(run.starts()))
    assert run.output().count("stopped and saved: requeued") == 1  # the preempted job was requeued by Slurm
    assert "1 of 3 starts in a row without a new step: requeued in 1 s" in run.output()
    assert_equal(run, straight)
    assert_one_wandb_run(run)


def lose_power(run: "Training", node: str) -> None:
    """Kill a node of a run, wait for its next start on others, and switch the node on again."""
    run.cluster.kill_node(node)
    try:
        run.wait_until_held(start=5)
        assert node not in run.cluster.nodes_of(run.job)
    finally:
        run.cluster.start_node(node)
        run.cluster.wait_for_nodes("idle,alloc,mix")
    run.go(5)


def test_a_run_resumes_with_more_nodes_and_with_fewer(training: Runs, straight: "Training") -> None:
    from pipeline.callbacks import step_trace

    run = training("elastic")
    others = ",".join(run.cluster.nodes[1:])
    drain = ["scontrol", "update", f"NodeName={others}", "State=DRAIN", "Reason=test"]
    run.cluster.call(*drain)
    run.submit(hold="4,8", nodes="1-2", tasks=2)
    run.wait_until_held(2, start=1)
    run.cluster.call("scontrol", "update", f"NodeName={others}", "State=RESUME")
    run.cluster.call("scontrol", "requeue", str(run.job))
    run.wait_until_held(4, start=2)
    run.cluster.call(*drain)
    try:
        run.cluster.call("scontrol", "requeue", str(run.job))
        assert run.wait() == "COMPLETED", run.output()
    finally:
        run.cluster.call("scontrol", "update", f"NodeName={others}", "State=RESUME")
    assert [attempt["world_size"] for attempt in run.record["attempts"]] == [2, 4, 2]
    assert run.ended() == [(0, 75), (5, 75), (10, 0)]
    assert_whole(run)
    assert step_trace.compare_steps(step_trace.read_traces(straight.path), step_trace.read_traces(run.path))[0] is None


def test_an_array_from_inside_a_job_waits_for_its_dataset_and_one_element_is_preempted(
    training: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    array = training("array")
    (array.folder / "grid.yaml").write_text(json.dumps([{"model.init_args.width": width} for width in (16, 16)]))
    directives = ["--partition=grace", "--cpus-per-task=2"]
    variables = {key: value for key, value in array.environment("7", "offline").items() if key != "UNROLL"}
    profile = {"directives": directives, "shared": [str(array.folder)], "environment": variables}
    (array.folder / "here.yaml").write_text(json.dumps(profile))
    command = [sys.executable, "-m", "pipeline", "submit", "lstm.yaml", "--run", "array", "--time", "1:00:00"]
    command += ["--array", "grid.yaml", "--profile", "here.yaml", "--prepare", f"{PREPARE} --workers 2"]
    command += ["--", "--data.init_args.dataset", "later"]
    outer = ["salloc", "--quiet", "--nodes=1", "--ntasks=2", "--mem=500"]
    environment = {**array.cluster.environment, **array.environment(), **STALE}
    done = commands.run([*outer, *command], 120, cwd=array.folder, env=environment)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(array.folder)
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, array.cluster.environment[name])
    status.main([])
    shown = capsys.readouterr().out  # the preparation may have ended already
    assert len(re.findall(r"^array-[12] +\d+_[12] (?:pending|running) ", shown, re.MULTILINE)) == 2
    elements = [training(f"array-{number}") for number in (1, 2)]
    for each in elements:
        each.job = json.loads((each.path / "jobs.jsonl").read_text())["job"]
        each.wait_until_held(1)
    array.cluster.preempt(f"--nodelist={array.cluster.last_node(elements[1].job)}")
    array.go(1)
    array.go(2)
    assert [each.wait() for each in elements] == ["COMPLETED"] * 2
    assert [each.ended() for each in elements] == [[(0, 0)], [(0, 75), (8, 0)]]
    assert len({each.record["wandb_id"] for each in elements}) == 2
    for each in elements:
        assert_whole(each)
        assert_one_wandb_run(each)
    assert_equal(elements[1], elements[0])


def test_a_failing_config_is_not_requeued(training: Runs) -> None:
    run = training("failing").submit("--trainer.max_stepz=3", nodes="1", tasks=2)
    assert run.wait() == "FAILED"
    assert run.cluster.about(run.job)["ExitCode"] == "2:0"
    assert run.cluster.restarts(run.job) == 0
    assert run.output().count("max_stepz") == 1
    assert "exit code 2: not requeued" in run.output()
    assert run.ended() == []
