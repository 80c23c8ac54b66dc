"""Generation reads a prompt once and then goes on one token at a time: the carried state is all it needs.

Any callable that maps tokens (B, T) and a state to logits (B, T, V) and the next state can be decoded. How
the next token is chosen is an object: `Greedy()`, `Sample(temperature, top_k, top_p)`, or `Beam(width)` of
`decode_beam`. `generate` gives finished texts; `stream` yields each step as it comes.

Prompts of different lengths share a batch without padding: as many tokens as the shortest has are read in
parallel, then each longer prompt is fed its own tokens while the shorter ones are already being continued.

Nucleus (top-p) sampling: Holtzman et al. 2020, "The curious case of neural text degeneration", equation 3.

Legend: B rows, T positions, V tokens of the vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from pipeline.state import State, map_state

Device: TypeAlias = torch.device | str
Forward: TypeAlias = Callable[[Tensor, State], tuple[Tensor, State]]
"""(tokens (B, T), state or None) -> (logits (B, T, V), state): a LanguageModel in eval mode is one."""

CHUNK = 256  # prompt positions read in one call: bounds the memory that logits of a long prompt take


@dataclass(frozen=True)
class Limits:
    """How long a continuation may become.

    Args:
        tokens: at most so many new tokens, the end mark among them.
        at_least: the end mark is not chosen before so many tokens.
        eos: the end mark that ends a row; None: no row ends before its limit.

    Raises:
        ValueError: limits that contradict each other.
    """

    tokens: int = 200
    at_least: int = 0
    eos: int | None = None

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"tokens={self.tokens} must be at least 1")
        if not 0 <= self.at_least <= self.tokens:
            raise ValueError(f"at_least={self.at_least} must lie between 0 and tokens={self.tokens}")


@runtime_checkable
class Choice(Protocol):
    """A way to continue prompts: what `generate` needs of one."""

    def complete(
        self,
        forward: Forward,
        prompts: Sequence[Sequence[int]],
        limits: Limits,
        samples: int,
        seed: int,
        device: Device,
        start: State = None,
    ) -> list[list[list[int]]]:
        """For each prompt `samples` lists of new tokens."""


class Stepwise:
    """A choice made for each row alone, one token after the other, from the logits and one random number."""

    def __call__(self, logits: Float[Tensor, "B V"], uniform: Float64[Tensor, " B"]) -> Int64[Tensor, " B"]:
        """The next token of each row; `uniform` is the row's draw from [0, 1)."""
        raise NotImplementedError

    def complete(
        self,
        forward: Forward,
        prompts: Sequence[Sequence[int]],
        limits: Limits,
        samples: int,
        seed: int,
        device: Device,
        start: State = None,
    ) -> list[list[list[int]]]:
        """For each prompt `samples` continuations; sample s of any prompt is seeded with `seed` + s."""
        rows = [prompt for prompt in prompts for _ in range(samples)]
        seeds = [seed + sample for _ in prompts for sample in range(samples)]
        texts: list[list[int]] = [[] for _ in rows]
        start = repeat(start, len(prompts), samples)
        for step in stream(forward, rows, self, limits, seeds, device, start):
            for text, token in zip(texts, step, strict=True):
                if token is not None:
                    text.append(token)
        return [texts[first : first + samples] for first in range(0, len(rows), samples)]


@dataclass(frozen=True)
class Greedy(Stepwise):
    """The most probable token; of equals the one with the lowest number."""

    def __call__(self, logits: Float[Tensor, "B V"], uniform: Float64[Tensor, " B"]) -> Int64[Tensor, " B"]:
        return logits.argmax(-1)


