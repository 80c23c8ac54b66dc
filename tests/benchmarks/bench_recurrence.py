"""Training speed of the linear recurrence beside the Transformer, with equal parameters, by context.

    OMP_NUM_THREADS=1 taskset -c 0 python tests/benchmarks/bench_recurrence.py [--contexts 128 512 1024 2048]
        [--width 192] [--depth 4] [--vocabulary 256] [--tokens 2048] [--rounds 9]
        [--output docs/benchmarks/cpu.json]

Both take steps in turns in one process: forward, loss, backward, clipping, AdamW. The recurrence has the `hidden` that
gives it as many parameters. The clock counts the time of the processor; medians are shown, and the median of the
ratios of turns. `products` is the speed of one matrix product of such a step, which bounds both: each parameter of a
layer costs 6 operations per token, so `bound` is what no network with as many parameters can exceed on this core.
"""

import argparse
import time
from statistics import median

import torch
from results import Table, add_output
from torch import Tensor
from torch.nn import functional

from pipeline.cli import flush_denormals
from pipeline.models.linear_recurrence import LinearRecurrenceLanguageModel
from pipeline.models.transformer import TransformerLanguageModel
from pipeline.tasks.language_model import LanguageModel

WARM = 2  # steps before the clock starts
ABOUT = "Tokens per second of processor time in training, on one core, in turns."


def size(model: LanguageModel) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def pair(width: int, depth: int, vocabulary: int) -> tuple[LanguageModel, LanguageModel]:
    """A Transformer, and the linear recurrence with the number of parameters next to its own."""
    torch.manual_seed(0)
    transformer = TransformerLanguageModel(vocab_size=vocabulary, width=width, depth=depth)

    def recurrence(hidden: int) -> LanguageModel:
        return LinearRecurrenceLanguageModel(vocab_size=vocabulary, width=width, depth=depth, hidden=hidden)

    with torch.device("meta"):
        hidden = min(range(8, 2 * width, 8), key=lambda each: abs(size(recurrence(each)) - size(transformer)))
    return transformer, recurrence(hidden)


class Learner:
    """A model with its optimizer, and the seconds of its steps."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model.train()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        self.seconds: list[float] = []

    def step(self, tokens: Tensor) -> None:
        """Take an optimizer step."""
        began = time.process_time()
        outputs, _ = self.model.network(self.model.embedding(tokens[:, :-1]))
        loss = functional.cross_entropy(self.model.output(outputs).flatten(0, 1), tokens[:, 1:].flatten())
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.seconds.append(time.process_time() - began)


def products_per_second(rows: int, width: int, rounds: int) -> float:
    """Operations per second of the product of a layer that widens."""
    inputs, weight, seconds = torch.randn(rows, width), torch.randn(4 * width, width), []
    for _ in range(WARM + rounds):
        began = time.process_time()
        functional.linear(inputs, weight)
        seconds.append(time.process_time() - began)
    return 2 * rows * weight.numel() / median(seconds[WARM:])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--contexts", type=int, nargs="+", default=[128, 512, 1024, 2048], help="tokens of a window")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=2048, help="per step")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each")
    add_output(parser, "recurrence")
    options = parser.parse_args()
    flush_denormals()
    torch.set_num_threads(1)
    table = Table("recurrence", "Linear recurrence beside the Transformer", ABOUT, options.output)
    models = pair(options.width, options.depth, options.vocabulary)
    for context in options.contexts:
        learners = [Learner(model) for model in models]
        for _ in range(WARM + options.rounds):
            tokens = torch.randint(options.vocabulary, (options.tokens // context, context + 1))
            for learner in learners:
                learner.step(tokens)
        ours, theirs = learners[1].seconds[WARM:], learners[0].seconds[WARM:]
        products = products_per_second(options.tokens, options.width, options.rounds)
        table.add(
            context=context,
            parameters=size(models[1]),
            parameters_Transformer=size(models[0]),
            linear_recurrence=options.tokens / median(ours),
            Transformer=options.tokens / median(theirs),
            ratio=median(b / a for a, b in zip(ours, theirs, strict=True)),
            products=f"{products / 1e9:.0f} GFLOP/s",
            bound=products / (6 * size(models[1])),
        )


if __name__ == "__main__":
    main()
