"""A real Slurm of several nodes on this machine.

As root each node has a PID, host name and mount namespace of its own, so that killing it is a power loss;
elsewhere the nodes share the host.
"""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.timeouts import scaled

TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")
NODES, CPUS = 4, 2
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

CONFIGURATION = """
ClusterName=unroll
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SrunPortRange={first}-{last}
# jobs of two clusters on this machine must not meet at one port
FirstJobId={job}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# cred_expire is also how long a requeued job waits before it may start again
AuthInfo=socket={root}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
MailProg=/bin/true
ProctrackType=proctrack/{proctrack}
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=20
# the time to save in, after a requeue or a preemption: a busy machine needs more than the usual 30 s
KillWait=240
CompleteWait=0
MinJobAge=3600
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0,bf_interval=1,requeue_delay=0
DefMemPerCPU=100
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=10
PartitionName=low Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=grace Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=240
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=100 PreemptMode=OFF
"""

NODE = """#!/bin/bash
hostname "$1"
mount --make-rprivate / && mount --bind "$2/hosts" /etc/hosts
PATH=$PATH:/usr/sbin:/sbin slurmd -D -f "$2/slurm.conf" -N "$1" > /dev/null 2>&1 &
while :; do sleep 1000; done  # outlives its slurmd: a crash of the daemon is not a crash of the node
"""


