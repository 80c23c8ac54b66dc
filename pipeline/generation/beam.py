"""Beam search keeps the few best beginnings of a text and continues them side by side.

At each step every hypothesis is continued by every token, and of all these the `width` most probable count.
Those that chose EOS are put aside; the best that did not go on. The search for a prompt is over when
`width` hypotheses were put aside and the best that goes on ranks no higher than the last of the best `width`, or
at the length limit, where those still going join them. They are ranked by log p(text) / length^penalty, to which
a model with attention can add how well it covered its source: beta * sum over s of log min(1, attention that
position s got while the text was written). With width 1 this is the greedy choice; with a width that holds every
text it is the exhaustive search.

Sutskever, Vinyals and Le 2014, "Sequence to sequence learning with neural networks", section 3.2; Wu et al. 2016,
"Google's Neural Machine Translation System", section 7, for the coverage.

Legend: B prompts, W hypotheses a prompt, R rows (B times W), V tokens of the vocabulary, N new tokens,
C candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from pipeline.generation.prompts import Device, Forward, Prompts, read_prompt, step
from pipeline.generation.sampling import Hypothesis, Limits, allowed
from pipeline.state import State, select


@dataclass(frozen=True)
class Beam:
    """The most probable continuations that a search of limited width finds.

    Args:
        width: hypotheses kept for each prompt.
        length_penalty: exponent of the length that divides the log probability: 0 ranks by probability, which
            favours short texts, 1 by the mean over tokens.
        coverage_penalty: beta, what a source counts that was not looked at; wants a model with attention.

    Raises:
        ValueError: a width below 1 or a negative penalty.
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
        """For each prompt the `samples` best continuations; nothing is random here."""
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
        """For each prompt up to `width` hypotheses, the best first.

        Raises:
            ValueError: no prompt, an empty prompt, logits from which nothing can be chosen, or a penalty for
                what was not looked at where nothing is.
        """
        given = Prompts.of(prompts, device)
        if self.coverage_penalty:
            forward = Covering(forward)
            start = forward.begin(start)
        logits, state = read_prompt(forward, given.shared, start)
        rows = torch.arange(len(prompts), device=device).repeat_interleave(self.width)
        logits, state = logits[rows], select(state, rows)
        search = BeamSearch.begin(len(prompts), self, limits, device)
        for position in range(given.shared.shape[1], given.longest + limits.tokens):
            if self.coverage_penalty:
                search.cover(state[1])
            logits = allowed(logits, search.lengths, search.live.tokens.flatten(0, 1), limits, self.width)
            writing = given.ended(position) & ~search.over
            parents, tokens = search.advance(logits, writing, given.token(position))
            if search.over.all():
                break
            logits, state = step(forward, tokens, select(state, parents))
        return search.ranking()


