"""Every family of tasks for bench_fit.py: a shipped config with a built-in dataset, and the loss of a bare loop."""

import contextlib
import importlib
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile
import torch
from lightning.pytorch import Callback, Trainer
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pipeline.commands.fit import quieten
from pipeline.data.batch import IGNORE
from pipeline.data.batch_plan import Ids, MicroBatches, Share
from pipeline.distributed.lightning_internals import log_interval
from pipeline.runs.run import Run
from pipeline.training.config import CommandLine, parse_config
from pipeline.training.fit import fit

WARM = 4  # steps of the bare loop before the first turn, and those that the number of steps of a turn follows from


def tokens(model: Any, batch: Any) -> Tensor:
    """Nats per token of a text, an image or a sound."""
    logits, _ = model(batch.inputs)
    return functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)


def targets(model: Any, batch: Any) -> Tensor:
    """Nats per token of the target of a pair."""
    logits, _ = model(batch.inputs, model.begin(batch.source))
    return functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)


def transcripts(model: Any, batch: Any) -> Tensor:
    """CTC per token of a transcript."""
    memory = model.encoder(*batch.source)
    logs = model.output(memory.values).log_softmax(-1).transpose(0, 1)
    lengths = (batch.targets != IGNORE).sum(1) - 1  # without EOS
    given = logs, batch.targets.clamp(min=0), memory.keep.sum(1), lengths, model.vocab_size, "sum"
    return functional.ctc_loss(*given) / batch.predictions


def labels(model: Any, batch: Any) -> Tensor:
    """Nats per label."""
    return functional.cross_entropy(model(*batch.source), batch.labels)


def values(model: Any, batch: Any) -> Tensor:
    """Mean squared error of a forecast."""
    return functional.mse_loss(model(batch)[..., 0], batch.targets)


def actions(model: Any, batch: Any) -> Tensor:
    """Nats per action."""
    parts, _ = model(batch.observations, batch.before, batch.returns)
    done = batch.actions.masked_fill(~batch.inside, IGNORE)
    return functional.cross_entropy(parts.flatten(0, 1), done.flatten(), ignore_index=IGNORE)


def open_images(samples: Any, ids: Ids, side: int = 64) -> list[Tensor]:
    """What a bare loop does to read a batch of images: decode, crop, scale."""
    found = []
    for sample in ids.tolist():
        with Image.open(io.BytesIO(samples.split.value("image", samples.split.row_of(sample)))) as opened:
            image = opened.convert("RGB")
        square = min(image.size)
        scaled = image.resize((side, side), Image.Resampling.BILINEAR, (0, 0, square, square))
        found.append(torch.from_numpy(np.asarray(scaled).transpose(2, 0, 1).copy()))
    return found


def open_sounds(samples: Any, ids: Ids) -> list[Any]:
    """What a bare loop does to read a batch of sounds: decode."""
    encoded = (samples.split.value("audio", samples.split.row_of(sample)) for sample in ids.tolist())
    return [soundfile.read(io.BytesIO(each), dtype="float32") for each in encoded]


@dataclass(frozen=True)
class Family:
    """A task.

    Args:
        config: of configs/.
        prepare: the modality, and options of `unroll prepare`.
        loss: of the bare loop.
        changes: keys of the config and their values.
        read: what the bare loop does to read a batch that a dataset holds encoded; others it holds in memory.
    """

    config: str
    prepare: Sequence[str]
    loss: Callable[[Any, Any], Tensor]
    changes: Sequence[str] = ()
    read: Callable[[Any, Any], object] | None = None


PLAIN = ("data.init_args.augmentation=null",)
KEYS = ("audio", "builtin:400", "--rate", "8000", "--tokenizer", "word")
FIGURES = ("pixels", "builtin:2000", "--size", "14x14", "--levels", "2")
LABELLED = ("audio", "builtin:400", "--rate", "8000", "--labels")
FAMILIES = {
    "language model": Family("text/transformer.yaml", ("text", "builtin", "--vocab-size", "2048"), tokens),
    "pairs": Family("pairs/transformer.yaml", ("pairs",), targets),
    "captions": Family(
        "captions/transformer.yaml", ("captions", "builtin:600", "--tokenizer", "word"), targets, (), open_images
    ),
    "transcription": Family("audio/ctc_lstm.yaml", KEYS, transcripts, PLAIN, open_sounds),
    "keywords": Family("audio/keywords_lstm.yaml", LABELLED, labels, PLAIN, open_sounds),
    "raw audio": Family("audio/wavenet.yaml", LABELLED, tokens, ("data.init_args.labels=false",)),
    "pixels": Family("pixels/lstm.yaml", FIGURES, tokens),
    "series": Family("series/patch_transformer.yaml", ("series",), values),
    "series, DLinear": Family("series/dlinear.yaml", ("series",), values),
    "decisions": Family("offline_rl/decision_transformer.yaml", ("trajectories", "gymnasium:CartPole-v1:200"), actions),
    "recall": Family("recall/lstm.yaml", ("recall", "copy", "--length", "100"), tokens),
}


