"""Generation follows the softmax and the limits, and rows are independent of the batch."""

import importlib
import inspect
import math
import pkgutil

import pytest
import torch

import pipeline.models
from pipeline.errors import ConfigError
from pipeline.generation import sampling
from pipeline.generation.beam import Beam
from pipeline.generation.sampling import Greedy, Limits, Sample, generate, stream
from pipeline.tasks.task import Task
from tests.unit.tables import VOCAB, Table, prompts_of_unequal_lengths, repeats


@pytest.mark.parametrize("eos", [None, 0])
def test_greedy_is_sampling_from_the_best_alone_and_a_beam_of_one(eos):
    prompts, limits = prompts_of_unequal_lengths(), Limits(tokens=9, eos=eos)
    for seed in range(10):
        choices = [Greedy(), Sample(top_k=1), Sample(top_p=1e-9), Beam(1), Beam(1, length_penalty=1.0)]
        texts = [generate(Table(seed), prompts, choice, limits) for choice in choices]
        assert all(other == texts[0] for other in texts[1:])


@pytest.mark.parametrize("choice", [Greedy(), Sample(0.8), Beam(1), Beam(3)], ids=str)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_decoding_method_repeats_an_excluded_ngram(choice, n):
    prompts, repeated = prompts_of_unequal_lengths(), False
    for seed in range(6):
        texts = generate(Table(seed), prompts, choice, Limits(12, eos=0, no_repeat=n), seed=seed)
        assert not any(repeats(text, n) for row in texts for text in row)
        freely = generate(Table(seed), prompts, choice, Limits(12, at_least=8, eos=0), seed=seed)
        repeated |= any(repeats(text, n) for row in freely for text in row)
    assert repeated


@pytest.mark.parametrize("choice", [Greedy(), Sample(0.8), Sample(top_k=3), Sample(top_p=0.7), Beam(3)], ids=str)
@pytest.mark.parametrize("limits", [Limits(8), Limits(8, eos=0), Limits(8, at_least=5, eos=0)], ids=str)
def test_a_row_does_not_depend_on_the_batch(choice, limits):
    prompts = prompts_of_unequal_lengths()
    together = generate(Table(), prompts, choice, limits, samples=2 if choice != Greedy() else 1, seed=3)
    alone = [
        generate(Table(), [prompt], choice, limits, samples=2 if choice != Greedy() else 1, seed=3)[0]
        for prompt in prompts
    ]
    assert together == alone
    assert generate(Table(), prompts[::-1], choice, limits, samples=len(together[0]), seed=3) == together[::-1]


def test_samples_of_one_prompt_have_seeds_of_their_own():
    limits = Limits(12)
    many = generate(Table(sharpness=0.5), [[1, 2]], Sample(), limits, samples=4, seed=7)[0]
    assert len({tuple(text) for text in many}) == 4
    assert generate(Table(sharpness=0.5), [[1, 2]], Sample(), limits, samples=1, seed=9)[0] == [many[2]]


def test_a_longer_limit_only_adds_to_the_text():
    short, long = (generate(Table(), [[1], [2, 3]], Sample(), Limits(n), seed=1) for n in (5, 40))
    assert [text[0][:5] for text in long] == [text[0] for text in short]


def test_eos_ends_a_row_and_not_before_the_minimum_length():
    model = Table(seed=2, sharpness=0.5)
    rows = generate(model, [[1]], Sample(), Limits(30, at_least=4, eos=0), samples=50)[0]
    assert all(0 not in text[:-1] for text in rows)
    assert all(len(text) == 30 or text[-1] == 0 for text in rows)
    assert min(len(text) for text in rows) == 4
    assert all(0 not in text[:3] and len(text) >= 4 for text in rows)
    assert min(len(one.tokens) for one in Beam(3).search(model, [[1]], Limits(9, at_least=6, eos=0))[0]) >= 6


def test_streaming_gives_each_row_its_tokens_when_its_prompt_is_read():
    prompts = [[1, 2, 3], [1]]
    steps = list(stream(Table(), prompts, Greedy(), Limits(4), seeds=[0, 0]))
    texts = [[step[row] for step in steps] for row in range(2)]
    assert [token is None for token in texts[0]] == [True, True, False, False, False, False]
    assert [token is None for token in texts[1]] == [False, False, False, False, True, True]
    whole = generate(Table(), prompts, Greedy(), Limits(4))
    assert [[token for token in text if token is not None] for text in texts] == [text[0] for text in whole]


