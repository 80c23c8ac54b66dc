"""Prompts of different lengths share a batch without padding.

As many tokens as the shortest has are read in parallel, then each longer prompt is fed its own tokens while the
shorter ones are already being continued.

Legend: B rows, T positions, S positions that all prompts have, V tokens of the vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from pipeline.state import State, map_state

Device: TypeAlias = torch.device | str
Forward: TypeAlias = Callable[[Tensor, State], tuple[Tensor, State]]
"""(tokens (B, T), state or None) -> (logits (B, T, V), state): a LanguageModel in eval mode is one."""

CHUNK = 256  # prompt positions read in one call: bounds the memory that logits of a long prompt take


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
                raise ValueError(f"prompt {row} is empty: let it be EOS, with which a corpus opens")
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


def read_prompt(
    forward: Forward, tokens: Int64[Tensor, "B T"], state: State = None
) -> tuple[Float[Tensor, "B V"], State]:
    """Read from a state on, by default from the beginning; the logits are those after the last token."""
    for piece in torch.split(tokens, CHUNK, dim=1):
        logits, state = forward(piece, state)
    return logits[:, -1], state


def step(forward: Forward, tokens: Int64[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B V"], State]:
    """Read one more token a row."""
    logits, state = forward(tokens[:, None], state)
    return logits[:, -1], state
