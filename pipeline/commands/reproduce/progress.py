"""Print the intermediate figures of a recipe as training passes them."""

import time
from pathlib import Path

from pipeline.commands.reproduce.recipe import Recipe
from pipeline.commands.reproduce.result import points_passed
from pipeline.runs.journal import read_journal

PAUSE = 5.0  # minimum number of seconds between two readings of the journal


class PassedPoints:
    """The points of a recipe that a run has passed, each printed once.

    Args:
        recipe: the recipe.
        run: directory of the run, which may not exist yet.
    """

    def __init__(self, recipe: Recipe, run: Path) -> None:
        self.recipe, self.run = recipe, run
        self.printed: set[int] = set()
        self.next = 0.0

    def look(self) -> None:
        """Print new points, if the journal has not been read for a while."""
        if len(self.printed) < len(self.recipe.points) and time.monotonic() >= self.next:
            self.next = time.monotonic() + PAUSE
            self.print_new()

    def print_new(self) -> None:
        """Print the points that the journal contains and that were not printed."""
        try:
            series = read_journal(self.run).series(self.recipe.validated)
        except OSError:  # training has not begun
            return
        for step, value in points_passed(self.recipe, series).items():
            if step not in self.printed:
                self.printed.add(step)
                expected = self.recipe.points[step]
                print(f"after {step:,} steps: {value:.4g}, expected {expected:.4g}", flush=True)
