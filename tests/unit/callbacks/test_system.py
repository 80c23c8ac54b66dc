"""Processor time is measured between two rows."""

import time

from pipeline.callbacks.system import System


def test_processor_seconds_are_counted_from_row_to_row(monkeypatch):
    used, now = [10.0, 11.5, 11.5], [100.0, 103.0, 105.0]
    monkeypatch.setattr("pipeline.callbacks.system._used", lambda: used.pop(0))
    monkeypatch.setattr(time, "perf_counter", lambda: now.pop(0))
    system = System()
    assert system.row()["system/cpu"] == 0.5
    assert system.row()["system/cpu"] == 0.0
