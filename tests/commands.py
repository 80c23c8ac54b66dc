"""Commands that tests start: they end in time, with all processes that come from them, and their output is kept."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess

from tests.timeouts import scaled


def run(
    command: Sequence[str | Path], seconds: float, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> CompletedProcess[str]:
    """Run a command as a process group of its own, and return its exit code and output.

    `subprocess.run` waits for ever if a timeout ends the command but not the processes it started, which hold the
    pipes of its output. Here the output goes to files, and the whole group is killed in every case.

    Args:
        command: the command line.
        seconds: time limit on a quiet machine.
        cwd: working directory.
        env: environment; None for that of this process.

    Raises:
        AssertionError: when the time is over, with the output and the stack of each Python process.
    """
    environment = {**(os.environ if env is None else env), "PYTHONFAULTHANDLER": "1"}
    limit = scaled(seconds)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdout=out,
            stderr=error,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        late = False
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            late = True
            os.killpg(process.pid, signal.SIGABRT)  # the fault handler writes the stacks
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        texts = [file.seek(0) or file.read() for file in (out, error)]
    assert not late, f"{command} did not end in {limit:.0f} s:\n{texts[0][-5000:]}\n{texts[1][-20000:]}"
    return CompletedProcess(list(map(str, command)), process.returncode, texts[0], texts[1])
