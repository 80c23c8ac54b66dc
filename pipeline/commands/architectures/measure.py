"""Measure architectures on a small benchmark suite.

The networks of all language models are found by walking `pipeline.models`. All have the same width, otherwise their
own defaults, and train for the same few steps. The table shows results under one small budget, not what each
architecture can reach.

Legend: B sequences, T positions, N answer positions, D features.
"""

import argparse
import importlib
import inspect
import pkgutil
import time
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.nn import functional

import pipeline.models
from pipeline.dataset.recall import Association, Copy, Recall
from pipeline.state import width_of
from pipeline.tasks.language_model import LanguageModel
from pipeline.tasks.task import Task

ROWS, POSITIONS = 32, 512  # limits of a training batch: sequences, and positions of all sequences together
TESTED = 100, 1000  # test sequences: of tasks with a delay, and without
PAIRS = Association(0, 2, 4)
RATE, WARMUP = 0.002, 50
LONGEST = 64  # largest delay in training
DELAYS = tuple(2**power for power in range(10))  # tested delays
UNSEEN = 4 * LONGEST
ENOUGH = 0.9  # accuracy at which a delay counts as solved
SHORT, LONG = 100, 2000  # tokens read before the timed ones
CONTEXTS = 32, 512  # sequence lengths of timed training batches of TOKENS tokens
TOKENS, TIMED = 2048, 20
VOCABULARY = 1024

EXPLAINED = f"""
order: relative change of the last output of an untrained network when all earlier inputs are permuted.
derivative: relative difference of gradient and finite difference (float64) along a random direction.
pairs: recall of one of 2 key-value pairs with 4 values; accuracy in % (chance 25; either of the two values 50).
delay: recall of one of 8 symbols, up to {LONGEST} blanks in training; longest delay with {100 * ENOUGH:.0f} % accuracy.
unseen: the same at delay {UNSEEN}, {UNSEEN // LONGEST} times the longest in training; accuracy in % (chance 12.5).
ms/token: time to generate a token after {SHORT} tokens and after {LONG:,}.
tokens/s: training speed with {TOKENS:,} tokens per step, in sequences of {CONTEXTS[0]} and of {CONTEXTS[1]}."""


class ArchitectureResults(NamedTuple):
    """Measurements of one architecture."""

    parameters: int
    order: float
    derivative: float
    pairs: float
    delay: int
    unseen: float
    milliseconds: tuple[float, float]
    throughput: tuple[float, float]


def networks() -> dict[str, type[nn.Module]]:
    """Return the networks by class name: those of modules in pipeline.models that also export a language model."""
    found: dict[str, type[nn.Module]] = {}
    for module in pkgutil.walk_packages(pipeline.models.__path__, "pipeline.models."):
        file = importlib.import_module(module.name)
        classes = [each for name in getattr(file, "__all__", ()) if inspect.isclass(each := getattr(file, name))]
        if any(LanguageModel in each.__bases__ for each in classes):
            made = [each for each in classes if issubclass(each, nn.Module) and not issubclass(each, Task)]
            found |= {each.__name__: each for each in made}
    return found


def measure_architecture(make: Callable[..., nn.Module], options: argparse.Namespace) -> ArchitectureResults:
    """Return all measurements of one architecture."""

    def new() -> nn.Module:
        torch.manual_seed(options.seed)
        return make(width=options.width)

    associating = train_recall(new(), lambda _: PAIRS, options)
    copying = train_recall(new(), draw_copy, options)
    right = {delay: accuracy(copying, Copy(delay, 1, 8)) for delay in (*DELAYS, UNSEEN)}
    failed = [delay for delay in DELAYS if right[delay] < ENOUGH]
    reached = max((delay for delay in DELAYS if delay < min(failed, default=DELAYS[-1] + 1)), default=0)
    model = LanguageModel(new(), VOCABULARY)
    return ArchitectureResults(
        sum(parameter.numel() for parameter in new().parameters()),
        order_sensitivity(new().eval()),
        gradient_error(new().double().eval()),
        100 * accuracy(associating, PAIRS),
        reached,
        100 * right[UNSEEN],
        time_generation(model.eval()),
        time_training(model.train()),
    )


def draw_copy(chance: np.random.Generator) -> Recall:
    """Return a copy task of one symbol, its delay log-uniform: short delays are learned first."""
    return Copy(int((LONGEST + 0.99) ** chance.random()), 1, 8)


def order_sensitivity(network: nn.Module) -> float:
    """Return the relative change of the last output when the inputs before the last are permuted."""
    with torch.no_grad():
        inputs = torch.randn(16, 12, width_of(network))
        mixed = torch.cat([inputs[:, torch.randperm(11)], inputs[:, 11:]], 1)
        outputs, changed = (network(each)[0][:, -1] for each in (inputs, mixed))
        return float((changed - outputs).norm() / outputs.norm())


