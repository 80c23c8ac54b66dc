"""Errors that checks and setup find before the first step are one line with the right exit code, by command line."""

import shutil
from pathlib import Path

import pytest
import yaml

from pipeline import cli

RUNS = Path(__file__).parents[2] / "fixtures" / "runs_0_1"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_text_dataset: Path) -> str:
    """The config of a small LSTM in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    settings = {"dataset": str(tiny_text_dataset), "order": "contiguous", "context": 10, "global_batch_size": 4}
    made = {"class_path": "pipeline.models.lstm.LSTMLanguageModel", "init_args": {"width": 8, "depth": 1}}
    data = {"class_path": "pipeline.data.text.TextDataModule", "init_args": settings}
    trainer = {"accelerator": "cpu", "devices": 1, "max_steps": 2}
    Path("a.yaml").write_text(yaml.safe_dump({"model": made, "data": data, "trainer": trainer}))
    return "a.yaml"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--trainer.val_check_interval=1000"], 2, "val_check_interval=1000 is more than the"),
        (["--trainer.val_check_interval={minutes: 1}"], 2, "val_check_interval: expected a number of steps"),
        (["--data.init_args.global_batch_size=100000"], 2, "windows of context=10"),
        (["--data.init_args.global_batch_size=3", "--trainer.devices=2"], 2, "cannot be divided among 2 processes"),
        (["--data.init_args.per_device_batch_size=0"], 2, "per_device_batch_size=0 must be at least 1"),
        (["--data.init_args.context=0"], 2, "context=0"),
        (["--data.init_args.workers=-1"], 2, "workers=-1 must be at least 0"),
        (["--data.init_args.dataset=none"], 3, "dataset none does not exist"),
        (["--model.init_args.width=0"], 2, "width"),
        (["--guard.patience=0"], 2, "patience=0 must be at least 1"),
        (["--checkpoints.keep_last=0"], 2, "keep_last=0 must be at least 1"),
        (["--freeze=nothing.*"], 2, "--freeze=nothing.*"),
        (["--from=none"], 4, "none"),
        (["--resume=perhaps"], 2, "--resume=perhaps: expected auto or never"),
        (["--trainer.accelerator=gpu"], 2, "gpu"),
    ],
)
def test_an_error_before_the_first_step_is_one_line(
    config: str, options: list[str], code: int, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["fit", "--config", config, *options]) == code
    printed = capfd.readouterr().err
    [line] = [each for each in printed.splitlines() if each.startswith("unroll: error: ")]
    assert message in line
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["test", "text", "--split", "2017"], 2, "--split=2017: expected one of"),
        (["validate", "text", "--data.init_args.dataset", "none"], 3, "none"),
        (["test", "nobody"], 4, "nobody"),
        (["generate", "text", "--prompt", "a", "--temperature", "0"], 2, "temperature"),
    ],
)
def test_an_error_of_an_evaluation_is_one_line(
    words: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(RUNS, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == code
    printed = capfd.readouterr().err
    [line] = [each for each in printed.splitlines() if each.startswith("unroll: error: ")]
    assert message in line
    assert "Traceback" not in printed


def test_a_missing_test_split_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(RUNS, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    Path("my.txt").write_text("".join(f"the cat has {n} lives and the dog has {n + 1}\n" for n in range(300)))
    tokenizer = next(Path("runs/text").glob("tokenizer.json"))
    given = ["my.txt", "--output", "data/mine", "--cut", "tail", "--test-share", "0", "--tokenizer", str(tokenizer)]
    assert cli.main(["prepare", "text", *given]) == 0
    assert cli.main(["test", "text", "--data.init_args.dataset", "data/mine"]) == 2
    printed = capfd.readouterr().err
    [line] = [each for each in printed.splitlines() if each.startswith("unroll: error: ")]
    assert "has no split 'test': prepare it with --test or --test-share" in line
    assert "Traceback" not in printed
