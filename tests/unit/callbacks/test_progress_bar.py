"""The bar shows the whole run and its evaluations, and leaves one line per validation."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch import Trainer
from rich.console import Console

from pipeline import cli
from pipeline.callbacks.progress_bar import Bar
from pipeline.callbacks.train_metrics import Monitor
from pipeline.dataset.unit import Unit
from pipeline.training import trainer


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """The output of a terminal of 100 columns."""
    written = io.StringIO()
    monkeypatch.setattr(
        trainer, "Console", lambda: Console(file=written, force_terminal=True, width=100, color_system=None)
    )
    return written


def test_the_bar_counts_to_the_last_step_and_validation_lines_stay(
    terminal: io.StringIO, tiny_text_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(tmp_path)
    config = Path(__file__).parents[3] / "configs" / "text" / "ngram.yaml"
    small = ["--model.init_args.width=8", "--model.init_args.hidden=8", "--data.init_args.context=16"]
    steps = ["--trainer.max_steps=7", "--trainer.log_every_n_steps=1", "--trainer.accelerator=cpu"]
    options = [f"--config={config}", f"--data.init_args.dataset={tiny_text_dataset}", "--run=shown", *small, *steps]
    assert cli.main(["fit", *options]) == 0
    text = terminal.getvalue()
    assert "epoch 0 step 0/7" in text
    assert "step 7/7" in text
    assert " tokens/s" in text
    assert "validation at step 7: loss" in text
    terminal.truncate(0)
    assert cli.main(["test", "--run", "shown"]) == 0
    assert "\ntest " in terminal.getvalue().replace("\r", "\n").replace("\x1b[2K", "")


def test_a_task_without_perplexity_is_shown_by_its_loss(terminal: io.StringIO) -> None:
    monitor = Monitor()
    monitor.latest = {"train/loss": 0.5, "train/tokens_per_second": 1200.0}
    bar = Bar(monitor, trainer.Console())
    state = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    task = SimpleNamespace(total_steps=2, data=SimpleNamespace(unit=Unit("images", 0.25)))
    bar.on_train_start(state, task)
    bar.on_train_batch_end(state, task)
    bar.teardown()
    assert "loss 0.50 300 images/s" in terminal.getvalue()
