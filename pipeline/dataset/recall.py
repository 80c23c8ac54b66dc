"""Made-up questions whose answers lie far back, so that what a network remembers can be measured against chance.

copy: Hochreiter and Schmidhuber (1997) in the form of Arjovsky, Shah and Bengio (2016): values, a long blank, then the
    values again.
selective copy: Gu and Dao (2023), "Mamba", section 3.1: the values lie anywhere among the blanks.
association: Graves, Wayne and Danihelka (2014) in the form of Ba et al. (2016): keys with a value each, then one key.
adding: Hochreiter and Schmidhuber (1997): numbers of which two are marked, then the sum of these two.

Sizes are by default those of Bai, Kolter and Koltun (2018), "An Empirical Evaluation of Generic Convolutional and
Recurrent Networks for Sequence Modeling", section 4, where the task is theirs.

Legend: S positions of a question, N of its answer, L steps.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

BLANK = "-"
ADDING_CHANCE = 1 / 6  # the variance of the sum of two uniform numbers: the squared error of always saying 1


@dataclass(frozen=True)
class Recall(ABC):
    """One kind of question about symbols; a symbol is a place in `words`.

    Args:
        length: blanks.
        items: values that are shown.
        symbols: different values that there are.

    Raises:
        ValueError: a size is too small for the others.
    """

    length: int
    items: int
    symbols: int

    def __post_init__(self) -> None:
        if self.length < 0 or self.items < 1 or self.symbols < 2:
            raise ValueError(
                f"length={self.length}, items={self.items} and symbols={self.symbols} must be at least 0, 1 and 2"
            )

    @property
    def words(self) -> list[str]:
        """The vocabulary: a blank, then the values."""
        return [BLANK, *map(str, range(self.symbols))]

    @property
    def chance(self) -> dict[str, float]:
        """What is reached without any memory: nats a symbol of the answer, and how many of 100 are right."""
        return {"loss": math.log(self.symbols), "accuracy": 100 / self.symbols}

    @abstractmethod
    def draw(self, chance: np.random.Generator) -> tuple[Int64[np.ndarray, " S"], Int64[np.ndarray, " N"]]:
        """A question and its answer; all of one kind are of one length."""

    def _values(self, chance: np.random.Generator) -> Int64[np.ndarray, " N"]:
        return 1 + chance.integers(self.symbols, size=self.items)


@dataclass(frozen=True)
class Copy(Recall):
    """The values, then the blanks; the values are the answer."""

    length: int = 1000
    items: int = 10
    symbols: int = 8

    def draw(self, chance: np.random.Generator) -> tuple[Int64[np.ndarray, " S"], Int64[np.ndarray, " N"]]:
        values = self._values(chance)
        return np.concatenate([values, np.zeros(self.length, np.int64)]), values


@dataclass(frozen=True)
class SelectiveCopy(Recall):
    """As many blanks as the length says, and the values in places among them that differ from question to question."""

    length: int = 256
    items: int = 10
    symbols: int = 8

    def draw(self, chance: np.random.Generator) -> tuple[Int64[np.ndarray, " S"], Int64[np.ndarray, " N"]]:
        values, question = self._values(chance), np.zeros(self.length + self.items, np.int64)
        question[np.sort(chance.permutation(len(question))[: self.items])] = values
        return question, values


@dataclass(frozen=True)
class Association(Recall):
    """Keys with a value each, all different, then the blanks, then one of the keys; its value is the answer.

    Who knows which values were shown, and not whose they are, is right in one of `items`.
    """

    length: int = 0
    items: int = 8
    symbols: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.items > self.symbols:
            raise ValueError(f"items={self.items} different keys cannot be chosen among symbols={self.symbols}")

    @property
    def words(self) -> list[str]:
        """A blank, the values, then the keys."""
        return [*super().words, *(f"k{number}" for number in range(self.symbols))]

    @property
    def chance(self) -> dict[str, float]:
        """As of all, and how many of 100 are right where the values are known and their keys are not."""
        return {**super().chance, "accuracy_without_keys": 100 / self.items}

    def draw(self, chance: np.random.Generator) -> tuple[Int64[np.ndarray, " S"], Int64[np.ndarray, " N"]]:
        values = 1 + chance.permutation(self.symbols)[: self.items]
        keys = 1 + self.symbols + chance.permutation(self.symbols)[: self.items]
        asked = chance.integers(self.items)
        shown = np.stack([keys, values], 1).reshape(-1)
        question = np.concatenate([shown, np.zeros(self.length, np.int64), keys[asked, None]])
        return question, values[asked, None]


def adding(
    length: int, chance: np.random.Generator
) -> tuple[Float32[np.ndarray, " L"], Float32[np.ndarray, " L"], float]:
    """Numbers from 0 to 1, a one at two of them and else zero, and the sum of these two."""
    numbers, marks = chance.random(length, dtype=np.float32), np.zeros(length, np.float32)
    marks[chance.permutation(length)[:2]] = 1
    return numbers, marks, float(numbers @ marks)
