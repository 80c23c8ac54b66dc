"""Frame-by-frame generation of polyphonic music through the carried state.

The keys of a frame are independent given the frames before: each is drawn from its own Bernoulli distribution.

Legend: T frames of the prompt, N new frames, K keys.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from pipeline.state import State


@dataclass(frozen=True)
class DrawKeys:
    """How the keys of a frame are chosen.

    Args:
        temperature: divides the logits; 0 takes the keys whose probability is above one half.

    Raises:
        ValueError: the temperature is negative or not finite.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature} must be a finite number of at least 0")

    def __call__(self, logits: Float[Tensor, "*B K"], uniform: Float64[Tensor, "*B K"]) -> Bool[Tensor, "*B K"]:
        """Return the keys that sound; `uniform` is a number in [0, 1) per key."""
        if not self.temperature:
            return logits > 0
        return uniform < (logits.double() / self.temperature).sigmoid()


@torch.no_grad()
def continue_frames(
    forward: Callable[[Tensor, State], tuple[Tensor, State]],
    given: Bool[np.ndarray, "T K"],
    count: int,
    draw: DrawKeys,
    seed: int,
    device: torch.device | str = "cpu",
) -> Bool[np.ndarray, "N K"]:
    """Return frames that follow the given ones.

    Args:
        forward: maps frames (1, T, K) and a state to the logits of the next frames and the next state.
        given: the frames before, at least one.
        count: N.
        draw: how the keys are chosen.
        seed: random seed; a frame does not depend on the number of frames after it.
        device: device of the model.

    Raises:
        ValueError: no frames are given, or logits are not finite.
    """
    if not len(given):
        raise ValueError("expected at least one frame to continue, got none")
    chance = torch.Generator().manual_seed(seed)
    logits, state = forward(torch.from_numpy(np.ascontiguousarray(given)).to(device)[None], None)
    frames = []
    for _ in range(count):
        if not bool(logits[0, -1].isfinite().all()):
            raise ValueError("the logits are not finite")
        uniform = torch.rand(given.shape[1], generator=chance, dtype=torch.float64).to(device)
        frames.append(draw(logits[0, -1], uniform))
        logits, state = forward(frames[-1][None, None], state)
    found: Bool[np.ndarray, "N K"] = torch.stack(frames).cpu().numpy() if frames else given[:0]
    return found
