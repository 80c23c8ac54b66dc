"""`--run` is a name below runs/ or the path of a run's directory, and nothing else."""

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.runs.run import directory_of, name_of
from pipeline.training.config import _values


@pytest.mark.parametrize("name", ["", ".", "..", "-x", "a\nb", "a\x00", "runs/..", "./runs/", "runs/../.", "/"])
def test_names_that_are_not_a_run_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="expected a"):
        directory_of(name)


@pytest.mark.parametrize("name", ["a", "null", "~", "#3", "a b", "a/", "runs/a", "../a", "/tmp/x/a", ".hidden"])
def test_a_name_is_a_directory_of_runs_and_a_path_is_itself(name: str) -> None:
    expected = name.rstrip("/")
    found = directory_of(name)
    assert str(found) == (expected if "/" in expected else f"runs/{expected}")
    assert directory_of(name_of(found)) == found


def test_the_name_is_that_of_the_command_line_not_of_its_yaml() -> None:
    assert _values(["--run", "null", "--x", "1", "--run=~", "--run"], "run") == ["null", "~", ""]
