"""A batch script decides by the exit code whether a job starts again, when and where."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "slurm"
COMMANDS = {
    "srun": 'cat said 2> /dev/null; echo "$@" >> srun.told; exit "$(cat code)"',
    "unroll": '[ "$*" != "prepare text --help" ] || echo "--workers N"',
    "scontrol": '[ "$1" = show ] && echo "JobId=7 ExcNodeList=$(cat excluded) Features=(null)" || echo "$@" >> told',
}
JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS_PER_NODE": "4", "SLURM_JOB_NODELIST": "n[1-2]"}
KILLED = "srun: error: n2: task 5: Killed"


class Script:
    """Starts of one job: `start(code, said)` is one whose training ends with that code and says that."""

    def __init__(self, home: Path) -> None:
        self.home, self.starts = home, 0
        (home / "excluded").write_text("(null)")

    def start(self, code: int, said: str = "", script: str = "train.sbatch", *more: str, **environment: str) -> int:
        (self.home / "code").write_text(str(code))
        (self.home / "said").write_text(f"{said}\n")
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

    def told(self) -> list[str]:
        """What scontrol was told in the last start."""
        file = self.home / "told"
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


def test_one_task_a_device_trains_on_every_node(job: Script) -> None:
    assert job.start(0) == 0
    told = (job.home / "srun.told").read_text()
    assert told == "--nodes=2 --ntasks=8 --ntasks-per-node=4 --cpus-per-task=1 unroll fit --config lstm.yaml\n"
    assert job.told() == []


def test_a_run_that_stopped_and_saved_starts_again_at_once(job: Script) -> None:
    assert job.start(75) == 75
    assert job.told() == ["requeue 7"]


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 6])
def test_what_would_fail_again_is_not_started_again(job: Script, code: int) -> None:
    assert job.start(code) == code
    assert job.told() == []


@pytest.mark.parametrize(
    "said",
    ["slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0", "slurmstepd: error: Exceeded job memory limit"],
)
def test_a_lack_of_memory_is_not_started_again(job: Script, said: str) -> None:
    assert job.start(137, f"{said}\n{KILLED}") == 137
    assert job.told() == []


def test_a_mistake_that_one_process_met_and_made_the_others_lose_it_is_not_started_again(job: Script) -> None:
    said = "srun: error: n1: task 2: Exited with exit code 3\nsrun: error: n[1-2]: tasks 0-1,3: Exited with exit code 7"
    assert job.start(7, said) == 3
    assert job.told() == []
    assert "exit code 3: not requeued" in (job.home / "job.out").read_text()


def test_failures_in_a_row_wait_longer_each_time_and_end_at_the_third(job: Script) -> None:
    assert job.start(137, KILLED) == 137
    assert job.told() == ["requeue 7", "update JobId=7 StartTime=now+60"]
    assert job.start(7, "srun: error: n1: tasks 0-3: Exited with exit code 7") == 7
    assert job.told() == ["requeue 7", "update JobId=7 StartTime=now+120"]
    assert job.start(8) == 8
    assert job.told() == []
    assert "failure 3 in a row: not requeued" in (job.home / "job.out").read_text()


def test_a_stop_in_between_ends_the_row_of_failures(job: Script) -> None:
    for code in (137, 137, 75, 137):
        job.told()
        job.start(code)
    assert job.told() == ["requeue 7", "update JobId=7 StartTime=now+60"]


def test_a_node_that_two_failures_name_is_left_out_beside_those_that_were_left_out_before(job: Script) -> None:
    job.start(137, KILLED)
    job.told()
    (job.home / "excluded").write_text("old[1-2]")
    job.start(137, KILLED)
    assert job.told() == ["requeue 7", "update JobId=7 StartTime=now+120 ExcNodeList=old[1-2],n2"]


def test_of_an_array_the_element_alone_starts_again(job: Script) -> None:
    (job.home / "grid.txt").write_text("--model.init_args.width 8\n--model.init_args.width 16\n")
    element = {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"}
    (job.home / "slurm").symlink_to(SCRIPTS)
    assert job.start(75, "", "sweep.sbatch", "lstm.yaml", "grid.txt", **element) == 75
    assert job.told() == ["requeue 5_2"]
    assert (
        "fit --config lstm.yaml --run grid-2 --tracking.group grid --model.init_args.width 16"
        in (job.home / "srun.told").read_text()
    )


def test_a_job_that_started_too_often_does_not_train(job: Script) -> None:
    job.starts = 3
    assert job.start(0, UNROLL_RESTARTS="3") == 1
    assert not (job.home / "srun.told").exists()


def test_a_job_that_may_shrink_asks_for_its_fewest_nodes_again(job: Script) -> None:
    assert job.start(75, UNROLL_NODES="1-2") == 75
    assert job.told() == ["requeue 7", "update JobId=7 NumNodes=1-2 NumTasks=4 NumCPUs=4"]


def test_devices_and_tasks_must_agree(job: Script) -> None:
    assert job.start(0, SLURM_GPUS_ON_NODE="8") == 2
    assert "8 devices and 4 tasks per node. Give --ntasks-per-node=8" in (job.home / "job.out").read_text()


@pytest.mark.parametrize(("kind", "workers"), [("text", " --workers 8"), ("series", "")])
def test_a_preparation_gets_as_many_workers_as_processors_where_it_has_workers(
    job: Script, kind: str, workers: str
) -> None:
    assert job.start(0, "", "prepare.sbatch", kind, "source", SLURM_CPUS_PER_TASK="8") == 0
    told = (job.home / "srun.told").read_text()
    assert told == f"--ntasks=1 --cpus-per-task=8 unroll prepare {kind} source{workers}\n"
