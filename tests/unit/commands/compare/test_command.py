"""Runs are compared by the metrics of their journals, per dataset, with a baseline."""

import json
import math
import subprocess
import sys

import pytest

from data_prep.text import command as text
from pipeline.commands.compare import command as compare
from pipeline.commands.compare.rows import Entry, Group, gather, is_best
from pipeline.dataset.manifest import Dataset
from pipeline.errors import CheckpointError, UserError
from pipeline.evaluation.key_baselines import key_baselines
from pipeline.models import kneser_ney
from pipeline.runs.journal import FILE, JournalWriter

TOPICS, OTHER = "a" * 64, "b" * 64


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write_run(tmp_path):
    def write(name, losses, checksum=TOPICS, **record):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        record = {
            "format": 1,
            "name": name,
            "parameters": 1234,
            "architecture": "LSTMLanguageModel",
            "dataset": {"path": str(tmp_path / "data"), "checksum": checksum},
            **record,
        }
        (run / "run.json").write_text(json.dumps(record))
        writer = JournalWriter(run)
        writer.attempt(1, 0)
        for step, loss in enumerate(losses, start=1):
            clock = (1, step, 100 * step, 2.0 * step)
            speed = {"train/tokens_per_second": 50.0 + step, "train/memory_gb": 0.5, "train/loss": loss}
            writer.metrics(*clock, speed)
            validation = {"val/loss": loss, "val/perplexity": math.exp(loss), "val/bits_per_byte": loss / 2}
            writer.metrics(*clock, validation)
        return run

    return write


def figures(capsys, *argv):
    assert compare.main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["datasets"]


def test_the_figures_are_those_of_the_journal(write_run, capsys):
    write_run("lstm", [3.0, 1.0, 2.0])
    (dataset,) = figures(capsys, "lstm", "--no-baseline")
    assert dataset["checksum"] == TOPICS
    assert dataset["baseline"] is None
    assert dataset["runs"] == [
        {
            "name": "lstm",
            "architecture": "LSTMLanguageModel",
            "parameters": 1234,
            "tokens": 300,
            "perplexity": math.exp(1.0),
            "bits_per_byte": 0.5,
            "tokens_per_second": 52.0,
            "memory_gb": 0.5,
            "seconds": 6.0,
        }
    ]


