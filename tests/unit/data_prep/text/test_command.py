"""`unroll prepare text`: the dataset, exact continuation after a kill, and one-line errors."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

import data_prep
from data_prep.text import command as text
from data_prep.text import encode
from data_prep.workspace import workspace
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.shard import Shard
from pipeline.dataset.tokens import ShardWriter
from pipeline.errors import ConfigError, DataError, UserError
from tests.timeouts import scaled

CUT = ["--validation-share", "0.2", "--test-share", "0.1", "--shard-bytes", "2000"]


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file of a thousand lines, encoded in many small chunks."""
    monkeypatch.setattr(encode, "CHUNK", 500)
    draw = np.random.default_rng(0)
    words = ["the", "unroll", "naïve", "état", "state", "in", "of"]
    lines = [" ".join(draw.choice(words, draw.integers(1, 9))) + f" {index}" for index in range(1000)]
    (path := tmp_path / "corpus.txt").write_text("\n".join(lines) + "\n")
    return path


def run(output: Path, *arguments: object) -> Dataset:
    """Prepare a dataset in this process and open it."""
    assert text.main([*map(str, arguments), "--output", str(output), "--workers", "1"]) == 0
    dataset = Dataset.open(output)
    dataset.verify()
    return dataset


def contents(path: Path) -> dict[str, bytes]:
    """Return the content of every file by name, with the output path of the recorded command replaced."""
    found = {file.name: file.read_bytes() for file in path.iterdir()}
    return {name: content.replace(str(path).encode(), b"OUTPUT") for name, content in found.items()}


def documents(dataset: Dataset, split: str) -> list[str]:
    part = dataset.splits[split]
    edges = [*part.starts(0, part.tokens).tolist(), part.tokens]
    decode = Tokenizer.from_file(str(dataset.target.file)).decode
    return [decode(part.read(*ends).tolist(), skip_special_tokens=True) for ends in pairwise(edges)]


@pytest.mark.parametrize("kind", ["byte", "character", "bpe", "unigram"])
def test_all_documents_are_there_in_order_each_in_one_split(corpus: Path, tmp_path: Path, kind: str) -> None:
    dataset = run(tmp_path / "out", corpus, "--documents", "line", "--tokenizer", kind, "--vocab-size", 300, *CUT)
    lines = corpus.read_text().splitlines()
    found = {name: documents(dataset, name) for name in ("train", "validation", "test")}
    assert sorted(chain(*found.values())) == sorted(lines)
    assert all(part == [line for line in lines if line in set(part)] for part in found.values())
    assert sum(split.bytes for split in dataset.splits.values()) == corpus.stat().st_size
    assert all(len(split.shards) > 5 for name, split in dataset.splits.items() if name == "train")


def test_a_long_document_is_one_document_in_several_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "CHUNK", 20_000)
    whole = "ab " * 30_000
    (tmp_path / "a.txt").write_text(whole)
    dataset = run(tmp_path / "out", "--train", tmp_path / "a.txt", "--tokenizer", "byte", "--shard-bytes", 40_000)
    split = dataset.splits["train"]
    assert documents(dataset, "train") == [whole]
    assert (split.tokens, split.documents, split.bytes) == (90_001, 1, 90_000)
    assert len(split.shards) == 2
    assert sum(shard.rows for shard in split.shards) > 2
    assert split.read(90_000, 90_001).tolist() == [dataset.target.eos]


def test_the_tokenizer_is_trained_on_the_training_split_alone(tmp_path: Path) -> None:
    for name, content in {"train": "a b\n", "valid": "a c\n"}.items():
        (tmp_path / f"{name}.txt").write_text(content)
    given = ["--train", tmp_path / "train.txt", "--validation", tmp_path / "valid.txt", "--documents", "line"]
    dataset = run(tmp_path / "out", *given, "--tokenizer", "word")
    assert Tokenizer.from_file(str(dataset.target.file)).get_vocab() == {"<eos>": 0, "<unk>": 1, "a": 2, "b": 3}
    assert dataset.splits["validation"].read(0, 3).tolist() == [2, 1, 0]
    assert json.loads((tmp_path / "out" / "report.json").read_text())["unknown_tokens"]["validation"] == 1


def test_eos_written_in_the_text_does_not_end_a_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one <eos> two")
    dataset = run(tmp_path / "out", "--train", tmp_path / "a.txt", "--tokenizer", "byte")
    assert np.flatnonzero(dataset.splits["train"].read(0, 14) == dataset.target.eos).tolist() == [13]
    assert documents(dataset, "train") == ["one <eos> two"]


