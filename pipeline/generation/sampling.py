"""Token-by-token generation through the carried state, by greedy decoding or sampling.

Any callable that maps tokens (B, T) and a state to logits (B, T, V) and the next state can be decoded. The decoding
method is an object: `Greedy()`, `Sample(temperature, top_k, top_p)`, or `Beam(width)` of `pipeline.generation.beam`.
`generate` returns finished texts; `stream` yields the tokens of each step.

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
    """Limits on the length and the repetitions of a continuation.

    Args:
        tokens: maximum number of new tokens, including EOS.
        at_least: minimum number of new tokens, including EOS.
        eos: the EOS token, which ends a row; None continues each row to its limit.
        no_repeat: length of n-grams that are not generated twice in a text (Paulus et al. 2018, section 2.5); 0
            allows repetition.

    Raises:
        ValueError: a limit is out of range.
    """

    tokens: int = 200
    at_least: int = 0
    eos: int | None = None
    no_repeat: int = 0

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"tokens={self.tokens} must be at least 1")
        if not 0 <= self.at_least <= self.tokens:
            raise ValueError(f"at_least={self.at_least} must be between 0 and tokens={self.tokens}")
        if self.no_repeat < 0:
            raise ValueError(f"no_repeat={self.no_repeat} must be at least 0")


class Hypothesis(NamedTuple):
    """A continuation, with its ranking score if a search found it."""

    tokens: list[int]
    score: float | None = None


@runtime_checkable
class Choice(Protocol):
    """The interface of a decoding method."""

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
        """Return `samples` continuations of each prompt, the best first if they are ranked."""


class Stepwise:
    """A decoding method that chooses each token of a row from its logits and one random number."""

    def __call__(self, logits: Float[Tensor, "B V"], uniform: Float64[Tensor, " B"]) -> Int64[Tensor, " B"]:
        """Return the next token of each row; `uniform` is a number in [0, 1) per row."""
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
        """Return `samples` continuations of each prompt; sample s of any prompt has the seed `seed` + s."""
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
    """Greedy decoding: the most probable token, the lowest one among ties."""

    def __call__(self, logits: Float[Tensor, "B V"], uniform: Float64[Tensor, " B"]) -> Int64[Tensor, " B"]:
        return logits.argmax(-1)


@dataclass(frozen=True)
class Sample(Stepwise):
    """Sampling with temperature, top-k and top-p.

    Args:
        temperature: divides the logits; below 1 less varied, above 1 more varied.
        top_k: sample from the k most probable tokens.
        top_p: sample from the smallest set of most probable tokens, after top_k, with this total probability.

    Raises:
        ValueError: a value is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature} must be positive. Use greedy decoding instead of 0")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must be in (0, 1]")

    def __call__(self, logits: Float[Tensor, "B V"], uniform: Float64[Tensor, " B"]) -> Int64[Tensor, " B"]:
        upto = self.probabilities(logits).cumsum(-1)
        threshold = uniform.clamp(max=1 - 1e-12) * upto[:, -1]  # Rounding must not raise it to the whole sum.
        return torch.searchsorted(upto, threshold[:, None], right=True)[:, 0]

    def probabilities(self, logits: Float[Tensor, "B V"]) -> Float64[Tensor, "B V"]:
        """Return the softmax at the temperature, zero outside top-k and top-p."""
        scaled = logits.double() / self.temperature
        return scaled.masked_fill(~self.keep(scaled), -torch.inf).softmax(-1)

    def keep(self, logits: Float64[Tensor, "B V"]) -> Bool[Tensor, "B V"]:
        """Return True for the tokens that can be sampled."""
        if self.top_k is None and self.top_p is None:
            return torch.ones_like(logits, dtype=torch.bool)
        ordered, order = logits.sort(descending=True, stable=True)  # stable: the lowest token among ties
        kept = torch.ones_like(ordered, dtype=torch.bool)
        kept[:, self.top_k :] = self.top_k is None
        if self.top_p is not None:
            share = ordered.masked_fill(~kept, -torch.inf).softmax(-1)
            kept &= share.cumsum(-1) - share < self.top_p  # probability of all more probable tokens
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
    """Continue each prompt `samples` times; a row that ends early has `limits.eos` as its last token.

    The tokens of a prompt, sample and seed do not depend on the other prompts.

    Args:
        forward: the model.
        prompts: tokens to continue.
        choice: the decoding method.
        limits: limits on the continuations.
        samples: number of continuations of each prompt.
        seed: seed of the first sample.
        device: device of the model.
        start: initial state with one row per prompt, such as an encoded source.

    Returns:
        The new tokens for each prompt and each sample (the best first for a beam).

    Raises:
        ValueError: `prompts` is empty, a prompt is empty, or logits are not finite.
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
    """Yield the new token of each row at each step, None for a row that has ended or is still in its prompt.

    Args:
        seeds: one per row.
        start: initial state.

    Raises:
        ValueError: as `generate`.
    """
    given = Prompts.of(prompts, device)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    fresh = torch.zeros(len(prompts), dtype=torch.long, device=device)  # number of new tokens per row
    texts = fresh.new_zeros(len(prompts), limits.tokens)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    logits, state = read_prompt(forward, given.shared, start)
    for position in range(given.shared.shape[1], given.longest + limits.tokens):
        writing = given.ended(position) & ~ended
        uniform = [
            torch.rand((), generator=generator, dtype=torch.float64) if writes else torch.tensor(0.0).double()
            for generator, writes in zip(generators, writing.tolist(), strict=True)
        ]
        chosen = choice(
            apply_limits(logits, fresh.masked_fill(ended, 0), texts, limits), torch.stack(uniform).to(device)
        )
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


def apply_limits(
    logits: Float[Tensor, "R V"],
    lengths: Int64[Tensor, " R"],
    texts: Int64[Tensor, "R N"],
    limits: Limits,
    each: int = 1,
) -> Float[Tensor, "R V"]:
    """Return logits without the tokens that the limits exclude; raise ValueError if none is left or is finite.

    Args:
        logits: logits of the next token.
        lengths: number of new tokens per row; 0 for finished rows.
        texts: the new tokens, followed by arbitrary values.
        limits: exclude EOS in rows that are too short, and tokens that repeat an n-gram.
        each: rows per prompt, for the message.
    """
    if limits.eos is not None and limits.at_least > 0:
        is_eos = torch.arange(logits.shape[1], device=logits.device) == limits.eos
        logits = logits.masked_fill((lengths + 1 < limits.at_least)[:, None] & is_eos, -torch.inf)
    if limits.no_repeat:
        logits = logits.masked_fill(repeats_ngram(texts, lengths, limits.no_repeat, logits.shape[1]), -torch.inf)
    usable = logits.amax(-1).isfinite()  # The maximum is NaN or infinite, or -infinite if all tokens are excluded.
    if not usable.all():
        row = int((~usable).nonzero()[0]) // each
        raise ValueError(f"row {row}: no token can be chosen, as logits are NaN, infinite or all excluded")
    return logits


def repeats_ngram(texts: Int64[Tensor, "R N"], lengths: Int64[Tensor, " R"], n: int, vocab: int) -> Bool[Tensor, "R V"]:
    """Return True for the tokens that would complete an n-gram that the text already has.

    Args:
        texts: tokens, followed by arbitrary values.
        lengths: number of tokens per text.
        n: length of the n-grams.
        vocab: V.
    """
    rows, longest = texts.shape
    forbidden = torch.zeros(rows, vocab + 1, dtype=torch.bool, device=texts.device)  # with one slot for no token
    if n > longest:
        return forbidden[:, :vocab]
    back = torch.arange(1 - n, 0, device=texts.device)
    last = texts.gather(1, (lengths[:, None] + back).clamp(min=0))  # the n - 1 tokens before the next one
    grams = texts.unfold(1, n, 1)
    inside = torch.arange(n - 1, longest, device=texts.device) < lengths[:, None]  # where an n-gram ends
    same = (grams[..., :-1] == last[:, None]).all(-1) & inside
    return forbidden.scatter(1, torch.where(same, grams[..., -1], vocab), True)[:, :vocab]