def test_the_best_run_comes_first_and_is_marked(write_run, capsys):
    for name, loss in (("worse", 2.0), ("best", 1.0), ("worst", 3.0)):
        write_run(name, [loss])
    assert compare.main(["worse", "worst", "best", "--no-baseline"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.split()[:1] in (["worse"], ["best"], ["worst"])]
    assert [row[0] for row in rows] == ["best", "worse", "worst"]
    assert "2.72*" in rows[0]
    assert "7.39" in rows[1]


def test_runs_on_different_datasets_are_never_in_one_table(write_run, capsys):
    write_run("one", [1.0])
    write_run("two", [2.0], OTHER)
    write_run("three", [3.0])
    datasets = figures(capsys, "one", "two", "three", "--no-baseline")
    found = [(dataset["checksum"], [run["name"] for run in dataset["runs"]]) for dataset in datasets]
    assert found == [(TOPICS, ["one", "three"]), (OTHER, ["two"])]


def test_rows_that_were_rewound_do_not_count(write_run):
    run = write_run("lstm", [3.0, 1.0])
    writer = JournalWriter(run)
    writer.attempt(2, 1)
    writer.metrics(2, 2, 200, 9.0, {"val/perplexity": 5.0})
    entry, lines = gather("lstm")
    assert entry.perplexity == 5.0
    assert entry.seconds == 9.0
    assert lines == []


def test_a_missing_run_is_reported_and_listed_with_dashes(write_run, capsys):
    write_run("lstm", [1.0])
    assert compare.main(["lstm", "nobody", "--no-baseline"]) == 0
    printed = capsys.readouterr()
    assert "no run 'nobody'; runs here: lstm" in printed.err
    (row,) = [line.split() for line in printed.out.splitlines() if "nobody " in line]
    assert row == ["nobody", *["-"] * 8]


def test_runs_without_journal_or_validation_are_reported_and_listed(write_run, capsys):
    write_run("lstm", [1.0])
    (write_run("silent", []) / FILE).unlink()
    JournalWriter(write_run("young", [])).metrics(1, 5, 50, 1.0, {"train/loss": 4.0})
    datasets = figures(capsys, "silent", "young", "lstm", "--no-baseline")
    assert [run["name"] for run in datasets[0]["runs"]] == ["lstm", "silent", "young"]
    assert compare.main(["silent", "young", "lstm", "--no-baseline"]) == 0
    printed = capsys.readouterr().err
    assert "runs/silent: no metrics logged yet" in printed
    assert "runs/young: no validation yet" in printed


def test_nothing_to_compare_is_an_error(write_run):
    (write_run("silent", []) / FILE).unlink()
    with pytest.raises(CheckpointError, match="nothing to compare"):
        compare.main(["silent", "nobody"])


def test_a_damaged_record_is_reported(write_run, capsys):
    (write_run("broken", [1.0]) / "run.json").write_text("{")
    write_run("lstm", [1.0])
    assert compare.main(["broken", "lstm", "--no-baseline"]) == 0
    assert "Expecting" in capsys.readouterr().err


@pytest.fixture
def checksum(tmp_path):
    """Of a small real dataset at `data`."""
    lines = [f"the cat sat on the mat and dog number {number} sat too\n" for number in range(40)]
    (tmp_path / "corpus.txt").write_text("".join(lines))
    options = "--tokenizer byte --documents line --validation-share 0.2 --workers 1 --output data"
    assert text.main(["corpus.txt", *options.split()]) == 0
    return Dataset.open(tmp_path / "data").checksum


def test_the_baseline_is_fitted_once_per_dataset(write_run, checksum, capsys, tmp_path):
    write_run("good", [0.01], checksum)
    write_run("bad", [6.0], checksum)
    capsys.readouterr()
    found = figures(capsys, "good", "bad")[0]["baseline"]
    dataset = Dataset.open(tmp_path / "data")
    expected = kneser_ney.measure_baseline(dataset)["validation"]
    assert (found["name"], found["tokens"]) == ("5-gram", dataset.splits["train"].tokens)
    assert found["perplexity"] == pytest.approx(expected["perplexity"])
    assert found["bits_per_byte"] == pytest.approx(expected["bits_per_byte"])
    kept = tmp_path / "runs" / ".baselines" / f"{checksum}.json"
    kept.write_text(kept.read_text().replace(str(found["perplexity"]), "7.0"))
    assert figures(capsys, "good", "bad")[0]["baseline"]["perplexity"] == 7.0  # read from the cache
    compare.main(["good", "bad"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "LSTM" in line or "5-gram" in line] == [
        "good",
        "5-gram",
        "bad",
    ]


def test_a_torn_cache_file_is_replaced(write_run, checksum, capsys, tmp_path):
    write_run("lstm", [1.0], checksum)
    (tmp_path / "runs" / ".baselines").mkdir()
    (tmp_path / "runs" / ".baselines" / f"{checksum}.json").write_text('{"order": 5')
    capsys.readouterr()
    assert figures(capsys, "lstm")[0]["baseline"]["perplexity"] > 1


def test_a_changed_dataset_is_reported_and_has_no_baseline(write_run, checksum, capsys):
    write_run("lstm", [1.0], OTHER)
    assert compare.main(["lstm"]) == 0
    printed = capsys.readouterr()
    assert "is not the dataset of these runs" in printed.err
    assert "5-gram" not in printed.out


def test_a_missing_dataset_is_reported_and_has_no_baseline(write_run, capsys):
    write_run("lstm", [1.0])
    assert compare.main(["lstm"]) == 0
    assert "no baseline for data (aaaaaaaa): " in capsys.readouterr().err


def test_quality_is_compared_with_the_baseline_and_cost_is_not():
    one = Entry("one", perplexity=8.0, bits_per_byte=1.0, memory_gb=0.5, tokens_per_second=9.0)
    two = Entry("two", perplexity=9.0, bits_per_byte=2.0, memory_gb=0.5, tokens_per_second=10.0)
    baseline = Entry("5-gram", perplexity=7.0, bits_per_byte=1.5, memory_gb=0.1, tokens_per_second=99.0)
    group = Group(TOPICS, "data", [one, two], baseline)
    best = {column.key: [e.name for e in group.rows() if is_best(column, e, group)] for column in group.columns}
    assert best["perplexity"] == ["5-gram"]
    assert best["bits_per_byte"] == ["one"]
    assert best["memory_gb"] == ["one", "two"]
    assert best["tokens_per_second"] == ["two"]
    assert best["parameters"] == []


def test_the_page_is_written_beside_the_runs_or_to_the_given_path(write_run, tmp_path):
    write_run("lstm", [1.0])
    compare.main(["lstm", "--no-baseline"])
    assert (tmp_path / "runs" / "compare-lstm.html").is_file()
    assert len(compare.page_name(["a" * 90, "b" * 90])) < 110
    compare.main([str(tmp_path / "runs" / "lstm"), "--no-baseline", "--html", str(tmp_path / "x" / "page.html")])
    assert "lstm" in (tmp_path / "x" / "page.html").read_text()


def test_a_page_that_cannot_be_written_is_one_clear_line(write_run, tmp_path):
    write_run("lstm", [1.0])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"the page cannot be written: .*--html"):
        compare.main(["lstm", "--no-baseline", "--html", str(tmp_path / "file" / "page.html")])


def test_names_are_not_parsed_as_markup(write_run, capsys):
    write_run("[red]a[nothing]", [1.0])
    assert compare.main(["[red]a[nothing]", "--no-baseline"]) == 0
    assert "[red]a[nothing]" in capsys.readouterr().out


def test_comparing_does_not_wait_for_torch():
    program = "import sys, pipeline.commands.compare.command\n"
    program += "print(sorted({'torch', 'lightning', 'wandb'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"


def test_a_dataset_that_is_not_text_has_no_baseline_and_no_notice(tiny_audio_dataset, tmp_path, capsys):
    group = Group(Dataset.open(tiny_audio_dataset).checksum, str(tiny_audio_dataset), [])
    assert compare.with_baseline(group, tmp_path) is group
    assert capsys.readouterr().err == ""


def test_the_baseline_of_music_is_the_better_of_its_counts(tiny_music_dataset, tmp_path):
    dataset = Dataset.open(tiny_music_dataset)
    found = compare.with_baseline(Group(dataset.checksum, str(tiny_music_dataset), []), tmp_path).baseline
    expected = key_baselines(dataset.splits["train"], dataset.splits["validation"])["key given its previous state"]
    assert (found.name, found.parameters, found.loss) == ("counted keys", 176, expected)
