"""Jobs on a Slurm of this machine, which lose nodes, are preempted, requeued and signalled until they finish."""

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random

from tests.chaos.home import ROOT, Home
from tests.chaos.injuries import MOMENTS
from tests.chaos.lane import STEPS, keep, summary
from tests.chaos.processes import send
from tests.chaos.trial import PATIENCE
from tests.chaos.verdict import Hurt, Result, verify
from tests.slurm.cluster import PATH, TOOLS, Cluster
from tests.timeouts import scaled

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")


class Jobs:
    """Runs on two nodes of a cluster, as jobs of low priority.

    Args:
        cluster: the running cluster.
        home: dataset, config and tracking server of the runs.
    """

    def __init__(self, cluster: Cluster, home: Home) -> None:
        self.cluster, self.home = cluster, home
        self.kinds: dict[str, tuple[Callable[[int, Random], None], int]] = {
            "requeue by an operator": (lambda job, _: self.call("scontrol", "requeue", str(job)), 4),
            "preemption": (lambda *_: cluster.preempt("--nodes=4", "--exclusive"), 4),
            "signal before the time limit": (lambda job, _: self.call("scancel", "--signal=USR1", str(job)), 3),
            "SIGKILL to a rank": (self.kill_task, 4),
            **({"loss of a node": (self.lose_node, 1)} if cluster.isolated else {}),
        }

    def call(self, *command: str) -> None:
        """Run a command of Slurm."""
        self.cluster.call(*command)

    def submit(self, name: str) -> int:
        """Submit the job of a run and return its id."""
        # names of nodes do not resolve unless they are isolated
        addressed = "" if self.cluster.isolated else "MASTER_ADDR=127.0.0.1"
        environment = {
            **{key: value for key, value in self.home.environment.items() if key != "PATH"},
            "UNROLL": f"env {addressed} {sys.executable} -m pipeline",
            "UNROLL_BACKOFF": "1",
            "UNROLL_FAILURES": "1000",
        }
        place = [f"--chdir={self.home.path}", f"--output={self.home.path / name}.log", "--partition=low"]
        script = [ROOT / "slurm" / "train.sbatch", "small.yaml", "--run", name]
        self.home.moments.write_text("start 0")
        return self.cluster.sbatch(*place, "--nodes=2", "--ntasks-per-node=1", *script, **environment)

    def wait_for_restart(self, job: int, before: int) -> bool:
        """Wait until a job was requeued once more or has ended; return False after a timeout."""
        until = time.monotonic() + scaled(3 * PATIENCE)
        while self.cluster.restarts(job) == before and self.cluster.state(job) not in ENDED:
            if time.monotonic() > until:
                return False
            time.sleep(0.3)
        return True

    def kill_task(self, job: int, chance: Random) -> None:
        """Kill one training process."""
        if tasks := self.cluster.tasks(job):
            send(chance.choice(tasks), signal.SIGKILL)
        else:
            self.call("scontrol", "requeue", str(job))

    def lose_node(self, job: int, chance: Random) -> None:
        """Cut the power of a node, and switch it on again after the job has left it."""
        lost, before = chance.choice(self.cluster.nodes_of(job)), self.cluster.restarts(job)
        self.cluster.kill_node(lost)
        self.wait_for_restart(job, before)
        self.cluster.start_node(lost)


