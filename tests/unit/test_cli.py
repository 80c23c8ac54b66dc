"""The command line tells what there is at once, and what the disk refuses in one line."""

import errno
import os
import subprocess
import sys
import types

import pytest

from pipeline import cli


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["generate", "--help"], ["prepare", "--help"]])
def test_help_does_not_wait_for_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from pipeline import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'datasets', 'wandb'}\n"
        "sys.exit(','.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: unroll" in done.stdout


def test_a_verb_alone_tells_how_to_use_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fit"]) == 2
    assert "usage: unroll fit" in capsys.readouterr().out
    assert cli.main(["fits"]) == 2
    assert "no verb 'fits'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "No space left on device; make room"),
        (errno.EACCES, "Permission denied; choose another place, or change its rights"),
    ],
)
def test_what_the_disk_refuses_is_one_line(
    number: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: list[str]) -> int:
        raise OSError(number, os.strerror(number), "/data/x")

    monkeypatch.setattr("importlib.import_module", lambda _: types.SimpleNamespace(main=refuse))
    assert cli.main(["compare", "x"]) == 1
    assert capsys.readouterr().err.startswith(f"unroll: error: /data/x: {said}, then the same command goes on")


@pytest.mark.parametrize("verb", sorted(set(cli.VERBS) - {"prepare"}))
def test_a_misspelt_option_is_one_line(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--nonsense"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("unroll: error: ")
    assert told.err.count("\n") == 1
