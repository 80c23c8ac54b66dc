"""Tokens become text as they come: only what no later token can change is given out.

A character may be spread over several byte tokens, and words are joined by spaces that no token holds: so the
new text is what the new tokens add when they are decoded together with the last few.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNFINISHED = "\ufffd"  # what the bytes of a character decode to while some are missing
WINDOW = 16  # tokens of the prompt that may bear on how the first new one is written


class TextStream:
    """Text of a row of tokens, piece by piece; EOS is written as a line break.

    Args:
        tokenizer: decodes the tokens.
        eos: EOS.
        prompt: what stands before the row; it is not written again.
    """

    def __init__(self, tokenizer: "Tokenizer", eos: int, prompt: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.eos = eos
        self._written: list[int] = []  # the last tokens that were given out
        self._pending: list[int] = []
        for token in prompt[-WINDOW:]:
            self._written = [] if token == eos else [*self._written, token]

    def push(self, token: int) -> str:
        """Add a token; the text that is certain now and was not given out before."""
        if token == self.eos:
            rest = self.finish()
            self._written = []
            return rest + "\n"
        self._pending.append(token)
        new = self._new_text()
        if new.endswith(UNFINISHED):
            return ""
        self._written, self._pending = self._pending, []
        return new

    def finish(self) -> str:
        """The text that was held back: no more tokens come."""
        new = self._new_text()
        self._written, self._pending = self._pending or self._written, []
        return new

    def _new_text(self) -> str:
        before = self._decode(self._written)
        return self._decode(self._written + self._pending)[len(before) :]

    def _decode(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=False)
        return text


def text_of(tokenizer: "Tokenizer", eos: int, tokens: Sequence[int], prompt: Sequence[int] = ()) -> str:
    """The text that `tokens` add to their prompt."""
    stream = TextStream(tokenizer, eos, prompt)
    return "".join(stream.push(token) for token in tokens) + stream.finish()


def written(tokenizer: "Tokenizer", tokens: Sequence[int]) -> list[str]:
    """Each token alone, as it is written."""
    return [tokenizer.decode([token], skip_special_tokens=False) for token in tokens]
