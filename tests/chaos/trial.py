"""A run that is hurt and started again until it finishes, then compared with an undisturbed one."""

import os
import signal
import time
from random import Random

from tests.chaos.home import Home
from tests.chaos.injuries import INJURIES, MOMENTS, STOPPED, Scene, drawn
from tests.chaos.processes import Attempt
from tests.chaos.verdict import Hurt, Result, verify
from tests.timeouts import scaled

PATIENCE = 90.0  # seconds of a quiet machine without any progress, after which a command hangs
TRIES = 40  # starts of a run, after which it is given up


class Plan:
    """The next injury of an attempt: its kind, the moment to wait for, and the seconds after that.

    Args:
        home: the run's surroundings.
        chance: the source of all random choices.
        again: whether the attempt was hurt before, so that its start is over.
    """

    def __init__(self, home: Home, chance: Random, again: bool) -> None:
        self.kind = drawn(chance, home.processes, home.disk)
        started = again or INJURIES[self.kind].watched
        weights = {moment: weight for moment, weight in MOMENTS.items() if moment != "start" or not started}
        self.moment = chance.choices(list(weights), list(weights.values()))[0]
        longest = {"start": home.started, "training": 1.0, "end": 0.3}.get(self.moment, 0.05)
        self.delay = chance.uniform(0, longest)
        self.reached: float | None = None

    def due(self, moment: str) -> bool:
        """Return whether to inflict the injury now."""
        waits = self.moment not in (moment, "start") and moment != "end"  # the end is the last opportunity
        if self.reached is None and not waits:
            self.reached = time.monotonic()
        return self.reached is not None and time.monotonic() >= self.reached + self.delay


class Trial:
    """One run, hurt `kills` times at most.

    Args:
        home: its surroundings.
        seed: decides everything that is random.
        number: the number of the run.
        kills: after which it is left alone.
    """

    def __init__(self, home: Home, seed: str, number: int, kills: int) -> None:
        self.home, self.kills, self.name = home, kills, f"run-{number}"
        self.chance = Random(f"{seed} {number}")
        self.result = Result(number)
        self.seen: list[Attempt] = []

    def run(self) -> Result:
        """Start the command until the run is finished, then verify it."""
        began = time.monotonic()
        while not self.attempt():
            if self.result.attempts >= TRIES:
                self.result.failures.append(f"not finished after {TRIES} starts")
                return self.result
        verify(self.home, self.name, self.result)
        self.result.leftovers = self.leftovers()
        self.result.seconds = round(time.monotonic() - began, 1)
        return self.result

    def attempt(self) -> bool:
        """Start the command once, hurt it, and return whether the run is finished."""
        home, self.result.attempts = self.home, self.result.attempts + 1
        self.seen.append(attempt := home.start(self.name))
        scene = Scene(attempt, home.processes, home.disk, home.tracker, self.chance)
        hurts: list[str] = []
        try:
            code = self.follow(scene, hurts)
        except BaseException:
            attempt.kill()
            raise
        finally:
            scene.repair_due(all_of_them=True)
        return self.judge(code, hurts)

    def follow(self, scene: Scene, hurts: list[str]) -> int:
        """Hurt the running attempt until it ends, and return its exit code; one that makes no progress is killed."""
        patience = scaled(PATIENCE)
        at, until = ("start", 0), time.monotonic() + patience
        plan = self.plan(hurts)
        while (code := scene.attempt.poll()) is None:
            scene.repair_due()
            now = self.home.moment(self.name)
            if now != at and not any(INJURIES[kind].ends for kind in hurts):
                at, until = now, time.monotonic() + patience
            if plan is not None and plan.due(now[0]):
                self.hurt(plan.kind, scene, *now)
                hurts.append(plan.kind)
                plan, until = self.plan(hurts), time.monotonic() + patience
            if time.monotonic() > until:
                self.result.hangs.append(f"attempt {self.result.attempts} at {now} after {hurts or 'nothing'}")
                scene.attempt.kill()
                os.waitpid(scene.attempt.pid, 0)
                return 128 + signal.SIGKILL
            time.sleep(0.005)
        return code

    def plan(self, hurts: list[str]) -> Plan | None:
        """Return the next injury of an attempt; None if it must end, or if the run has suffered enough."""
        enough = len(self.result.hurts) >= self.kills or any(INJURIES[kind].ends for kind in hurts)
        return None if enough else Plan(self.home, self.chance, again=bool(hurts))

    def hurt(self, kind: str, scene: Scene, moment: str, step: int) -> None:
        """Inflict an injury and print a line about it."""
        INJURIES[kind].inflict(scene)
        self.result.hurts.append(Hurt(kind, moment, step, self.result.attempts))
        after = time.monotonic() - scene.attempt.began
        print(
            f"  {self.name}, attempt {self.result.attempts}, {after:5.1f} s, step {step:3}, {moment}: {kind}",
            flush=True,
        )

    def judge(self, code: int, hurts: list[str]) -> bool:
        """Return whether the run is finished; record an exit code that nothing explains."""
        right = STOPPED.union(*(INJURIES[kind].codes for kind in hurts)) if hurts else {0}
        attempts = self.home.record(self.name)["attempts"]
        finished = code == 0 and bool(attempts) and attempts[-1]["reason"] == "finished"
        if code not in right or (code == 0 and not finished):
            what = f"attempt {self.result.attempts}: exit code {code} after {hurts or 'nothing'}"
            self.result.failures.append(what)
            print(f"  {self.name}: {what}", flush=True)
        return finished

    def leftovers(self) -> list[str]:
        """Return processes that remain from attempts that ended."""
        until = time.monotonic() + scaled(15)
        while (left := [each for attempt in self.seen for each in attempt.left()]) and time.monotonic() < until:
            time.sleep(0.2)
        return [f"{each.pid}" for each in left]
