"""Run `unroll` commands in forked processes that share the imports of this one.

A forked process does not run Python's exit handlers, so its temporary files are not removed.
"""

import multiprocessing
import runpy
import sys
from collections.abc import Iterable, Sequence
from multiprocessing.process import BaseProcess

from pipeline.commands import imports
from pipeline.distributed import exit_code, signals

# Imports of every training; they take several seconds.
IMPORTED = ("lightning.pytorch.cli", "pipeline.commands.fit", "pipeline.data.module", "pipeline.tasks.task")


def import_once(modules: Iterable[str] = IMPORTED) -> None:
    """Import the modules that all commands share."""
    imports.load_lightning()
    for module in modules:
        imports.load(module)


def start_subcommand(arguments: Sequence[str]) -> BaseProcess:
    """Start `unroll ARGUMENTS` with the standard output and error of this process."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(arguments,))
    process.start()
    return process


def wait(process: BaseProcess) -> int:
    """Wait until the process ends and return its exit code; 128 + n if signal n killed it, as in a shell."""
    process.join()
    return exit_code.as_shell(process.exitcode or 0)


def _run(arguments: Sequence[str]) -> None:
    signals.forget()
    sys.argv = ["unroll", *arguments]
    runpy.run_module("pipeline", run_name="__main__")
