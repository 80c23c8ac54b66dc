"""Translate the variables that srun sets for a task into those that torchrun sets for a process."""

import os
import re
from collections.abc import Mapping, MutableMapping

from pipeline.errors import ConfigError

FIRST_PORT, PORTS = 10240, 20000  # below the ephemeral ports of the operating system


def set_rank_variables(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set RANK, LOCAL_RANK, NODE_RANK, both world sizes and the master's address where srun started several tasks.

    A batch script's own shell has no SLURM_STEP_NUM_TASKS, so what it starts without srun is one process. Where
    torchrun was started by srun, RANK is set already and nothing is changed.

    Raises:
        ConfigError: the nodes run unequal numbers of tasks.
    """
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks == 1 or "RANK" in environment:
        return
    nodes = int(environment["SLURM_STEP_NUM_NODES"])
    if not re.fullmatch(r"\d+(\(x\d+\))?", environment["SLURM_STEP_TASKS_PER_NODE"]):
        raise ConfigError(
            f"SLURM_STEP_TASKS_PER_NODE={environment['SLURM_STEP_TASKS_PER_NODE']}: expected the same number of tasks "
            f"on each node, got {tasks} tasks on {nodes} nodes. Set --ntasks-per-node."
        )
    environment["RANK"] = environment["SLURM_PROCID"]
    environment["LOCAL_RANK"] = environment["SLURM_LOCALID"]
    environment["NODE_RANK"] = environment["SLURM_NODEID"]
    environment["WORLD_SIZE"] = str(tasks)
    environment["LOCAL_WORLD_SIZE"] = str(tasks // nodes)
    environment.setdefault("MASTER_ADDR", first_host(environment["SLURM_STEP_NODELIST"]))
    environment.setdefault("MASTER_PORT", str(meeting_port(environment)))


def first_host(hosts: str) -> str:
    """Return the first host of a Slurm host list: rack1node03 for `rack[1-2]node[03-04,7],x`."""
    first = re.split(r",(?![^[]*\])", hosts)[0]
    return re.sub(r"\[(\w+)[^]]*\]", r"\1", first)


def meeting_port(environment: Mapping[str, str]) -> int:
    """Return a port that differs between jobs, steps and restarts, and repeats only after thousands of jobs."""
    job, step = int(environment["SLURM_JOB_ID"]), int(environment["SLURM_STEP_ID"])
    restart = int(environment.get("SLURM_RESTART_COUNT", "0"))
    return FIRST_PORT + (job * 7 + step + restart) % PORTS
