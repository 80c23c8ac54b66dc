"""The rows of gpu_report.py: each measures one thing on one CUDA device, or small on any device."""

import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from bench_fit import OPTIMIZER, WARM, Setting, architectures, bare, compare, flops_per_token, through_pipeline
from bench_head import Head
from bench_head import compare as compare_heads
from torch import nn

from pipeline.arguments import available_cores
from pipeline.data.text import TextDataModule
from pipeline.evaluation.peak import find_peak, mfu
from pipeline.generation.sampling import Greedy, Limits, stream
from pipeline.models.linear_recurrence import LinearRecurrenceLanguageModel
from pipeline.models.lstm import LSTMLanguageModel
from pipeline.models.transformer import TransformerLanguageModel
from pipeline.runs import journal
from pipeline.tasks.language_model import LanguageModel

ROOT = Path(__file__).parents[2]
Row = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """What the rows are made with.

    Args:
        device: cuda or cpu.
        tiny: everything small.
        folder: for datasets and runs.
        shakespeare: the dataset of the row of that name.
    """

    device: str
    tiny: bool
    folder: Path
    shakespeare: Path | None

    def setting(self, context: int, batch: int, steps: int, **more: Any) -> Setting:
        """A setting of this report; small ones have two steps of two windows of 16 tokens."""
        if self.tiny:
            context, batch, steps = 16, 2, 2
        precision = "32-true" if self.tiny else "bf16-mixed"  # some CPUs have no LSTM in bfloat16
        return replace(Setting(context, batch, steps, self.device, precision), **more)

    def data(self, setting: Setting) -> TextDataModule:
        """Windows of random bytes: speed does not depend on what is read."""
        return TextDataModule(self.folder / "data", context=setting.context, global_batch_size=setting.batch)

    def model(self, task: type[LanguageModel], vocab_size: int, width: int, **network: Any) -> Any:
        """A model on the host; small ones are 32 wide."""
        torch.manual_seed(0)
        width, vocab_size = (32, 300) if self.tiny else (width, vocab_size)
        if self.tiny and "heads" in network:
            network |= {"heads": 2, "depth": 2}
        return task(vocab_size=vocab_size, width=width, optimizer=OPTIMIZER, **network)

    def gpt(self) -> Any:
        """A Transformer of the size of GPT-2: 124 M parameters."""
        return self.model(TransformerLanguageModel, 50304, 768, depth=12, heads=12)

    def now(self) -> float:
        """Seconds on a clock, once the device has done what it was given."""
        return Setting(device=self.device).now()


