"""`unroll logs RUN`: what a run's newest job said, and with -f what it says until it is over."""

import shutil
import sys
import time
from pathlib import Path

from pipeline.arguments import Parser
from pipeline.commands.slurm import queue

PAUSE = 1.0  # seconds between two looks at the file
LOOKS = 10  # of them between two questions to the queue


def main(argv: list[str]) -> int:
    """Print the log.

    Raises:
        CheckpointError: there is no such run, or no job of it has started.
    """
    parser = Parser(prog="unroll logs", description=__doc__)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job is over")
    options = parser.parse_args(argv)
    run = queue.submitted(options.run)
    if options.follow:
        follow(run)
    else:
        sys.stdout.write(queue.log_of(run).read_text(errors="replace"))
    return 0


def follow(run: Path) -> None:
    """Print what is there and what comes, through requeues, until the job is neither waiting nor running."""
    while not queue.logs_of(run) and queue.live(run, queue.queue()):
        time.sleep(PAUSE)
    with queue.log_of(run).open(errors="replace") as log:
        alive = True
        while alive:
            alive = queue.live(run, queue.queue()) is not None
            for _ in range(LOOKS if alive else 1):
                shutil.copyfileobj(log, sys.stdout)
                sys.stdout.flush()
                time.sleep(PAUSE if alive else 0)
