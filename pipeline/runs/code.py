"""The version of the running code: its commit, and what the working tree changed since.

Each attempt of a run records both, so that a difference between two attempts is printed.
"""

import hashlib
import subprocess
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[1]


class Code(NamedTuple):
    """The version of the code of an attempt."""

    commit: str | None
    """Commit of the checkout, with `-dirty` if files differ from it; None outside a checkout."""
    diff: str | None
    """Hash of the difference between the working tree and the commit; None without one."""

    @classmethod
    def running(cls) -> "Code":
        """Return the version of the running code."""
        commit = git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
        text = working_diff() if commit and commit.strip().endswith("-dirty") else None
        return cls((commit or "").strip() or None, hash_of(text) if text else None)

    @classmethod
    def of_attempt(cls, attempt: object) -> "Code | None":
        """Return the version that an attempt recorded; None if it was started by a version that recorded none."""
        found = dict(attempt) if isinstance(attempt, dict) else {}
        return cls(found["git_commit"], found["diff"]) if "git_commit" in found else None

    def __str__(self) -> str:
        if self.commit is None:
            return "no commit"
        dirty = f" with changes {self.diff}" if self.diff else ""
        return f"commit {self.commit.removesuffix('-dirty')[:12]}{dirty}"


NO_CODE = Code(None, None)


def working_diff() -> str | None:
    """Return the difference between the working tree of the code and its commit; None outside a checkout."""
    return git("diff", "HEAD")


def hash_of(diff: str) -> str:
    """Return the hash that identifies a difference."""
    return hashlib.sha256(diff.encode(errors="replace")).hexdigest()[:12]


def git(*arguments: str) -> str | None:
    """Return the output of a command of git in the directory of the code; None if it fails."""
    try:
        found = subprocess.run(
            ["git", "-C", PACKAGE, *arguments], capture_output=True, text=True, errors="replace", timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout if found.returncode == 0 else None
