"""Shared by all tests: one thread per process, no network, runs in a temporary directory, small datasets."""

import gc
import importlib.util
import math
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import IO

# Before the import of torch: sums in a fixed order, and no contention of several processes for few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before the import of huggingface_hub and wandb: no access to the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("WANDB_MODE", "offline")
os.environ["WANDB_SILENT"] = "true"
# Before the import of torch: compiled code is specific to an instruction set, which inductor's cache ignores.
os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(
    tempfile.gettempdir(),
    f"unroll-inductor-{os.getuid()}",
    os.environ.get("ATEN_CPU_CAPABILITY", "native"),
)

import pytest
from _pytest.terminal import TerminalReporter
from hypothesis import settings

from pipeline.distributed import signals
from tests.timeouts import scaled

# The same examples each time and without a deadline, so that a property fails on every machine or on none.
settings.register_profile("same", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("same")

REPOSITORY = Path(__file__).parent.parent

# Before pytest-timeout reads it. No test takes a minute on a quiet machine.
os.environ.setdefault("PYTEST_TIMEOUT", f"{scaled(300):.0f}")


def is_open(file: int | IO[bytes]) -> None:
    """Raise an OSError if a file is closed, as `os.fsync` does."""
    os.fstat(file if isinstance(file, int) else file.fileno())


os.fsync = is_open  # flushing takes most of the time of a checkpoint, and no test cuts the power


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seeds", type=int, default=1, metavar="N", help="run each test marked `learns` with N seeds (default: 1)"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test marked `learns` once, or with --seeds N as often as needed to see the margin of its bound."""
    if metafunc.definition.get_closest_marker("learns"):
        metafunc.parametrize("seed", range(1, 1 + metafunc.config.getoption("seeds")), ids=lambda seed: f"seed{seed}")


def pytest_sessionfinish() -> None:
    """End what the tests left behind: at its exit, Python waits for forked processes, also for those that hang."""
    for child in multiprocessing.active_children():
        child.kill()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print a failure as soon as it happens, for a run of the tests that is stopped before its summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.nodeid} failed after {report.duration:.0f} s:\n{report.longreprtext[-20_000:]}", flush=True)


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """With --seeds, print the mean and standard deviation of the values each test recorded as its `result`."""
    if config.getoption("seeds") == 1:
        return
    results = defaultdict(list)
    for report in [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]:
        for name, value in report.user_properties:
            results[re.sub(r"-?seed\d+", "", report.nodeid), name].append(value)
    for (test, name), values in sorted(results.items()):
        spread = f"mean {fmean(values):.4g}, sd {stdev(values):.2g}, worst {min(values):.4g} or {max(values):.4g}"
        terminalreporter.write_line(f"{spread} of {len(values)}: {name}, {test}")


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """A training in this process leaves its handlers of signals; with them, a forked worker survives its pool's end."""
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    yield
    signals.forget()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _denormal_numbers_after_each_test() -> Iterator[None]:
    """Restore denormal numbers, which commands flush in their process; hypothesis then could not draw floats."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session", autouse=True)
def _wandb_writes_to_a_temporary_directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("wandb")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        os.environ[name] = str(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where they cannot run, and start those that wait for Slurm first."""
    items.sort(key=lambda item: item.get_closest_marker("slurm") is None)
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _has_a_gpu():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="requires a CUDA device"))


def pytest_collection_finish() -> None:
    """Exempt what was collected from garbage collection, which would visit thousands of tests again and again."""
    gc.collect()
    gc.freeze()


def _has_a_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The directory of the real data sets: PIPELINE_DATA, or ../shared/data beside the repository."""
    named = os.environ.get("PIPELINE_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set PIPELINE_DATA")
    return folder


@pytest.fixture(scope="session")
def tiny_text_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level text dataset of 200 short documents of made-up sentences, with all three splits."""
    from data_prep.text import command as text

    folder = tmp_path_factory.mktemp("tiny_text")
    source, output = folder / "source.txt", folder / "dataset"
    source.write_text("\n".join(_sentences(200)) + "\n", encoding="utf-8")
    shares = ["--validation-share", "0.1", "--test-share", "0.1", "--workers", "1"]
    options = ["--documents", "line", "--tokenizer", "byte", "--output", str(output)]
    assert text.main([str(source), *options, *shares]) == 0
    return output


