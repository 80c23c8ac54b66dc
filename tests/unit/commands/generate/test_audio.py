"""Audio files of any format are read as in training; unreadable files are named."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from pipeline.cli import main
from pipeline.commands.generate.audio import Recogniser, transcript_ngram
from pipeline.commands.generate.trained import Trained
from pipeline.data.audio import AudioDataModule
from pipeline.dataset.codecs.audio import decode
from pipeline.generation.ctc import BestPath, PrefixBeam
from pipeline.models.assemblies.keyword_spotters import ConvKeywords
from pipeline.models.assemblies.transcribers import ListenAttendSpell, LSTMTranscriber

Open = Callable[[Any, Path], tuple[AudioDataModule, Any]]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Open:
    """`opened(CLASS, DATASET)`: make `unroll generate` load an untrained model of that class."""

    def opened(model_class: Any, dataset: Path) -> tuple[AudioDataModule, Any]:
        torch.manual_seed(1)
        data = AudioDataModule(dataset)
        model = model_class(**data.facts.arguments_of(model_class), width=16, depth=1).eval()
        (tmp_path / "tokenizer.json").write_bytes(data.dataset.target.file.read_bytes())
        monkeypatch.setattr(
            "pipeline.commands.generate.audio.open_model", lambda name, checkpoint: (tmp_path, model, "cpu")
        )
        monkeypatch.setattr(Trained, "find", lambda name: Trained(name, tmp_path, model))
        return data, model

    return opened


def clip(data: AudioDataModule) -> np.ndarray:
    return decode(data.dataset.splits["train"].value("audio", 0))


def recognised(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["generate", "run", "--audio", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.numeric
def test_a_file_is_classified_whatever_its_format(
    opened: Open,
    tiny_labels_dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, model = opened(ConvKeywords, tiny_labels_dataset)
    wave = clip(data)
    nothing = torch.zeros(1, 0, 2)
    source = torch.from_numpy(wave)[None], torch.ones(1, len(wave), dtype=torch.bool), nothing, nothing
    with torch.no_grad():
        expected = model(*source)[0].softmax(-1)
    label = data.labels[int(expected.argmax())]
    soundfile.write(tmp_path / "plain.wav", wave, 8000)
    soundfile.write(tmp_path / "stereo.flac", np.stack([wave, wave], 1), 8000)
    soundfile.write(tmp_path / "float.wav", wave, 8000, subtype="FLOAT")
    files = [str(tmp_path / name) for name in ("plain.wav", "stereo.flac", "float.wav")]
    found = [json.loads(line) for line in recognised(capsys, *files, "--json")]
    assert [(each["audio"], each["text"]) for each in found] == [(file, label) for file in files]
    assert [each["probability"] for each in found] == pytest.approx([float(expected.max())] * 3, abs=2e-3)
    plain = (tmp_path / "plain.wav").read_bytes()
    piped = plain[:4] + b"\xff" * 4 + plain[8:40] + b"\xff" * 4 + plain[44:]  # a program that writes to a pipe
    for sent in (plain, piped):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(sent)))
        assert recognised(capsys, "-") == [label]


def test_files_are_resampled_to_the_rate_of_the_model(opened: Open, tiny_labels_dataset: Path, tmp_path: Path) -> None:
    opened(ConvKeywords, tiny_labels_dataset)
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(22050) / 44100)
    soundfile.write(tmp_path / "fast.wav", tone, 44100)
    wave, keep, *_ = Recogniser.open("run", "best").source(str(tmp_path / "fast.wav"))
    assert wave.shape == keep.shape == (1, 4000)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(4000) / 8000)
    assert np.abs(wave[0].numpy() - expected)[100:-100].max() < 1e-3


def test_a_file_is_transcribed_by_the_selected_search(
    opened: Open, tiny_audio_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, model = opened(LSTMTranscriber, tiny_audio_dataset)
    file = tmp_path / "a.wav"
    soundfile.write(file, clip(data), 8000)
    with torch.no_grad():
        logs = model(*Recogniser.open("run", "best").source(str(file)))[0][0].numpy()
    search = PrefixBeam(3, 0.9, 2.0).fused(transcript_ngram(data.dataset, data.tokenizer.get_vocab()), 256)
    options = ["--beam", "3", "--lm", str(data.dataset.path), "--lm-weight", "0.9", "--lm-bonus", "2"]
    for chosen, way in (([], BestPath()), (["--beam", "3"], PrefixBeam(3)), (options, search)):
        [line] = recognised(capsys, str(file), "--json", *chosen)
        expected = data.tokenizer.decode(way(logs), skip_special_tokens=False).replace("<eos>", "\n")
        assert json.loads(line) == {"audio": str(file), "text": expected}


def test_an_empty_transcript_is_printed_as_such(
    opened: Open, tiny_audio_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, model = opened(LSTMTranscriber, tiny_audio_dataset)
    with torch.no_grad():
        model.output.bias[-1] = 1e4  # the blank is certain everywhere
    names = [str(tmp_path / name) for name in ("a.wav", "b.wav")]
    for name in names:
        soundfile.write(name, clip(data), 8000)
    assert recognised(capsys, names[0]) == ["(empty)"]
    assert recognised(capsys, *names) == [f"{name}: (empty)" for name in names]
    assert json.loads(recognised(capsys, names[0], "--json")[0])["text"] == ""


def test_a_file_is_spelled(
    opened: Open, tiny_audio_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, _ = opened(ListenAttendSpell, tiny_audio_dataset)
    soundfile.write(tmp_path / "a.wav", clip(data), 8000)
    [line] = recognised(capsys, str(tmp_path / "a.wav"), "--tokens", "4", "--json")
    assert set(json.loads(line)) == {"audio", "text"}
    [varied] = recognised(capsys, str(tmp_path / "a.wav"), "--tokens", "4", "--no-repeat", "1", "--json")
    assert varied != line  # an untrained model repeats itself
    drawn = {recognised(capsys, str(tmp_path / "a.wav"), "--temperature", "9", "--seed", seed)[0] for seed in "12"}
    assert len(drawn) == 2


@pytest.mark.parametrize(
    ("model_class", "options"),
    [
        (LSTMTranscriber, ["--samples", "2"]),
        (LSTMTranscriber, ["--temperature", "0.5"]),
        (LSTMTranscriber, ["--no-repeat", "2"]),
        (LSTMTranscriber, ["--beam", "3", "--n-best", "2"]),
        (LSTMTranscriber, ["--out", "a.wav"]),
        (ListenAttendSpell, ["--lm", "x"]),
        (ListenAttendSpell, ["--no-stop"]),
    ],
)
def test_options_without_effect_are_refused(
    opened: Open,
    tiny_audio_dataset: Path,
    capsys: pytest.CaptureFixture[str],
    model_class: Any,
    options: list[str],
) -> None:
    opened(model_class, tiny_audio_dataset)
    assert main(["generate", "run", "--audio", "a.wav", *options]) == 2
    [option] = [each for each in options if each.startswith("--")][-1:]
    error = capsys.readouterr().err
    assert error.startswith(f"unroll: error: {option}: ")
    assert f"({model_class.__name__}). Its options: --audio" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "(LSTMTranscriber) takes audio as input. Give --audio FILE"),
        (["--audio", "a.wav", "--lm-weight", "1"], "--lm-weight requires --lm"),
        (["--audio", "a.wav", "--beam", "0"], "must be at least 1"),
    ],
)
def test_invalid_options_are_one_line(
    opened: Open, tiny_audio_dataset: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    opened(LSTMTranscriber, tiny_audio_dataset)
    assert main(["generate", "run", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_classifier_has_no_decoding_options(
    opened: Open, tiny_labels_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(ConvKeywords, tiny_labels_dataset)
    assert main(["generate", "run", "--audio", "a.wav", "--beam", "2"]) == 2
    assert "--beam: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "empty file"), (b"hello", "not readable as audio"), (None, "No such file")]
)
def test_an_unreadable_file_is_one_line(
    opened: Open,
    tiny_labels_dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes | None,
    message: str,
) -> None:
    opened(ConvKeywords, tiny_labels_dataset)
    if content is not None:
        (tmp_path / "x.wav").write_bytes(content)
    assert main(["generate", "run", "--audio", str(tmp_path / "x.wav")]) == 3
    error = capsys.readouterr().err
    assert f"--audio={tmp_path / 'x.wav'}: " in error
    assert message in error


def test_other_vocabularies_cannot_be_fused(
    opened: Open, tiny_audio_dataset: Path, tiny_labels_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(LSTMTranscriber, tiny_audio_dataset)
    assert main(["generate", "run", "--audio", "a.wav", "--lm", str(tiny_labels_dataset)]) == 2
    assert "with the vocabulary of the run" in capsys.readouterr().err


def test_a_dataset_of_numbers_cannot_be_fused(
    opened: Open, tiny_audio_dataset: Path, tiny_series_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(LSTMTranscriber, tiny_audio_dataset)
    assert main(["generate", "run", "--audio", "a.wav", "--lm", str(tiny_series_dataset)]) == 2
    assert f"--lm={tiny_series_dataset}: expected a dataset of transcripts" in capsys.readouterr().err
