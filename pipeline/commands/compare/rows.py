"""The rows of a comparison: the figures of each run, in one table per dataset.

Runs on different datasets are never in one table: perplexities on different corpora are not comparable.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.commands.compare import columns as kinds
from pipeline.commands.compare.columns import MISSING, Column
from pipeline.dataset.unit import Unit
from pipeline.errors import CheckpointError
from pipeline.runs.journal import Journal, read_journal
from pipeline.runs.match import history
from pipeline.runs.record import read_record
from pipeline.runs.run import Run, find_run

ENTRANT = "entrant.json"  # in a run of a tournament: its entrant, and FLOPs per token
TOKENS = Unit()
QUALITY = ("perplexity", "bits_per_byte", "mse", "mae")


@dataclass(frozen=True)
class Entry:
    """One row: a run or a baseline. None means unknown.

    Args:
        name: name of the run.
        journal: journal of the run.
        architecture: class of its task.
        parameters: number of trainable parameters; for the n-gram baseline, number of n-grams.
        tokens: training tokens consumed.
        perplexity: best on the validation split.
        bits_per_byte: best on the validation split.
        mse: mean squared error of forecasts, best on the validation split, in standardised units.
        mae: mean absolute error, likewise.
        loss: best on the validation split.
        scores: further metrics of validations, such as error rates, the best of each.
        horizon: number of steps forecast; None for models of tokens.
        context: number of steps that a forecaster reads.
        tokens_per_second: median over the training.
        unit: unit in which tokens and tokens per second are shown.
        memory_gb: maximum memory of one process, in 1e9 bytes.
        seconds: training time, summed over attempts.
        dataset: checksum of the training dataset.
        dataset_path: path of that dataset during training.
        directory: directory of the run.
        tournament: name of the run's tournament.
        entrant: name of the run's entrant in the tournament.
        flops: floating-point operations of training.
        members: runs of an entrant, one per seed; this row has their means.
        spread: half the width of the 95 % interval of each mean, by figure.
        rank: rank among the entrants of a tournament.
    """

    name: str
    journal: Journal = field(default_factory=Journal, repr=False)
    architecture: str | None = None
    parameters: int | None = None
    tokens: int | None = None
    perplexity: float | None = None
    bits_per_byte: float | None = None
    mse: float | None = None
    mae: float | None = None
    loss: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    horizon: int | None = None
    context: int | None = None
    tokens_per_second: float | None = None
    unit: Unit = TOKENS
    memory_gb: float | None = None
    seconds: float | None = None
    dataset: str | None = None
    dataset_path: str | None = None
    directory: Path | None = None
    tournament: str | None = None
    entrant: str | None = None
    flops: float | None = None
    members: "tuple[Entry, ...]" = ()
    spread: Mapping[str, float] = field(default_factory=dict)
    rank: int | None = None

    @property
    def quality(self) -> float | None:
        """Return the quality of language models and forecasts, the smallest is best: perplexity, or MSE."""
        return self.mse if self.perplexity is None else self.perplexity

    def figure(self, key: str) -> Any:
        """Return the field or the score `key`; None if unknown."""
        return getattr(self, key, self.scores.get(key))

    def value(self, column: Column) -> Any:
        """Return the value shown in a column; None if unknown."""
        figure = self.figure(column.key)
        return figure * self.unit.per_prediction if column.in_unit and figure is not None else figure


@dataclass(frozen=True)
class Group:
    """The runs on one dataset (and with one horizon), the best on the validation split first.

    Args:
        checksum: checksum of the dataset; None if unknown.
        path: path of the dataset.
        entries: the runs.
        baseline: Kneser-Ney n-gram or linear forecast on the same dataset; None if disabled or not available.
    """

    checksum: str | None
    path: str | None
    entries: list[Entry]
    baseline: Entry | None = None

    @property
    def title(self) -> str:
        """Return the title of the table."""
        if self.checksum is None:
            return "Unknown dataset"
        ahead = "" if self.horizon is None else f", {self.horizon} steps ahead"
        return f"{Path(self.path or '').name or 'dataset'} ({self.checksum[:8]}){ahead}"

    @property
    def horizon(self) -> int | None:
        """Return the number of steps that the runs forecast; None for models of tokens."""
        return self.entries[0].horizon if self.entries else None

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the columns of the table."""
        name, architecture = kinds.NAMES
        ranks = [kinds.RANK] if any(entry.rank is not None for entry in self.entries) else []
        flops = [kinds.FLOPS] if any(entry.flops is not None for entry in self.entries) else []
        unit = (self.entries[0].unit if self.entries else TOKENS).name
        read, speed = kinds.amount_column(unit), kinds.speed_column(unit)
        return (name, *ranks, architecture, kinds.PARAMETERS, read, *self.qualities, speed, *kinds.COSTS, *flops)

    @property
    def qualities(self) -> tuple[Column, ...]:
        """Return the columns of quality that a row has; without a validation, those of its kind of model."""
        usual = kinds.TOKEN_QUALITY if self.horizon is None else kinds.FORECAST_QUALITY
        scores = kinds.scores(dict.fromkeys(name for entry in self.entries for name in entry.scores))
        found = [column for column in (*usual, *scores) if self._has(column)]
        if self._has(kinds.LOSS) and not self._has(usual[0]):
            found.append(kinds.LOSS)
        return tuple(found) or usual

    def _has(self, column: Column) -> bool:
        return any(entry.value(column) is not None for entry in self.entries)

    def rows(self) -> list[Entry]:
        """Return all rows in order, baseline included."""
        return ranked([*self.entries, *([self.baseline] if self.baseline else [])], self.qualities)


