"""`unroll logs RUN`: print the log of a run's latest job; with -f, follow it until the job ends."""

import shutil
import sys
import time
from pathlib import Path

from pipeline.arguments import Parser
from pipeline.commands.slurm import queue

PAUSE = 1.0  # seconds between two reads of the file
LOOKS = 10  # reads of the file between two reads of the queue


def main(argv: list[str]) -> int:
    """Print the log.

    Raises:
        CheckpointError: the run does not exist, or none of its jobs has started.
    """
    parser = Parser(prog="unroll logs", description=__doc__)
    parser.add_argument("run", metavar="RUN", help="name of a run under runs/, or its path")
    parser.add_argument("-f", "--follow", action="store_true", help="follow the log until the job ends")
    options = parser.parse_args(argv)
    run = queue.submitted(options.run)
    if options.follow:
        follow(run)
    else:
        sys.stdout.write(queue.log_of(run).read_text(errors="replace"))
    return 0


def follow(run: Path) -> None:
    """Print the log and follow it, through requeues, until the job is no longer in the queue."""
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
