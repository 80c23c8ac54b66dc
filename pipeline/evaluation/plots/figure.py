"""Figures of matplotlib without pyplot, which have no shared state; matplotlib is imported on first use."""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:  # it takes half a second to import
    from matplotlib.figure import Figure

DPI = 100  # pixels per inch


def blank(width: float, height: float, layout: str | None = "constrained") -> "Figure":
    """Return an empty figure.

    Args:
        width: inches.
        height: inches.
        layout: "constrained" makes room for labels; None keeps axes at their positions.
    """
    from matplotlib.figure import Figure

    return Figure((width, height), layout=layout)  # type: ignore[arg-type]


def save(figure: "Figure", file: Path | io.BytesIO) -> None:
    """Write a figure with all its labels, in the format of the file's suffix, such as PNG or SVG.

    Raises:
        OSError: the file cannot be written.
        ValueError: the format is unknown, or the figure has too many pixels for it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # A character that the font lacks is drawn as a box.
        figure.savefig(file, dpi=DPI, bbox_inches="tight")


def rendered(figure: "Figure") -> Image.Image:
    """Return the pixels of a figure."""
    file = io.BytesIO()
    save(figure, file)
    return Image.open(file).convert("RGB")


def legible(word: str) -> str:
    """Return a word with its blanks and its control characters made visible."""
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in word)
    return shown if shown.strip() else "␣" * len(shown)
