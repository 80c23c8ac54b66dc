"""The error of a file whose content cannot be used, with a reason by which such files are counted."""


class UnusableContent(ValueError):
    """Content that cannot be used.

    Args:
        reason: the kind of the error, in a few words without data; the same for all files of the kind.
        detail: what was found in this file, or the reason of the system.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)  # both, for pickling
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason
