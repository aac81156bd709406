"""What processes tell each other through the file: commands to workers, their answers, and events.

Rows are read by number: whoever reads remembers the last one it has seen. SQLite has one writer, so a number that is read
means that all lower ones are in the file already. Commands and answers go when their time is over, events when newer ones
push them out; whoever writes removes what is old, so the tables are bounded without any upkeep.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any, Final, NamedTuple

from litetq.database import Database, Transaction
from litetq.message import Message
from litetq.serialization import loads_args

EVENTS_KEPT: Final = 100_000  # rows, some 30 MB; arbitrary
EVENTS_KEPT_S: Final = 3600.0  # arbitrary: long enough for whoever comes after the trouble
STAMP: Final = "stamp "  # begins the keys of `litetq_revoked` that stand for stamps, and no id that litetq makes
SHOWN: Final = 1024  # characters of arguments that an event shows
LISTED: Final = 10_000  # tasks that one list holds at most; arbitrary, some MB of JSON
REVOKED_LISTED_S: Final = 10_800.0  # as long as a worker of Celery remembers a revoked id


class Command(NamedTuple):
    """A row of `litetq_command`."""

    n: int
    ticket: str | None
    body: dict[str, Any]


class Reply(NamedTuple):
    """A row of `litetq_reply`."""

    n: int
    worker: int
    node: str
    value: Any


class Event(NamedTuple):
    """An event to be written; `body` is JSON (`event`)."""

    at: float
    type: str
    hostname: str
    pid: int
    body: str


class Listed(NamedTuple):
    """An unfinished task, as far as lists of tasks show it."""

    id: str
    name: str
    body: bytes
    content_type: str | None
    queue: str
    priority: int
    deliveries: int
    due_at: float | None
    started_at: float | None
    headers: str | None
    claim: int | None
    worker: int | None


_LISTED: Final = """
    SELECT t.id, t.name, t.body, t.content_type, l.queue, t.priority, t.deliveries + t.interrupted, t.due_at, t.started_at, t.headers, t.claim,
           t.worker
    FROM   litetq_task AS t
           JOIN litetq_lane AS l ON l.id = t.lane
