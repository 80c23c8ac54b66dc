"""Each mistake that a newcomer makes in a config is one line, which names the key and what was meant."""

from pathlib import Path

import pytest

from pipeline.errors import ConfigError, DataError
from pipeline.models.assemblies.keyword_spotters import ConvKeywords
from pipeline.models.assemblies.transcribers import LSTMTranscriber
from pipeline.training.config import parse_config

LSTM = str(Path(__file__).parents[3] / "configs" / "text" / "lstm.yaml")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model.init_args.widht", "3", "model: LSTMLanguageModel takes no 'widht'; did you mean width?"),
        ("model.init_args.width", "three", "model.init_args.width: wants int, not 'three'"),
        ("model.init_args.head.teid", "true", "model: LSTMLanguageModel takes no 'head.teid'; did you mean head.tied?"),
        (
            "model.init_args.optimizer.init_args.lrr",
            "1",
            "AdamW takes no 'lrr'; did you mean lr?",
        ),
        ("model.init_args.optimizer", "Adamm", "'Adamm' is no class: name one with its module, as torch.optim.AdamW"),
        ("model", "pipeline.models.lstm.LSTMLanguageModl", "has no LSTMLanguageModl; did you mean LSTMLanguageModel?"),
        ("model", "pipeline.modles.lstm.LSTM", "there is no module pipeline.modles"),
        (
            "data.init_args.order",
            "lane",
            "wants lanes or windows or documents, not 'lane'; did you mean lanes?",
        ),
        ("data.init_args.zzz", "1", "TextDataModule takes no 'zzz'; it takes dataset, cut, context, global_batch_size"),
        ("trainer.gradient_clip_val", "lots", "trainer.gradient_clip_val: wants int or float, not 'lots'"),
        ("trainer.max_step", "3", "there is no option --trainer.max_step; did you mean --trainer.max_steps?"),
        ("confg", "3", "there is no option --confg; did you mean --config?"),
    ],
)
def test_a_wrong_key_or_value_is_named(key: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(["--config", LSTM, f"--{key}", value])
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("trainer:\n  max_stps: 4\n", "there is no key trainer.max_stps; did you mean trainer.max_steps?"),
        ("modle: {init_args: {width: 3}}\n", "there is no key 'modle'; did you mean model?"),
        ("trainer:\n  max_steps: [1}\n", "mine.yaml, line 2 is no YAML: expected ',' or ']', but got '}'"),
        ("just text\n", "mine.yaml holds no keys with values"),
        ("- a\n", "mine.yaml holds no keys with values"),
        ("trainer: {max_steps: 1}\n", "the config names no data, model: give an experiment"),
    ],
)
def test_a_wrong_file_is_named(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    configs = ["--config", str(tmp_path / "mine.yaml")]
    with pytest.raises(ConfigError) as raised:
        parse_config(configs if "max_steps: 1" in content else [f"--config={LSTM}", *configs])
    assert said in str(raised.value)


def test_a_file_that_is_not_there_is_told_from_one_of_a_similar_name() -> None:
    with pytest.raises(ConfigError, match=r"lstmm.yaml: No such file or directory; did you mean .*lstm.yaml\?"):
        parse_config(["--config", LSTM.replace("lstm", "lstmm")])
    with pytest.raises(ConfigError, match=r"text: Is a directory"):
        parse_config([f"--config={Path(LSTM).parent}"])
    with pytest.raises(ConfigError, match=r"lstm.yaml is no option: give it as --config"):
        parse_config([LSTM])


def test_a_dataset_of_another_kind_is_a_mistake_of_the_data_not_of_the_config(tiny_captions_dataset: Path) -> None:
    gru = Path(LSTM).parents[1] / "pairs" / "gru.yaml"
    with pytest.raises(DataError, match="expected kind 'pairs', got 'captions'"):
        parse_config([f"--config={gru}", f"--data.init_args.dataset={tiny_captions_dataset}"]).build()


def test_labels_and_transcripts_are_not_taken_for_each_other() -> None:
    with pytest.raises(DataError, match="a classifier learns labels"):
        ConvKeywords(classes=0, rate=8000)
    with pytest.raises(DataError, match="a transcriber learns transcripts"):
        LSTMTranscriber(vocab_size=0, rate=8000)
