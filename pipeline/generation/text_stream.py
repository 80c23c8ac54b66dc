"""Incremental decoding of tokens to text that later tokens cannot change.

A character can span several byte tokens, and spaces between words may belong to no token. New tokens are therefore
decoded together with the last few, and the difference is the new text.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNFINISHED = "\ufffd"  # replacement character for the bytes of an incomplete character
WINDOW = 16  # last tokens of the prompt that are decoded together with the first new one


class TextStream:
    """Incremental text of a sequence of tokens; EOS is decoded as a line break.

    Args:
        tokenizer: decodes the tokens.
        eos: the EOS token.
        prompt: tokens before the sequence, which are not part of the text.
    """

    def __init__(self, tokenizer: "Tokenizer", eos: int, prompt: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.eos = eos
        self._written: list[int] = []  # the last tokens whose text was returned
        self._pending: list[int] = []
        for token in prompt[-WINDOW:]:
            self._written = [] if token == eos else [*self._written, token]

    def push(self, token: int) -> str:
        """Add a token and return the text that is now final."""
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
        """Return the pending text after the last token."""
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
    """Return the text that `tokens` add to their prompt."""
    stream = TextStream(tokenizer, eos, prompt)
    return "".join(stream.push(token) for token in tokens) + stream.finish()


def written(tokenizer: "Tokenizer", tokens: Sequence[int]) -> list[str]:
    """Return the text of each token alone."""
    return [tokenizer.decode([token], skip_special_tokens=False) for token in tokens]
