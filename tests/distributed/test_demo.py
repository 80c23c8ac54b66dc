"""The demo runs its commands, shortened, in an empty directory and reports their results."""

import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.commands import demo
from pipeline.runs.journal import JournalWriter
from tests import commands

ROOT = Path(__file__).parent.parent.parent
# The drawings and recordings of the demo take longer to prepare than its models to train.
FEWER_DRAWINGS = """
import sys
from pipeline import cli
from pipeline.commands import demo
demo.DRAW, demo.DIAL = demo.DRAW.replace(":4000", ":400"), demo.DIAL.replace(":1000", ":200")
assert "builtin:400 " in demo.DRAW and "builtin:200 " in demo.DIAL
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_the_demo_stops_a_run_continues_it_and_compares_both(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FEWER_DRAWINGS, "demo", "--steps", "30", "--stop-after", "5"]
    home, place, temporary = (tmp_path / name for name in ("home", "place", "temporary"))
    for each in (home, place, temporary):
        each.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "HF_", "XDG_"))},
        **{
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "MPLCONFIGDIR": str(tmp_path),
        },
    }
    ran = commands.run(command, 250, cwd=place, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    [before, after] = re.findall(r"in the journal: (\d+). The second attempt resumed at step (\d+)", ran.stdout)[0]
    assert 5 <= int(before) <= int(after) < 30
    assert "exit code 75" in ran.stdout
    table = ran.stdout[ran.stdout.rindex("$ unroll compare") :]
    assert all(name in table for name in ("demo-lstm", "demo-transformer", "5-gram"))
    assert re.search(r"Reference transcript: [0-9 ]+\.", table)
    assert (place / "runs" / "demo-captions" / "attention.png").stat().st_size > 1000
    assert (place / "runs" / "compare-demo-lstm-demo-transformer.html").stat().st_size > 1000
    assert f"- The LSTM was interrupted and resumed at step {after}.\n" in table
    assert sorted(path.name for path in place.iterdir()) == ["data", "runs"]
    assert [*home.iterdir(), *temporary.iterdir()] == []


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create results of the demo in `runs/`: LSTM 1.5, Transformer 2.25, 5-gram 2 bits per byte."""
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    data = {"path": "data/text", "checksum": "a" * 64}
    for name, bits in ((demo.LSTM, 1.5), (demo.TRANSFORMER, 2.25)):
        writer = JournalWriter(runs / name)
        writer.attempt(1, 0)
        writer.metrics(1, 100, 1000, 2.0, {"val/perplexity": 2**bits, "val/bits_per_byte": bits})
        record = {"format": 1, "name": name, "dataset": data, "attempts": [{"start_step": 0}, {"start_step": 70}]}
        (runs / name / "run.json").write_text(json.dumps(record))
    (runs / ".baselines").mkdir()
    figures = {"order": 5, "ngrams": 7, "tokens": 9, "seconds": 1.0, "memory_gb": 0.1}
    figures["validation"] = {"perplexity": 4.0, "bits_per_byte": 2.0}
    (runs / ".baselines" / f"{'a' * 64}.json").write_text(json.dumps(figures))
    for name, texts in ((demo.CAPTIONER, ["a cat", "a dog", "a cow"]), (demo.RECOGNISER, ["1 2", "3 4"])):
        rows = [{"row": row, "text": text, "references": ["a cow", "a cat", "1 2"]} for row, text in enumerate(texts)]
        (runs / name).mkdir()
        (runs / name / "written-test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return runs


def test_the_last_lines_state_what_the_runs_measured(finished: Path) -> None:
    lines = demo.closing()
    assert lines[:5] == [
        "- The LSTM was interrupted and resumed at step 70.",
        "- Bits per byte of held-out text: LSTM 1.500, Transformer 2.250, 5-gram 2.000.",
        "  The LSTM is better than the 5-gram; the Transformer is not better than the 5-gram.",
        "- The captioner describes 2 of 3 held-out drawings correctly.",
        "- The speech recogniser transcribes 1 of 2 held-out recordings without error.",
    ]


def test_a_worse_lstm_that_was_never_stopped_is_reported(finished: Path) -> None:
    writer = JournalWriter(finished / demo.LSTM)
    writer.attempt(2, 0)  # an attempt from the beginning replaces the rows of the previous one
    writer.metrics(2, 100, 1000, 2.0, {"val/perplexity": 2**2.5, "val/bits_per_byte": 2.5})
    record = json.loads((finished / demo.LSTM / "run.json").read_text())
    (finished / demo.LSTM / "run.json").write_text(json.dumps(record | {"attempts": [{"start_step": 0}]}))
    assert demo.closing()[:3] == [
        "- The LSTM was not interrupted.",
        "- Bits per byte of held-out text: LSTM 2.500, Transformer 2.250, 5-gram 2.000.",
        "  The LSTM is not better than the 5-gram; the Transformer is not better than the 5-gram.",
    ]


def test_the_commands_for_a_text_of_ones_own_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [shlex.split(line)[1:] for line in demo.closing() if line.startswith("  unroll")]
    prepare, fit, *others = commands
    Path("my.txt").write_text("".join(f"{i} bottles of milk on wall {i % 7}\n" for i in range(400)))
    assert main(prepare) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit, match=r"^0$"):
        main([*fit, "--print_config"])
    assert "dataset: data/my" in capsys.readouterr().out
    assert [command[:2] for command in others] == [["generate", "my-lstm"], ["compare", "my-lstm"]]


def test_a_command_that_fails_ends_the_demo_with_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(demo.Failed) as failure:
        demo.run_command(["generate", "nobody"])
    assert failure.value.exit_code == 4


def test_a_config_is_named_below_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    assert demo.config("demo-lstm") == "configs/demo/lstm.yaml"
    monkeypatch.chdir(tmp_path)
    assert demo.config("demo-lstm") == str(ROOT / "configs/demo/lstm.yaml")


def test_a_run_without_a_journal_is_at_step_zero(tmp_path: Path) -> None:
    assert demo.last_step(tmp_path) == 0
