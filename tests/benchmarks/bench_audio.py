"""Features of sound and the drawing of a wave, against other ways on the same core, in turns.

    python tests/benchmarks/bench_audio.py [--rounds 5] [--counted data/NAME] [--output docs/benchmarks/cpu.json]

Features: the log-mel spectrogram against librosa's, if it is installed. Waves: samples per second with the carried
state, against recomputing the whole context for each sample. With `--counted`, bits per sample of a bigram over levels
on the test split of a labelled dataset.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from results import Table, add_output

from pipeline.data.raw_audio import WaveDataModule
from pipeline.dataset.codecs.audio import END
from pipeline.generation.sampling import Greedy, Limits, stream
from pipeline.models.conv import ConvNet
from pipeline.models.kneser_ney import KneserNey, measure_split
from pipeline.models.layers.log_mel import LogMel
from pipeline.tasks.wave_model import WaveModel

RATE, DRAWN = 8000, 300


def features(seconds: int = 30) -> tuple[float, float]:
    """Seconds of audio a second: ours, and librosa's."""
    import librosa

    wave = np.random.default_rng(1).standard_normal(seconds * RATE).astype(np.float32)
    module, tensor = LogMel(RATE, 64, 256, 80), torch.from_numpy(wave)[None]
    how = {"sr": RATE, "n_fft": 256, "hop_length": 80, "n_mels": 64, "center": False}
    module(tensor), librosa.feature.melspectrogram(y=wave, **how)
    theirs = timed(lambda: np.log(np.maximum(1e-10, librosa.feature.melspectrogram(y=wave, **how))))
    return seconds / timed(lambda: module(tensor)), seconds / theirs


def waves() -> tuple[float, float]:
    """Return samples per second with the carried state, and without."""
    network = ConvNet(width=48, depth=10, cycle=10)
    model = WaveModel(network, 257, RATE).eval()
    sees = network.receptive_field

    @torch.no_grad()
    def again() -> None:
        read = [256] * sees
        for _ in range(DRAWN // 10):
            logits, _ = model(torch.tensor([read[-sees:]]))
            read.append(int(logits[0, -1].argmax()))

    cached = timed(lambda: list(stream(model, [[256]], Greedy(), Limits(DRAWN), [0])))
    return DRAWN / cached, DRAWN // 10 / timed(again)


def counted(dataset: Path) -> float:
    """Return bits per sample of a Kneser-Ney bigram over the levels of the training split."""
    data = WaveDataModule(labels=True, dataset=dataset)
    train = data.split("train")
    model = KneserNey.fit(train.read(0, train.tokens), END, data.facts.vocab_size, order=2)
    return measure_split(model, data.split("test"))["bits_per_byte"]


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--counted", type=Path, metavar="DATASET", help="only measure the bigram baseline on DATASET")
    add_output(parser)
    options = parser.parse_args()
    if options.counted:
        print(f"bigram baseline: {counted(options.counted):.3f} bits per sample")
        return
    torch.set_num_threads(1)
    about = f"Units per second, medians of {options.rounds} alternating rounds."
    table = Table("audio", "Features and waves", about, options.output)
    pairs = {
        "seconds of log-mel features, beside librosa": features,
        "samples of a WaveNet with its carried state, beside none": waves,
    }
    if importlib.util.find_spec("librosa") is None:
        print("librosa is not installed: pip install librosa")
        del pairs["seconds of log-mel features, beside librosa"]
    for name, measure in pairs.items():
        found = [measure() for _ in range(options.rounds)]
        ours, theirs = (median(column) for column in zip(*found, strict=True))
        table.add(what=name, ours=ours, other=theirs, ratio=median(one / two for one, two in found))


if __name__ == "__main__":
    main()
