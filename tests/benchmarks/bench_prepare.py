"""Text preparation against a bare `Tokenizer.encode_batch`, and dataset reading against a bare numpy memmap.

    python tests/benchmarks/bench_prepare.py [--megabytes 40] [--workers 2]

Both sides see the same documents and the same tokenizer on the same cores, in turns, and the median of the ratios is
printed. The bare side encodes with the library's own threads, takes the ids and writes them to one file; preparation
reads the file, cuts and splits it, encodes, writes Arrow shards with their checksums and publishes the dataset.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from tokenizers import Tokenizer

import data_prep.text.command
from data_prep.workspace import tokenizer
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.tokens import TokenSplit

ROUNDS = 3
WANTED = 0.9  # of the bare encoder's speed
WINDOW = 256
WINDOWS = 20_000


def corpus(path: Path, megabytes: int) -> None:
    """Write a text of random words of Python's language reference."""
    from pydoc_data.topics import topics

    words = np.array(" ".join(topics.values()).split())
    draw = np.random.default_rng(0)
    with path.open("w") as file:
        while file.tell() < megabytes * 1_000_000:
            for length in draw.integers(5, 60, size=2000):
                file.write(" ".join(draw.choice(words, length)) + "\n")


def seconds(act: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def encode_bare(text: Path, tokenizer_file: Path, out: Path) -> None:
    """The whole text with the library's threads."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    bare = Tokenizer.from_file(str(tokenizer_file))
    lines = text.read_text().splitlines()
    with out.open("wb") as file:
        for at in range(0, len(lines), 10_000):
            for encoding in bare.encode_batch(lines[at : at + 10_000], add_special_tokens=False):
                file.write(np.array(encoding.ids, np.uint16).tobytes())


def prepare(text: Path, tokenizer_file: Path, out: Path, workers: int) -> None:
    """The same through `unroll prepare text`."""
    options = ["--documents", "line", "--tokenizer", str(tokenizer_file), "--workers", str(workers)]
    data_prep.text.command.main([str(text), *options, "--output", str(out), "--overwrite"])


def read_windows(read: Callable[[int, int], np.ndarray], starts: list[int]) -> int:
    """Copy the windows as a loader does, to 64 bits."""
    return sum(int(read(at, at + WINDOW).astype(np.int64)[0]) for at in starts)


def reading_ratio(split: TokenSplit, flat: Path) -> float:
    """Speed of TokenSplit.read over that of slices of one memmap of the same tokens."""
    split.read(0, split.tokens).tofile(flat)
    bare = np.memmap(flat, split.read(0, 1).dtype, "r")
    starts = np.random.default_rng(1).integers(0, split.tokens - WINDOW, WINDOWS).tolist()
    ratios = []
    for _ in range(2 * ROUNDS + 1):
        ours = seconds(lambda: read_windows(split.read, starts))
        ratios.append(seconds(lambda: read_windows(lambda at, end: bare[at:end], starts)) / ours)
    return median(ratios)


def main() -> None:
    """Print the paired ratios for each kind of tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus(text := folder / "corpus.txt", options.megabytes)
        sample = text.read_text()[: 1 << 21].splitlines()
        for kind, train in tokenizer.TRAINED.items():
            train(sample, None).save(str(file := folder / "tokenizer.json"))
            bare, ratios = 0.0, []
            for _ in range(ROUNDS):
                bare = seconds(lambda: encode_bare(text, file, folder / "bare"))
                ratios.append(bare / seconds(lambda: prepare(text, file, folder / "data", options.workers)))
            ratio = median(ratios)
            below = "" if ratio >= WANTED else f": below {WANTED}"
            print(f"{kind:10} bare {options.megabytes / bare:5.1f} MB/s, preparation / bare = {ratio:.2f}{below}")
        ratio = reading_ratio(Dataset.open(folder / "data").splits["train"], folder / "flat")
        print(f"windows of {WINDOW}: reading / memmap = {ratio:.2f}")


if __name__ == "__main__":
    main()
