"""Translators: beam search over a batch against a plain one.

    python tests/benchmarks/bench_pairs.py [--dataset DIR] [--rounds 3] [--device cpu]
        [--output docs/benchmarks/cpu.json]

The plain beam search takes one source after the other, its hypotheses side by side, and keeps its books in lists.
Without `--dataset` the pairs are sentences of Python's own documentation and the same sentences backwards.
"""

import argparse
import logging
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from families import FAMILIES, prepared
from results import Table, add_output

from pipeline import state as states
from pipeline.data.pairs import PairsDataModule, padded
from pipeline.generation.beam import Beam
from pipeline.generation.sampling import Limits
from pipeline.models.assemblies.translators import AttentionTranslator, LSTMTranslator, TransformerTranslator
from pipeline.tasks.sequence_to_sequence import SequenceToSequence

MODELS = (LSTMTranslator, AttentionTranslator, TransformerTranslator)
SENTENCES, LENGTH, WIDTH = 32, 24, 4  # of the search


def now(device: str) -> float:
    """Return the time in seconds, after all pending work of the device."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


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
    about = f"Beam of {WIDTH}, {SENTENCES} sources, medians of {options.rounds} alternating rounds."
    table = Table("search", "Beam search beside a plain one", about, options.output)
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
        table.add(
            model=task.__name__,
            sentences_per_second=ours,
            plain_sentences_per_second=theirs,
            ratio=ratio,
            the_same=f"{same} of {SENTENCES}",
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    add_output(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        dataset = options.dataset or prepared(FAMILIES["pairs"], Path(name))
        search(dataset, options)


if __name__ == "__main__":
    main()
