"""Time limits of tests in seconds of a quiet machine: on a slower or a busier one they are longer.

A limit is there to end a test that hangs, and never to measure speed: it has to hold on every machine.
"""

import os
import time

REFERENCE = 0.042  # seconds that a million turns of the loop below took on one core of 2.6 GHz (CPython 3.11)


LONGEST = 1200.0  # seconds of any limit, so that a test that hangs does not use up the time of all tests


def slowness() -> float:
    """How many times longer than on a quiet reference machine a process takes here and now; at least 1."""
    began = time.process_time()
    total = 0
    for number in range(1_000_000):
        total += number * number
    speed = (time.process_time() - began) / REFERENCE
    crowd = os.getloadavg()[0] / (os.cpu_count() or 1)
    return max(speed, 1.0) * max(crowd, 1.0)


def scaled(seconds: float) -> float:
    """The limit of what takes at most `seconds` on a quiet machine; the load may still double while it runs."""
    return min(2 * seconds * slowness(), LONGEST)
