"""The result of a tuning: an overlay with the best values, all trials as JSON, and a plot of loss against value."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

import yaml

from pipeline.commands.compare.columns import duration, short_number
from pipeline.commands.tune.tuning import Standing, Tuning
from pipeline.commands.tune.values import Value
from pipeline.evaluation.plots.tuning import loss_by_value
from pipeline.files import write_durably


class TuningCost(NamedTuple):
    """The training of all trials."""

    trials: int
    tokens: int
    flops: float
    seconds: float
    """Training time, validations excluded."""

    def __str__(self) -> str:
        flops, seconds = short_number(self.flops), duration(self.seconds)
        return f"{self.trials} trials, {self.tokens:,} tokens, {flops} FLOPs, {seconds}"

    def plus(self, other: "TuningCost") -> "TuningCost":
        """Return the cost of two tunings."""
        trials, tokens = self.trials + other.trials, self.tokens + other.tokens
        return TuningCost(trials, tokens, self.flops + other.flops, self.seconds + other.seconds)


class TrialRecord(TypedDict):
    """A trial in the JSON file; losses by step, None for a trial that diverged."""

    run: str
    values: Mapping[str, Value]
    losses: dict[int, float | None]
    tokens: int
    seconds: float


def cost_of_trials(tuning: Tuning) -> TuningCost:
    """Return what the trials of a tuning have cost so far."""
    ends = [_end(tuning, trial) for trial in tuning.standing().trials]
    tokens, seconds = sum(each[0] for each in ends), sum(each[1] for each in ends)
    return TuningCost(sum(each[0] > 0 for each in ends), tokens, tokens * tuning.flops_per_token, seconds)


def _end(tuning: Tuning, trial: int) -> tuple[int, float]:
    """Return the tokens and seconds at the last step of a trial."""
    rows = tuning.journal(trial).rows
    return (rows[-1]["tokens"], rows[-1]["seconds"]) if rows else (0, 0.0)


def best_values(tuning: Tuning) -> dict[str, Value]:
    """Return the values of the best trial of a complete tuning."""
    standing = tuning.standing()
    return dict(standing.trials[standing.best])


def lines_of(tuning: Tuning) -> Iterator[str]:
    """Return the result as lines: the best values, those on an edge, trials that diverged, and the cost."""
    standing = tuning.standing()
    yield from (f"{name}: {value}" for name, value in standing.trials[standing.best].items())
    yield f"{tuning.metric} {standing.losses[-1][standing.best]:.4f} after {standing.steps:,} steps"
    for key in tuning.keys:
        value = standing.trials[standing.best][key.key]
        if (beyond := key.beyond(value)) is not None:
            yield f"{key.key}={value} is on the edge of its range: extend the range to {beyond}, or use --widen"
        elif key.scale and value not in key.values:
            yield f"{key.key}={value} is one step outside of the range: extend the range"
    diverged = {trial for losses in standing.losses for trial, loss in losses.items() if math.isinf(loss)}
    for trial in sorted(diverged):
        yield f"trial {trial} diverged: {_shown(standing.trials[trial])}"
    yield str(cost_of_trials(tuning))


def _shown(values: Mapping[str, Value]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def write_tuning(tuning: Tuning, stem: Path) -> list[Path]:
    """Write overlay, JSON and plot of a complete tuning; return their paths.

    Args:
        tuning: the tuning.
        stem: path of the files without suffix.
    """
    standing = tuning.standing()
    stem.parent.mkdir(parents=True, exist_ok=True)
    overlay, table, plot = (stem.with_name(f"{stem.name}{suffix}") for suffix in (".yaml", ".json", ".svg"))
    head = f"# Best of {len(standing.trials)} trials of {tuning.home}, {tuning.metric} after {standing.steps} steps.\n"
    text = head + yaml.safe_dump(nested(standing.trials[standing.best]), sort_keys=False)
    write_durably(overlay, lambda new: new.write_text(text, encoding="utf-8"))
    record = json.dumps(_record(tuning, standing), indent=1)
    write_durably(table, lambda new: new.write_text(record + "\n", encoding="utf-8"))
    figure = loss_by_value(tuning.home.name, *_plotted(tuning, standing))
    write_durably(plot, lambda new: figure.savefig(new, format="svg"))
    return [overlay, table, plot]


def nested(values: Mapping[str, Value]) -> dict[str, object]:
    """Return a config from keys with dots: {"a.b": 1} gives {"a": {"b": 1}}."""
    found: dict[str, object] = {}
    for key, value in values.items():
        place = found
        *outer, last = key.split(".")
        for name in outer:
            inner = place.setdefault(name, {})
            assert isinstance(inner, dict)
            place = inner
        place[last] = value
    return found


def _record(tuning: Tuning, standing: Standing) -> dict[str, object]:
    trials: list[TrialRecord] = []
    for trial, values in standing.trials.items():
        losses = _losses(tuning, standing, trial)
        tokens, seconds = _end(tuning, trial)
        run = str(tuning.run(trial).path)
        finite = {step: loss if math.isfinite(loss) else None for step, loss in losses}
        trials.append({"run": run, "values": values, "losses": finite, "tokens": tokens, "seconds": seconds})
    return {
        "name": tuning.home.name,
        "metric": tuning.metric,
        "rungs": [rung._asdict() for rung in tuning.rungs],
        "best": standing.trials[standing.best],
        "cost": cost_of_trials(tuning)._asdict(),
        "trials": trials,
    }


def _losses(tuning: Tuning, standing: Standing, trial: int) -> list[tuple[int, float]]:
    """Return the steps and losses of a trial at the ends of its rungs."""
    ends = zip(tuning.rungs, standing.losses, strict=True)
    return [(rung.steps, losses[trial]) for rung, losses in ends if trial in losses]


def _plotted(tuning: Tuning, standing: Standing) -> tuple[str, str, dict[str, Sequence[tuple[float, float]]], bool]:
    """Return the labels of the axes, the curves, and whether the x axis is logarithmic."""
    first = next((key for key in tuning.keys if key.scale), tuning.keys[0])
    curves: dict[str, list[tuple[float, float]]] = {}
    for trial, values in standing.trials.items():
        value = values[first.key]
        place = float(value) if isinstance(value, int | float) else float(first.values.index(value))
        others = _shown({key.rpartition(".")[2]: other for key, other in values.items() if key != first.key})
        for steps, loss in _losses(tuning, standing, trial):
            if math.isfinite(loss):
                curves.setdefault(f"{steps:,} steps{others and ', '}{others}", []).append((place, loss))
    ordered: dict[str, Sequence[tuple[float, float]]] = {name: sorted(points) for name, points in curves.items()}
    return first.key, tuning.metric, ordered, first.scale == "log"