class Covering:
    """A model whose state also holds how much each position of its memory was looked at, (B, S).

    Args:
        forward: a model with `forward_with_attention`, which also returns the attention weights, and `memory_mask`.

    Raises:
        ValueError: the model has no such thing.
    """

    def __init__(self, forward: Any) -> None:
        if not hasattr(forward, "forward_with_attention"):
            raise ValueError("coverage_penalty wants a model that writes from a source, with attention to it")
        self.forward = forward

    def begin(self, state: State) -> State:
        """The state before anything was read; where there is nothing to look at, nothing is missing."""
        return state, (~self.forward.memory_mask(state)).float()

    def __call__(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        inner, looked = state
        logits, inner, weights = self.forward.forward_with_attention(tokens, inner)
        return logits, (inner, looked + weights.sum(1))


class Texts(NamedTuple):
    """W texts for each prompt, filled up with zeros; those that are not there have the score -infinity."""

    tokens: Int64[Tensor, "B W N"]
    lengths: Int64[Tensor, "B W"]
    scores: Float64[Tensor, "B W"]
    covered: Float64[Tensor, "B W"]
    """Sum over the source of log min(1, attention); 0 where nobody asks."""

    def pick(self, index: Int64[Tensor, "B K"]) -> "Texts":
        """Texts `index` of each prompt."""
        wide = index[..., None].expand(-1, -1, self.tokens.shape[2])
        return Texts(self.tokens.gather(1, wide), *(part.gather(1, index) for part in self[1:]))

    def extend(self, tokens: Int64[Tensor, "B W"], scores: Float64[Tensor, "B W"]) -> "Texts":
        """Each text with one more token, and its new score."""
        place = self.lengths.clamp(max=self.tokens.shape[2] - 1)[..., None]
        return Texts(self.tokens.scatter(2, place, tokens[..., None]), self.lengths + 1, scores, self.covered)


@dataclass
class BeamSearch:
    """The hypotheses of every prompt while they grow."""

    beam: Beam
    limits: Limits
    live: Texts
    """Not ended; scores are log probabilities."""
    aside: Texts
    """Ended; scores are those of the ranking."""
    fresh: Int64[Tensor, " B"]
    """New tokens that the live hypotheses of a prompt have."""
    over: Bool[Tensor, " B"]

    @classmethod
    def begin(cls, prompts: int, beam: Beam, limits: Limits, device: Device) -> "BeamSearch":
        """One live hypothesis a prompt, the empty one; its copies are dead until it branches."""
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
        """New tokens of each row; 0 where it is dead or its prompt's search is over."""
        alive = self.live.scores.isfinite() & ~self.over[:, None]
        return torch.where(alive, self.fresh[:, None], 0).flatten()

    def cover(self, looked: Float[Tensor, "R S"]) -> None:
        """Tell how much each live hypothesis has looked at each position of its source."""
        smallest = torch.finfo(torch.float32).tiny  # a weight that rounding made nothing
        covered = looked.clamp(smallest, 1.0).double().log().sum(1)
        self.live = self.live._replace(covered=covered.view_as(self.live.scores))

    def advance(
        self, logits: Float[Tensor, "R V"], writing: Bool[Tensor, " B"], prompt_token: Int64[Tensor, " B"]
    ) -> tuple[Int64[Tensor, " R"], Int64[Tensor, " R"]]:
        """Continue the prompts that are `writing`; which row each row then copies, and its token."""
        width = self.beam.width
        parents, tokens, scores = self.candidates(logits)
        if self.limits.eos is None:
            ends = torch.zeros_like(tokens, dtype=torch.bool)
        else:
            ends = tokens == self.limits.eos
        ended = scores.masked_fill(~ends, -torch.inf)[:, :width]
        self.set_aside(self.live.pick(parents[:, :width]).extend(tokens[:, :width], ended), writing)
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
        """The best continuations of each prompt, in order: parent, token, log probability.

        2W of them: at most W can end, one from each parent, so that W are left to go on.
        """
        prompts, width = self.live.scores.shape
        each = min(2 * width, logits.shape[1])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        gains, tokens = logits.log_softmax(-1).topk(each)
        totals = self.live.scores[..., None] + gains.view(prompts, width, each)
        scores, place = totals.flatten(1).topk(min(2 * width, width * each))
        return place // each, tokens.view(prompts, -1).gather(1, place), scores

    def ranked(self, texts: Texts) -> Float64[Tensor, "B W"]:
        """What texts, given with their log probabilities, are ranked by."""
        scores = texts.scores / texts.lengths.clamp(min=1).double() ** self.beam.length_penalty
        return scores + self.beam.coverage_penalty * texts.covered

    def set_aside(self, texts: Texts, where: Bool[Tensor, " B"]) -> None:
        """Rank texts, given with their log probabilities, among those put aside; W stay."""
        scores = self.ranked(texts).masked_fill(~where[:, None], -torch.inf)
        both = Texts(*(torch.cat(pair, dim=1) for pair in zip(self.aside, texts._replace(scores=scores), strict=True)))
        self.aside = both.pick(both.scores.topk(self.beam.width).indices)

    def finish(self, writing: Bool[Tensor, " B"]) -> None:
        """End the search of prompts with W texts aside that none alive ranks above, or none alive, or at the limit."""
        enough = self.aside.scores.amin(1) >= self.ranked(self.live).amax(1)
        self.set_aside(self.live, writing & ~enough & (self.fresh == self.limits.tokens))
        exhausted = ~self.live.scores.isfinite().any(1)
        self.over = self.over | (writing & (enough | exhausted | (self.fresh == self.limits.tokens)))

    def ranking(self) -> list[list[Hypothesis]]:
        """What was put aside, the best first."""
        rows = zip(*(leaf.tolist() for leaf in self.aside[:3]), strict=True)
        return [
            [
                Hypothesis(tokens[:length], score)
                for tokens, length, score in zip(*row, strict=True)
                if score > -torch.inf
            ]
            for row in rows
        ]
