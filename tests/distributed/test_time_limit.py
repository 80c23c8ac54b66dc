"""A run that ends by the clock: a stop before that changes no step, and what was trained before it counts."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

from pipeline.journal import read

Fit = Callable[..., int]


def test_a_stopped_run_has_only_the_rest_of_its_time(fit: Fit, tmp_path: Path) -> None:
    keys = ["trainer.max_steps", -1, "trainer.max_time", '{"seconds": 1}', "trainer.log_every_n_steps", 1]
    assert fit("straight", *keys) == 0
    assert fit("cut", *keys, die=(signal.SIGTERM, 3)) == 75
    assert fit("cut", *keys) == 0
    rows = [read(tmp_path / "runs" / name).series("train/loss") for name in ("straight", "cut")]
    common = min(len(series.values) for series in rows)
    assert common > 3
    assert rows[0].values[:common] == rows[1].values[:common]
    for series in rows:
        assert series.seconds == sorted(series.seconds)
        assert series.seconds[-1] >= 1 > series.seconds[-2]
    attempts = json.loads((tmp_path / "runs" / "cut" / "run.json").read_text())["attempts"]
    assert [attempt["start_step"] > 0 for attempt in attempts] == [False, True]
    assert fit("cut", *keys) == 0
    assert len(json.loads((tmp_path / "runs" / "cut" / "run.json").read_text())["attempts"]) == 2
