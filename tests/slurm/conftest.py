"""Runs submitted to a real Slurm on this machine."""

import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import commands
from tests.slurm.cluster import PATH, TOOLS, Cluster, until
from tests.timeouts import scaled

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running Slurm, one per test worker."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    if missing:
        pytest.skip(
            f"requires Slurm, but {missing[0]} is not installed: apt-get install slurmctld slurmd slurm-client munge"
        )
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    root = Path(tempfile.mkdtemp(prefix="unroll-slurm-"))
    root.chmod(0o755)  # munge requires a directory that all users may enter
    made = Cluster(root, f"node{worker}x")
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(root, ignore_errors=True)


ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")


class Training:
    """A run on the cluster: LSTM of 14 steps, checkpoints every second, in one directory with those of its session."""

    def __init__(self, cluster: Cluster, folder: Path, name: str) -> None:
        self.cluster, self.folder, self.name = cluster, folder, name
        self.path = folder / "runs" / name
        self.job: int | str = 0

    def environment(self, hold: str = "", wandb: str = "disabled") -> dict[str, str]:
        """The variables of its job; it is held before the steps `hold`."""
        # names of nodes do not resolve unless they are isolated
        addressed = "" if self.cluster.isolated else "MASTER_ADDR=127.0.0.1"
        return {
            # as in a container, there are none of Slurm's commands where the run is
            "UNROLL": f"env PATH=/nowhere {addressed} {sys.executable} -m pipeline",
            "UNROLL_BACKOFF": "1",
            "PYTHONPATH": f"{REPOSITORY}:{Path(__file__).parent / 'held'}",
            "OMP_NUM_THREADS": "1",
            "WANDB_MODE": wandb,
            "HOLD": hold,
            "GO": str(self.folder / "runs" / f"{self.name}.go"),
        }

    def submit(
        self,
        *overrides: str,
        hold: str = "",
        nodes: str = "2",
        tasks: int = 1,
        options: Sequence[str] = (),
        inside: Sequence[str] = (),
        **environment: str,
    ) -> "Training":
        """Submit the run, by default to two nodes with one task each.

        Args:
            overrides: of the config.
            hold: the steps before which every process waits for `go`, or a signal.
            nodes: as sbatch takes them.
            tasks: on each node; every one imports everything, which is most of what a test costs.
            options: of sbatch.
            inside: command that runs sbatch, such as salloc.
            environment: further variables.
        """
        self.job = self.cluster.sbatch(
            *(
                f"--chdir={self.folder}",
                f"--output={self.log}",
                f"--nodes={nodes}",
                f"--ntasks-per-node={tasks}",
                *options,
            ),
            *(REPOSITORY / "slurm" / "train.sbatch", self.folder / "lstm.yaml", "--run", self.name, *overrides),
            inside=inside,
            **self.environment(hold) | ({"UNROLL_NODES": nodes} if "-" in nodes else {}) | environment,
        )
        return self

    def go(self, start: int = 1) -> None:
        """Let the processes of that start pass the step they are held at."""
        Path(f"{self.environment()['GO']}-{start}").touch()

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.out"

    @property
    def record(self) -> dict[str, Any]:
        """run.json, or nothing yet."""
        file = self.path / "run.json"
        return json.loads(file.read_text()) if file.exists() else {"attempts": []}

    def wait_until_held(self, processes: int = 2, start: int = 1) -> None:
        """Wait until all processes of that start wait at the step."""
        self.until(lambda: len(list(self.path.glob(f"held-{start}-*"))) == processes)

    def wait(self) -> str:
        """Wait until the job ends; return its final state."""
        self.until(self.over)
        return self.cluster.state(self.job)

    def over(self) -> bool:
        """Whether the job has ended."""
        return self.cluster.state(self.job) in ENDED

    def until(self, condition: Callable[[], Any]) -> None:
        """Wait until `condition` is true; after a timeout or the end of the job, raise with the output of both."""
        looks = itertools.count(1)
        try:
            until(lambda: condition() or (next(looks) % 20 == 0 and self.over()), scaled(300))
            assert condition(), "the job has ended"
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.cluster.about(self.job)} {self.output()}") from None

    def output(self) -> str:
        """Return the output of the job so far."""
        return self.log.read_text() if self.log.exists() else "nothing"

    def starts(self) -> list[str]:
        """The record of the starts: number, exit code, first step, newest saved step, failed node."""
        return [line.strip() for line in Path(f"{self.log}.starts").read_text().splitlines()]

    def ended(self) -> list[tuple[int, int | None]]:
        """Start step and exit code of every attempt."""
        return [(attempt["start_step"], attempt["exit_code"]) for attempt in self.record["attempts"]]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that the nodes share, with a small dataset and the config of the runs."""
    import data_prep.text.command

    made = tmp_path_factory.mktemp("shared")
    (made / "runs").mkdir()
    lines = [f"{i} bottles of milk on wall {i % 7}, take {i % 3} down and pass them round" for i in range(60)]
    for name, part in (("train", lines[:48]), ("validation", lines[48:])):
        (made / f"{name}.txt").write_text("\n".join(part))
    arguments = ["--train", str(made / "train.txt"), "--validation", str(made / "validation.txt")]
    options = ["--documents", "line", "--tokenizer", "character", "--workers", "1"]
    assert data_prep.text.command.main([*arguments, "--output", str(made / "data"), *options]) == 0
    (made / "lstm.yaml").write_text(CONFIG.format(dataset=made / "data"))
    return made


CONFIG = """
model:
  class_path: pipeline.models.lstm.LSTMLanguageModel
  init_args: {{width: 16, dropout: 0.2, optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 0.01}}}}}}
data:
  class_path: pipeline.data.text.TextDataModule
  init_args: {{dataset: {dataset}, order: contiguous, context: 16, global_batch_size: 16}}
trainer: {{accelerator: cpu, max_steps: 14, log_every_n_steps: 2, val_check_interval: 5, check_val_every_n_epoch: null,
  callbacks: [{{class_path: held.Held}}, {{class_path: pipeline.callbacks.step_trace.Witness}}]}}
checkpoints: {{every_steps: 2, background: false}}
"""


@pytest.fixture
def training(cluster: Cluster, folder: Path) -> Callable[[str], Training]:
    """`training(NAME)` is run NAME, not submitted yet."""
    return lambda name: Training(cluster, folder, name)


@pytest.fixture(scope="session")
def straight(cluster: Cluster, folder: Path) -> Training:
    """The run that nothing happened to: two processes outside of Slurm."""
    run = Training(cluster, folder, "straight")
    command = [sys.executable, "-m", "pipeline", "fit", "--config", "lstm.yaml", "--run", "straight"]
    environment = {**os.environ, **run.environment()}
    done = commands.run([*command, "--trainer.devices", "2"], 120, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return run
