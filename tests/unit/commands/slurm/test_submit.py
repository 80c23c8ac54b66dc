"""Runs are checked, then submitted; stubs of sbatch, squeue and scancel record their arguments."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.commands.slurm import cancel, logs, queue
from pipeline.commands.slurm.batch_script import LEAD, lead
from pipeline.commands.slurm.submit import main
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.runs import identity
from pipeline.runs.journal import JournalWriter
from pipeline.runs.run import Run

pytestmark = pytest.mark.usefixtures("home")
REPOSITORY = Path(__file__).parents[4]


def submit(*arguments: str) -> int:
    """`unroll submit lstm.yaml --time 1:00:00 --profile mine.yaml ...`."""
    return main(["lstm.yaml", "--time", "1:00:00", "--profile", "mine.yaml", *arguments])


def wait_in_queue(job: str, number: str, state: str) -> None:
    """Put a job into the output of squeue."""
    Path("queue").write_text(f"{job}|{state}|Priority|59:00|node1|{number}\n")


def test_a_dry_run_prints_the_script_and_does_nothing(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert submit("--nodes", "2", "--gpus-per-node", "4", "--dry-run", "--", "--model.init_args.width", "64") == 0
    script = capsys.readouterr().out
    options = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]
    assert options == [
        "--job-name=lstm",
        "--nodes=2",
        "--ntasks-per-node=4",
        "--gpus-per-node=4",
        "--time=1:00:00",
        f"--signal=USR1@{LEAD}",
        "--requeue",
        "--open-mode=append",
        f"--chdir={home}",
        "--output=runs/lstm/slurm-%j.out",
        "--partition=gpu",
        "--exclusive",
    ]
    assert "\nmodule load cuda/12\nexport A='b c'\n" in script
    assert "\nset -- lstm.yaml --run lstm --model.init_args.width 64\n" in script
    assert script.endswith("slurm/train.sbatch\n")
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    assert not Path("runs").exists()
    assert not Path("sbatch.arguments").exists()


def test_a_start_from_weights_is_checked_and_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--dry-run", "--freeze", "network.*", "--freeze", "output.bias"]
    assert submit(*options) == 0
    assert "--freeze 'network.*' --freeze output.bias" in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="no run 'base'"):
        submit(*options, "--from", "base")
    with pytest.raises(ConfigError, match="--freeze=nothing: "):
        submit(*options, "--freeze", "nothing")
    assert submit(*options, "--from", "base", "--after", "7") == 0  # which may train it
    assert "--from base" in capsys.readouterr().out


def test_a_job_is_recorded_in_its_run_with_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert submit("--tasks-per-node", "2", "--run", "wide") == 0
    assert "job 42: wide, 1 nodes with 2 tasks each" in capsys.readouterr().out
    assert Path("sbatch.script").read_text() == Path("runs/wide/job.sbatch").read_text()
    [line] = Path("runs/wide/jobs.jsonl").read_text().splitlines()
    assert {key: json.loads(line)[key] for key in ("job", "attempt")} == {"job": "42", "attempt": 1}


def test_an_array_has_a_run_for_each_element_in_one_group(capsys: pytest.CaptureFixture[str]) -> None:
    Path("sweep.yaml").write_text("- {model.init_args.width: 32}\n- {model.init_args.width: 64}\n")
    assert submit("--run", "sweep", "--array", "sweep.yaml", "--grid", "model.init_args.dropout=0.1,0.2") == 0
    script = Path("sbatch.script").read_text()
    assert "#SBATCH --array=1-4\n" in script
    assert "#SBATCH --output=runs/sweep-%a/slurm-%A_%a.out\n" in script
    given = "--tracking.group sweep --model.init_args.width 64 --model.init_args.dropout 0.1"
    assert f"  3) set -- lstm.yaml --run sweep-3 {given} ;;\n" in script
    assert [queue.noted(Path(f"runs/sweep-{k}")) for k in (1, 2, 3, 4)] == [["42_1"], ["42_2"], ["42_3"], ["42_4"]]
    assert "sweep-1 to sweep-4" in capsys.readouterr().out


def test_the_log_of_an_element_of_a_named_array_is_beside_its_run() -> None:
    for run in (first := Path("runs/small/lstm-1"), second := Path("runs/small/rnn-1")):
        run.mkdir(parents=True)
        queue.note(run, f"42_{1 if run == first else 2}")
    log = Path("runs/small/slurm-42_2.out")
    log.write_text("log of the rnn")
    assert queue.log_of(second) == log
    with pytest.raises(CheckpointError, match="lstm-1 has no log"):
        queue.log_of(first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--", "--model.init_args.widht", "3"], "widht"),
        (["--nodes", "3", "--tasks-per-node", "2"], "global_batch_size"),
        (["--tasks-per-node", "2", "--", "--trainer.devices", "4"], "devices=4: expected 2"),
        (["--nodes", "2", "--", "--trainer.num_nodes", "4"], "num_nodes=4: expected --nodes=2"),
        (["--gpus-per-node", "2", "--", "--trainer.accelerator", "cpu"], "2 GPUs per node would be idle"),
        (["--", "--trainer.accelerator", "gpu"], "Give --gpus-per-node"),
        (["--gpus-per-node", "2", "--tasks-per-node", "4"], "one task per GPU"),
        (["--time", "2:30"], "--time=2:30: expected more than"),
        (["--", "--resume", "never"], "--resume cannot be submitted"),
        (["--grid", "width"], "KEY=VALUE"),
        (["--array", "none.yaml"], "none.yaml"),
        (["--run", "/proc/run"], "not on a shared path"),
        (["--grid", "model.init_args.width=8,x"], "width"),
    ],
)
def test_errors_are_reported_before_submission(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        submit(*arguments)
    assert not Path("sbatch.arguments").exists()
    assert not Path("runs").exists()


def test_a_dataset_must_exist_unless_a_job_creates_it() -> None:
    missing = ["--", "--data.init_args.dataset", "later"]
    with pytest.raises(DataError):
        submit(*missing)
    assert submit("--after", "17", *missing) == 0
    assert "--dependency=afterok:17\n#SBATCH --kill-on-invalid-dep=yes\n" in Path("sbatch.script").read_text()


@pytest.mark.parametrize("workers", ["--workers 8", "--workers=8"])
def test_a_training_waits_for_the_preparation_of_its_dataset(workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    later = ["--", "--data.init_args.dataset", "later"]
    prepare = f"text 'my corpus' {workers} --output later"
    assert submit("--gpus-per-node", "4", "--prepare", prepare, *later) == 0
    assert "job 42: unroll prepare text 'my corpus'" in capsys.readouterr().out
    assert "--dependency=afterok:42\n#SBATCH --kill-on-invalid-dep=yes\n" in Path("sbatch.script").read_text()
    submit("--gpus-per-node", "4", "--prepare", prepare, "--dry-run", *later)
    preparation, training = capsys.readouterr().out.split("prepare.sbatch\n")
    assert "set -- text 'my corpus' --output later\n" in preparation
    assert {"#SBATCH --cpus-per-task=8", "#SBATCH --partition=gpu"} < set(preparation.splitlines())
    assert "gpus-per-node" not in preparation
    assert "#SBATCH --gpus-per-node=4\n" in training


def test_if_the_training_is_rejected_its_preparation_is_cancelled(home: Path) -> None:
    refusing = '#!/bin/sh\nn=$(cat calls 2> /dev/null); echo "x$n" > calls; cat > /dev/null\n'
    (home / "bin" / "sbatch").write_text(
        refusing + '[ -z "$n" ] && echo 42 || { echo "no such partition" >&2; exit 1; }\n'
    )
    later = ["--", "--data.init_args.dataset", "later"]
    with pytest.raises(ConfigError, match="sbatch failed: no such partition"):
        submit("--gpus-per-node", "4", "--prepare", "text corpus --output later", *later)
    assert Path("scancel.arguments").read_text() == "42\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prepare", "text a.txt --output other"], "--prepare: expected --output .*, got other"),
        (["--prepare", "text a.txt", "--after", "17"], "--prepare and --after"),
    ],
)
def test_a_preparation_of_another_dataset_is_refused(options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        submit(*options)
    assert not Path("sbatch.arguments").exists()


def test_a_job_may_have_a_range_of_nodes() -> None:
    with pytest.raises(ConfigError, match="cannot be divided among 3 processes"):
        submit("--nodes", "1-3", "--tasks-per-node", "1")
    assert submit("--nodes", "1-2", "--tasks-per-node", "2") == 0
    script = Path("sbatch.script").read_text()
    assert "#SBATCH --nodes=1-2\n" in script
    assert "\nexport UNROLL_NODES=1-2\n" in script


def test_a_run_waits_for_another_one_that_is_in_the_queue() -> None:
    assert submit("--run", "first") == 0
    with pytest.raises(ConfigError, match="no job in the queue and has not finished"):
        submit("--run", "second", "--after", "first")
    wait_in_queue("42", "42", "RUNNING")
    assert submit("--run", "second", "--after", "first") == 0
    assert "--dependency=afterok:42\n" in Path("sbatch.script").read_text()


def test_a_run_that_is_in_the_queue_is_not_submitted_again() -> None:
    assert submit() == 0
    wait_in_queue("42", "42", "PENDING")
    with pytest.raises(ConfigError, match=r"run lstm is already job 42 \(PENDING\)"):
        submit()


def test_the_jobs_of_a_run_are_not_those_of_its_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    run, copied = Run(Path("runs/lstm")), Run(Path("runs/copied"))
    run.create()
    run.begin_attempt(1, 0)
    queue.note(run.path, "8")
    shutil.copytree(run.path, copied.path)
    identity.settle(copied)
    assert [queue.noted(each.path) for each in (run, copied)] == [["7", "8"], []]
    copied.begin_attempt(1, 0)
    assert queue.noted(copied.path) == ["7"]


def test_a_missing_slurm_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"squeue not found"):
        submit()


def test_the_signal_is_earlier_if_steps_are_long(tmp_path: Path) -> None:
    run = tmp_path / "slow"
    assert lead(run) == LEAD
    journal = JournalWriter(run)
    for step in (10, 20, 30):  # 40 s per step, 9 s for the longest save
        journal.metrics(1, step, 0, step * 40.0, {"train/loss": 1.0, "train/checkpoint_stall": step / 10 * 3})
    journal.metrics(1, 30, 0, 1200.0, {"val/seconds": 500.0})  # a stop interrupts a validation
    journal.close()
    assert lead(run) == 60 + 3 * (40 + 9)


def test_cancel_cancels_the_job_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    submit("--run", "sweep", "--grid", "model.init_args.width=8,16")
    with pytest.raises(ConfigError, match="run sweep-2 has no job"):
        cancel.main(["sweep-2"])
    wait_in_queue("42_2", "44", "RUNNING")
    assert cancel.main(["sweep-2"]) == 0
    assert Path("scancel.arguments").read_text() == "42_2\n"
    assert capsys.readouterr().out.endswith("run sweep-2: job 42_2, running, cancelled\n")
    with pytest.raises(CheckpointError, match="no run 'other'"):
        cancel.main(["other"])
    queue.note(Path("runs/sweep-2"), "44", "prepare-sweep-42_2")
    assert cancel.main(["sweep-2"]) == 0
    assert capsys.readouterr().out.endswith("prepare-sweep-42_2 continues. Cancel it with `scancel 42_2`\n")


def test_logs_are_those_of_the_newest_job_and_are_followed_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    submit()
    with pytest.raises(CheckpointError, match="no log"):
        logs.main(["lstm"])
    Path("runs/lstm/slurm-42.out").write_text("step 1\nstep 2\n")
    capsys.readouterr()
    assert logs.main(["lstm"]) == 0
    assert capsys.readouterr().out == "step 1\nstep 2\n"
    assert logs.main(["-f", "lstm"]) == 0
    assert capsys.readouterr().out == "step 1\nstep 2\n"
