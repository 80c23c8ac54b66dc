"""A command that gives other commands: each runs in a process of its own, forked from one that has made the imports.

Such a process does not run what Python runs at its exit, so what it keeps in the directory of temporary files stays.
"""

import importlib
import multiprocessing
import runpy
import sys
from collections.abc import Iterable, Sequence
from multiprocessing.process import BaseProcess

from pipeline.distributed import signals

# What every training imports: several seconds, once.
IMPORTED = ("lightning.pytorch.cli", "pipeline.commands.fit", "pipeline.data.module", "pipeline.tasks.task")


def import_once(modules: Iterable[str] = IMPORTED) -> None:
    """Import what the commands have in common, so that none of them waits for it."""
    for module in modules:
        importlib.import_module(module)


def start(arguments: Sequence[str]) -> BaseProcess:
    """Start `unroll ARGUMENTS`, which writes where this process writes."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(arguments,))
    process.start()
    return process


def wait(process: BaseProcess) -> int:
    """Wait for its end; the exit code as a shell tells it: 128 + n for a process that signal n killed."""
    process.join()
    code = int(process.exitcode or 0)
    return code if code >= 0 else 128 - code


def _run(arguments: Sequence[str]) -> None:
    signals.forget()
    sys.argv = ["unroll", *arguments]
    runpy.run_module("pipeline", run_name="__main__")
