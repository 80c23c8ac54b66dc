"""Texts are grouped by the length of their sources, and each group is scored alone."""

import json
from pathlib import Path

import pytest

from pipeline.commands.by_length import main
from pipeline.errors import ConfigError, DataError

SOURCES = ["a b c d", "a", "a b", "a b c", "a b c d e", "b"]


def write(run: Path, texts: list[str], sources: list[str] = SOURCES) -> None:
    run.mkdir(parents=True)
    rows = [
        {"row": row, "source": source, "text": text, "references": ["x y"]}
        for row, (source, text) in enumerate(zip(sources, texts, strict=True))
    ]
    (run / "written-test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two", "other"):
        write(tmp_path / "runs" / name, ["x y"] * 6, SOURCES if name != "other" else ["c"] * 6)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
    rows = (tmp_path / "runs/two/written-test.jsonl").read_text().splitlines()
    changed = [json.loads(row) for row in rows]
    for row in changed:
        row["text"] = "x" if len(row["source"].split()) > 2 else "x y"
    (tmp_path / "runs/two/written-test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
    return tmp_path


def test_each_group_of_sources_is_scored_for_each_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["one", "two", "--groups", "3", "--score", "ErrorRate"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "| words per source | sources | one | two |",
        "|---|---|---|---|",
        "| 1 to 1 | 2 | 0.0 | 0.0 |",
        "| 2 to 3 | 2 | 0.0 | 25.0 |",
        "| 4 to 5 | 2 | 0.0 | 50.0 |",
        "| all | 6 | 0.0 | 25.0 |",
    ]


def test_runs_that_cannot_be_compared_are_rejected(runs: Path) -> None:
    with pytest.raises(DataError, match="one, other were evaluated on different sources"):
        main(["one", "other"])
    with pytest.raises(ConfigError, match="--groups=0: expected at least 1"):
        main(["one", "--groups", "0"])
    with pytest.raises(DataError, match=r"written-validation\.jsonl not found. Create it with `unroll validate one`"):
        main(["one", "--split", "validation"])
    (runs / "runs/one/written-test.jsonl").write_text('{"row": 1, "text": "a"}\n')
    with pytest.raises(DataError, match="expected texts with sources"):
        main(["one"])