def cell(column: Column, entry: Entry) -> str:
    """Return the text of one cell; a mean over seeds is followed by half its interval."""
    value = entry.value(column)
    if value is None:
        return MISSING
    half = entry.spread.get(column.key)
    return column.show(value) + ("" if half is None else f" ± {column.show(half)}")


def is_best(column: Column, entry: Entry, group: Group) -> bool:
    """Whether the cell has the best of at least two values in its column.

    Quality is compared with the baseline, cost is not: the baseline is not trained.
    """
    rows = group.rows() if column.is_quality else group.entries
    values = [value for row in rows if (value := row.value(column)) is not None]
    if column.best is None or len(values) < 2 or entry not in rows:
        return False
    return bool(entry.value(column) == column.best(values))


def ranked(entries: Iterable[Entry], qualities: Sequence[Column]) -> list[Entry]:
    """Sort by the first quality that all validated rows have, the best first; rows without one come last."""
    rows = list(entries)
    validated = [entry for entry in rows if any(entry.value(column) is not None for column in qualities)]
    shared = [column for column in qualities if all(entry.value(column) is not None for entry in validated)]

    def place(entry: Entry) -> float:
        value = entry.value(shared[0]) if shared else entry.quality
        return math.inf if value is None else -value if shared and shared[0].best is max else value

    return sorted(rows, key=place)


def gather(name: str) -> tuple[Entry, list[str]]:
    """Return the row of the run `name`, and its problems, one line each."""
    try:
        run = find_run(name)
        record = read_record(run)
    except (CheckpointError, OSError, ValueError) as error:
        return Entry(name), [str(error)]
    try:
        journal = read_journal(run)
    except OSError:
        return row_of_run(run.name, Journal(), record), [f"{run}: no metrics logged yet"]
    entry, lines = row_of_run(run.name, journal, record), history(Run(run, record))
    try:
        entry = _entered(entry, run)
    except (OSError, ValueError, KeyError):
        lines.append(f"{run / ENTRANT} cannot be read: the run is shown without its entrant")
    if journal.torn:
        lines.append(f"{run}: skipped {journal.torn} incomplete lines of the journal")
    if entry.perplexity is None and entry.mse is None and entry.loss is None:
        lines.append(f"{run}: no validation yet")
    return entry, lines


def _entered(entry: Entry, run: Path) -> Entry:
    """Add the tournament, entrant and FLOPs of a run that belongs to a tournament."""
    entry = replace(entry, directory=run)
    if not (run / ENTRANT).is_file():
        return entry
    known = json.loads((run / ENTRANT).read_text(encoding="utf-8"))
    flops = None if entry.tokens is None else known["flops_per_token"] * entry.tokens
    return replace(entry, tournament=known["tournament"], entrant=known["entrant"], flops=flops)


def row_of_run(name: str, journal: Journal, record: dict[str, Any]) -> Entry:
    """Return the row of a run from its journal and its `run.json`."""
    dataset, linked = record.get("dataset") or {}, record.get("linked") or {}
    measured = [row for row in journal.rows if row["kind"] == "metrics"]
    speeds = [value for value in journal.series("train/tokens_per_second").values if math.isfinite(value)]
    return Entry(
        name=name,
        journal=journal,
        architecture=record.get("architecture"),
        parameters=record.get("parameters"),
        tokens=max((row["tokens"] for row in measured), default=None),
        perplexity=journal.best("val/perplexity"),
        bits_per_byte=journal.best("val/bits_per_byte"),
        mse=journal.best("val/mse"),
        mae=journal.best("val/mae"),
        loss=journal.best("val/loss"),
        scores=best_scores(journal),
        horizon=linked.get("horizon"),
        context=linked.get("context"),
        tokens_per_second=median(speeds) if speeds else None,
        unit=Unit.of_record(record),
        memory_gb=journal.best("train/memory_gb", max),
        seconds=max((row["seconds"] for row in measured), default=None),
        dataset=dataset.get("checksum"),
        dataset_path=dataset.get("path"),
    )


def best_scores(journal: Journal) -> dict[str, float]:
    """Return the best value of each score of the validations, by name."""
    names = (key.removeprefix("val/") for key in journal.keys() if key.startswith("val/"))  # noqa: SIM118
    found = {each.key: journal.best(f"val/{each.key}", each.best or min) for each in kinds.scores(names)}
    return {name: value for name, value in found.items() if value is not None}


def grouped(entries: Iterable[Entry]) -> list[Group]:
    """Group rows by dataset and horizon, in order of first appearance; unknown datasets come last."""
    found: dict[tuple[str | None, int | None], list[Entry]] = {}
    for entry in entries:
        found.setdefault((entry.dataset, entry.horizon), []).append(entry)
    groups = [Group(checksum, members[0].dataset_path, members) for (checksum, _), members in found.items()]
    groups = [replace(group, entries=ranked(group.entries, group.qualities)) for group in groups]
    return sorted(groups, key=lambda group: group.checksum is None)
