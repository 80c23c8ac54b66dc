"""Tasks derive ranks and the master's address from the variables that srun sets."""

import pytest

from pipeline.distributed.slurm_environment import first_host, set_rank_variables
from pipeline.errors import ConfigError

STEP = {
    "SLURM_JOB_ID": "41",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_STEP_NODELIST": "node[1-2]",
}


def adopted(**changes: str) -> dict[str, str]:
    """Return the variables that `set_rank_variables` adds to those of a step."""
    environment = STEP | changes
    set_rank_variables(environment)
    return {key: value for key, value in environment.items() if not key.startswith("SLURM_")}


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("node1", "node1"),
        ("node[1-2]", "node1"),
        ("node[3,7-9],other", "node3"),
        ("gpu-a,gpu-b", "gpu-a"),
        ("rack[1-2]node[03-04,7],x[1-9]", "rack1node03"),
        ("n[007]", "n007"),
        ("a1.cluster.org,a2.cluster.org", "a1.cluster.org"),
    ],
)
def test_the_first_host_of_a_list(hosts: str, first: str) -> None:
    assert first_host(hosts) == first


def test_a_task_has_its_ranks_and_the_masters_address() -> None:
    found = adopted()
    port = int(found.pop("MASTER_PORT"))
    assert found == {
        "RANK": "3",
        "LOCAL_RANK": "1",
        "NODE_RANK": "1",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "node1",
    }
    assert 1024 < port < 32768  # below the ephemeral ports of the operating system


def test_jobs_steps_and_restarts_have_different_ports() -> None:
    jobs = [adopted(SLURM_JOB_ID=str(job))["MASTER_PORT"] for job in range(1, 2001)]
    assert len(set(jobs)) == len(jobs)
    one, again, next_step = adopted(), adopted(SLURM_RESTART_COUNT="1"), adopted(SLURM_STEP_ID="2")
    assert len({one["MASTER_PORT"], again["MASTER_PORT"], next_step["MASTER_PORT"]}) == 3


def test_a_given_master_address_is_kept() -> None:
    assert adopted(MASTER_ADDR="10.0.0.1")["MASTER_ADDR"] == "10.0.0.1"


def test_a_single_task_and_a_batch_script_are_not_changed() -> None:
    assert adopted(SLURM_STEP_NUM_TASKS="1") == {}
    shell = {"SLURM_JOB_ID": "41", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}
    set_rank_variables(shell)
    assert "RANK" not in shell


def test_a_process_of_torchrun_under_srun_keeps_its_rank() -> None:
    assert adopted(RANK="9") == {"RANK": "9"}


def test_unequal_numbers_of_tasks_per_node_are_rejected() -> None:
    with pytest.raises(ConfigError, match="ntasks-per-node"):
        adopted(SLURM_STEP_NUM_TASKS="5", SLURM_STEP_TASKS_PER_NODE="3,2")
