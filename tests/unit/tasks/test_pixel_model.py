"""Pixel models: the loss of an image, generation through the carried state, and completion of halves."""

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.cli import main
from pipeline.commands.generate.images import ImageGenerator
from pipeline.data.pixels import PixelDataModule
from pipeline.dataset.codecs.pixel_levels import image_of_levels, quantise
from pipeline.errors import ConfigError
from pipeline.generation.sampling import Greedy, Sample
from pipeline.models.lstm import LSTM
from pipeline.models.pixel_cnn import PixelCNN, PixelCNNModel
from pipeline.models.row_lstm import RowLSTMModel
from pipeline.tasks.pixel_model import HIDDEN, PixelModel

SHAPE = {"levels": 2, "rows": 8, "columns": 6, "channels": 1}
MODELS = {
    "LSTM": lambda **data: PixelModel(LSTM(width=16, depth=1), **data),
    "PixelCNN": partial(PixelCNNModel, width=16, depth=2, first_kernel=5),
    "RowLSTM": partial(RowLSTMModel, width=16, depth=1, first_kernel=5),
}
every_model = pytest.mark.parametrize("name", MODELS)


def build(name: str, labels: int = 3, **changes: int) -> PixelModel:
    torch.manual_seed(1)
    shape = {**SHAPE, **changes}
    return MODELS[name](vocab_size=shape["levels"] + 1 + labels, **shape).eval()


@every_model
def test_an_image_is_drawn_as_if_all_was_read_again_for_every_pixel(name: str) -> None:
    model, read = build(name), [3 + 1]
    [drawn] = model.draw([[]], [1], Greedy(), [0])
    with torch.no_grad():
        for _ in range(48):
            read.append(int(model(torch.tensor([read]))[0][0, -1, :2].argmax()))
    assert drawn.shape == (8, 6, 1)
    assert drawn.flatten().tolist() == read[1:]


@every_model
def test_the_label_conditions_the_last_pixel(name: str) -> None:
    model = build(name)
    read = torch.randint(2, (1, 48)).repeat(2, 1)
    read[:, 0] = torch.tensor([3, 4])
    logits, _ = model(read)
    assert (logits[0, -1] - logits[1, -1]).abs().max() > 1e-6


@every_model
def test_only_levels_are_drawn(name: str) -> None:
    model = build(name)
    with torch.no_grad():
        model.output.bias[2:] = 1e4  # the opening and the labels
    assert model.draw([[], []], [0, 2], Sample(), [1, 2]).max() <= 1


def test_an_image_in_colour_has_three_levels_a_pixel() -> None:
    for name in ("PixelCNN", "RowLSTM"):
        model = build(name, labels=0, levels=16, columns=7, channels=3)
        drawn = model.draw([[]], [None], Sample(), [0])
        assert drawn.shape == (1, 8, 7, 3)
        assert len(np.unique(drawn)) > 8


def test_the_picture_of_levels_gives_them_back() -> None:
    for levels in (2, 16, 256):
        found = np.random.default_rng(levels).integers(0, levels, (5, 4, 3)).astype(np.uint8)
        assert np.array_equal(quantise(np.asarray(image_of_levels(found, levels)), levels), found)


