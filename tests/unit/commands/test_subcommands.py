"""Subcommands run in their own processes and return the exit codes of a shell."""

import os
import signal
from pathlib import Path

import pytest

from pipeline.commands import subcommands
from pipeline.distributed import signals


def test_it_prints_and_returns_what_the_command_alone_would(capfd: pytest.CaptureFixture[str]) -> None:
    assert subcommands.wait(subcommands.start_subcommand(["fit", "--help"])) == 0
    assert capfd.readouterr().out.startswith("usage: unroll fit --config FILE.yaml")
    assert subcommands.wait(subcommands.start_subcommand(["compare", "nobody"])) == 4
    assert "unroll: error: nothing to compare" in capfd.readouterr().err


def test_a_process_that_a_signal_killed_has_the_exit_code_of_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subcommands.runpy, "run_module", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    assert subcommands.wait(subcommands.start_subcommand(["fit"])) == 137


def test_a_stop_of_the_command_does_not_stop_its_subcommand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written = tmp_path / "written"
    monkeypatch.setattr(subcommands.runpy, "run_module", lambda *_, **__: written.write_text(str(signals.requested())))
    signals.install()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.requested() == signal.SIGTERM
        assert subcommands.wait(subcommands.start_subcommand(["fit"])) == 0
    finally:
        signals.forget()
    assert written.read_text() == "None"
