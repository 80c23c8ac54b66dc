"""Training through the pipeline against a bare PyTorch loop over the same network and the same batches.

    python tests/benchmarks/bench_fit.py [NAME ...] [--rounds 9] [--seconds 0.4] [--after 0] [--steps 4] [--device cpu]
        [--context 64] [--batch 8] [--precision 32-true] [--processor-time] [--output docs/benchmarks/cpu.json]

NAME is an architecture or a family of tasks (default: all).

The architectures: both sides train in turns in one process: same first weights, same windows, same loss, AdamW and
clipping. The pipeline's side has what a run has: guard, monitor, journal, randomness by step, agreement on stopping.
The median of the ratios of tokens per second is printed, at about 10 M parameters. The speed of a step may change as
weights are trained: `--after N` measures from the weights that N steps give. Both sides flush denormal numbers.

The families: `unroll fit` with a shipped config against a loop whose batches lie ready in memory; encoded images and
sounds the loop decodes too. Both sides alternate within one training. A turn takes about `--seconds`. With
`--processor-time` the clock counts the time of the processor, for a machine that is not quiet.
"""

import argparse
import copy
import importlib
import logging
import os
import pkgutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from families import FAMILIES, compare_family
from lightning.pytorch import Callback, Trainer
from results import Table, add_output

import data_prep.text.command
import pipeline.models
from pipeline.callbacks.checkpointing import Checkpoints, CheckpointSettings
from pipeline.callbacks.layer_execution import Execution
from pipeline.callbacks.nonfinite_guard import Guard, GuardSettings
from pipeline.callbacks.optimizer_options import OptimizerOptions
from pipeline.callbacks.per_step_seed import Randomness
from pipeline.callbacks.step_vote import StepVote
from pipeline.callbacks.train_metrics import Monitor
from pipeline.cli import flush_denormals
from pipeline.data.batch import TokenBatch
from pipeline.data.text import TextDataModule
from pipeline.evaluation.flops import flops_of
from pipeline.tasks.language_model import LanguageModel
from pipeline.tasks.level_model import LevelModel
from pipeline.tracking.journal_logger import JournalLogger
from pipeline.training.trainer import Unprofiled

WANTED = 0.97  # of the bare loop's speed
WARM = 3  # steps before the clock starts
OPTIMIZER = partial(torch.optim.AdamW, lr=1e-3, fused=True)
WIDTHS = {"bag_of_words": 1024, "ngram": 640, "rnn": 1152, "lstm": 736, "gru": 832, "transformer": 448}


def architectures() -> Iterator[tuple[str, type[LanguageModel]]]:
    """Every thin LightningModule of texts of pipeline.models, by file."""
    for module in pkgutil.walk_packages(pipeline.models.__path__, "pipeline.models."):
        found = importlib.import_module(module.name)
        for name in getattr(found, "__all__", ()):
            thing = getattr(found, name)
            if isinstance(thing, type) and issubclass(thing, LanguageModel) and not issubclass(thing, LevelModel):
                yield module.name.rpartition(".")[2], thing


@dataclass(frozen=True)
class Setting:
    """What both sides train.

    Args:
        context: tokens of a window.
        batch: windows per step.
        steps: optimizer steps that are timed, after WARM others.
        device: cpu or cuda.
        precision: of the Trainer: 32-true, bf16-mixed or 16-mixed.
        compile: the pipeline compiles each layer, the bare loop all that leads to the loss.
        processor_time: whether the clock counts the time of the processor only.
    """

    context: int = 64
    batch: int = 8
    steps: int = 12
    device: str = "cpu"
    precision: str = "32-true"
    compile: bool = False
    processor_time: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of the steps that are timed."""
        return self.steps * self.batch * self.context

    def now(self) -> float:
        """Seconds on a clock, once the device has done what it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.process_time() if self.processor_time else time.perf_counter()


