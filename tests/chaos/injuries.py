"""What a run suffers: signals to its processes, a full disk, a dead tracking server."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.chaos.processes import Attempt, send
from tests.chaos.tracker import Tracker

MOMENTS = {"start": 24, "training": 30, "saving": 18, "validation": 18, "end": 10}  # and their weights
STOPPED = {0, 75, 130, 137, 138, 143}  # exit codes of a finished, a stopped and a killed command
LOST = {7, 8}  # of a command that lost one of its processes
DISK = 64 * 2**20  # bytes of the small disk


class SmallDisk:
    """A file system in memory, which can be filled and freed.

    Args:
        place: directory at which it is mounted.
        mount: False to use the directory as it is.
    """

    def __init__(self, place: Path, mount: bool) -> None:
        self.place, self.filler = place, place / ".filler"
        place.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "chaos", str(place)]
        self.mounted = mount and subprocess.run(command, capture_output=True).returncode == 0

    def fill(self) -> None:
        """Leave no byte free."""
        with self.filler.open("wb", buffering=0) as file:
            for size in (2**20, 2**12):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def free(self) -> None:
        """Free the space again."""
        self.filler.unlink(missing_ok=True)


@dataclass
class Scene:
    """Everything that can be hurt during one attempt.

    Args:
        attempt: the started command.
        processes: number of training processes.
        disk: the disk of the runs.
        tracker: the tracking server.
        chance: the source of all random choices.
        repairs: what ends an injury, each with its time; the end of the attempt ends all.
    """

    attempt: Attempt
    processes: int
    disk: SmallDisk
    tracker: Tracker
    chance: Random
    repairs: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def repair(self, within: float, how: Callable[[], None]) -> None:
        """Schedule the end of an injury, at a random time."""
        self.repairs.append((time.monotonic() + self.chance.uniform(0.3, within), how))

    def repair_due(self, all_of_them: bool = False) -> None:
        """End the injuries whose time has come."""
        due = [each for each in self.repairs if all_of_them or each[0] <= time.monotonic()]
        for each in due:
            self.repairs.remove(each)
            each[1]()

    def rank(self) -> int:
        """Return a training process: a child of the command, or the command itself."""
        children, _ = self.attempt.family()
        return self.chance.choice(children[: self.processes]) if self.processes > 1 and children else self.attempt.pid

    def grandchild(self) -> int:
        """Return a loader worker or the tracking client; the command itself if there is none yet."""
        children, others = self.attempt.family()
        return self.chance.choice([*others, *(children if self.processes == 1 else [])] or [self.attempt.pid])


@dataclass(frozen=True)
class Injury:
    """A kind of injury.

    Args:
        inflict: hurts what is in the scene.
        weight: how often it is drawn.
        ends: whether the command must end; None if it may.
        codes: exit codes that are right besides those of a stopped or finished command.
        several: whether it requires several training processes.
        watched: whether it requires that the watchdog runs, which begins with the training.
    """

    inflict: Callable[[Scene], None]
    weight: int
    ends: bool | None = True
    codes: frozenset[int] = frozenset()
    several: bool = False
    watched: bool = False


def double(scene: Scene) -> None:
    """Send two signals within a moment to the command and its children, as Slurm and an impatient user do."""
    for first in (True, False):
        number = signal.SIGTERM if first else scene.chance.choice([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
        children, _ = scene.attempt.family()
        for pid in (scene.attempt.pid, *children[: scene.processes if scene.processes > 1 else 0]):
            send(pid, number)
        time.sleep(scene.chance.uniform(0, 0.2) if first else 0)


def pause(scene: Scene) -> None:
    """Suspend a process for up to three seconds."""
    children, others = scene.attempt.family()
    pid = scene.chance.choice([scene.attempt.pid, *children, *others])
    send(pid, signal.SIGSTOP)
    scene.repair(3.0, lambda: send(pid, signal.SIGCONT))


def fill_disk(scene: Scene) -> None:
    """Fill the disk for up to three seconds."""
    scene.disk.fill()
    scene.repair(3.0, scene.disk.free)


def shut_tracker(scene: Scene) -> None:
    """Shut the tracking server, or let it hang, for up to four seconds."""
    scene.tracker.die(silently=scene.chance.random() < 0.5)
    scene.repair(4.0, scene.tracker.revive)


INJURIES = {
    "SIGKILL to the parent": Injury(lambda scene: send(scene.attempt.pid, signal.SIGKILL), 18),
    "SIGKILL to a rank": Injury(lambda scene: send(scene.rank(), signal.SIGKILL), 18, codes=frozenset(LOST)),
    "SIGKILL to a grandchild": Injury(
        lambda scene: send(scene.grandchild(), signal.SIGKILL), 10, ends=None, codes=frozenset(LOST)
    ),
    "SIGKILL to all": Injury(lambda scene: scene.attempt.kill(), 8),
    "SIGTERM": Injury(lambda scene: send(scene.attempt.pid, signal.SIGTERM), 10),
    "SIGTERM to a rank": Injury(lambda scene: send(scene.rank(), signal.SIGTERM), 6, several=True),
    "two signals": Injury(double, 10),
    "SIGSTOP, SIGCONT": Injury(pause, 8, ends=False),
    "SIGSTOP of a rank for ever": Injury(
        lambda scene: send(scene.rank(), signal.SIGSTOP), 2, codes=frozenset(LOST), several=True, watched=True
    ),
    "full disk": Injury(fill_disk, 9, ends=None, codes=frozenset({1, 4})),
    "dead tracking server": Injury(shut_tracker, 7, ends=False),
}


def drawn(chance: Random, processes: int, disk: SmallDisk) -> str:
    """Return the name of an injury that can be inflicted here."""
    possible = [
        name
        for name, injury in INJURIES.items()
        if (processes > 1 or not injury.several) and (disk.mounted or name != "full disk")
    ]
    return chance.choices(possible, [INJURIES[name].weight for name in possible])[0]


def may_mount() -> list[str]:
    """Return the beginning of a command that may mount file systems of its own; empty if none is permitted."""
    spaces = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    probe = [*spaces, "mount", "-t", "tmpfs", "chaos", "/mnt"]
    try:
        return spaces if subprocess.run(probe, capture_output=True).returncode == 0 else []
    except OSError:
        return []
