"""Pairs of texts, and how the text of a source becomes one.

Legend: a unit is kept or dropped as a whole; it is a pair, or a conversation with all its pairs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from data_prep.sources.characters import oddity
from data_prep.workspace.report import Report
from pipeline.dataset.codecs.encoding import NUL
from pipeline.errors import ConfigError, DataError

FIELDS = ("source", "target")  # default names of the columns


class Pair(NamedTuple):
    """A source text and its target text."""

    source: str
    target: str


class Unit(NamedTuple):
    """Pairs that are kept or dropped together."""

    name: str
    """File and line, or record."""
    source: str
    """Text that decides the split: the source of a pair, or the whole conversation."""
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Layout:
    """The form of the pairs in the sources.

    Args:
        delimiter: text between the columns of a line; None is a tab, and lets files of records be read as such.
        fields: names or numbers of the columns, or names of the fields, of source and target.
        mark: text at the end of each turn of a conversation, None for pairs; it also separates the turns of a source.
        history: maximum number of turns in a source.
        pronunciations: whether each line is a word of a pronouncing dictionary with its sounds.
        lowercase: convert all texts to lower case.
    """

    delimiter: str | None = None
    fields: tuple[str, str] = FIELDS
    mark: str | None = None
    history: int = 1
    pronunciations: bool = False
    lowercase: bool = False

    def __post_init__(self) -> None:
        numbers = [field.isdecimal() for field in self.fields]
        if any(numbers) and not (all(numbers) and all(map(int, self.fields))):
            given = " ".join(f"--{side}-field={field}" for side, field in zip(FIELDS, self.fields, strict=True))
            raise ConfigError(f"{given}: expected two names, or two numbers of columns from 1. Change one of them")

    @property
    def numbered(self) -> bool:
        """Whether the columns are given by their numbers, in files without a header."""
        return self.fields[0].isdecimal()

    def columns(self, file: Path, first: Sequence[str]) -> tuple[int, int] | None:
        """Return the positions of source and target by the first line of a file, None if it is not a header.

        Raises:
            DataError: a column does not exist.
        """
        if set(self.fields) <= set(first):
            return first.index(self.fields[0]), first.index(self.fields[1])
        if self.numbered or (self.fields == FIELDS and not set(FIELDS) <= {each.strip().lower() for each in first}):
            return None
        side, field = next(each for each in zip(FIELDS, self.fields, strict=True) if each[1] not in first)
        raise DataError(
            f"--{side}-field={field}: expected a column of {file} ({', '.join(first)}), or its number. Choose one"
        )

    def pair(self, name: str, source: str, target: str, report: Report) -> Iterator[Unit]:
        """Yield the pair as a unit, or count it in the report if it is invalid."""
        texts = Pair(self._text(source), self._text(target))
        if not all(texts):
            sides = [f"empty {side}" for side, text in zip(FIELDS, texts, strict=True) if not text]
            report.reject(name, sides[0] if len(sides) == 1 else "both sides empty")
        elif _readable(name, texts, report):
            yield Unit(name, texts.source, (texts,))

    def conversation(self, name: str, turns: Sequence[str], report: Report) -> Iterator[Unit]:
        """Yield a conversation, in which each turn but the first is the reply to those before it."""
        turns = [text for turn in turns if (text := self._text(turn))]
        if len(turns) < 2:
            report.reject(name, f"fewer than two turns separated by {self.mark!r}")
        elif _readable(name, turns, report):
            sources = [f" {self.mark} ".join(turns[max(0, at - self.history) : at]) for at in range(1, len(turns))]
            yield Unit(name, f" {self.mark} ".join(turns), tuple(map(Pair, sources, turns[1:])))

    def _text(self, written: str) -> str:
        text = written.strip().lower() if self.lowercase else written.strip()
        return text if text.isascii() else normalize("NFC", text)


def _readable(name: str, texts: Sequence[str], report: Report) -> bool:
    """Count the texts in the report; return whether they are valid."""
    if not (every := "".join(texts)).isascii() or not every.isprintable():
        if "\0" in every:
            report.reject(name, NUL)
            return False
        if unusual := next(filter(None, map(oddity, texts)), None):
            report.note(name, unusual)
    report.documents += 1
    return True
