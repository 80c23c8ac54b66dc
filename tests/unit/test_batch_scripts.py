"""The exit code of training decides whether, when and where a batch script requeues its job."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "slurm"
COMMANDS = {
    "srun": 'cat output 2> /dev/null; echo "$@" >> srun.log; env > environment; exit "$(cat code)"',
    "unroll": '[ "$*" != "prepare text --help" ] || echo "--workers N"',
    "scontrol": '[ "$1" = show ] && cat about || echo "$@" >> log',
}
FIELDS = {
    "JobId": "7",
    "JobState": "RUNNING",
    "Reason": "None",
    "Restarts": "0",
    "ExcNodeList": "(null)",
    "NumNodes": "2",
    "CPUs/Task": "1",
    "TRES": "cpu=8,node=2",
    "Features": "(null)",
}
JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS_PER_NODE": "4", "SLURM_JOB_NODELIST": "n[1-2]"}
KILLED = "srun: error: n2: task 5: Killed"


class Script:
    """Starts of one job: in `start(code, output)`, training prints `output` and exits with `code`."""

    def __init__(self, home: Path) -> None:
        self.home, self.starts = home, 0
        self.fields = dict(FIELDS)

    def start(self, code: int, output: str = "", script: str = "train.sbatch", *more: str, **environment: str) -> int:
        (self.home / "code").write_text(str(code))
        (self.home / "output").write_text(f"{output}\n")
        self.fields["Restarts"] = str(self.starts)
        (self.home / "about").write_text(" ".join(f"{key}={value}" for key, value in self.fields.items()) + "\n")
        self.starts += 1
        with (self.home / "job.out").open("a") as log:
            return subprocess.run(
                ["bash", str(SCRIPTS / script), *(more or ["lstm.yaml"])],
                cwd=self.home,
                stdout=log,
                stderr=log,
                env={"PATH": f"{self.home / 'bin'}:{os.environ['PATH']}", **JOB, **environment},
            ).returncode

    def train(self, code: int, first: int, *saved: int, output: str = "") -> int:
        """Start a training at step `first` that saves steps."""
        for step in saved:
            (self.home / f"runs/one/checkpoints/step-{step:08}").mkdir(parents=True)
        begun = f"continuing at step {first} from step-{first:08}" if first else "starting at step 0"
        return self.start(code, f"run one: {begun}\n{output}")

    def scontrol_calls(self) -> list[str]:
        """Return the arguments of the scontrol calls since the last check."""
        file = self.home / "log"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines

    def last_line(self) -> str:
        """Return the last line of the job's log."""
        return (self.home / "job.out").read_text().splitlines()[-1]

    def record(self) -> list[str]:
        """Return the record of the starts: number, exit code, first step, newest saved step, failed node."""
        return [line.rstrip() for line in (self.home / "job.out.starts").read_text().splitlines()]


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


def test_failures_without_a_saved_step_wait_longer_each_time_and_end_at_the_third(job: Script) -> None:
    assert job.start(137, KILLED) == 137
    assert job.scontrol_calls() == ["requeue 7", "update JobId=7 StartTime=now+60"]
    line = "exit code 137 on n2, 1 of 3 starts in a row without a new step: requeued in 60 s"
    assert job.last_line() == f"train.sbatch: {line}"
    assert job.start(7, "srun: error: n1: tasks 0-3: Exited with exit code 7") == 7
    assert job.scontrol_calls() == ["requeue 7", "update JobId=7 StartTime=now+120"]
    assert job.start(8) == 8
    assert job.scontrol_calls() == []
    assert job.last_line() == "train.sbatch: exit code 8; the last 3 starts saved no new step: not requeued"


def test_a_saved_step_ends_the_row_of_failures(job: Script) -> None:
    job.train(137, 0)
    job.train(137, 0)
    assert job.scontrol_calls()[-1] == "update JobId=7 StartTime=now+120"
    job.train(137, 0, 2, 10)
    assert job.scontrol_calls() == ["requeue 7", "update JobId=7 StartTime=now+60"]
    assert job.train(137, 10) == job.train(137, 10) == 137
    assert len(job.scontrol_calls()) == 4
    assert job.train(137, 10) == 137
    assert job.scontrol_calls() == []
    assert job.record() == [f"{n} 137 {row}" for n, row in enumerate(["0 0", "0 0", "0 10", *3 * ["10 10"]], 1)]


@pytest.mark.parametrize("code", [75, 129, 130, 138, 143])
def test_stops_without_a_saved_step_are_requeued_at_once_and_end_at_the_third(job: Script, code: int) -> None:
    for _ in (1, 2):
        assert job.train(code, 6) == code
        assert job.scontrol_calls() == ["requeue 7"]
    assert job.train(code, 6) == (1 if code == 75 else code)  # on some clusters, 75 itself requeues
    assert job.scontrol_calls() == []
    assert job.last_line().endswith("the last 3 starts saved no new step: not requeued")


