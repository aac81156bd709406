"""What a person looks for in a file: tasks by filter, newest first; how much waits in each queue; what ended how.

Only reads, and in pages, so that no look holds a snapshot for long and workers notice nothing. A look through a million tasks
takes some tenths of a second; what is asked for without a filter is found at once.
"""

from __future__ import annotations

import heapq
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from litetq import states
from litetq.database import Database, Transaction

PAGE: Final = 50_000  # rows that one statement looks through; arbitrary, about 20 ms
SHOWN_BYTES: Final = 4096  # of arguments and results; arbitrary: more than anybody reads in a list
RECENT_S: Final = (60.0, 3600.0)  # spans for which ends are counted

_PLACES: Final = ("QUEUED", "SCHEDULED", "BLOCKED", "CLAIMED")
# What the words for states mean for a task that is not finished, and for one that is; None: no such task.
STATES: Final[dict[str, tuple[str | None, str | None]]] = {
    "WAITING": ("t.state <> 3", None),
    "QUEUED": ("t.state = 0", None),
    "SCHEDULED": ("t.state = 1", None),
    "BLOCKED": ("t.state = 2", None),
    "RUNNING": ("t.state = 3", None),
    "RETRY": ("t.status = 'RETRY' AND t.state <> 3", None),
    "UNFINISHED": ("1", None),
    "FINISHED": (None, "1"),
    "SUCCESS": (None, "t.state = 'SUCCESS'"),
    "FAILURE": (None, "t.state = 'FAILURE'"),
    "REVOKED": (None, "t.state = 'REVOKED'"),
    "DEAD": (None, "t.dead"),
}


class Filter(NamedTuple):
    """Which tasks are meant: those for which all of it holds. The empty filter means all."""

    states: tuple[str, ...] = ()  # one of these: keys of STATES, or states of a program's own
    names: tuple[str, ...] = ()  # one of these, * and ? are wild
    queues: tuple[str, ...] = ()  # one of these
    text: str | None = None  # stands in the arguments
    sent_before: float | None = None  # UTC seconds
    sent_after: float | None = None


class Found(NamedTuple):
    """A task in a list."""

    id: str
    state: str  # Celery's name; PENDING as long as nothing is known
    place: str  # QUEUED, SCHEDULED, BLOCKED, CLAIMED or DONE
    name: str | None
    queue: str | None
    worker: str | None
    retries: int
    sent_at: float  # UTC seconds
    due_at: float | None
    started_at: float | None
    done_at: float | None
    runtime: float | None  # seconds
    headers: str | None
    body: bytes | None  # the first SHOWN_BYTES
    body_bytes: int  # of all of it
    body_type: str | None
    result: bytes | None  # the first SHOWN_BYTES
    result_bytes: int
    content_type: str | None
    reason: str | None
    dead: bool
    paused: bool  # its queue is

    @property
    def label(self) -> str:
        """Say in one word where it stands."""
        if self.place == "DONE" or self.state != states.PENDING:
            return self.state
        return "RUNNING" if self.place == "CLAIMED" else self.place


class QueueCount(NamedTuple):
    """A queue and what is in it."""

    name: str
    paused: bool
    ready: int
    running: int
    oldest_at: float | None  # since when the first of the ready ones waits, UTC seconds


class Ends(NamedTuple):
    """How tasks ended, as far as it is on record: counts by state."""

    total: Counter[str]
    minute: Counter[str]  # of the last minute
    hour: Counter[str]
    dead: int


class FileFacts(NamedTuple):
    """The file as SQLite sees it."""

    bytes: int
    log_bytes: int
    free_bytes: int
    expired: int  # results whose time is over and that nobody removed, at most 10,000 are counted


