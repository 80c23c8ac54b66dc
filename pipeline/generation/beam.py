"""Beam search over the carried state of any network.

At each step, every hypothesis is extended by every token, and the `width` most probable extensions are considered.
Those that end in EOS are finished, and the best others stay live. The search for a prompt ends when `width` hypotheses
are finished and no live one ranks above the worst of them. At the length limit, live hypotheses become finished.

Hypotheses are ranked by log p(text) / length^penalty. A model with attention can add a coverage term: beta * sum over
source positions s of log min(1, total attention to s). Width 1 is greedy decoding; a width that holds every text is
exhaustive search.

Sutskever, Vinyals and Le 2014, "Sequence to sequence learning with neural networks", section 3.2; Wu et al. 2016,
"Google's Neural Machine Translation System", section 7, for the coverage.

Legend: B prompts, W hypotheses per prompt, R rows (B times W), V tokens of the vocabulary, N new tokens, C candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.generation.limits import Limits, apply_limits
from pipeline.generation.prompts import Device, Forward, Prompts, read_prompt, step
from pipeline.generation.sampling import Hypothesis
from pipeline.state import State, select


@dataclass(frozen=True)
class Beam:
    """Beam search for the most probable continuations.

    Args:
        width: number of hypotheses per prompt.
        length_penalty: exponent of the length that divides the log probability: 0 ranks by probability, which
            favors short texts, 1 by the mean over tokens.
        coverage_penalty: beta, weight of the coverage term; requires a model with attention.

    Raises:
        ValueError: the width is below 1, or a penalty is negative.
    """

    width: int = 4
    length_penalty: float = 0.0
    coverage_penalty: float = 0.0

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width={self.width} of the beam must be at least 1")
        for name in ("length_penalty", "coverage_penalty"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0")

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
        """Return the `samples` best continuations of each prompt; deterministic."""
        if samples > self.width:
            raise ValueError(f"samples={samples} must not exceed the width={self.width} of the beam")
        found = self.search(forward, prompts, limits, device, start)
        return [best[:samples] for best in found]

    @torch.no_grad()
    def search(
        self,
        forward: Forward,
        prompts: Sequence[Sequence[int]],
        limits: Limits,
        device: Device = "cpu",
        start: State = None,
    ) -> list[list[Hypothesis]]:
        """Return up to `width` hypotheses for each prompt, the best first.

        Raises:
            ValueError: `prompts` is empty, a prompt is empty, logits are not finite, or a coverage penalty is set
                for a model without attention.
        """
        given = Prompts.of(prompts, device)
        if self.coverage_penalty:
            forward = CoverageTracker(forward)
            start = forward.begin(start)
        logits, state = read_prompt(forward, given.shared, start)
        rows = torch.arange(len(prompts), device=device).repeat_interleave(self.width)
        logits, state = logits[rows], select(state, rows)
        search = BeamSearch.begin(len(prompts), self, limits, device)
        for position in range(given.shared.shape[1], given.longest + limits.tokens):
            if self.coverage_penalty:
                search.cover(state[1])
            logits = apply_limits(logits, search.lengths, search.live.tokens.flatten(0, 1), limits, self.width)
            writing = given.ended(position) & ~search.over
            parents, tokens = search.advance(logits, writing, given.token(position))
            if search.over.all():
                break
            logits, state = step(forward, tokens, select(state, parents))
        return search.ranking()


@runtime_checkable
class AttentionModel(Protocol):
    """A model with attention to a memory in its state."""

    def forward_with_attention(
        self, tokens: Int64[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T V"], State, Float[Tensor, "B T S"]]:
        """Return logits, the next state, and the attention weights over the memory."""

    def memory_mask(self, state: State) -> Bool[Tensor, "B S"]:
        """Return the mask of the memory in a state."""


class CoverageTracker:
    """A model whose state also holds the total attention to each position of its memory, (B, S).

    Args:
        forward: a model with attention, with the methods `forward_with_attention` and `memory_mask`.

    Raises:
        ConfigError: the model has no attention.
    """

    def __init__(self, forward: Forward) -> None:
        if not isinstance(forward, AttentionModel):
            raise ConfigError("coverage_penalty requires a model with attention to a source. Set it to 0")
        self.forward: AttentionModel = forward

    def begin(self, state: State) -> State:
        """Return the initial state; padding counts as covered."""
        return state, (~self.forward.memory_mask(state)).float()

    def __call__(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        inner, attention = state
        logits, inner, weights = self.forward.forward_with_attention(tokens, inner)
        return logits, (inner, attention + weights.sum(1))


class Texts(NamedTuple):
    """W texts for each prompt, padded with zeros; absent texts have the score -infinity."""

    tokens: Int64[Tensor, "B W N"]
    lengths: Int64[Tensor, "B W"]
    scores: Float64[Tensor, "B W"]
    covered: Float64[Tensor, "B W"]
    """Sum over the source of log min(1, attention); 0 without a coverage penalty."""

    def pick(self, index: Int64[Tensor, "B K"]) -> "Texts":
        """Return the texts `index` of each prompt."""
        wide = index[..., None].expand(-1, -1, self.tokens.shape[2])
        return Texts(self.tokens.gather(1, wide), *(part.gather(1, index) for part in self[1:]))

    def extend(self, tokens: Int64[Tensor, "B W"], scores: Float64[Tensor, "B W"]) -> "Texts":
        """Return each text with one more token, and its new score."""
        place = self.lengths.clamp(max=self.tokens.shape[2] - 1)[..., None]
        return Texts(self.tokens.scatter(2, place, tokens[..., None]), self.lengths + 1, scores, self.covered)


@dataclass
class BeamSearch:
    """The state of the search: live and finished hypotheses of every prompt."""

    beam: Beam
    limits: Limits
    live: Texts
    """Unfinished hypotheses; scores are log probabilities."""
    finished: Texts
    """Finished hypotheses; scores are those of the ranking."""
    fresh: Int64[Tensor, " B"]
    """Number of new tokens of a prompt's live hypotheses."""
    over: Bool[Tensor, " B"]
    """True where a prompt's search has ended."""

    @classmethod
    def begin(cls, prompts: int, beam: Beam, limits: Limits, device: Device) -> "BeamSearch":
        """Return one live hypothesis per prompt, the empty one; its copies are dead until it branches."""
        none = Texts(
            torch.zeros(prompts, beam.width, limits.tokens, dtype=torch.long, device=device),
            torch.zeros(prompts, beam.width, dtype=torch.long, device=device),
            torch.full((prompts, beam.width), -torch.inf, dtype=torch.float64, device=device),
            torch.zeros(prompts, beam.width, dtype=torch.float64, device=device),
        )
        scores = none.scores.clone()
        scores[:, 0] = 0.0
        zeros = torch.zeros(prompts, dtype=torch.long, device=device)
        return cls(beam, limits, none._replace(scores=scores), none, zeros, zeros.bool())

    @property
    def lengths(self) -> Int64[Tensor, " R"]:
        """Number of new tokens of each row; 0 if the row is dead or its prompt's search has ended."""
        alive = self.live.scores.isfinite() & ~self.over[:, None]
        return torch.where(alive, self.fresh[:, None], 0).flatten()

    def cover(self, attention: Float[Tensor, "R S"]) -> None:
        """Set the coverage of the live hypotheses from their total attention to each position of the source."""
        smallest = torch.finfo(torch.float32).tiny  # A weight can be rounded to zero.
        covered = attention.clamp(smallest, 1.0).double().log().sum(1)
        self.live = self.live._replace(covered=covered.view_as(self.live.scores))

    def advance(
        self, logits: Float[Tensor, "R V"], writing: Bool[Tensor, " B"], prompt_token: Int64[Tensor, " B"]
    ) -> tuple[Int64[Tensor, " R"], Int64[Tensor, " R"]]:
        """Extend the hypotheses of prompts in `writing`; return the row that each row continues, and its token."""
        width = self.beam.width
        parents, tokens, scores = self.candidates(logits)
        if self.limits.eos is None:
            ends = torch.zeros_like(tokens, dtype=torch.bool)
        else:
            ends = tokens == self.limits.eos
        ended = scores.masked_fill(~ends, -torch.inf)[:, :width]
        self.add_finished(self.live.pick(parents[:, :width]).extend(tokens[:, :width], ended), writing)
        scores, kept = scores.masked_fill(ends, -torch.inf).topk(width)
        parents, tokens = parents.gather(1, kept), tokens.gather(1, kept)
        waiting = ~writing[:, None]
        same = torch.arange(width, device=logits.device).expand_as(parents)
        parents, tokens = (
            torch.where(waiting, same, parents),
            torch.where(waiting, prompt_token[:, None], tokens),
        )
        grown = self.live.pick(parents).extend(tokens, scores)
        self.live = Texts(
            *(
                torch.where(writing.view(-1, *[1] * (new.dim() - 1)), new, old)
                for new, old in zip(grown, self.live, strict=True)
            )
        )
        self.fresh = self.fresh + writing
        self.finish(writing)
        first_row = torch.arange(0, parents.numel(), width, device=logits.device)[:, None]
        return (first_row + parents).flatten(), tokens.flatten()

    def candidates(
        self, logits: Float[Tensor, "R V"]
    ) -> tuple[Int64[Tensor, "B C"], Int64[Tensor, "B C"], Float64[Tensor, "B C"]]:
        """Return the best extensions of each prompt, in order: parent, token, log probability.

        There are 2W of them: at most W can end in EOS, one per parent, so that W stay live.
        """
        prompts, width = self.live.scores.shape
        each = min(2 * width, logits.shape[1])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        gains, tokens = logits.log_softmax(-1).topk(each)
        totals = self.live.scores[..., None] + gains.view(prompts, width, each)
        scores, place = totals.flatten(1).topk(min(2 * width, width * each))
        return place // each, tokens.view(prompts, -1).gather(1, place), scores

    def ranked(self, texts: Texts) -> Float64[Tensor, "B W"]:
        """Return the ranking scores of texts with log probabilities as scores."""
        scores = texts.scores / texts.lengths.clamp(min=1).double() ** self.beam.length_penalty
        return scores + self.beam.coverage_penalty * texts.covered

    def add_finished(self, texts: Texts, where: Bool[Tensor, " B"]) -> None:
        """Rank texts with log probabilities as scores among the finished ones, and keep the best W."""
        scores = self.ranked(texts).masked_fill(~where[:, None], -torch.inf)
        both = Texts(
            *(torch.cat(pair, dim=1) for pair in zip(self.finished, texts._replace(scores=scores), strict=True))
        )
        self.finished = both.pick(both.scores.topk(self.beam.width).indices)

    def finish(self, writing: Bool[Tensor, " B"]) -> None:
        """End the search of prompts at the limit, without live texts, or with W finished texts above all live ones."""
        enough = self.finished.scores.amin(1) >= self.ranked(self.live).amax(1)
        self.add_finished(self.live, writing & ~enough & (self.fresh == self.limits.tokens))
        exhausted = ~self.live.scores.isfinite().any(1)
        self.over = self.over | (writing & (enough | exhausted | (self.fresh == self.limits.tokens)))

    def ranking(self) -> list[list[Hypothesis]]:
        """Return the finished hypotheses, the best first."""
        rows = zip(*(leaf.tolist() for leaf in self.finished[:3]), strict=True)
        return [
            [
                Hypothesis(tokens[:length], score)
                for tokens, length, score in zip(*row, strict=True)
                if score > -torch.inf
            ]
            for row in rows
        ]