class JobTrial:
    """One job, hurt `kills` times at most.

    Args:
        jobs: the cluster and the runs' surroundings.
        seed: decides everything that is random.
        number: the number of the run.
        kills: after which it is left alone.
    """

    def __init__(self, jobs: Jobs, seed: str, number: int, kills: int) -> None:
        self.jobs, self.kills, self.name = jobs, kills, f"run-{number}"
        self.chance, self.result = Random(f"{seed} {number}"), Result(number)

    def run(self) -> Result:
        """Submit the job, hurt it until it has ended, then verify the run."""
        began, cluster = time.monotonic(), self.jobs.cluster
        job = self.jobs.submit(self.name)
        while len(self.result.hurts) < self.kills and self.wait_for_moment(job):
            self.hurt(job)
        if not self.until_ended(job):
            self.result.hangs.append(f"{cluster.state(job)} at {self.jobs.home.moment(self.name)}")
            self.jobs.call("scancel", str(job))
        elif cluster.state(job) != "COMPLETED":
            self.result.failures.append(f"job {cluster.state(job)}, exit code {cluster.about(job)['ExitCode']}")
        else:
            verify(self.jobs.home, self.name, self.result)
        self.result.attempts = cluster.restarts(job) + 1
        self.result.seconds = round(time.monotonic() - began, 1)
        return self.result

    def wait_for_moment(self, job: int) -> bool:
        """Wait for a random moment of the running job; return False if it has ended."""
        moment = self.chance.choices(list(MOMENTS), list(MOMENTS.values()))[0]
        until, checked = time.monotonic() + scaled(3 * PATIENCE), 0.0
        while self.jobs.home.moment(self.name)[0] not in (moment, "end") or not checked:
            if time.monotonic() - checked > 1:
                checked = time.monotonic()
                if self.jobs.cluster.state(job) in ENDED or checked > until:
                    return False
            time.sleep(0.01)
        longest = self.jobs.home.started if moment == "start" else 0.5
        time.sleep(self.chance.uniform(0, longest))
        return self.jobs.cluster.state(job) == "RUNNING"

    def hurt(self, job: int) -> None:
        """Let something happen to the job, and wait until it was requeued."""
        kinds, before = self.jobs.kinds, self.jobs.cluster.restarts(job)
        kind = self.chance.choices(list(kinds), [weight for _, weight in kinds.values()])[0]
        where, step = self.jobs.home.moment(self.name)
        print(f"  {self.name}, job {job}, start {before + 1}, step {step:3}, {where}: {kind}", flush=True)
        kinds[kind][0](job, self.chance)
        self.result.hurts.append(Hurt(kind, where, step, before + 1))
        if not self.jobs.wait_for_restart(job, before):
            self.result.hangs.append(f"not requeued after {kind} at {where}")
        self.jobs.home.moments.write_text("start 0")

    def until_ended(self, job: int) -> bool:
        """Wait until the job has ended; return False after a timeout."""
        until = time.monotonic() + scaled(5 * PATIENCE)
        while self.jobs.cluster.state(job) not in ENDED:
            if time.monotonic() > until:
                return False
            time.sleep(0.3)
        return True


def hurt_jobs(seed: int, kills: int, until: float, results: Path) -> None:
    """Hurt jobs and append their results to a file; see `lane.inflict`."""
    if missing := [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]:
        print(f"Slurm: skipped, {missing[0]} is not installed", flush=True)
        return
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    left, number = kills - sum(len(each["hurts"]) for each in done), len(done)
    if left <= 0:
        return
    path = Path(tempfile.mkdtemp(prefix="unroll-chaos-"))
    path.chmod(0o755)  # munge requires a directory that all users may enter
    (path / "cluster").mkdir()
    (path / "work").mkdir()
    cluster = Cluster(path / "cluster", f"chaos{os.getpid()}x")
    try:
        cluster.start()
        jobs = Jobs(cluster, home := Home(path / "work", [], 2, STEPS // 2, small_disk=False))
        job = jobs.submit("straight")
        home.watch(
            "straight", lambda: None if (state := cluster.state(job)) not in ENDED else int(state != "COMPLETED")
        )
        print(f"Slurm: undisturbed run done, {home.started:.1f} s to the first step", flush=True)
        while left > 0 and time.time() < until:
            number += 1
            result = JobTrial(jobs, f"{seed} Slurm", number, left).run()
            left -= len(result.hurts)
            with results.open("a") as file:
                file.write(json.dumps(asdict(result)) + "\n")
            print(f"Slurm, run {number}: {summary(asdict(result))}; {left} left", flush=True)
            if not result.faultless:
                keep(home.path, number, results)
    finally:
        cluster.stop()
        shutil.rmtree(path, ignore_errors=True)
