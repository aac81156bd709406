"""What is on record of tasks: results, past attempts, and how an unfinished task looks to who asks for it.

A task ends by one verb, `end`: its result is written from its own row, the row is removed, and another result backend gets
its copy through the outbox, all in the transaction of the caller.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from litetq import states
from litetq.database import Database, Transaction
from litetq.lanes import Lanes
from litetq.message import Disposition, Outcome, Record
from litetq.past import Past
from litetq.states import Row

SMALL_BODY_BYTES: Final = 512  # arbitrary: arguments up to this size stay visible after a success

# One statement writes the result from the task's own row, so nothing travels through Python but what is new. Of two tasks
# that were sent under one id, the one claimed last is on record.
_RECORD_END: Final = """
    INSERT OR REPLACE INTO litetq_result (
        id, state, result, content_type, traceback, children, done_at, expires_at, name, lane, worker, retries, attempts,
        claim, priority, root_id, parent_id, headers, body, body_type, enqueued_at, started_at, runtime, reason, dead)
    SELECT id, ?3, ?4, ?5, ?6, ?7, ?8, ?9, name, lane, ?10, retries,
           attempts, claim, priority, root_id, parent_id, headers,
           CASE WHEN ?11 OR length(body) <= ?15 THEN body END, content_type, enqueued_at, coalesce(?12, started_at), ?13, ?14,
           ?16
    FROM   litetq_task
    WHERE  seq = ?1 AND claim IS ?2
           AND NOT EXISTS (SELECT 1 FROM litetq_result AS newer WHERE newer.id = litetq_task.id AND newer.claim > litetq_task.claim)
"""

_REMOVE: Final = "DELETE FROM litetq_task WHERE seq = ?1 AND claim IS ?2"
# Read first: of a statement with RETURNING, SQLite gathers the rows in a table of its own (2.5 us instead of 1.3).
_HELD: Final = """
    SELECT claim, seq, id, linked, join_id, follower, follower_kind, follows
    FROM   litetq_task
    WHERE  seq = ?1 AND claim IS ?2
"""

_RECORD_COLUMNS: Final = """
    SELECT id, state, 'DONE', result, content_type, traceback, children, done_at, name,
           (SELECT queue FROM litetq_lane WHERE litetq_lane.id = lane), worker, retries, parent_id, root_id, headers,
           body, body_type, enqueued_at, started_at, NULL, runtime, reason
    FROM   litetq_result
"""

_LIVE_COLUMNS: Final = """
    SELECT t.id, t.status, t.state, t.meta, t.meta_type, t.traceback, NULL, NULL, t.name, l.queue, w.name, t.retries,
           t.parent_id, t.root_id, t.headers, t.body, t.content_type, t.enqueued_at, t.started_at, t.due_at, NULL,
           CASE WHEN t.state = 0 AND l.paused THEN 'its queue is paused' END
    FROM   litetq_task AS t
           JOIN litetq_lane AS l ON l.id = t.lane
           LEFT JOIN litetq_worker AS w ON w.id = t.worker
"""

READ_PAGE: Final = 5_000  # ids read with one statement; arbitrary, some milliseconds
# Rows that are looked through for relatives: some 20 ms, and what is looked for is read anew for each page.
SEARCHED_PAGE: Final = 50_000

_TASK_PAGE: Final = (
    "SELECT max(seq) FROM (SELECT seq FROM litetq_task WHERE seq > coalesce(?1, 0) ORDER BY seq LIMIT ?2)"
)
_RESULT_PAGE: Final = (
    "SELECT max(id) FROM (SELECT id FROM litetq_result WHERE id > coalesce(?1, '') ORDER BY id LIMIT ?2)"
)
_RELATED_TASKS: Final = "SELECT id, root_id, headers FROM litetq_task WHERE seq > coalesce(?1, 0) AND seq <= ?2"
_RELATED_RESULTS: Final = "SELECT id, root_id, headers FROM litetq_result WHERE id > coalesce(?1, '') AND id <= ?2"
_BY_ROOT: Final = " AND coalesce(root_id, id) IN (SELECT value FROM json_each(?3))"
_BY_ROOT_OR_GROUP: Final = """
           AND (coalesce(root_id, id) IN (SELECT value FROM json_each(?3))
                OR headers LIKE '%"group":%' AND json_valid(headers)
                   AND json_extract(headers, '$.group') IN (SELECT value FROM json_each(?4)))
