"""Prompts of different lengths become one matrix, and states have one row per continuation."""

import pytest
import torch

from pipeline.generation.prompts import Prompts, read_prompt, repeat, step


def test_prompts_are_padded_and_share_their_first_positions() -> None:
    prompts = Prompts.of([[5, 6, 7], [8], [9, 4]], "cpu")
    assert prompts.tokens.tolist() == [[5, 6, 7], [8, 0, 0], [9, 4, 0]]
    assert (prompts.lengths.tolist(), prompts.longest, prompts.shared.tolist()) == ([3, 1, 2], 3, [[5], [8], [9]])
    assert prompts.tokens.dtype == prompts.lengths.dtype == torch.int64
    assert [prompts.ended(position).tolist() for position in range(4)] == [
        [False, False, False],
        [False, True, False],
        [False, True, True],
        [True, True, True],
    ]
    assert [prompts.token(position).tolist()[0] for position in range(5)] == [5, 6, 7, 7, 7]


@pytest.mark.parametrize(("prompts", "message"), [([], "prompts is empty"), ([[1], []], "prompt 1 is empty")])
def test_empty_prompts_raise_an_error(prompts: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prompts.of(prompts, "cpu")


def test_each_row_of_a_state_is_repeated_in_place() -> None:
    state = {"a": torch.tensor([[1, 2], [3, 4]]), "b": (torch.tensor([5, 6]),)}
    found = repeat(state, 2, 3)
    assert found["a"].tolist() == [[1, 2]] * 3 + [[3, 4]] * 3
    assert found["b"][0].tolist() == [5, 5, 5, 6, 6, 6]
    assert repeat(state, 2, 2)["b"][0].tolist() == [5, 5, 6, 6]
    assert repeat(state, 2, 1) is state
    assert repeat(None, 2, 3) is None


def test_a_long_prompt_is_processed_in_chunks_and_the_last_logits_are_returned() -> None:
    widths: list[int] = []

    def forward(tokens: torch.Tensor, state: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        widths.append(tokens.shape[1])
        sums = tokens.cumsum(1) + (0 if state is None else state[:, None])
        return torch.stack([sums, tokens], 2).float(), sums[:, -1]

    tokens = torch.arange(1200).view(2, 600)
    logits, state = read_prompt(forward, tokens)
    assert widths == [256, 256, 88]
    assert state.tolist() == tokens.sum(1).tolist()
    assert logits.tolist() == [[tokens[0].sum(), 599], [tokens[1].sum(), 1199]]
    again, _ = read_prompt(forward, tokens, torch.tensor([1000, 2000]))
    assert (again - logits).tolist() == [[1000, 0], [2000, 0]]
    logits, state = step(forward, torch.tensor([3, 4]), torch.tensor([10, 20]))
    assert (logits.tolist(), state.tolist()) == ([[13, 3], [24, 4]], [13, 24])
