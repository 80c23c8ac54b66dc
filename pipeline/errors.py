"""Errors that the user can fix are reported as one line and an exit code, without a traceback.

| code | class | who acts |
|---|---|---|
| 0 | success | nobody |
| 1 | any other failure | the developers: a traceback follows |
| 2 | ConfigError | the user: fix the config or the command line |
| 3 | DataError | the user: fix the source or the dataset |
| 4 | CheckpointError | the user: check the run, the checkpoint or the disk |
| 5 | OutOfMemoryError | the user: use smaller micro-batches or a sharded strategy |
| 6 | NonFiniteError | the user: check learning rate, clipping, and the samples listed in the journal |
| 7 | LostPeerError | the scheduler: another process exited; start the same command again |
| 8 | HangError | the scheduler: start the same command again; the user: read the stack traces in the run |
| 75 | stopped and saved | the scheduler: start the same command again |
"""

import re

TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h
LONGEST = 2000  # characters of a message
UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def one_line(text: str, longest: int = LONGEST) -> str:
    """Return a text, which may contain data of a file, as one line that can be printed, cut to a length."""
    line = UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)
    return line if len(line) <= longest else f"{line[:longest]}..."


class UserError(Exception):
    """An error that the user can fix; the message names the cause and the fix."""

    exit_code = 1
    shared = True  # every process of a run raises it, so one of them reports it


class ConfigError(UserError):
    """A config or a command line is invalid."""

    exit_code = 2


class TooLongError(ConfigError, ValueError):
    """A sequence is longer than the network supports; only the process that reads the sequence raises it."""

    shared = False


class DataError(UserError):
    """A source or a dataset is missing, damaged or of the wrong kind."""

    exit_code = 3


class SampleError(DataError):
    """A sample cannot be read in the middle of an epoch; only the process that reads it raises it.

    Args:
        message: what is wrong. Of a traceback from a loader worker, only the last line is kept.
    """

    shared = False

    def __init__(self, message: str) -> None:
        super().__init__(message.rstrip().rpartition("pipeline.errors.SampleError: ")[2])


class CheckpointError(UserError):
    """A run or a checkpoint is missing, damaged, of a different model, or not writable."""

    exit_code = 4


class NonFiniteError(UserError):
    """Losses or gradients are non-finite or spike, and rolling back to an earlier checkpoint did not help."""

    exit_code = 6


class OutOfMemoryError(UserError):
    """A process ran out of memory."""

    exit_code = 5
    shared = False


class LostPeerError(UserError):
    """Another process of the run exited or stopped responding."""

    exit_code = 7
    shared = False


class HangError(UserError):
    """The run makes no progress in any process."""

    exit_code = 8
    shared = False


MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")
MISFIT = ("error(s) in loading state_dict", "loaded state dict")
WORKER = re.compile(r"DataLoader worker \(pid\D*[\d, ]+\) (is killed by signal|exited unexpectedly)")
LOST = ("closed by peer", "reset by peer", "broken pipe", "gloo", "nccl")


def lost_worker(what: str) -> LostPeerError:
    """Return the error of a loader worker that was killed."""
    return LostPeerError(
        f"a loader worker was killed ({what}). The same command continues from the last checkpoint. If this recurs, "
        "the node lacks memory or shared memory: lower data.init_args.workers"
    )


def classify(error: Exception, processes: int) -> Exception:
    """Return the UserError that a failure in training stands for, or the error itself if there is none.

    Args:
        error: the exception that training raised.
        processes: number of processes of the run; with one, no peer can be lost.
    """
    text = str(error).strip()
    lower = text.lower()
    if isinstance(error, UserError):
        return error
    if isinstance(error, MemoryError) or any(words in lower for words in MEMORY):
        first = text.splitlines()[0] if text else type(error).__name__
        return OutOfMemoryError(
            f"out of memory ({first}). In order of cost, use a smaller data.init_args.per_device_batch_size "
            "(gradients are accumulated, the result is the same), activation checkpointing, a strategy that shards "
            "the optimizer state and the model (configs/run/deepspeed_zero1.yaml, zero2, zero3, fsdp), a shorter "
            "context, or more processes"
        )
    if WORKER.search(text):
        return lost_worker(text.splitlines()[0])
    if any(words in lower for words in MISFIT):
        return CheckpointError(f"the checkpoint does not match this model: {' '.join(text.split())[:300]}")
    if processes > 1 and isinstance(error, RuntimeError) and any(words in lower for words in LOST):
        return LostPeerError(
            f"another process of the run exited ({text.splitlines()[0]}). Its output, or the files in the run's "
            "stacks/, show the cause; the same command continues from the last checkpoint"
        )
    return error
