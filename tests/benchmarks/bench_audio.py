"""Sound against bare loops on the same core, in turns: loading, features, a training step, and drawing a wave.

    python tests/benchmarks/bench_audio.py [--rounds 5] [--counted data/NAME]

Loading: seconds of audio per second through the DataLoader, against decoding the same FLAC bytes with soundfile alone.
Features: the log-mel spectrogram against librosa's. Training: a Trainer's step against a plain PyTorch loop on the same
batches. Waves: samples per second with the carried state, against recomputing the whole context for each sample. With
`--counted`, bits per sample of a bigram over levels on the test split of a labelled dataset.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import lightning
import numpy as np
import soundfile
import torch

import data_prep.audio.command
from pipeline.data.audio import AudioDataModule
from pipeline.data.batch_plan import MicroBatches, Share
from pipeline.data.raw_audio import WaveDataModule
from pipeline.dataset.codecs.audio import END
from pipeline.generation.sampling import Greedy, Limits, stream
from pipeline.models.assemblies.transcribers import LSTMTranscriber
from pipeline.models.conv import ConvNet
from pipeline.models.kneser_ney import KneserNey, measure_split
from pipeline.models.layers.log_mel import LogMel
from pipeline.tasks.wave_model import WaveModel

RATE, DRAWN = 8000, 300


def loading(data: AudioDataModule) -> tuple[float, float]:
    """Seconds of audio a second: through the DataLoader, and decoded alone."""
    samples = data.samples("train")
    seconds = samples.lengths.sum() / data.rate
    loader = data._loader(samples, MicroBatches(data.plan(samples), Share(), samples.predictions))

    def bare() -> None:
        for row in range(samples.split.rows):
            soundfile.read(io.BytesIO(samples.split.value("audio", row)), dtype="float32")

    return seconds / timed(lambda: list(loader)), seconds / timed(bare)


def features(seconds: int = 30) -> tuple[float, float]:
    """Seconds of audio a second: ours, and librosa's."""
    import librosa

    wave = np.random.default_rng(1).standard_normal(seconds * RATE).astype(np.float32)
    module, tensor = LogMel(RATE, 64, 256, 80), torch.from_numpy(wave)[None]
    how = {"sr": RATE, "n_fft": 256, "hop_length": 80, "n_mels": 64, "center": False}
    module(tensor), librosa.feature.melspectrogram(y=wave, **how)
    theirs = timed(lambda: np.log(np.maximum(1e-10, librosa.feature.melspectrogram(y=wave, **how))))
    return seconds / timed(lambda: module(tensor)), seconds / theirs


def training(data: AudioDataModule, steps: int = 20) -> tuple[float, float]:
    """Return steps per second of a Trainer and of a plain loop."""
    samples = data.samples("train")
    slices = iter(MicroBatches(data.plan(samples), Share(), samples.predictions))
    batches = [samples.__getitems__(next(slices)) for _ in range(steps)]

    def model() -> LSTMTranscriber:
        torch.manual_seed(1)
        return LSTMTranscriber(data.dataset.target.size, RATE, 144, 2)

    bare, ours = model(), model()
    optimizer = torch.optim.AdamW(bare.parameters(), 1e-3)

    def loop() -> None:
        for batch in batches:
            loss = bare._nats(*bare(*batch.source), batch.targets) / batch.predictions
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    ours.check = lambda *names: None  # the batches are given
    settings = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_epochs": 1}
    trainer = lightning.Trainer(accelerator="cpu", enable_model_summary=False, **settings)
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    return steps / timed(lambda: trainer.fit(ours, loader)), steps / timed(loop)


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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--counted", type=Path, metavar="DATASET", help="only measure the bigram baseline on DATASET")
    options = parser.parse_args()
    rounds = options.rounds
    if options.counted:
        print(f"bigram baseline: {counted(options.counted):.3f} bits per sample")
        return
    with tempfile.TemporaryDirectory() as folder:
        output = ["--output", f"{folder}/keys", "--tokenizer", "word", "--workers", "1"]
        assert data_prep.audio.command.main(["builtin:400", *output, "--rate", str(RATE)]) == 0
        data = AudioDataModule(Path(folder) / "keys", global_batch_seconds=30.0)
        pairs = {
            "loader against soundfile alone, s of audio per second": lambda: loading(data),
            "log-mel against librosa, s of audio per second": features,
            "Trainer against a plain loop, steps per second": lambda: training(data),
            "WaveNet with its cache against without, samples per second": waves,
        }
        for name, measure in pairs.items():
            found = [measure() for _ in range(rounds)]
            ours, other = (median(column) for column in zip(*found, strict=True))
            ratio = median(one / two for one, two in found)
            print(f"{name}: {ours:,.0f} to {other:,.0f}, ratio {ratio:.2f} (median of {rounds} pairs)", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
