"""The data of bench_peers.py: each function makes the data of one case for both sides.

It returns the work of the peer's driver, with `arguments` of `unroll fit` and the `tokens` of a step.
"""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

import data_prep.audio.command
import data_prep.pairs.command
import data_prep.series.command
import data_prep.text.command
from pipeline.data.batch import IGNORE
from pipeline.data.batch_plan import MicroBatches, Share
from pipeline.models.layers.log_mel import mel_bands
from pipeline.training.config import parse_config

Work = dict[str, Any]
OPTIMIZER = {"lr": 1e-3, "betas": [0.9, 0.98], "weight_decay": 0.01}
ADAM = {"lr": 1e-3, "betas": [0.9, 0.999], "weight_decay": 0.0}
WORDS = 20  # of a sentence


def arguments(config: str, dataset: Path, optimizer: Work, class_name: str = "AdamW", **changes: Any) -> list[str]:
    """Arguments of `unroll fit` for a shipped config."""
    settings = {"class_path": f"torch.optim.{class_name}", "init_args": {**optimizer, "fused": True}}
    keys = {"data.init_args.dataset": dataset, "model.init_args.optimizer": json.dumps(settings), **changes}
    return ["--config", config, *(f"--{key}={value}" for key, value in keys.items())]


def batches(given: list[str], steps: int) -> Any:
    """The DataModule of a config, and the first batches that a run trains on."""
    _, data, _ = parse_config(given).build()
    samples = data.samples("train")
    slices = islice(MicroBatches(data.plan(samples), Share(), samples.predictions), steps)
    return data, [samples.__getitems__(each) for each in slices]


