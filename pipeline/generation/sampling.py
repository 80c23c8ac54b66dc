"""Generation reads a prompt once and then goes on one token at a time: the carried state is all it needs.

Any callable that maps tokens (B, T) and a state to logits (B, T, V) and the next state can be decoded. How
the next token is chosen is an object: `Greedy()`, `Sample(temperature, top_k, top_p)`, or `Beam(width)` of
`decode_beam`. `generate` gives finished texts; `stream` yields each step as it comes.

Nucleus (top-p) sampling: Holtzman et al. 2020, "The curious case of neural text degeneration", equation 3.

Legend: B rows, T positions, V tokens of the vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from pipeline.generation.prompts import Device, Forward, Prompts, read_prompt, repeat, step
from pipeline.state import State


@dataclass(frozen=True)
class Limits:
    """How long a continuation may become.

    Args:
        tokens: at most so many new tokens, EOS among them.
        at_least: EOS is not chosen before so many tokens.
        eos: EOS that ends a row; None: no row ends before its limit.
        no_repeat: no n tokens in a row are written twice in a text (Paulus et al. 2018, section 2.5); 0: they may.

    Raises:
        ValueError: limits that contradict each other.
    """

    tokens: int = 200
    at_least: int = 0
    eos: int | None = None
    no_repeat: int = 0

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"tokens={self.tokens} must be at least 1")
        if not 0 <= self.at_least <= self.tokens:
            raise ValueError(f"at_least={self.at_least} must lie between 0 and tokens={self.tokens}")
        if self.no_repeat < 0:
            raise ValueError(f"no_repeat={self.no_repeat} must be at least 0")


class Hypothesis(NamedTuple):
    """One continuation; its rank where it was searched for."""

    tokens: list[int]
    score: float | None = None


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
    ) -> list[list[Hypothesis]]:
        """For each prompt `samples` continuations, the best first where they are ranked."""


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
    ) -> list[list[Hypothesis]]:
        """For each prompt `samples` continuations; sample s of any prompt is seeded with `seed` + s."""
        rows = [prompt for prompt in prompts for _ in range(samples)]
        seeds = [seed + sample for _ in prompts for sample in range(samples)]
        texts = [Hypothesis([]) for _ in rows]
        start = repeat(start, len(prompts), samples)
        for tokens in stream(forward, rows, self, limits, seeds, device, start):
            for text, token in zip(texts, tokens, strict=True):
                if token is not None:
                    text.tokens.append(token)
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
    found = choice.complete(forward, prompts, limits, samples, seed, device, start)
    return [[one.tokens for one in of_prompt] for of_prompt in found]


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
    texts = fresh.new_zeros(len(prompts), limits.tokens)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    logits, state = read_prompt(forward, given.shared, start)
    for position in range(given.shared.shape[1], given.longest + limits.tokens):
        writing = given.ended(position) & ~ended
        uniform = [
            torch.rand((), generator=generator, dtype=torch.float64) if writes else torch.tensor(0.0).double()
            for generator, writes in zip(generators, writing.tolist(), strict=True)
        ]
        chosen = choice(allowed(logits, fresh.masked_fill(ended, 0), texts, limits), torch.stack(uniform).to(device))
        tokens = torch.where(given.ended(position), chosen, given.token(position))
        place = fresh.clamp(max=limits.tokens - 1)[:, None]
        texts = texts.scatter(1, place, torch.where(writing, tokens, texts.gather(1, place)[:, 0])[:, None])
        fresh += writing
        yield [token if writes else None for token, writes in zip(tokens.tolist(), writing.tolist(), strict=True)]
        ended |= writing & (fresh == limits.tokens)
        if limits.eos is not None:
            ended |= writing & (tokens == limits.eos)
        if ended.all():
            return
        logits, state = step(forward, tokens, state)


def allowed(
    logits: Float[Tensor, "R V"],
    lengths: Int64[Tensor, " R"],
    texts: Int64[Tensor, "R N"],
    limits: Limits,
    each: int = 1,
) -> Float[Tensor, "R V"]:
    """Forbid what the limits forbid, and refuse logits that say nothing.

    Args:
        logits: of the next token.
        lengths: new tokens that a row has; 0 where it is written no more.
        texts: these tokens, then anything.
        limits: forbid EOS to rows that are too short for it, and what would repeat itself.
        each: rows of a prompt, for the message.
    """
    if limits.eos is not None and limits.at_least > 0:
        is_eos = torch.arange(logits.shape[1], device=logits.device) == limits.eos
        logits = logits.masked_fill((lengths + 1 < limits.at_least)[:, None] & is_eos, -torch.inf)
    if limits.no_repeat:
        logits = logits.masked_fill(repeating(texts, lengths, limits.no_repeat, logits.shape[1]), -torch.inf)
    usable = logits.amax(-1).isfinite()  # NaN and infinity win the maximum; all tokens forbidden is -infinity
    if not usable.all():
        row = int((~usable).nonzero()[0]) // each
        raise ValueError(f"row {row}: no token can be chosen, the logits hold NaN or infinity or forbid all")
    return logits


def repeating(texts: Int64[Tensor, "R N"], lengths: Int64[Tensor, " R"], n: int, vocab: int) -> Bool[Tensor, "R V"]:
    """True for the tokens that would make the last n tokens of a text equal to n earlier ones.

    Args:
        texts: tokens, then anything.
        lengths: how many tokens each text has.
        n: length of what is not to be written twice.
        vocab: V.
    """
    rows, longest = texts.shape
    forbidden = torch.zeros(rows, vocab + 1, dtype=torch.bool, device=texts.device)  # and a place for nothing
    if n > longest:
        return forbidden[:, :vocab]
    back = torch.arange(1 - n, 0, device=texts.device)
    last = texts.gather(1, (lengths[:, None] + back).clamp(min=0))  # the n - 1 tokens before the next one
    grams = texts.unfold(1, n, 1)
    inside = torch.arange(n - 1, longest, device=texts.device) < lengths[:, None]  # where a gram ends
    same = (grams[..., :-1] == last[:, None]).all(-1) & inside
    return forbidden.scatter(1, torch.where(same, grams[..., -1], vocab), True)[:, :vocab]
