"""A recipe runs from its files to its result, continues after a stop, and refuses other files."""

import hashlib
import json
import lzma
import math
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipeline import cli
from pipeline.commands.reproduce import command as reproduce
from pipeline.commands.reproduce import page
from pipeline.commands.reproduce.recipe import read_recipe
from pipeline.commands.reproduce.result import read_results
from pipeline.distributed import signals
from pipeline.errors import DataError

TEXT = "abcab" * 400
MODEL = {"class_path": "pipeline.models.rnn.RNNLanguageModel", "init_args": {"width": 8, "depth": 1}}
DATA = {
    "class_path": "pipeline.data.text.TextDataModule",
    "init_args": {"dataset": "data/letters", "context": 20, "global_batch_size": 4, "order": "contiguous"},
}
RECIPE = {
    "title": "Letters, RNN",
    "citation": "Doe 2020",
    "metric": "test/loss",
    "better": "lower",
    "published": 1.0,
    "band": [0.1, 5.0],
    "data": {"letters.txt": hashlib.sha256(TEXT.encode()).hexdigest()},
    "prepare": "text {data}/letters.txt --cut tail --tokenizer character --validation-share 0.2 --test-share 0.2",
    "config": ["rnn.yaml"],
    "options": ["--trainer.max_steps", 6, "--trainer.accelerator", "cpu"],
    "points": {2: 1.5, 400: 1.0},
    "cost": 0.1,
}
STOP = {"class_path": "pipeline.callbacks.fault_injection.BeforeBatch", "init_args": {"number": 15, "step": 3}}


def describe(home: Path, **changes: object) -> None:
    """Write the recipe `letters` of a checkout, with changes."""
    known = {key: value for key, value in (RECIPE | changes).items() if value is not None}
    (home / "configs" / "published" / "letters.yaml").write_text(yaml.safe_dump(known))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one recipe, in which commands run in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    trainer = {"max_epochs": -1, "val_check_interval": 2, "check_val_every_n_epoch": None}
    Path("rnn.yaml").write_text(yaml.safe_dump({"model": MODEL, "data": DATA, "trainer": trainer}))
    for folder in ("raw", "configs/published", str(page.RESULTS)):
        Path(folder).mkdir(parents=True)
    for file in (page.PAGE, page.README):
        file.write_text(f"# Title\n\n{page.BEGIN}\nold\n{page.END}\n\nend\n")
    with lzma.open("raw/letters.txt.xz", "wt") as packed:
        packed.write(TEXT)
    describe(tmp_path)
    folder = tmp_path / "configs" / "published"
    monkeypatch.setattr(reproduce, "read_recipe", lambda name: read_recipe(name, folder))
    monkeypatch.setattr(reproduce, "run_unroll", in_this_process([]))
    return tmp_path


def in_this_process(more: list[str]) -> Callable[..., int]:
    """Return a substitute of `run_unroll` with further arguments of `unroll fit`."""

    def run(arguments: list[str], meanwhile: Callable[[], object] = lambda: None) -> int:
        return cli.main([*arguments, *(more if arguments[0] == "fit" else [])])

    return run


def run(*more: str) -> int:
    return cli.main(["reproduce", "letters", "--data", "raw", *more])


def test_a_recipe_ends_in_a_result_after_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    stopped = in_this_process([f"--trainer.callbacks={json.dumps([STOP])}"])
    monkeypatch.setattr(reproduce, "run_unroll", stopped)
    assert run() == 75
    assert signals.requested() is signal.SIGTERM
    signals.forget()
    assert "letters stopped; the same command continues it" in capsys.readouterr().out
    monkeypatch.setattr(reproduce, "run_unroll", in_this_process([]))
    assert run("--seeds", "1", "2") == 0
    printed = capsys.readouterr().out
    assert "data/letters exists" in printed
    result = read_results(page.RESULTS)["letters"]
    first, second = result["seeds"].values()
    record = json.loads(Path("runs/published-letters-1/run.json").read_text())
    assert [attempt["exit_code"] for attempt in record["attempts"]] == [75, 0]
    seconds = sum(attempt["processor_seconds"] for attempt in record["attempts"])
    assert first["processor_seconds"] == pytest.approx(seconds, abs=0.1)
    assert (first["steps"], [step for step, _ in first["curve"]]) == (6, [2, 4, 6])
    assert first["points"] == {"2": first["curve"][0][1]}  # training ended before the other point
    assert f"after 2 steps: {first['curve'][0][1]:.4g}, expected 1.5" in printed
    assert result["mean"] == pytest.approx((first["figure"] + second["figure"]) / 2)
    assert first["figure"] == first["scores"]["test/loss"] != second["figure"]
    assert (result["inside"], result["published"], result["band"]) == (True, 1.0, [0.1, 5.0])
    for file, text in page.pages(home):
        assert f"| Letters, RNN | 1 | {'' if file.name == 'README.md' else '0.1 to 5 | '}{result['mean']:.4g}" in text
        assert text.endswith(f"{page.END}\n\nend\n")
        assert "old" not in text


def test_a_recipe_without_config_is_the_n_gram_and_a_figure_outside_the_band_is_shown(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    describe(home, config=None, options=None, points=None, dataset="data/letters", metric="test/perplexity")
    assert run("--output", "found") == 0
    describe(home, config=None, options=None, points=None, dataset="data/letters", metric="test/nats", band=[0, 0.01])
    capsys.readouterr()
    assert run() == 1
    assert "outside the band from 0 to 0.01" in capsys.readouterr().out
    result = read_results(page.RESULTS)["letters"]
    test = result["seeds"]["1"]["scores"]
    assert read_results(Path("found"))["letters"]["mean"] == test["test/perplexity"]
    assert test["test/perplexity"] == pytest.approx(math.exp(test["test/nats"] / test["test/tokens"]))
    assert all(", outside the band |" in text for _, text in page.pages(home))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: Path("raw/letters.txt.xz").unlink(), r"raw/letters.txt not found. .*--data DIR"),
        (lambda: Path("raw/letters.txt").write_text("abd"), r"raw/letters.txt: expected SHA-256 .* another version"),
        (lambda: Path("raw/letters.txt.xz").write_bytes(b"abd"), r"raw/letters.txt.xz cannot be unpacked"),
    ],
)
def test_a_missing_or_different_file_is_refused(change: Callable[[], object], message: str) -> None:
    change()
    with pytest.raises(DataError, match=message):
        reproduce.main(["letters", "--data", "raw"])
    assert not Path("data").exists()


def test_a_dataset_of_another_command_is_refused(home: Path) -> None:
    recipe = read_recipe("letters", home / "configs" / "published")
    files = {"letters.txt": Path("raw/letters.txt.xz")}
    assert cli.main([*recipe.preparation(files), "--documents", "line"]) == 0
    with pytest.raises(DataError, match=r"data/letters: expected a dataset of `unroll prepare text raw/letters"):
        reproduce.main(["letters", "--data", "raw"])


def test_the_exit_code_of_a_failed_command_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduce, "run_unroll", lambda arguments, **_: 0 if arguments[0] == "prepare" else 6)
    assert run() == 6
    assert read_results(page.RESULTS) == {}
