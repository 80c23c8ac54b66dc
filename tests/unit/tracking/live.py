"""Attempts that write rows as training does, followed by the W&B logger."""

import time

from pipeline.tracking.wandb_logger import PatientWandbLogger
from tests.timeouts import scaled


def start(written, mode):
    """Begin the attempt that was last written to the journal."""
    logger = PatientWandbLogger(written.run, mode)
    logger.start_attempt(written.attempts, 0)
    return logger


def live(written, mode, *steps):
    """Return the logger of an attempt, after it has written rows at these steps."""
    logger = start(written, mode)
    for step in steps:
        written.rows(step)
        logger.log_metrics({}, step)
    return logger


def until(there):
    """Wait until `there` returns a true value."""
    deadline = time.monotonic() + scaled(60)
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.05)
