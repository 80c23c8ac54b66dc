"""A task that srun started learns its place from Slurm's variables and says it in torchrun's words."""

import os
import re
from collections.abc import Mapping, MutableMapping

from pipeline.errors import ConfigError

FIRST_PORT, PORTS = 10240, 20000  # below the ports that systems hand out by themselves


def set_rank_variables(environment: MutableMapping[str, str] = os.environ) -> None:
    """Where srun started several tasks, set RANK, LOCAL_RANK, NODE_RANK, both world sizes and where they meet.

    A batch script's own shell has no SLURM_STEP_NUM_TASKS: what it starts without srun is one process. A task
    that torchrun started below srun has its RANK already.

    Raises:
        ConfigError: the nodes run unequal numbers of tasks.
    """
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks == 1 or "RANK" in environment:
        return
    nodes = int(environment["SLURM_STEP_NUM_NODES"])
    if not re.fullmatch(r"\d+(\(x\d+\))?", environment["SLURM_STEP_TASKS_PER_NODE"]):
        raise ConfigError(
            f"{tasks} tasks on {nodes} nodes are {environment['SLURM_STEP_TASKS_PER_NODE']} a node: every node must "
            "run as many as the others; give --ntasks-per-node"
        )
    environment["RANK"] = environment["SLURM_PROCID"]
    environment["LOCAL_RANK"] = environment["SLURM_LOCALID"]
    environment["NODE_RANK"] = environment["SLURM_NODEID"]
    environment["WORLD_SIZE"] = str(tasks)
    environment["LOCAL_WORLD_SIZE"] = str(tasks // nodes)
    environment.setdefault("MASTER_ADDR", first_host(environment["SLURM_STEP_NODELIST"]))
    environment.setdefault("MASTER_PORT", str(meeting_port(environment)))


def first_host(hosts: str) -> str:
    """The first of Slurm's list of hosts: `rack[1-2]node[03-04,7],x` begins with rack1node03."""
    first = re.split(r",(?![^[]*\])", hosts)[0]
    return re.sub(r"\[(\w+)[^]]*\]", r"\1", first)


def meeting_port(environment: Mapping[str, str]) -> int:
    """A port that no other job, step or restart on this cluster derives within thousands of jobs."""
    job, step = int(environment["SLURM_JOB_ID"]), int(environment["SLURM_STEP_ID"])
    restart = int(environment.get("SLURM_RESTART_COUNT", "0"))
    return FIRST_PORT + (job * 7 + step + restart) % PORTS
