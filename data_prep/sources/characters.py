"""Characters that show that a text was damaged, or converted from another encoding by mistake."""

import re

CONTROLS = bytes({*range(1, 9), *range(14, 28), 127})
_RETURN = re.compile("\r[^\n]")
_CANDIDATE = re.compile("[\x01-\x08\x0e-\x1b\x7f\r\ufffd\ue000-\uf8ff\u200b\u2060\ufeffÃÂâ]")  # one class is fast
_KINDS = {
    "contains the replacement character U+FFFD of an earlier conversion": re.compile("\ufffd"),
    "contains UTF-8 that was read as Latin-1 or Windows-1252, such as Ã© for é": re.compile("[ÃÂ][\u0080-\u00bf]|â€"),
    "contains a private-use character, which only some fonts display": re.compile("[\ue000-\uf8ff]"),
    "contains a zero-width character": re.compile("[\u200b\u2060\ufeff]"),
    "contains a carriage return inside a line": _RETURN,
    "contains a control character": re.compile("[\x01-\x08\x0e-\x1b\x7f]"),
}


def oddity(text: str) -> str | None:
    """Return what is unusual about the characters of a text, None if nothing is."""
    if text.isascii():
        if text.isprintable():
            return None
        data = text.encode()  # Deleting bytes is several times faster than the search for a class of characters.
        if len(data.translate(None, CONTROLS)) == len(data) and not ("\r" in text and _RETURN.search(text)):
            return None
    elif not _CANDIDATE.search(text):
        return None
    return next((reason for reason, kind in _KINDS.items() if kind.search(text)), None)