def test_the_model_is_called_once_per_token_after_the_prompt_and_no_more_than_needed():
    shapes, model = [], Table()

    def watched(tokens, state):
        shapes.append(tuple(tokens.shape))
        return model(tokens, state)

    generate(watched, [[1, 2, 3], [1, 2, 3]], Greedy(), Limits(4))
    assert shapes == [(2, 3), (2, 1), (2, 1), (2, 1)]


def test_a_long_prompt_is_processed_in_chunks_that_carry_the_state():
    prompt = torch.randint(VOCAB, (700,), generator=torch.Generator().manual_seed(1)).tolist()
    whole = generate(Table(), [prompt], Greedy(), Limits(5))
    assert whole == generate(Table(), [prompt[-2:]], Greedy(), Limits(5))  # the table depends on the last two tokens


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        (Sample(), {0, 1, 2, 3, 4}),
        (Sample(top_k=2), {1, 3}),
        (Sample(top_k=99), {0, 1, 2, 3, 4}),
        (Sample(top_p=0.39), {1}),
        (Sample(top_p=0.41), {1, 3}),
        (Sample(top_p=0.71), {1, 3, 0}),
        (Sample(top_p=1.0), {0, 1, 2, 3, 4}),
        (Sample(top_k=2, top_p=0.5), {1}),  # of the two left, the first alone holds 4/7
        (Sample(temperature=0.5, top_p=0.5), {1}),  # squared: 16 of 16 + 9 + 2.25 + ... = 0.55
    ],
    ids=str,
)
def test_top_k_and_top_p_keep_exactly_the_right_tokens(choice, kept):
    shares = torch.tensor([0.15, 0.4, 0.1, 0.3, 0.05], dtype=torch.float64)
    probabilities = choice.probabilities(shares.log()[None])[0]
    assert set(probabilities.nonzero().flatten().tolist()) == kept
    expected = [shares[i].item() ** (1 / choice.temperature) if i in kept else 0.0 for i in range(5)]
    assert probabilities.tolist() == pytest.approx([share / sum(expected) for share in expected])


def test_top_k_keeps_the_first_of_equally_probable_tokens():
    probabilities = Sample(top_k=2).probabilities(torch.zeros(1, 5))
    assert probabilities.tolist() == [[0.5, 0.5, 0, 0, 0]]


def kept_by_the_definition(choice: Sample, logits: torch.Tensor) -> list[bool]:
    """Order the tokens of one row, the lowest first among ties, and keep them one by one."""
    kept, order = [False] * len(logits), sorted(range(len(logits)), key=lambda token: (-logits[token].item(), token))
    order = order[: choice.top_k]
    shares, before = logits[order].softmax(0).tolist(), 0.0
    for token, share in zip(order, shares, strict=True):
        kept[token] = choice.top_p is None or before < choice.top_p
        before += share
    return kept


@pytest.mark.parametrize("leading", [4, 1024])
@pytest.mark.parametrize("choice", [Sample(top_k=7), Sample(top_p=0.55), Sample(top_k=9, top_p=0.75)], ids=str)
def test_tokens_are_kept_by_the_definition_also_among_ties(choice, leading, monkeypatch):
    monkeypatch.setattr(sampling, "LEADING", leading)
    torch.manual_seed(0)
    for steps in (1.0, 8.0, 1e6):  # rounded: many ties, a few, none
        logits = (torch.randn(9, 40, dtype=torch.float64) * steps).round() / steps
        logits[:, :3] = -torch.inf
        assert choice.keep(logits).tolist() == [kept_by_the_definition(choice, row) for row in logits]


def test_a_row_draws_one_number_per_new_token():
    generator, text, model = torch.Generator().manual_seed(5), [3], Table(sharpness=0.5)
    for _ in range(40):
        uniform = torch.rand((), generator=generator, dtype=torch.float64)
        text.append(Sample()(model(torch.tensor([text]), None)[0][:, -1], uniform[None]).item())
    assert generate(model, [[3], [1, 2, 4]], Sample(), Limits(40), seed=5)[0] == [text[1:]]


@pytest.mark.parametrize("choice", [Sample(), Sample(0.7), Sample(top_k=3), Sample(1.3, top_p=0.8)], ids=str)
def test_sampling_draws_from_the_softmax(choice):
    draws, vocab = 20_000, 6
    logits = torch.tensor([0.3, -1.0, 1.2, 0.0, 0.8, -0.4])
    uniform = torch.rand(draws, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = torch.bincount(choice(logits.expand(draws, vocab), uniform), minlength=vocab)
    scaled = (logits / choice.temperature).softmax(0)
    expected = draws * torch.where(choice.keep(logits[None].double() / choice.temperature)[0], scaled, 0.0)
    expected *= draws / expected.sum()
    possible = expected > 0
    assert counts[~possible].sum() == 0
    chi_square = ((counts - expected)[possible] ** 2 / expected[possible]).sum().item()
    assert chi_square < 20.5  # the 99.9 % point at 5 degrees of freedom


def test_the_extreme_draws_still_choose_a_possible_token():
    logits = torch.tensor([[-math.inf, 0.0, 0.0, -math.inf]]).expand(2, 4)
    uniform = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert Sample()(logits, uniform).tolist() == [1, 2]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("choice", [Greedy(), Sample(), Beam(2)], ids=str)
def test_invalid_logits_raise_an_error(choice, bad):
    model = Table()
    model.logits[:, 3, 1] = bad
    with pytest.raises(ValueError, match="row 1: no token can be chosen"):
        generate(model, [[1], [3]], choice, Limits(3))


def test_a_vocabulary_of_eos_alone_raises_an_error():
    with pytest.raises(ValueError, match="or all excluded"):
        generate(Table(vocab=1), [[0]], Greedy(), Limits(3, at_least=2, eos=0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sample(0.0), "temperature=0.0 must be positive"),
        (lambda: Sample(math.nan), "temperature=nan must be positive"),
        (lambda: Sample(top_k=0), "top_k=0 must be at least 1"),
        (lambda: Sample(top_p=0.0), r"top_p=0.0 must be in \(0, 1\]"),
        (lambda: Sample(top_p=1.1), r"top_p=1.1 must be in \(0, 1\]"),
        (lambda: Beam(0), "width=0 of the beam must be at least 1"),
        (lambda: Beam(2, -1.0), "length_penalty=-1.0 must be at least 0"),
        (lambda: Beam(2, coverage_penalty=-1.0), "coverage_penalty=-1.0 must be at least 0"),
        (lambda: generate(Table(), [[1]], Beam(2, 0.0, 1.0), Limits()), "requires a model with attention"),
        (lambda: Limits(no_repeat=-1), "no_repeat=-1 must be at least 0"),
        (lambda: Limits(0), "tokens=0 must be at least 1"),
        (lambda: Limits(3, at_least=4), "at_least=4 must be between 0 and tokens=3"),
        (lambda: generate(Table(), [], Greedy(), Limits()), "prompts is empty"),
        (lambda: generate(Table(), [[1], []], Greedy(), Limits()), "prompt 1 is empty"),
        (lambda: generate(Table(), [[1]], Greedy(), Limits(), samples=0), "samples=0 must be at least 1"),
        (lambda: generate(Table(), [[1]], Beam(2), Limits(), samples=3), "samples=3 must not exceed"),
    ],
)
def test_invalid_arguments_raise_an_error(make, message):
    with pytest.raises((ValueError, ConfigError), match=message):
        make()


def networks():
    """Return every network class with a carried state in the __all__ of a module of pipeline.models."""
    for module in pkgutil.walk_packages(pipeline.models.__path__, "pipeline.models."):
        found = importlib.import_module(module.name)
        for name in getattr(found, "__all__", []):
            member = getattr(found, name)
            network = inspect.isclass(member) and issubclass(member, torch.nn.Module) and not issubclass(member, Task)
            if network and "state" in inspect.signature(member.forward).parameters:
                yield pytest.param(member, id=name)


@pytest.mark.parametrize("network", networks())
def test_every_network_generates_in_a_batch_what_it_generates_alone(network):
    torch.manual_seed(0)
    body = network(width=16).eval().double()
    embedding = torch.randn(VOCAB, 16, dtype=torch.float64)

    def forward(tokens, state):
        outputs, state = body(embedding[tokens], state)
        return outputs @ embedding.T, state

    prompts = prompts_of_unequal_lengths()
    for choice in (Greedy(), Sample(), Beam(3)):
        together = generate(forward, prompts, choice, Limits(12, eos=0), seed=4)
        assert together == [generate(forward, [one], choice, Limits(12, eos=0), seed=4)[0] for one in prompts]


def test_limits_and_choices_have_their_documented_defaults():
    assert Limits() == Limits(200, 0, None, 0)
    assert Sample() == Sample(1.0, None, None)
    assert Beam() == Beam(4, 0.0, 0.0)
    assert Limits(1, at_least=1).tokens == 1
    assert Sample(1e-9, 1, 1e-9).top_k == 1
