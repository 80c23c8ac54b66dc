"""Runs and exports of version 0.1 open as they did; a config with a class path of that layout is one line."""

import json
import shutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import cli
from pipeline.distributed.checkpoint.directory import read_state
from pipeline.runs.journal import read_journal
from pipeline.runs.moved import MOVED, RENAMED, SPLIT, complaint, new_path, update_config, update_row
from pipeline.tasks.task import Task

LAYOUT = Path(__file__).parents[3] / "tests" / "fixtures" / "runs_0_1"
EXPECTED = json.loads((LAYOUT / "expected.json").read_text())
RUNS = sorted(EXPECTED)


@pytest.fixture(autouse=True)
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the runs, exports and datasets of version 0.1."""
    shutil.copytree(LAYOUT, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    return tmp_path


def class_paths(tree: Any) -> list[str]:
    """All strings of a config that name something of this package."""
    if isinstance(tree, dict | list):
        parts = tree.values() if isinstance(tree, dict) else tree
        return [path for part in parts for path in class_paths(part)]
    return [tree] if isinstance(tree, str) and tree.startswith("pipeline.") else []


def metrics(run: str, step: int) -> dict[str, float]:
    manifest = json.loads(Path(f"runs/{run}/checkpoints/step-{step:08d}/manifest.json").read_text())
    return dict(manifest["metrics"])


def test_every_module_is_where_the_table_says() -> None:
    assert [new for new in MOVED.values() if find_spec(new) is None] == []


def test_every_class_has_the_name_that_the_table_says() -> None:
    for old, new in RENAMED.items():
        module, _, name = new.rpartition(".")
        assert isinstance(getattr(import_module(module), name), type)
        assert not hasattr(import_module(module), old.rpartition(".")[2])


def test_a_class_that_was_renamed_in_a_module_that_was_moved() -> None:
    new = "pipeline.evaluation.caption_scores.METEORWithoutSynonyms"
    assert update_config(["pipeline.caption_scores.METEOR"]) == [new]
    assert complaint("no class pipeline.evaluation.caption_scores.METEOR") == (
        f"pipeline.evaluation.caption_scores.METEOR has moved: use {new}"
    )
    assert new_path(new) is None


@pytest.mark.parametrize("file", sorted(path.relative_to(LAYOUT) for path in LAYOUT.rglob("config.yaml")), ids=str)
def test_every_class_path_of_an_old_config_leads_to_a_class(file: Path) -> None:
    config = yaml.safe_load((LAYOUT / file).read_text())
    paths, before = class_paths(update_config(config)), class_paths(config)
    assert len(paths) == len(before) + len(SPLIT.keys() & before) > 1
    for path in paths:
        module, _, name = path.rpartition(".")
        assert isinstance(getattr(import_module(module), name), type)
    assert update_config(update_config(config)) == update_config(config)


def test_new_names_that_begin_like_old_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MOVED, "pipeline.before", "pipeline.before.now")
    assert new_path("pipeline.before.Thing") == "pipeline.before.now.Thing"
    assert new_path("pipeline.before.now.Thing") is None
    assert new_path("torch.optim.AdamW") is None
    found = complaint("pipeline.before.now.Other, pipeline.before.Thing")
    assert found == "pipeline.before.Thing has moved: use pipeline.before.now.Thing"


@pytest.mark.parametrize("run", RUNS)
def test_an_old_run_is_validated_to_the_metrics_that_its_checkpoint_holds(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["validate", "--run", run]) == 0
    printed = capsys.readouterr().out
    for name, value in metrics(run, 8).items():
        [line] = [line for line in printed.splitlines() if line.strip().startswith(name)]
        assert float(line.strip().removeprefix(name)) == pytest.approx(value, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("place", ["{}", "exported/{}"])
@pytest.mark.parametrize(("run", "more"), [("text", ["--greedy", "--tokens", "20"]), ("pairs", ["--tokens", "6"])])
def test_an_old_run_and_its_export_write_what_they_wrote(
    run: str, more: list[str], place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = EXPECTED[run]["prompt"]
    assert cli.main(["generate", place.format(run), "--prompt", prompt, "--json", *more]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == EXPECTED[run]["greedy"]


@pytest.mark.parametrize("place", ["series", "exported/series"])
def test_an_old_run_and_its_export_forecast_what_they_forecast(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["generate", place, "--history", "history.csv"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [float(row.split(",")[2]) for row in rows] == pytest.approx(EXPECTED["series"]["mean"], rel=1e-3)


@pytest.mark.parametrize("run", RUNS)
def test_an_old_export_opens_in_python(run: str) -> None:
    assert not Task.from_pretrained(f"exported/{run}").training


@pytest.mark.parametrize("run", RUNS)
def test_an_old_run_goes_on_to_the_loss_that_it_had_then(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_state(Path(f"runs/{run}/checkpoints/step-00000008"))["callbacks"]
    assert cli.main(["fit", "--run", run, "--trainer.max_steps", "12"]) == 0
    printed = capsys.readouterr().out
    assert f"run {run}: continuing at step 8" in printed
    assert printed.startswith("unroll fit: loading\n")
    assert f"run {run} finished: runs/{run}, best checkpoint step-000000" in printed
    assert printed.endswith(f"next: unroll test {run}; unroll generate {run} --help; unroll compare {run}\n")
    assert metrics(run, 12)["val/loss"] == pytest.approx(EXPECTED[run]["loss_at_12"], rel=1e-4)
    after = read_state(Path(f"runs/{run}/checkpoints/step-00000012"))["callbacks"]
    assert after.keys() >= before.keys()
    if run == "text":
        assert (before["ExponentialAverage"]["count"], after["ExponentialAverage"]["count"]) == (8, 12)
    config = Path(f"runs/{run}/config.yaml").read_text()
    assert [path for path in class_paths(yaml.safe_load(config)) if new_path(path)] == []


def test_the_config_file_of_an_old_run_is_read_as_the_run_is(capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--run", "pairs", "--trainer.max_steps", "9"]
    assert cli.main(["fit", "--config", "runs/pairs/config.yaml", *more]) == 0
    assert "run pairs: continuing at step 8" in capsys.readouterr().out


def test_an_old_class_path_of_a_user_is_one_line_with_the_new_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(MOVED, "pipeline.before", "pipeline.now")
    old = "pipeline.before.Thing"
    Path("mine.yaml").write_text(f"# {old}\nmodel: {{init_args: {{deep: [{{class_path: {old}}}]}}}}\n")
    Path("new.yaml").write_text("seed_everything: 1\n")
    for arguments in (["--config", "mine.yaml"], ["--config", "new.yaml", f"--model.init_args.head={old}"]):
        assert cli.main(["fit", *arguments, "--run", "new"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "pipeline.before.Thing has moved: use pipeline.now.Thing" in error
    assert not Path("runs/new").exists()


OLD_KEYS = [
    ("{data: {init_args: {cut: lanes}}}", "data.cut was renamed: use data.order (lanes is now contiguous)"),
    ("{guard: {returns: 2}}", "guard.returns was renamed: use guard.max_rollbacks"),
    ("{execution: {recompute: true}}", "execution.recompute was renamed: use execution.activation_checkpointing"),
    ("{model: {init_args: {head: {tar_weight: 1, slowness_penalty: 1}}}}", "use head.tar_weight"),
    ("{model: {init_args: {saying: {reach: 1}}}}", "model.saying was renamed: use model.forecast"),
]


@pytest.mark.parametrize(("config", "message"), OLD_KEYS)
def test_an_old_key_of_a_user_is_one_line_with_the_new_one(
    config: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yaml").write_text(config)
    assert cli.main(["fit", "--config", "mine.yaml", "--run", "new"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not Path("runs/new").exists()


@pytest.mark.parametrize("option", ["--data.init_args.cut=lanes", "--data.cut=lanes"])
def test_an_old_key_on_the_command_line_is_one_line_too(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("new.yaml").write_text("seed_everything: 1\n")
    assert cli.main(["fit", "--config", "new.yaml", option, "--run", "new"]) == 2
    assert "data.cut was renamed: use data.order (lanes is now contiguous)\n" in capsys.readouterr().err


def test_keys_of_an_old_config_have_their_names_of_today() -> None:
    forecast = {"saying": {"outcome": {"class_path": "pipeline.outcomes.Gaussian"}, "reach": 2, "paths": 7}}
    policy = {"conditioned": False, "playing": {"asked": 3.0}, "head": {"activation_penalty": 2.0}}
    old = {
        "model": {"init_args": {**forecast, **policy, "sampled_inputs": 0.5}},
        "data": {"init_args": {"cut": "windows", "dataset": "cut"}},
        "guard": {"returns": 3, "patience": 5},
        "execution": {"recompute": True},
    }
    likelihood = {"class_path": "pipeline.tasks.likelihoods.Gaussian"}
    assert update_config(old) == {
        "model": {
            "init_args": {
                "forecast": {"likelihood": likelihood, "chunk_length": 2, "num_samples": 7},
                "return_conditioned": False,
                "rollout": {"target_return": 3.0},
                "head": {"ar_weight": 2.0},
                "scheduled_sampling": 0.5,
            }
        },
        "data": {"init_args": {"order": "shuffled", "dataset": "cut"}},
        "guard": {"max_rollbacks": 3, "patience": 5},
        "execution": {"activation_checkpointing": True},
    }


def test_rows_of_an_old_journal_have_the_keys_of_today() -> None:
    assert read_journal(Path("runs/text")).last("train/skipped_steps") == 0
    old = {"kind": "fault", "fault": "went back", "train/refused_steps": 1.0}
    assert update_row(old) == {"kind": "fault", "fault": "rolled_back", "train/skipped_steps": 1.0}
