"""A sweep chooses a run's values once, for every process and every attempt, and the run's directory stores them."""

import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.distributed import rendezvous
from pipeline.errors import ConfigError
from pipeline.runs.run import Run
from pipeline.tracking import sweep

ARGUMENTS = ["--config", "a.yaml", "--run", "swept", "--sweep", "me/p/abc"]


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_values_become_overrides_and_the_run_keeps_them_for_its_next_attempt(server):
    server.offered = [{"model.init_args.width": 32, "model": {"init_args": {"dropout": 1e-05}}, "name": "x"}] * 2
    given = sweep.arguments_of_sweep(ARGUMENTS)
    assert given[:4] == ARGUMENTS[:4]
    assert given[4:] == ["--model.init_args.width=32", "--model.init_args.dropout=1e-05", "--name=x"]
    assert sweep.arguments_of_sweep(["--sweep=me/p/abc", *ARGUMENTS[:4]]) == given
    assert len(server.offered) == 1  # requested once
    run = Run(sweep.directory_of("swept"))
    run.create()
    assert run.record["wandb_id"] == "swept1"  # the id that the sweep assigned
    assert run.sweep["id"] == "abc"


def test_without_a_sweep_nothing_is_requested():
    assert sweep.arguments_of_sweep(["--config", "a.yaml"]) == ["--config", "a.yaml"]


def test_an_exhausted_sweep_creates_no_run(server, tmp_path):
    assert sweep.arguments_of_sweep(ARGUMENTS) is None
    assert not (tmp_path / "runs" / "swept").exists()


def test_invalid_uses_are_reported_in_one_line(server, monkeypatch):
    with pytest.raises(ConfigError, match="requires --run"):
        sweep.arguments_of_sweep(["--sweep", "me/p/abc"])
    with pytest.raises(ConfigError, match="chooses once"):
        sweep.arguments_of_sweep([*ARGUMENTS, "--resume", "never"])
    with pytest.raises(ConfigError, match="expected ENTITY/PROJECT/ID"):
        sweep.arguments_of_sweep(["--sweep", "a/b/c/d", "--run", "swept"])
    server.refuse = {"": 401}
    with pytest.raises(ConfigError, match="failed: HTTPError"):
        sweep.arguments_of_sweep(ARGUMENTS)
    server.refuse = {}
    server.offered = [{"a": 1}]
    sweep.arguments_of_sweep(ARGUMENTS)
    with pytest.raises(ConfigError, match="belongs to sweep me/p/abc"):
        sweep.arguments_of_sweep([*ARGUMENTS[:4], "--sweep", "me/p/other"])
    Run(sweep.directory_of("plain")).create()
    with pytest.raises(ConfigError, match="started without a sweep"):
        sweep.arguments_of_sweep(["--run", "plain", "--sweep", "me/p/abc"])
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(ConfigError, match="requires a Weights & Biases API key"):
        sweep.arguments_of_sweep(["--run", "new", "--sweep", "me/p/abc"])


def test_all_processes_receive_the_values_of_the_first(server, tmp_path, monkeypatch):
    server.offered = [{"model.init_args.width": width} for width in (8, 16, 32)]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

    def work(rank):
        os.environ |= {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        received = {"sweep": sweep.arguments_of_sweep(ARGUMENTS)}
        received |= rendezvous.broadcast_result(lambda: {"start": "as before"}, 2)
        (tmp_path / f"{rank}.new").write_text(json.dumps(received))
        (tmp_path / f"{rank}.new").rename(tmp_path / f"{rank}.json")
        while not (tmp_path / f"{1 - rank}.json").exists():
            time.sleep(0.05)  # the store ends with the first process

    children = []
    for rank in (0, 1):
        children.append(os.fork())
        if children[-1] == 0:
            try:
                work(rank)
                os._exit(0)
            finally:
                os._exit(1)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second == {"sweep": [*ARGUMENTS[:4], "--model.init_args.width=8"], "start": "as before"}


def test_the_batch_script_takes_values_from_a_line_of_a_file_or_from_a_sweep(tmp_path):
    script = Path(__file__).parents[3] / "slurm" / "sweep.sbatch"
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "train.sbatch").write_text('echo "$@"\n')
    (tmp_path / "widths.txt").write_text("--model.init_args.width 32\n--model.init_args.width 64\n")

    def run_script(source, element):
        environment = {**os.environ, "SLURM_ARRAY_TASK_ID": str(element)}
        command = ["bash", str(script), "a.yaml", source, "--trainer.max_steps", "9"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    width = "--trainer.max_steps 9 --model.init_args.width 64"
    assert run_script("widths.txt", 2).stdout == f"a.yaml --run widths-2 --tracking.group widths {width}\n"
    chosen = "--trainer.max_steps 9 --sweep me/p/abc"
    assert run_script("me/p/abc", 7).stdout == f"a.yaml --run abc-7 --tracking.group abc {chosen}\n"
    for source in ("widths.txt", "lost/widths.txt"):
        assert run_script(source, 3).returncode == 2
        assert f"{source} has no line 3" in run_script(source, 3).stdout
