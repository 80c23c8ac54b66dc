"""The confusion matrix after each validation, drawn with a row per true class and darker cells for more frequent."""

from collections.abc import Sequence
from html import escape
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from pipeline.distributed.lightning_internals import datamodule

CELL, TEXT = 36, "font-family='sans-serif' font-size='12' text-anchor='middle'"


class Confusions(Callback):
    """Logs a drawing of a classifier's confusion matrix."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.state.fn != "fit":
            return
        drawing = matrix(datamodule(trainer).labels, pl_module.counts.tolist())
        for logger in trainer.loggers:
            if hasattr(logger, "log_drawing"):
                logger.log_drawing("confusion", drawing, trainer.global_step)


def matrix(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Return the counts as SVG; the colour of a cell is its fraction of the row."""
    left = CELL + 8 * max(map(len, labels))
    parts = [_text(left + CELL * at + CELL / 2, CELL / 2, name) for at, name in enumerate(labels)]
    for row, (name, found) in enumerate(zip(labels, counts, strict=True)):
        top = CELL * (row + 1)
        parts.append(_text(left / 2, top + CELL / 2, name))
        for column, count in enumerate(found):
            share = count / max(sum(found), 1)
            grey = round(255 * (1 - share))
            place = f"x='{left + CELL * column}' y='{top}' width='{CELL}' height='{CELL}'"
            parts.append(f"<rect {place} fill='rgb({grey},{grey},255)'/>")
            parts.append(_text(left + CELL * column + CELL / 2, top + CELL / 2, str(count)))
    size = f"width='{left + CELL * len(labels)}' height='{CELL * (len(labels) + 1)}'"
    return f"<svg xmlns='http://www.w3.org/2000/svg' {size}>{''.join(parts)}</svg>\n"


def _text(x: float, y: float, text: str) -> str:
    return f"<text x='{x:g}' y='{y + 4:g}' {TEXT}>{escape(text)}</text>"
