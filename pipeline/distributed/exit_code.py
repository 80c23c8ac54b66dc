"""Exit codes for errors and signals."""

import errno
import os
import sys
from collections.abc import Callable

from pipeline.distributed import signals
from pipeline.errors import TRY_AGAIN, UserError, one_line

FULL = {errno.ENOSPC, errno.EDQUOT}
CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG}


def of(work: Callable[[], int]) -> int:
    """Call `work` and return its exit code, or the exit code of the error that it raised, printed as one line.

    Args:
        work: returns an exit code. Errors that a user cannot fix propagate.
    """
    try:
        return work()
    except UserError as error:
        return report_error(str(error), error.exit_code, error.shared)
    except signals.Stopped:
        return TRY_AGAIN
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno not in FULL | CLOSED:
            raise
        action = "Free disk space" if error.errno in FULL else "Choose another path or change its permissions"
        where = f"{error.filename}: " if error.filename else ""
        return report_error(f"{where}{error.strerror}. {action}, then run the same command again.", 1)


def report_error(message: str, exit_code: int, shared: bool = True) -> int:
    """Print an error as one line and return its exit code; an error of all processes is printed by rank 0 only."""
    if not shared or os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        print(f"unroll: error: {one_line(' '.join(message.split()))}", file=sys.stderr)
    return exit_code


def as_shell(code: int) -> int:
    """Return the exit code of a process as a shell reports it: 128 + n if signal n killed it.

    Args:
        code: as Python reports it: -n if signal n killed the process.
    """
    return code if code >= 0 else 128 - code