def machine(report: Report) -> Row:
    """The device, and two ceilings: a matrix product in bfloat16 and a copy, the median of ten of each."""
    size = 128 if report.tiny else 8192
    left, right = (torch.randn(size, size, device=report.device, dtype=torch.bfloat16) for _ in range(2))
    block = torch.randn(1 << (10 if report.tiny else 30), device=report.device)
    found: Row = {"device": platform.processor() or platform.machine(), "torch": torch.__version__}
    if report.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {"device": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    seconds = median(timed(report, lambda: left @ right) for _ in range(12))
    copy = median(timed(report, block.clone) for _ in range(12))
    found["matmul_tflops"] = round(2 * size**3 / seconds / 1e12, 1)
    found["copy_tb_per_second"] = round(2 * block.nbytes / copy / 1e12, 2)
    return found


def tests(report: Report) -> Row:
    """Run the tests that require a CUDA device."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu and not benchmark", "-p", "no:cacheprovider"]
    command += ["--collect-only"] if report.tiny else ["-n", str(available_cores())]
    done = subprocess.run([*command, "tests/gpu"], cwd=ROOT, capture_output=True, text=True)
    counts = {name: int(count) for count, name in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)}
    broken = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M)
    if broken:
        print(done.stdout[-6000:])
    return {"exit_code": done.returncode, **counts, "broken": broken}


def fit(name: str, task: type[LanguageModel], report: Report) -> Row:
    """`unroll fit`'s training against a bare loop: 16,384 tokens per step, width 1,024, bf16-mixed."""
    setting = report.setting(256, 64, 30)
    return compare(
        report.model(task, 2048, 1024), report.data(setting), setting, 1 if report.tiny else 3, report.folder
    )


def gpt(report: Report) -> Row:
    """A Transformer of 124 M parameters in bf16, layers and loss compiled, 32 windows of 1,024 tokens per step."""
    setting, model = report.setting(1024, 32, 20, compile=not report.tiny), report.gpt()
    rate = setting.tokens / through_pipeline(model, report.data(setting), setting, report.folder)
    return {"tokens_per_second": rate} | cost(report, model, setting, rate)


def gpt_eager(report: Report) -> Row:
    """The Transformer of row `gpt`, not compiled, beside a bare loop that is not compiled either."""
    setting, model = report.setting(1024, 32, 10), report.gpt()
    found = compare(model, report.data(setting), setting, 1, report.folder)
    return found | cost(report, model, setting, found["tokens_per_second"])


def gpt_bare(report: Report) -> Row:
    """A bare loop over the Transformer of row `gpt`, everything up to the loss compiled."""
    setting, model = report.setting(1024, 32, 20, compile=not report.tiny), report.gpt()
    rate = setting.tokens / bare(model, report.data(setting), setting)
    return {"tokens_per_second": rate} | cost(report, model, setting, rate)


def precisions(report: Report) -> Row:
    """The Transformer of row `gpt` in float16 and in float32, 16 windows per step, not compiled: tokens per second."""
    found = {}
    for precision in ("bf16-mixed",) if report.tiny else ("16-mixed", "32-true"):
        setting = report.setting(1024, 16, 8, precision=precision)
        found[precision] = setting.tokens / through_pipeline(report.gpt(), report.data(setting), setting, report.folder)
    return found


def lstm(report: Report) -> Row:
    """`unroll fit` of an LSTM of 2 x 1,024 beside a bare `nn.LSTM` with embedding and tied output, bf16, in turns."""
    setting, rates = report.setting(256, 64, 30), []
    data, model = report.data(setting), report.model(LSTMLanguageModel, 2048, 1024, depth=2)
    for _ in range(1 if report.tiny else 3):
        ours = setting.tokens / through_pipeline(model, data, setting, report.folder)
        rates.append((ours, setting.tokens / bare_lstm(report, setting)))
    ours, theirs = (median(column) for column in zip(*rates, strict=True))
    ratio = median(ours / theirs for ours, theirs in rates)
    return {"tokens_per_second": ours, "bare_tokens_per_second": theirs, "ratio": ratio}


def bare_lstm(report: Report, setting: Setting) -> float:
    """Seconds of the steps of torch's own two-layer LSTM on tokens that lie on the device."""
    width, vocab_size = (32, 300) if report.tiny else (1024, 2048)
    embedding, network = nn.Embedding(vocab_size, width), nn.LSTM(width, width, 2, batch_first=True)
    model = nn.ModuleList([embedding, network]).to(setting.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    tokens = torch.randint(256, (setting.batch, setting.context + 1), device=setting.device)
    began = 0.0
    for step in range(WARM + setting.steps):
        with torch.autocast(setting.device, torch.bfloat16, enabled=not report.tiny):
            logits = network(embedding(tokens[:, :-1]))[0] @ embedding.weight.T
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step + 1 == WARM:
            began = setting.now()
    return setting.now() - began


def long_context(report: Report) -> Row:
    """Linear recurrence and Transformer of the same width and depth at 2,048 tokens, bf16, tokens per second."""
    setting, found = report.setting(2048, 8, 10), {}
    for name, task in (("linear_recurrence", LinearRecurrenceLanguageModel), ("transformer", TransformerLanguageModel)):
        model = report.model(task, 2048, 768, depth=8)
        found[name] = setting.tokens / through_pipeline(model, report.data(setting), setting, report.folder)
    return found | {"ratio": found["linear_recurrence"] / found["transformer"]}


def head(report: Report) -> Row:
    """Output and loss, forward and backward, at 4,096 tokens and a vocabulary of 32,000, bf16: in blocks, at once."""
    size = Head(64, 32, 300) if report.tiny else Head(4096, 768, 32_000)
    size, rounds = replace(size, half=True, device=report.device), 1 if report.tiny else 10
    at_once, blocks = (
        {"peak_mib": row["peak_mib"], "ms": 1e3 * row["seconds"]} for row in compare_heads(size, rounds, apart=False)
    )
    return blocks | {f"{name}_at_once": value for name, value in at_once.items()}


def generation(report: Report) -> Row:
    """Milliseconds per token of the 124 M Transformer, one text in float32, after 100 and after 1,000 tokens."""
    model, found = report.gpt().eval().to(report.device), {}
    for length in (4, 8) if report.tiny else (100, 1000):
        steps = stream(model, [list(range(1, 1 + length))], Greedy(), Limits(40), [0], report.device)
        next(steps)
        found[f"ms_after_{length}"] = 1e3 * median(timed(report, partial(next, steps)) for _ in range(39))
    return found


def checkpoints(report: Report) -> Row:
    """Seconds that training waits for a checkpoint of the 124 M Transformer, written in the background and blocking."""
    size = ["width=32", "depth=2", "heads=2"] if report.tiny else ["width=768", "depth=12", "heads=12"]
    found = {}
    for name, background in (("background", "true"), ("blocking", "false")):
        keys = [f"--model.init_args.{each}" for each in size] + [f"--checkpoints.background={background}"]
        run = run_fit(report, "configs/text/transformer.yaml", report.folder / "data", f"stall-{name}", 12, *keys)
        stalls = [value for value in run.series("train/checkpoint_stall").values if value]
        found[name] = median(stalls)
    return found


def shakespeare(report: Report) -> Row:
    """nanoGPT's recipe for tiny Shakespeare by characters; published: 1.4697 nats per character."""
    if report.shakespeare is None:
        return {"skipped": "--shakespeare names no dataset"}
    keys = ["--config=configs/run/bf16.yaml", "--execution.compile=true"]
    if report.tiny:
        keys = ["--model.init_args.width=24", "--data.init_args.context=16", "--trainer.limit_val_batches=2"]
    began, steps = time.perf_counter(), 4 if report.tiny else 5000
    config = "configs/text/published/shakespeare_transformer.yaml"
    run = run_fit(report, config, report.shakespeare, "shakespeare", steps, *keys)
    losses = run.series("val/loss").values
    return {"validation": min(losses), "last": losses[-1], "minutes": (time.perf_counter() - began) / 60}


def run_fit(report: Report, config: str, dataset: Path, run: str, steps: int, *keys: str) -> Any:
    """The journal of a run of `unroll fit`.

    Raises:
        RuntimeError: it failed; the message is the end of what it printed.
    """
    folder = report.folder / run
    given = [f"--config={config}", *keys, f"--run={folder}", f"--data.init_args.dataset={dataset}"]
    given += [f"--trainer.accelerator={'gpu' if report.device == 'cuda' else 'cpu'}", "--trainer.devices=1"]
    given += [f"--trainer.max_steps={steps}", "--trainer.max_epochs=-1"]
    if steps < 100:
        given += ["--trainer.log_every_n_steps=1", "--checkpoints.every_steps=4", "--trainer.limit_val_batches=1"]
        given += ["--trainer.val_check_interval=4", "--trainer.check_val_every_n_epoch=null"]
    command = [sys.executable, "-m", "pipeline", "fit", *given]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:])
    return journal.read_journal(folder)


def timed(report: Report, work: Callable[[], Any]) -> float:
    """Seconds of a call, the device's part included."""
    began = report.now()
    work()
    return report.now() - began


def cost(report: Report, model: Any, setting: Setting, rate: float) -> Row:
    """Parameters, peak memory, and model FLOPs utilization by the functions of a run."""
    found: Row = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    if report.device == "cuda":
        found |= {"peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30}
    peak = find_peak(torch.device(report.device), setting.precision)
    found |= {"mfu": mfu(rate, flops_per_token(model, setting), peak.flops), "peak_source": peak.source}
    return found


ROWS: dict[str, Callable[[Report], Row]] = {
    "machine": machine,
    "tests": tests,
    **{f"fit {name}": partial(fit, name, task) for name, task in architectures()},
    "gpt": gpt,
    "lstm": lstm,
    "gpt eager": gpt_eager,
    "long context": long_context,
    "gpt bare": gpt_bare,
    "generation": generation,
    "head": head,
    "checkpoints": checkpoints,
    "shakespeare": shakespeare,
    "precisions": precisions,
}
