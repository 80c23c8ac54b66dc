"""What a generated token costs after a short and after a long text, for the network of every language model.

    python tests/benchmarks/bench_generate.py [--width 192] [--vocabulary 1024] [--device cpu]
        [--processor-time] [--output docs/benchmarks/cpu.json]

Prompts of both lengths are read; then the tokens that follow are timed one by one, as `unroll generate` makes
them, in turns, and the median is taken. Where the state is of fixed size the ratio is 1; a full cache grows.
On a machine that is not quiet, `--processor-time` excludes the time of other processes.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from results import Table, add_output
from torch import nn

from pipeline.commands.architectures.measure import networks
from pipeline.generation.sampling import Greedy, Limits, stream
from pipeline.state import State, size_in_bytes
from pipeline.tasks.language_model import LanguageModel

LENGTHS = (100, 2000)
ROUNDS, TOKENS = 3, 60


class Watched:
    """A model whose last state can be looked at."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.state: State = None

    def __call__(self, tokens: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        logits, self.state = self.model(tokens, state)
        return logits, self.state


def seconds_a_token(model: Watched, length: int, device: str, clock: Callable[[], float]) -> list[float]:
    """Time between the tokens that follow a text of `length` tokens."""
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(model.model.vocab_size, (length,), generator=generator).tolist()
    steps = stream(model, [prompt], Greedy(), Limits(TOKENS), [0], device)
    next(steps)  # reads the prompt
    times = []
    for _ in range(TOKENS - 1):
        begun = clock()
        next(steps)  # the token is on the host when it comes: nothing is left to wait for
        times.append(clock() - begun)
    return times


def measure(
    network: type[nn.Module], width: int, vocabulary: int, device: str, clock: Callable[[], float]
) -> dict[str, object]:
    """One row of the table."""
    torch.manual_seed(0)
    model = Watched(LanguageModel(network(width=width), vocabulary).eval().to(device))
    times: dict[int, list[float]] = {length: [] for length in LENGTHS}
    sizes = {}
    for _ in range(ROUNDS):
        for length in LENGTHS:
            times[length] += seconds_a_token(model, length, device, clock)
            sizes[length] = size_in_bytes(model.state)
    short, long = (median(times[length]) for length in LENGTHS)
    small, large = (sizes[length] / 1024 for length in LENGTHS)
    return {
        "network": network.__name__,
        f"ms at {LENGTHS[0]}": short * 1e3,
        f"ms at {LENGTHS[1]}": long * 1e3,
        "ratio": long / short,
        f"state KiB at {LENGTHS[0]}": round(small),
        f"state KiB at {LENGTHS[1]}": round(large),
    }


def main() -> None:
    """Print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--processor-time", action="store_true")
    add_output(parser)
    arguments = parser.parse_args()
    clock = time.process_time if arguments.processor_time else time.perf_counter
    about = (
        f"Milliseconds per token after texts of {LENGTHS[0]} and {LENGTHS[1]} tokens: width {arguments.width}, "
        f"vocabulary {arguments.vocabulary:,}, greedy, one text."
    )
    table = Table("generate", "Generation", about, arguments.output)
    for network in networks().values():
        table.add(**measure(network, arguments.width, arguments.vocabulary, arguments.device, clock))


if __name__ == "__main__":
    main()
