"""On a CUDA device every architecture trains in mixed precision, continues exactly, and generates as on the CPU."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
ACCELERATOR = "gpu"
ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
ARCHITECTURES = sorted(path.stem for path in (CONFIGS / "text").glob("*.yaml"))


def unroll(*arguments: object, folder: Path, stop_at: int | None = None) -> int:
    """Run the command in `folder`; with `stop_at`, send SIGTERM when the journal contains that step."""
    environment = {**os.environ, "WANDB_MODE": "disabled", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=folder, env=environment)
    journal = folder / "runs" / str(arguments[arguments.index("--run") + 1]) / "journal.jsonl"
    while stop_at is not None and process.poll() is None:
        if journal.exists() and f'"step": {stop_at}' in journal.read_text():
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(0.05)
    return process.wait(300)


def fit(folder: Path, dataset: Path, run: str, name: str, *keys: object, stop_at: int | None = None) -> int:
    """Train an architecture of configs/text, small, for 12 steps."""
    settings: dict[str, object] = {
        "trainer.accelerator": ACCELERATOR,
        "trainer.devices": 1,
        "trainer.deterministic": "warn",
        "trainer.precision": "bf16-mixed",
        "trainer.max_epochs": -1,
        "trainer.max_steps": 12,
        "trainer.log_every_n_steps": 1,
        "trainer.limit_val_batches": 2,
        "checkpoints.every_steps": 2,
        "data.init_args.dataset": dataset,
        "data.init_args.context": 16,
        "data.init_args.global_batch_size": 8,
        "model.init_args.width": 48,
    } | dict(zip(keys[::2], keys[1::2], strict=True))
    given = [f"--{key}={value}" for key, value in settings.items()]
    config = CONFIGS / "text" / f"{name}.yaml"
    return unroll("fit", "--config", config, "--run", run, *given, folder=folder, stop_at=stop_at)


def weights(folder: Path, run: str) -> dict[str, torch.Tensor]:
    """Return the weights of the newest checkpoint."""
    from pipeline.distributed.checkpoint.directory import newest_first, read_state

    found: dict[str, torch.Tensor] = read_state(newest_first(folder / "runs" / run / "checkpoints")[0])["state_dict"]
    return found


class NeverWaits(pl.Callback):
    """Makes every wait of the host for the device an error, from the end of step 3 to the end of step 23."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step in (3, 23):
            torch.cuda.set_sync_debug_mode("error" if trainer.global_step == 3 else "default")


@pytest.mark.parametrize("more", [[], ["data.init_args.order", "documents"]], ids=["", "documents"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_host_does_not_wait_for_the_device_between_rows(
    name: str, more: list[object], tmp_path: Path, tiny_text_dataset: Path
) -> None:
    keys = [*more, "trainer.max_steps", 24, "trainer.log_every_n_steps", 24, "checkpoints.every_steps", "null"]
    keys += ["trainer.val_check_interval", 1000, "trainer.check_val_every_n_epoch", "null"]
    keys += ["trainer.deterministic", "false", "trainer.callbacks", f'[{{"class_path": "{__name__}.NeverWaits"}}]']
    assert fit(tmp_path, tiny_text_dataset, "running", name, *keys) == 0


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_stopped_run_continues_exactly(name: str, tmp_path: Path, tiny_text_dataset: Path) -> None:
    assert fit(tmp_path, tiny_text_dataset, "straight", name) == 0
    assert fit(tmp_path, tiny_text_dataset, "stopped", name, stop_at=5) in (0, 75)
    assert fit(tmp_path, tiny_text_dataset, "stopped", name) == 0
    straight, stopped = weights(tmp_path, "straight"), weights(tmp_path, "stopped")
    assert all(torch.equal(value, stopped[key]) for key, value in straight.items())


@pytest.mark.parametrize("strategy", ["FullySharded", "Zero1", "Zero2", "Zero3"])
def test_every_strategy_trains_on_one_device(strategy: str, tmp_path: Path, tiny_text_dataset: Path) -> None:
    if strategy.startswith("Zero"):
        pytest.importorskip("deepspeed")
    overlay = {
        "FullySharded": "fsdp",
        "Zero1": "deepspeed_zero1",
        "Zero2": "deepspeed_zero2",
        "Zero3": "deepspeed_zero3",
    }
    keys = [f"--config={CONFIGS / 'run' / overlay[strategy]}.yaml"]
    config = CONFIGS / "text" / "lstm.yaml"
    given = {"dataset": tiny_text_dataset, "context": 16, "global_batch_size": 8}
    keys += [f"--data.init_args.{key}={value}" for key, value in given.items()]
    keys += [
        f"--trainer.accelerator={ACCELERATOR}",
        "--trainer.devices=1",
        "--trainer.max_epochs=-1",
        "--trainer.max_steps=6",
    ]
    assert unroll("fit", "--config", config, *keys, "--run", "sharded", folder=tmp_path) == 0
    assert weights(tmp_path, "sharded")


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_other_precisions_and_compiled_layers_train(precision: str, tmp_path: Path, tiny_text_dataset: Path) -> None:
    keys = ["trainer.precision", precision, "execution.compile", "true"]
    assert fit(tmp_path, tiny_text_dataset, "compiled", "transformer", *keys) == 0


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_it_generates_the_same_text_as_on_the_cpu(name: str, tmp_path: Path, tiny_text_dataset: Path) -> None:
    from pipeline.generation.sampling import Greedy, Limits, generate
    from pipeline.runs.load import load_model

    assert fit(tmp_path, tiny_text_dataset, "writes", name, "trainer.precision", "32-true") == 0
    model = load_model(tmp_path / "runs" / "writes")
    prompts = [[256], [256, 116, 104]]
    expected = generate(model, prompts, Greedy(), Limits(20))
    device = "cuda" if ACCELERATOR == "gpu" else "cpu"
    assert generate(model.to(device), prompts, Greedy(), Limits(20), device=device) == expected


def test_a_step_is_measured_and_profiled_on_the_device(tiny_text_dataset: Path, tmp_path: Path) -> None:
    """`test_speed.py` proves the numbers; here the events and the profiler of the device work."""
    from pipeline.runs import journal
    from pipeline.runs.run import Run

    keys = ["model.init_args.dropout", 0.0, "model.init_args.heads", 3, "profile", 2, "trainer.log_every_n_steps", 2]
    assert fit(tmp_path, tiny_text_dataset, "traced", "transformer", *keys) == 0
    rows = [row for row in journal.read_journal(tmp_path / "runs" / "traced").rows if "time/step" in row]
    assert rows
    assert all(row["time/forward"] > 0 and row["time/backward"] > 0 for row in rows)
    record = Run(tmp_path / "runs" / "traced").record
    assert any(kernel.startswith("attention: ") for kernel in record["kernels"])
    assert record["speed"]["device"] == torch.cuda.get_device_name()
    traces = {path.name for path in (tmp_path / "runs" / "traced" / "profile").iterdir()}
    assert traces == {"step-00000003-rank-00000.json.gz", "step-00000003-rank-00000-memory.pickle"}
