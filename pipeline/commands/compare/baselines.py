"""The baseline in a comparison: a Kneser-Ney n-gram, a linear forecast, or counted keys of music."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import NotRequired, TypedDict

from pipeline.commands.compare.rows import Entry, Group
from pipeline.errors import DataError, UserError
from pipeline.files import write_durably

ORDER = 5  # of the baseline's n-grams


class SplitQuality(TypedDict):
    """Quality of the n-gram on one split."""

    perplexity: float
    bits_per_byte: float


class NgramResult(TypedDict):
    """A cached result of the Kneser-Ney n-gram."""

    order: int
    ngrams: int
    tokens: int
    seconds: float
    memory_gb: float
    validation: NotRequired[SplitQuality]


def print_notice(lines: list[str]) -> None:
    """Print messages to standard error, so that the table can be piped."""
    for line in lines:
        print(f"unroll compare: {' '.join(line.split())}", file=sys.stderr)


def with_baseline(group: Group, cache: Path) -> Group:
    """Add the baseline of texts, series or music to a group, if its dataset can be opened."""
    if group.checksum is None or group.path is None:
        return group
    try:
        found = _baseline(group, Path(group.path), group.checksum, cache)
    except (UserError, OSError, ValueError, ArithmeticError, MemoryError) as error:
        print_notice([f"no baseline for {group.title}: {error}"])
        return group
    return group if found is None else replace(group, baseline=found)


def _baseline(group: Group, path: Path, checksum: str, cache: Path) -> Entry | None:
    if group.horizon is not None:
        return linear_baseline(group, path, cache)
    if (figures := cached_baseline(path, checksum, cache)) is None:
        return counted_keys(path)
    found = figures.get("validation")
    return Entry(
        name=f"{figures['order']}-gram",
        architecture="Kneser-Ney",
        parameters=figures["ngrams"],
        tokens=figures["tokens"],
        perplexity=found and found["perplexity"],
        bits_per_byte=found and found["bits_per_byte"],
        tokens_per_second=figures["tokens"] / max(figures["seconds"], 1e-9),
        memory_gb=figures["memory_gb"],
        seconds=figures["seconds"],
    )


def cached_baseline(path: Path, checksum: str, cache: Path) -> NgramResult | None:
    """Return the results of the Kneser-Ney n-gram on a dataset, from the directory `cache` if they are there.

    None for a dataset that is not text.

    Raises:
        DataError: the dataset is missing, or differs from the one that the runs were trained on.
    """
    kept = cache / f"{checksum}.json"
    try:
        figures: NgramResult = json.loads(kept.read_text())
        if figures["order"] == ORDER:
            return figures
    except (OSError, ValueError, KeyError, TypeError):
        pass  # missing or unreadable: computed again
    from pipeline.dataset.manifest import Dataset
    from pipeline.models import kneser_ney

    dataset = Dataset.open(path)
    if dataset.checksum != checksum:
        raise DataError(f"{path} is not the dataset of these runs: the checksum differs")
    if dataset.kind != "tokens":
        return None
    print_notice([f"fitting the {ORDER}-gram baseline on {path} (cached for later comparisons)"])
    measured = {**kneser_ney.measure_baseline(dataset, ORDER), "tokens": dataset.splits["train"].tokens}
    figures = json.loads(text := json.dumps(measured, indent=1))
    try:
        keep_text(kept, text)
    except OSError as error:
        print_notice([f"the baseline could not be cached: {error}"])
    return figures


def linear_baseline(group: Group, path: Path, cache: Path) -> Entry:
    """Return the linear forecast from the longest context of the runs, from the cache if it is there.

    Raises:
        DataError: the dataset is missing, or differs from the one that the runs were trained on.
    """
    context = max(entry.context or 1 for entry in group.entries)
    kept = cache / f"{group.checksum}-{context}-{group.horizon}.json"
    try:
        return Entry(**json.loads(kept.read_text()))
    except (OSError, ValueError, TypeError):
        pass  # missing or unreadable: fitted again
    from pipeline.data.series import SeriesDataModule
    from pipeline.evaluation.forecast_baselines import linear_errors

    data = SeriesDataModule(path, context, group.horizon or 1)
    if data.dataset.checksum != group.checksum:
        raise DataError(f"{path} is not the dataset of these runs: the checksum differs")
    found = linear_errors(data.samples("train"), data.samples("validation"))
    name, architecture, parameters = "linear", "least squares", (context + 1) * data.horizon
    try:
        keep_text(kept, json.dumps({"name": name, "architecture": architecture, "parameters": parameters, **found}))
    except OSError as error:
        print_notice([f"the baseline could not be cached: {error}"])
    return Entry(name, architecture=architecture, parameters=parameters, mse=found["mse"], mae=found["mae"])


def counted_keys(path: Path) -> Entry | None:
    """Return the better of the baselines of music from counts; None for a dataset of another kind."""
    from pipeline.dataset.manifest import Dataset
    from pipeline.evaluation.key_baselines import PARAMETERS, key_baselines

    dataset = Dataset.open(path)
    if dataset.kind != "music" or "validation" not in dataset.splits:
        return None
    found = key_baselines(dataset.splits["train"], dataset.splits["validation"])
    name = min(found, key=lambda each: found[each])
    return Entry("counted keys", architecture=name, parameters=PARAMETERS[name], loss=found[name])


def keep_text(path: Path, text: str) -> None:
    """Write a file durably, in a folder that is made if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, lambda new: new.write_text(text, encoding="utf-8"))
