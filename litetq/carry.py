"""Waiting tasks carried from one file to another: what `litetq migrate` does.

A page of tasks is sent to the other file first, under their old ids, and removed here afterwards, within a transaction that
holds this file's write lock all the while, so that no worker claims one of them in between. A crash between the two commits
leaves a page in both files; carrying again finds the ids there and only removes them here. Nothing is ever lost, and a task
runs twice only if workers of both files take it before that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from litetq.database import Transaction
from litetq.engine import FileEngine
from litetq.message import Message, Plan

PAGE: Final = 500  # tasks in one transaction; arbitrary, some ten milliseconds, so that workers hardly wait

# What hangs on no workflow. The value of a predecessor, too, has no place in a message.
_PLAIN: Final = "NOT t.linked AND t.join_id IS NULL AND t.input IS NULL AND t.role = 0"
_WAITING: Final = f"""
    SELECT t.seq, t.id, t.name, t.body, t.content_type, l.queue, t.priority, t.due_at, t.expires_at, t.retries, t.root_id,
           t.parent_id, t.headers
    FROM   litetq_task AS t JOIN litetq_lane AS l ON l.id = t.lane
    WHERE  t.seq > ?1 AND t.state IN (0, 1) AND {_PLAIN}
           AND (?2 IS NULL OR t.name IN (SELECT value FROM json_each(?2)))
           AND (?3 IS NULL OR l.queue IN (SELECT value FROM json_each(?3)))
    ORDER  BY t.seq LIMIT ?4
"""


class Carried(NamedTuple):
    """A task that is in the other file now; it may have been there before."""

    id: str
    name: str
    queue: str  # in the other file


class Carrier:
    """Carries tasks between the files of two engines.

    Args:
        names: only tasks of these names; None: of all.
        queues: from these queues only, each with its name in the other file; None: from all, and their names stay.
        remove: remove them here; otherwise they are in both files afterwards, and run in both.
    """

    def __init__(
        self,
        source: FileEngine,
        target: FileEngine,
        *,
        names: Sequence[str] | None = None,
        queues: dict[str, str] | None = None,
        remove: bool = False,
    ) -> None:
        self._source = source
        self._target = target
        self._names = None if names is None else json.dumps(list(names))
        self._queues = queues or {}
        self._from = None if queues is None else json.dumps(list(queues))
        self._remove = remove
        self._after = 0  # seq of the last task that was looked at

    def carry(self, limit: int | None = None) -> Iterator[Carried]:
        """Carry what waits now and has not been looked at yet, `limit` tasks at most; yield each once it is there."""
        left = limit
        while left is None or left > 0:
            page = self._page(PAGE if left is None else min(PAGE, left))
            yield from page
            if not page:
                return
            left = None if left is None else left - len(page)

    def staying(self) -> int:
        """Return how many unfinished tasks cannot be carried, because they belong to workflows or a worker holds them."""
        sql = f"SELECT count(*) FROM litetq_task AS t WHERE t.state IN (2, 3) OR NOT ({_PLAIN})"
        return int(self._source.database.read(lambda tx: tx.execute(sql).get))

    def _page(self, size: int) -> list[Carried]:
        def operation(tx: Transaction) -> list[Any]:
            rows = tx.execute(_WAITING, (self._after, self._names, self._from, size)).fetchall()
            self._send([self._message(row) for row in rows])
            if self._remove:
                tx.executemany("DELETE FROM litetq_task WHERE seq = ?1", [row[:1] for row in rows])
            return list(rows)

        run: Callable[..., list[Any]] = self._source.database.write if self._remove else self._source.database.read
        rows = run(operation)
        if rows:
            self._after = rows[-1][0]
        return [Carried(row[1], row[2], self._queue(row[5])) for row in rows]

    def _send(self, messages: Sequence[Message]) -> None:
        """Enqueue in the other file what it does not know yet."""
        wanted = json.dumps([message.id for message in messages])
        known = self._target.database.read(
            lambda tx: {
                row[0]
                for row in tx.execute(
                    "SELECT id FROM litetq_task WHERE id IN (SELECT value FROM json_each(?1)) "
                    "UNION SELECT id FROM litetq_result WHERE id IN (SELECT value FROM json_each(?1))",
                    (wanted,),
                ).fetchall()
            }
        )
        new = tuple(message for message in messages if message.id not in known)
        if new:
            self._target.send(Plan(new))

    def _message(self, row: tuple[Any, ...]) -> Message:
        _, id, name, body, content_type, queue, priority, due_at, expires_at, retries, root_id, parent_id, headers = row
        return Message(
            id, name, body, content_type, self._queue(queue), priority, due_at, expires_at, retries, root_id, parent_id, headers
        )  # fmt: skip

    def _queue(self, name: str) -> str:
        return self._queues.get(name, name)
