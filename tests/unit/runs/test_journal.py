"""The journal survives kills, resumption from earlier checkpoints, and non-finite numbers."""

import json
import math
import os
import signal
import subprocess
import sys

import pytest

from pipeline.runs import journal
from pipeline.runs.journal import JournalWriter, read_journal


def write_steps(writer, attempt, steps, key="train/loss"):
    for step in steps:
        writer.metrics(attempt, step, 10 * step, 0.5 * step, {key: attempt + step / 100})


def strict(text):
    """Parse strict JSON, which has no NaN."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not strict JSON"))


def test_what_is_written_is_read_back_as_columns(tmp_path):
    writer = JournalWriter(tmp_path / "run")
    writer.attempt(1, 0)
    writer.metrics(1, 5, 50, 2.5, {"train/loss": 4.0, "epoch": 0})
    writer.metrics(1, 10, 100, 5.0, {"train/loss": 3.0, "val/loss": 3.5})
    writer.samples(1, 10, 100, 5.0, [{"prompt": "a", "text": "b\n\u2028é😀"}])
    writer.close()
    found = read_journal(tmp_path / "run")
    assert found.series("train/loss") == ([5, 10], [50, 100], [2.5, 5.0], [4.0, 3.0])
    assert found.series("val/loss") == ([10], [100], [5.0], [3.5])
    assert found.series("nothing") == ([], [], [], [])
    assert found.last("train/loss") == 3.0
    assert found.last("nothing") is None
    assert found.best("train/loss", max) == 4.0
    assert found.keys() == ["epoch", "train/loss", "val/loss"]
    assert found.samples()[0]["samples"] == [{"prompt": "a", "text": "b\n\u2028é😀"}]
    assert (found.torn, found.superseded) == (0, 0)


def test_rows_beyond_the_start_of_a_later_attempt_are_superseded(tmp_path):
    writer = JournalWriter(tmp_path)
    writer.attempt(1, 0)
    write_steps(writer, 1, [10, 20, 30, 40])
    writer.attempt(2, 20)
    write_steps(writer, 2, [30, 40, 50])
    writer.attempt(3, 30)
    write_steps(writer, 3, [40])
    found = read_journal(tmp_path)
    assert found.series("train/loss").steps == [10, 20, 30, 40]
    assert found.series("train/loss").values == [1.1, 1.2, 2.3, 3.4]
    assert found.superseded == 4
    assert found.attempts == {1: 0, 2: 20, 3: 30}


def test_an_attempt_that_starts_earlier_supersedes_both_before_it(tmp_path):
    writer = JournalWriter(tmp_path)
    write_steps(writer, 1, [10, 20, 30])
    writer.attempt(2, 20)
    write_steps(writer, 2, [30])
    writer.attempt(3, 10)
    write_steps(writer, 3, [20])
    assert read_journal(tmp_path).series("train/loss").values == [1.1, 3.2]


def test_a_stale_process_that_writes_after_its_successor_does_not_win(tmp_path):
    old, new = JournalWriter(tmp_path), JournalWriter(tmp_path)
    old.attempt(1, 0)
    write_steps(old, 1, [10])
    new.attempt(2, 10)
    write_steps(new, 2, [10, 20])
    write_steps(old, 1, [10, 20, 30])
    assert read_journal(tmp_path).series("train/loss").values == [2.1, 2.2]


def test_an_attempt_without_its_own_record_still_supersedes(tmp_path):
    writer = JournalWriter(tmp_path)
    write_steps(writer, 1, [10, 20, 30])
    write_steps(writer, 2, [20, 30])
    assert read_journal(tmp_path).series("train/loss").values == [1.1, 2.2, 2.3]


def test_the_later_of_two_rows_of_one_step_wins(tmp_path):
    writer = JournalWriter(tmp_path)
    writer.metrics(1, 10, 100, 1.0, {"val/loss": 3.0})
    writer.metrics(1, 10, 100, 1.0, {"val/loss": 2.0})
    assert read_journal(tmp_path).series("val/loss").values == [2.0]


def test_a_torn_last_line_is_closed_off_and_counted(tmp_path):
    writer = JournalWriter(tmp_path)
    write_steps(writer, 1, [10, 20])
    writer.close()
    path = tmp_path / journal.FILE
    before = path.read_bytes()[:-9]
    path.write_bytes(before)
    write_steps(JournalWriter(tmp_path), 1, [30])
    after = path.read_bytes()
    assert after.startswith(before + b"\n")  # earlier lines are unchanged
    found = read_journal(tmp_path)
    assert found.series("train/loss").steps == [10, 30]
    assert found.torn == 1


@pytest.mark.parametrize("rubbish", [b"\0" * 40, b"[1, 2]", b'{"kind": "metrics"}', b"\xff\xfe", b"3", b"{}"])
def test_an_invalid_line_is_skipped_and_counted(tmp_path, rubbish):
    writer = JournalWriter(tmp_path)
    write_steps(writer, 1, [10])
    with open(tmp_path / journal.FILE, "ab") as file:
        file.write(rubbish + b"\n")
    write_steps(writer, 1, [20])
    found = read_journal(tmp_path)
    assert found.series("train/loss").steps == [10, 20]
    assert found.torn == 1


def test_non_finite_numbers_are_strict_json_and_are_restored(tmp_path):
    writer = JournalWriter(tmp_path)
    for step, value in enumerate([math.nan, math.inf, -math.inf, 2.0], start=1):
        writer.metrics(1, step, step, 1.0, {"train/loss": value})
    lines = (tmp_path / journal.FILE).read_text().splitlines()
    assert [strict(line)["train/loss"] for line in lines] == ["NaN", "Infinity", "-Infinity", 2.0]
    values = read_journal(tmp_path).series("train/loss").values
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, 2.0]
    assert read_journal(tmp_path).best("train/loss") == 2.0


def test_a_full_disk_raises_and_the_next_record_starts_on_a_line_of_its_own(tmp_path, monkeypatch):
    writer = JournalWriter(tmp_path)
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: real(file, data[:20]))
        with pytest.raises(OSError, match="only 20 of"):
            write_steps(writer, 1, [10])
    write_steps(writer, 1, [20])
    found = read_journal(tmp_path)
    assert found.series("train/loss").steps == [20]
    assert found.torn == 1


def test_a_killed_writer_leaves_every_line_that_it_finished(tmp_path):
    program = (
        "import sys; from pathlib import Path; from pipeline.runs.journal import JournalWriter\n"
        f"writer = JournalWriter(Path({str(tmp_path)!r}))\n"
        "for step in range(10**9):\n"
        "    writer.metrics(1, step, step, 0.0, {'train/loss': 1.0})\n"
        "    step == 100 and print('ready', flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    found = read_journal(tmp_path)
    assert found.series("train/loss").steps == list(range(len(found.rows)))
    assert len(found.rows) > 100
    assert found.torn <= 1


def test_the_journal_needs_neither_torch_nor_lightning():
    program = "import sys, pipeline.runs.journal; print(sorted({'torch', 'lightning', 'wandb'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"


def test_events_are_not_rows_and_keep_their_fields(tmp_path):
    writer = JournalWriter(tmp_path)
    writer.attempt(1, 0)
    write_steps(writer, 1, [10])
    writer.event("checkpoint", 1, 10, 100, 5.0, {"path": "checkpoints/step-00000010", "aliases": ["last"]})
    writer.close()
    found = read_journal(tmp_path)
    assert (len(found.rows), found.torn, found.superseded) == (1, 0, 0)
    last = journal.parse_line((tmp_path / journal.FILE).read_bytes().splitlines()[-1])
    assert (last["kind"], last["step"], last["aliases"]) == ("checkpoint", 10, ["last"])