def language(folder: Path, steps: int, context: int) -> Work:
    """The language reference of Python, in 2,048 tokens per step; the peer reads the same windows."""
    options = ["--vocab-size", "2048", "--workers", "1", "--output", str(folder / "data")]
    assert data_prep.text.command.main(["builtin", *options]) == 0
    changes = {"data.init_args.context": context, "data.init_args.global_batch_size": 2048 // context}
    given = arguments("text/transformer.yaml", folder / "data", OPTIMIZER, **changes, **{"model.init_args.dropout": 0})
    _, found = batches(given, steps)
    np.save(folder / "batches.npy", np.stack([batch.inputs.numpy() for batch in found]))
    size = {"vocab_size": 2048, "width": 192, "depth": 4, "heads": 6}
    return {
        "arguments": given,
        "tokens": 2048,
        "batches": str(folder / "batches.npy"),
        "size": size,
        "optimizer": OPTIMIZER,
    }


def parallel(folder: Path, steps: int) -> Work:
    """Pieces of twenty words, and the same backwards: all batches have one shape, in an order of their own."""
    from pydoc_data.topics import topics

    words = " ".join(topics.values()).split()
    pieces = [words[at : at + WORDS] for at in range(0, len(words) - WORDS, WORDS)]
    for split, part in (("train", pieces[:-50]), ("dev", pieces[-50:])):
        (folder / f"{split}.src").write_text("".join(" ".join(each) + "\n" for each in part))
        (folder / f"{split}.trg").write_text("".join(" ".join(each[::-1]) + "\n" for each in part))
    files = {"--train": "train", "--validation": "dev"}
    options = [
        each
        for name, split in files.items()
        for each in (name, *(str(folder / f"{split}.{s}") for s in ("src", "trg")))
    ]
    options += ["--tokenizer", "word", "--vocab-size", "4000", "--output", str(folder / "data")]
    assert data_prep.pairs.command.main(options) == 0
    changes = {"model.init_args.dropout": 0}
    given = arguments("pairs/transformer.yaml", folder / "data", OPTIMIZER, **changes)
    data, [first] = batches(given, 1)
    return {
        "arguments": given,
        "tokens": first.predictions,
        "sentences": len(first.ids),
        "train": str(folder / "train"),
        "dev": str(folder / "dev"),
        "vocabulary": data.dataset.target.size,
        "size": {"width": 256, "depth": 3, "heads": 4, "hidden": 1024},
        "optimizer": OPTIMIZER,
    }


def series(folder: Path, steps: int, model: str) -> Work:
    """Seven hourly series of two years with the seasons of a day and a week, like those of ETTh1, standardized."""
    draw, hours = np.random.default_rng(0), np.arange(14_400)
    noise = draw.normal(size=(len(hours), 7))
    for step in range(1, len(hours)):
        noise[step] += 0.9 * noise[step - 1]
    waves = np.sin(2 * np.pi * (hours[:, None] / 24 + draw.random(7))) + np.sin(
        2 * np.pi * (hours[:, None] / 168 + draw.random(7))
    )
    values = 2 * waves + noise
    values = ((values - values[:8640].mean(0)) / values[:8640].std(0)).astype(np.float32)
    stamps = np.datetime64("2016-07-01T00:00") + hours.astype("timedelta64[h]")
    lines = [",".join(["date", *(f"s{n}" for n in range(7))])]
    lines += [f"{stamp},{','.join(f'{value:.6f}' for value in row)}" for stamp, row in zip(stamps, values, strict=True)]
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    np.save(folder / "series.npy", values[:8640])
    options = ["--lengths", "8640", "2880", "2880", "--output", str(folder / "data")]
    assert data_prep.series.command.main([str(folder / "table.csv"), *options]) == 0
    work = {"tokens": 224 * 96, "series": str(folder / "series.npy"), "model": model, "context": 336, "horizon": 96}
    work |= {"windows": 224, "lr": ADAM["lr"], "clip": None}
    if model == "DLinear":
        given = arguments("series/dlinear.yaml", folder / "data", ADAM, "Adam")
        return work | {"arguments": given, "arguments_of_peer": {"moving_avg_window": 25}}
    changes = {"model.init_args.dropout": 0, "model.init_args.forecast.dropout": 0}
    given = arguments("series/patch_transformer.yaml", folder / "data", ADAM, "Adam", **changes)
    same = {
        "encoder_layers": 3,
        "n_heads": 4,
        "hidden_size": 16,
        "linear_hidden_size": 128,
        "patch_len": 16,
        "stride": 8,
    }
    none = dict.fromkeys(("dropout", "fc_dropout", "head_dropout", "attn_dropout"), 0.0)
    return work | {"arguments": given, "clip": 1.0, "arguments_of_peer": {**same, **none, "revin_affine": True}}


def captured_sounds(folder: Path, steps: int) -> Work:
    """Key tones with transcripts in batches of sixty seconds; the peer holds the same batches decoded in memory."""
    rate, width = 8000, 144
    options = ["--tokenizer", "word", "--workers", "1", "--rate", str(rate), "--output", str(folder / "data")]
    assert data_prep.audio.command.main([f"builtin:{16 * steps}", *options]) == 0
    changes = {"model.init_args.dropout": 0, "data.init_args.augmentation": "null"}
    given = arguments("audio/ctc_lstm.yaml", folder / "data", OPTIMIZER, **changes)
    data, found = batches(given, steps)
    bands, hop, window = 64, 80, 256
    arrays = {"mel": mel_bands(rate, window, bands).astype(np.float32)}
    for number, batch in enumerate(found):
        waves, keep = batch.source[:2]
        last = (batch.targets != IGNORE).sum(1, keepdim=True) - 1  # EOS
        targets = torch.where((torch.arange(batch.targets.shape[1]) < last), batch.targets, -1)
        arrays |= {f"w{number}": waves.numpy(), f"l{number}": keep.sum(1).numpy(), f"t{number}": targets.numpy()}
    np.savez(folder / "batches.npz", **arrays)
    return {
        "arguments": given,
        "tokens": float(np.mean([batch.predictions for batch in found])),
        "batches": str(folder / "batches.npz"),
        "held": len(found),
        "vocab_size": data.dataset.target.size,
        "optimizer": OPTIMIZER,
        "width": width,
        "bands": bands,
        "hop": hop,
        "window": window,
    }
