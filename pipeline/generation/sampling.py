"""Token-by-token generation through the carried state, by greedy decoding or sampling.

A callable that maps tokens (B, T) and a state to logits (B, T, V) and the next state can be decoded. The decoding
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

from pipeline.generation.limits import Limits, apply_limits
from pipeline.generation.prompts import Device, Forward, Prompts, read_prompt, repeat, step
from pipeline.state import State

__all__ = ["Choice", "Greedy", "Hypothesis", "Limits", "Sample", "Stepwise", "generate", "stream"]
LEADING = 1024  # tokens that are ordered first; top-p rarely keeps more


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
        if self.top_k is not None or self.top_p is not None:
            scaled = scaled.masked_fill(~self.keep(scaled), -torch.inf)
        return scaled.softmax(-1)

    def keep(self, logits: Float64[Tensor, "B V"]) -> Bool[Tensor, "B V"]:
        """Return True for the tokens that can be sampled: the most probable ones, the lowest among ties."""
        ordered, count = self._ordered(logits)
        least = ordered.gather(1, count - 1)
        above, equal = logits > least, logits == least
        return above | (equal & (equal.cumsum(-1) <= count - above.sum(-1, keepdim=True)))

    def _ordered(self, logits: Float64[Tensor, "B V"]) -> tuple[Float64[Tensor, "B K"], Int64[Tensor, "B 1"]]:
        """Return the highest logits in order, and how many of them can be sampled."""
        vocab = logits.shape[1]
        most = min(vocab, self.top_k or vocab)
        if self.top_p is None:
            return logits.topk(most).values, torch.full_like(logits[:, :1], most, dtype=torch.int64)
        # To order a large vocabulary takes as long as a step of a small network.
        for size in [most] if self.top_k else sorted({min(most, LEADING), most}):
            ordered = logits.sort(descending=True).values if size == vocab else logits.topk(size).values
            share = ordered.softmax(-1) if size == most else (ordered - logits.logsumexp(-1, keepdim=True)).exp()
            before = share.cumsum(-1) - share  # probability of all more probable tokens
            if bool((before[:, -1] >= self.top_p).all()):
                break
        return ordered, (before < self.top_p).sum(-1, keepdim=True)


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
    uniform = torch.stack([_numbers(seed, limits.tokens) for seed in seeds]).to(device)
    texts = torch.zeros(len(prompts), limits.tokens, dtype=torch.long, device=device)
    rows = [RowProgress(len(prompt)) for prompt in prompts]
    logits, state = read_prompt(forward, given.shared, start)
    for position in range(given.shared.shape[1], given.longest + limits.tokens):
        lengths = torch.tensor([0 if row.ended else row.new for row in rows], device=device)
        logits = apply_limits(logits, lengths, texts, limits)
        tokens = choice(logits, uniform.gather(1, lengths[:, None])[:, 0])
        if position < given.longest:
            tokens = torch.where(given.ended(position), tokens, given.token(position))
        if limits.no_repeat:  # Rows that write no text are not read.
            texts.scatter_(1, lengths[:, None], tokens[:, None])
        yield [row.write(token, position, limits) for row, token in zip(rows, tokens.tolist(), strict=True)]
        if all(row.ended for row in rows):
            return
        logits, state = step(forward, tokens, state)


def _numbers(seed: int, count: int) -> Float64[Tensor, " N"]:
    """Return the random numbers of a row, one per new token."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass
class RowProgress:
    """The progress of a row of `stream`.

    Args:
        prompt: number of tokens of its prompt.
    """

    prompt: int
    new: int = 0
    """Number of new tokens."""
    ended: bool = False

    def write(self, token: int, position: int, limits: Limits) -> int | None:
        """Add the token at a position; return it if it is new, None in the prompt and after the end."""
        if self.ended or position < self.prompt:
            return None
        self.new += 1
        self.ended = self.new == limits.tokens or token == limits.eos
        return token
