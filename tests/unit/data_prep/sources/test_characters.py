"""Characters that a damaged text contains are named, and those of healthy texts are not."""

import pytest

from data_prep.sources.characters import oddity


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("caf\ufffd", "the replacement character U+FFFD"),
        ("zero\u200bwidth", "a zero-width character"),
        ("inside\ufeffthe text", "a zero-width character"),
        ("bullet \uf0b7", "a private-use character"),
        ("CafÃ©", "UTF-8 that was read as Latin-1"),
        ("it isnâ€™t", "UTF-8 that was read as Latin-1"),
        ("20 Â°C", "UTF-8 that was read as Latin-1"),
        ("one\rtwo", "a carriage return inside a line"),
        ("über\rtwo", "a carriage return inside a line"),
        ("bell\x07", "a control character"),
        ("ü\x1b[0m", "a control character"),
    ],
)
def test_a_damaged_text_is_named(text: str, reason: str) -> None:
    assert str(oddity(text)).startswith(f"contains {reason}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain\ttext\r\nwith\nlines\f\x1c",
        "Käfig",
        "NÃO",
        "Â, Ã, â",
        "，これは日本語",
        "نمی\u200cخواهم",
        "👩\u200d👧",
        "a\u2028b",
    ],
)
def test_a_healthy_text_is_not(text: str) -> None:
    assert oddity(text) is None
