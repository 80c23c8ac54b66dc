"""Text preparation against a bare `Tokenizer.encode_batch`, and dataset reading against a bare numpy memmap.

    python tests/benchmarks/bench_prepare.py [--megabytes 10] [--workers 2]
    python tests/benchmarks/bench_prepare.py --against ../other [--kinds text pairs audio ...]

Both sides see the same documents and the same tokenizer on the same cores, in turns, and the median of the ratios is
printed. The bare side encodes with the library's own threads, takes the ids and writes them to one file; preparation
reads the file, cuts and splits it, encodes, writes Arrow shards with their checksums and publishes the dataset.

With `--against`, every modality is prepared by this checkout and by another one, in turns, as commands.
"""

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import soundfile
from PIL import Image
from results import Table, add_output
from tokenizers import Tokenizer

import data_prep.text.command
from data_prep.workspace import tokenizer
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.tokens import TokenSplit

ROUNDS = 3
WINDOW = 256
WINDOWS = 20_000
HERE = Path(__file__).parents[2]
RATE = 8000


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


def text(folder: Path) -> tuple[int, list[str | Path]]:
    """Write a text of one line per document."""
    corpus(folder / "corpus.txt", 20)
    lines = sum(1 for _ in (folder / "corpus.txt").open())
    return lines, [folder / "corpus.txt", "--documents", "line", "--tokenizer", "byte"]


def trajectories(folder: Path) -> tuple[int, list[str | Path]]:
    """Write episodes of a hundred steps."""
    draw = np.random.default_rng(0)
    with (folder / "episodes.jsonl").open("w") as file:
        for _ in range(2_000):
            observations = draw.normal(size=(100, 4)).round(4).tolist()
            one = {"observations": observations, "actions": draw.integers(0, 2, 100).tolist(), "rewards": [1] * 100}
            file.write(json.dumps(one) + "\n")
    return 2_000, [folder / "episodes.jsonl"]


def pairs(folder: Path) -> tuple[int, list[str | Path]]:
    """Write parallel files of random words; return the number of records and the options."""
    draw = np.random.default_rng(0)
    for side in ("source", "target"):
        lines = draw.integers(0, 5000, (60_000, 12)).astype(str)
        (folder / side).write_text("\n".join(" ".join(line) for line in lines) + "\n")
    return 60_000, ["--train", folder / "source", folder / "target", "--tokenizer", "word"]


def audio(folder: Path) -> tuple[int, list[str | Path]]:
    """Write clips of a second with a manifest."""
    lines = []
    for number in range(800):
        wave = np.random.default_rng(number).normal(0, 0.1, 2 * RATE)
        soundfile.write(folder / f"{number}.wav", wave, 2 * RATE)
        lines.append(json.dumps({"audio_filepath": f"{number}.wav", "text": f"clip {number}"}))
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    return 800, [folder / "train.jsonl", "--rate", str(RATE), "--tokenizer", "character"]


def captions(folder: Path) -> tuple[int, list[str | Path]]:
    """Write photographs of noise with a table of five captions each."""
    with (folder / "captions.csv").open("w") as file:
        file.write("image,caption\n")
        for number in range(600):
            small = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
            Image.fromarray(small).resize((640, 480)).save(folder / f"{number}.jpg")
            file.writelines(f"{number}.jpg,a picture of {number + each} things\n" for each in range(5))
    return 600, [folder / "captions.csv", "--tokenizer", "word"]


def pixels(folder: Path) -> tuple[int, list[str | Path]]:
    """Write an IDX file of images with their labels."""
    draw = np.random.default_rng(0)
    for name, shape, top in (("images-idx3", (40_000, 28, 28), 256), ("labels-idx1", (40_000,), 10)):
        header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
        (folder / name).write_bytes(header + draw.integers(0, top, shape, np.uint8).tobytes())
    return 40_000, [folder / "images-idx3", "--size", "14x14", "--levels", "16"]


def series(folder: Path) -> tuple[int, list[str | Path]]:
    """Write a table of ten hourly series."""
    values = np.random.default_rng(0).normal(size=(60_000, 10)).cumsum(0)
    stamps = (np.datetime64("2000-01-01T00:00") + np.arange(60_000) * np.timedelta64(1, "h")).astype(str)
    with (folder / "table.csv").open("w") as file:
        file.write(",".join(["time", *(f"series {n}" for n in range(10))]) + "\n")
        file.writelines(
            f"{stamp},{','.join(map('{:.3f}'.format, row))}\n" for stamp, row in zip(stamps, values, strict=True)
        )
    return 60_000, [folder / "table.csv", "--calendar"]


KINDS = {each.__name__: each for each in (text, pairs, audio, captions, pixels, series, trajectories)}


def compare(kind: str, folder: Path, other: Path, workers: int) -> None:
    """Prepare the same source by both checkouts, in turns, and print the records per second and the median ratio."""
    records, options = KINDS[kind](folder)
    if kind in ("text", "audio", "captions", "pixels"):
        options += ["--workers", str(workers)]
    command = [sys.executable, "-m", "pipeline", "prepare", kind, *map(str, options), "--overwrite"]

    def run(checkout: Path) -> float:
        """Return the records per second."""
        began = time.perf_counter()
        subprocess.run(
            [*command, "--output", str(folder / "out")],
            env={**os.environ, "PYTHONPATH": str(checkout)},
            cwd=folder,
            check=True,
            capture_output=True,
        )
        return records / (time.perf_counter() - began)

    speeds = [(run(HERE), run(other.resolve())) for _ in range(ROUNDS)]
    ours, theirs = (median(each) for each in zip(*speeds, strict=True))
    ratio = median(mine / its for mine, its in speeds)
    print(f"{kind:10} {ours:9,.0f} records/s, the other {theirs:9,.0f}, ratio {ratio:.2f}")


def compare_with_encoder(folder: Path, megabytes: int, workers: int, output: Path | None) -> None:
    """Print the paired ratios of text preparation for each kind of tokenizer, and the ratio of reading."""
    corpus(text := folder / "corpus.txt", megabytes)
    sample = text.read_text()[: 1 << 21].splitlines()
    about = (
        f"{megabytes} MB beside a bare `encode_batch` of `tokenizers` on the same cores, medians of {ROUNDS} rounds."
    )
    table = Table("prepare", "Preparation of text", about, output)
    for kind, train in tokenizer.TRAINED.items():
        train(sample, None).save(str(file := folder / "tokenizer.json"))
        bare, ratios = 0.0, []
        for _ in range(ROUNDS):
            bare = seconds(lambda: encode_bare(text, file, folder / "bare"))
            ratios.append(bare / seconds(lambda: prepare(text, file, folder / "data", workers)))
        ratio = median(ratios)
        table.add(tokenizer=kind, bare_megabytes_per_second=megabytes / bare, ratio=ratio)
    ratio = reading_ratio(Dataset.open(folder / "data").splits["train"], folder / "flat")
    table.add(tokenizer=f"windows of {WINDOW} read, beside a memmap", ratio=ratio)


def main() -> None:
    """Print the paired ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=10)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="compare with another checkout")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS], help="with --against: what to prepare")
    add_output(parser)
    options = parser.parse_args()
    if options.against is None:
        with tempfile.TemporaryDirectory() as name:
            compare_with_encoder(Path(name), options.megabytes, options.workers, options.output)
        return
    for kind in options.kinds:
        with tempfile.TemporaryDirectory() as name:
            compare(kind, Path(name), options.against, options.workers)


if __name__ == "__main__":
    main()
