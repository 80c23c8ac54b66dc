"""Sends the lines of a journal that a Weights & Biases run does not have yet, in order and none twice.

The number of a line in the journal is the step of the client's own. It only rises, through all attempts, so the
server's last one tells where to go on after whatever happened. A row that a later attempt replaced before it was
sent is passed over; one that was sent stays, and its like of the later attempt, which measured the same step
again, is passed over. What people look at is the optimizer step, a column like any other.
"""

from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.runs.journal import horizon, parse_line

Record = dict[str, Any]
TRIES = 2  # of a line that the client refuses, before it is passed over: it must not hold up the others


class Mirror:
    """Follows a journal.

    Args:
        journal: the file.
        first: number of the first line to send, counted from 1; None for those of the newest attempt.
        sent: file that keeps the numbers of the lines that were sent; None where nobody will go on from here.
        refused: how often each line was refused; the followers of one journal, one after the other, share it.
    """

    def __init__(
        self, journal: Path, first: int | None, sent: Path | None = None, refused: Counter[int] | None = None
    ) -> None:
        self.journal, self.file = journal, sent
        self.place = self.count = 0  # bytes and lines read
        self.attempts: dict[int, int] = {}
        self.waiting: deque[tuple[int, Record]] = deque()
        self.sent: set[int] = set()
        self.head = 1  # the line at which the newest attempt begins
        self.refused = Counter() if refused is None else refused
        self._seen: Counter[tuple[Any, ...]] = Counter()
        self._before = {int(number) for number in sent.read_text().split()} if sent and sent.exists() else None
        self._read()
        self._pass_over(self.head if first is None else first)

    def follow(self, send: Callable[[int, Record], None]) -> int:
        """Send what is new; returns how many lines that was. What `send` raises is raised: call again later."""
        self._read()
        count = 0
        while self.waiting:
            number, record = self.waiting[0]
            if self._counts(record):
                if self.refused[number] < TRIES:
                    self.refused[number] += 1  # until it is not
                    send(number, record)
                    del self.refused[number]
                    count += 1
                self._remember(number, record)
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
        """What a row has in common with the one that an attempt after a rewind writes in its place."""
        what = (record["kind"], record["step"], frozenset(record))
        self._seen[record["attempt"], what] += 1
        return hash((what, self._seen[record["attempt"], what]))

    def _pass_over(self, first: int) -> None:
        """Take the lines before `first` for sent: those that the file names, where there is one."""
        while self.waiting and self.waiting[0][0] < first:
            number, record = self.waiting.popleft()
            if self._counts(record) if self._before is None else number in self._before:
                self.sent.add(record["like"])

    def _counts(self, record: Record) -> bool:
        self.attempts.setdefault(record["attempt"], record["step"] - 1)
        return record["step"] <= horizon(record["attempt"], self.attempts) and record["like"] not in self.sent

    def _remember(self, number: int, record: Record) -> None:
        self.sent.add(record["like"])
        if self.file is None:
            return
        with suppress(OSError), self.file.open("a") as file:  # a full disk must not hold up what goes to the server
            file.write(f"{number}\n")
