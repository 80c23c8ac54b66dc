"""The exit code of a process: for the error that ended its work, and for the signal that killed it."""

import errno
import os
import sys
from collections.abc import Callable

from pipeline.distributed import signals
from pipeline.errors import TRY_AGAIN, UserError

FULL = {errno.ENOSPC, errno.EDQUOT}
CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG}


def of(work: Callable[[], int]) -> int:
    """Do the work and return its exit code, or that of the error that ended it, which is printed as one line.

    Args:
        work: returns an exit code. An error that no user can fix is raised as it is: a traceback follows.
    """
    try:
        return work()
    except UserError as error:
        return complain(str(error), error.exit_code, error.shared)
    except signals.Stopped:
        return TRY_AGAIN
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        if error.errno not in FULL | CLOSED:
            raise
        mend = "make room" if error.errno in FULL else "choose another place, or change its rights"
        where = f"{error.filename}: " if error.filename else ""
        return complain(f"{where}{error.strerror}; {mend}, then the same command goes on", 1)


def complain(message: str, exit_code: int, shared: bool = True) -> int:
    """One line to the user, from one of the processes where all say the same."""
    if not shared or os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        print(f"unroll: error: {' '.join(message.split())}", file=sys.stderr)
    return exit_code


def as_shell(code: int) -> int:
    """Return the exit code of a process as a shell reports it: 128 + n where signal n killed it.

    Args:
        code: as Python reports it: -n where signal n killed the process.
    """
    return code if code >= 0 else 128 - code
