"""Runs survive forty injuries; `make chaos` inflicts two hundred on real commands, also on a Slurm cluster."""

import json
import sys
from pathlib import Path

import pytest
import torch

from tests import commands
from tests.chaos.home import ROOT
from tests.chaos.report import FAULTS, counted, page
from tests.chaos.tracker import Tracker
from tests.chaos.verdict import Result, bits

SEED = 1


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("setup", "kills"), [("one process", 8), ("DDP", 6), ("FSDP", 6)])
def test_a_run_that_is_hurt_again_and_again_ends_like_the_undisturbed_one(
    setup: str, kills: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--kills", str(kills), "--seed", str(SEED), "--setups", setup]
    options = ["--preloaded", "--minutes", "10", "--results", str(tmp_path), "--output", str(tmp_path / "table.json")]
    ran = commands.run([*command, *options], 300, cwd=ROOT)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    if "skipped" in ran.stdout:
        pytest.skip(ran.stdout.splitlines()[1])
    found = json.loads((tmp_path / "table.json").read_text())["setups"][setup]
    assert sum(found["injuries"].values()) == kills
    assert {fault: found[fault] for fault in FAULTS} == dict.fromkeys(FAULTS, 0)
    assert found["starts"] > found["runs"] >= 1


def test_missing_doubled_and_different_rows_are_counted() -> None:
    tracker = Tracker()
    tracker.state.rows["a"] = [{"step": step, "train/loss": 1.0 / step} for step in (1, 2, 2, 4)]
    whole = {step: 1.0 / step for step in (1, 2, 3, 4)}
    assert tracker.compare("a", {"train/loss": whole}) == {"missing": 1, "twice": 1, "different": 0}
    assert tracker.compare("a", {"train/loss": whole | {4: 0.3}}) == {"missing": 1, "twice": 1, "different": 1}
    assert tracker.compare("b", {"train/loss": whole}) == {"missing": 4, "twice": 0, "different": 0}
    tracker.die(silently=False)


def test_every_bit_of_a_tensor_counts() -> None:
    zero = torch.zeros(2, 3)
    assert bits(zero) == bits(torch.zeros(3, 2).T.contiguous())
    assert bits(zero) != bits(-zero)
    assert bits(zero) != bits(zero.double())
    assert bits(torch.tensor(1)) != bits(torch.tensor(2))


def test_the_table_counts_what_went_wrong() -> None:
    from dataclasses import asdict

    wrong = Result(1, [("SIGTERM", "start", 0, 1)], 2, ["hang"], ["failure"], ["7"], ["weight"], {"missing": 3})  # type: ignore[list-item]
    assert not wrong.faultless
    assert Result(1).faultless
    found = counted([asdict(wrong), asdict(Result(2, attempts=1))])
    assert [found[fault] for fault in FAULTS] == [1, 1, 1, 1, 3, 0, 0]
    table = {"minutes": 1, "seed": 2, "date": "today", "commit": "c0ffee", "setups": {"DDP": found}}
    assert "| SIGTERM | 1 |" in page(table)
    assert "| hangs | 1 |" in page(table)
    assert "1 injuries in 1 minutes" in page(table)
