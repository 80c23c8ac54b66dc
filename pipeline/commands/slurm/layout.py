"""A layout says how many nodes a job has and how many processes run on each: one for each GPU."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.arguments import positive_integer
from pipeline.distributed import launch
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Layout:
    """The processes of a job.

    Args:
        fewest: nodes that the job may start with.
        nodes: most that it takes.
        tasks: processes a node.
        gpus: a node; 0 for none.
    """

    fewest: int
    nodes: int
    tasks: int
    gpus: int

    @property
    def processes(self) -> int:
        """On all nodes, where it gets the most."""
        return self.nodes * self.tasks

    @property
    def span(self) -> str:
        """The nodes as sbatch takes them."""
        return f"{self.nodes}" if self.fewest == self.nodes else f"{self.fewest}-{self.nodes}"

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Layout":
        """What the command line asks for.

        Raises:
            ConfigError: another number of tasks than of GPUs.
        """
        gpus, tasks = options.gpus_per_node, options.tasks_per_node
        if gpus and tasks not in (None, gpus):
            raise ConfigError(f"--tasks-per-node={tasks}, but --gpus-per-node={gpus}: there is one task for each GPU")
        fewest, most = options.nodes
        return cls(fewest, most, int(gpus or tasks or 1), gpus)

    def check(self, trainer: Mapping[str, Any]) -> None:
        """Refuse a config whose trainer names another layout.

        Raises:
            ConfigError: its devices, nodes or accelerator are others.
        """
        devices, accelerator = trainer.get("devices"), trainer.get("accelerator")
        if str(devices) not in ("auto", "-1") and launch.count_processes(trainer) != self.tasks:
            raise ConfigError(
                f"trainer.devices={devices}, but {self.tasks} tasks a node: let --gpus-per-node (or --tasks-per-node) "
                "agree, or give -- --trainer.devices auto"
            )
        if trainer.get("num_nodes", 1) not in (1, self.nodes):
            raise ConfigError(f"trainer.num_nodes={trainer['num_nodes']}, but --nodes {self.span}")
        if self.gpus and accelerator == "cpu":
            raise ConfigError(f"trainer.accelerator=cpu would leave {self.gpus} GPUs a node idle: no --gpus-per-node")
        if not self.gpus and accelerator in ("gpu", "cuda"):
            raise ConfigError(f"trainer.accelerator={accelerator} wants GPUs: give --gpus-per-node")


def add_layout_options(parser: argparse.ArgumentParser) -> None:
    """Let a command line ask for a layout."""
    add = parser.add_argument
    more = "fewest and most: each start takes what there is"
    add("--nodes", type=span, default=(1, 1), metavar="N|N-M", help=f"nodes (default: 1), or {more}")
    add("--gpus-per-node", type=int, default=0, metavar="G", help="one task for each (default: 0, on the CPU)")
    add("--tasks-per-node", type=positive_integer, metavar="P", help="without GPUs: processes a node (default: 1)")


def span(text: str) -> tuple[int, int]:
    """`2` or `1-4`: the fewest and the most."""
    fewest, _, most = text.partition("-")
    low, high = positive_integer(fewest), positive_integer(most or fewest)
    if low > high:
        raise argparse.ArgumentTypeError(f"{text}: the fewest come first")
    return low, high


def divided(argv: list[str]) -> tuple[list[str], list[str]]:
    """The verb's own options, and the overrides of the config behind `--`."""
    if "--" not in argv:
        return argv, []
    place = argv.index("--")
    return argv[:place], argv[place + 1 :]
