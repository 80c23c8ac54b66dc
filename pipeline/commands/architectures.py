"""`unroll architectures`: the questions that a lecture asks of every architecture, each answered by a measurement.

The networks of all language models are found by walking `pipeline.models`; all are made with one width and otherwise
with their own defaults, and learn by the same few steps. What is short here can be long elsewhere: a table of what
happens under one small budget, not of what is possible.

Legend: B sequences, T positions, N of an answer, D features.
"""

import argparse
import importlib
import inspect
import pkgutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.nn import functional

import pipeline.models
from pipeline.arguments import Parser, non_negative_integer, positive_integer
from pipeline.dataset.recall import Association, Copy, Recall
from pipeline.errors import ConfigError
from pipeline.state import width_of
from pipeline.tasks.language_model import LanguageModel
from pipeline.tasks.task import Task

ROWS, POSITIONS = 32, 512  # a training step reads so many questions, fewer of long ones
TESTED = 100, 1000  # questions of a test: of long ones, and of short ones
PAIRS = Association(0, 2, 4)
RATE, WARMUP = 0.002, 50
LONGEST = 64  # delay that training sees
DELAYS = tuple(2**power for power in range(10))  # that are tested
UNSEEN = 4 * LONGEST
ENOUGH = 0.9  # of the answers have to be right
SHORT, LONG = 100, 2000  # tokens read before the ones that are timed
CONTEXTS = 32, 512  # of training batches of as many tokens each
TOKENS, TIMED = 2048, 20
VOCABULARY = 1024

EXPLAINED = f"""
order: change of the last output, relative, when all inputs before the last are permuted, before training.
derivative: disagreement, relative, of the gradient and a finite difference in float64, along a random direction.
pairs: 2 keys with one of 4 values each, then one of the keys; right answers in %, chance 25, knowing both values 50.
delay: one of 8 symbols, then up to {LONGEST} blanks in training; the longest at which {100 * ENOUGH:.0f} % are right.
unseen: the same at a delay of {UNSEEN}, {UNSEEN // LONGEST} times what training saw; right answers in %, chance 12.5.
ms a token: of text that is generated after {SHORT} tokens and after {LONG:,}.
tokens/s: of training steps of {TOKENS:,} tokens in rows of {CONTEXTS[0]}, and in rows of {CONTEXTS[1]}."""


class Answers(NamedTuple):
    """What was measured of one architecture."""

    parameters: int
    order: float
    derivative: float
    pairs: float
    delay: int
    unseen: float
    milliseconds: tuple[float, float]
    throughput: tuple[float, float]


def main(argv: list[str]) -> int:
    """Ask all architectures, or those that are named, and print a table.

    Raises:
        ConfigError: there is none of a name.
    """
    parser = Parser(prog="unroll architectures", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="classes of networks, such as LSTM (default: all)")
    add("--width", type=positive_integer, default=64, metavar="D", help="features of each (default: 64)")
    add(
        "--steps",
        type=positive_integer,
        default=500,
        metavar="N",
        help="of training, for each of two tasks (default: 500)",
    )
    add("--seed", type=non_negative_integer, default=1, help="of weights and questions (default: 1)")
    options = parser.parse_args(argv)

    torch.set_num_threads(1)
    known = networks()
    if wrong := [name for name in options.names if name not in known]:
        raise ConfigError(f"there is no network {wrong[0]!r}; choose from {', '.join(known)}")
    began = time.monotonic()
    found = {}
    for name in options.names or known:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found[name] = ask(known[name], options)
    print("\n".join([*architectures_table(found), EXPLAINED]))
    print(f"\nwidth {options.width}, {options.steps} steps, one thread, {time.monotonic() - began:.0f} s")
    return 0


def networks() -> dict[str, type[nn.Module]]:
    """The networks of language models: where a module of pipeline.models names a network and its language model."""
    found: dict[str, type[nn.Module]] = {}
    for module in pkgutil.walk_packages(pipeline.models.__path__, "pipeline.models."):
        file = importlib.import_module(module.name)
        classes = [each for name in getattr(file, "__all__", ()) if inspect.isclass(each := getattr(file, name))]
        if any(LanguageModel in each.__bases__ for each in classes):
            made = [each for each in classes if issubclass(each, nn.Module) and not issubclass(each, Task)]
            found |= {each.__name__: each for each in made}
    return found


