"""Several test sets by name: `--test 2017=A --test 2018=B` in every modality with splits from sources."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from pipeline.cli import main


def texts(folder: Path, number: int) -> Path:
    path = folder / f"{number}.txt"
    path.write_text("".join(f"line {at} of file {number}\n" for at in range(20)))
    return path


def pairs(folder: Path, number: int) -> Path:
    path = folder / f"{number}.tsv"
    path.write_text("source\ttarget\n" + "".join(f"s{at} of {number}\tt{at}\n" for at in range(20)))
    return path


def sounds(folder: Path, number: int) -> Path:
    made = folder / str(number)
    made.mkdir()
    rows = []
    for at in range(8):
        soundfile.write(made / f"{at}.wav", np.random.default_rng(10 * number + at).uniform(-0.5, 0.5, 4000), 8000)
        rows.append(json.dumps({"audio": f"{at}.wav", "label": f"l{at % 2}"}))
    (made / "metadata.jsonl").write_text("\n".join(rows))
    return made


def images(folder: Path, number: int) -> Path:
    made = folder / str(number)
    for at in range(8):
        (made / f"c{at % 2}").mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(10 * number + at).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(values).save(made / f"c{at % 2}" / f"{number}-{at}.png")
    return made


def captions(folder: Path, number: int) -> Path:
    made = folder / str(number)
    made.mkdir()
    rows = []
    for at in range(8):
        values = np.random.default_rng(10 * number + at).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(values).save(made / f"{number}-{at}.png")
        rows.append(json.dumps({"file_name": f"{number}-{at}.png", "text": f"picture {at}"}))
    (made / "metadata.jsonl").write_text("\n".join(rows))
    return made


MODALITIES: dict[str, tuple[Callable[[Path, int], Path], list[str]]] = {
    "text": (texts, ["--documents", "line", "--tokenizer", "byte", "--workers", "1"]),
    "pairs": (pairs, ["--tokenizer", "word"]),
    "audio": (sounds, ["--rate", "8000", "--workers", "1"]),
    "pixels": (images, []),
    "captions": (captions, ["--tokenizer", "word", "--workers", "1"]),
}


@pytest.mark.parametrize("modality", MODALITIES)
def test_each_named_test_set_is_a_split(modality: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, more = MODALITIES[modality]
    train, validation, one, two = (str(make(tmp_path, number)) for number in range(4))
    sets = ["--test", f"2017={one}", "--test", f"2018={two}"]
    arguments = ["--train", train, "--validation", validation, *sets, *more, "--output", "out"]
    assert main(["prepare", modality, *arguments]) == 0
    assert list(json.loads(Path("out/dataset.json").read_text())["splits"]) == [
        "train",
        "validation",
        "test-2017",
        "test-2018",
    ]


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("sets", [["a", "b"], ["x=a", "x=b"]])
def test_a_test_set_that_is_given_twice_is_refused(
    modality: str, sets: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word for each in sets for word in ("--test", each)]
    assert main(["prepare", modality, "--train", "t", *given, "--output", "out"]) == 2
    assert "is given twice" in capsys.readouterr().err


def train_tiny(folder: Path) -> None:
    """Train the run `a` for two steps on the dataset `data`."""
    (folder / "tiny.yaml").write_text(
        "model: {class_path: pipeline.models.rnn.RNNLanguageModel, init_args: {width: 4, depth: 1}}\n"
        "data: {class_path: pipeline.data.text.TextDataModule, init_args: {dataset: data, context: 8, "
        "global_batch_size: 2}}\n"
        "trainer: {max_steps: 2, max_epochs: -1, accelerator: cpu, logger: null}\n"
    )
    assert main(["fit", "--config", "tiny.yaml", "--run", "a"]) == 0


def test_a_dataset_without_a_test_split_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The layers are not built yet when the split is found missing."""
    monkeypatch.chdir(tmp_path)
    make, more = MODALITIES["text"]
    arguments = ["--train", str(make(tmp_path, 0)), "--validation", str(make(tmp_path, 1)), *more, "--output", "data"]
    assert main(["prepare", "text", *arguments]) == 0
    train_tiny(tmp_path)
    capsys.readouterr()
    assert main(["test", "a"]) == 2
    assert "data has no split 'test'" in capsys.readouterr().err


def test_a_run_is_tested_on_each_named_set_or_on_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make, more = MODALITIES["text"]
    train, validation, one, two = (str(make(tmp_path, number)) for number in range(4))
    sets = ["--test", f"2017={one}", "--test", f"2018={two}"]
    arguments = ["--train", train, "--validation", validation, *sets, *more, "--output", "data"]
    assert main(["prepare", "text", *arguments]) == 0
    train_tiny(tmp_path)
    capsys.readouterr()
    assert main(["test", "a"]) == 0
    printed = capsys.readouterr().out
    assert ", test-2017:" in printed
    assert ", test-2018:" in printed
    assert main(["test", "a", "--split", "2018"]) == 0
    printed = capsys.readouterr().out
    assert ", test-2017:" not in printed
    assert ", test-2018:" in printed
    assert main(["test", "a", "--split=2019"]) == 2
    assert "--split=2019: expected one of train, validation, test-2017, test-2018" in capsys.readouterr().err