def test_a_completion_keeps_its_half_under_the_likeliest_label() -> None:
    model = build("RowLSTM")
    images = np.random.default_rng(1).integers(0, 2, (3, 8, 6, 1)).astype(np.uint8)
    half = [image[:4].flatten().tolist() for image in images]
    with torch.no_grad():
        for levels in half:
            costs = []
            for label in range(3):
                logits, _ = model(torch.tensor([[3 + label, *levels[:-1]]]))
                costs.append(float(torch.nn.functional.cross_entropy(logits[0], torch.tensor(levels))))
            assert model.likeliest(levels) == int(np.argmin(costs))
    picture = model.completions(images, 2, Sample(), 5)
    side = (picture.width + 4) // 4  # upper half, two completions, original
    times = side // 6
    assert picture.size == (4 * side - 4, 3 * (8 * times + 4) - 4)
    labels = [model.likeliest(levels) for levels in half]
    for row, image in enumerate(images):
        pixels = np.asarray(picture)[row * (8 * times + 4) + times // 2 :: times][:8]
        panels = [pixels[:, column * side + times // 2 :: times][:, :6] for column in range(4)]
        drawn = model.draw([half[row]] * 2, [labels[row]] * 2, Sample(), [5, 6])
        for panel, expected in zip(panels[1:], [*drawn, image], strict=True):
            assert np.array_equal(panel, np.repeat(255 * expected, 3, 2))
        assert np.array_equal(panels[0][:4], np.repeat(255 * image[:4], 3, 2))
        assert (panels[0][4:] == HIDDEN).all()
        assert np.array_equal(drawn[0, :4], image[:4])


def test_a_network_for_other_rows_raises_an_error() -> None:
    with pytest.raises(ValueError, match="columns=28: expected 6, the levels in a row"):
        PixelModel(PixelCNN(16), vocab_size=3, **SHAPE)


@pytest.fixture
def trained(tiny_pixels_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of four steps."""
    monkeypatch.chdir(tmp_path)
    Path("e.yaml").write_text("seed_everything: 1\n")
    options = {
        "model": "pipeline.tasks.pixel_model.PixelModel",
        "model.init_args.network": "pipeline.models.lstm.LSTM",
        "model.init_args.network.init_args.width": "16",
        "data": "pipeline.data.pixels.PixelDataModule",
        "data.init_args.dataset": str(tiny_pixels_dataset),
        "data.init_args.labels": "true",
        "data.init_args.global_batch_size": "16",
        "trainer.max_steps": "4",
        "trainer.accelerator": "cpu",
        "run": "shapes",
    }
    assert main(["fit", "--config", "e.yaml", *(f"--{key}={value}" for key, value in options.items())]) == 0
    return tmp_path / "runs" / "shapes"


@pytest.mark.numeric
def test_a_run_logs_the_loss_of_an_image_and_draws(
    trained: Path, tiny_pixels_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["validate", "--run", "shapes"]) == 0
    found = {line.split()[0]: float(line.split()[1]) for line in capsys.readouterr().out.splitlines()[2:]}
    model, data = PixelModel.from_pretrained(trained), PixelDataModule(tiny_pixels_dataset, labels=True)
    samples = data.samples("validation")
    ids = np.arange(len(samples))
    nats = 0.0
    with torch.no_grad():
        for levels, label in zip(samples.pixels(ids), samples.classes, strict=True):
            logits, _ = model(torch.tensor([[3 + label, *levels[:-1]]]))
            nats += float(torch.nn.functional.cross_entropy(logits[0], torch.tensor(levels).long(), reduction="sum"))
    assert found["val/nats_per_image"] == pytest.approx(nats / len(ids), abs=1e-3)
    assert found["val/bits_per_dimension"] == pytest.approx(nats / len(ids) / 48 / math.log(2), abs=1e-3)
    lines = [json.loads(line) for line in (trained / "journal.jsonl").read_text().splitlines()]
    kept = {name: file for line in lines if line["kind"] == "pictures" for name, file in line["pictures"].items()}
    assert set(kept) == {"drawn/1", "completed/1"}
    assert Image.open(trained / kept["drawn/1"]).width == 4 * (6 * 14 + 4) - 4  # four of each label

    assert main(["generate", "shapes", "--out", "grid.png", "--samples", "3", "--prompt", "circle", "square"]) == 0
    assert Image.open("grid.png").size == (3 * 88 - 4, 2 * 116 - 4)
    image_of_levels(samples.pixels(ids[:1]).reshape(8, 6, 1), 2).resize((60, 80)).save("half.png")
    assert main(["generate", "shapes", "--out", "rest.png", "--image", "half.png", "--samples", "2"]) == 0
    assert Image.open("rest.png").size == (4 * 88 - 4, 112)

    capsys.readouterr()
    assert main(["diagnose", "shapes"]) == 0
    assert "| shapes |" in capsys.readouterr().out
    Path("text.png").write_text("no image")
    for arguments, code, message in (
        (["--out", "grid.png", "--prompt", "hexagon"], 2, "choose from circle, square, triangle"),
        (["--out", "grid.png", "--beam", "2"], 2, "--beam: "),
        (["--out", "grid.png", "--image", "text.png"], 3, "text.png: not a readable image"),
        (
            ["--out", "grid.png", "--image", "none.png"],
            3,
            "none.png: cannot be read (No such file or directory)",
        ),
        (["--out", "missing/grid.png"], 3, "missing/grid.png: cannot be written"),
        (["--out", "grid.png", "--tokens", "5"], 2, "--tokens: "),
        (["--out", "sound.wav"], 2, "--out=sound.wav: expected a .png file"),
        ([], 2, "(PixelModel) generates images. Give --out FILE.png"),
    ):
        capsys.readouterr()
        assert main(["generate", "shapes", *arguments]) == code
        assert message in capsys.readouterr().err


def test_images_of_one_row_have_no_half_to_complete() -> None:
    model = PixelModel(LSTM(8), vocab_size=3, **(SHAPE | {"rows": 1}))
    with pytest.raises(ConfigError, match="--image: images of run have one row"):
        ImageGenerator(Path("run"), model, []).grid([], ["a.png"], 1, Sample(), 0)
