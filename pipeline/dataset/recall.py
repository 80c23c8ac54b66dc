"""Synthetic memory tasks: the answer depends on distant inputs, so memory can be compared with chance level.

copy: Hochreiter and Schmidhuber (1997) in the form of Arjovsky, Shah and Bengio (2016): values, many blanks, then the
    values again.
selective copy: Gu and Dao (2023), "Mamba", section 3.1: the values are at random positions among the blanks.
association: Graves, Wayne and Danihelka (2014) in the form of Ba et al. (2016): key-value pairs, then one of the keys.
adding: Hochreiter and Schmidhuber (1997): numbers of which two are marked, then the sum of these two.

Default sizes are those of Bai, Kolter and Koltun (2018), "An Empirical Evaluation of Generic Convolutional and
Recurrent Networks for Sequence Modeling", section 4, for the tasks in that paper.

Legend: S positions of a question, N of its answer, L steps.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

BLANK = "-"
ADDING_CHANCE = 1 / 6  # the squared error of always predicting 1: the variance of the sum of two uniform numbers


@dataclass(frozen=True)
class Recall(ABC):
    """A memory task on symbols; a symbol is an index into `words`.

    Args:
        length: number of blanks.
        items: number of values in a question.
        symbols: number of distinct values.

    Raises:
        ValueError: a size is too small.
    """

    length: int
    items: int
    symbols: int

    def __post_init__(self) -> None:
        if self.length < 0 or self.items < 1 or self.symbols < 2:
            raise ValueError(
                f"length={self.length}, items={self.items} and symbols={self.symbols}: expected at least 0, 1 and 2"
            )

    @property
    def words(self) -> list[str]:
        """The vocabulary: a blank, then the values."""
        return [BLANK, *map(str, range(self.symbols))]

    @property
    def chance(self) -> dict[str, float]:
        """Metrics of guessing without memory: loss in nats per symbol of the answer, and accuracy in percent."""
        return {"loss": math.log(self.symbols), "accuracy": 100 / self.symbols}

    @abstractmethod
    def draw(self, chance: np.random.Generator) -> tuple[Int64[np.ndarray, " S"], Int64[np.ndarray, " N"]]:
        """Draw a question and its answer; all questions of a task have one length."""

    def _values(self, chance: np.random.Generator) -> Int64[np.ndarray, " N"]:
        return 1 + chance.integers(self.symbols, size=self.items)


@dataclass(frozen=True)
class Copy(Recall):
    """Values, then blanks; the answer repeats the values."""

    length: int = 1000
    items: int = 10
    symbols: int = 8

    def draw(self, chance: np.random.Generator) -> tuple[Int64[np.ndarray, " S"], Int64[np.ndarray, " N"]]:
        values = self._values(chance)
        return np.concatenate([values, np.zeros(self.length, np.int64)]), values


@dataclass(frozen=True)
class SelectiveCopy(Recall):
    """`length` blanks with the values at random positions among them; the answer repeats the values in order."""

    length: int = 256
    items: int = 10
    symbols: int = 8

    def draw(self, chance: np.random.Generator) -> tuple[Int64[np.ndarray, " S"], Int64[np.ndarray, " N"]]:
        values, question = self._values(chance), np.zeros(self.length + self.items, np.int64)
        question[np.sort(chance.permutation(len(question))[: self.items])] = values
        return question, values


@dataclass(frozen=True)
class Association(Recall):
    """Pairs of distinct keys and values, then blanks, then one of the keys; its value is the answer.

    A model that remembers the values but not their keys answers correctly with probability 1 / `items`.
    """

    length: int = 0
    items: int = 8
    symbols: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.items > self.symbols:
            raise ValueError(f"items={self.items}: expected at most symbols={self.symbols} distinct keys")

    @property
    def words(self) -> list[str]:
        """The vocabulary: a blank, the values, then the keys."""
        return [*super().words, *(f"k{number}" for number in range(self.symbols))]

    @property
    def chance(self) -> dict[str, float]:
        """Metrics of guessing; `accuracy_without_keys` is that of remembering the values but not their keys."""
        return {**super().chance, "accuracy_without_keys": 100 / self.items}

    def draw(self, chance: np.random.Generator) -> tuple[Int64[np.ndarray, " S"], Int64[np.ndarray, " N"]]:
        values = 1 + chance.permutation(self.symbols)[: self.items]
        keys = 1 + self.symbols + chance.permutation(self.symbols)[: self.items]
        queried = chance.integers(self.items)
        pairs = np.stack([keys, values], 1).reshape(-1)
        question = np.concatenate([pairs, np.zeros(self.length, np.int64), keys[queried, None]])
        return question, values[queried, None]


def adding(
    length: int, chance: np.random.Generator
) -> tuple[Float32[np.ndarray, " L"], Float32[np.ndarray, " L"], float]:
    """Draw numbers from 0 to 1, marks that are 1 at two of them and else 0, and the sum of these two."""
    numbers, marks = chance.random(length, dtype=np.float32), np.zeros(length, np.float32)
    marks[chance.permutation(length)[:2]] = 1
    return numbers, marks, float(numbers @ marks)
