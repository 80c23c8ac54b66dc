"""An error that somebody can mend is one clear line and an exit code, never a traceback.

| code | class | who acts |
|---|---|---|
| 0 | done | nobody |
| 1 | any other failure | the developers: a traceback follows |
| 2 | ConfigError | the user: config or command line |
| 3 | DataError | the user: source or dataset |
| 4 | CheckpointError | the user: run or checkpoint, or the disk |
| 5 | OutOfMemoryError | the user: smaller micro-batches, or a strategy that divides the model |
| 6 | NonFiniteError | the user: learning rate, clipping, or the samples that the journal names |
| 7 | LostPeerError | the scheduler: another process died or left; start the same command again |
| 8 | HangError | the scheduler, then the user: start the same command again; the stacks in the run tell where |
| 75 | stopped and saved | the scheduler: start the same command again |
"""

TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h


class UserError(Exception):
    """A mistake that the user can mend; the message names the thing and the mend."""

    exit_code = 1
    shared = True  # every process of a run raises it, so that one of them tells


class ConfigError(UserError):
    """The config or the command line asks for something that cannot be."""

    exit_code = 2


class TooLongError(ConfigError, ValueError):
    """A network reads no sequence that long; with episodes that are played only the process that plays them knows."""

    shared = False


class DataError(UserError):
    """A source or a dataset is missing, damaged or of another kind."""

    exit_code = 3


class SampleError(DataError):
    """A sample cannot be read in the middle of an epoch; only the process that reads it knows.

    Args:
        message: what is wrong; of the traceback that a loader worker sends, the last line.
    """

    shared = False

    def __init__(self, message: str) -> None:
        super().__init__(message.rstrip().rpartition("pipeline.errors.SampleError: ")[2])


class CheckpointError(UserError):
    """A run or a checkpoint is missing, damaged, of another model, or cannot be written."""

    exit_code = 4


class NonFiniteError(UserError):
    """Losses or gradients are not finite, or spikes, and going back to an earlier checkpoint did not help."""

    exit_code = 6


class OutOfMemoryError(UserError):
    """A process asked for more memory than there is."""

    exit_code = 5
    shared = False


class LostPeerError(UserError):
    """Another process of the run died, left or is no longer heard."""

    exit_code = 7
    shared = False


class HangError(UserError):
    """No process of the run moves any more."""

    exit_code = 8
    shared = False


MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")
MISFIT = ("error(s) in loading state_dict", "loaded state dict")
LOST = ("closed by peer", "reset by peer", "broken pipe", "gloo", "nccl")


def classify(error: Exception, processes: int) -> Exception:
    """The error of this class that a failure in training stands for; itself where it is none.

    Args:
        error: what training raised.
        processes: of the run; one alone has lost no other.
    """
    text = str(error).strip()
    said = text.lower()
    if isinstance(error, UserError):
        return error
    if isinstance(error, MemoryError) or any(words in said for words in MEMORY):
        first = text.splitlines()[0] if text else type(error).__name__
        return OutOfMemoryError(
            f"out of memory ({first}). What helps, cheapest first: a smaller data.init_args.per_device_batch_size "
            "(gradients are accumulated, the result is the same), activation checkpointing, a strategy that divides "
            "the optimizer's state and the model (configs/run/deepspeed_zero1.yaml, zero2, zero3, fsdp), a shorter "
            "context, or more processes"
        )
    if any(words in said for words in MISFIT):
        return CheckpointError(f"the checkpoint is not one of this model: {' '.join(text.split())[:300]}")
    if processes > 1 and isinstance(error, RuntimeError) and any(words in said for words in LOST):
        return LostPeerError(
            f"another process of the run died or left ({text.splitlines()[0]}); what it said, or the files in "
            "the run's stacks/, tell why, and the same command continues from the last checkpoint"
        )
    return error
