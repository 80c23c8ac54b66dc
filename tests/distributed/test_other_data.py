"""Every verb compares a run with its dataset, tokenizer and code; a dataset that was prepared again is never silent."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli import main
from tests.distributed.fixture_types import Fit

SUBMIT = ["submit", "--run", "one", "--nodes", "1", "--gpus-per-node", "0", "--time", "1:00:00", "--dry-run"]


def prepare(source: Path, output: Path, tokenizer: str | Path = "character") -> None:
    import data_prep.text.command

    parts = ["--test-share", "0.2", "--validation-share", "0.2", "--documents", "line", "--workers", "1"]
    command = [str(source), "--output", str(output), "--tokenizer", str(tokenizer), *parts]
    assert data_prep.text.command.main(command) == 0


@pytest.fixture(scope="module")
def trained(fit_in: Callable[[Path], Fit], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the run `one` on the dataset `data`, and other texts with the same characters in `other.txt`."""
    home = tmp_path_factory.mktemp("trained")
    for name, words in (("mine", "{} bottles of milk, take {} down"), ("other", "{} milk down, bottles of {} take")):
        (home / f"{name}.txt").write_text("\n".join(words.format(i, i % 7) for i in range(80)))
    prepare(home / "mine.txt", home / "data")
    steps = ["trainer.max_steps", 2, "trainer.val_check_interval", 2]
    assert fit_in(home)("one", "data.init_args.dataset", "data", *steps) == 0
    return home


@pytest.fixture
def home(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the working directory."""
    monkeypatch.chdir(shutil.copytree(trained, tmp_path / "home", symlinks=True))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    record = json.loads(Path("runs/one/run.json").read_text())
    Path("runs/one/run.json").write_text(json.dumps({**record, "path": str(Path("runs/one").resolve())}))
    return tmp_path / "home"


@pytest.mark.parametrize("same", [True, False], ids=["same tokenizer", "other tokenizer"])
def test_a_dataset_that_was_prepared_again_is_refused_by_every_verb_that_reads_it(
    home: Path, same: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("data")
    prepare(home / "other.txt", home / "data", home / "runs/one/tokenizer.json" if same else "byte")
    capfd.readouterr()
    commands = [["validate", "one"], ["test", "one"], ["diagnose", "one"], ["fit", "--run", "one"], SUBMIT]
    for command in commands:
        code = main(command)
        [error] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("unroll: error")]
        trains = command[0] in ("fit", "submit")
        assert (command[0], code) == (command[0], 4 if trains and not same else 3)
        assert ("vocab_size=257: expected" if trains and not same else "dataset data is not that of run one") in error
    assert main(["compare", "one", "--no-baseline"]) == 0
    assert "run one: its dataset data was prepared again since" in capfd.readouterr().err
    for command in (["generate", "one", "--prompt", "1", "--tokens", "2"], ["checkpoint", "export", "one"]):
        assert main([*command, *(["--output", "exported"] if command[0] == "checkpoint" else [])]) == 0


def test_other_data_is_evaluated_on_purpose_where_the_tokenizer_is_that_of_the_run(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prepare(home / "other.txt", home / "same", home / "runs/one/tokenizer.json")
    prepare(home / "other.txt", home / "bytes", "byte")
    found = []
    for verb, option in (
        ("validate", "--data.init_args.dataset"),
        ("test", "--data.dataset"),
        ("diagnose", "--dataset"),
    ):
        assert main([verb, "one", f"{option}=same"]) == 0
        printed = capfd.readouterr()
        assert "run one is evaluated on other data than its own: same, not data" in printed.err
        found.append(printed.out)
        assert main([verb, "one", f"{option}=bytes"]) == 3
        assert "dataset bytes has another tokenizer than run one. Prepare it with --tokenizer" in capfd.readouterr().err
    assert "one, step-00000002, on same:" in found[0]
    shutil.copytree("data", "moved")
    shutil.rmtree("data")
    assert main(["validate", "one", "--data.init_args.dataset", "moved"]) == 0
    assert "other data" not in capfd.readouterr().err  # the same content


def test_settings_and_files_of_a_run_are_compared(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "one", "--data.init_args.context", "8"]) == 0
    assert "evaluated with other settings than its own: data.init_args.context=8" in capfd.readouterr().err
    assert main(["validate", "one", "--model.init_args.width", "8"]) == 2
    assert "run one has another model: model.init_args.width=8, previously 16" in capfd.readouterr().err
    shard = next(Path("data").glob("validation*.arrow"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert main(["validate", "one"]) == 3
    assert f"{shard} does not match its SHA-256" in capfd.readouterr().err
    Path("runs/one/tokenizer.json").write_text("{}")
    for command in (["generate", "one", "--prompt", "1"], ["checkpoint", "export", "one", "--output", "exported"]):
        assert main(command) == 4
        error = "expected the tokenizer of run one, got another file. Copy it from data"
        assert error in capfd.readouterr().err
    assert not Path("exported").exists()


def test_a_submission_is_refused_where_the_node_would_refuse_it(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = {
        "--data.init_args.global_batch_size=8": "run one was started with another config",
        "--trainer.gradient_clip_val=1.0": "Use --allow-changes to change its results on purpose",
        "--trainer.max_steps=1": "trainer.max_steps=1: expected at least 2 steps, which run one has trained, got 1",
        "--model.init_args.optimizer.init_args.lr=-1": "model.init_args.optimizer: Invalid learning rate",
    }
    for option, message in wrong.items():
        assert main([*SUBMIT, "--", option]) == 2
        assert message in capfd.readouterr().err
    assert main([*SUBMIT, "--", "--trainer.gradient_clip_val=1.0", "--allow-changes"]) == 0
    assert "--allow-changes" in capfd.readouterr().out
    assert main(SUBMIT) == 0
    assert "run one is finished" in capfd.readouterr().err
    for place in Path("runs/one/checkpoints").iterdir():
        shutil.rmtree(place)
    assert main(SUBMIT) == 4
    assert "but run one saved checkpoints/step-00000002" in capfd.readouterr().err