"""

# States that the worker writes; any other of a running task is one that somebody gave it with `update_state`.
_WRITTEN_BY_WORKERS: Final = frozenset({states.STARTED, states.RETRY})

_PLACES: Final = {Row.READY: "QUEUED", Row.SCHEDULED: "SCHEDULED", Row.BLOCKED: "BLOCKED", Row.CLAIMED: "CLAIMED"}
_REASONS: Final = {
    Row.READY: "waits for a free worker",
    Row.SCHEDULED: "waits until it is due",
    Row.BLOCKED: "waits for another task",
    Row.CLAIMED: "a worker holds it",
}


class Gone(NamedTuple):
    """A task whose row has just been removed, and what its row said of those around it."""

    claim: int | None
    seq: int
    id: str
    linked: int  # message.Linked
    join_id: int | None  # it was the body of that join
    follower: int | None
    follower_kind: int | None  # message.Kind
    follows: int | None


class Records:
    """The tables `litetq_result`, `litetq_attempt` and `litetq_outbox`.

    Args:
        result_expires: seconds that a finished task stays on record; None is for ever.
        failure_expires: the same for one that ended as FAILURE.
        projection: address of another result backend; every end, and every state on the way, then gets an outbox row in the
            same transaction.
    """

    def __init__(
        self,
        database: Database,
        lanes: Lanes,
        *,
        result_expires: float | None = 86_400.0,
        failure_expires: float | None = 86_400.0,
        projection: str | None = None,
    ) -> None:
        self.database = database
        self.lanes = lanes
        self.past = Past()
        self.result_expires = result_expires
        self.failure_expires = failure_expires
        self.projection = projection

    # -- end

    def end(self, tx: Transaction, row: tuple[Any, ...]) -> Gone | None:
        """Put the end of a task on record and remove the task; `row` is what `ending` or `ending_of` made.

        Return None when the claim no longer held: then nothing has changed.
        """
        held = tx.execute(_HELD, row[:2]).fetchall()
        if not held:
            return None
        tx.execute(_RECORD_END, row)
        if row[2] != states.SUCCESS:
            self.past.keep(tx, row[0], row[1], row[8])
        tx.execute(_REMOVE, row[:2])
        self._project(tx, held)
        return Gone._make(held[0])

    def end_plain(self, tx: Transaction, outcomes: Sequence[Outcome], now: float, worker: str | None) -> list[int]:
        """End tasks that nothing hangs on, with two statements for all of them; return the claims that were lost."""
        before = tx.connection.total_changes()
        tx.executemany(_RECORD_END, [self.ending_of(tx, o, now, worker) for o in outcomes])
        lost = []
        if tx.connection.total_changes() - before != len(outcomes):
            # A claim that is lost has left no result (what REPLACE removes is not counted); the held ones' rows still stand.
            lost = [o.claim for o in outcomes if not holds(tx, o)]
        failed = [(o.seq, o.claim, self.expiry(now, o.state)) for o in outcomes if o.state != states.SUCCESS]
        if failed:
            self.past.keep_plain(tx, failed)
        tx.executemany(_REMOVE, [(o.seq, o.claim) for o in outcomes])
        if self.projection is not None:
            self._project(tx, [(o.claim, o.seq, o.id) for o in outcomes if o.claim not in lost])
        return lost

    def _project(self, tx: Transaction, ended: Iterable[tuple[Any, ...]]) -> None:
        if self.projection is not None:
            tx.executemany(
                "INSERT INTO litetq_outbox (target, id, claim) VALUES (?1, ?2, ?3)",
                [(self.projection, id, claim) for claim, _, id, *_ in ended],
            )

    def project(self, tx: Transaction, id: str, claim: int | None) -> None:
        """Have a state on the way of a task copied, too, where results are copied at all."""
        self._project(tx, [(claim, None, id)])

    def expiry(self, now: float, state: str = states.SUCCESS) -> float | None:
        """Return when what ends now in this state leaves the record."""
        lifetime = self.failure_expires if state == states.FAILURE else self.result_expires
        return None if lifetime is None else now + lifetime

    # fmt: off
    def ending_of(self, tx: Transaction, o: Outcome, now: float, worker: str | None) -> tuple[Any, ...]:
        """Return what `end` takes for an attempt that ended its task."""
        keep_body = o.disposition != Disposition.COMPLETE
        reason = o.dead
        if o.disposition == Disposition.IGNORE:
            reason, o = "ignored", _as_said(tx, o)
        expires_at = self.expiry(now, o.state)
        return (o.seq, o.claim, o.state, o.result, o.content_type, o.traceback, o.children, now, expires_at, worker, keep_body,
                o.started_at, o.runtime, reason, SMALL_BODY_BYTES, int(o.dead is not None))

    def ending(
        self, seq: int, claim: int | None, state: str, error: bytes | None, error_type: str | None, now: float,
        *, reason: str, worker: str | None = None, dead: bool = False,
    ) -> tuple[Any, ...]:
        """Return what `end` takes for a task that ends without code of its own having decided it."""
        expires_at = self.expiry(now, state)
        return (seq, claim, state, error, error_type, None, None, now, expires_at, worker, True, None, None, reason,
                SMALL_BODY_BYTES, int(dead))
    # fmt: on

    # -- look and write

    def note_attempt(self, tx: Transaction, o: Outcome, label: str, worker: str | None, now: float) -> None:
        tx.execute(
            """
            INSERT INTO litetq_attempt (id, attempt, claim, worker, outcome, error, error_type, traceback, ended_at, expires_at)
            SELECT id, attempts, claim, ?3, ?4, ?5, ?6, ?7, ?8, ?9 FROM litetq_task WHERE seq = ?1 AND claim = ?2
            """,
            (o.seq, o.claim, worker, label, o.result, o.content_type, o.traceback, now, self.expiry(now)),
        )

    def read(self, id: str) -> Record | None:
        """Return what the file knows of a task; an unfinished one of this id comes before a finished one."""
        return self.database.read(lambda tx: self._read(tx, id))

    def _read(self, tx: Transaction, id: str) -> Record | None:
        # The unfinished first, as in `read_many`: one that ends between the two statements is then found by the second.
        live = tx.execute(_LIVE_COLUMNS + " WHERE t.id = ?1 ORDER BY t.seq DESC LIMIT 1", (id,)).fetchall()
        if live:
            return _live_record(live[0])
        done = tx.execute(_RECORD_COLUMNS + " WHERE id = ?1", (id,)).fetchall()
        return Record(*done[0]) if done else None

    def knows(self, tx: Transaction, id: str) -> bool:
        """Return whether the file has anything on record under an id, unfinished or finished."""
        return bool(
            tx.execute(
                "SELECT EXISTS (SELECT 1 FROM litetq_task WHERE id = ?1) "
                "OR EXISTS (SELECT 1 FROM litetq_result WHERE id = ?1)",
                (id,),
            ).get
        )

    def finished(self, id: str) -> Record | None:
        """Return the end that is on record under an id, whether or not a task of this id waits or runs."""
        rows = self.database.read(lambda tx: tx.execute(_RECORD_COLUMNS + " WHERE id = ?1", (id,)).fetchall())
        return Record(*rows[0]) if rows else None

    def dead_letters(self, limit: int = 1000) -> list[Record]:
        """Return failures that rest as dead letters, the latest first: redelivered too often, rejected, not acknowledged."""
        sql = _RECORD_COLUMNS + " WHERE dead ORDER BY done_at DESC LIMIT ?1"
        return [Record(*row) for row in self.database.read(lambda tx: tx.execute(sql, (limit,)).fetchall())]

    def read_many(self, ids: Sequence[str]) -> dict[str, Record]:
        """Return what the file knows of each of these ids; unknown ones are left out.

        Read in pages of READ_PAGE ids, so no snapshot is held for long.
        """
        known: dict[str, Record] = {}
        for place in range(0, len(ids), READ_PAGE):
            known.update(self._read_page(ids[place : place + READ_PAGE]))
        return known

    def _read_page(self, ids: Sequence[str]) -> dict[str, Record]:
        wanted = json.dumps(list(ids))

        def operation(tx: Transaction) -> dict[str, Record]:
            # The unfinished first: one that ends between the two statements is then found by the second.
            live = {
                row[0]: _live_record(row)
                for row in tx.execute(
                    _LIVE_COLUMNS + " WHERE t.id IN (SELECT value FROM json_each(?1)) ORDER BY t.seq", (wanted,)
                )
            }
            done = {
                row[0]: Record(*row)
                for row in tx.execute(_RECORD_COLUMNS + " WHERE id IN (SELECT value FROM json_each(?1))", (wanted,))
            }
            return {**done, **live}

        return self.database.read(operation)

    def relatives(self, id: str) -> list[Record]:
        """Return all tasks of the workflow that a task belongs to, itself included, in the order of their ids.

        Related are those with the same root, and the members of a group, with theirs. History is read in pages of
        SEARCHED_PAGE rows, so no snapshot is held for long. A pass takes 0.25 s per million finished tasks (measured); there
        are two where a group is met, and each looks for what the one before has brought up.
        """
        known = self.read(id)
        if known is None:
            return []
        ids = {id}
        roots, groups = {known.root_id or id}, _group_of(known.headers)
        known_roots, known_groups = set[str](), set[str]()
        while roots or groups:
            found = self._related(roots, groups)
            known_roots |= roots
            known_groups |= groups
            ids.update(row[0] for row in found)
            roots = {root or each for each, root, _ in found} - known_roots
            groups = set[str]().union(*(_group_of(headers) for _, _, headers in found)) - known_groups
        related = self.read_many(sorted(ids))
        return [related[id] for id in sorted(related)]

    def _related(self, roots: set[str], groups: set[str]) -> list[tuple[str, str | None, str | None]]:
        """Return id, root and headers of the tasks with one of these roots, or in one of these groups."""
        found: list[tuple[str, str | None, str | None]] = []
        wanted: tuple[str, ...] = (json.dumps(sorted(roots)),)
        condition = _BY_ROOT
        if groups:
            wanted, condition = (*wanted, json.dumps(sorted(groups))), _BY_ROOT_OR_GROUP
        for pages, related in ((_TASK_PAGE, _RELATED_TASKS + condition), (_RESULT_PAGE, _RELATED_RESULTS + condition)):
            first: Any = None
            while True:
                last = self.database.read(lambda tx, f=first, sql=pages: tx.execute(sql, (f, SEARCHED_PAGE)).get)  # type: ignore[misc]
                if last is None:
                    break
                found += self.database.read(
                    lambda tx, f=first, u=last, sql=related: tx.execute(sql, (f, u, *wanted)).fetchall()  # type: ignore[misc]
                )
                first = last
        return found

    def attempts_of(self, id: str) -> list[dict[str, Any]]:
        """Return the attempts of a task that did not end it, oldest first."""

        def operation(tx: Transaction) -> list[dict[str, Any]]:
            rows = tx.execute(
                "SELECT attempt, worker, outcome, error, error_type, traceback, ended_at FROM litetq_attempt WHERE id = ?1 ORDER BY n",
                (id,),
            )
            names = ("attempt", "worker", "outcome", "error", "error_type", "traceback", "ended_at")
            return [dict(zip(names, row, strict=True)) for row in rows]

        return self.database.read(operation)

    def counts(self) -> dict[str, int]:
        """Return how many tasks are in each place: QUEUED, SCHEDULED, BLOCKED, CLAIMED, DONE. Reads whole indexes."""

        def operation(tx: Transaction) -> dict[str, int]:
            found = dict.fromkeys((*_PLACES.values(), "DONE"), 0)
            for state, count in tx.execute("SELECT state, count(*) FROM litetq_task GROUP BY state"):
                found[_PLACES[state]] = count
            found["DONE"] = tx.execute("SELECT count(*) FROM litetq_result").get
            return found

        return self.database.read(operation)

    def scheduled(self) -> tuple[int, float | None]:
        """Return how many tasks are due later, and when the first one is (UTC seconds)."""

        def operation(tx: Transaction) -> tuple[int, float | None]:
            found: tuple[int, float | None] = tx.execute(
                "SELECT count(*), min(due_at) FROM litetq_task WHERE state = 1"
            ).fetchall()[0]
            return found

        return self.database.read(operation)

    def store_record(self, record: Record, expires_at: float | None, *, claim: int | None = None) -> None:
        """Write a result by id, guarded by no claim; with `claim`, only over older claims (projections)."""
        self.database.write(lambda tx: self.write(tx, record, expires_at, claim))

    def write(self, tx: Transaction, r: Record, expires_at: float | None, claim: int | None = None) -> None:
        tx.execute(
            """
            INSERT INTO litetq_result (
                id, state, result, content_type, traceback, children, done_at, expires_at, name, lane, worker, retries,
                parent_id, root_id, headers, body, body_type, enqueued_at, started_at, runtime, reason, claim)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)
            ON CONFLICT (id) DO UPDATE SET
                state = excluded.state, result = excluded.result, content_type = excluded.content_type,
                traceback = excluded.traceback, children = excluded.children, done_at = excluded.done_at,
                expires_at = excluded.expires_at, name = coalesce(excluded.name, name), lane = coalesce(excluded.lane, lane),
                worker = coalesce(excluded.worker, worker), retries = excluded.retries, runtime = excluded.runtime,
                started_at = excluded.started_at, reason = excluded.reason, claim = coalesce(excluded.claim, claim)
            WHERE excluded.claim IS NULL OR claim IS NULL OR excluded.claim >= claim
            """,
            _record_row(r, None if r.queue is None else self.lanes.id_of(tx, r.queue), expires_at, claim),
        )

    def forget(self, ids: Iterable[str]) -> int:
        """Remove finished results and the record of their attempts; return how many results there were."""
        wanted = json.dumps(list(ids))

        def operation(tx: Transaction) -> int:
            self.past.forget(tx, wanted)
            tx.execute("DELETE FROM litetq_attempt WHERE id IN (SELECT value FROM json_each(?1))", (wanted,))
            tx.execute("DELETE FROM litetq_result WHERE id IN (SELECT value FROM json_each(?1))", (wanted,))
            return tx.connection.changes()

        return self.database.write(operation)

    def prune(self, now: float, limit: int = 1000) -> int:
        """Remove up to `limit` expired results, and as many attempts, remembered revokes and rows of failed workflows.

        Returns how many rows were removed. Their pages are free then, for `give_space_back`.
        """
        if not self.database.read(lambda tx: self._prunable(tx, now)):
            return 0

        def operation(tx: Transaction) -> int:
            count = self.past.prune(tx, now, limit)
            for table, key in (("litetq_result", "id"), ("litetq_attempt", "n"), ("litetq_revoked", "id")):
                tx.execute(
                    f"DELETE FROM {table} WHERE {key} IN "
                    f"(SELECT {key} FROM {table} WHERE expires_at IS NOT NULL AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
                    (now, limit),
                )
                count += tx.connection.changes()
            return count

        return self.database.write(operation)

    def _prunable(self, tx: Transaction, now: float) -> bool:
        return self.past.is_prunable(tx, now) or any(
            tx.execute(
                f"SELECT EXISTS (SELECT 1 FROM {table} WHERE expires_at IS NOT NULL AND expires_at <= ?1)", (now,)
            ).get
            for table in ("litetq_result", "litetq_attempt", "litetq_revoked")
        )

    def next_expiry(self) -> float | None:
        """Return when the next result expires, UTC seconds; None when none ever does."""
        expires_at: float | None = self.database.read(
            lambda tx: tx.execute("SELECT min(expires_at) FROM litetq_result WHERE expires_at IS NOT NULL").get
        )
        return expires_at

    def give_space_back(self, pages: int = 1000, *, keep: int = 0) -> bool:
        """Return up to `pages` of the free pages beyond `keep` to the file system; return whether more are left to return."""
        free: int = self.database.read(lambda tx: tx.execute("PRAGMA freelist_count").get)
        if free <= keep:
            return False
        pages = min(pages, free - keep)
        self.database.write(lambda tx: tx.execute(f"PRAGMA incremental_vacuum({pages})").fetchall())
        return free - pages > keep

    def outbox(self, limit: int = 500) -> list[tuple[int, str, Record | None, float | None, int | None]]:
        """Return what is not yet relayed: (n, target, record or None where it is gone, expires_at, claim).

        The record is the end of the task, or, as long as it has none, how far it has come.
        """

        def operation(tx: Transaction) -> list[Any]:
            found = []
            for n, target, id, claim in tx.execute(
                "SELECT n, target, id, claim FROM litetq_outbox ORDER BY n LIMIT ?1", (limit,)
            ).fetchall():
                rows = tx.execute(_RECORD_COLUMNS + " WHERE id = ?1", (id,)).fetchall()
                record = Record(*rows[0]) if rows else self._read(tx, id)
                expires_at = tx.execute("SELECT expires_at FROM litetq_result WHERE id = ?1", (id,)).get
                found.append((n, target, record, expires_at, claim))
            return found

        return self.database.read(operation)

    def relayed(self, last: int) -> None:
        """Forget outbox rows up to number `last`."""
        self.database.write(lambda tx: tx.execute("DELETE FROM litetq_outbox WHERE n <= ?1", (last,)).fetchall())


# fmt: off


def _group_of(headers: str | None) -> set[str]:
    """Return the id of the group that a task is a member of, if any."""
    if headers is None or '"group":' not in headers:
        return set()
    try:
        group = json.loads(headers).get("group")
    except (ValueError, AttributeError):
        return set()
    return {group} if isinstance(group, str) else set()


def _record_row(r: Record, lane: int | None, expires_at: float | None, claim: int | None) -> tuple[Any, ...]:
    return (r.id, r.state, r.result, r.content_type, r.traceback, r.children, r.done_at, expires_at, r.name, lane, r.worker,
            r.retries, r.parent_id, r.root_id, r.headers, r.body, r.body_type, r.enqueued_at, r.started_at, r.runtime,
            r.reason, claim)


# fmt: on


def holds(tx: Transaction, o: Outcome) -> bool:
    """Return whether the claim of an outcome still holds."""
    return bool(
        tx.execute("SELECT EXISTS (SELECT 1 FROM litetq_task WHERE seq = ?1 AND claim = ?2)", (o.seq, o.claim)).get
    )


def _as_said(tx: Transaction, o: Outcome) -> Outcome:
    """Return the end of an ignored task as it is put on record: with the state that it gave itself, if it did."""
    said = tx.execute(
        "SELECT status, meta, meta_type FROM litetq_task WHERE seq = ?1 AND claim = ?2", (o.seq, o.claim)
    ).fetchall()
    if not said or said[0][0] is None or said[0][0] in _WRITTEN_BY_WORKERS:
        return o
    state, meta, meta_type = said[0]
    return o._replace(state=state, result=meta, content_type=meta_type)


def _live_record(row: tuple[Any, ...]) -> Record:
    id, status, place, *rest, reason = row
    return Record._make((id, status or states.PENDING, _PLACES[place], *rest, reason or _REASONS[place]))
