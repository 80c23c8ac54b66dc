"""Captioning runs continue exactly, and a damaged image ends all processes with a one-line error."""

import signal
import time
from pathlib import Path

import pytest
import torch

from tests.distributed.fixture_types import Fit, Rows, State
from tests.distributed.test_pairs import assert_equal
from tests.timeouts import scaled
from tests.unit.data.test_captions import damaged

RESNET = "{class_path: pipeline.models.encoders.image.ResNet, init_args: {blocks: [1, 1], channels: 8}}"
PATCHES = (
    "{class_path: pipeline.models.encoders.image.VisionTransformer, init_args: {patch: 8, features: 16, depth: 1, "
    "dropout: 0.1}}"
)
CONFIG = """
model:
  class_path: pipeline.models.assemblies.captioners.{name}
  init_args:
    {{width: 16, depth: 1, dropout: {dropout}, optimizer: {{class_path: {optimizer}, init_args: {{lr: 0.01}}}},
      encoder: {encoder},
      evaluation: {{scores: [{{class_path: tests.distributed.test_pairs.Exact}}], tokens: 12, validation_rows: 20}}}}
data:
  class_path: pipeline.data.captions.ImageCaptionDataModule
  init_args: {{dataset: {dataset}, image_size: 24, image_tokens: 10, global_batch_tokens: 900, flip: true}}
"""


@pytest.fixture
def describe(fit: Fit, tiny_captions_dataset: Path, tmp_path: Path) -> Fit:
    """`describe(RUN, KEY, VALUE, ..., model=NAME)` is `fit` for a captioner."""

    def describe(
        run: str, *overrides: object, model: str = "ShowAttendTell", exact: bool = False, **rest: object
    ) -> int:
        dropout, optimizer = (0.0, "torch.optim.SGD") if exact else (0.2, "torch.optim.AdamW")
        settings = {"name": model, "dropout": dropout, "optimizer": optimizer, "dataset": tiny_captions_dataset}
        settings["encoder"] = PATCHES if model == "TransformerCaptioner" else RESNET
        (tmp_path / f"{model}.yaml").write_text(CONFIG.format(**settings))
        return fit(run, *overrides, model=f"assemblies.captioners.{model}", **rest)

    return describe


@pytest.mark.parametrize(
    ("model", "processes", "workers"), [("ShowAndTell", 1, 0), ("ShowAttendTell", 2, 1), ("TransformerCaptioner", 1, 0)]
)
def test_a_killed_run_ends_bit_for_bit_like_the_straight_one(
    describe: Fit, state: State, model: str, processes: int, workers: int
) -> None:
    keys = ["trainer.devices", processes, "data.init_args.workers", workers]
    assert describe("straight", *keys, model=model) == 0
    assert describe("killed", *keys, model=model, die=(signal.SIGKILL, 7)) == 128 + signal.SIGKILL
    assert describe("killed", *keys, model=model) == 0
    assert_equal(state("straight"), state("killed"))


def test_two_processes_learn_what_one_learns(describe: Fit, state: State, rows: Rows) -> None:
    assert describe("one", exact=True) == 0
    assert describe("two", "trainer.devices", 2, "data.init_args.per_device_batch_tokens", 250, exact=True) == 0
    for name, value in state("one")["state_dict"].items():
        torch.testing.assert_close(state("two")["state_dict"][name], value, rtol=1e-4, atol=1e-6)
    assert rows("two")[-1]["tokens"] == rows("one")[-1]["tokens"]
    texts = [row["val/texts"] for row in rows("two") if "val/texts" in row]
    assert set(texts) == {8.0}


def test_a_damaged_image_in_the_middle_ends_all_processes_with_one_line(
    describe: Fit,
    tiny_captions_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from pipeline.dataset.manifest import Dataset

    dataset, name = damaged(tiny_captions_dataset, tmp_path / "damaged")
    monkeypatch.setattr(Dataset, "verify", lambda self: None)  # it was intact when the run started
    keys = ["trainer.devices", 2, "data.init_args.dataset", dataset, "data.init_args.workers", 1]
    began = time.monotonic()
    assert describe("damaged", *keys) == 3
    assert time.monotonic() - began < scaled(30)
    printed = capfd.readouterr().err
    assert f"train: {name} (row " in printed
    assert "so the dataset is damaged: prepare it again with `unroll prepare captions`" in printed
    assert "Traceback" not in printed
