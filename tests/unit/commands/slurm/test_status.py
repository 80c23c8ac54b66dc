"""The state of a run is that of its journal, or of its checkpoints before it has one."""

import json
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.commands.slurm import queue, status
from pipeline.commands.slurm.submit import main
from pipeline.runs.journal import JournalWriter
from pipeline.runs.run import Run


def test_a_run_without_a_row_of_training_shows_its_last_step_and_validation(tmp_path: Path) -> None:
    run = Run(tmp_path / "runs" / "short")
    run.create()
    run.write(attempts=[], steps=8, unit=["seconds of audio", 0.25])
    assert status.row(run.path, None)[2:6] == ("-", "-", "-", "-")
    (run.checkpoints / "step-00000003").mkdir(parents=True)
    assert status.row(run.path, None)[2:6] == ("3", "-", "-", "-")
    journal = JournalWriter(run.path)
    journal.attempt(1, 0)
    journal.metrics(1, 4, 80, 2.0, {"val/loss": 1.5})
    journal.close()
    assert status.row(run.path, None)[2:6] == ("4", "1.5000 (validation)", "10 seconds of audio/s", "0:00:02")


LOG = """train.sbatch: start 1 of job 42 on n1, 1 tasks per node
old
train.sbatch: start 2 of job 42 on n1, 1 tasks per node
unroll fit: loading
unroll: error: model.init_args.widht=3: expected another key

srun: error: n1: task 0: Exited with exit code 2
train.sbatch: exit code 2: not requeued, as the error would recur
"""


def printed(capsys: pytest.CaptureFixture[str], *names: str) -> list[str]:
    """Return the lines of `unroll status`, without the head and with single blanks."""
    assert status.main(list(names)) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[1:]]


