"""What a generated token costs after a short and after a long text, for the network of every language model.

    python tests/benchmarks/bench_generate.py [--width 256] [--vocabulary 10000] [--device cpu]
        [--processor-time]

Prompts of both lengths are read; then the tokens that follow are timed one by one, as `unroll generate` makes
them, in turns, and the median is taken. Where the state is of fixed size the ratio is 1; a full cache grows.
On a machine that is not quiet, `--processor-time` excludes the time of other processes.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
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


def measure(network: type[nn.Module], width: int, vocabulary: int, device: str, clock: Callable[[], float]) -> str:
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
    return (
        f"| {network.__name__} | {short * 1e3:.2f} | {long * 1e3:.2f} | {long / short:.2f} "
        f"| {small:.0f} | {large:.0f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=10_000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--processor-time", action="store_true")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.processor_time else time.perf_counter
    short, long = LENGTHS
    print(f"width {arguments.width}, vocabulary {arguments.vocabulary}, {arguments.device}, greedy, one row")
    print(f"| network | ms a token at {short} | at {long} | ratio | state KiB at {short} | at {long} |")
    print("|---|---|---|---|---|---|")
    for network in networks().values():
        print(measure(network, arguments.width, arguments.vocabulary, arguments.device, clock), flush=True)


if __name__ == "__main__":
    main()
