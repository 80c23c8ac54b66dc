"""Translators: training against a bare PyTorch loop, padding with and without buckets, beam search against a plain one.

    python tests/benchmarks/bench_pairs.py [--dataset DIR] [--steps 8] [--rounds 3] [--device cpu]

Both sides train in turns in one process on the same batches; the median of the ratios is printed. The plain beam search
takes one source after the other, its hypotheses side by side, and keeps its books in lists. Without `--dataset` the
pairs are sentences of Python's own documentation and the same sentences backwards.
"""

import argparse
import logging
import re
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from bench_fit import WARM, Setting, through_pipeline
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from data_prep.pairs import command as pairs
from pipeline import state as states
from pipeline.data.batch import IGNORE
from pipeline.data.pairs import PairsDataModule, padded
from pipeline.generation.beam import Beam
from pipeline.generation.sampling import Limits
from pipeline.models.assemblies.translators import AttentionTranslator, LSTMTranslator, TransformerTranslator
from pipeline.tasks.sequence_to_sequence import SequenceToSequence

MODELS = (LSTMTranslator, AttentionTranslator, TransformerTranslator)
SENTENCES, LENGTH, WIDTH = 32, 24, 4  # of the search


def sentences(folder: Path) -> Path:
    """A dataset of sentences and the same backwards."""
    from pydoc_data.topics import topics

    found = [" ".join(part.split()) for text in topics.values() for part in re.split(r"[.:]\s", text)]
    kept = [part for part in found if 3 <= len(part.split()) <= 40]
    (folder / "pairs.tsv").write_text("".join(f"{one}\t{' '.join(one.split()[::-1])}\n" for one in kept))
    options = ["--train", str(folder / "pairs.tsv"), "--vocab-size", "4000", "--output", str(folder / "data")]
    assert pairs.main(options) == 0
    return folder / "data"


