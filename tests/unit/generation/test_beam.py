"""Beam search against exhaustive enumeration, greedy decoding, and a reference on lists."""

import math

import pytest
import torch

from pipeline.generation.beam import Beam
from pipeline.generation.sampling import Greedy, Limits, generate
from tests.unit.tables import VOCAB, Table, every_text, prompts_of_unequal_lengths, repeats


@pytest.mark.numeric
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_beam_that_holds_every_text_is_the_exhaustive_search(penalty):
    model, eos, longest = Table(seed=3, vocab=3), 0, 4
    prompts = [[1, 2], [2]]
    texts = list(every_text(3, longest, eos))
    found = Beam(width=len(texts), length_penalty=penalty).search(model, prompts, Limits(longest, eos=eos))
    for prompt, hypotheses in zip(prompts, found, strict=True):
        scored = [(model.log_probability(prompt, text) / len(text) ** penalty, text) for text in texts]
        expected = sorted(scored, reverse=True)
        assert [hypothesis.tokens for hypothesis in hypotheses] == [text for _, text in expected]
        assert [hypothesis.score for hypothesis in hypotheses] == pytest.approx([score for score, _ in expected])


class Looker(Table):
    """A table with attention to a memory of three positions, two for the second prompt; the token decides where."""

    where = torch.randn(VOCAB, 3, generator=torch.Generator().manual_seed(8))

    def memory_mask(self, state):
        return state[0]

    def forward_with_attention(self, tokens, state):
        kept, *before = state
        logits, after = self(tokens, (before[0],) if before else None)
        scores = self.where[tokens].masked_fill(~kept[:, None], -math.inf)
        return logits, (kept, *after), scores.softmax(-1)

    def covered(self, prompt, text, kept):
        read = torch.tensor([[*prompt, *text[:-1]]])
        *_, weights = self.forward_with_attention(read, (kept[None],))
        return weights[0].double().sum(0)[kept].clamp(max=1).log().sum().item()


@pytest.mark.numeric
def test_a_beam_that_holds_every_text_ranks_by_coverage():
    model, eos, longest = Looker(seed=3, vocab=3), 0, 4
    prompts, kept = [[1, 2], [2]], torch.tensor([[True, True, True], [True, True, False]])
    texts, beta = list(every_text(3, longest, eos)), 0.7
    beam = Beam(len(texts), length_penalty=1.0, coverage_penalty=beta)
    found = beam.search(model, prompts, Limits(longest, eos=eos), start=(kept,))
    for prompt, inside, hypotheses in zip(prompts, kept, found, strict=True):
        expected = {
            tuple(text): model.log_probability(prompt, text) / len(text) + beta * model.covered(prompt, text, inside)
            for text in texts
        }
        assert {tuple(one.tokens): one.score for one in hypotheses} == pytest.approx(expected, rel=1e-5)
        assert [one.score for one in hypotheses] == sorted((one.score for one in hypotheses), reverse=True)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_beam_that_holds_every_text_without_repetition_is_the_exhaustive_search_among_them(n):
    model, eos, longest = Table(seed=3, vocab=4), 0, 3
    prompts, limits = [[1, 2], [2]], Limits(longest, eos=eos, no_repeat=n)
    texts = [text for text in every_text(4, longest, eos) if not repeats(text, n)]
    found = Beam(len(texts)).search(model, prompts, limits)
    for hypotheses in found:
        expected = {tuple(text) for text in texts}
        assert {tuple(one.tokens) for one in hypotheses} == expected
        assert len(hypotheses) == len(expected)


def test_a_beam_of_one_is_greedy_under_every_limit():
    prompts = prompts_of_unequal_lengths()
    for seed in range(10):
        for limits in (Limits(9, at_least=4, eos=0), Limits(9, eos=0, no_repeat=2), Limits(9, 3, 0, 1)):
            assert generate(Table(seed, 12), prompts, Beam(1), limits) == generate(
                Table(seed, 12), prompts, Greedy(), limits
            )


def narrow_beam(model, prompt, width, limits):
    """Beam search on lists, for one prompt."""
    live, finished = [([], 0.0)], []
    for _ in range(limits.tokens):
        grown = [
            ([*text, token], model.log_probability(prompt, [*text, token]))
            for text, _ in live
            for token in range(model.vocab)
        ]
        grown.sort(key=lambda one: -one[1])
        finished += [one for one in grown[:width] if one[0][-1] == limits.eos]
        live = [one for one in grown if one[0][-1] != limits.eos][:width]
        best = sorted((score for _, score in finished), reverse=True)[:width]
        if len(best) == width and best[-1] >= live[0][1]:
            break
    else:
        finished += live
    return sorted(finished, key=lambda one: -one[1])[:width]


@pytest.mark.numeric
@pytest.mark.parametrize("width", [2, 3, 6])
def test_a_narrow_beam_equals_the_reference(width):
    limits, prompts = Limits(tokens=6, eos=0), prompts_of_unequal_lengths()
    for seed in range(5):
        model = Table(seed)
        found = Beam(width).search(model, prompts, limits)
        for prompt, hypotheses in zip(prompts, found, strict=True):
            expected = narrow_beam(model, prompt, width, limits)
            assert [one.tokens for one in hypotheses] == [text for text, _ in expected]
            assert [one.score for one in hypotheses] == pytest.approx([score for _, score in expected])


def test_a_beam_continues_while_a_live_text_ranks_above_the_finished_ones():
    # 1 is followed by 2 with 0.99 and by EOS with 0.01, 2 likewise by 3, and 3 by EOS.
    likely = torch.full((4, 4), 1e-9).scatter(1, torch.tensor([[1], [2], [3], [0]]), 0.99)
    likely[:3, 0] = 0.01

    def forward(tokens, state):
        return likely[tokens].log(), torch.zeros(len(tokens), 1)

    found = Beam(2).search(forward, [[1]], Limits(8, eos=0))[0]
    assert found[0].tokens == generate(forward, [[1]], Greedy(), Limits(8, eos=0))[0][0] == [2, 3, 0]


def test_a_beam_returns_its_best_in_order():
    best = Beam(4).search(Table(1), [[1]], Limits(5))[0]
    texts = generate(Table(1), [[1]], Beam(4), Limits(5), samples=3)[0]
    assert texts == [hypothesis.tokens for hypothesis in best[:3]]
    assert [one.score for one in best] == sorted((one.score for one in best), reverse=True)


def test_a_beam_that_is_wider_than_there_are_texts_finds_each_once():
    [found] = Beam(width=5).search(Table(vocab=2), [[1]], Limits(1, eos=0))
    assert sorted(one.tokens for one in found) == [[0], [1]]
