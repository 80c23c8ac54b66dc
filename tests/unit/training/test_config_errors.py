"""Each config error is one line that names the key and suggests the closest valid one."""

from pathlib import Path

import pytest

from pipeline.errors import ConfigError, DataError
from pipeline.models.assemblies.keyword_spotters import ConvKeywords
from pipeline.models.assemblies.transcribers import LSTMTranscriber
from pipeline.training.config import parse_config
from pipeline.training.config_errors import read_mapping

LSTM = str(Path(__file__).parents[3] / "configs" / "text" / "lstm.yaml")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.init_args.widht", "3", "model: LSTMLanguageModel has no argument 'widht'; did you mean width?"),
        ("model.init_args.width", "three", "model.init_args.width: expected int, got 'three'"),
        ("model.init_args.head.teid", "true", "LSTMLanguageModel has no argument 'head.teid'; did you mean head.tied?"),
        (
            "model.init_args.optimizer.init_args.lrr",
            "1",
            "AdamW has no argument 'lrr'; did you mean lr?",
        ),
        ("model.init_args.optimizer", "Adamm", "'Adamm' is not a class: expected a full path such as torch.optim.Adam"),
        ("model", "pipeline.models.lstm.LSTMLanguageModl", "has no LSTMLanguageModl; did you mean LSTMLanguageModel?"),
        ("model", "pipeline.modles.lstm.LSTM", "module pipeline.modles not found"),
        (
            "data.init_args.order",
            "contiguos",
            "expected contiguous or shuffled or documents, got 'contiguos'; did you mean contiguous?",
        ),
        ("data.init_args.zzz", "1", "has no argument 'zzz'; it has dataset, order, context, global_batch_size"),
        ("trainer.gradient_clip_val", "lots", "trainer.gradient_clip_val: expected int or float, got 'lots'"),
        ("trainer.max_step", "3", "unknown option --trainer.max_step; did you mean --trainer.max_steps?"),
        ("confg", "3", "unknown option --confg; did you mean --config?"),
    ],
)
def test_a_wrong_key_or_value_is_named(key: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(["--config", LSTM, f"--{key}", value])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("trainer:\n  max_stps: 4\n", "unknown key trainer.max_stps; did you mean trainer.max_steps?"),
        ("modle: {init_args: {width: 3}}\n", "unknown key 'modle'; did you mean model?"),
        ("trainer:\n  max_steps: [1}\n", "mine.yaml, line 2 is not valid YAML: expected ',' or ']', but got '}'"),
        ("just text\n", "mine.yaml is not a mapping of keys to values"),
        ("- a\n", "mine.yaml is not a mapping of keys to values"),
        ("trainer: {max_steps: 1}\n", "the config has no data, model: use --config"),
    ],
)
def test_a_wrong_file_is_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    configs = ["--config", str(tmp_path / "mine.yaml")]
    with pytest.raises(ConfigError) as raised:
        parse_config(configs if "max_steps: 1" in content else [f"--config={LSTM}", *configs])
    assert message in str(raised.value)


def test_for_a_missing_file_one_of_a_similar_name_is_suggested() -> None:
    with pytest.raises(ConfigError, match=r"lstmm.yaml: No such file or directory; did you mean .*lstm.yaml\?"):
        parse_config(["--config", LSTM.replace("lstm", "lstmm")])
    with pytest.raises(ConfigError, match=r"text: Is a directory"):
        parse_config([f"--config={Path(LSTM).parent}"])
    with pytest.raises(ConfigError, match=r"unknown argument .*lstm.yaml: use --config"):
        parse_config([LSTM])


def test_a_dataset_of_the_wrong_kind_is_a_data_error(tiny_captions_dataset: Path) -> None:
    gru = Path(LSTM).parents[1] / "pairs" / "gru.yaml"
    with pytest.raises(DataError, match="expected kind 'pairs', got 'captions'"):
        parse_config([f"--config={gru}", f"--data.init_args.dataset={tiny_captions_dataset}"]).build()


def test_labels_and_transcripts_are_not_taken_for_each_other() -> None:
    with pytest.raises(DataError, match="a classifier requires labels"):
        ConvKeywords(classes=0, rate=8000)
    with pytest.raises(DataError, match="a transcriber requires transcripts"):
        LSTMTranscriber(vocab_size=0, rate=8000)


def test_a_key_that_a_config_has_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("trainer: {max_steps: 1}\nmodel: {}\ntrainer: {max_steps: 2}\n")
    with pytest.raises(ConfigError, match=r"line 3 .*the key trainer is also in line 1"):
        read_mapping(path)
    path.write_text("trainer: {max_steps: 1, max_steps: 2}\n")
    with pytest.raises(ConfigError, match=r"line 1 .*the key max_steps is also in line 1"):
        read_mapping(path)
    path.write_text("a: &a {x: 1}\nb: {<<: *a, y: 2}\n")
    assert read_mapping(path) == {"a": {"x": 1}, "b": {"x": 1, "y": 2}}


def test_a_config_that_is_missing_is_suggested_from_those_that_are_shipped() -> None:
    with pytest.raises(ConfigError, match=r"did you mean text/lstm.yaml"):
        read_mapping(Path("text/lstmm.yaml"))