class Browse:
    """Questions to one file. Any thread may ask; every answer is of the moment, page by page."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # -- tasks

    def tasks(self, wanted: Filter, limit: int) -> list[Found]:
        """Return the tasks that were sent last, newest first; with a larger limit the same ones come first."""
        lists = [self._take(self._live(wanted, limit), limit), *self._done(wanted, limit)]
        return list(islice(heapq.merge(*lists, key=lambda task: task.sent_at, reverse=True), limit))

    def ids(self, wanted: Filter) -> Iterator[list[tuple[str, str]]]:
        """Yield (id, place) of all that is meant, page by page; one id may come twice where it was sent twice."""
        live, done = _conditions(wanted, live=True), _conditions(wanted, live=False)
        if live is not None:
            sql = f"SELECT t.id, t.state FROM litetq_task AS t WHERE t.seq >= ?1 AND t.seq < ?2 {live.sql}"
            for rows in self._pages(_LIVE_PAGE, sql, live.bindings, None):
                yield [(id, _PLACES[place]) for id, place in rows]
        if done is not None:
            sql = f"SELECT t.id, 'DONE' FROM litetq_result AS t WHERE t.id >= ?1 AND t.id < ?2 {done.sql}"
            yield from self._pages(_DONE_PAGE, sql, done.bindings, None)

    def sent_after(self, wanted: Filter, seq: int) -> list[Found]:
        """Return what was sent after the task number `seq` and is not finished, oldest first, 10,000 at most."""
        return self._unfinished(wanted, "t.seq > ?1 AND ?2", (seq, 1))

    def running(self, wanted: Filter) -> list[Found]:
        """Return what workers hold, oldest first."""
        return self._unfinished(wanted, "t.state = 3 AND ?1 AND ?2", (1, 1))

    def ended_after(self, wanted: Filter, at: float) -> list[Found]:
        """Return what ended at that time (UTC seconds) or later, in the order of its ends. Looks through all results."""
        condition = _conditions(wanted, live=False)
        if condition is None:
            return []
        sql = f"{_DONE} WHERE t.id >= ?1 AND t.id < ?2 {condition.sql} AND t.done_at >= ?{len(condition.bindings) + 3}"
        rows = (row for page in self._pages(_DONE_PAGE, sql, (*condition.bindings, at), None) for row in page)
        return sorted(map(_found, rows), key=lambda task: task.done_at or 0.0)

    def _unfinished(self, wanted: Filter, where: str, bindings: tuple[int, int]) -> list[Found]:
        condition = _conditions(wanted, live=True)
        if condition is None:
            return []
        sql = f"{_LIVE} WHERE {where} {condition.sql} ORDER BY t.seq LIMIT 10000"
        rows = self.database.read(lambda tx: tx.execute(sql, (*bindings, *condition.bindings)).fetchall())
        return [_found(row) for row in rows]

    def by_ids(self, ids: Sequence[str]) -> dict[str, Found]:
        """Return what the file knows of these tasks; one that is unfinished comes before an end under its id."""
        wanted = json.dumps(list(ids))

        def operation(tx: Transaction) -> dict[str, Found]:
            among = "WHERE t.id IN (SELECT value FROM json_each(?1))"
            rows = tx.execute(f"{_DONE} {among}", (wanted,)).fetchall()
            rows += tx.execute(f"{_LIVE} {among} ORDER BY t.seq", (wanted,)).fetchall()
            return {row[0]: _found(row) for row in rows}

        return self.database.read(operation)

    def last_seq(self) -> int:
        """Return the number of the task that was sent last."""
        return int(
            self.database.read(
                lambda tx: tx.execute("SELECT seq FROM sqlite_sequence WHERE name = 'litetq_task'").get or 0
            )
        )

    def version(self) -> int:
        """Return a number that changes with every commit of another connection: whoever looks again and again asks it first."""
        return int(self.database.read(lambda tx: tx.execute("PRAGMA data_version").get))

    def _live(self, wanted: Filter, limit: int) -> Iterator[list[Found]]:
        condition = _conditions(wanted, live=True)
        if condition is None:
            return
        sql = f"{_LIVE} WHERE t.seq >= ?1 AND t.seq < ?2 {condition.sql} ORDER BY t.seq DESC LIMIT {limit}"
        if wanted.states == ("RUNNING",):  # few, and found by their own index however much waits
            yield self.running(wanted)[::-1][:limit]
            return
        for rows in self._pages(_LIVE_PAGE, sql, condition.bindings, None):
            yield [_found(row) for row in rows]

    def _done(self, wanted: Filter, limit: int) -> list[list[Found]]:
        """Return ends, newest first: those under ids of ours, and those under others."""
        condition = _conditions(wanted, live=False)
        if condition is None:
            return []
        # Ids that litetq makes lie in the order of their time. Ids of a program's own say nothing about it: all are looked at.
        newest = f"{_DONE} WHERE t.id >= ?1 AND t.id < ?2 {condition.sql} ORDER BY t.id DESC LIMIT {limit}"
        sent = f"{_DONE} WHERE t.id >= ?1 AND t.id < ?2 {condition.sql} ORDER BY {_SENT} DESC LIMIT {limit}"
        found: list[list[Found]] = []
        for span, sql, all_of_it in (
            (OURS, newest, False),
            (("", OURS[0]), sent, True),
            ((OURS[1], _HIGHEST_ID), sent, True),
        ):
            pages = self._pages(_DONE_PAGE, sql, condition.bindings, span)
            tasks = ([_found(row) for row in rows] for rows in pages)
            if all_of_it:
                each = (task for page in tasks for task in page)
                found.append(heapq.nlargest(limit, each, key=lambda task: task.sent_at))
            else:
                found.append(self._take(tasks, limit))
        return found

    def _take(self, pages: Iterator[list[Found]], limit: int) -> list[Found]:
        found: list[Found] = []
        for page in pages:
            found += page
            if len(found) >= limit:
                break
        return found[:limit]

    def _pages(self, page: str, sql: str, bindings: Sequence[Any], span: tuple[Any, Any] | None) -> Iterator[list[Any]]:
        """Yield the rows of a statement, PAGE keys at a time, from the highest key of a span to the lowest."""
        lowest, end = span or _WHOLE[page]
        while True:
            first = self.database.read(lambda tx, end=end: tx.execute(page, (lowest, end, PAGE)).get)  # type: ignore[misc]
            if first is None:
                return
            yield self.database.read(
                lambda tx, first=first, end=end: tx.execute(sql, (first, end, *bindings)).fetchall()  # type: ignore[misc]
            )
            end = first

    # -- counts

    def queues(self) -> list[QueueCount]:
        """Return all queues by name, with what is in them; a limited lane counts with its queue."""

        def operation(tx: Transaction) -> tuple[list[Any], list[Any], list[Any]]:
            lanes = tx.execute("SELECT id, queue, key, paused FROM litetq_lane WHERE queue <> ''").fetchall()
            ready = tx.execute(
                "SELECT lane, count(*), min(seq) FROM litetq_task WHERE state = 0 GROUP BY lane"
            ).fetchall()
            running = tx.execute("SELECT lane, count(*) FROM litetq_task WHERE state = 3 GROUP BY lane").fetchall()
            since = "SELECT max(enqueued_at, coalesce(due_at, 0)) FROM litetq_task WHERE seq = ?1"
            return lanes, [(*row, tx.execute(since, (row[2],)).get) for row in ready], running

        lanes, ready, running = self.database.read(operation)
        found: dict[str, QueueCount] = {}
        queue_of = {id: queue for id, queue, _, _ in lanes}
        for _, queue, key, paused in lanes:
            known = found.get(queue, QueueCount(queue, False, 0, 0, None))
            found[queue] = known._replace(paused=bool(paused)) if key == "" else known
        for lane, count, _, since in ready:
            known = found[queue_of[lane]]
            oldest = since if known.oldest_at is None else min(since, known.oldest_at)
            found[known.name] = known._replace(ready=known.ready + count, oldest_at=oldest)
        for lane, count in running:
            known = found[queue_of[lane]]
            found[known.name] = known._replace(running=known.running + count)
        return sorted(found.values())

    def later(self) -> dict[str, dict[str, int]]:
        """Return by queue how many tasks are SCHEDULED and BLOCKED. Looks through all that waits."""
        lanes = dict(self.database.read(lambda tx: tx.execute("SELECT id, queue FROM litetq_lane").fetchall()))
        found: dict[str, Counter[str]] = {}
        end = _HIGHEST_SEQ
        while rows := self.database.read(lambda tx, end=end: tx.execute(_COUNT_LATER, (end, PAGE)).fetchall()):  # type: ignore[misc]
            for lane, place, count, first in rows:
                end = min(end, first)
                if place in (1, 2):
                    found.setdefault(lanes[lane], Counter())[_PLACES[place]] += count
        return {queue: dict(counts) for queue, counts in found.items()}

    def waiting(self) -> dict[str, int]:
        """Return how many unfinished tasks are in each place."""

        def operation(tx: Transaction) -> dict[str, int]:
            counts = [tx.execute(f"SELECT count(*) FROM litetq_task WHERE state = {n}").get for n in (0, 1, 3)]
            total = tx.execute("SELECT count(*) FROM litetq_task").get
            return dict(zip(_PLACES, (*counts[:2], total - sum(counts), counts[2]), strict=True))

        return self.database.read(operation)

    def next_due(self) -> float | None:
        """Return when the next scheduled task is due, UTC seconds."""
        due_at: float | None = self.database.read(
            lambda tx: tx.execute("SELECT min(due_at) FROM litetq_task WHERE state = 1").get
        )
        return due_at

    def ends(self, now: float) -> Ends:
        """Return how tasks ended. Looks through all results."""
        ends = Ends(Counter(), Counter(), Counter(), 0)
        spans = [now - span for span in RECENT_S]

        def page(tx: Transaction, end: Any) -> tuple[Any, list[Any]]:
            return tx.execute(_COUNT_ALL, (end, PAGE, *spans)).fetchall()[0], tx.execute(
                _COUNT_OTHERS, (end, PAGE, *spans)
            ).fetchall()

        end: Any = _HIGHEST_ID
        while True:
            (end, dead, *successes), others = self.database.read(lambda tx, end=end: page(tx, end))  # type: ignore[misc]
            if end is None:
                return ends
            for state, *counts in others:
                successes = [left - count for left, count in zip(successes, counts, strict=True)]
                _add(ends, state, counts)
            _add(ends, states.SUCCESS, successes)
            ends = ends._replace(dead=ends.dead + dead)

    def ends_by_worker(self) -> dict[str, tuple[int, int]]:
        """Return by name of the worker how many ends are on record, and how many of them are failures. Looks through all."""
        found: dict[str, tuple[int, int]] = {}
        end: Any = _HIGHEST_ID
        while True:
            rows = self.database.read(lambda tx, end=end: tx.execute(_COUNT_BY_WORKER, (end, PAGE)).fetchall())  # type: ignore[misc]
            if not rows:
                return found
            end = min(row[3] for row in rows)
            for worker, count, failures, _ in rows:
                if worker is not None:
                    known = found.get(worker, (0, 0))
                    found[worker] = (known[0] + count, known[1] + failures)

    def claims(self) -> dict[int, list[tuple[int, str, str | None, str]]]:
        """Return what each worker holds: (claim, id, name, queue) by number of the worker."""
        found: dict[int, list[tuple[int, str, str | None, str]]] = {}
        rows = self.database.read(
            lambda tx: tx.execute(
                "SELECT t.worker, t.claim, t.id, t.name, l.queue FROM litetq_task AS t JOIN litetq_lane AS l ON l.id = t.lane "
                "WHERE t.state = 3"
            ).fetchall()
        )
        for worker, *claim in rows:
            found.setdefault(worker, []).append(tuple(claim))
        return found

    def file_facts(self, now: float) -> FileFacts:
        """Return how large the file is, and what of it could go."""

        def operation(tx: Transaction) -> tuple[int, int, int, int]:
            pages, free, size = (
                tx.execute(f"PRAGMA {name}").get for name in ("page_count", "freelist_count", "page_size")
            )
            expired = tx.execute(
                "SELECT count(*) FROM (SELECT 1 FROM litetq_result WHERE expires_at IS NOT NULL AND expires_at <= ?1 LIMIT 10000)",
                (now,),
            ).get
            return pages, free, size, expired

        pages, free, size, expired = self.database.read(operation)
        try:
            log = os.stat(f"{self.database.path}-wal").st_size
        except OSError:
            log = 0
        return FileFacts(pages * size, log, free * size, expired)


class _Condition(NamedTuple):
    sql: str  # "" or begins with AND
    bindings: tuple[Any, ...]  # from place ?3 on


def _conditions(wanted: Filter, *, live: bool) -> _Condition | None:
    """Return a filter as SQL; None where no task can fulfil it."""
    parts: list[str] = []
    bindings: list[Any] = []

    def bind(value: Any) -> str:
        bindings.append(value)
        return f"?{len(bindings) + 2}"

    if wanted.states:
        meant = []
        for state in wanted.states:
            if state in STATES:
                meant.append(STATES[state][0 if live else 1])
            else:
                meant.append(f"{'t.status' if live else 't.state'} = {bind(state)}")
        known = [sql for sql in meant if sql is not None]
        if not known:
            return None
        parts.append(" OR ".join(known))
    if wanted.names:
        parts.append(" OR ".join(f"t.name GLOB {bind(name.replace('[', '[[]'))}" for name in wanted.names))
    if wanted.queues:
        queues = bind(json.dumps(wanted.queues))
        parts.append(f"t.lane IN (SELECT id FROM litetq_lane WHERE queue IN (SELECT value FROM json_each({queues})))")
    if wanted.text is not None:
        # JSON may hold a letter as itself or as an escape.
        spellings = {wanted.text, json.dumps(wanted.text)[1:-1], json.dumps(wanted.text, ensure_ascii=False)[1:-1]}
        found = (f"instr(t.body, {bind(text.encode('utf-8', 'surrogatepass'))})" for text in sorted(spellings))
        parts.append(" OR ".join(found))
    sent = "t.enqueued_at" if live else _SENT
    if wanted.sent_before is not None:
        parts.append(f"{sent} < {bind(wanted.sent_before)}")
    if wanted.sent_after is not None:
        parts.append(f"{sent} >= {bind(wanted.sent_after)}")
    return _Condition("".join(f" AND ({part})" for part in parts), tuple(bindings))


# The span of ids that litetq makes, UUIDs of version 7: from 2020 to 2150.
OURS: Final = ("0170", "0530")

_SENT: Final = "coalesce(t.enqueued_at, t.done_at)"
# The names of queue and worker by sub-queries: with joins, a filter would be asked after them (ten times slower, measured).
_LIVE: Final = f"""
    SELECT t.id, t.status, t.state, t.name, (SELECT queue FROM litetq_lane AS l WHERE l.id = t.lane),
           (SELECT w.name FROM litetq_worker AS w WHERE w.id = t.worker), t.retries, t.enqueued_at, t.due_at, t.started_at,
           NULL, NULL, t.headers, substr(t.body, 1, {SHOWN_BYTES}), length(t.body), t.content_type,
           substr(t.meta, 1, {SHOWN_BYTES}), coalesce(length(t.meta), 0), t.meta_type, t.revoked, 0,
           (SELECT own.paused FROM litetq_lane AS l JOIN litetq_lane AS own ON own.queue = l.queue AND own.key = ''
            WHERE l.id = t.lane)
    FROM   litetq_task AS t
