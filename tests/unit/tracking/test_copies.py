"""Two runs never write into one W&B run."""

import shutil
from pathlib import Path

from pipeline.commands import sync
from pipeline.runs.run import Run


def test_a_copy_is_sent_to_a_run_of_its_own_and_a_moved_run_to_its_own(written, server, capsys):
    written.attempt(0).rows(10, 20)
    assert sync.main([str(written.run.path)]) == 0
    two = Path(shutil.copytree(written.run.path, written.run.path.with_name("two")))
    assert sync.main([str(two)]) == 0
    printed = capsys.readouterr().out
    assert "run two is a copy of" in printed
    assert "run two: sent 2 lines" in printed
    other = Run(two).record["wandb_id"]
    assert {name: [row["step"] for row in rows] for name, rows in server.rows.items()} == {
        "id123456": [10, 20],
        other: [10, 20],
    }
    moved = two.rename(two.with_name("three"))
    assert sync.main([str(moved)]) == 0
    assert "run three: sent 0 lines" in capsys.readouterr().out
    assert server.rows.keys() == {"id123456", other}
