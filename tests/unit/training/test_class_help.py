"""Classes are found by the last part of their names."""

import pytest

from pipeline.errors import ConfigError
from pipeline.training.class_help import classes, with_class_paths
from pipeline.training.config import parse_config

LSTM = "pipeline.models.lstm.LSTMLanguageModel"


@pytest.mark.parametrize("name", ["LSTMLanguageModel", "lstmlanguage", LSTM])
def test_a_name_becomes_a_class_path(name: str) -> None:
    assert with_class_paths(["--run", "a", f"--model.help={name}"]) == ["--run", "a", f"--model.help={LSTM}"]
    assert with_class_paths(["--model.help", name]) == ["--model.help", LSTM]
    assert with_class_paths(["--data.help", "Series"]) == ["--data.help", "pipeline.data.series.SeriesDataModule"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.help"], "--model.help: expected a class: .*GRULanguageModel"),
        (["--model.help="], "--model.help: expected a class: .*GRULanguageModel"),
        (["--data.help", "--run"], "--data.help: expected a class: .*TextDataModule"),
        (["--model.help=LSTM"], "--model.help=LSTM: several classes match: .*LSTMLanguageModel"),
        (["--model.help", "Nothing"], "--model.help=Nothing: no such class: .*GRULanguageModel"),
    ],
)
def test_without_one_class_of_that_name_all_are_listed(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_class_paths(arguments)


def test_the_help_of_a_class_lists_the_projects_networks_and_all_optimizers(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        parse_config(["--model.help", "pipeline.tasks.forecaster.Forecaster"])
    printed = "".join(capsys.readouterr().out.split())
    assert "knownsubclasses:pipeline." in printed
    assert "pipeline.models.lstm.LSTM," in printed
    assert "torch.optim.SGD," in printed
    for foreign in ("torchmetrics.", "torch.nn.Linear"):
        assert foreign not in printed


def test_all_tasks_and_data_modules_are_found() -> None:
    assert {LSTM, "pipeline.tasks.policy.Policy"} <= set(classes("model"))
    assert len(list(classes("data"))) >= 8