"""
_DONE: Final = f"""
    SELECT t.id, t.state, 4, t.name, (SELECT queue FROM litetq_lane AS l WHERE l.id = t.lane), t.worker, t.retries, {_SENT},
           NULL, t.started_at, t.done_at, t.runtime, t.headers, substr(t.body, 1, {SHOWN_BYTES}),
           coalesce(length(t.body), 0), t.body_type, substr(t.result, 1, {SHOWN_BYTES}), coalesce(length(t.result), 0),
           t.content_type, t.reason, t.dead, 0
    FROM   litetq_result AS t
"""
_LIVE_PAGE: Final = (
    "SELECT min(seq) FROM (SELECT seq FROM litetq_task WHERE seq >= ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3)"
)
_DONE_PAGE: Final = (
    "SELECT min(id) FROM (SELECT id FROM litetq_result WHERE id >= ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3)"
)
_HIGHEST_ID: Final = b""  # SQLite: every text is less than any blob
_HIGHEST_SEQ: Final = 2**63 - 1
_WHOLE: Final[dict[str, tuple[Any, Any]]] = {_LIVE_PAGE: (0, _HIGHEST_SEQ), _DONE_PAGE: ("", _HIGHEST_ID)}


_COUNT_LATER: Final = """
    SELECT lane, state, count(*), min(seq)
    FROM   (SELECT lane, state, seq FROM litetq_task WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2)
    GROUP BY lane, state