def gradient_error(network: nn.Module, step: float = 1e-6) -> float:
    """Return the relative difference of gradient and finite difference along a random direction in parameter space."""
    inputs = torch.randn(4, 12, width_of(network), dtype=torch.float64)
    parameters = list(network.parameters())
    along = [torch.randn_like(parameter) for parameter in parameters]
    weights = torch.randn_like(inputs)

    def value() -> Tensor:
        outputs: Tensor = network(inputs)[0]
        return (outputs * weights).sum()

    gradients = torch.autograd.grad(value(), parameters)
    derivative = sum(float((gradient * each).sum()) for gradient, each in zip(gradients, along, strict=True))
    values = []
    with torch.no_grad():
        for sign in (1, -2):  # central difference: one step ahead, then one step behind the start
            for parameter, each in zip(parameters, along, strict=True):
                parameter.add_(each, alpha=sign * step)
            values.append(float(value()))
    return abs((values[0] - values[1]) / (2 * step) / derivative - 1)


def recall_batch(
    task: Recall, chance: np.random.Generator, rows: int
) -> tuple[Int64[Tensor, "B T"], Int64[Tensor, "B N"]]:
    """Return inputs (B, T) that end in N EOS tokens, and the answers (B, N) expected at these positions."""
    drawn = [task.draw(chance) for _ in range(rows)]
    prompts, answers = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
    return torch.cat([prompts, torch.full_like(answers, len(task.words))], 1), answers


def train_recall(
    network: nn.Module, draw: Callable[[np.random.Generator], Recall], options: argparse.Namespace
) -> LanguageModel:
    """Train a language model on recall tasks and return it in evaluation mode.

    Args:
        network: the network to train.
        draw: returns the task of a step.
        options: number of steps, and seed.
    """
    chance = np.random.default_rng(options.seed)
    model = LanguageModel(network, len(draw(chance).words) + 1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    for step in range(options.steps):
        task = draw(chance)
        inputs, answers = recall_batch(task, chance, min(ROWS, POSITIONS // (task.length + 1)))
        logits = model(inputs)[0][:, -answers.shape[1] :]
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / WARMUP, 2 - 2 * step / options.steps)
        optimizer.zero_grad()
        functional.cross_entropy(logits.flatten(0, 1), answers.flatten()).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def accuracy(model: LanguageModel, task: Recall) -> float:
    """Return the share of correct answers on new sequences."""
    inputs, answers = recall_batch(task, np.random.default_rng(0), TESTED[task.length == 0])
    with torch.no_grad():
        predicted = torch.cat([model(part)[0][:, -answers.shape[1] :].argmax(-1) for part in torch.split(inputs, ROWS)])
    return float((predicted == answers).double().mean())


def time_generation(model: LanguageModel) -> tuple[float, float]:
    """Return milliseconds per token after a short and after a long prefix, measured alternately."""
    tokens = torch.randint(VOCABULARY, (1, LONG))
    with torch.no_grad():
        states = [model(tokens[:, :length])[1] for length in (SHORT, LONG)]
        took: list[list[float]] = [[], []]
        for _ in range(TIMED):
            for which, times in enumerate(took):
                began = time.perf_counter()
                _, states[which] = model(tokens[:, :1], states[which])
                times.append(1000 * (time.perf_counter() - began))
    short, long = map(median, took)
    return short, long


def time_training(model: LanguageModel) -> tuple[float, float]:
    """Return tokens per second of forward and backward passes with short and with long sequences, in turns."""
    took: list[list[float]] = [[], []]
    for _ in range(5):
        for context, times in zip(CONTEXTS, took, strict=True):
            tokens = torch.randint(VOCABULARY, (TOKENS // context, context))
            began = time.perf_counter()
            model(tokens)[0].float().square().mean().backward()
            times.append(time.perf_counter() - began)
    short, long = (TOKENS / min(times) for times in took)
    return short, long


def architectures_table(found: Mapping[str, ArchitectureResults]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    heads = ["architecture", "parameters", "order", "derivative", "pairs, %", "delay", "unseen, %"]
    heads += [f"ms/token after {SHORT}, {LONG:,}", f"tokens/s at {CONTEXTS[0]}, {CONTEXTS[1]}"]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for name, one in found.items():
        cells = [name, f"{one.parameters:,}", f"{one.order:.1g}", f"{one.derivative:.0e}", f"{one.pairs:.0f}"]
        cells += [f"{one.delay}", f"{one.unseen:.0f}", " and ".join(f"{each:.2f}" for each in one.milliseconds)]
        cells.append(" and ".join(f"{each:,.0f}" for each in one.throughput))
        yield f"| {' | '.join(cells)} |"
