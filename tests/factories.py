"""Short ways to write plans and outcomes, and a queue file with a worker and a clock of its own."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from litetq.database import Database
from litetq.message import Delivery, Disposition, Join, Kind, Link, Message, Outcome, Plan, Record, Taken
from litetq.store import Store

_ids = itertools.count(1)


def message(id: str | None = None, **fields: Any) -> Message:
    """Return a message to enqueue; its id is made up where none is given."""
    fields.setdefault("name", "tasks.work")
    fields.setdefault("body", b"[[], {}]")
    return Message(id=id or f"id-{next(_ids)}", **fields)


def plan(*messages: Message | str, links: Sequence[Link] = (), joins: Sequence[Join] = ()) -> Plan:
    return Plan(tuple(message(m) if isinstance(m, str) else m for m in messages), tuple(links), tuple(joins))


def chain(*messages: Message | str, kind: int = Kind.VALUE) -> Plan:
    """Each waits for the one before."""
    return plan(*messages, links=[Link(place, place + 1, kind) for place in range(len(messages) - 1)])


def chord(members: Sequence[Message | str], body: Message | str, **options: Any) -> Plan:
    """The body, the last message, waits for all members."""
    return plan(*members, body, joins=[Join(tuple(range(len(members))), len(members), **options)])


def value(text: object) -> bytes:
    return json.dumps(text).encode()


def outcome(delivery: Delivery, disposition: int, state: str, **fields: Any) -> Outcome:
    return Outcome(delivery.claim, delivery.seq, delivery.id, disposition, state, linked=delivery.linked, **fields)


def success(delivery: Delivery, result: object = None, **fields: Any) -> Outcome:
    return outcome(delivery, Disposition.COMPLETE, "SUCCESS", **{"result": value(result), **fields})


def error(kind: str = "ValueError", text: str = "no") -> bytes:
    return json.dumps({"exc_type": kind, "exc_message": [text], "exc_module": "builtins"}).encode()


def failure(delivery: Delivery, result: bytes | None = None, **fields: Any) -> Outcome:
    return outcome(delivery, Disposition.FAIL, "FAILURE", result=result or error(), **fields)


def retry(delivery: Delivery, **fields: Any) -> Outcome:
    return outcome(delivery, Disposition.RETRY, "RETRY", **{"result": error(), **fields})


def release(delivery: Delivery, **fields: Any) -> Outcome:
    return outcome(delivery, Disposition.RELEASE, "PENDING", **fields)


def interrupt(delivery: Delivery, **fields: Any) -> Outcome:
    return outcome(delivery, Disposition.INTERRUPT, "PENDING", **fields)


def requeue(delivery: Delivery, **fields: Any) -> Outcome:
    return outcome(delivery, Disposition.REQUEUE, "REJECTED", **{"result": error(), **fields})


class Queue:
    """A file with one worker, at a time that stands still until a test moves it. All checks go through the store's verbs,
    but for `rows`, which looks at what lies in the tables."""

    def __init__(self, path: Path, *, worker: int | None = None, **options: Any) -> None:
        """Register a worker, unless one that is in the file already is to be used."""
        self.path = path
        self.now = 1_000.0
        self.database = Database(path)
        self.store = Store(self.database, **options)
        self.worker = self.add_worker("w1@host") if worker is None else worker

    def add_worker(self, name: str = "other@host", **options: Any) -> int:
        return self.store.roster.register(name, f"run-{os.getpid()}-{next(_ids)}", "boot", self.now, **options)

    def send(self, *messages: Message | str | Plan) -> None:
        if len(messages) == 1 and isinstance(messages[0], Plan):
            self.store.send(messages[0], self.now)
        else:
            self.store.send(plan(*messages), self.now)  # type: ignore[arg-type]

    def take(
        self, free: int = 0, *outcomes: Outcome, worker: int | None = None, queues: frozenset[str] | None = None
    ) -> Taken:
        return self.store.take(worker or self.worker, "w1@host", free, outcomes, self.now, queues=queues)

    def claim(self, free: int = 1, **options: Any) -> list[Delivery]:
        return self.take(free, **options).deliveries

    def claim_one(self, **options: Any) -> Delivery:
        (delivery,) = self.claim(1, **options)
        return delivery

    def settle(self, *outcomes: Outcome) -> list[int]:
        """Return the claim numbers that were lost."""
        return self.take(0, *outcomes).lost

    def run(self, end: Callable[[Delivery], Outcome] = success) -> str:
        """Claim one task, end it, and return its id."""
        delivery = self.claim_one()
        assert self.settle(end(delivery)) == []
        return delivery.id

    def run_all(self, end: Callable[[Delivery], Outcome] = success, at_most: int = 100_000) -> list[str]:
        """Claim and end until nothing is ready; return the ids in the order in which they ran."""
        ran = []
        deliveries = self.claim(10)
        while deliveries:
            ran += [delivery.id for delivery in deliveries]
            assert len(ran) <= at_most
            taken = self.take(10, *map(end, deliveries))
            assert taken.lost == []
            deliveries = taken.deliveries
        return ran

    def read(self, id: str) -> Record:
        record = self.store.records.read(id)
        assert record is not None, f"the file does not know {id}"
        return record

    def state(self, id: str) -> str:
        """Return the Celery state and the place, which together say where a task stands."""
        record = self.read(id)
        return record.place if record.place != "DONE" else record.state

    def rows(self, sql: str, *bindings: Any) -> list[Any]:
        found: list[Any] = self.database.read(lambda tx: tx.execute(sql, bindings).fetchall())
        return found

    def count(self, table: str) -> int:
        return int(self.rows(f"SELECT count(*) FROM litetq_{table}")[0][0])

    def dump(self) -> dict[str, list[Any]]:
        """Return all rows of all tables, but for what differs from process to process."""
        tables = self.rows("SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'litetq%' ORDER BY name")
        found = {table: self.rows(f"SELECT * FROM {table}") for (table,) in tables}
        found["litetq_worker"] = self.rows("SELECT id, name, late, beats FROM litetq_worker")
        return found

    def close(self) -> None:
        self.database.close()


ORPHANS = {
    "links from tasks that are gone": "SELECT * FROM litetq_link WHERE source NOT IN (SELECT seq FROM litetq_task)",
    "links to tasks that do not wait": "SELECT * FROM litetq_link WHERE target NOT IN (SELECT seq FROM litetq_task WHERE state = 2)",
    "links from tasks not marked as linked": "SELECT seq FROM litetq_task WHERE linked <> 1 AND seq IN (SELECT source FROM litetq_link)",
    "followers that do not follow": (
        "SELECT seq FROM litetq_task AS t WHERE follower IS NOT NULL AND NOT EXISTS "
        "(SELECT 1 FROM litetq_task WHERE seq = t.follower AND follows = t.seq AND state = 2 AND blockers = 1)"
    ),
    "tasks that follow somebody without being a follower": (
        "SELECT seq FROM litetq_task AS t WHERE follows IS NOT NULL AND NOT EXISTS "
        "(SELECT 1 FROM litetq_task WHERE seq = t.follows AND follower = t.seq AND linked)"
    ),
    "tasks said to have only a follower, and have none": "SELECT seq FROM litetq_task WHERE linked = 2 AND follower IS NULL",
    "members not marked as linked": "SELECT seq FROM litetq_task WHERE linked <> 1 AND seq IN (SELECT member FROM litetq_part)",
    "bodies not marked as linked": "SELECT seq FROM litetq_task WHERE linked <> 1 AND join_id IS NOT NULL",
    "parts of members that are gone": "SELECT * FROM litetq_part WHERE member IS NOT NULL AND member NOT IN (SELECT seq FROM litetq_task)",
    "parts of joins that are gone": "SELECT * FROM litetq_part WHERE join_id NOT IN (SELECT id FROM litetq_join)",
    "joins whose body is gone": "SELECT * FROM litetq_join WHERE body IS NOT NULL AND body NOT IN (SELECT seq FROM litetq_task)",
    "joins in joins that are gone": "SELECT * FROM litetq_join WHERE outer_join IS NOT NULL AND outer_join NOT IN (SELECT id FROM litetq_join)",
    "joins that nobody waits for": "SELECT * FROM litetq_join WHERE body IS NULL AND outer_join IS NULL",
    "bodies whose join is gone": "SELECT seq FROM litetq_task WHERE join_id IS NOT NULL AND join_id NOT IN (SELECT id FROM litetq_join)",
    "joins with a wrong count": (
        "SELECT * FROM litetq_join AS j WHERE remaining <> "
        "(SELECT count(*) FROM litetq_part WHERE join_id = j.id AND NOT filled)"
    ),
    "places that nobody fills": (
        "SELECT * FROM litetq_part AS p WHERE NOT filled AND member IS NULL AND NOT EXISTS "
        "(SELECT 1 FROM litetq_join WHERE outer_join = p.join_id AND outer_place = p.place)"
    ),
    # An errback has one blocker however many tasks it watches.
    "waiting tasks with a wrong count of blockers": (
        "SELECT seq, blockers FROM litetq_task AS t WHERE state = 2 AND blockers <> "
        "(SELECT count(*) FROM litetq_any_link WHERE target = t.seq AND kind <> 3) "
        "+ (SELECT count(*) > 0 FROM litetq_link WHERE target = t.seq AND kind = 3) "
        "+ (SELECT count(*) FROM litetq_join WHERE body = t.seq AND remaining > 0)"
    ),
    "kept links to tasks that are neither kept nor wait": (
        "SELECT * FROM litetq_past_link WHERE target NOT IN "
        "(SELECT seq FROM litetq_past_task UNION SELECT seq FROM litetq_task WHERE state = 2)"
    ),
    "kept parts of joins that are gone": "SELECT * FROM litetq_past_part WHERE join_id NOT IN (SELECT id FROM litetq_past_join)",
    "kept bodies whose join is gone": (
        "SELECT seq FROM litetq_past_task WHERE join_id IS NOT NULL AND join_id NOT IN (SELECT id FROM litetq_past_join)"
    ),
    "kept joins whose body is gone": (
        "SELECT * FROM litetq_past_join WHERE body IS NOT NULL AND body NOT IN (SELECT seq FROM litetq_past_task)"
    ),
    "claims of workers that are gone": (
        "SELECT seq FROM litetq_task WHERE worker IS NOT NULL AND worker NOT IN (SELECT id FROM litetq_worker)"
    ),
    "claims above the counter": "SELECT seq FROM litetq_task WHERE claim > (SELECT value FROM litetq_counter WHERE name = 'claim')",
    "one claim held twice": "SELECT claim FROM litetq_task WHERE claim IS NOT NULL GROUP BY claim HAVING count(*) > 1",
    "tasks in lanes that do not exist": "SELECT seq FROM litetq_task WHERE lane NOT IN (SELECT id FROM litetq_lane)",
}


def assert_sound(queue: Queue, when: str = "") -> None:
    """Nothing in the file hangs in the air, and SQLite finds the file whole."""
    found = {what: rows for what, sql in ORPHANS.items() if (rows := queue.rows(sql))}
    assert not found, (when, found)
    assert queue.rows("PRAGMA integrity_check") == [("ok",)]
