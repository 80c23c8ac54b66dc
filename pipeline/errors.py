"""An error that is the user's to mend is one clear line and an exit code, never a traceback.

| code | class | who acts |
|---|---|---|
| 0 | done | nobody |
| 1 | any other failure | the developers: a traceback follows |
| 2 | ConfigError | the user: config or command line |
| 3 | DataError | the user: source or dataset |
| 4 | CheckpointError | the user: run or checkpoint |
| 6 | NonFiniteError | the user: learning rate, clipping, or the samples that the journal names |
| 75 | stopped and saved | the scheduler: start the same command again |
"""

TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h


class UserError(Exception):
    """A mistake that the user can mend; the message names the thing and the mend."""

    exit_code = 1


class ConfigError(UserError):
    """The config or the command line asks for something that cannot be."""

    exit_code = 2


class DataError(UserError):
    """A source or a dataset is missing, damaged or of another kind."""

    exit_code = 3


class CheckpointError(UserError):
    """A run or a checkpoint is missing, damaged or of another model."""

    exit_code = 4


class NonFiniteError(UserError):
    """Losses or gradients are not finite, or spikes, and going back to an earlier checkpoint did not help."""

    exit_code = 6