class Clock(Callback):
    """Seconds from the end of step WARM to the end of the last."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == WARM:
            self.began = self.setting.now()

    def on_train_end(self, *_: Any) -> None:
        self.seconds = self.setting.now() - self.began


def through_pipeline(model: LanguageModel, data: TextDataModule, setting: Setting, folder: Path) -> float:
    """Seconds of the steps by the Trainer of a run."""
    clock, monitor, vote = Clock(setting), Monitor(), StepVote()
    checkpoints = Checkpoints(CheckpointSettings(every_minutes=None), vote, folder / "checkpoints")
    guard = Guard(GuardSettings(), vote, checkpoints, OptimizerOptions(folder))
    checkpoints.save = lambda trainer: None  # type: ignore[method-assign]  # not what is measured
    checkpoints.on_train_end = lambda trainer, module: None  # type: ignore[method-assign]
    execution = Execution(compile=setting.compile)
    trainer = Trainer(
        accelerator="gpu" if setting.device == "cuda" else "cpu",
        devices=1,
        precision=setting.precision,  # type: ignore[arg-type]
        max_steps=WARM + setting.steps,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        log_every_n_steps=20,
        logger=JournalLogger(folder),
        profiler=Unprofiled(),
        callbacks=[Randomness(1), guard, monitor, execution, checkpoints, clock],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    trainer.fit(model, datamodule=data)
    return clock.seconds


def bare(model: LanguageModel, data: TextDataModule, setting: Setting) -> float:
    """Seconds of the steps by a loop that does nothing else."""
    windows = data.samples("train")
    plan = data.plan(windows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    model.to(setting.device).train()
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(setting.precision)
    scaler = torch.amp.GradScaler(setting.device, enabled=half is torch.float16)
    stream = windows.split.read(0, windows.split.tokens)

    def loss_of(tokens: torch.Tensor) -> torch.Tensor:
        outputs, _ = model.network(model.embedding(tokens[:, :-1]))
        return torch.nn.functional.cross_entropy(model.output(outputs).flatten(0, 1), tokens[:, 1:].flatten())

    loss_of = torch.compile(loss_of) if setting.compile else loss_of
    began = 0.0
    for step in range(WARM + setting.steps):
        starts = np.maximum(plan.batch(0, step % len(plan)) * windows.context, 1)
        rows = np.stack([stream[start - 1 : start + windows.context] for start in starts]).astype(np.int64)
        tokens = torch.from_numpy(rows).to(setting.device)
        with torch.autocast(setting.device, half) if half else nullcontext():
            loss = loss_of(tokens)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        if step + 1 == WARM:
            began = setting.now()
    return setting.now() - began


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"an architecture, or {', '.join(FAMILIES)}")
    parser.add_argument("--after", type=int, default=0, metavar="N", help="steps of training before those measured")
    parser.add_argument("--width", type=int, help="of every architecture (default: about 10 M parameters)")
    parser.add_argument("--steps", type=int, default=4, help="of an architecture in a turn")
    parser.add_argument("--seconds", type=float, default=0.4, help="of a family in a turn")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--context", type=int, default=64, help="tokens of a window")
    parser.add_argument("--batch", type=int, default=8, help="windows per step")
    parser.add_argument("--precision", default="32-true", choices=("32-true", "bf16-mixed", "16-mixed"))
    parser.add_argument("--processor-time", action="store_true")
    add_output(parser)
    options = parser.parse_args()
    known = [*dict(architectures()), *FAMILIES]
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"NAME={unknown[0]}: expected one of {', '.join(known)}")
    return options


def main() -> None:
    options = parsed()
    setting = Setting(options.context, options.batch, options.steps, options.device, options.precision)
    setting = replace(setting, processor_time=options.processor_time)
    flush_denormals()
    torch.set_num_threads(1)
    os.environ["WANDB_MODE"] = "disabled"
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    unit = "processor time" if options.processor_time else "wall-clock time"
    rounds = f"One core, medians of {options.rounds} alternating rounds, {unit}. At least {WANTED} is expected."
    chosen = {file: task for file, task in architectures() if file in options.names or not options.names}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if chosen:
            measure_architectures(chosen, setting, options, folder, rounds)
        about = (
            f"Shipped configs. {rounds} A part of what a step of `fit` takes more does not depend on the step: the "
            "loop of Lightning, the vote and the guard. Steps of a few milliseconds therefore have a lower ratio."
        )
        table = Table("families", "Each family of tasks beside a bare loop", about, options.output)
        for family in (each for each in FAMILIES if each in options.names or not options.names):
            found = compare_family(family, folder, options.rounds, options.seconds, setting.now)
            table.add(family=family, **found)


def measure_architectures(
    chosen: dict[str, type[LanguageModel]], setting: Setting, options: argparse.Namespace, folder: Path, rounds: str
) -> None:
    """The table of the architectures."""
    data = corpus(folder, setting)
    table = Table("fit", "Each architecture beside a bare loop", f"Language models. {rounds}", options.output)
    for file, task in chosen.items():
        width = options.width or WIDTHS.get(file, 512)
        model = task(vocab_size=2048, width=width, optimizer=OPTIMIZER)
        found = compare(model, data, setting, options.rounds, folder, options.after)
        table.add(architecture=file.replace("_", " "), **found)


def corpus(folder: Path, setting: Setting) -> TextDataModule:
    """The built-in corpus, prepared with a vocabulary of 2,048."""
    arguments = ["builtin", "--output", str(folder / "data"), "--vocab-size", "2048", "--workers", "1"]
    data_prep.text.command.main(arguments)
    return TextDataModule(folder / "data", context=setting.context, global_batch_size=setting.batch)


def compare(
    model: LanguageModel, data: TextDataModule, setting: Setting, rounds: int, folder: Path, after: int = 0
) -> dict[str, float]:
    """Tokens per second of both sides, and the median of their ratios.

    Args:
        model: the network, with the optimizer OPTIMIZER.
        data: the windows.
        setting: what both sides train.
        rounds: turns of each side.
        folder: for the journal.
        after: steps of training before those measured.
    """
    if after:
        through_pipeline(model, data, replace(setting, steps=after - WARM), folder)
    first = {name: value.cpu().clone() for name, value in model.state_dict().items()}
    seconds = []
    for _ in range(rounds):
        model.load_state_dict(first)
        ours = through_pipeline(model, data, setting, folder)
        model.load_state_dict(first)
        seconds.append((ours, bare(model, data, setting)))
    ours, theirs = (median(column) for column in zip(*seconds, strict=True))
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens_per_second": setting.tokens / ours,
        "bare_tokens_per_second": setting.tokens / theirs,
        "ratio": median(theirs / ours for ours, theirs in seconds),
    }


def flops_per_token(model: Any, setting: Setting) -> float:
    """FLOPs of a training step of one window, by its tokens."""
    model.trainer = None
    twin, tokens = copy.deepcopy(model), torch.zeros(1, setting.context, dtype=torch.int64)
    twin.trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    batch = TokenBatch(tokens, tokens, None, torch.arange(1), setting.context, 0, None)
    return flops_of(lambda: twin, batch) / setting.context


if __name__ == "__main__":
    main()