"""
# Nearly all ends are successes, so only the others are grouped: sorting takes longer than all else.
_COUNT_ALL: Final = """
    SELECT min(id), sum(dead), count(*), sum(done_at >= ?3), sum(done_at >= ?4)
    FROM   (SELECT id, done_at, dead FROM litetq_result WHERE id < ?1 ORDER BY id DESC LIMIT ?2)
"""
_COUNT_OTHERS: Final = """
    SELECT state, count(*), sum(done_at >= ?3), sum(done_at >= ?4)
    FROM   (SELECT state, done_at FROM litetq_result WHERE id < ?1 ORDER BY id DESC LIMIT ?2)
    WHERE  state <> 'SUCCESS'
    GROUP BY state
"""
_COUNT_BY_WORKER: Final = """
    SELECT worker, count(*), sum(state = 'FAILURE'), min(id)
    FROM   (SELECT id, worker, state FROM litetq_result WHERE id < ?1 ORDER BY id DESC LIMIT ?2)
    GROUP BY worker
"""


def _add(ends: Ends, state: str, counts: Sequence[int]) -> None:
    for counter, count in zip((ends.total, ends.minute, ends.hour), counts, strict=True):
        counter[state] += count


def _found(row: tuple[Any, ...]) -> Found:
    fields = list(row)
    fields[1] = row[1] or states.PENDING
    fields[2] = (*_PLACES, "DONE")[row[2]]
    fields[-2:] = map(bool, row[-2:])
    return Found._make(fields)
