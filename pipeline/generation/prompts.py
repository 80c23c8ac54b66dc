"""Batches of prompts of different lengths without padding.

The positions that all prompts have are processed in parallel. Then longer prompts are processed token by token, while
shorter ones are already continued.

Legend: B rows, T positions, S positions shared by all prompts, V tokens of the vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from pipeline.state import State, map_state

Device: TypeAlias = torch.device | str
Forward: TypeAlias = Callable[[Tensor, State], tuple[Tensor, State]]
"""Maps tokens (B, T) and a state or None to logits (B, T, V) and a state, as a LanguageModel in eval mode does."""

CHUNK = 256  # prompt positions per call, which bounds the memory of the logits of a long prompt


class Prompts(NamedTuple):
    """Prompts of different lengths as one matrix, padded with zeros that are never read."""

    tokens: Int64[Tensor, "B T"]
    lengths: Int64[Tensor, " B"]
    longest: int
    shared: Int64[Tensor, "B S"]
    """The tokens at the positions that every prompt has."""

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], device: Device) -> "Prompts":
        """Build the matrix; raise ValueError without prompts or for an empty prompt."""
        if len(prompts) == 0:
            raise ValueError("prompts is empty: expected at least one prompt")
        for row, prompt in enumerate(prompts):
            if len(prompt) == 0:
                raise ValueError(f"prompt {row} is empty: expected at least one token. Use EOS to start a text")
        lengths = [len(prompt) for prompt in prompts]
        rows = [[*prompt, *[0] * (max(lengths) - len(prompt))] for prompt in prompts]
        tokens = torch.tensor(rows, dtype=torch.long, device=device)
        return cls(tokens, torch.tensor(lengths, device=device), max(lengths), tokens[:, : min(lengths)])

    def ended(self, position: int) -> Bool[Tensor, " B"]:
        """Return True for the rows whose prompt has no token at this position."""
        return self.lengths <= position

    def token(self, position: int) -> Int64[Tensor, " B"]:
        """Return each row's prompt token at this position; undefined after the end of a prompt."""
        return self.tokens[:, min(position, self.longest - 1)]


def repeat(state: State, rows: int, times: int) -> State:
    """Return a state with each row repeated `times` times in succession."""
    if state is None or times == 1:
        return state
    return map_state(lambda leaf: leaf.repeat_interleave(times, 0, output_size=rows * times), state)


def read_prompt(
    forward: Forward, tokens: Int64[Tensor, "B T"], state: State = None
) -> tuple[Float[Tensor, "B V"], State]:
    """Process a prompt from a state; return the logits after the last token, and the next state."""
    for piece in torch.split(tokens, CHUNK, dim=1):
        logits, state = forward(piece, state)
    return logits[:, -1], state


def step(forward: Forward, tokens: Int64[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B V"], State]:
    """Process one token per row; return the logits after it, and the next state."""
    logits, state = forward(tokens[:, None], state)
    return logits[:, -1], state
