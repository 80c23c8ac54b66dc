"""Models of raw audio: label conditioning through the carried state, and generation."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from pipeline.cli import main
from pipeline.commands.generate.sound import AudioGenerator
from pipeline.commands.generate.trained import Trained
from pipeline.data.documents import Documents
from pipeline.data.raw_audio import WaveDataModule
from pipeline.dataset.codecs import audio
from pipeline.generation.sampling import Greedy, Limits
from pipeline.models.conv import ConvNet
from pipeline.models.lstm import LSTM, LSTMLanguageModel
from pipeline.tasks.wave_model import WaveModel

NETWORKS = {"ConvNet": partial(ConvNet, depth=4, cycle=4), "LSTM": partial(LSTM, depth=1)}
every_network = pytest.mark.parametrize("name", NETWORKS)


def build(name: str, labels: int = 3) -> WaveModel:
    torch.manual_seed(1)
    return WaveModel(NETWORKS[name](width=16), 257 + labels, 8000).double().eval()


def tokens() -> torch.Tensor:
    """Two streams: clips with their labels in front."""
    torch.manual_seed(2)
    rows = torch.randint(256, (2, 40))
    rows[0, [0, 17]] = torch.tensor([257, 259])
    rows[0, 16], rows[1, 30], rows[1, 31] = 256, 256, 258
    return rows


@pytest.mark.numeric
@every_network
def test_reading_in_pieces_equals_reading_at_once(name: str) -> None:
    model, read = build(name), tokens()
    whole, _ = model(read)
    state, pieces = None, []
    for piece in read.split([1, 15, 4, 20], 1):
        logits, state = model(piece, state)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=1e-10)


@every_network
def test_the_label_conditions_positions_beyond_the_receptive_field(name: str) -> None:
    model = build(name)
    read = torch.randint(256, (1, 60)).repeat(2, 1)
    read[:, 0] = torch.tensor([257, 258])
    logits, _ = model(read)
    assert (logits[0, -1] - logits[1, -1]).abs().max() > 1e-6  # a ConvNet of 4 layers sees 16 samples


@pytest.mark.numeric
@every_network
def test_a_clip_is_not_conditioned_on_the_label_before_it(name: str) -> None:
    model, read = build(name), tokens()[:1]
    starts = torch.zeros_like(read, dtype=torch.bool)
    starts[0, 16] = True  # the EOS of the previous clip is the first input of the next one
    whole, _ = model(read, None, Documents.of(starts.numpy()))
    alone, _ = model(read[:, 16:])
    torch.testing.assert_close(whole[:, 16:], alone, rtol=0, atol=1e-10)


@pytest.mark.numeric
def test_without_labels_it_is_the_language_model() -> None:
    torch.manual_seed(1)
    plain = LSTMLanguageModel(257, width=16, depth=1).double().eval()
    assert torch.equal(build("LSTM", 0)(tokens().clamp(max=256))[0], plain(tokens().clamp(max=256))[0])


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_labels_dataset: Path) -> WaveModel:
    """A model of 16 labels that `unroll generate` opens."""
    torch.manual_seed(1)
    model = WaveModel(ConvNet(width=16, depth=4, cycle=4), 273, 8000).eval()
    (tmp_path / "tokenizer.json").write_bytes((tiny_labels_dataset / "tokenizer.json").read_bytes())
    monkeypatch.setattr(
        "pipeline.commands.generate.sound.open_model", lambda name, checkpoint: (tmp_path, model, "cpu")
    )
    monkeypatch.setattr(Trained, "find", lambda name: Trained(name, tmp_path, model))
    return model


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_sound_is_written_as_it_was_drawn(
    spoken: WaveModel, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / f"a.{suffix}"
    command = ["generate", "run", "--out", str(file), "--prompt", "7", "--seconds", "0.05", "--no-stop", "--greedy"]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{file}: 0.05 s at 8000 Hz\n"
    samples, rate = soundfile.read(file)
    assert rate == 8000
    read = [256, 257 + sorted("123A456B789C*0#D").index("7")]
    with torch.no_grad():
        for _ in range(100):  # without a cache: all is read again for every sample
            read.append(int(spoken(torch.tensor([read]))[0][0, -1, :256].argmax()))
    expected = audio.expand(np.array(read[2:], np.uint8))
    assert len(samples) == 400
    assert np.abs(samples[: len(expected)] - expected).max() < 1e-4


def test_a_clip_ends_at_eos(spoken: WaveModel) -> None:
    with torch.no_grad():
        spoken.output.bias[256] = 1e4
    assert len(AudioGenerator.open("run", "best").levels([256, 257], Greedy(), Limits(50, eos=256), 0)) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", "7"], "(WaveModel) generates audio. Give --out FILE.wav"),
        (["--out", "a.mp3", "--prompt", "7"], "expected a .wav or .flac file"),
        (["--out", "a.wav", "--prompt", "eight"], "choose from #, *, 0, 1"),
        (["--out", "a.wav"], "--prompt=: not a label"),
        (["--out", "a.wav", "--prompt", "7", "--beam", "2"], "(WaveModel). Its options: "),
        (["--out", "a.wav", "--prompt", "7", "--samples", "2"], "--samples: "),
        (["--out", "a.wav", "--prompt", "7", "8"], "--prompt: expected one label, got 2"),
    ],
)
def test_invalid_options_are_one_line_errors(
    spoken: WaveModel, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "run", *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.numeric
def test_bits_per_sample_are_those_of_the_levels(
    tiny_labels_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("e.yaml").write_text("seed_everything: 1\n")
    options = {
        "model": "pipeline.tasks.wave_model.WaveModel",
        "model.init_args.network": "pipeline.models.lstm.LSTM",
        "model.init_args.network.init_args.width": "16",
        "model.init_args.network.init_args.depth": "1",
        "data": "pipeline.data.raw_audio.WaveDataModule",
        "data.init_args.dataset": str(tiny_labels_dataset),
        "data.init_args.labels": "true",
        "data.init_args.order": "contiguous",
        "data.init_args.context": "256",
        "data.init_args.global_batch_size": "16",
        "trainer.max_steps": "3",
        "trainer.accelerator": "cpu",
        "run": "waves",
    }
    assert main(["fit", "--config", "e.yaml", *(f"--{key}={value}" for key, value in options.items())]) == 0
    capsys.readouterr()
    assert main(["validate", "--run", "waves"]) == 0
    found = {line.split()[0]: float(line.split()[1]) for line in capsys.readouterr().out.splitlines()[2:]}
    split = WaveDataModule(labels=True, dataset=tiny_labels_dataset).split("validation")
    bits = found["val/loss"] / math.log(2) * split.tokens / split.bytes
    assert found["val/bits_per_byte"] == pytest.approx(bits, abs=1e-3)
    assert bits < 9