def test_a_job_that_ended_before_an_attempt_is_shown_with_the_last_line_of_its_log(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path("runs/lstm")
    run.mkdir(parents=True)
    queue.note(run, "42")
    assert printed(capsys) == ["lstm not in the queue - - - - 0 -"]
    (run / "slurm-42.out").write_text(LOG)
    ending = "unroll: error: model.init_args.widht=3: expected another key; "
    ending += "train.sbatch: exit code 2: not requeued, as the error would recur"
    for names in ([], ["lstm"]):
        assert printed(capsys, *names) == [
            "lstm ended before training - - - - 0 -",
            f"runs/lstm/slurm-42.out: {ending}",
        ]
    Path("queue").write_text("42|PENDING|Priority|59:00|n1|42\n")
    assert printed(capsys) == ["lstm 42 pending (Priority) - - - - 0 -"]


def test_a_later_start_that_fails_before_its_attempt_is_shown_for_a_named_run(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(Path("runs/lstm"))
    run.create()
    queue.note(run.path, "42")
    run.begin_attempt(1, 0)
    run.end_attempt("stopped", 75)
    (run.path / "slurm-42.out").write_text(LOG)
    assert printed(capsys) == ["lstm stopped - - - - 1 -"]
    assert printed(capsys, "lstm")[-1].startswith("runs/lstm/slurm-42.out: unroll: error: model.init_args.widht")
    run.begin_attempt(1, 0)
    run.end_attempt("finished", 0)
    assert len(printed(capsys, "lstm")) == 3  # the row and two attempts


def test_a_preparation_is_shown_once_until_a_training_that_waits_for_it_begins(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [Path(f"runs/sweep-{k}") for k in (1, 2)]
    for k, run in enumerate(runs, 1):
        run.mkdir(parents=True)
        queue.note(run, f"42_{k}", "prepare-sweep-41")
    waiting = [f"42_{k}|PENDING|Dependency|1:00|n1|{41 + k}\n" for k in (1, 2)]
    Path("queue").write_text("".join(["41|RUNNING|None|59:00|n1|41\n", *waiting]))
    pending = [f"sweep-{k} 42_{k} pending (Dependency) - - - - 0 -" for k in (1, 2)]
    assert printed(capsys) == ["prepare-sweep-41 41 running on n1, 59:00 left - - - - - -", *pending]
    Path("queue").write_text("")
    Path("runs/prepare-sweep-41.out").write_text("unroll: error: train.txt not found\n")
    assert printed(capsys) == [
        "prepare-sweep-41 ended - - - - - -",
        *(f"sweep-{k} not in the queue - - - - 0 -" for k in (1, 2)),
        "runs/prepare-sweep-41.out: unroll: error: train.txt not found",
    ]
    for run in runs:
        begun = Run(run)
        begun.create()
        begun.begin_attempt(1, 0)
    assert [line.split(" ")[0] for line in printed(capsys)] == ["sweep-1", "sweep-2"]


def test_runs_of_tournaments_are_listed_by_the_paths_that_name_them(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "small/lstm-1", "small/rnn-1"):
        run = Run(Path("runs") / name)
        run.create()
        (run.path / "nested").mkdir()
        (run.path / "nested" / "run.json").write_text(json.dumps({}))
    names = ["one", "runs/small/lstm-1", "runs/small/rnn-1"]
    assert [line.split(" ")[0] for line in printed(capsys)] == names
    assert [line.split(" ")[0] for line in printed(capsys, *names)] == names


def trained(home: Path) -> Run:
    """A run of two attempts: 100 steps, of which the last 20 were lost and repeated."""
    run = Run(home / "runs" / "lstm")
    run.create()
    times = ("2026-01-01T00:00:00+00:00", "2026-01-01T00:02:00+00:00", "2026-01-01T00:03:20+00:00")
    about = {"host": "node1", "pid": 1, "world_size": 2, "slurm_job": "42", "exit_code": None}
    first = {"number": 1, "started": times[0], "ended": None, "reason": None, "start_step": 0}
    second = {"number": 2, "started": times[1], "ended": times[2], "reason": "stopped", "start_step": 80}
    run.write(attempts=[about | first, about | second], steps=200)
    journal = JournalWriter(run.path)
    for attempt, begin, end in ((1, 0, 100), (2, 80, 100)):
        journal.attempt(attempt, begin)
        for step in range(begin + 10, end + 1, 10):
            journal.metrics(attempt, step, 0, float(step), {"train/loss": 2.0, "train/tokens_per_second": 5000.0})
    journal.close()
    return run


def test_status_prints_queue_step_rate_time_left_and_attempts(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(home)
    main(["lstm.yaml", "--time", "1:00:00", "--profile", "mine.yaml", "--run", "next"])
    Path("queue").write_text("42|RUNNING|Priority|59:00|node1|42\n")
    capsys.readouterr()
    assert status.main(["lstm"]) == 0
    heads, row, *attempts = capsys.readouterr().out.splitlines()
    assert " ".join(heads.split()) == "run queue step loss speed time left attempts productive"
    left = "lstm  42 running on node1, 59:00 left  100   2.0000  5,000 tokens/s  0:01:40    2         50%"
    assert row == left  # 100 s without repeated steps, of 120 + 80 s
    assert [line.split(": ")[-1] for line in attempts] == ["running or killed", "stopped"]
    Path("queue").unlink()
    assert status.main([]) == 0
    printed = [line.split("  ")[:2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert printed == [["lstm", "stopped"], ["next", "not in the queue"]]


def test_a_finished_run_has_no_time_left(home: Path) -> None:
    run = trained(home).path
    record = json.loads((run / "run.json").read_text())
    assert status.row(run, None)[5] == "0:01:40"
    record["attempts"][-1]["reason"] = "finished"
    (run / "run.json").write_text(json.dumps(record))
    assert status.row(run, None)[5] == "-"


def test_status_works_without_slurm(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(home)
    monkeypatch.setenv("PATH", "/nowhere")
    assert cli.main(["status", "lstm"]) == 0
    assert "stopped" in capsys.readouterr().out