def bare(model: SequenceToSequence, data: PairsDataModule, steps: int, device: str) -> float:
    """Seconds of `steps` steps by a loop that does nothing else, over pairs in memory."""
    samples = data.samples("train")
    plan, eos = data.plan(samples), data.dataset.target.eos
    ids = [plan.batch(0, step) for step in range(WARM + steps)]
    held = {}
    for sample in np.concatenate(ids).tolist():
        source = samples.split.value("source", samples.split.row_of(sample))
        sides = np.append(source, eos), np.concatenate([[eos], samples.split.target(sample), [eos]])
        held[sample] = [torch.from_numpy(side.astype(np.int64)) for side in sides]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    model.to(device).train()
    began = 0.0
    for step, batch in enumerate(ids):
        rows = [held[sample] for sample in batch.tolist()]
        source = pad_sequence([one for one, _ in rows], batch_first=True, padding_value=IGNORE).to(device)
        target = pad_sequence([other for _, other in rows], batch_first=True, padding_value=IGNORE).to(device)
        keep = source != IGNORE
        state = model.decoder.begin(model.encoder(source.where(keep, eos), keep))
        inputs = target[:, :-1]
        outputs, _ = model.decoder(model.embedding(inputs.where(inputs != IGNORE, eos)), state)
        logits = model.output(outputs).flatten(0, 1)
        loss = cross_entropy(logits, target[:, 1:].flatten(), ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step + 1 == WARM:
            began = now(device)
    return now(device) - began


def now(device: str) -> float:
    """Return the time in seconds, after all pending work of the device."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def fit(dataset: Path, folder: Path, options: argparse.Namespace) -> None:
    """A line for each model: tokens per second of both sides."""
    data = PairsDataModule(dataset, 2048)
    samples = data.samples("train")
    plan = data.plan(samples)
    tokens = sum(samples.predictions(plan.batch(0, step)) for step in range(WARM, WARM + options.steps))
    print(f"{'training':24}{'parameters':>12}{'tokens/s':>10}{'bare':>10}{'ratio':>8}")
    for task in MODELS:
        rates = []
        for _ in range(options.rounds):
            model = task(
                **data.facts.arguments_of(task), width=256, optimizer=partial(torch.optim.AdamW, lr=1e-3, fused=True)
            )
            seconds = through_pipeline(model, data, Setting(steps=options.steps, device=options.device), folder)
            rates.append((tokens / seconds, tokens / bare(model, data, options.steps, options.device)))
        ratio = median(ours / theirs for ours, theirs in rates)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        ours, theirs = (median(column) for column in zip(*rates, strict=True))
        row = f"{task.__name__:24}{parameters / 1e6:10.1f} M{ours:10,.0f}{theirs:10,.0f}{ratio:8.2f}"
        print(row, flush=True)


def padding(dataset: Path) -> None:
    """The share of an epoch's positions that hold nothing, by the plan and in a shuffled order of as many batches."""
    data = PairsDataModule(dataset, 2048)
    samples = data.samples("train")
    plan, split = data.plan(samples), samples.split
    sources = np.repeat(split.lengths("source"), np.diff(split.first_samples)) + 1
    sides = np.stack([sources, split.target_lengths + 1])
    order = np.random.default_rng(0).permutation(len(samples))
    for name, batches in (
        ("in buckets", [plan.batch(0, k) for k in range(len(plan))]),
        ("shuffled", np.array_split(order, len(plan))),
    ):
        positions = sum(int(sides[:, ids].max(1).sum()) * len(ids) for ids in batches)
        print(f"padding {name}: {1 - sides.sum() / positions:.1%} of {positions:,} positions", flush=True)


def plain(model: SequenceToSequence, source: tuple[torch.Tensor, ...], eos: int) -> list[int]:
    """The best text of a beam search by the book, for one source."""
    live: list[tuple[list[int], float]] = [([], 0.0)]
    aside: list[tuple[list[int], float]] = []
    logits, state = model(torch.tensor([[eos]], device=model.device), model.begin(source))
    for _ in range(LENGTH):
        gains = logits[:, -1].log_softmax(-1).topk(2 * WIDTH)
        grown = [
            (score + gain, row, token)
            for row, (_, score) in enumerate(live)
            for gain, token in zip(gains.values[row].tolist(), gains.indices[row].tolist(), strict=True)
        ]
        grown.sort(key=lambda one: -one[0])
        aside += [([*live[row][0], token], score) for score, row, token in grown[:WIDTH] if token == eos]
        best = [one for one in grown if one[2] != eos][:WIDTH]
        live = [([*live[row][0], token], score) for score, row, token in best]
        if len(aside) >= WIDTH and sorted(score for _, score in aside)[-WIDTH] >= live[0][1]:
            break
        state = states.select(state, torch.tensor([row for _, row, _ in best], device=model.device))
        logits, state = model(torch.tensor([[token] for *_, token in best], device=model.device), state)
    else:
        aside += live
    return max(aside, key=lambda one: one[1])[0]


@torch.no_grad()
def search(dataset: Path, options: argparse.Namespace) -> None:
    """A line for each model: sentences per second of both searches, which find the same."""
    data = PairsDataModule(dataset, 2048)
    samples, eos = data.samples("train"), data.dataset.target.eos
    sources = [samples._source(int(samples.split.first_samples[row])) for row in range(SENTENCES)]
    together = tuple(part.to(options.device) for part in padded(sources, eos))
    print(f"{'beam of ' + str(WIDTH):24}{'sentences/s':>12}{'plain':>10}{'ratio':>8}")
    for task in MODELS:
        torch.manual_seed(0)
        model: Any = task(**data.facts.arguments_of(task), width=256).eval().to(options.device)
        rates = []
        for _ in range(options.rounds):
            began = now(options.device)
            limits = Limits(LENGTH, eos=eos)
            found = Beam(WIDTH).search(model, [[eos]] * SENTENCES, limits, options.device, model.begin(together))
            middle = now(options.device)
            one_by_one = [
                plain(model, tuple(part.to(options.device) for part in padded([source], eos)), eos)
                for source in sources
            ]
            rates.append((SENTENCES / (middle - began), SENTENCES / (now(options.device) - middle)))
        same = sum(best[0].tokens == text for best, text in zip(found, one_by_one, strict=True))
        ratio = median(ours / theirs for ours, theirs in rates)
        ours, theirs = (median(column) for column in zip(*rates, strict=True))
        print(f"{task.__name__:24}{ours:12.1f}{theirs:10.1f}{ratio:8.2f}  {same} of {SENTENCES} the same", flush=True)


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        dataset = options.dataset or sentences(Path(name))
        padding(dataset)
        search(dataset, options)
        fit(dataset, Path(name), options)


if __name__ == "__main__":
    main()