@dataclass(frozen=True)
class Sample(Stepwise):
    """A token drawn with its probability, of those that the cuts leave.

    Args:
        temperature: divides the logits: below 1 bolder, above 1 more varied.
        top_k: only the k most probable tokens.
        top_p: only the fewest most probable tokens, of those that top_k left, that together reach this share.

    Raises:
        ValueError: a temperature or a cut that leaves nothing to draw from.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature} must be positive; for the limit of 0 choose greedy")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must lie in (0, 1]")

    def __call__(self, logits: Float[Tensor, "B V"], uniform: Float64[Tensor, " B"]) -> Int64[Tensor, " B"]:
        upto = self.probabilities(logits).cumsum(-1)
        threshold = uniform.clamp(max=1 - 1e-12) * upto[:, -1]  # rounding must not lift it to the whole sum
        return torch.searchsorted(upto, threshold[:, None], right=True)[:, 0]

    def probabilities(self, logits: Float[Tensor, "B V"]) -> Float64[Tensor, "B V"]:
        """What is drawn from: softmax at the temperature, zero outside the cuts."""
        scaled = logits.double() / self.temperature
        return scaled.masked_fill(~self.keep(scaled), -torch.inf).softmax(-1)

    def keep(self, logits: Float64[Tensor, "B V"]) -> Bool[Tensor, "B V"]:
        """True for the tokens that may be drawn."""
        if self.top_k is None and self.top_p is None:
            return torch.ones_like(logits, dtype=torch.bool)
        ordered, order = logits.sort(descending=True, stable=True)  # stable: of equals the lowest number
        kept = torch.ones_like(ordered, dtype=torch.bool)
        kept[:, self.top_k :] = self.top_k is None
        if self.top_p is not None:
            share = ordered.masked_fill(~kept, -torch.inf).softmax(-1)
            kept &= share.cumsum(-1) - share < self.top_p  # the share of all more probable tokens
        return torch.zeros_like(kept).scatter(1, order, kept)


def generate(
    forward: Forward,
    prompts: Sequence[Sequence[int]],
    choice: Choice,
    limits: Limits,
    samples: int = 1,
    seed: int = 0,
    device: Device = "cpu",
    start: State = None,
) -> list[list[list[int]]]:
    """Continue each prompt `samples` times; a row that ended early holds `limits.eos` as its last token.

    The same prompt, sample and seed give the same tokens in any company.

    Args:
        forward: what is decoded.
        prompts: tokens to continue.
        choice: how the next token is chosen.
        limits: how long a continuation may become.
        samples: continuations of each prompt.
        seed: of the first sample.
        device: where `forward` computes.
        start: the state before the prompts are read, a row a prompt: an encoded source lives there.

    Returns:
        For each prompt, for each sample (for a beam: the best first), the new tokens.

    Raises:
        ValueError: no prompt, an empty prompt, or logits from which nothing can be chosen.
    """
    if samples < 1:
        raise ValueError(f"samples={samples} must be at least 1")
    return choice.complete(forward, prompts, limits, samples, seed, device, start)


@torch.no_grad()
def stream(
    forward: Forward,
    prompts: Sequence[Sequence[int]],
    choice: Stepwise,
    limits: Limits,
    seeds: Sequence[int],
    device: Device = "cpu",
    start: State = None,
) -> Iterator[list[int | None]]:
    """Yield at each step the new token of each row, None for a row that has ended or still reads its prompt.

    Args:
        seeds: one a row.
        start: the state before the prompts are read.

    Raises:
        ValueError: as `generate`.
    """
    given = Prompts.of(prompts, device)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    fresh = torch.zeros(len(prompts), dtype=torch.long, device=device)  # new tokens of each row
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    logits, state = read(forward, given.shared, start)
    for position in range(given.shared.shape[1], given.longest + limits.tokens):
        writing = given.ended(position) & ~ended
        uniform = [
            torch.rand((), generator=generator, dtype=torch.float64) if writes else torch.tensor(0.0).double()
            for generator, writes in zip(generators, writing.tolist(), strict=True)
        ]
        chosen = choice(allowed(logits, fresh, limits), torch.stack(uniform).to(device))
        tokens = torch.where(given.ended(position), chosen, given.token(position))
        fresh += writing
        yield [token if writes else None for token, writes in zip(tokens.tolist(), writing.tolist(), strict=True)]
        ended |= writing & (fresh == limits.tokens)
        if limits.eos is not None:
            ended |= writing & (tokens == limits.eos)
        if ended.all():
            return
        logits, state = step(forward, tokens, state)


class Prompts(NamedTuple):
    """Prompts of different lengths as one matrix, filled up with zeros that are never read."""

    tokens: Int64[Tensor, "B T"]
    lengths: Int64[Tensor, " B"]
    longest: int
    shared: Int64[Tensor, "B S"]
    """The positions that every prompt has."""

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], device: Device) -> "Prompts":
        """Raises ValueError where there is nothing to read."""
        if len(prompts) == 0:
            raise ValueError("there is no prompt")
        for row, prompt in enumerate(prompts):
            if len(prompt) == 0:
                raise ValueError(f"prompt {row} is empty: let it be the end mark, with which a corpus opens")
        lengths = [len(prompt) for prompt in prompts]
        rows = [[*prompt, *[0] * (max(lengths) - len(prompt))] for prompt in prompts]
        tokens = torch.tensor(rows, dtype=torch.long, device=device)
        return cls(tokens, torch.tensor(lengths, device=device), max(lengths), tokens[:, : min(lengths)])

    def ended(self, position: int) -> Bool[Tensor, " B"]:
        """True for the rows whose prompt has no token at this position."""
        return self.lengths <= position

    def token(self, position: int) -> Int64[Tensor, " B"]:
        """Each row's prompt token at this position; without meaning where the prompt has ended."""
        return self.tokens[:, min(position, self.longest - 1)]


def repeat(state: State, rows: int, times: int) -> State:
    """Each row of a state so many times in a row."""
    if state is None or times == 1:
        return state
    return map_state(lambda leaf: leaf.repeat_interleave(times, 0, output_size=rows * times), state)


def read(forward: Forward, tokens: Int64[Tensor, "B T"], state: State = None) -> tuple[Float[Tensor, "B V"], State]:
    """Read from a state on, by default from the beginning; the logits are those after the last token."""
    for piece in torch.split(tokens, CHUNK, dim=1):
        logits, state = forward(piece, state)
    return logits[:, -1], state


def step(forward: Forward, tokens: Int64[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B V"], State]:
    """Read one more token a row."""
    logits, state = forward(tokens[:, None], state)
    return logits[:, -1], state


def allowed(logits: Float[Tensor, "R V"], fresh: Int64[Tensor, " B"], limits: Limits) -> Float[Tensor, "R V"]:
    """Forbid the end mark to rows that are too short for it, and refuse logits that say nothing.

    R is a multiple of B: a beam has several rows for each prompt.
    """
    each = len(logits) // len(fresh)
    if limits.eos is not None and limits.at_least > 0:
        early = (fresh + 1 < limits.at_least).repeat_interleave(each)
        is_eos = torch.arange(logits.shape[1], device=logits.device) == limits.eos
        logits = logits.masked_fill(early[:, None] & is_eos, -torch.inf)
    usable = logits.amax(-1).isfinite()  # NaN and infinity win the maximum; all tokens forbidden is -infinity
    if not usable.all():
        row = int((~usable).nonzero()[0]) // each
        raise ValueError(f"row {row}: no token can be chosen, the logits hold NaN or infinity or forbid all")
    return logits
