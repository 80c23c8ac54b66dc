"""What a transcriber says of every position becomes a text: its best path, or the best text over all of its paths.

Graves et al. (2006), "Connectionist Temporal Classification": a path has a token or a blank at each position; the text
is what remains when repetitions and then blanks are taken away. The probability of a text is the sum over its paths.
The search keeps, for each beginning of a text, the probability of its paths that end in a blank and of those that do
not (Hannun et al. 2014, "First-Pass Large Vocabulary Continuous Speech Recognition"). A language model joins in by

    score(text) = ln p(text | sound) + weight * ln p(text) + bonus * tokens

Legend: T positions, V tokens, C = V + 1 with the blank, which is the last.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float

Text: TypeAlias = tuple[int, ...]
Language: TypeAlias = Callable[[Text], np.ndarray]
"""A text so far -> the natural logarithm of each next token's probability (V,)."""
NEVER = -np.inf


class PrefixSearch(ABC):
    """A way from what is said of the positions to a text."""

    @abstractmethod
    def __call__(self, logs: Float[np.ndarray, "T C"]) -> list[int]:
        """The tokens of the text, given the logarithms of the probabilities."""


class BestPath(PrefixSearch):
    """The most probable token at each position; repetitions and blanks are taken away."""

    def __call__(self, logs: Float[np.ndarray, "T C"]) -> list[int]:
        return list(collapsed(logs.argmax(1).tolist(), logs.shape[1] - 1))


def collapsed(path: Sequence[int], blank: int) -> Text:
    """The text of a path."""
    changes = (token for at, token in enumerate(path) if at == 0 or token != path[at - 1])
    return tuple(token for token in changes if token != blank)


@dataclass
class Prefix:
    """A beginning of a text, with the logarithms of what its paths have together."""

    in_blank: float = NEVER
    in_token: float = NEVER
    language: float = 0.0
    """What the language model and the bonus add."""

    @property
    def paths(self) -> float:
        """All paths."""
        return float(np.logaddexp(self.in_blank, self.in_token))

    @property
    def score(self) -> float:
        """What hypotheses are ranked by."""
        return self.paths + self.language


class PrefixBeam(PrefixSearch):
    """The best text over all of its paths, of those whose beginnings were always among the best.

    Args:
        width: hypotheses that are kept.
        weight: of the language model.
        bonus: for each token; it makes up for what the language model takes away from longer texts.

    Raises:
        ValueError: a width below 1.
    """

    def __init__(self, width: int = 8, weight: float = 0.5, bonus: float = 0.0) -> None:
        if width < 1:
            raise ValueError(f"width={width} must be at least 1")
        self.width, self.weight, self.bonus = width, weight, bonus
        self.language: Language | None = None
        self.eos: int | None = None

    def fused(self, language: Language, eos: int) -> "PrefixBeam":
        """The same search with a language model, whose texts end in `eos`."""
        joint = PrefixBeam(self.width, self.weight, self.bonus)
        joint.language, joint.eos = language, eos
        return joint

    def __call__(self, logs: Float[np.ndarray, "T C"]) -> list[int]:
        return list(self.ranked(logs)[0][0])

    def ranked(self, logs: Float[np.ndarray, "T C"]) -> list[tuple[Text, float]]:
        """The texts that are left, best first, with their scores."""
        beam: dict[Text, Prefix] = {(): Prefix(in_blank=0.0)}
        for position in logs.astype(np.float64):
            beam = self._advance(beam, position)
        found = {text: hypothesis.score + self._ending(text) for text, hypothesis in beam.items()}
        return sorted(found.items(), key=lambda each: (-each[1], each[0]))

    def _advance(self, beam: dict[Text, Prefix], logs: np.ndarray) -> dict[Text, Prefix]:
        """The best hypotheses after one more position."""
        blank = len(logs) - 1
        after: dict[Text, Prefix] = {}
        tokens = [int(token) for token in np.argsort(-logs[:-1], kind="stable")[: 2 * self.width]]
        for text, before in beam.items():
            same = after.setdefault(text, Prefix(language=before.language))
            same.in_blank = float(np.logaddexp(same.in_blank, before.paths + logs[blank]))
            if text:
                same.in_token = float(np.logaddexp(same.in_token, before.in_token + logs[text[-1]]))
            for token in tokens:
                # a token said again goes on, unless there was a blank between
                begun = before.in_blank if text and text[-1] == token else before.paths
                if (added := begun + logs[token]) > NEVER:
                    longer = self._longer(after, text, token, before.language)
                    longer.in_token = float(np.logaddexp(longer.in_token, added))
        best = sorted(after, key=lambda text: (-after[text].score, text))[: self.width]
        return {text: after[text] for text in best}

    def _longer(self, after: dict[Text, Prefix], text: Text, token: int, language: float) -> Prefix:
        whole = (*text, token)
        if whole not in after:
            said = 0.0 if self.language is None else self.weight * float(self.language(text)[token])
            after[whole] = Prefix(language=language + said + self.bonus)
        return after[whole]

    def _ending(self, text: Text) -> float:
        """What the language model says of a text that ends here."""
        if self.language is None or self.eos is None:
            return 0.0
        return self.weight * float(self.language(text)[self.eos])


class Read:
    """A language model of ours as a `Language`: what it carries after each text is kept, so each is one step.

    Args:
        forward: maps tokens (1, T) and a state to logits (1, T, V) and a state.
        eos: EOS, which opens a text.
        device: where it computes.
    """

    def __init__(self, forward: Callable[[Any, Any], Any], eos: int, device: torch.device | str = "cpu") -> None:
        self.forward, self.eos, self.device = forward, eos, device
        self.known: dict[Text, tuple[np.ndarray, Any]] = {}

    def __call__(self, text: Text) -> np.ndarray:
        return self._after(text)[0]

    @torch.no_grad()
    def _after(self, text: Text) -> tuple[np.ndarray, Any]:
        if text not in self.known:
            if len(self.known) > 1 << 16:
                self.known.clear()
            state = self._after(text[:-1])[1] if text else None
            token = torch.tensor([[text[-1] if text else self.eos]], device=self.device)
            logits, state = self.forward(token, state)
            self.known[text] = logits[0, -1].double().log_softmax(-1).cpu().numpy(), state
        return self.known[text]