def ask(make: Callable[..., nn.Module], options: argparse.Namespace) -> Answers:
    """All questions to one architecture."""

    def new() -> Any:
        torch.manual_seed(options.seed)
        return make(width=options.width)

    associating = learned(new(), lambda _: PAIRS, options)
    copying = learned(new(), delayed, options)
    right = {delay: accuracy(copying, Copy(delay, 1, 8)) for delay in (*DELAYS, UNSEEN)}
    failed = [delay for delay in DELAYS if right[delay] < ENOUGH]
    reached = max((delay for delay in DELAYS if delay < min(failed, default=DELAYS[-1] + 1)), default=0)
    model = LanguageModel(new(), VOCABULARY)
    return Answers(
        sum(parameter.numel() for parameter in new().parameters()),
        order(new().eval()),
        disagreement(new().double().eval()),
        100 * accuracy(associating, PAIRS),
        reached,
        100 * right[UNSEEN],
        generating(model.eval()),
        training(model.train()),
    )


def delayed(chance: np.random.Generator) -> Recall:
    """A copy of one symbol; the logarithm of the delay is uniform, so that there are short ones to begin with."""
    return Copy(int((LONGEST + 0.99) ** chance.random()), 1, 8)


def order(network: nn.Module) -> float:
    """How much the last output changes, relatively, when the inputs before the last are permuted."""
    with torch.no_grad():
        inputs = torch.randn(16, 12, width_of(network))
        mixed = torch.cat([inputs[:, torch.randperm(11)], inputs[:, 11:]], 1)
        outputs, changed = (network(each)[0][:, -1] for each in (inputs, mixed))
        return float((changed - outputs).norm() / outputs.norm())


def disagreement(network: nn.Module, step: float = 1e-6) -> float:
    """The relative difference of the derivative along a random direction of all parameters and a finite difference."""
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
        for sign in (1, -2):  # a step ahead, then one back from where it began
            for parameter, each in zip(parameters, along, strict=True):
                parameter.add_(each, alpha=sign * step)
            values.append(float(value()))
    return abs((values[0] - values[1]) / (2 * step) / derivative - 1)


def questions(
    task: Recall, chance: np.random.Generator, rows: int
) -> tuple[Int64[Tensor, "B T"], Int64[Tensor, "B N"]]:
    """Inputs (B, T), end marks where answers are wanted, and the answers (B, N), the last positions of T."""
    drawn = [task.draw(chance) for _ in range(rows)]
    asked, answers = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
    return torch.cat([asked, torch.full_like(answers, len(task.words))], 1), answers


def learned(network: nn.Module, draw: Callable[[Any], Recall], options: argparse.Namespace) -> Any:
    """A language model that was asked so many questions.

    Args:
        network: of the model.
        draw: the task of a step.
        options: steps and seed.
    """

    chance = np.random.default_rng(options.seed)
    model = LanguageModel(network, len(draw(chance).words) + 1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    for step in range(options.steps):
        task = draw(chance)
        inputs, answers = questions(task, chance, min(ROWS, POSITIONS // (task.length + 1)))
        logits = model(inputs)[0][:, -answers.shape[1] :]
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / WARMUP, 2 - 2 * step / options.steps)
        optimizer.zero_grad()
        functional.cross_entropy(logits.flatten(0, 1), answers.flatten()).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def accuracy(model: Any, task: Recall) -> float:
    """The share of answers to new questions that is right."""
    inputs, answers = questions(task, np.random.default_rng(0), TESTED[task.length == 0])
    with torch.no_grad():
        said = torch.cat([model(part)[0][:, -answers.shape[1] :].argmax(-1) for part in torch.split(inputs, ROWS)])
    return float((said == answers).double().mean())


def generating(model: Any) -> tuple[float, float]:
    """Milliseconds a token after a short text and after a long one, token by token in turns."""
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


def training(model: Any) -> tuple[float, float]:
    """Tokens a second of a step's forward and backward pass with short rows and with long ones, in turns."""
    took: list[list[float]] = [[], []]
    for _ in range(5):
        for context, times in zip(CONTEXTS, took, strict=True):
            tokens = torch.randint(VOCABULARY, (TOKENS // context, context))
            began = time.perf_counter()
            model(tokens)[0].float().square().mean().backward()
            times.append(time.perf_counter() - began)
    short, long = (TOKENS / min(times) for times in took)
    return short, long


def architectures_table(found: Mapping[str, Answers]) -> Iterator[str]:
    """Lines of a Markdown table."""
    heads = ["architecture", "parameters", "order", "derivative", "pairs, %", "delay", "unseen, %"]
    heads += [f"ms a token after {SHORT}, {LONG:,}", f"tokens/s at {CONTEXTS[0]}, {CONTEXTS[1]}"]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for name, one in found.items():
        cells = [name, f"{one.parameters:,}", f"{one.order:.1g}", f"{one.derivative:.0e}", f"{one.pairs:.0f}"]
        cells += [f"{one.delay}", f"{one.unseen:.0f}", " and ".join(f"{each:.2f}" for each in one.milliseconds)]
        cells.append(" and ".join(f"{each:,.0f}" for each in one.throughput))
        yield f"| {' | '.join(cells)} |"
