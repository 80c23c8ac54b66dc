"""What signals and an environment do to a job's script, with a substitute for training that starts at once."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(1500)]
if TYPE_CHECKING:
    from tests.slurm.conftest import Training

Runs = Callable[[str], "Training"]

# MODE `train` trains until a signal and then saves one more step; `import` has no handlers yet; `end` only ends.
SUBSTITUTE = """#!/bin/bash
name=${!#} checkpoints=runs/${!#}/checkpoints
env > "$name.env-$SLURM_PROCID"
[ "$MODE" != end ] || exit 0
[ "$MODE" != import ] || { touch "$name.started-$SLURM_RESTART_COUNT"; exec sleep 600; }
trap stopped=yes USR1 TERM
mkdir -p "$checkpoints"
step=$(ls "$checkpoints" | tail -n 1)
step=$((10#0${step#step-}))
[ "$step" = 0 ] && echo "run $name: starting at step 0" || echo "run $name: continuing at step $step"
while [ -z "$stopped" ]; do sleep 0.1; done
mkdir "$checkpoints/step-$(printf %08d $((step + 1)))"
exit 75
"""
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "nowhere"}
STALE = {**TORCHRUN, "MASTER_PORT": "1", "CUDA_VISIBLE_DEVICES": "3", "TORCHELASTIC_RUN_ID": "x"}


@pytest.fixture
def substitute(folder: Path) -> str:
    """The command of the substitute."""
    file = folder / "substitute"
    file.write_text(SUBSTITUTE)
    file.chmod(0o755)
    return str(file)


def test_signals_to_the_shell_alone_and_the_time_limit_stop_and_requeue_a_run(training: Runs, substitute: str) -> None:
    run = training("signalled").submit(nodes="1", options=["--signal=B:CONT@1"], UNROLL=substitute, MODE="train")
    for start, command in enumerate(
        (
            ["scancel", "--batch", "--signal=USR1", f"{run.job}"],
            ["scancel", "--batch", "--signal=TERM", f"{run.job}"],
            ["scontrol", "update", f"JobId={run.job}", "EndTime=now"],
            ["scancel", f"{run.job}"],
        )
    ):
        run.until(lambda begun=f"at step {start}\n": begun in run.output())
        run.cluster.call(*command)
    assert run.wait() == "CANCELLED"
    assert run.starts() == ["1 75 0 1", "2 75 1 2", "3 75 2 3", "4 75 3 4"]
    assert run.output().count("stopped and saved: requeued") == 3
    assert run.output().count("DUE TO TIME LIMIT") > 0
    assert run.cluster.restarts(run.job) == 3


def test_signals_before_there_are_handlers_lose_no_requeue_and_end_the_job_at_the_third(
    training: Runs, substitute: str
) -> None:
    run = training("imports").submit(nodes="2", UNROLL=substitute, MODE="import")
    for start, command in enumerate(
        (
            ["scancel", "--signal=USR1", f"{run.job}"],
            ["scancel", "--batch", "--signal=TERM", f"{run.job}"],
            ["scontrol", "requeue", f"{run.job}"],
        )
    ):
        run.until((run.folder / f"imports.started-{start}").exists)
        run.cluster.call(*command)
    assert run.wait() == "FAILED"
    assert run.starts() == ["1 138 - -", "2 138 - -", "3 143 - -"]
    assert run.output().count("stopped by a signal before it could save: requeued\n") == 2
    assert run.output().splitlines()[-1] == "train.sbatch: the last 3 starts saved no new step: not started"


@pytest.mark.parametrize("inside", [True, False])
def test_a_job_gets_nothing_of_the_job_or_launcher_around_its_submission(
    inside: bool, training: Runs, substitute: str
) -> None:
    outer = ["salloc", "--quiet", "--nodes=1", "--ntasks=2", "--mem=500", "--cpus-per-task=1"] if inside else []
    run = training(f"outer-{inside}").submit(
        nodes="2", tasks=2, options=["--mem-per-cpu=200"], inside=outer, UNROLL=substitute, MODE="end", **STALE
    )
    assert run.wait() == "COMPLETED", run.output()
    files = sorted(run.folder.glob(f"{run.name}.env-*"))
    assert [file.name[-1] for file in files] == ["0", "1", "2", "3"]
    for file in files:
        got = dict(line.partition("=")[::2] for line in file.read_text().splitlines())
        assert got.keys().isdisjoint(STALE)
        assert {key: got[key] for key in ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_CPUS_PER_TASK")} == {
            "SLURM_JOB_ID": str(run.job),
            "SLURM_NTASKS": "4",
            "SLURM_CPUS_PER_TASK": "1",
        }
        assert "SLURM_MEM_PER_NODE" not in got
