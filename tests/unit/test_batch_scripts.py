"""The exit code of training decides whether, when and where a batch script requeues its job."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "slurm"
COMMANDS = {
    "srun": 'cat output 2> /dev/null; echo "$@" >> srun.log; exit "$(cat code)"',
    "unroll": '[ "$*" != "prepare text --help" ] || echo "--workers N"',
    "scontrol": '[ "$1" = show ] && echo "JobId=7 ExcNodeList=$(cat excluded) Features=(null)" || echo "$@" >> log',
}
JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS_PER_NODE": "4", "SLURM_JOB_NODELIST": "n[1-2]"}
KILLED = "srun: error: n2: task 5: Killed"


class Script:
    """Starts of one job: in `start(code, output)`, training prints `output` and exits with `code`."""

    def __init__(self, home: Path) -> None:
        self.home, self.starts = home, 0
        (home / "excluded").write_text("(null)")

    def start(self, code: int, output: str = "", script: str = "train.sbatch", *more: str, **environment: str) -> int:
        (self.home / "code").write_text(str(code))
        (self.home / "output").write_text(f"{output}\n")
        restarts = {"SLURM_RESTART_COUNT": str(self.starts)} if self.starts else {}
        self.starts += 1
        with (self.home / "job.out").open("a") as log:
            return subprocess.run(
                ["bash", str(SCRIPTS / script), *(more or ["lstm.yaml"])],
                cwd=self.home,
                stdout=log,
                stderr=log,
                env={"PATH": f"{self.home / 'bin'}:{os.environ['PATH']}", **JOB, **restarts, **environment},
            ).returncode

    def scontrol_calls(self) -> list[str]:
        """Return the arguments of the scontrol calls since the last check."""
        file = self.home / "log"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines


@pytest.fixture
def job(tmp_path: Path) -> Script:
    (tmp_path / "bin").mkdir()
    for name, text in COMMANDS.items():
        command = tmp_path / "bin" / name
        command.write_text(f"#!/bin/bash\n{text}\n")
        command.chmod(0o755)
    return Script(tmp_path)


def test_one_task_per_device_trains_on_every_node(job: Script) -> None:
    assert job.start(0) == 0
    command = (job.home / "srun.log").read_text()
    assert command == "--nodes=2 --ntasks=8 --ntasks-per-node=4 --cpus-per-task=1 unroll fit --config lstm.yaml\n"
    assert job.scontrol_calls() == []


def test_a_run_that_stopped_and_saved_starts_again_at_once(job: Script) -> None:
    assert job.start(75) == 75
    assert job.scontrol_calls() == ["requeue 7"]


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 6])
def test_a_failure_that_would_repeat_is_not_requeued(job: Script, code: int) -> None:
    assert job.start(code) == code
    assert job.scontrol_calls() == []


@pytest.mark.parametrize(
    "output",
    ["slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0", "slurmstepd: error: Exceeded job memory limit"],
)
def test_a_lack_of_memory_is_not_requeued(job: Script, output: str) -> None:
    assert job.start(137, f"{output}\n{KILLED}") == 137
    assert job.scontrol_calls() == []


def test_a_user_error_of_one_process_that_the_others_see_as_a_lost_peer_is_not_requeued(job: Script) -> None:
    first, others = "n1: task 2: Exited with exit code 3", "n[1-2]: tasks 0-1,3: Exited with exit code 7"
    assert job.start(7, f"srun: error: {first}\nsrun: error: {others}") == 3
    assert job.scontrol_calls() == []
    assert "exit code 3: not requeued" in (job.home / "job.out").read_text()


def test_failures_in_a_row_wait_longer_each_time_and_end_at_the_third(job: Script) -> None:
    assert job.start(137, KILLED) == 137
    assert job.scontrol_calls() == ["requeue 7", "update JobId=7 StartTime=now+60"]
    assert job.start(7, "srun: error: n1: tasks 0-3: Exited with exit code 7") == 7
    assert job.scontrol_calls() == ["requeue 7", "update JobId=7 StartTime=now+120"]
    assert job.start(8) == 8
    assert job.scontrol_calls() == []
    assert "failure 3 in a row: not requeued" in (job.home / "job.out").read_text()


def test_a_stop_in_between_ends_the_row_of_failures(job: Script) -> None:
    for code in (137, 137, 75, 137):
        job.scontrol_calls()
        job.start(code)
    assert job.scontrol_calls() == ["requeue 7", "update JobId=7 StartTime=now+60"]


def test_a_node_in_two_failures_is_excluded_beside_those_excluded_before(job: Script) -> None:
    job.start(137, KILLED)
    job.scontrol_calls()
    (job.home / "excluded").write_text("old[1-2]")
    job.start(137, KILLED)
    assert job.scontrol_calls() == ["requeue 7", "update JobId=7 StartTime=now+120 ExcNodeList=old[1-2],n2"]


def test_of_an_array_only_the_element_is_requeued(job: Script) -> None:
    (job.home / "grid.txt").write_text("--model.init_args.width 8\n--model.init_args.width 16\n")
    element = {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"}
    (job.home / "slurm").symlink_to(SCRIPTS)
    assert job.start(75, "", "sweep.sbatch", "lstm.yaml", "grid.txt", **element) == 75
    assert job.scontrol_calls() == ["requeue 5_2"]
    assert (
        "fit --config lstm.yaml --run grid-2 --tracking.group grid --model.init_args.width 16"
        in (job.home / "srun.log").read_text()
    )


def test_a_job_that_started_too_often_does_not_train(job: Script) -> None:
    job.starts = 3
    assert job.start(0, UNROLL_RESTARTS="3") == 1
    assert not (job.home / "srun.log").exists()


def test_a_job_that_may_shrink_requests_its_minimum_of_nodes_again(job: Script) -> None:
    assert job.start(75, UNROLL_NODES="1-2") == 75
    assert job.scontrol_calls() == ["requeue 7", "update JobId=7 NumNodes=1-2 NumTasks=4 NumCPUs=4"]


def test_devices_and_tasks_must_agree(job: Script) -> None:
    assert job.start(0, SLURM_GPUS_ON_NODE="8") == 2
    assert "8 devices and 4 tasks per node. Give --ntasks-per-node=8" in (job.home / "job.out").read_text()


@pytest.mark.parametrize(("kind", "workers"), [("text", " --workers 8"), ("series", "")])
def test_a_preparation_gets_as_many_workers_as_processors_if_it_supports_workers(
    job: Script, kind: str, workers: str
) -> None:
    assert job.start(0, "", "prepare.sbatch", kind, "source", SLURM_CPUS_PER_TASK="8") == 0
    command = (job.home / "srun.log").read_text()
    assert command == f"--ntasks=1 --cpus-per-task=8 unroll prepare {kind} source{workers}\n"