def test_a_whitespace_piece_without_tokens_is_not_a_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" " * 40_000 + "word" + "\n" * 40_000)
    split = run(tmp_path / "out", "--train", tmp_path / "a.txt", "--tokenizer", "word").splits["train"]
    assert (split.tokens, split.documents, split.starts(0, 2).tolist()) == (2, 1, [0])


def test_workers_and_restarts_do_not_change_a_byte(corpus: Path, tmp_path: Path) -> None:
    arguments = [corpus, "--documents", "line", "--tokenizer", "bpe", "--vocab-size", 300, *CUT]
    run(tmp_path / "one", *arguments)
    text.main([*map(str, arguments), "--output", str(tmp_path / "two"), "--workers", "2"])
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    one["dataset.json"] = one["dataset.json"].replace(b'"--workers",\n  "1"', b'"--workers",\n  "2"')
    assert one == two


@pytest.mark.parametrize("shards_written", [0, 1, 5, 9])
def test_a_stopped_preparation_continues_to_the_same_bytes(
    corpus: Path,
    tmp_path: Path,
    shards_written: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [corpus, "--documents", "line", "--tokenizer", "word", *CUT]
    straight = run(tmp_path / "straight", *arguments)
    closed: list[Shard] = []
    close = ShardWriter.close

    def close_or_interrupt(writer: ShardWriter) -> Shard:
        if len(closed) == shards_written:
            raise KeyboardInterrupt
        closed.append(close(writer))
        return closed[-1]

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "close", close_or_interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out", *arguments)
    for path in (tmp_path / "out", tmp_path / ".out.partial"):
        with pytest.raises(DataError):
            Dataset.open(path)
    if shards_written >= 5:
        monkeypatch.setattr(workspace, "train_once", pytest.fail)
    continued = run(tmp_path / "out", *arguments)
    assert ("continuing after" in capsys.readouterr().err) == (shards_written >= 5)
    assert contents(continued.path) == contents(straight.path)
    assert not (tmp_path / ".out.partial").exists()


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, bytes]]:
    """Return a command without its output and workers, and the files that one uninterrupted process writes."""
    folder = tmp_path_factory.mktemp("lines")
    (source := folder / "a.txt").write_text("".join(f"{index} some words in a line\n" for index in range(120_000)))
    command = [str(source), "--documents", "line", "--tokenizer", "byte", "--shard-bytes", "400000"]
    return command, contents(run(folder / "straight", *command).path)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigkill_leaves_nothing_that_opens_and_the_same_command_finishes(
    lines: tuple[list[str], dict[str, bytes]], tmp_path: Path, workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, straight = lines
    command = [*command, "--output", str(tmp_path / "out"), "--workers", workers]
    killed = subprocess.Popen([sys.executable, "-m", "data_prep.text.command", *command], stderr=subprocess.DEVNULL)
    state, deadline = tmp_path / ".out.partial" / "work" / "state.json", time.monotonic() + scaled(60)
    while time.monotonic() < deadline and killed.poll() is None:
        if state.exists() and json.loads(state.read_text())["records"].get("generation", 0) >= 2:
            break
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    for path in (tmp_path / "out", tmp_path / ".out.partial"):
        with pytest.raises(DataError):
            Dataset.open(path)
    assert text.main(command) == 0
    assert "continuing after" in capsys.readouterr().err
    continued = contents(tmp_path / "out")
    recorded = f'"--workers",\n  "{workers}"'.encode()
    continued["dataset.json"] = continued["dataset.json"].replace(recorded, b'"--workers",\n  "1"')
    assert continued == straight


@pytest.mark.parametrize("changed", ["source", "option"])
def test_a_changed_source_or_option_starts_over(
    corpus: Path, tmp_path: Path, changed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [corpus, "--documents", "line", "--tokenizer", "word", *CUT]
    with monkeypatch.context() as patch:
        patch.setattr(workspace.Workplace, "publish", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path / "out", *arguments)
    assert (tmp_path / ".out.partial" / "train-00005.arrow").exists()
    if changed == "source":
        corpus.write_text("".join(f"new {index}\n" for index in range(200)))
    else:
        arguments += ["--vocab-size", 50]
    changed_dataset = run(tmp_path / "out", *arguments)
    assert "continuing" not in capsys.readouterr().err
    assert contents(changed_dataset.path) == contents(run(tmp_path / "fresh", *arguments).path)


def test_standard_input_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("first é\nsecond\n".encode())))
    arguments = ["-", "--documents", "line", "--tokenizer", "byte", "--validation-share", 0, "--test-share", 0]
    dataset = run(tmp_path / "out", *arguments)
    assert documents(dataset, "train") == ["first é", "second"]
    assert [source["name"] for source in dataset.manifest["sources"]] == ["-"]


