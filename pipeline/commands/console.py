"""A console for tables."""

from rich.console import Console


class TableConsole(Console):
    """A console without markup or highlighting that is 160 columns wide in a pipe.

    A reader that closes the pipe is not an error: rich itself would exit with code 1.
    """

    def __init__(self) -> None:
        super().__init__(markup=False, highlight=False)
        if not self.is_terminal:
            self.width = 160

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError
