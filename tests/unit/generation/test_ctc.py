"""Prefix beam search agrees with the sum over all paths, with and without a language model."""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
import torch

from pipeline.generation.ctc import BestPath, CachedLanguageModel, PrefixBeam, collapsed
from pipeline.models.kneser_ney import KneserNey
from pipeline.models.lstm import LSTMLanguageModel

POSITIONS, TOKENS = 5, 3
EOS = 0


def random_logs(seed: int, positions: int = POSITIONS, tokens: int = TOKENS) -> np.ndarray:
    chance = np.random.default_rng(seed)
    return torch.from_numpy(2 * chance.standard_normal((positions, tokens + 1))).log_softmax(-1).numpy()


def brute_force(logs: np.ndarray) -> dict[tuple[int, ...], float]:
    """Return the log probability of each text, summed over all paths."""
    sums: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(logs.shape[1]), repeat=len(logs)):
        sums[collapsed(path, logs.shape[1] - 1)] += math.exp(sum(logs[at, token] for at, token in enumerate(path)))
    return {text: math.log(total) for text, total in sums.items() if total}


@pytest.mark.numeric
@pytest.mark.parametrize("seed", range(5))
def test_an_unpruned_search_gives_every_text_its_probability(seed: int) -> None:
    logs = random_logs(seed)
    expected = brute_force(logs)
    found = dict(PrefixBeam(10_000).ranked(logs))
    assert found.keys() == expected.keys()
    assert all(found[text] == pytest.approx(expected[text], abs=1e-9) for text in expected)
    assert sum(map(math.exp, found.values())) == pytest.approx(1)
    assert PrefixBeam(10_000)(logs) == list(max(expected, key=expected.__getitem__))


def test_the_best_text_is_not_always_that_of_the_best_path() -> None:
    logs = np.log(np.array([[0.4, 0.6], [0.4, 0.6]]))  # the best path is two blanks, 0.36; "0" has 0.64
    assert BestPath()(logs) == []
    assert PrefixBeam(2)(logs) == [0]


def test_repetitions_count_once_unless_a_blank_is_between() -> None:
    assert collapsed([0, 0, 3, 0, 1, 1, 3, 3, 2], 3) == (0, 0, 1, 2)
    assert collapsed([], 3) == ()


def languages() -> dict[str, tuple[object, object]]:
    torch.manual_seed(1)
    model = LSTMLanguageModel(TOKENS, width=8, depth=1).eval()
    counted = KneserNey.fit(np.array([1, 2, EOS, 1, 1, EOS, 2, EOS, 1, 2, 1, EOS]), EOS, TOKENS, 3)

    def ours(text: tuple[int, ...]) -> np.ndarray:
        with torch.no_grad():
            return model(torch.tensor([[EOS, *text]]))[0][0, -1].double().log_softmax(-1).numpy()

    def counts(text: tuple[int, ...]) -> np.ndarray:
        return np.log(counted.distribution(text))

    return {"ours": (CachedLanguageModel(model, EOS), ours), "counted": (counts, counts)}


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["ours", "counted"])
def test_a_language_model_is_added_with_its_weight(name: str) -> None:
    fused, direct = languages()[name]
    search = PrefixBeam(10_000, weight=0.7, bonus=0.3).fused(fused, EOS)
    for seed in range(3):
        logs = random_logs(seed)
        logs[:, EOS] = -np.inf  # audio has no EOS
        logs = torch.from_numpy(logs).log_softmax(-1).numpy()
        expected = {}
        for text, value in brute_force(logs).items():
            words = [*text, EOS]
            spoken = sum(direct(text[:at])[token] for at, token in enumerate(words))
            expected[text] = value + 0.7 * spoken + 0.3 * len(text)
        found = dict(search.ranked(logs))
        assert all(found[text] == pytest.approx(expected[text], abs=1e-5) for text in expected)
        assert tuple(search(logs)) == max(expected, key=expected.__getitem__)


def test_a_narrow_search_is_not_better_than_a_wide_one() -> None:
    for seed in range(5):
        logs = random_logs(seed, 7, 3)  # 3,280 texts: a width of 4,000 keeps them all
        scores = [PrefixBeam(width).ranked(logs)[0][1] for width in (1, 4, 400)]
        exact = dict(PrefixBeam(4000).ranked(logs))
        texts = [tuple(PrefixBeam(width)(logs)) for width in (1, 4, 400)]
        assert all(score <= exact.get(text, score) + 1e-9 for text, score in zip(texts, scores, strict=True))
        assert exact[texts[2]] == max(exact.values())