class Turns(Callback):
    """Turns of the training with a bare loop over the same batches, from the first row of the journal: it counts FLOPs.

    Args:
        steps: of a turn.
    """

    loop: "BareLoop"
    seconds: list[tuple[float, float]]  # of each pair of turns

    def __init__(self, steps: int) -> None:
        self.steps, self.began = steps, 0.0
        self.batches: list[Any] = []  # of this turn

    def on_train_batch_end(self, trainer: Trainer, model: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self.batches.append(batch)
        step = trainer.global_step - log_interval(trainer)
        if step < 0 or step % self.steps:
            return
        ended = self.loop.now()
        if step:
            Turns.seconds.append((ended - self.began, self.loop.train(self.batches)))
        self.batches.clear()
        self.began = self.loop.now()


def prepared(family: Family, folder: Path) -> Path:
    """The dataset of a family, which those with the same options share."""
    modality, *options = family.prepare
    place = folder / "-".join(family.prepare).replace("/", "-")
    if not place.exists():
        if modality in ("pairs", "series"):
            options = MADE[modality](folder)
        workers = [] if modality in ("pairs", "series", "recall", "trajectories") else ["--workers", "1"]
        command = importlib.import_module(f"data_prep.{modality}.command")
        with contextlib.redirect_stdout(io.StringIO()):
            assert command.main([*options, *workers, "--output", str(place)]) == 0
    return place


def made_pairs(folder: Path) -> list[str]:
    """Sentences of Python's documentation, and the same backwards."""
    from pydoc_data.topics import topics

    words = [part.split() for text in topics.values() for part in text.split(". ")]
    lines = [f"{' '.join(one)}\t{' '.join(one[::-1])}\n" for one in words if 3 <= len(one) <= 40]
    (folder / "pairs.tsv").write_text("".join(lines))
    return ["--train", str(folder / "pairs.tsv"), "--vocab-size", "4000"]


def made_series(folder: Path) -> list[str]:
    """Seven random walks of 14,400 hours."""
    stamps = np.datetime64("2016-07-01T00:00") + np.arange(14_400).astype("timedelta64[h]")
    walks = np.random.default_rng(0).normal(size=(len(stamps), 7)).cumsum(0)
    rows = [f"{stamp},{','.join(f'{value:.4f}' for value in row)}" for stamp, row in zip(stamps, walks, strict=True)]
    (folder / "table.csv").write_text("\n".join(["date,a,b,c,d,e,f,g", *rows]) + "\n")
    return [str(folder / "table.csv"), "--lengths", "8640", "2880", "2880"]


MADE = {"pairs": made_pairs, "series": made_series}


def command_line(family: Family, dataset: Path, run: Path, *keys: str) -> CommandLine:
    """The parsed command of a training."""
    given = (
        f"run={run}",
        f"data.init_args.dataset={dataset}",
        "trainer.accelerator=cpu",
        "trainer.devices=1",
        "trainer.max_epochs=-1",
        "trainer.limit_val_batches=0",
        "checkpoints.every_minutes=null",
        *keys,
        *family.changes,
    )
    return parse_config(["--config", family.config, *(f"--{key}" for key in given)])


class BareLoop:
    """A loop that does nothing but train, over batches in memory.

    Args:
        family: the task.
        cli: the command, whose model, data and optimizer the loop takes.
        now: the clock.
    """

    def __init__(self, family: Family, cli: CommandLine, now: Callable[[], float]) -> None:
        self.model, self.data, config = cli.build()
        self.model.configure_model()
        self.model.train()
        self.family, self.now, self.clip = family, now, config.trainer.gradient_clip_val or 0.0
        self.rows = config.trainer.log_every_n_steps
        self.optimizer = self.model.optimizer_of([{"params": list(self.model.parameters())}])
        self.samples = self.data.samples("train")
        slices = MicroBatches(self.data.plan(self.samples), Share(), self.samples.predictions)
        self.first = [self.samples.__getitems__(each) for each in islice(slices, WARM)]

    def train(self, batches: Sequence[Any]) -> float:
        """Seconds of a step for each batch."""
        began = self.now()
        for batch in batches:
            if self.family.read is not None:
                self.family.read(self.samples, batch.ids)
            loss = self.family.loss(self.model, batch)
            self.optimizer.zero_grad()
            loss.backward()
            if self.clip:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()
        return self.now() - began


def compare_family(name: str, folder: Path, rounds: int, seconds: float, now: Callable[[], float]) -> dict[str, Any]:
    """Steps per second of both sides in turns, and the median of their ratios.

    Args:
        name: of FAMILIES.
        folder: for datasets and runs.
        rounds: turns of each side.
        seconds: that a turn takes, about; the number of steps follows from it.
        now: the clock.
    """
    quieten()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    family, run = FAMILIES[name], folder / "runs" / name
    dataset = prepared(family, folder)
    Turns.loop = loop = BareLoop(family, command_line(family, dataset, run), now)
    loop.train(loop.first)
    steps = max(1, round(seconds / (loop.train(loop.first) / WARM)))
    Turns.seconds = []
    turns = f'trainer.callbacks=[{{"class_path": "families.Turns", "init_args": {{"steps": {steps}}}}}]'
    keys = turns, f"trainer.max_steps={loop.rows + rounds * steps}"
    with contextlib.redirect_stdout(io.StringIO()):
        assert fit(command_line(family, dataset, run, *keys), Run(run)) == 0
    ours, theirs = (median(column) / steps for column in zip(*Turns.seconds, strict=True))
    return {
        "parameters": sum(parameter.numel() for parameter in loop.model.parameters()),
        "ms_per_step": 1e3 * ours,
        "bare_ms_per_step": 1e3 * theirs,
        "ms_more": 1e3 * median(ours - theirs for ours, theirs in Turns.seconds) / steps,
        "ratio": median(theirs / ours for ours, theirs in Turns.seconds),
    }
