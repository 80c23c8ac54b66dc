"""Normalization of texts for their comparison: equal samples, and captions as lower-case words without punctuation."""

import re
import unicodedata

WORD = re.compile(r"\w+(?:['-]\w+)*")


def identity(text: str) -> str:
    """Return the text by which equal samples are found: composed characters (NFC), and one space between words."""
    if text.isascii():
        if text.isprintable() and "  " not in text:  # Most texts are such; a space is their only white space.
            return text.strip()
        return " ".join(text.split())
    return " ".join(unicodedata.normalize("NFC", text).split())


def plain_words(text: str) -> list[str]:
    """Return the lower-case words of a text: letters and digits, with apostrophes and hyphens inside a word."""
    return WORD.findall(text.lower())
