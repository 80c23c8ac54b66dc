"""`unroll generate RUN --out FILE.mid` continues a piece and writes it as MIDI and as sound."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from pipeline.arguments import Parser
from pipeline.commands.generate import music
from pipeline.commands.generate.options import add_options
from pipeline.commands.generate.trained import Trained
from pipeline.dataset.codecs.midi import midi_of, read_midi
from pipeline.dataset.manifest import Dataset
from pipeline.errors import ConfigError, DataError
from pipeline.generation.frames import DrawKeys
from pipeline.models.gru import GRU
from pipeline.tasks.music_model import MusicModel


@pytest.fixture
def trained(tiny_music_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """An untrained model with the record of a run on the tiny dataset."""
    torch.manual_seed(1)
    task = MusicModel(GRU(width=8, depth=1), 1).eval()
    (tmp_path / "run.json").write_text(json.dumps({"dataset": {"path": str(tiny_music_dataset)}}))
    monkeypatch.setattr(music, "open_model", lambda name, checkpoint: (tmp_path, task, "cpu"))
    monkeypatch.chdir(tmp_path)
    return Trained("it", tmp_path, task)


def options(*given: str) -> Namespace:
    parser = Parser()
    add_options(parser)
    return parser.parse_args(given)


@pytest.mark.numeric
def test_a_piece_is_written_as_midi_sound_and_picture(trained: Trained, tiny_music_dataset: Path) -> None:
    music.main(
        trained, options("--out", "a.mid", "--picture", "a.png", "--tokens", "12", "--given", "5", "--seed", "4")
    )
    piece = Dataset.open(tiny_music_dataset).splits["test"].piece(0)
    found = read_midi(Path("a.mid").read_bytes(), 1).frames
    np.testing.assert_array_equal(found[:5], piece[:5])
    np.testing.assert_array_equal(found[5:], trained.task.generate(piece[:5], 12, DrawKeys(1.0), 4)[: len(found) - 5])
    samples, rate = soundfile.read("a.wav")
    assert len(samples) / rate == pytest.approx(17 * 60 / 100 + 0.12, abs=0.01)
    with Image.open("a.png") as drawn:
        assert drawn.width == 17 * 6


def test_a_prompt_is_a_file_or_the_name_of_a_held_out_piece(trained: Trained, tiny_music_dataset: Path) -> None:
    split = Dataset.open(tiny_music_dataset).splits["validation"]
    Path("tune.mid").write_bytes(midi_of(split.piece(1), 1))
    written = []
    for prompt in (split.names[1], "tune.mid"):
        music.main(trained, options("--out", "b.mid", "--prompt", prompt, "--tokens", "3", "--greedy"))
        written.append(Path("b.mid").read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "generates music. Give --out FILE.mid, beside which FILE.wav is written"),
        (["--out", "a.wav"], "--out=a.wav: expected a .mid file"),
        (["--out", "a.mid", "--given", "0"], "--given=0: expected at least 1 frame"),
        (["--out", "a.mid", "--prompt", "x", "y"], "--prompt: expected one piece, got 2"),
        (
            ["--out", "a.mid", "--prompt", "x"],
            r"--prompt=x: expected a MIDI file, or a held-out piece of .* such as chorale",
        ),
        (["--out", "none/a.mid", "--tokens", "1"], "--out=none/a.mid: cannot be written: No such file"),
    ],
)
def test_a_mistake_is_one_error(trained: Trained, given: list[str], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        music.main(trained, options(*given))


def test_an_exported_model_requires_a_file(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "run.json").unlink()
    with pytest.raises(ConfigError, match=r"is an exported model, which has no pieces. Give --prompt FILE\.mid"):
        music.main(trained, options("--out", "a.mid"))
