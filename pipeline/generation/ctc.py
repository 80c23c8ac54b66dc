"""CTC decoding: the best path, or prefix beam search with an optional language model.

Graves et al. (2006), "Connectionist Temporal Classification": a path has a token or a blank at each position. Its text
results from removing repetitions and then blanks, and the probability of a text is the sum over its paths. For each
prefix, the search keeps the probability of its paths that end in a blank and of those that do not (Hannun et al. 2014,
"First-Pass Large Vocabulary Continuous Speech Recognition"). With a language model, texts are ranked by

    score(text) = ln p(text | audio) + weight * ln p(text) + bonus * tokens

Legend: T positions, V tokens, C = V + 1 with the blank, which is the last.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float

from pipeline.generation.prompts import Forward
from pipeline.state import State

Text: TypeAlias = tuple[int, ...]
Language: TypeAlias = Callable[[Text], np.ndarray]
"""Maps a prefix to the natural log probability of each next token (V,)."""
NEVER = -np.inf


class PrefixSearch(ABC):
    """A decoding method from the probabilities at all positions to a text."""

    @abstractmethod
    def __call__(self, logs: Float[np.ndarray, "T C"]) -> list[int]:
        """Return the tokens of the text from the log probabilities."""


class BestPath(PrefixSearch):
    """Decoding by the most probable token at each position, without repetitions and blanks."""

    def __call__(self, logs: Float[np.ndarray, "T C"]) -> list[int]:
        return list(collapsed(logs.argmax(1).tolist(), logs.shape[1] - 1))


def collapsed(path: Sequence[int], blank: int) -> Text:
    """Return the text of a path."""
    changes = (token for at, token in enumerate(path) if at == 0 or token != path[at - 1])
    return tuple(token for token in changes if token != blank)


@dataclass
class Prefix:
    """Total log probabilities of the paths of a prefix."""

    in_blank: float = NEVER
    in_token: float = NEVER
    language: float = 0.0
    """Contribution of the language model and the bonus."""

    @property
    def paths(self) -> float:
        """Log probability of all paths."""
        return float(np.logaddexp(self.in_blank, self.in_token))

    @property
    def score(self) -> float:
        """The score by which prefixes are ranked."""
        return self.paths + self.language


class PrefixBeam(PrefixSearch):
    """Prefix beam search for the text with the highest total probability of its paths.

    Args:
        width: number of prefixes that are kept.
        weight: weight of the language model.
        bonus: score per token, which offsets the language model's preference for short texts.

    Raises:
        ValueError: the width is below 1.
    """

    def __init__(self, width: int = 8, weight: float = 0.5, bonus: float = 0.0) -> None:
        if width < 1:
            raise ValueError(f"width={width} must be at least 1")
        self.width, self.weight, self.bonus = width, weight, bonus
        self.language: Language | None = None
        self.eos: int | None = None

    def fused(self, language: Language, eos: int) -> "PrefixBeam":
        """Return this search with a language model, whose texts end in `eos`."""
        joint = PrefixBeam(self.width, self.weight, self.bonus)
        joint.language, joint.eos = language, eos
        return joint

    def __call__(self, logs: Float[np.ndarray, "T C"]) -> list[int]:
        return list(self.ranked(logs)[0][0])

    def ranked(self, logs: Float[np.ndarray, "T C"]) -> list[tuple[Text, float]]:
        """Return the remaining texts with their scores, the best first."""
        beam: dict[Text, Prefix] = {(): Prefix(in_blank=0.0)}
        for position in logs.astype(np.float64):
            beam = self._advance(beam, position)
        found = {text: hypothesis.score + self._ending(text) for text, hypothesis in beam.items()}
        return sorted(found.items(), key=lambda each: (-each[1], each[0]))

    def _advance(self, beam: dict[Text, Prefix], logs: np.ndarray) -> dict[Text, Prefix]:
        """Return the best prefixes after one more position."""
        blank = len(logs) - 1
        after: dict[Text, Prefix] = {}
        tokens = [int(token) for token in np.argsort(-logs[:-1], kind="stable")[: 2 * self.width]]
        for text, before in beam.items():
            same = after.setdefault(text, Prefix(language=before.language))
            same.in_blank = float(np.logaddexp(same.in_blank, before.paths + logs[blank]))
            if text:
                same.in_token = float(np.logaddexp(same.in_token, before.in_token + logs[text[-1]]))
            for token in tokens:
                # A repeated token extends the prefix only after a blank.
                begun = before.in_blank if text and text[-1] == token else before.paths
                if (added := begun + logs[token]) > NEVER:
                    longer = self._longer(after, text, token, before.language)
                    longer.in_token = float(np.logaddexp(longer.in_token, added))
        best = sorted(after, key=lambda text: (-after[text].score, text))[: self.width]
        return {text: after[text] for text in best}

    def _longer(self, after: dict[Text, Prefix], text: Text, token: int, language: float) -> Prefix:
        whole = (*text, token)
        if whole not in after:
            gain = 0.0 if self.language is None else self.weight * float(self.language(text)[token])
            after[whole] = Prefix(language=language + gain + self.bonus)
        return after[whole]

    def _ending(self, text: Text) -> float:
        """Return the weighted log probability of the language model that the text ends here."""
        if self.language is None or self.eos is None:
            return 0.0
        return self.weight * float(self.language(text)[self.eos])


class CachedLanguageModel:
    """A language model of this package as a `Language`; states are cached, so each new prefix costs one step.

    Args:
        forward: maps tokens (1, T) and a state to logits (1, T, V) and a state.
        eos: the EOS token, which starts a text.
        device: device of the model.
    """

    def __init__(self, forward: Forward, eos: int, device: torch.device | str = "cpu") -> None:
        self.forward, self.eos, self.device = forward, eos, device
        self.cache: dict[Text, tuple[np.ndarray, State]] = {}

    def __call__(self, text: Text) -> np.ndarray:
        return self._after(text)[0]

    @torch.no_grad()
    def _after(self, text: Text) -> tuple[np.ndarray, State]:
        if text not in self.cache:
            if len(self.cache) > 1 << 16:
                self.cache.clear()
            state = self._after(text[:-1])[1] if text else None
            token = torch.tensor([[text[-1] if text else self.eos]], device=self.device)
            logits, state = self.forward(token, state)
            self.cache[text] = logits[0, -1].double().log_softmax(-1).cpu().numpy(), state
        return self.cache[text]
