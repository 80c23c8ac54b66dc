"""Compare a run with the config, the data and the code that a verb uses: one comparison for every verb.

A training must have the model and the data of the run; other settings may change, those that change results only on
purpose. An evaluation must have the run's model, tokenizer and, unless the command names another one, dataset. Verbs
that read the run alone use its copy of the tokenizer.
"""

import sys
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from typing import NamedTuple

from pipeline.dataset.facts import DataFacts
from pipeline.dataset.manifest import Dataset
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.files import sha256
from pipeline.runs.changes import DATASET, Change, Effect, changes
from pipeline.runs.code import Code
from pipeline.runs.run import Run

MEANING = {
    "audio": ("rate", "labels"),
    "pixels": ("rows", "columns", "channels", "levels", "labels"),
    "series": ("covariates",),
    "music": ("steps_per_beat",),
}
"""Parts of a dataset's description that, like a tokenizer, give its numbers their meaning, by kind."""


class Data(NamedTuple):
    """The data that a verb uses."""

    dataset: Dataset
    facts: DataFacts
    steps_per_epoch: int


def check_training(run: Run, config: Mapping[str, object], data: Data | None, allowed: bool) -> list[Change]:
    """Compare a run with the config and the data of a further attempt; return the settings that change.

    Args:
        run: the run, with at least one attempt.
        config: the resolved config.
        data: the data; None if another job prepares it.
        allowed: whether settings may change that change results.

    Raises:
        CheckpointError: the data has other sizes than the model of the run.
        DataError: the dataset is not that of the run.
        ConfigError: the model, the data or the seed differs, or a setting that changes results.
    """
    if data is not None:
        _check_facts(run, data)
        if run.record["dataset"]["checksum"] != data.dataset.checksum:
            raise DataError(f"{_not_of(run, data)}. Prepare it with the same options, or choose another --run.")
    found = changes(run, config)
    if other := [change for change in found if change.effect is Effect.ANOTHER_RUN]:
        raise ConfigError(
            f"run {run.name} was started with another config: {'; '.join(map(str, other))}. "
            "Choose another --run, or use --resume never."
        )
    if (on_purpose := [change for change in found if change.effect is Effect.RESULTS]) and not allowed:
        raise ConfigError(
            f"run {run.name} was trained with other settings: {'; '.join(map(str, on_purpose))}. "
            "Use --allow-changes to change its results on purpose, or choose another --run."
        )
    return found


def check_evaluation(
    run: Run, config: Mapping[str, object], data: Data, named: bool, option: str = f"--{DATASET}"
) -> None:
    """Compare a run with the config and the data of an evaluation; print what differs on purpose.

    Args:
        run: the run.
        config: the resolved config.
        data: the data.
        named: whether the command names the dataset.
        option: option that names it.

    Raises:
        CheckpointError: the data has other sizes than the model of the run.
        DataError: the dataset is not that of the run and was not named, or it has another tokenizer.
        ConfigError: the model differs.
    """
    check_use(run)
    found = {change.key: change for change in changes(run, config) if change.key.startswith(("model.", "data."))}
    known = run.record["dataset"]
    if known["checksum"] != data.dataset.checksum:
        if not (named or DATASET in found):
            raise DataError(
                f"{_not_of(run, data)}: it was prepared again. Restore it, or name the data to evaluate on with "
                f"{option}={data.dataset.path}"
            )
        _check_meaning(run, data.dataset)
        _print(f"run {run.name} is evaluated on other data than its own: {data.dataset.path}, not {known['path']}")
    _check_facts(run, data)
    other = [change for change in found.values() if change.effect is Effect.ANOTHER_RUN]
    if model := [change for change in other if change.key.startswith("model.")]:
        raise ConfigError(f"run {run.name} has another model: {'; '.join(map(str, model))}. Omit these options.")
    if other:
        _print(f"run {run.name} is evaluated with other settings than its own: {'; '.join(map(str, other))}")


def check_use(run: Run) -> None:
    """Check the files of a run that verbs use without its dataset; print a line if its code was another.

    Raises:
        CheckpointError: a copy of a tokenizer is missing or not that of the run.
    """
    for name, digest in run.record.get("dataset", {}).get("tokenizers", {}).items():
        file = run.path / name
        if not file.is_file() or sha256(file) != digest:
            raise CheckpointError(
                f"{file}: expected the tokenizer of run {run.name}, got {'another' if file.exists() else 'no'} file. "
                f"Copy it from {run.record['dataset']['path']}"
            )
    if (line := code_change(run, Code.running())) is not None:
        _print(line)


def history(run: Run) -> list[str]:
    """Return a line for each difference between the attempts of a run that changed its results, or its dataset since.

    A dataset that is not here does not count: the figures of a run can be read on any machine.
    """
    lines = []
    for before, attempt in pairwise(run.record.get("attempts", [])):
        made = [Change(key, *values) for key, values in attempt.get("changes", {}).items()]
        found = [str(change) for change in made if change.effect is Effect.RESULTS or change.key.startswith("model.")]
        if (code := Code.of_attempt(attempt)) and code != (old := Code.of_attempt(before)) and old:
            found.append(f"{code}, previously {old}")
        if found:
            lines.append(f"run {run.name} changed in attempt {attempt['number']}: {'; '.join(found)}")
    known = run.record.get("dataset") or {}
    with suppress(DataError, KeyError):
        if Dataset.open(known["path"]).checksum != known["checksum"]:
            lines.append(f"run {run.name}: its dataset {known['path']} was prepared again since, with other content")
    return lines


def code_change(run: Run, code: Code) -> str | None:
    """Return a line if the code differs from that of the last attempt."""
    attempts = run.record.get("attempts") or [None]
    before = Code.of_attempt(attempts[-1])
    if before is None or before == code:
        return None
    return f"run {run.name}: the code is {code}, previously {before}"


def _check_facts(run: Run, data: Data) -> None:
    for name, size in data.facts.known().items():
        if (before := run.record["linked"].get(name)) != size:
            raise CheckpointError(
                f"{name}={size}: expected {before} as in run {run.name}, got {size} from dataset {data.dataset.path} "
                "and its settings. Use the run's dataset, or choose another --run."
            )


def _check_meaning(run: Run, dataset: Dataset) -> None:
    """Raise DataError unless the tokens and numbers of a dataset mean what those of the run's dataset mean."""
    for name, file in dataset.tokenizers.items():
        own = run.path / name
        if not own.is_file() or sha256(file) != sha256(own):
            raise DataError(
                f"dataset {dataset.path} has another tokenizer than run {run.name}. Prepare it with "
                f"--tokenizer {run.path / name}"
            )
    for kind, keys in MEANING.items():
        before, after = run.record["dataset"].get(kind, {}), dataset.manifest.get(kind, {})
        if other := [key for key in keys if before.get(key) != after.get(key)]:
            raise DataError(
                f"dataset {dataset.path} has other {kind} than run {run.name}: {other[0]}: expected "
                f"{before.get(other[0])}, got {after.get(other[0])}. Prepare it with the options of the run's dataset"
            )


def _not_of(run: Run, data: Data) -> str:
    return f"dataset {data.dataset.path} is not that of run {run.name} ({run.record['dataset']['path']})"


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
