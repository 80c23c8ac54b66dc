"""Sends the lines of a journal that a Weights & Biases run does not have yet, in order and each once.

The number of a line is the client's step. It increases through all attempts, so the server's last step shows where
to continue. A row that a later attempt replaced before it was sent is skipped. If it was sent already, it stays, and
the later attempt's row for the same step is skipped. The optimizer step is a column of its own.
"""

from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.files import write_durably
from pipeline.runs.journal import horizon, parse_line

Record = dict[str, Any]
ARTIFACTS = ("checkpoint", "model")  # kinds of records that are not rows
TRIES = 2  # attempts to send a line that the client rejects, before it is skipped and the others follow


def count_rows(journal: Path, first: int, sent: Path) -> int:
    """Return how many rows a follower of the journal would still send, artifacts not counted."""
    mirror = Mirror(journal, first, sent)
    mirror.file = None  # only counted
    rows: list[Record] = []
    mirror.follow(lambda _, record: rows.append(record))
    return sum(record["kind"] not in ARTIFACTS for record in rows)


def refused_lines(rejected: Counter[int]) -> list[int]:
    """Return the numbers of the lines that are skipped, because the client rejected them."""
    return sorted(number for number, times in rejected.items() if times >= TRIES)


class Mirror:
    """Follows a journal and sends its new lines.

    Args:
        journal: the file.
        first: number of the first line to send, counted from 1; None for those of the newest attempt.
        sent: file that records the numbers of the lines that were sent; None if no later process needs it.
        rejected: number of rejections per line, shared by successive followers of one journal.
    """

    def __init__(
        self, journal: Path, first: int | None, sent: Path | None = None, rejected: Counter[int] | None = None
    ) -> None:
        self.journal, self.file = journal, sent
        self.place = self.count = 0  # bytes and lines read
        self.attempts: dict[int, int] = {}
        self.waiting: deque[tuple[int, Record]] = deque()
        self.sent: set[int] = set()
        self.last = 0  # the last row that was sent
        self.head = 1  # the line at which the newest attempt begins
        self.rejected = Counter() if rejected is None else rejected
        self._seen: Counter[tuple[Any, ...]] = Counter()
        self._read()
        first = self.head if first is None else first
        # numbers from `first` on were given to a client that was killed before it delivered them
        before = {number for number in _numbers(sent) if number < first} if sent and sent.exists() else None
        self._named: set[int] = before or set()  # numbers in the file of sent lines
        self._whole = False  # whether the file consists of these numbers
        self._pass_over(first, before)

    def follow(self, send: Callable[[int, Record], None]) -> int:
        """Send new lines and return their number; exceptions of `send` propagate, and a later call continues."""
        self._read()
        count = 0
        while self.waiting:
            number, record = self.waiting[0]
            if self._counts(record):
                if self.rejected[number] < TRIES:
                    self._name(number)
                    self.rejected[number] += 1  # removed below if the line is accepted
                    send(number, record)
                    del self.rejected[number]
                    self.last = self.last if record["kind"] in ARTIFACTS else number
                    count += 1
                self.sent.add(record["like"])
            self.waiting.popleft()
        return count

    def _read(self) -> None:
        if not self.journal.exists():
            return
        with self.journal.open("rb") as file:
            file.seek(self.place)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.place += len(whole)
        for line in whole.split(b"\n")[:-1]:
            self.count += 1
            record = parse_line(line)
            if record is None:
                continue
            if record["kind"] == "attempt":
                self.attempts[record["attempt"]] = record["step"]
                self.head = self.count
                continue
            record["like"] = self._like(record)
            self.waiting.append((self.count, record))

    def _like(self, record: Record) -> int:
        """Return a hash that a row shares with its replacement by an attempt after a rewind."""
        what = (record["kind"], record["step"], frozenset(record))
        self._seen[record["attempt"], what] += 1
        return hash((what, self._seen[record["attempt"], what]))

    def _pass_over(self, first: int, before: set[int] | None) -> None:
        """Mark lines before `first` as sent; if there was a file of sent lines, only those that it named."""
        while self.waiting and self.waiting[0][0] < first:
            number, record = self.waiting.popleft()
            if self._counts(record) if before is None else number in before:
                self._named.add(number)
                self.sent.add(record["like"])

    def _counts(self, record: Record) -> bool:
        self.attempts.setdefault(record["attempt"], record["step"] - 1)
        return record["step"] <= horizon(record["attempt"], self.attempts) and record["like"] not in self.sent

    def _name(self, number: int) -> None:
        """Add a line to the file of sent lines before it is sent; a full disk therefore delays it."""
        self._named.add(number)
        if self.file is None:
            return
        whole, self._whole = self._whole, False
        if whole:
            with self.file.open("a") as file:
                file.write(f"{number}\n")
        else:
            numbers = "".join(f"{each}\n" for each in sorted(self._named))
            write_durably(self.file, lambda new: new.write_text(numbers))
        self._whole = True


def _numbers(sent: Path) -> set[int]:
    """Return the numbers in a file of sent lines; the end that a power loss may have damaged is skipped."""
    return {int(word) for word in sent.read_text(errors="replace").split() if word.isdecimal()}
