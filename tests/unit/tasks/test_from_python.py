"""The classes are used from Python: with Lightning's own Trainer, callbacks and loggers, and after a training."""

import csv
import json
import shutil
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

from pipeline import cli
from pipeline.data.text import TextDataModule
from pipeline.errors import CheckpointError
from pipeline.generation.sampling import Greedy
from pipeline.models.gru import GRU
from pipeline.models.lstm import LSTMLanguageModel
from pipeline.tasks.arguments import rebuilt_arguments
from pipeline.tasks.forecaster import Forecaster
from pipeline.tasks.language_model import LanguageModel
from pipeline.tasks.sequence_to_sequence import SequenceToSequence
from pipeline.tasks.token_prediction import TokenHead

RUNS = Path(__file__).parents[2] / "fixtures" / "runs_0_1"
EXPECTED = json.loads((RUNS / "expected.json").read_text())


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with three runs, their exports and datasets."""
    shutil.copytree(RUNS, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trainer(folder: Path, *callbacks: ModelCheckpoint) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_steps=6,
        log_every_n_steps=2,
        callbacks=list(callbacks),
        logger=CSVLogger(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(callbacks),
    )


@pytest.mark.numeric
@pytest.mark.parametrize("fused", [False, True])
def test_the_loss_scale_of_float16_does_not_reach_norm_and_clipping(
    tiny_text_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fused: bool
) -> None:
    """SGD with a rate of 1 moves the weights by the clipped norm; a fused kernel divides by the scale itself."""
    data = TextDataModule(tiny_text_dataset, context=8, global_batch_size=4)
    optimizer = partial(torch.optim.SGD, lr=1.0, fused=fused)
    model = LSTMLanguageModel(**data.facts.arguments_of(LSTMLanguageModel), width=8, optimizer=optimizer)
    before = nn.utils.parameters_to_vector(model.parameters()).clone()
    scaled = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    monkeypatch.setattr(scaled, "autocast_context_manager", nullcontext)  # not every processor computes in float16
    clipped = Trainer(
        accelerator="cpu",
        max_steps=1,
        limit_val_batches=0,
        gradient_clip_val=0.01,
        plugins=[scaled],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    clipped.fit(model, datamodule=data)
    moved = nn.utils.parameters_to_vector(model.parameters()) - before
    assert float(moved.norm()) == pytest.approx(0.01, rel=0.01)
    assert model.norm is not None
    assert 0.01 < float(model.norm) < 5


@pytest.mark.numeric
def test_a_model_trains_with_the_trainer_of_lightning(tiny_text_dataset: Path, tmp_path: Path) -> None:
    data = TextDataModule(tiny_text_dataset, order="contiguous", context=8, global_batch_size=4)
    head = TokenHead(tied=True, label_smoothing=0.1)
    model = LSTMLanguageModel(**data.facts.arguments_of(LSTMLanguageModel), width=8, head=head)
    kept = ModelCheckpoint(tmp_path / "kept", every_n_train_steps=6)
    stock = trainer(tmp_path, kept)
    stock.fit(model, datamodule=data)
    [found] = stock.validate(model, datamodule=data, verbose=False)
    assert found.keys() == {"val/loss", "val/perplexity", "val/bits_per_byte"}
    assert found["val/perplexity"] == pytest.approx(np.exp(found["val/loss"]), rel=1e-5)
    [tested] = stock.test(model, datamodule=data, verbose=False)
    assert tested["test/loss"] > 0
    assert isinstance(stock.logger, CSVLogger)
    stock.logger.save()
    with open(f"{stock.logger.log_dir}/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["train/loss"] != "" for row in rows) == 3
    assert sum(row["val/loss"] != "" for row in rows) >= 1
    loaded = LSTMLanguageModel.load_from_checkpoint(kept.best_model_path)
    assert loaded.head == head
    assert stock.validate(loaded, datamodule=data, verbose=False) == [found]
    assert isinstance(model.generate("a", max_new_tokens=5, seed=1), str)


@pytest.mark.numeric
def test_a_network_that_a_file_does_not_hold_is_an_argument(tiny_text_dataset: Path, tmp_path: Path) -> None:
    data = TextDataModule(tiny_text_dataset, context=8, global_batch_size=4)
    assert data.facts.vocab_size is not None
    model = LanguageModel(GRU(width=8, depth=1), data.facts.vocab_size)
    kept = ModelCheckpoint(tmp_path / "kept", every_n_train_steps=6)
    trainer(tmp_path, kept).fit(model, datamodule=data)
    with pytest.raises(CheckpointError, match="does not hold the argument 'network': pass network="):
        LanguageModel.load_from_checkpoint(kept.best_model_path)
    loaded = LanguageModel.load_from_checkpoint(kept.best_model_path, network=GRU(width=8, depth=1))
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), loaded.parameters(), strict=True))
    with pytest.raises(CheckpointError, match="does not match LanguageModel with these arguments"):
        LanguageModel.load_from_checkpoint(kept.best_model_path, network=GRU(width=9, depth=1))


@pytest.mark.numeric
@pytest.mark.usefixtures("runs")
def test_checkpoints_of_a_run_load_as_a_directory_and_as_a_file() -> None:
    place = "runs/text/checkpoints/step-00000008"
    assert cli.main(["checkpoint", "convert", place, "--output", "one.ckpt"]) == 0
    models = [LanguageModel.load_from_checkpoint(path) for path in (place, "one.ckpt")]
    expected = LanguageModel.from_pretrained("text").state_dict()
    for model in models:
        assert model.state_dict().keys() == expected.keys()
        assert all(torch.equal(expected[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(CheckpointError, match="expected a Forecaster, got a"):
        Forecaster.load_from_checkpoint(place)
    Path("bad.ckpt").write_bytes(b"no")
    for missing in ("bad.ckpt", "none.ckpt"):
        with pytest.raises(CheckpointError, match=missing):
            LanguageModel.load_from_checkpoint(missing)


@pytest.mark.numeric
@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("place", ["{}", "exported/{}"])
def test_trained_models_generate_what_the_command_generates(place: str) -> None:
    text = LanguageModel.from_pretrained(place.format("text"))
    assert text.generate(EXPECTED["text"]["prompt"], 20, Greedy()) == EXPECTED["text"]["greedy"]
    pairs = SequenceToSequence.from_pretrained(place.format("pairs"))
    assert pairs.generate(EXPECTED["pairs"]["prompt"], 6) == EXPECTED["pairs"]["greedy"]
    series = Forecaster.from_pretrained(place.format("series"))
    for history in (Path("history.csv"), pd.read_csv("history.csv")):
        forecast = series.generate(history)
        assert forecast.iloc[:, 2].tolist() == pytest.approx(EXPECTED["series"]["mean"], rel=1e-3)


def test_a_model_without_a_tokenizer_does_not_generate() -> None:
    with pytest.raises(CheckpointError, match="LSTMLanguageModel has no tokenizer: load it with from_pretrained"):
        LSTMLanguageModel(vocab_size=5, width=8).generate("a")


def test_arguments_are_those_of_the_outermost_constructor_as_plain_values() -> None:
    model = LSTMLanguageModel(5, TokenHead(tied=False), width=8, depth=1)
    plain, left_out = model.arguments
    assert plain["vocab_size"] == 5
    assert plain["head"]["class_path"] == "pipeline.tasks.token_prediction.TokenHead"
    assert (plain["width"], plain["depth"], left_out) == (8, 1, [])
    assert rebuilt_arguments(plain)["head"] == TokenHead(tied=False)
    foreign = {"class_path": "os.system", "init_args": {"command": "x"}}
    assert rebuilt_arguments({"head": foreign}) == {"head": foreign}  # is not created
