"""A tuning: trials of values of a config, each an ordinary run, compared by successive halving.

The state of a tuning is that of its runs: which trials are left follows from the losses in their journals. A trial that
is promoted continues from its checkpoint under a larger `max_steps`. Its schedule has the length of the last rung from
the start, so a trial of the last rung equals a run of that length, and no rung changes a learning rate.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.commands.budgets import BUDGETS, TrainingCost, cost_of, words
from pipeline.commands.planned_runs import run_has_finished, run_together, wait_for
from pipeline.commands.slurm.batch_script import Element
from pipeline.commands.tune.halving import Rung, promoted, rungs_of
from pipeline.commands.tune.values import TunedKey, Value
from pipeline.distributed import signals
from pipeline.errors import TRY_AGAIN, ConfigError, NonFiniteError
from pipeline.optim import Schedule
from pipeline.runs.journal import Journal, read_journal
from pipeline.runs.run import Run, name_of
from pipeline.training.config import parse_config

DECAY = "model.init_args.schedule.init_args.decay_steps"


@dataclass(frozen=True)
class Tuning:
    """Trials of one experiment.

    Args:
        home: directory of their runs; its name is that of the tuning.
        arguments: arguments of `unroll fit` without run and limits, the first one a config.
        keys: the keys and their values; a trial is one combination.
        rungs: the rungs of successive halving.
        metric: metric of a validation that is compared; lower is better.
        flops_per_token: floating-point operations of a training step per token.
        widen: whether one more trial follows, one step outside of the range, if the best value is on its edge.
    """

    home: Path
    arguments: Sequence[str]
    keys: Sequence[TunedKey]
    rungs: Sequence[Rung]
    metric: str
    flops_per_token: float
    widen: bool = False

    @property
    def trials(self) -> dict[int, dict[str, Value]]:
        """Return the values of each trial by its number."""
        combinations = itertools.product(*(key.values for key in self.keys))
        names = [key.key for key in self.keys]
        return {k: dict(zip(names, values, strict=True)) for k, values in enumerate(combinations, 1)}

    def run(self, trial: int) -> Run:
        """Return the run of a trial."""
        return Run(self.home / f"trial-{trial}")

    def element(self, trial: int, values: Mapping[str, Value], steps: int) -> Element:
        """Return a trial as a run that ends after a number of steps."""
        run = self.run(trial).path
        limits = {"trainer.max_steps": steps, "trainer.max_epochs": -1, "trainer.max_time": None}
        validated = {"trainer.val_check_interval": self.rungs[0].steps, "trainer.check_val_every_n_epoch": None}
        named = ["--run", name_of(run), "--tracking.group", self.home.name]
        return Element(run, [*self.arguments, *words({**values, **limits, **validated}), *named])

    def standing(self) -> "Standing":
        """Return the losses of the trials in each rung, and the trials that the current rung waits for.

        Raises:
            ConfigError: all trials have diverged.
        """
        trials, found = self.trials, list[dict[int, float]]()
        left = list(trials)
        for rung in self.rungs:
            losses = {trial: self._loss(trial, rung.steps) for trial in left}
            if waiting := [trial for trial, loss in losses.items() if loss is None]:
                elements = {trial: self.element(trial, trials[trial], rung.steps) for trial in waiting}
                return Standing(trials, found, elements, rung.steps)
            found.append({trial: loss for trial, loss in losses.items() if loss is not None})
            if not (left := promoted(found[-1])):
                raise ConfigError(f"{self.home}: all trials diverged within {rung.steps:,} steps. Give other values")
        best = left[0]
        outside = {key.key: key.beyond(trials[best][key.key]) for key in self.keys}
        if self.widen and any(outside.values()):
            extra, steps = len(trials) + 1, self.rungs[-1].steps
            trials[extra] = {name: outside[name] or value for name, value in trials[best].items()}
            if (loss := self._loss(extra, steps)) is None:
                return Standing(trials, found, {extra: self.element(extra, trials[extra], steps)}, steps)
            found[-1][extra] = loss
        return Standing(trials, found, {}, self.rungs[-1].steps)

    def _loss(self, trial: int, steps: int) -> float | None:
        """Return the metric of a trial after a number of steps: infinite if it diverged, None before."""
        run = self.run(trial)
        if not run.record.get("attempts"):
            return None
        measured = self.journal(trial).series(self.metric)
        loss = dict(zip(measured.steps, measured.values, strict=True)).get(steps)
        if loss is not None and math.isfinite(loss):
            return loss
        diverged = loss is not None or run.attempt["exit_code"] == NonFiniteError.exit_code
        return math.inf if diverged else None

    def journal(self, trial: int) -> Journal:
        """Return the journal of a trial; empty before its first step."""
        try:
            return read_journal(self.run(trial).path)
        except OSError:
            return Journal()

    def train(self, at_once: int = 1) -> int:
        """Train the trials until one is left, and return the exit code: 75 after a stop.

        Args:
            at_once: maximum number of trials that are trained at the same time.

        Raises:
            ConfigError: all trials have diverged, the metric is not measured, or another process trains them.
        """
        with Run(self.home).lock():
            while (now := self.standing()).waiting:
                elements = now.waiting.values()
                if not all(wait_for(element.run) for element in elements):
                    return TRY_AGAIN
                print(f"\n{self.home}: {len(elements)} trials, to step {now.steps:,}", flush=True)
                codes = run_together([["fit", "--config", *element.arguments] for element in elements], at_once)
                if TRY_AGAIN in codes or signals.requested():
                    return TRY_AGAIN
                if failed := [code for code in codes if code not in (0, NonFiniteError.exit_code)]:
                    return failed[0]
                for trial, element in now.waiting.items():
                    self._check_measured(trial, element, now.steps)
        return 0

    def _check_measured(self, trial: int, element: Element, steps: int) -> None:
        if self._loss(trial, steps) is None:
            raise ConfigError(
                f"checkpoints.metric={self.metric}: expected a metric of the validation, but {element.run} has none "
                f"at step {steps:,}. Change checkpoints.metric"
            )

    def check(self) -> None:
        """Check the config of each trial, and the runs that exist.

        Raises:
            UserError: a config is invalid, a schedule depends on the rung, or a run exists with another config.
        """
        for trial, values in self.trials.items():
            element = self.element(trial, values, self.rungs[0].steps)
            model, data = parse_config(["--config", *element.arguments]).build_parts()
            if isinstance(schedule := model.schedule, Schedule):
                self._check_schedule(schedule, data.steps_per_epoch)
            run_has_finished(element.run, element.arguments, f"Move {self.home} away, or choose another name")

    def _check_schedule(self, schedule: Schedule, per_epoch: int) -> None:
        whole = self.rungs[-1].steps
        for rung in self.rungs:
            for step in range(rung.steps):
                if schedule.scale(step, rung.steps, per_epoch) != schedule.scale(step, whole, per_epoch):
                    raise ConfigError(
                        f"model.init_args.schedule={type(schedule).__name__}: expected a learning rate that does not "
                        "depend on the length of the run. Use a schedule with decay_steps, without rewarm_step"
                    )


@dataclass(frozen=True)
class Standing:
    """How far a tuning is.

    Args:
        trials: the values of each trial by its number, an additional one outside of the range included.
        losses: losses of the completed rungs by trial.
        waiting: trials that the current rung has yet to train, by number; empty at the end.
        steps: steps of each trial at the end of the current rung.
    """

    trials: Mapping[int, Mapping[str, Value]]
    losses: Sequence[Mapping[int, float]]
    waiting: Mapping[int, Element]
    steps: int

    @property
    def best(self) -> int:
        """Return the best trial of the last rung."""
        return promoted(self.losses[-1])[0]


def tuning_of(
    home: Path,
    arguments: Sequence[str],
    keys: Sequence[TunedKey],
    budget: Mapping[str, float],
    cost: TrainingCost | None = None,
    widen: bool = False,
) -> Tuning:
    """Return a tuning whose trials have been checked.

    Args:
        home: directory of the trials' runs.
        arguments: arguments of `unroll fit` without run and limits, the first one a config.
        keys: the keys and their values.
        budget: amount by unit, for all trials together.
        cost: cost of a run, if it is known.
        widen: see `Tuning`.

    Raises:
        UserError: a config or a key is invalid, the budget is too small, or the runs belong to another tuning.
    """
    cli = parse_config(["--config", *arguments])
    cost = cost or cost_of(cli, cli.build()[1])
    [(unit, amount)] = budget.items()
    steps = BUDGETS[unit](amount, cost)["trainer.max_steps"]
    assert isinstance(steps, int)
    rungs = rungs_of(math.prod(len(key.values) for key in keys), steps)
    fixed = {DECAY: rungs[-1].steps} if DECAY in cli.config and cli.config[DECAY] is None else {}
    found = Tuning(
        home, [*arguments, *words(fixed)], keys, rungs, cli.config.checkpoints.metric, cost.flops_per_token, widen
    )
    found.check()
    return found
