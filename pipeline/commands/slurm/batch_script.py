"""Write the batch script of a job: its options, its environment, then slurm/train.sbatch."""

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.commands.slurm.layout import Layout
from pipeline.commands.slurm.profile import Profile
from pipeline.errors import ConfigError
from pipeline.runs.journal import FILE, read_journal
from pipeline.training.shipped_configs import SLURM

TRAIN = SLURM / "train.sbatch"
LEAD = 120  # minimum seconds between the signal to save and exit and the time limit
LATENESS, MARGIN = 60, 3  # seconds for the exit itself; number of steps and saves before it


PLAIN = re.compile(r"[A-Za-z0-9_./+=,:@-]+")  # neither split nor expanded by sbatch
OPTION = re.compile(r"--[a-z-]+(=[A-Za-z0-9_./+=,:@%-]+)?")  # with the patterns of --output


@dataclass(frozen=True)
class Element:
    """One run of a job.

    Args:
        run: directory of the run.
        arguments: arguments of `unroll fit`, the first one a config.
    """

    run: Path
    arguments: Sequence[str]


@dataclass(frozen=True)
class Job:
    """A job to submit.

    Args:
        name: name of the job.
        elements: the runs; several form an array.
        layout: nodes and processes per run.
        time: time limit in a format of sbatch.
        lead: seconds between the signal to save and exit and the time limit.
        command: command that starts unroll on every node.
        home: working directory of the job.
        more: additional options of sbatch.
    """

    name: str
    elements: Sequence[Element]
    layout: Layout
    time: str
    lead: int
    command: str
    home: Path
    more: Sequence[str] = ()

    def script(self, profile: Profile) -> str:
        """Return the text of the script."""
        lines = [*self._head(self._options(profile), profile), *self._surroundings(profile)]
        if len(self.elements) == 1:
            lines += [f"set -- {shlex.join(self.elements[0].arguments)}"]
        else:
            lines += ["case $SLURM_ARRAY_TASK_ID in"]
            lines += [f"  {k}) set -- {shlex.join(each.arguments)} ;;" for k, each in enumerate(self.elements, 1)]
            lines += ["esac"]
        return _sourced(lines, TRAIN)

    def preparation(self, profile: Profile, arguments: Sequence[str]) -> str:
        """Return the text of a job on one node that prepares the dataset before this job starts.

        Args:
            profile: profile of the cluster.
            arguments: arguments of `unroll prepare`; the job requests as many CPUs as its `--workers N`.
        """
        words, workers = [part for word in arguments for part in _parts(word)], "1"
        if "--workers" in words[:-1]:
            place = words.index("--workers")
            workers, words = words[place + 1], words[:place] + words[place + 2 :]
        named = ("job-name", "nodes", "ntasks-per-node", "cpus-per-task", "gpus-per-node", "signal", "output", "array")
        kept = [option for option in self._options(profile) if option.split("=")[0].removeprefix("--") not in named]
        options = [f"--job-name=prepare-{self.name}", "--nodes=1", "--ntasks-per-node=1", f"--cpus-per-task={workers}"]
        options += ["--signal=B:USR1@60", *kept]
        options.append(f"--output={self.elements[0].run.parent / f'prepare-{self.name}-%j.out'}")
        lines = [*self._head(options, profile), *self._surroundings(profile), f"set -- {shlex.join(words)}"]
        return _sourced(lines, TRAIN.with_name("prepare.sbatch"))

    def _head(self, options: Sequence[str], profile: Profile) -> list[str]:
        """Return the first lines; sbatch reads them without a shell, which could quote a value.

        Raises:
            ConfigError: an option has a character that ends or changes the value.
        """
        run = str(self.elements[0].run)
        for value in (run, self.name, str(self.home)):
            if not PLAIN.fullmatch(value):
                raise ConfigError(
                    f"{value!r}: expected letters, digits and _ - . / + = , : @ in the name and path of a run "
                    "for Slurm. Choose another --run, or another directory"
                )
        for option in options:
            own = option in profile.directives
            if not (option.isascii() and option.isprintable() if own else OPTION.fullmatch(option)):
                raise ConfigError(
                    f"option of sbatch {option!r}: expected "
                    f"{'printable ASCII characters' if own else 'letters, digits and _ - . / + = , : @'}. Change it"
                )
        return ["#!/bin/bash", *(f"#SBATCH {option}" for option in options), ""]

    def _surroundings(self, profile: Profile) -> list[str]:
        """Return the shell function that loads modules and sets variables; TRAIN calls it."""
        return [
            "surroundings() {",
            *([f"module load {shlex.join(map(str, profile.modules))}"] if profile.modules else []),
            *(f"export {name}={shlex.quote(str(value))}" for name, value in profile.environment.items()),
            f"export UNROLL={shlex.quote(self.command)}",
            f"export UNROLL_NODES={self.layout.span if self.layout.fewest < self.layout.nodes else ''}",
            "}",
        ]

    def _options(self, profile: Profile) -> list[str]:
        array = len(self.elements) > 1
        given = {"partition": profile.partition, "account": profile.account, "qos": profile.qos}
        return [
            f"--job-name={self.name}",
            f"--nodes={self.layout.span}",
            f"--ntasks-per-node={self.layout.tasks}",
            *([f"--gpus-per-node={self.layout.gpus}"] if self.layout.gpus else []),
            f"--time={self.time}",
            f"--signal=USR1@{self.lead}",
            "--requeue",
            "--open-mode=append",
            f"--chdir={self.home}",
            f"--output={self._output()}",
            *([f"--array=1-{len(self.elements)}"] if array else []),
            *(f"--{option}={value}" for option, value in given.items() if value),
            *profile.directives,
            *self.more,
        ]

    def _output(self) -> Path:
        """Return the path of the log: in the directory of each run, or beside it if sbatch has no pattern for that."""
        first = self.elements[0].run
        if len(self.elements) == 1:
            return first / "slurm-%j.out"
        numbered = [element.run.name for element in self.elements] == [
            f"{self.name}-{k}" for k in range(1, len(self.elements) + 1)
        ]
        return first.parent / (f"{self.name}-%a/slurm-%A_%a.out" if numbered else "slurm-%A_%a.out")


def _parts(word: str) -> list[str]:
    """Split `--workers=8` into two words."""
    return word.split("=", 1) if word.startswith("--workers=") else [word]


def _sourced(lines: Sequence[str], script: Path) -> str:
    """Return a script of these lines that then sources `script`.

    Raises:
        ConfigError: sbatch does not accept a character.
    """
    text = "\n".join([*lines, "# shellcheck source=/dev/null", f". {shlex.quote(str(script))}", ""])
    if found := re.search("\0|\r\n|[\ud800-\udfff]", text):
        raise ConfigError(f"the arguments or the profile contain {found.group()!r}: expected text. Remove it")
    return text


def lead(run: Path) -> int:
    """Return the seconds that a run requires from the signal to its exit, from the durations of its steps and saves."""
    if not (run / FILE).exists():
        return LEAD
    journal = read_journal(run)
    series = journal.series("train/loss")
    spans = zip(series.steps, series.seconds, series.steps[1:], series.seconds[1:], strict=False)
    step = max(((after - before) / (last - first) for first, before, last, after in spans), default=0.0)
    stall = max(journal.series("train/checkpoint_stall").values, default=0.0)
    return max(LEAD, math.ceil(LATENESS + MARGIN * (step + stall)))
