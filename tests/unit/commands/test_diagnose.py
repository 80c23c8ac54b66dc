"""`unroll diagnose` measures runs; diagnoses during training do not change the weights."""

import json
from pathlib import Path

import pytest
import torch

from pipeline import cli
from pipeline.commands.diagnose import by_quarter
from pipeline.runs.load import load_model

CONFIGS = Path(__file__).parents[3] / "configs"
QUICK = ["--config", str(CONFIGS / "run/cpu.yaml"), "--trainer.max_steps", "4", "--trainer.val_check_interval", "4"]
SMALL = ["--model.init_args.width", "16", "--model.init_args.depth", "1", "--data.init_args.context", "12"]


@pytest.fixture
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")


def fit(config, dataset, name, *more):
    arguments = ["--config", str(CONFIGS / config), *QUICK, "--data.init_args.dataset", str(dataset), "--run", name]
    assert cli.main(["fit", *arguments, *more]) == 0
    return Path("runs") / name


def measured(run):
    rows = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == "diagnosis"]


@pytest.mark.numeric
@pytest.mark.slow
@pytest.mark.usefixtures("_here")
def test_a_run_that_is_diagnosed_learns_the_same(tiny_text_dataset, capsys):
    plain = fit("text/lstm.yaml", tiny_text_dataset, "plain", *SMALL)
    watched = fit("text/lstm.yaml", tiny_text_dataset, "watched", *SMALL, "--tracking.diagnosis", "2")
    weights = [load_model(run, "last").state_dict() for run in (plain, watched)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert measured(plain) == []
    assert [row["step"] for row in measured(watched)] == [2, 4]
    assert measured(watched)[1]["diagnosis"]["field"] == 12
    assert (watched / "pictures/step-00000004-diagnosis-1.png").is_file()

    capsys.readouterr()
    assert cli.main(["diagnose", "plain", "watched", "--sequences", "8", "--checkpoint", "last"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("| layers.0 forget |") + printed.count("layers.0 forget") >= 2
    found = json.loads((watched / "diagnosis.json").read_text())
    assert found["gradient"] == pytest.approx(measured(watched)[1]["diagnosis"]["gradient"], rel=1e-5)
    assert (watched / "diagnosis.png").is_file()
    assert cli.main(["diagnose", "plain", "--context", "30", "--picture", "all.png"]) == 0
    assert json.loads((plain / "diagnosis.json").read_text())["positions"] == 30
    assert Path("all.png").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("_here")
def test_a_resumed_run_does_not_repeat_its_last_diagnosis(tiny_text_dataset):
    halves = ["--data.init_args.global_batch_size", "8", "--data.init_args.per_device_batch_size", "4"]
    for steps in ("2", "4"):
        often = ["--tracking.diagnosis", "2", "--trainer.max_steps", steps]
        run = fit("text/lstm.yaml", tiny_text_dataset, "run", *SMALL, *halves, *often)
    assert [row["step"] for row in measured(run)] == [2, 4]


@pytest.mark.usefixtures("_here")
def test_a_forecaster_is_diagnosed_from_its_first_prediction(tiny_series_dataset, capsys):
    sizes = [
        "--data.init_args.context",
        "10",
        "--data.init_args.horizon",
        "4",
        "--data.init_args.global_batch_size",
        "8",
    ]
    fit("series/lstm.yaml", tiny_series_dataset, "series", *sizes, "--model.init_args.forecast.chunk_length", "2")
    assert cli.main(["diagnose", "series", "--sequences", "6"]) == 0
    found = json.loads(Path("runs/series/diagnosis.json").read_text())
    assert found["positions"] == 10 + 4 - 2
    assert [value is not None for value in found["loss"]] == [False] * 9 + [True, False, True]
    assert len(found["gradient"]) == 12


@pytest.mark.usefixtures("_here")
def test_what_cannot_be_diagnosed_is_one_line(tiny_pairs_dataset, capsys):
    arguments = [
        "fit",
        "--config",
        str(CONFIGS / "pairs/lstm.yaml"),
        "--data.init_args.dataset",
        str(tiny_pairs_dataset),
    ]
    assert cli.main([*arguments, *QUICK, "--tracking.diagnosis", "2", "--run", "pairs"]) == 2
    assert "cannot be diagnosed" in capsys.readouterr().err
    assert cli.main(["diagnose", "nothing"]) == 4
    assert "no run 'nothing'" in capsys.readouterr().err
    assert cli.main(["diagnose", "pairs", "--sequences", "0"]) == 2


def test_the_loss_by_quarter_leaves_out_what_is_not_predicted():
    assert by_quarter([None] * 6 + [2.0, 4.0]) == [3.0]
    assert by_quarter([1.0, 2.0, 3.0, 4.0]) == [1.0, 2.0, 3.0, 4.0]
