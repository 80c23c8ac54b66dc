"""A table has the columns of its kind of model, in the unit of its data, as many as the terminal has room for."""

import json

import pytest
from rich.console import Console

from pipeline.commands.compare import command as compare
from pipeline.commands.compare.columns import duration, short_number
from pipeline.commands.compare.rows import Entry, Group
from pipeline.runs.journal import JournalWriter


@pytest.mark.parametrize(
    ("number", "expected"),
    [(7, "7"), (999, "999"), (1234, "1.23 k"), (999_600, "1000 k"), (1e6, "1 M"), (2.5e9, "2.5 G")],
)
def test_amounts_are_short(number, expected):
    assert short_number(number) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(1.26, "1.3 s"), (245, "4:05 min"), (3723, "1:02:03 h")])
def test_durations_have_readable_units(seconds, expected):
    assert duration(seconds) == expected


@pytest.mark.parametrize("width", [80, 100])
def test_no_figure_is_cut_in_a_narrow_terminal(width, capsys):
    shape = {"architecture": "TransformerLanguageModel", "parameters": 2_170_000, "tokens": 369_000}
    runs = [Entry(f"a-run-of-a-long-name-{n}", perplexity=1234.56 + n, **shape) for n in (1, 2)]
    group = Group("a" * 64, "data/pydoc", runs)
    Console(width=width).print(compare.comparison_table(group, compare.fitting(group, width)))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    for figure in ("2.17 M", "1235.56*", "1236.56", "parameters", "perplexity"):
        assert figure in printed
    assert "…" not in printed


@pytest.mark.parametrize(("width", "shown"), [(40, "perplexity"), (70, "parameters"), (100, "time")])
def test_a_narrow_terminal_keeps_the_name_and_the_quality_and_omits_costs(width, shown, capsys):
    about = {"architecture": "LSTMLanguageModel", "parameters": 2_170_000, "memory_gb": 0.5, "seconds": 60.0}
    run = Entry("a-run-of-a-long-name", perplexity=12.34, bits_per_byte=1.5, tokens=369_000, **about)
    group = Group("a" * 64, "data/pydoc", [run])
    Console(width=width).print(compare.comparison_table(group, compare.fitting(group, width)))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    for part in (" a-run-of-a-long-name ", "12.34", shown):
        assert part in printed
    assert ("1:00 min" in printed) == (width == 100)


def test_a_model_without_perplexity_is_compared_by_its_loss_and_its_scores(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, rates in (("worse", [90.0, 80.0]), ("better", [70.0, 75.0])):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        record = {"architecture": "LSTMTranscriber", "unit": ["seconds of audio", 0.25]}
        (run / "run.json").write_text(json.dumps({"name": name, "format": 1, **record}))
        for step, rate in enumerate(rates, start=1):
            writer = JournalWriter(run)
            writer.metrics(1, step, 400 * step, 2.0 * step, {"train/tokens_per_second": 200.0})
            found = {"val/loss": 4.0 - step, "val/word_error_rate": rate, "val/wrong_texts": 100.0}
            writer.metrics(1, step, 400 * step, 2.0 * step, found)
    assert compare.main(["worse", "better", "--no-baseline", "--json"]) == 0
    (dataset,) = json.loads(capsys.readouterr().out)["datasets"]
    quality = [(run["name"], run["loss"], run["word_error_rate"], run["wrong_texts"]) for run in dataset["runs"]]
    assert quality == [("better", 2.0, 70.0, 100.0), ("worse", 2.0, 80.0, 100.0)]
    assert compare.main(["worse", "better", "--no-baseline"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    (row,) = [line.split() for line in printed.out.splitlines() if " better " in line]
    assert row[3:7] == ["200", "70*", "100*", "2.0000*"]  # seconds of audio trained, error rate, wrong texts, loss
    assert row[7] == "50*"  # seconds of audio per second