"""


def event(type: str, at: float, hostname: str, **fields: Any) -> Event:
    """Return an event of this process; values that JSON does not know are shown as text."""
    return Event(at, type, hostname, os.getpid(), json.dumps(fields, default=repr))


def anonymous_node() -> str:
    """Return the name under which a program that is no worker sends events."""
    return f"gen{os.getpid()}@{platform.node()}"


def sent(message: Message, now: float) -> Event:
    """Return the event task-sent of a message."""
    headers = json.loads(message.headers) if message.headers else {}
    shown: tuple[str | None, str | None]
    try:
        args, kwargs = loads_args(message.body, message.content_type)
        shown = repr(tuple(args))[:SHOWN], repr(kwargs)[:SHOWN]
    except Exception:  # not JSON: the worker may be allowed to read it
        shown = None, None
    return event(
        "task-sent",
        now,
        anonymous_node(),
        uuid=message.id,
        root_id=message.root_id or message.id,
        parent_id=message.parent_id,
        name=message.name,
        args=headers.get("argsrepr") or shown[0],
        kwargs=headers.get("kwargsrepr") or shown[1],
        retries=message.retries,
        eta=_iso(message.due_at),
        expires=_iso(message.expires_at),
        queue=message.queue,
        exchange="",
        routing_key=message.queue,
    )


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, timezone.utc).isoformat()


class Mailbox:
    """The tables `litetq_command`, `litetq_reply` and `litetq_event`, and the lists that `inspect` shows of tasks."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # -- commands and answers

    def last_command(self) -> int:
        """Return the number of the last command that was ever given."""
        return self._last("litetq_command")

    def post(self, ticket: str | None, body: str, now: float, lifetime: float) -> int:
        """Give a command to those who read; return its number. It lies there for `lifetime` seconds."""

        def operation(tx: Transaction) -> int:
            self._remove_old(tx, now)
            tx.execute(
                "INSERT INTO litetq_command (ticket, body, expires_at) VALUES (?1, ?2, ?3)",
                (ticket, body, now + lifetime),
            )
            return tx.connection.last_insert_rowid()

        return self.database.write(operation)

    def commands(self, after: int, now: float) -> list[Command]:
        """Return the commands behind number `after` whose time is not over. Writes nothing."""
        rows = self.database.read(
            lambda tx: tx.execute(
                "SELECT n, ticket, body FROM litetq_command WHERE n > ?1 AND expires_at > ?2 ORDER BY n LIMIT 100",
                (after, now),
            ).fetchall()
        )
        return [Command(n, ticket, json.loads(body)) for n, ticket, body in rows]

    def reply(self, ticket: str, worker: int, node: str, body: str, now: float, lifetime: float) -> None:
        """Answer a command; whoever asked finds it for `lifetime` seconds."""

        def operation(tx: Transaction) -> None:
            self._remove_old(tx, now)
            tx.execute(
                "INSERT INTO litetq_reply (ticket, worker, node, body, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                (ticket, worker, node, body, now + lifetime),
            )

        self.database.write(operation)

    def replies(self, ticket: str, after: int) -> list[Reply]:
        """Return the answers to a command behind number `after`. Writes nothing."""
        rows = self.database.read(
            lambda tx: tx.execute(
                "SELECT n, worker, node, body FROM litetq_reply WHERE ticket = ?1 AND n > ?2 ORDER BY n",
                (ticket, after),
            ).fetchall()
        )
        return [Reply(n, worker, node, json.loads(body)) for n, worker, node, body in rows]

    def _remove_old(self, tx: Transaction, now: float) -> None:
        # Both tables hold what came within some minutes: a scan of them is shorter than keeping an index.
        tx.execute("DELETE FROM litetq_command WHERE expires_at <= ?1", (now,))
        tx.execute("DELETE FROM litetq_reply WHERE expires_at <= ?1", (now,))

    # -- events

    def last_event(self) -> int:
        """Return the number of the last event that was ever written."""
        return self._last("litetq_event")

    def write_events(self, events: Sequence[Event]) -> None:
        """Write events in a transaction of their own."""
        if events:
            self.database.write(lambda tx: self.record(tx, events))

    def record(self, tx: Transaction, events: Iterable[Event]) -> None:
        """Write events in this transaction; the oldest beyond EVENTS_KEPT go."""
        tx.executemany(
            "INSERT INTO litetq_event (at, type, hostname, pid, body) VALUES (?1, ?2, ?3, ?4, ?5)", list(events)
        )
        self._push_out(tx)

    def record_end(self, tx: Transaction, id: str, type: str, now: float, fields: dict[str, Any]) -> None:
        """Write the event of a task that ended without a worker's doing, in the name of a worker that sends events.

        Where no worker sends events, nothing is written.
        """
        tx.execute(
            "INSERT INTO litetq_event (at, type, hostname, pid, body) "
            "SELECT ?1, ?2, name, pid, ?3 FROM litetq_worker WHERE info ->> '$.events' = 1 ORDER BY id LIMIT 1",
            (now, type, json.dumps({"uuid": id, **fields})),
        )
        if tx.connection.changes():
            self._push_out(tx)

    def _push_out(self, tx: Transaction) -> None:
        tx.execute("DELETE FROM litetq_event WHERE n <= ?1", (tx.connection.last_insert_rowid() - EVENTS_KEPT,))

    def events(self, after: int, limit: int = 1000) -> list[dict[str, Any]]:
        """Return up to `limit` events behind number `after`, as Celery's readers know them; `clock` is the number."""
        rows = self.database.read(
            lambda tx: tx.execute(
                "SELECT n, at, type, hostname, pid, body FROM litetq_event WHERE n > ?1 ORDER BY n LIMIT ?2",
                (after, limit),
            ).fetchall()
        )
        return [
            {**json.loads(body), "type": type, "timestamp": at, "hostname": hostname, "pid": pid, "clock": n}
            for n, at, type, hostname, pid, body in rows
        ]

    def prune(self, now: float) -> None:
        """Remove what has lain there too long; writes only when there is some."""
        old = now - EVENTS_KEPT_S
        found = self.database.read(
            lambda tx: (
                tx.execute(
                    "SELECT EXISTS (SELECT 1 FROM litetq_command WHERE expires_at <= ?1) "
                    "OR EXISTS (SELECT 1 FROM litetq_reply WHERE expires_at <= ?1) "
                    "OR coalesce((SELECT at FROM litetq_event ORDER BY n LIMIT 1) < ?2, 0)",
                    (now, old),
                ).get
            )
        )
        if not found:
            return

        def operation(tx: Transaction) -> None:
            self._remove_old(tx, now)
            # By number, which is the order of time but for a clock that was put back.
            tx.execute(
                "DELETE FROM litetq_event WHERE n IN (SELECT n FROM litetq_event ORDER BY n LIMIT 5000) AND at < ?1",
                (old,),
            )

        self.database.write(operation)

    # -- lists of tasks

    def held(self, worker: int) -> list[Listed]:
        """Return what a worker has claimed, in the order of the commits; at most LISTED."""
        sql = f"{_LISTED} WHERE t.state = 3 AND t.worker = ?1 ORDER BY +t.seq LIMIT {LISTED}"  # by the index of what is claimed
        return self.database.read(lambda tx: [Listed(*row) for row in tx.execute(sql, (worker,)).fetchall()])

    def scheduled(self, queues: Iterable[str]) -> list[Listed]:
        """Return what is due later in these queues, the first ones first; at most LISTED."""
        sql = f"{_LISTED} WHERE t.state = 1 AND l.queue IN (SELECT value FROM json_each(?1)) ORDER BY t.due_at LIMIT {LISTED}"
        wanted = json.dumps(sorted(queues))
        return self.database.read(lambda tx: [Listed(*row) for row in tx.execute(sql, (wanted,)).fetchall()])

    def named(self, ids: Sequence[str]) -> list[Listed]:
        """Return those of these tasks that are claimed or due later."""
        sql = f"{_LISTED} WHERE t.id IN (SELECT value FROM json_each(?1)) AND t.state IN (1, 3) ORDER BY t.seq"
        wanted = json.dumps(list(ids))
        return self.database.read(lambda tx: [Listed(*row) for row in tx.execute(sql, (wanted,)).fetchall()])

    def queues(self) -> list[str]:
        """Return all queues that the file has met; a limit of a task has a lane in none."""
        return self.database.read(
            lambda tx: [
                row[0] for row in tx.execute("SELECT DISTINCT queue FROM litetq_lane WHERE queue <> ''").fetchall()
            ]
        )

    def revoked(self, now: float) -> list[str]:
        """Return the ids that were revoked lately: not seen yet, waiting for their attempt to end, or ended by it."""

        def operation(tx: Transaction) -> list[str]:
            rows = tx.execute(
                "SELECT id FROM litetq_revoked WHERE expires_at > ?1 AND NOT id GLOB ?3 "
                "UNION SELECT id FROM litetq_task WHERE revoked IS NOT NULL "
                "UNION SELECT id FROM litetq_result WHERE state = 'REVOKED' AND done_at > ?2 "
                "AND reason NOT IN ('expired', 'purged') "
                f"LIMIT {LISTED}",
                (now, now - REVOKED_LISTED_S, f"{STAMP}*"),
            ).fetchall()
            return [row[0] for row in rows]

        return self.database.read(operation)

    def clock(self) -> int:
        """Return a number that grows with the life of the file: the last claim that was drawn."""
        value: int = self.database.read(
            lambda tx: tx.execute("SELECT value FROM litetq_counter WHERE name = 'claim'").get
        )
        return value

    def _last(self, table: str) -> int:
        return self.database.read(
            lambda tx: tx.execute("SELECT seq FROM sqlite_sequence WHERE name = ?1", (table,)).get or 0
        )