def until(condition: Callable[[], Any], seconds: float) -> None:
    """Wait until `condition` is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.2)  # most conditions call a command of Slurm


class Cluster:
    """munged, slurmctld and a few slurmd, with everything they write below `root`.

    Args:
        root: a directory that every user may enter.
        prefix: what the nodes' names begin with: two clusters on one host must differ.
    """

    def __init__(self, root: Path, prefix: str) -> None:
        self.root, self.prefix = root, prefix
        self.isolated = os.geteuid() == 0 and self._quiet("unshare", "--mount", "--uts", "--pid", "--fork", "true") == 0
        self.environment = {**os.environ, "SLURM_CONF": str(root / "slurm.conf"), "PATH": PATH}
        self.daemons: dict[str, int] = {}

    def start(self) -> None:
        """Bring everything up; in half a second where nothing else runs."""
        for name in ("state", "spool"):
            (self.root / name).mkdir()
        self._configure()
        key = self.root / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        files = [f"--{name}-file={self.root}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        self._call("munged", *files, f"--socket={self.root}/munge.socket")
        self._call("slurmctld", "-f", self.environment["SLURM_CONF"], "-i")
        for node in self.nodes:
            self.start_node(node)
        self.wait_for_nodes()

    @property
    def nodes(self) -> list[str]:
        return [f"{self.prefix}{number}" for number in range(1, NODES + 1)]

    def wait_for_nodes(self, states: str = "idle") -> None:
        """Until every node is in one of these states."""
        idle = ["sinfo", "-h", "-N", "-p", "main", "-t", states, "-o", "%N"]
        until(lambda: len(self._output(*idle).split()) == NODES, 240)

    def start_node(self, node: str) -> None:
        """Switch a node on."""
        (self.root / "spool" / node).mkdir(exist_ok=True)
        if not self.isolated:
            self._call("slurmd", "-f", self.environment["SLURM_CONF"], "-N", node)
            return
        spaces = ["--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]
        command = ["setsid", "unshare", *spaces, "bash", str(self.root / "node"), node, str(self.root)]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.daemons[node] = subprocess.Popen(command, env=self.environment, **quiet).pid  # type: ignore[call-overload]

    def kill_node(self, node: str) -> None:
        """A power loss: the node's daemon and all its processes vanish at once."""
        os.kill(self.daemons[node], signal.SIGKILL)
        os.waitpid(self.daemons.pop(node), 0)

    def stop(self) -> None:
        """End every process that `start` and the jobs started."""
        if jobs := self._output("squeue", "-h", "-o", "%A").split():
            self._quiet("scancel", *jobs)
            self._quiet("scancel", "--signal=KILL", "--full", *jobs)
        for node in list(self.daemons):
            self.kill_node(node)
        names = ["slurmctld", "munge"] + ([] if self.isolated else [f"slurmd-{node}" for node in self.nodes])
        for name in names:
            file = self.root / f"{name}.pid"
            if file.exists():
                os.kill(int(file.read_text()), signal.SIGTERM)
        for node in self.nodes:
            for group in Path("/sys/fs/cgroup").glob(f"*/slurm_{node}"):
                self._quiet("find", str(group), "-depth", "-type", "d", "-exec", "rmdir", "{}", "+")

    def sbatch(self, *arguments: Any, inside: Sequence[str] = (), **environment: str) -> int:
        """Submit, in a shell that `inside` starts; the job's id."""
        printed = self._call(*inside, "sbatch", "--parsable", *map(str, arguments), **environment)
        return int(printed.split(";")[0])

    def state(self, job: int | str) -> str:
        """Return the state of a job: PENDING, RUNNING, COMPLETED, ..."""
        return self.about(job)["JobState"]

    def about(self, job: int | str) -> dict[str, str]:
        """Return the fields of a job by `scontrol show job`."""
        words = self._call("scontrol", "show", "job", "--oneliner", str(job)).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def restarts(self, job: int | str) -> int:
        """Return how often a job was requeued."""
        return int(self.about(job)["Restarts"])

    def nodes_of(self, job: int | str) -> list[str]:
        """The nodes that a job runs on, or ran on last."""
        return self._call("scontrol", "show", "hostnames", self.about(job)["NodeList"]).split()

    def last_node(self, job: int | str) -> str:
        """The last of them: not the one that runs the batch script, where there are several."""
        return self.nodes_of(job)[-1]

    def preempt(self, *options: str) -> None:
        """Preempt nodes by a short job of high priority; return after its end.

        Args:
            options: options of sbatch that select the nodes.
        """
        moment = self.sbatch("--partition=high", "--output=/dev/null", *options, "--wrap=sleep 1")
        until(lambda: self.state(moment) == "COMPLETED", 600)

    def call(self, *command: str) -> str:
        """Run a command of Slurm and return its output."""
        return self._call(*command)

    def tasks(self, job: int) -> list[int]:
        """The process ids of a job's training processes, in no order."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes().split(b"\0")
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if f"SLURM_JOB_ID={job}".encode() in environment and b"SLURM_STEP_NUM_TASKS" in b"".join(environment):
                found += [int(folder.name)] if b"\0fit\0" in command and b"python" in command else []
        return found

    def _configure(self) -> None:
        host = socket.gethostname().split(".")[0]
        port = _free_ports(2 * NODES)
        hosted = "\n".join(
            f"NodeName={node} NodeHostname={node if self.isolated else host} NodeAddr=127.0.0.1 Port={port + number} "
            f"CPUs={CPUS} Boards=1 SocketsPerBoard=1 CoresPerSocket={CPUS} ThreadsPerCore=1 RealMemory=16000"
            for number, node in enumerate(self.nodes, 1)
        )
        cgroups = self.isolated and os.access("/sys/fs/cgroup/freezer/cgroup.procs", os.W_OK)
        text = CONFIGURATION.format(
            host=host,
            port=port,
            job=random.randrange(1, 1_000_000),
            first=port + 100,
            last=port + 999,
            user=self._output("id", "-un").strip(),
            root=self.root,
            proctrack="cgroup" if cgroups else "linuxproc",
            nodes=hosted,
        )
        (self.root / "slurm.conf").write_text(text)
        if cgroups:
            (self.root / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n")
        (self.root / "hosts").write_text("".join(f"127.0.0.1 {name}\n" for name in ["localhost", host, *self.nodes]))
        (self.root / "node").write_text(NODE)

    def _call(self, *command: str, **environment: str) -> str:
        ran = subprocess.run(
            command,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=scaled(30),
            cwd=self.root,
        )
        assert ran.returncode == 0, f"{' '.join(command)}: {ran.stderr}"
        return ran.stdout

    def _output(self, *command: str) -> str:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=scaled(30)).stdout

    def _quiet(self, *command: str) -> int:
        return subprocess.run(
            command, capture_output=True, timeout=scaled(30), env=getattr(self, "environment", None)
        ).returncode


def _free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens at."""
    while True:
        first = random.randrange(20000, 30000)
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