@pytest.fixture(scope="session")
def tiny_pairs_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level dataset of 160 made-up words and their reversals, some also in capitals, with all three splits."""
    import numpy as np
    import pyarrow as pa

    from data_prep.workspace import tokenizer
    from pipeline.dataset.manifest import publish
    from pipeline.dataset.records import RecordWriter
    from pipeline.files import sha256

    folder = tmp_path_factory.mktemp("tiny_pairs")
    (prepared := folder / ".dataset.partial").mkdir()
    made = tokenizer.byte([])
    chance, splits = random.Random(2), {}
    for name, rows in (("train", 160), ("validation", 30), ("test", 30)):
        counts = {"rows": rows, "samples": 0, "tokens": 0, "bytes": 0}
        writer = RecordWriter(
            prepared / f"{name}.arrow", {"source": pa.list_(pa.uint16()), "text": pa.string()}, np.uint16
        )
        for row in range(rows):
            word = "".join(chance.choices("abcdefg", k=chance.randint(1, 9)))
            texts = [word[::-1], word[::-1].upper()][: 1 + (row % 4 == 0)]
            targets = [made.encode(text).ids for text in texts]
            writer.add({"source": made.encode(word).ids, "text": word}, targets, texts)
            counts["samples"] += len(texts)
            counts["tokens"] += sum(map(len, targets)) + len(texts)
            counts["bytes"] += sum(map(len, targets)) + len(texts)
        splits[name] = {**counts, "shards": [writer.close()._asdict()]}
    made.save(str(file := prepared / "tokenizer.json"))
    described = {"file": file.name, "size": file.stat().st_size, "sha256": sha256(file)}
    vocabulary = {"tokenizer": described, "vocab_size": 257, "eos": 256}
    publish(prepared, folder / "dataset", {"kind": "pairs", "splits": splits, "source": vocabulary, **vocabulary})
    return folder / "dataset"


@pytest.fixture(scope="session")
def tiny_audio_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 60 numbers dialled by key tones, with byte-level transcripts and all three splits."""
    return _tones(tmp_path_factory.mktemp("tiny_audio"), "builtin:60", "--tokenizer", "byte")


@pytest.fixture(scope="session")
def tiny_labels_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 300 key tones, labelled with the key, with all three splits."""
    return _tones(tmp_path_factory.mktemp("tiny_labels"), "builtin:300", "--labels")


def _tones(folder: Path, *options: str) -> Path:
    for package in ("tokenizers", "soundfile"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"requires the {package} package")
    from data_prep.audio import command as audio

    output = ["--output", str(folder / "dataset"), "--rate", "8000", "--workers", "1"]
    assert audio.main([*options, *output, "--validation-share", "0.2", "--test-share", "0.1"]) == 0
    return folder / "dataset"


@pytest.fixture(scope="session")
def tiny_pixels_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 160 drawn shapes of 8 x 6 pixels in two levels, in three classes, with all three splits."""
    from data_prep.pixels import command as pixels

    output = tmp_path_factory.mktemp("tiny_pixels") / "dataset"
    shares = ["--validation-share", "0.2", "--test-share", "0.1"]
    assert pixels.main(["builtin:160", "--size", "8x6", "--levels", "2", *shares, "--output", str(output)]) == 0
    return output


@pytest.fixture(scope="session")
def tiny_series_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three noisy waves of 240 hours with a covariate that is known ahead; one has a gap."""
    from data_prep.series import command as series

    folder = tmp_path_factory.mktemp("tiny_series")
    chance, rows = random.Random(3), ["time,name,value,price"]
    for hour in range(240):
        stamp = f"2020-01-{1 + hour // 24:02} {hour % 24:02}:00"
        for number, name in enumerate(("north", "south", "west")):
            wave = math.sin(hour * math.pi / (6 + 3 * number)) + chance.gauss(0, 0.1)
            if (name, hour) != ("south", 50):
                rows.append(f"{stamp},{name},{10 * number + wave},{chance.choice((1, 2))}")
    (folder / "table.csv").write_text("\n".join(rows))
    columns = ["--id", "name", "--target", "value", "--known", "price", "--fill-gaps"]
    assert series.main([str(folder / "table.csv"), *columns, "--output", str(folder / "dataset")]) == 0
    return folder / "dataset"


@pytest.fixture(scope="session")
def tiny_captions_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level dataset of 80 captioned drawings, with all three splits."""
    from data_prep.captions import command as captions

    output = tmp_path_factory.mktemp("tiny_captions") / "dataset"
    shares = ["--validation-share", "0.1", "--test-share", "0.1", "--workers", "1"]
    assert captions.main(["builtin:80", "--tokenizer", "byte", "--output", str(output), *shares]) == 0
    return output


@pytest.fixture(scope="session")
def tiny_recall_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 64 copy questions (three values of four, five blanks, the values again), with all three splits."""
    from data_prep.recall import command as recall

    output = tmp_path_factory.mktemp("tiny_recall") / "dataset"
    sizes = ["--length", "5", "--items", "3", "--symbols", "4", "--train", "64", "--validation", "20", "--test", "20"]
    assert recall.main(["copy", *sizes, "--output", str(output)]) == 0
    return output


@pytest.fixture(scope="session")
def tiny_trajectories_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 160 scripted episodes of key to door, two to five steps apart, with all three splits."""
    from data_prep.trajectories import command as trajectories

    output = tmp_path_factory.mktemp("tiny_trajectories") / "dataset"
    options = ["--delay", "2", "5", "--validation-share", "0.2", "--test-share", "0.1"]
    assert trajectories.main(["builtin:key-to-door:160", *options, "--output", str(output)]) == 0
    return output


@pytest.fixture(scope="session")
def tiny_music_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 40 generated pieces with one frame per beat, with all three splits."""
    from data_prep.music import command as music

    output = tmp_path_factory.mktemp("tiny_music") / "dataset"
    options = ["--steps-per-beat", "1", "--validation-share", "0.2", "--test-share", "0.1", "--workers", "1"]
    assert music.main(["builtin:40", *options, "--output", str(output)]) == 0
    return output


def _sentences(count: int) -> list[str]:
    chance = random.Random(1)
    who, does, what = ["the cat", "a dög", "my aunt"], ["sees", "hears", "eats"], ["rain", "bread", "a song"]
    return [f"{chance.choice(who)} {chance.choice(does)} {chance.choice(what)} {n}." for n in range(count)]
