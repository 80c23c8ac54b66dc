"""Plain words: lower case and no punctuation, as captions are compared."""

import re

WORD = re.compile(r"\w+(?:['-]\w+)*")


def plain_words(text: str) -> list[str]:
    """The words of a text: letters and digits, with apostrophes and hyphens inside a word."""
    return WORD.findall(text.lower())
