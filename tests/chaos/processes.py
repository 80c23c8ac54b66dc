"""One start of a command, and the processes that come from it."""

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pipeline.distributed.exit_code import as_shell

Command = Callable[[list[str]], int]


class Process(NamedTuple):
    """A live process; its start time distinguishes it from a later one with the same id."""

    pid: int
    started: int
    parent: int


def live() -> dict[int, Process]:
    """Return all live processes of this machine, without zombies."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            fields = file.read_text().rpartition(")")[2].split()
            if fields[0] not in "ZX":
                found[int(file.parent.name)] = Process(int(file.parent.name), int(fields[19]), int(fields[1]))
    return found


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may have ended meanwhile."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


class Attempt:
    """A start of `unroll ARGUMENTS`.

    Args:
        arguments: the command line.
        home: the working directory.
        environment: the variables of the process.
        log: the file of its output.
        preloaded: fork this process, which has imported everything, instead of starting a real command.
    """

    def __init__(
        self, arguments: list[str], home: Path, environment: Mapping[str, str], log: Path, preloaded: Command | None
    ) -> None:
        self.began = time.monotonic()
        self.seen: set[Process] = set()
        with log.open("a") as output:
            if preloaded is None:
                command = [sys.executable, "-m", "pipeline", *arguments]
                started = subprocess.Popen(command, cwd=home, env=environment, stdout=output, stderr=subprocess.STDOUT)
                started.returncode = 0  # this class waits for it
                self.pid = started.pid
            else:
                self.pid = _forked(preloaded, arguments, home, environment, output.fileno())

    def poll(self) -> int | None:
        """Return the exit code as a shell reports it, or None while the process runs."""
        gone, status = os.waitpid(self.pid, os.WNOHANG)
        return as_shell(os.waitstatus_to_exitcode(status)) if gone else None

    def family(self) -> tuple[list[int], list[int]]:
        """Return the children of the process (the ranks, if there are several) and the other descendants."""
        table = live()
        generations, found = [[self.pid]], set[int]()
        while generations[-1]:
            parents = set(generations[-1])
            generations.append([pid for pid, process in table.items() if process.parent in parents])
            found |= parents
        self.seen |= {table[pid] for pid in found if pid in table}
        return generations[1], [pid for generation in generations[2:] for pid in generation]

    def kill(self) -> None:
        """End all processes at once, like a power loss."""
        children, others = self.family()
        for pid in (self.pid, *children, *others):
            send(pid, signal.SIGKILL)

    def left(self) -> list[Process]:
        """Return the processes of this attempt that have been seen and still exist."""
        table = live()
        return [each for each in self.seen if (now := table.get(each.pid)) and now.started == each.started]


def _forked(main: Command, arguments: list[str], home: Path, environment: Mapping[str, str], output: int) -> int:
    """Fork this process, call `main` in the child, and return its process id."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    code = 99
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.closerange(3, 4096)  # such as the socket at which the tracking server listens
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        os.chdir(home)
        os.environ.clear()
        os.environ.update(environment)
        code = main(arguments)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
