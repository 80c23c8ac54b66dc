"""The state of a run is that of its journal, or of its checkpoints before it has one."""

from pathlib import Path

from pipeline.commands.slurm import status
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
