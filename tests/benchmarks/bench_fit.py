"""Training through the pipeline against a bare PyTorch loop over the same network and the same batches.

    python tests/benchmarks/bench_fit.py [ARCHITECTURE ...] [--after 0] [--steps 12] [--rounds 3] [--device cpu]

Both sides train in turns in one process: same first weights, same windows, same loss, AdamW and clipping. The
pipeline's side has what a run has: monitor, journal, randomness by step, agreement on stopping. The median of the
ratios of tokens per second is printed, at about 10 M parameters. The speed of a step may change as weights are
trained: `--after N` measures from the weights that N steps give. Both sides flush denormal numbers, as a run does.
"""

import argparse
import importlib
import logging
import pkgutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer

import data_prep.text.command
import pipeline.models
from pipeline.callbacks.checkpointing import Checkpoints
from pipeline.callbacks.per_step_seed import Randomness
from pipeline.callbacks.train_metrics import Monitor
from pipeline.cli import flush_denormals
from pipeline.data.text import TextDataModule
from pipeline.tasks.language_model import LanguageModel
from pipeline.tasks.level_model import LevelModel
from pipeline.tracking.journal_logger import JournalLogger

WANTED = 0.97  # of the bare loop's speed
WARM = 3  # steps before the clock starts
WIDTHS = {"bag_of_words": 1024, "ngram": 640, "rnn": 1152, "lstm": 736, "gru": 832, "transformer": 448}


def architectures() -> Iterator[tuple[str, type[LanguageModel]]]:
    """Every thin LightningModule of texts of pipeline.models, by file."""
    for module in pkgutil.walk_packages(pipeline.models.__path__, "pipeline.models."):
        found = importlib.import_module(module.name)
        for name in getattr(found, "__all__", ()):
            thing = getattr(found, name)
            if isinstance(thing, type) and issubclass(thing, LanguageModel) and not issubclass(thing, LevelModel):
                yield module.name.rpartition(".")[2], thing


class Clock(Callback):
    """Seconds from the end of step WARM to the end of the last."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == WARM:
            self.began = time.perf_counter()
        self.seconds = time.perf_counter() - self.began if trainer.global_step >= WARM else 0.0


def through_pipeline(model: LanguageModel, data: TextDataModule, steps: int, device: str, folder: Path) -> float:
    """Seconds of `steps` steps by the Trainer of a run."""
    clock, monitor, checkpoints = Clock(), Monitor(), Checkpoints(every_minutes=None)
    checkpoints.save = lambda trainer: None  # type: ignore[method-assign]  # not what is measured
    checkpoints.on_train_end = lambda trainer, module: None  # type: ignore[method-assign]
    trainer = Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        max_steps=WARM + steps,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        log_every_n_steps=20,
        logger=JournalLogger(folder),
        callbacks=[Randomness(1), monitor, checkpoints, clock, monitor.leave],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    trainer.fit(model, datamodule=data)
    return clock.seconds


def bare(model: LanguageModel, data: TextDataModule, steps: int, device: str) -> float:
    """Seconds of `steps` steps by a loop that does nothing else."""
    windows = data.samples("train")
    plan = data.plan(windows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    model.to(device).train()
    stream = windows.split.read(0, windows.split.tokens)
    began = 0.0
    for step in range(WARM + steps):
        starts = np.maximum(plan.batch(0, step % len(plan)) * windows.context, 1)
        rows = np.stack([stream[start - 1 : start + windows.context] for start in starts]).astype(np.int64)
        tokens = torch.from_numpy(rows).to(device)
        outputs, _ = model.network(model.embedding(tokens[:, :-1]))
        logits = model.output(outputs).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step + 1 == WARM:
            if device == "cuda":
                torch.cuda.synchronize()
            began = time.perf_counter()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("architectures", nargs="*")
    parser.add_argument("--after", type=int, default=0, metavar="N", help="steps of training before those measured")
    parser.add_argument("--width", type=int, help="of every architecture (default: about 10 M parameters)")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    flush_denormals()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = ["builtin", "--output", str(folder / "data"), "--vocab-size", "2048", "--workers", "1"]
        data_prep.text.command.main(arguments)
        print(f"{'architecture':20}{'parameters':>12}{'tokens/s':>10}{'bare':>10}{'ratio':>8}")
        for file, task in architectures():
            if options.architectures and file not in options.architectures:
                continue
            measure(file, task, folder, options)


def measure(file: str, task: type[LanguageModel], folder: Path, options: argparse.Namespace) -> None:
    """One line of the table."""
    optimizer = partial(torch.optim.AdamW, lr=1e-3, fused=True)
    data = TextDataModule(folder / "data", context=64, global_batch_size=8)
    model = task(vocab_size=2048, width=options.width or WIDTHS.get(file, 512), optimizer=optimizer)
    if options.after:
        through_pipeline(model, data, options.after - WARM, options.device, folder)
    first = {name: value.cpu().clone() for name, value in model.state_dict().items()}
    tokens = 8 * 64 * options.steps
    rates = []
    for _ in range(options.rounds):
        model.load_state_dict(first)
        seconds = through_pipeline(model, data, options.steps, options.device, folder)
        model.load_state_dict(first)
        rates.append((tokens / seconds, tokens / bare(model, data, options.steps, options.device)))
    ratio = median(ours / theirs for ours, theirs in rates)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    below = "" if ratio >= WANTED else f"  below {WANTED}"
    ours, theirs = (median(column) for column in zip(*rates, strict=True))
    print(f"{file:20}{parameters / 1e6:10.1f} M{ours:10,.0f}{theirs:10,.0f}{ratio:8.2f}{below}", flush=True)


if __name__ == "__main__":
    main()
