"""Claim numbers: each is drawn once in the life of a file, and they grow in the order in which claims are committed.

The row of the counter lies on a page of its own, so to write it with each claim costs a step of a chain a tenth of its time
(8 of 75 us). It is therefore set ahead, and what lies between is handed out here for as long as nobody else writes to the file.
"""

from __future__ import annotations

from typing import Final

from litetq.database import Database, Transaction

AHEAD: Final = 1_000  # numbers; arbitrary: of 63 bits none run out, and a gap is nothing
_DRAW: Final = "UPDATE litetq_counter SET value = value + ?1 WHERE name = 'claim' RETURNING value"


class ClaimNumbers:
    """The row of `litetq_counter`, of which this process may hold some numbers in advance."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._next = self._end = 0  # what is held: from, and up to but not including
        self._seen: tuple[int, int, int] | None = None  # of the file, when it was drawn

    def draw(self, tx: Transaction, count: int) -> int:
        """Return the first of `count` numbers that follow each other; all are greater than any that was committed before.

        Safety: inside of a transaction, which has the file for itself. What is held counts only as long as no other connection
        has committed anything since (`data_version`), so nobody has drawn greater ones; and as long as no transaction of
        ours was undone, because that may have been the one that set the counter ahead. A crash leaves a gap.
        """
        database = self.database
        seen = (tx.execute("PRAGMA data_version").get, database.opened, database.undone)
        if seen != self._seen or self._next + count > self._end:
            self._end = tx.execute(_DRAW, (count + AHEAD,)).get + 1
            self._next = self._end - count - AHEAD
            self._seen = seen
        first = self._next
        self._next += count
        return first
