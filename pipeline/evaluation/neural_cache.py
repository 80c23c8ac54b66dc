"""A neural cache: recent words become more probable where the model was in a similar state before.

Grave, Joulin and Usunier (2017), "Improving Neural Language Models with a Continuous Cache", arXiv:1612.04426. With h_i
the features that predict word x_{i+1}, over the last N positions i before t:
    p_cache(w) ~ sum of exp(theta h_t . h_i) over i with x_{i+1} = w,
    p(w) = (1 - lambda) p_model(w) + lambda p_cache(w)

Legend: B sequences, T positions, P positions of the past, S = P + T positions, D features, V tokens of the vocabulary.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from pipeline.errors import ConfigError

FORM = "WINDOW,LAMBDA,THETA, such as 500,0.1,1.0"


class CachedPositions(NamedTuple):
    """The latest positions of each sequence."""

    features: Float[Tensor, "B P D"]
    tokens: Int64[Tensor, "B P"]
    """The token after each position; negative if it is not known."""


@dataclass(frozen=True)
class NeuralCache:
    """The settings of a neural cache.

    Args:
        window: positions in the cache; N in the paper.
        share: weight of the cache in the mixture; lambda in the paper.
        sharpness: factor of the similarity of features; theta in the paper.

    Raises:
        ConfigError: the window is below 1, the share outside [0, 1), or the sharpness negative.
    """

    window: int
    share: float
    sharpness: float

    def __post_init__(self) -> None:
        if self.window < 1 or not 0 <= self.share < 1 or self.sharpness < 0:
            raise ConfigError(
                f"--cache={self}: expected a window of at least 1, a lambda in [0, 1) and a theta of at least 0"
            )

    def __str__(self) -> str:
        return f"{self.window},{self.share},{self.sharpness}"

    @classmethod
    def parse(cls, text: str) -> "NeuralCache":
        """Read the settings from an option.

        Raises:
            ConfigError: the text does not have three numbers, or a number is out of range.
        """
        try:
            window, share, sharpness = text.split(",")
            return cls(int(window), float(share), float(sharpness))
        except ValueError as error:
            raise ConfigError(f"--cache={text}: expected {FORM}") from error

    def losses(
        self,
        features: Float[Tensor, "B T D"],
        logits: Float[Tensor, "B T V"],
        targets: Int64[Tensor, "B T"],
        past: CachedPositions | None,
    ) -> tuple[Float[Tensor, "B T"], CachedPositions]:
        """Return the loss in nats at each position, zero without a target, and the positions for the next call.

        Args:
            features: the inputs of the output layer.
            logits: its outputs.
            targets: the next tokens; negative without a target.
            past: the positions that an earlier call returned; None at the beginning.
        """
        features, known = features.float(), targets >= 0
        if past is None:
            past = CachedPositions(features[:, :0], targets[:, :0])
        keys, tokens = torch.cat([past.features, features], 1), torch.cat([past.tokens, targets], 1)
        here = torch.arange(past.tokens.shape[1], tokens.shape[1], device=tokens.device)[:, None]
        there = torch.arange(tokens.shape[1], device=tokens.device)
        within = (there < here) & (there >= here - self.window) & (tokens >= 0)[:, None]  # (B, T, S)
        scores = (self.sharpness * features @ keys.mT).masked_fill(~within, -torch.inf)
        weights = scores.softmax(-1).nan_to_num(0.0)  # an empty cache has no distribution
        cached = (weights * (tokens[:, None] == targets[..., None])).sum(-1)
        share = self.share * within.any(-1)
        probable = logits.float().softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        nats = -((1 - share) * probable + share * cached).log()
        after = CachedPositions(keys[:, -self.window :], tokens[:, -self.window :])
        return nats.masked_fill(~known, 0.0), after