def test_an_existing_tokenizer_is_reused(corpus: Path, tmp_path: Path) -> None:
    first = run(tmp_path / "one", corpus, "--documents", "line", "--tokenizer", "word", "--cut", "tail")
    second = run(tmp_path / "two", "--train", corpus, "--documents", "line", "--tokenizer", first.target.file)
    assert second.target.file.read_text() == first.target.file.read_text()
    assert second.target.size == first.target.size


def test_overwriting_replaces_a_dataset_and_nothing_else(corpus: Path, tmp_path: Path) -> None:
    arguments = ["--train", corpus, "--tokenizer", "byte"]
    run(tmp_path / "out", *arguments)
    with pytest.raises(DataError, match=r"--output=.*out exists\. Choose another directory or add --overwrite"):
        run(tmp_path / "out", *arguments)
    corpus.write_text("new")
    assert documents(run(tmp_path / "out", *arguments, "--overwrite"), "train") == ["new"]
    (tmp_path / "home").mkdir()
    with pytest.raises(DataError, match=r"home is not a dataset \(no dataset\.json\), so it is not overwritten"):
        run(tmp_path / "home", *arguments, "--overwrite")


def test_two_preparations_of_one_dataset_exclude_each_other(corpus: Path, tmp_path: Path) -> None:
    with workspace.Workplace(tmp_path / "out", {}).entered(), pytest.raises(DataError, match="by another process"):
        run(tmp_path / "out", "--train", corpus, "--tokenizer", "byte")


@pytest.fixture
def as_nobody(tmp_path: Path) -> Iterator[None]:
    """Drop the rights of root, who can read every file."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.mark.usefixtures("as_nobody")
def test_a_source_that_may_not_be_read_is_one_clear_error() -> None:
    with pytest.raises(DataError, match=r"cannot be (read|written): Permission denied"):
        text.main(["/etc/shadow", "--output", "/etc/out", "--tokenizer", "byte"])


@pytest.mark.parametrize(
    ("content", "arguments", "error"),
    [
        ("", [], "the sources hold no text"),
        ("\n\n", ["--documents", "line", "--tokenizer", "word"], "the sources hold no text"),
        ("\n", ["--tokenizer", "byte"], "the sources hold no text"),
        ("one document", ["--cut", "hash", "--tokenizer", "byte"], "split is empty. Give more text, .* its share to 0"),
        ("x", ["--tokenizer", "nonsense"], "--tokenizer=nonsense: no such file. Choose byte, character"),
        ("x", ["--vocab-size", "10"], "--vocab-size=10: too small for the 256 bytes"),
        ("x", ["--train", "y.txt"], "expected SOURCE.*, or --train .*, got both"),
        ("x", ["--validation-share", "0.6", "--test-share", "0.4"], "the sum must be below 1"),
        ("x", ["--test-share", "7"], "expected a number from 0 to below 1, got 7"),
        ("x", ["--workers", "0"], "expected an integer of at least 1, got 0"),
        ("x", ["--cut", "diagonal"], "invalid choice: 'diagonal'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    tmp_path: Path, content: str, arguments: list[str], error: str
) -> None:
    (source := tmp_path / "a.txt").write_text(content)
    with pytest.raises(UserError, match=error) as raised:
        run(tmp_path / "out", source, *arguments)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_too_many_bad_records_fail_and_a_larger_share_passes(tmp_path: Path) -> None:
    (source := tmp_path / "a.jsonl").write_text('{"text": "good"}\n' * 8 + '{"body": "x"}\n' * 2)
    arguments = ["--train", source, "--tokenizer", "byte"]
    with pytest.raises(DataError, match=r"2 of 10 documents are invalid \(no text in .*'text': 2, first .*a.jsonl:9\)"):
        run(tmp_path / "out", *arguments)
    run(tmp_path / "out", *arguments, "--max-bad-share", 0.2)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["bad"] == {"no text in field 'text'": {"count": 2, "first": [f"{source}:9", f"{source}:10"]}}
    assert report["documents_read"] == 8


def test_the_modality_is_selected_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert data_prep.main(["--help"]) == 0
    assert "\n  text " in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"unknown modality .smells.. Choose one of .*text"):
        data_prep.main(["smells"])
    with pytest.raises(ConfigError, match="--output"):
        data_prep.main(["text", "builtin"])
