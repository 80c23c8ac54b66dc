"""Images with captions through the pipeline against bare Pillow and a bare PyTorch loop, in turns.

    python tests/benchmarks/bench_captions.py [--images 400] [--steps 8] [--rounds 3] [--dataset DIR]

The bare reader opens the same JPEG bytes, converts, crops and scales the same squares. The bare loop trains the same
captioner on the same batches, which it holds ready in memory; the pipeline's side decodes its images meanwhile.
"""

import argparse
import io
import logging
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from bench_fit import WARM, Setting, through_pipeline
from PIL import Image

import data_prep.captions.command
from pipeline.data.batch import PairBatch
from pipeline.data.batch_plan import MicroBatches, Share
from pipeline.data.captions import ImageCaptionDataModule
from pipeline.models.assemblies.captioners import ShowAttendTell
from pipeline.models.encoders.image import ResNet

SIZE = 96


def batches(data: ImageCaptionDataModule, images: int) -> tuple[float, list[PairBatch]]:
    """Return the seconds that the training loader takes for at least this number of images, and its batches."""
    samples = data.samples("train")
    loader = data._loader(samples, MicroBatches(data.plan(samples), Share(), samples.predictions))
    found: list[PairBatch] = []
    began = time.perf_counter()
    for batch in loader:
        found.append(batch)
        if sum(len(each.ids) for each in found) >= images:
            break
    return time.perf_counter() - began, found


def pillow(data: ImageCaptionDataModule, found: list[PairBatch]) -> float:
    """Seconds of Pillow alone for the same images."""
    split = data.dataset.splits["train"]
    files = [[split.value("image", split.row_of(sample)) for sample in batch.ids.tolist()] for batch in found]
    began = time.perf_counter()
    for batch in files:
        seen = np.empty((len(batch), 3, SIZE, SIZE), np.uint8)
        for place, file in enumerate(batch):
            with Image.open(io.BytesIO(file)) as opened:
                image = opened.convert("RGB")
            side = min(image.size)
            square = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, (0, 0, side, side))
            seen[place] = np.asarray(square).transpose(2, 0, 1)
        torch.from_numpy(seen)
    return time.perf_counter() - began


def bare(model: ShowAttendTell, found: list[PairBatch], steps: int) -> float:
    """Seconds of a loop that does nothing but train."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    model.train()
    for step in range(WARM + steps):
        if step == WARM:
            began = time.perf_counter()
        batch = found[step]
        outputs, _ = model.decoder(model.embedding(batch.inputs), model.begin(batch.source))
        loss = torch.nn.functional.cross_entropy(model.output(outputs).flatten(0, 1), batch.targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dataset", type=Path, help="made by `unroll prepare captions` (default: drawings)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        where = options.dataset or Path(name) / "data"
        if options.dataset is None:
            data_prep.captions.command.main(
                ["builtin:600", "--tokenizer", "word", "--workers", "1", "--output", str(where)]
            )
        data = ImageCaptionDataModule(where, SIZE, global_batch_tokens=2048)
        readings = []
        for _ in range(options.rounds):
            seconds, found = batches(data, options.images)
            readings.append((pillow(data, found) / seconds, sum(len(batch.ids) for batch in found) / seconds))
        ratio, rate = (median(column) for column in zip(*readings, strict=True))
        print(f"loader: {rate:,.0f} images/s, {ratio:.2f} of bare Pillow", flush=True)
        _, found = batches(data, 10**9)
        tokens = sum(batch.predictions for batch in found[WARM : WARM + options.steps])
        rates = []
        for _ in range(options.rounds):
            model = ShowAttendTell(
                data.dataset.target.size, SIZE, partial(ResNet, blocks=(1, 1, 1, 1), channels=32),
                optimizer=partial(torch.optim.AdamW, lr=1e-3, fused=True),
            )  # fmt: skip
            rates.append((through_pipeline(model, data, Setting(steps=options.steps), Path(name)),
                          bare(model, found, options.steps)))  # fmt: skip
        ours, theirs = (median(column) for column in zip(*rates, strict=True))
        ratio = median(theirs / mine for mine, theirs in rates)
        print(f"training: {tokens / ours:,.0f} tokens/s, bare {tokens / theirs:,.0f}, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
