"""`unroll generate` with an image captioner: captions and attention maps."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from data_prep.workspace import tokenizer
from pipeline.commands.generate.command import main
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.plots.attention import PANEL
from pipeline.models.assemblies.captioners import ShowAndTell, ShowAttendTell
from pipeline.models.encoders.image import ResNet


@pytest.fixture
def photographs(tmp_path: Path) -> list[str]:
    """A colour image and a grey one."""
    files = [tmp_path / "red.png", tmp_path / "grey.jpg"]
    Image.new("RGB", (60, 40), "red").save(files[0])
    Image.effect_noise((40, 80), 90).save(files[1])
    return [str(file) for file in files]


@pytest.fixture
def captioner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run `seen` with an untrained model."""
    run = tmp_path / "seen"
    run.mkdir()
    tokenizer.word(["a red square on a grey street"]).save(str(run / "tokenizer.json"))
    torch.manual_seed(2)
    model = ShowAttendTell(8, 32, lambda width, size: ResNet(width, size, (1, 1), 8), width=16).eval()
    monkeypatch.setattr("pipeline.runs.run.find_run", lambda name: run)
    monkeypatch.setattr("pipeline.runs.load.load_model", lambda *_: model)
    monkeypatch.setattr("pipeline.runs.load.skeleton", lambda _: model)
    return run


def test_captions_do_not_depend_on_the_batch(
    captioner: Path, photographs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    alone = []
    for photograph in photographs:
        assert main(["seen", "--image", photograph, "--tokens", "6"]) == 0
        alone.append(capsys.readouterr().out.removesuffix("\n"))
    assert main(["seen", "--image", *photographs, "--tokens", "6", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["prompt"], row["text"]) for row in rows] == list(zip(photographs, alone, strict=True))
    assert main(["seen", "--image", *photographs, "--tokens", "6"]) == 0
    assert f"{photographs[1]}: {alone[1]}" in capsys.readouterr().out


def test_attention_is_plotted_over_every_photograph(captioner: Path, photographs: list[str], tmp_path: Path) -> None:
    assert main(["seen", "--image", *photographs, "--tokens", "3", "--attention", str(tmp_path / "heat.png")]) == 0
    drawn = Image.open(tmp_path / "heat.png")
    assert drawn.width >= 2 * PANEL
    assert drawn.height >= 2 * PANEL
    assert drawn.getpixel((PANEL // 2, PANEL // 2)) == (255, 0, 0)


def test_invalid_input_is_reported(
    captioner: Path, photographs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cut.jpg").write_bytes(Path(photographs[1]).read_bytes()[:600])
    for arguments, error, message in (
        ([], ConfigError, r"seen \(ShowAttendTell\) takes images as input. Give --image FILE"),
        (["--prompt", "a"], ConfigError, r"--prompt: .*seen \(ShowAttendTell\). Its options: --image, "),
        (
            ["--image", str(tmp_path / "none.jpg")],
            DataError,
            r"none.jpg: cannot be read \(No such file or dir",
        ),
        (["--image", str(tmp_path / "cut.jpg")], DataError, "cut.jpg: truncated image. Give another image"),
    ):
        with pytest.raises(error, match=message):
            main(["seen", *arguments])
    blind = ShowAndTell(8, 32, lambda width, size: ResNet(width, size, (1, 1), 8), width=16).eval()
    monkeypatch.setattr("pipeline.runs.load.load_model", lambda *_: blind)
    with pytest.raises(ConfigError, match="expected a decoder with attention"):
        main(["seen", "--image", photographs[0], "--attention", str(tmp_path / "heat.png")])
