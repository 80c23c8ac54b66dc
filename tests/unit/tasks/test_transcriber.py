"""Transcribers: the loss sums over all paths, they learn dialled digits, and transcripts must fit their audio."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from data_prep.audio import command as audio
from pipeline.cli import main
from pipeline.data.audio import AudioDataModule
from pipeline.data.batch import IGNORE
from pipeline.data.batch_plan import NO_SAMPLE, Slice
from pipeline.errors import DataError
from pipeline.generation.ctc import PrefixBeam, collapsed
from pipeline.models.assemblies.transcribers import (
    ConformerTranscriber,
    ListenAttendSpell,
    LSTMTranscriber,
    TransformerTranscriber,
)
from pipeline.models.encoders.audio import Ear
from pipeline.tasks.transcriber import Transcriber

MODELS = [LSTMTranscriber, TransformerTranscriber, ConformerTranscriber]


@pytest.mark.numeric
def test_the_loss_is_the_sum_over_all_paths() -> None:
    torch.manual_seed(1)
    model = LSTMTranscriber(3, 8000, 8, 1)
    logs = torch.randn(3, 5, 4).log_softmax(-1)
    keep = torch.arange(5) < torch.tensor([[5], [3], [1]])
    targets = torch.tensor([[1, 1, 0], [2, 0, IGNORE], [IGNORE] * 3])  # the last row is padding
    expected = 0.0
    for row, (text, length) in enumerate((((1, 1), 5), ((2,), 3))):
        paths = itertools.product(range(4), repeat=length)
        path_logs = [sum(float(logs[row, at, t]) for at, t in enumerate(p)) for p in paths if collapsed(p, 3) == text]
        expected -= math.log(sum(map(math.exp, path_logs)))
    assert float(model._nats(logs, keep, targets)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.learns
@pytest.mark.parametrize("model_class", MODELS)
def test_it_overfits_a_batch_and_padding_rows_change_nothing(
    model_class: type[Transcriber], tiny_audio_dataset: Path, seed: int, record_property: Callable[[str, float], None]
) -> None:
    data = AudioDataModule(tiny_audio_dataset)
    samples = data.samples("train")
    torch.manual_seed(seed)
    model = model_class(data.dataset.target.size, 8000, 32, 1, dropout=0.0, ear=Ear(bands=20))
    ids = np.argsort(samples.lengths)[:4]
    batch, filled = (
        samples.__getitems__(Slice(each, samples.predictions(ids), 0, 0, 0))
        for each in (ids, np.append(ids, NO_SAMPLE))
    )
    losses = [float(model._nats(*model(*each.source), each.targets)) for each in (batch, filled)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    optimizer, steps, loss = torch.optim.Adam(model.parameters(), 0.01), 0, torch.tensor(torch.inf)
    while loss > 0.005 and steps < 800:  # ten seeds: LSTM 180 ± 60, Transformer 94 ± 5, Conformer 89 ± 7 steps
        steps += 1
        loss = model._nats(*model(*batch.source), batch.targets) / batch.predictions
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    record_property("steps", steps)
    assert loss <= 0.005
    model.eval()
    expected = [samples.split.target(int(sample)).tolist() for sample in ids]
    with torch.no_grad():
        logs, keep = model(*batch.source)
    assert model.transcribe(logs, keep) == expected
    assert model.transcribe(logs, keep, PrefixBeam(4)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ConformerTranscriber", "ListenAttendSpell"])
def test_a_run_is_trained_and_scored(
    model: str, tiny_audio_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    scores = [{"class_path": "pipeline.evaluation.text_scores.ErrorRate", "init_args": {"name": "word"}}]
    settings = "evaluation" if model == "ListenAttendSpell" else "transcription"
    arguments = {
        "model.class_path": f"pipeline.models.assemblies.transcribers.{model}",
        "model.init_args.width": 16,
        "model.init_args.depth": 1,
        f"model.init_args.{settings}": {"scores": scores, **({"tokens": 20} if settings == "evaluation" else {})},
        "data.class_path": "pipeline.data.audio.AudioDataModule",
        "data.init_args": {"dataset": str(tiny_audio_dataset), "global_batch_seconds": 10.0},
        "trainer": {"max_steps": 4, "accelerator": "cpu", "devices": 1},
    }
    nested: dict = {}
    for key, value in arguments.items():
        *parents, last = key.split(".")
        at = nested
        for parent in parents:
            at = at.setdefault(parent, {})
        at[last] = value
    (tmp_path / "e.json").write_text(json.dumps(nested))
    assert main(["fit", "--config", "e.json", "--run", "asr"]) == 0
    capsys.readouterr()
    assert main(["test", "--run", "asr"]) == 0
    out = capsys.readouterr().out
    values = {line.split()[0]: float(line.split()[1]) for line in out.splitlines() if line.startswith("  test/")}
    assert {"test/loss", "test/word_error_rate", "test/wrong_texts"} <= values.keys()
    assert 0 <= values["test/wrong_texts"] <= 100


def test_a_transcript_longer_than_its_audio_is_a_one_line_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for split in ("train", "validation"):
        lines = []
        for number in range(4):
            file = f"{number}-{split}.wav"
            soundfile.write(file, 0.1 * np.ones(8000), 8000)
            lines.append({"file": file, "text": "a" * (13 + (number == 3))})  # 25 positions: 13 a, 12 blanks
        Path(f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    shares = ["--validation", "validation.jsonl", "--test-share", "0", "--rate", "8000", "--workers", "1"]
    assert audio.main(["train.jsonl", *shares, "--output", "data"]) == 0
    capsys.readouterr()
    options = {
        "model": "pipeline.models.assemblies.transcribers.LSTMTranscriber",
        "data": "pipeline.data.audio.AudioDataModule",
        "data.init_args.dataset": "data",
        "trainer.max_steps": "1",
        "trainer.accelerator": "cpu",
        "run": "short",
    }
    Path("e.yaml").write_text("seed_everything: 1\n")
    arguments = [f"--{key}={value}" for key, value in options.items()]
    assert main(["fit", "--config", "e.yaml", *arguments]) == 3
    error = capsys.readouterr().err
    assert "3-train.wav (train) has 25 positions, but its transcript requires 27 (1 such clips)" in error
    assert "lower ear.halvings" in error
    model = LSTMTranscriber(3, 8000, 8, 1)
    model._trainer = SimpleNamespace(state=SimpleNamespace(fn="validate"), datamodule=AudioDataModule(Path("data")))
    with pytest.raises(DataError, match=r"3-validation\.wav \(validation\) has 25 positions"):
        model.on_validation_start()  # an infinite loss would not show the cause


@pytest.mark.numeric
def test_listen_attend_spell_attends_to_the_audio(tiny_audio_dataset: Path) -> None:
    data = AudioDataModule(tiny_audio_dataset)
    samples = data.samples("train")
    model = ListenAttendSpell(data.dataset.target.size, 8000, 16, 1).eval()
    batch = samples.__getitems__(Slice(np.arange(3), samples.predictions(np.arange(3)), 0, 0, 0))
    with torch.no_grad():
        logits, _, weights = model.forward_with_attention(batch.inputs, model.begin(batch.source))
    positions = model.encoder.positions(batch.source[1].sum(1).numpy())
    assert logits.shape == (*batch.inputs.shape, 257)
    assert weights.shape == (*batch.inputs.shape, positions.max())
    torch.testing.assert_close(weights.sum(-1), torch.ones(batch.inputs.shape))
    for row, count in enumerate(positions):
        assert (weights[row, :, count:] == 0).all()