def test_a_width_of_zero_raises_an_error() -> None:
    with pytest.raises(ValueError, match="width=0 must be at least 1"):
        PrefixBeam(0)


@pytest.mark.numeric
def test_a_language_model_is_called_on_its_device() -> None:
    calls = []

    def forward(tokens: torch.Tensor, state: None) -> tuple[torch.Tensor, None]:
        calls.append(tokens.device.type)
        return torch.zeros(1, 1, TOKENS), state

    assert CachedLanguageModel(forward, EOS, "meta")((1, 2)) == pytest.approx(np.full(TOKENS, -math.log(TOKENS)))
    assert calls == ["meta"] * 3


def test_texts_with_equal_scores_are_in_order() -> None:
    logs = np.log(np.full((1, 4), 0.25))
    assert [text for text, _ in PrefixBeam(4).ranked(logs)] == [(), (0,), (1,), (2,)]
    assert [text for text, _ in PrefixBeam(2).ranked(logs)] == [(), (0,)]
    assert BestPath()(np.log(np.array([[0.25, 0.25, 0.5], [0.4, 0.4, 0.2]]))) == [0]


def test_texts_with_equal_scores_after_their_endings_are_in_order() -> None:
    def language(text: tuple[int, ...]) -> np.ndarray:
        return np.array([math.log(0.5) if text else 0.0, 0.0])

    search = PrefixBeam(4, weight=1.0).fused(language, EOS)
    found = search.ranked(np.array([[-np.inf, math.log(0.5), math.log(0.25)]]))
    assert found == [((), math.log(0.25)), ((1,), math.log(0.25))]


def test_only_twice_as_many_tokens_as_the_width_are_tried() -> None:
    logs = np.log(np.array([[0.1, 0.2, 0.3, 0.25, 0.15]]))
    tried: list[int] = []

    class Tried(PrefixBeam):
        def _longer(self, after: object, text: object, token: int, language: float) -> object:
            tried.append(token)
            return super()._longer(after, text, token, language)  # type: ignore[arg-type]

    Tried(1).ranked(logs)
    assert tried == [2, 3]


def test_the_search_has_its_documented_defaults_and_keeps_them_when_fused() -> None:
    search = PrefixBeam()
    assert (search.width, search.weight, search.bonus, search.language, search.eos) == (8, 0.5, 0.0, None, None)
    fused = PrefixBeam(3, 0.25, 1.5).fused(languages()["ours"][0], EOS)
    assert (fused.width, fused.weight, fused.bonus, fused.eos) == (3, 0.25, 1.5, EOS)
    assert PrefixBeam(1).width == 1


@pytest.mark.numeric
def test_a_language_model_without_eos_adds_no_ending() -> None:
    search = PrefixBeam(4)
    search.language = lambda text: np.log(np.full(TOKENS, 1 / TOKENS))
    found = dict(search.ranked(random_logs(1, 1)))
    assert found[()] == pytest.approx(random_logs(1, 1)[0, TOKENS])
    assert found[(1,)] == pytest.approx(random_logs(1, 1)[0, 1] + 0.5 * math.log(1 / TOKENS))


def test_probabilities_of_a_language_model_are_computed_once() -> None:
    calls: list[list[int]] = []

    def forward(tokens: torch.Tensor, state: int | None) -> tuple[torch.Tensor, int]:
        calls.append([int(tokens[0, 0]), state or 0])
        return torch.arange(3.0).view(1, 1, 3), (state or 0) + 1

    reader = CachedLanguageModel(forward, EOS)
    for text in ((1, 2), (1,), (1, 2), (1, 1)):
        reader(text)
    assert calls == [[EOS, 0], [1, 1], [2, 2], [1, 2]]
    reader.cache = dict.fromkeys(((n,) for n in range(3, (1 << 16) + 3)), (np.zeros(3), 0))
    reader((1, 1))
    assert len(reader.cache) == (1 << 16) + 3
    reader((9, 9))  # the cache is full and is cleared
    assert set(reader.cache) == {(), (9,), (9, 9)}
