"""The layout of a job: number of nodes, and processes per node, one per GPU."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.arguments import positive_integer
from pipeline.distributed import launch
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Layout:
    """The processes of a job.

    Args:
        fewest: minimum number of nodes.
        nodes: maximum number of nodes.
        tasks: processes per node.
        gpus: GPUs per node; 0 for training on CPUs.
    """

    fewest: int
    nodes: int
    tasks: int
    gpus: int

    @property
    def processes(self) -> int:
        """Return the number of processes on the maximum number of nodes."""
        return self.nodes * self.tasks

    @property
    def span(self) -> str:
        """Return the nodes in the format of sbatch."""
        return f"{self.nodes}" if self.fewest == self.nodes else f"{self.fewest}-{self.nodes}"

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Layout":
        """Return the layout of the command line.

        Raises:
            ConfigError: the numbers of tasks and GPUs differ.
        """
        gpus, tasks = options.gpus_per_node, options.tasks_per_node
        if gpus and tasks not in (None, gpus):
            raise ConfigError(f"--tasks-per-node={tasks}: expected one task per GPU (--gpus-per-node={gpus}). Omit it")
        fewest, most = options.nodes
        return cls(fewest, most, int(gpus or tasks or 1), gpus)

    def check(self, trainer: Mapping[str, object]) -> None:
        """Refuse a config whose trainer has another layout.

        Raises:
            ConfigError: devices, nodes or accelerator of the trainer differ.
        """
        devices, accelerator = trainer.get("devices"), trainer.get("accelerator")
        if str(devices) not in ("auto", "-1") and launch.count_processes(trainer) != self.tasks:
            raise ConfigError(
                f"trainer.devices={devices}: expected {self.tasks}, the tasks per node. Change --gpus-per-node or "
                "--tasks-per-node, or override with `-- --trainer.devices auto`"
            )
        if trainer.get("num_nodes", 1) not in (1, self.nodes):
            raise ConfigError(
                f"trainer.num_nodes={trainer['num_nodes']}: expected --nodes={self.span}. Change one of them"
            )
        if self.gpus and accelerator == "cpu":
            raise ConfigError(f"trainer.accelerator=cpu: {self.gpus} GPUs per node would be idle. Omit --gpus-per-node")
        if not self.gpus and accelerator in ("gpu", "cuda"):
            raise ConfigError(f"trainer.accelerator={accelerator}: no GPUs requested. Give --gpus-per-node")


def add_layout_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a layout to a parser."""
    add = parser.add_argument
    nodes = "number of nodes, or minimum and maximum: each start uses the available nodes (default: 1)"
    add("--nodes", type=span, default=(1, 1), metavar="N|N-M", help=nodes)
    add("--gpus-per-node", type=int, default=0, metavar="G", help="GPUs per node, one task each (default: 0, CPU only)")
    add("--tasks-per-node", type=positive_integer, metavar="P", help="processes per node without GPUs (default: 1)")


def add_start_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that decide how a run starts, as `unroll fit` has them."""
    add = parser.add_argument
    add("--from", dest="source", metavar="SOURCE", help="start from the weights of a run, an export or a file")
    add("--freeze", action="append", default=[], metavar="PATTERN", help="do not train these parameters (repeatable)")


def start_overrides(options: argparse.Namespace) -> list[str]:
    """Return the options of `add_start_options` as overrides of the config."""
    source = [] if options.source is None else ["--from", options.source]
    return [*source, *(word for pattern in options.freeze for word in ("--freeze", pattern))]


def span(text: str) -> tuple[int, int]:
    """Read `2` or `1-4` as the minimum and maximum number of nodes."""
    fewest, _, most = text.partition("-")
    low, high = positive_integer(fewest), positive_integer(most or fewest)
    if low > high:
        raise argparse.ArgumentTypeError(f"expected MINIMUM-MAXIMUM, got {text}")
    return low, high


def divided(argv: list[str]) -> tuple[list[str], list[str]]:
    """Split arguments at `--` into the command's own options and overrides of the config."""
    if "--" not in argv:
        return argv, []
    place = argv.index("--")
    return argv[:place], argv[place + 1 :]
