"""The pairs of all splits: each source is in one split, and duplicates are counted and named."""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator

from data_prep.pairs.layout import Layout, Unit
from data_prep.pairs.sources import reader
from data_prep.workspace import options as shared
from data_prep.workspace.report import Report
from data_prep.workspace.splits import has, split_of
from data_prep.workspace.workspace import SPLITS, ordered
from pipeline.dataset.text_normalization import identity

SHARED, REPEATED = "in another split too", "duplicate"


class Corpus:
    """The pairs of all splits after filtering.

    Args:
        options: the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.report = Report("conversations" if options.dialogue else "pairs")
        self.unknown: dict[str, Counter[str]] = {}  # number of tokens outside the vocabulary, by split and side
        self.files = shared.sources(options)
        self.shares = {name: 0.0 if has(self.files, name) else part for name, part in shared.shares(options).items()}
        layout = Layout(
            options.delimiter,
            (options.source_field, options.target_field),
            options.dialogue,
            options.history,
            options.pronunciations,
            options.lowercase,
        )
        self.readers = {name: reader(files, layout) for name, files in self.files.items()}
        self.deduplicate = bool(options.dialogue) if options.deduplicate is None else options.deduplicate
        self.held_out: dict[str, set[int]] = {}  # hashes of the sources of each split
        self._homes = bytearray()  # the split of each unit of the training files read so far, as its place in SPLITS

    @property
    def splits(self) -> list[str]:
        """Names of the splits, held-out ones first because training is deduplicated against them."""
        return ordered({"train", *self.files, *(name for name, part in self.shares.items() if part)})[::-1]

    def units(self, split: str, count: bool) -> Iterator[Unit]:
        """Yield the units of a split, which equal others if their texts have the same words.

        Args:
            split: name of the split.
            count: report invalid, equal and dropped units; the caller sets it in one pass per split.
        """
        report = self.report if count else Report()
        given = split if split in self.files else "train"
        others = set[int]().union(*(self.held_out[name] for name in self.splits[: self.splits.index(split)]))
        seen = set[int]()
        sources = self.held_out.setdefault(split, set())
        unchecked = split == "train" and not count and not self.deduplicate  # equal units are not looked for
        for number, unit in enumerate(self.readers[given](report if split == given else Report())):
            if given == "train":
                if number == len(self._homes):
                    self._homes.append(SPLITS.index(self._part(unit)))
                if SPLITS[self._homes[number]] != split:
                    continue
            if unchecked:
                yield unit
                continue
            key = hash(identity(unit.source))
            whole = hash((key, identity(unit.pairs[-1].target)))
            equal = SHARED if key in others else REPEATED if whole in seen else None
            seen.add(whole)
            if split != "train":
                sources.add(key)
            if equal and given == "train" and self.deduplicate:
                report.leave_out(unit.name, f"{equal}: dropped from training")
                continue
            if equal:
                report.note(unit.name, f"{equal}{' (add --deduplicate to drop it)' * (given == 'train')}")
            yield unit

    def _part(self, unit: Unit) -> str:
        """Return the split of a unit of the training files, by a hash of its source."""
        return split_of(identity(unit.source), self.shares) if any(self.shares.values()) else "train"


def rows(units: Iterable[Unit], group: bool) -> Iterator[tuple[str, str, list[str]]]:
    """Yield a name and each source with its targets; if grouped, equal sources are merged at the first's position."""
    if not group:
        yield from ((unit.name, pair.source, [pair.target]) for unit in units for pair in unit.pairs)
        return
    found: dict[str, tuple[str, str, dict[str, str]]] = {}
    for unit in units:
        for pair in unit.pairs:
            _, _, targets = found.setdefault(identity(pair.source), (unit.name, pair.source, {}))
            targets.setdefault(identity(pair.target), pair.target)
    yield from ((name, source, list(targets.values())) for name, source, targets in found.values())
