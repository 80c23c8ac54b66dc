"""The loader of every modality against a bare reader, in turns.

    python tests/benchmarks/bench_loader.py [NAME ...] [--tokens 5000000] [--rounds 5] [--batches 100]
        [--output docs/benchmarks/cpu.json]

Both readers hand over the same samples in the same order as tensors. The bare one cuts them from arrays in
memory; images and sounds it decodes from the same bytes with Pillow or soundfile. Printed are samples per second.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from families import FAMILIES, Family, open_images, open_sounds, prepared, tokens, values
from results import Table, add_output

import data_prep.text.command
from pipeline.data.audio import AudioDataModule
from pipeline.data.batch_plan import Ids, MicroBatches, Share
from pipeline.data.captions import ImageCaptionDataModule
from pipeline.data.pixels import PixelDataModule
from pipeline.data.series import SeriesDataModule
from pipeline.data.text import TextDataModule
from pipeline.data.trajectories import TrajectoriesDataModule

CONTEXT, ROWS = 256, 32
Reader = Callable[[Ids], object]
EPISODES = Family("", ("trajectories", "gymnasium:CartPole-v1:300"), tokens)
IMAGES = Family("", ("pixels", "builtin:10000", "--size", "14x14", "--levels", "2"), tokens)
WALKS = Family("", ("series",), values)


def windows(samples: Any) -> Reader:
    """Windows of a text."""
    stream = samples.split.read(0, samples.split.tokens)

    def read(ids: Ids) -> object:
        starts = np.maximum(ids * CONTEXT, 1)
        rows = np.stack([stream[start - 1 : start + CONTEXT] for start in starts]).astype(np.int64)
        return torch.from_numpy(rows[:, :-1].copy()), torch.from_numpy(rows[:, 1:].copy())

    return read


def images(samples: Any) -> Reader:
    """Images of levels with their label first."""
    held, openings = samples.pixels(np.arange(len(samples))), 3 + samples.classes

    def read(ids: Ids) -> object:
        targets = held[ids].astype(np.int64)
        return torch.from_numpy(np.concatenate([openings[ids, None], targets[:, :-1]], 1)), torch.from_numpy(targets)

    return read


def walks(samples: Any) -> Reader:
    """Windows of series."""
    held = np.array(samples.split.values)

    def read(ids: Ids) -> object:
        rows = np.stack([held[end - 336 : end + 96] for end in samples.places[ids, 1]])
        return torch.from_numpy(rows[:, :336]), torch.from_numpy(rows[:, 336:])

    return read


def episodes(samples: Any) -> Reader:
    """Stretches of 32 steps, padded at the end of episodes."""
    split = samples.split
    held = [np.array(part) for part in (split.observations, split.returns, split.actions)]

    def read(ids: Ids) -> object:
        shape = len(ids), 32
        before, inside = np.full(shape, -1), np.zeros(shape, bool)
        kept = np.zeros((*shape, held[0].shape[1]), np.float32), np.zeros(shape, np.float32), before.copy()
        for row, (first, begin, end) in enumerate(samples.places[ids]):
            inside[row, : end - begin] = True
            for there, part in zip(kept, held, strict=True):
                there[row, : end - begin] = part[begin:end]
            skipped = int(begin == first)  # nothing was done before the first step
            before[row, skipped : end - begin] = held[2][begin - 1 + skipped : end - 1]
        return [torch.from_numpy(part) for part in (*kept, before, inside)]

    return read


@torch.no_grad()
def measure(data: Any, bare: Callable[[Any], Reader], batches: int, rounds: int) -> dict[str, float]:
    """Samples per second of both readers in turns, and the median of the ratios."""
    samples, pairs = data.samples("train"), []
    slices = list(islice(MicroBatches(data.plan(samples), Share(), samples.predictions), batches + 1))[1:]
    read = bare(samples)
    for _ in range(rounds):
        loader = iter(data._loader(samples, MicroBatches(data.plan(samples), Share(), samples.predictions)))
        next(loader)
        began = time.perf_counter()
        for _ in slices:
            next(loader)
        middle = time.perf_counter()
        for each in slices:
            read(each.ids)
        pairs.append((middle - began, time.perf_counter() - middle))
    ours, theirs = (median(column) for column in zip(*pairs, strict=True))
    count = sum(len(each.ids) for each in slices)
    ratio = median(theirs / ours for ours, theirs in pairs)
    return {"samples_per_second": count / ours, "bare_samples_per_second": count / theirs, "ratio": ratio}


def corpus(folder: Path, tokens: int) -> Path:
    """A dataset of random letters."""
    if not (folder / "data").exists():
        letters = np.random.default_rng(0).integers(97, 123, tokens, dtype=np.uint8)
        letters[::500] = 10
        (folder / "text.txt").write_bytes(letters.tobytes())
        source = [str(folder / "text.txt"), "--documents", "line", "--tokenizer", "byte"]
        data_prep.text.command.main([*source, "--workers", "1", "--output", str(folder / "data")])
    return folder / "data"


def modules(folder: Path, tokens: int) -> Iterator[tuple[str, Callable[[], Any], Callable[[Any], Reader]]]:
    """The name, the DataModule and the bare reader of each loader."""

    for order in ("shuffled", "contiguous", "documents"):
        yield order, lambda order=order: TextDataModule(corpus(folder, tokens), order, CONTEXT, ROWS), windows
    yield "pixels", lambda: PixelDataModule(prepared(IMAGES, folder), labels=True), images
    yield "series", lambda: SeriesDataModule(prepared(WALKS, folder), 336, 96, 256), walks
    yield "trajectories", lambda: TrajectoriesDataModule(prepared(EPISODES, folder), 32, 64), episodes
    yield (
        "captions",
        lambda: ImageCaptionDataModule(prepared(FAMILIES["captions"], folder), 96, global_batch_tokens=2048),
        lambda samples: lambda ids: open_images(samples, ids, 96),
    )
    yield (
        "audio",
        lambda: AudioDataModule(prepared(FAMILIES["transcription"], folder), global_batch_seconds=30.0),
        lambda samples: lambda ids: open_sounds(samples, ids),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of loaders (default: all)")
    parser.add_argument("--tokens", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=100, help="of a round; encoded images and sounds a tenth")
    add_output(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = f"Samples per second through the DataLoader of training, medians of {options.rounds} alternating rounds."
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = Table("loader", "Loaders beside bare readers", about, options.output)
        for name, data, bare in modules(folder, options.tokens):
            if name in options.names or not options.names:
                batches = options.batches // 10 if name in ("captions", "audio") else options.batches
                table.add(loader=name, **measure(data(), bare, max(1, batches), options.rounds))


if __name__ == "__main__":
    main()