@pytest.mark.parametrize(("state", "reason"), [("COMPLETING", "None"), ("PENDING", "BeginTime")])
def test_slurm_has_ended_the_start_itself(job: Script, state: str, reason: str) -> None:
    job.fields |= {"JobState": state, "Reason": reason}
    for _ in (1, 2, 3):
        assert job.train(75, 4) == 75
        assert job.scontrol_calls() == []
        assert job.last_line() == "train.sbatch: exit code 75; Slurm ended this start"
    assert job.train(75, 4) == 1  # requeued by Slurm for the third time
    assert job.last_line() == "train.sbatch: the last 3 starts saved no new step: not started"


def test_a_stop_at_the_time_limit_itself_is_requeued(job: Script) -> None:
    job.fields |= {"JobState": "COMPLETING", "Reason": "TimeLimit"}
    assert job.train(75, 4, 5) == 75
    assert job.scontrol_calls() == ["requeue 7"]


def test_starts_that_are_lost_with_their_node_are_counted(job: Script) -> None:
    job.starts = 1  # nothing of the first start is left
    job.train(137, 4, 6)
    assert job.record() == ["1 lost - -", "2 137 4 6"]
    with (job.home / "job.out").open("a") as log:
        log.write("train.sbatch: start 3 of job 7 on n1\nrun one: continuing at step 6 from step-00000006\n")
    job.starts = 3
    (job.home / "runs/one/checkpoints/step-00000008").mkdir()
    job.train(75, 8)
    assert job.record()[2:] == ["3 lost 6 8", "4 75 8 8"]


def test_a_node_in_two_failures_is_excluded_beside_those_excluded_before(job: Script) -> None:
    job.start(137, KILLED)
    job.scontrol_calls()
    job.fields["ExcNodeList"] = "old[1-2]"
    job.start(137, KILLED)
    assert job.scontrol_calls() == ["requeue 7", "update JobId=7 StartTime=now+120 ExcNodeList=old[1-2],n2"]


def test_variables_of_an_outer_job_or_launcher_are_unset(job: Script) -> None:
    launcher = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK")
    outer = ("MEM_PER_NODE", "MEM_PER_CPU", "CPUS_PER_TASK", "NTASKS", "CPU_BIND", "GPUS_ON_NODE", "ARRAY_TASK_ID")
    stale = (
        *launcher,
        "TORCHELASTIC_RUN_ID",
        "CUDA_VISIBLE_DEVICES",
        "SBATCH_MEM_BIND",
        *(f"SLURM_{n}" for n in outer),
    )
    kept = ("MINE", "WANDB_API_KEY", "LOCAL_SCRATCH", "SLURM_CONF", "SLURM_HINT")
    assert job.start(75, **dict.fromkeys((*stale, *kept), "9"), SLURM_RESTART_COUNT="5") == 75
    got = dict(line.partition("=")[::2] for line in (job.home / "environment").read_text().splitlines())
    assert got.keys().isdisjoint(stale)
    assert got.keys() >= {*kept, *JOB}
    assert got["SLURM_RESTART_COUNT"] == "0"
    assert job.scontrol_calls() == ["requeue 7"]  # not an element of the outer array
    assert "--cpus-per-task=1" in (job.home / "srun.log").read_text()


def test_of_an_array_only_the_element_is_requeued(job: Script) -> None:
    (job.home / "grid.txt").write_text("--model.init_args.width 8\n--model.init_args.width 16\n")
    job.fields |= {"ArrayJobId": "5", "ArrayTaskId": "2"}
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
    job.fields["TRES"] = "cpu=8,node=2,gres/gpu=16"
    assert job.start(0, SLURM_GPUS_ON_NODE="8") == 2
    assert "8 devices and 4 tasks per node. Give --ntasks-per-node=8" in (job.home / "job.out").read_text()


@pytest.mark.parametrize(("kind", "workers"), [("text", " --workers 8"), ("series", "")])
def test_a_preparation_gets_as_many_workers_as_processors_if_it_supports_workers(
    job: Script, kind: str, workers: str
) -> None:
    job.fields["CPUs/Task"] = "8"
    assert job.start(0, "", "prepare.sbatch", kind, "source") == 0
    command = (job.home / "srun.log").read_text().split(" unroll ")[1]
    assert command == f"prepare {kind} source{workers}\n"


def test_a_preparation_continues_until_three_starts_in_a_row_leave_its_state_as_it_was(job: Script) -> None:
    state = job.home / ".later.partial" / "work" / "state.json"
    state.parent.mkdir(parents=True)
    for number in (1, 2, 2, 2, 2):
        assert job.scontrol_calls() == ([] if job.starts == 0 else ["requeue 7"])
        (job.home / "bin" / "srun").write_text(f"#!/bin/bash\necho {number} > {state}; exit 138\n")
        assert job.start(138, "", "prepare.sbatch", "series", "source", "--output", "later") == 138
    assert job.scontrol_calls() == []
    assert job.last_line().startswith("prepare.sbatch: stopped by a signal")
