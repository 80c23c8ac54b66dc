"""The options of all modalities have one form, and a value out of range is a one-line error."""

import argparse
from importlib import import_module
from pathlib import Path

import pytest

import data_prep
from data_prep.workspace import tokenizer
from pipeline.arguments import fraction, non_negative_integer, non_negative_number, positive_integer, positive_number
from pipeline.cli import main

OUT_OF_RANGE = {
    fraction: ["-5", "1", "1.5", "nan", "inf", "x"],
    non_negative_number: ["-5", "nan", "x"],
    positive_number: ["0", "-5", "nan", "inf", "x"],
    non_negative_integer: ["-5", "1.5", "nan", "x"],
    positive_integer: ["0", "-5", "1.5", "nan", "x"],
}
OWN = {"levels": int, "action_range": float}  # one of three choices; two numbers of any sign
DEFAULTS = {"text": 0.05, "pairs": 0.05, "captions": 0.05, "audio": 0.05, "pixels": 0.05, "series": 0.2}
DEFAULTS |= {"trajectories": 0.1, "music": 0.1}


def options_of(modality: str) -> dict[str, argparse.Action]:
    """Return all options of a modality, by name."""
    parser: argparse.ArgumentParser = import_module(f"data_prep.{modality}.command")._parser()
    return {action.dest: action for action in parser._actions if action.option_strings and action.dest != "help"}


OPTIONS = {modality: options_of(modality) for modality in data_prep.MODALITIES}
MISTAKES = [
    (modality, action.option_strings[0], value, action.nargs if isinstance(action.nargs, int) else 1)
    for modality, options in OPTIONS.items()
    for action in options.values()
    for value in OUT_OF_RANGE.get(action.type, [])  # type: ignore[call-overload]
]


@pytest.mark.parametrize(("modality", "option", "value", "times"), MISTAKES)
def test_a_value_out_of_range_is_one_line(
    modality: str, option: str, value: str, times: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", modality, option, *[value] * times]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"unroll: error: argument {option}: expected a")
    assert line.endswith(f", got {value}; see `unroll prepare {modality} --help`")


@pytest.mark.parametrize("modality", OPTIONS)
def test_every_number_has_a_range(modality: str) -> None:
    assert any(modality == mistake[0] for mistake in MISTAKES)
    for name, action in OPTIONS[modality].items():
        if action.type in (int, float):
            assert OWN.get(name) is action.type
        if not isinstance(action.default, bool) and isinstance(action.default, int | float):
            assert action.type in OUT_OF_RANGE or name in OWN


@pytest.mark.parametrize("modality", OPTIONS)
def test_help_names_the_default_once(modality: str) -> None:
    for action in OPTIONS[modality].values():
        assert action.help is not None
        help_text = action.help.replace("%(default)s", str(action.default))
        assert help_text.count("(default: ") == help_text.count("default") <= 1
        assert action.default in (None, False, []) or action.help.count("(default: ") == 1 or action.required


def test_shared_options_are_the_same_everywhere() -> None:
    different = {"train", "validation", "test", "size"}  # numbers of samples in recall; one side or two in images
    for name in {name for options in OPTIONS.values() for name in options} - different:
        same = [options[name] for options in OPTIONS.values() if name in options]
        assert len({(action.type, action.nargs, str(action.metavar), action.required) for action in same}) == 1, name


@pytest.mark.parametrize("modality", OPTIONS)
def test_shared_options_have_the_documented_defaults(modality: str) -> None:
    options = OPTIONS[modality]
    assert [options[name].option_strings for name in ("output", "overwrite")] == [["--output"], ["--overwrite"]]
    for name in ("validation_share", "test_share"):
        assert (options[name].default if name in options else None) == DEFAULTS.get(modality)
    if "max_bad_share" in options:
        assert options["max_bad_share"].default == 0.01
    if "tokenizer" in options:
        assert options["tokenizer"].default == ("character" if modality == "audio" else "bpe")
        assert options["vocab_size"].default is None
        assert f"{tokenizer.VOCAB_SIZE} for bpe and unigram" in str(options["vocab_size"].help)


@pytest.mark.parametrize("modality", DEFAULTS)
def test_shares_must_leave_training_data(
    modality: str, capsys: pytest.CaptureFixture[str], tmp_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = ["--train", "none"] if modality == "pairs" else ["none"]
    shares = ["--validation-share", "0.6", "--test-share", "0.4"]
    assert main(["prepare", modality, *source, *shares, "--output", "out"]) == 2
    expected = "--validation-share=0.6 --test-share=0.4: the sum must be below 1 to leave training data"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("modality", ["audio", "captions", "music", "pixels", "text"])
@pytest.mark.parametrize("given", [[""], ["--train", "a", "--test", ""], ["--train", "a", "--test", "b="]])
def test_an_empty_source_is_not_the_current_directory(
    modality: str, given: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", modality, *given, "--output", "out"]) in (2, 3)
    error = capsys.readouterr().err
    assert "got an empty text" in error or given[-1] == "b="
    assert error.count("\n") == 1


@pytest.mark.parametrize("modality", ["pairs", "text"])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_repeated_option_that_would_drop_its_first_values_is_refused(
    modality: str, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", modality, f"--{split}", "a", "b", f"--{split}", "c", "--output", "out"]) == 2
    assert f"--{split} is given twice. Write all its values after one --{split}" in capsys.readouterr().err
