"""Normalization of text to lower-case words without punctuation, for the comparison of captions."""

import re

WORD = re.compile(r"\w+(?:['-]\w+)*")


def plain_words(text: str) -> list[str]:
    """Return the lower-case words of a text: letters and digits, with apostrophes and hyphens inside a word."""
    return WORD.findall(text.lower())
