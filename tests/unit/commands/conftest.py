"""A training that takes no time, for the commands that start runs."""

import json
import math
from collections.abc import Sequence
from functools import cache

import pytest
import yaml

from pipeline.commands import planned_runs
from pipeline.commands.tune import tuning
from pipeline.runs import resume
from pipeline.runs.journal import JournalWriter
from pipeline.runs.run import Run
from pipeline.training import config as training
from pipeline.training.config import CommandLine, parse_config, run_directory

BEST = 0.01  # learning rate


@cache
def parsed_once(*arguments: str) -> CommandLine:
    """Parse a config; the files of equal names have equal contents in all tests that use it."""
    return parse_config([*arguments])


@pytest.fixture
def parsing_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse equal arguments once; parsing is most of the time of a tuning whose training takes none."""
    for module in (tuning, training):
        monkeypatch.setattr(module, "parse_config", lambda arguments: parsed_once(*arguments))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, parsing_once: None) -> list[tuple[str, int]]:
    """The trained runs with their last steps.

    The loss of a run is a parabola over the logarithm of its learning rate plus 1 / step, to two digits; a rate above 1
    diverges. Each step takes 2 seconds for 40 tokens.
    """
    found: list[tuple[str, int]] = []

    def train(arguments: Sequence[str], device: str | None = None) -> int:
        parsed = parsed_once(*arguments[1:])
        config = parsed.config
        run, steps = Run(run_directory(config)), config.trainer.max_steps
        found.append((run.name, steps))
        last = run.path / "last"
        start = int(last.read_text()) if last.exists() else 0
        if not run.record:
            run.create(linked={}, dataset={})
        run.begin_attempt(1, start)
        (run.path / "config.yaml").write_text(yaml.safe_dump(resume.kept_config(parsed)))
        rate = config.model.init_args.optimizer.init_args.lr
        if rate > 1:
            run.end_attempt("failed: not finite", 6)
            return 6
        every = config.trainer.val_check_interval
        every = every if isinstance(every, int) else steps
        journal = JournalWriter(run.path)
        for step in range(start + every, steps + 1, every):
            loss = round(math.log10(rate / BEST) ** 2, 2) + 1 / step
            journal.metrics(run.attempt["number"], step, 40 * step, 2.0 * step, {"val/loss": loss})
        journal.close()
        last.write_text(json.dumps(steps))
        run.end_attempt("finished", 0)
        return 0

    monkeypatch.setattr(planned_runs, "run_unroll", train)
    return found
