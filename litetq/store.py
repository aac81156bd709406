"""The verbs of the file, each true as a whole or not at all. The only room, beside `database.py`, that speaks SQL.

A verb takes a cursor inside a transaction and the time as `now`; the public methods at the end open the transaction. What
may change what is written down in `states.TRANSITIONS`; every statement that ends or gives back a claim names the claim
number, and a caller whose number is gone changes nothing and is told so.

Values are opaque bytes here, with one exception: a failure must run through a workflow without the program that wrote
the tasks, so failures that this room itself causes are written in the JSON form of exceptions (`serialization.py`).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from litetq import states
from litetq.database import Database, Transaction
from litetq.message import SELF, Delivery, Disposition, Join, Kind, Message, Outcome, Plan, Record, Role, Taken
from litetq.states import Row

SMALL_BODY_BYTES: Final = 512  # arbitrary: arguments up to this size stay visible after a success
REVOKED_MEMORY_S: Final = (
    10_800.0  # Celery's CELERY_WORKER_REVOKE_EXPIRES: how long an id unknown to the file stays revoked
)

# Positional parameters, not named ones, on the hot statements: binding 16 names costs 1.9 us, 16 places 0.6 us.
_INSERT_TASK: Final = """
    INSERT INTO litetq_task (
        id, name, state, lane, priority, body, content_type, retries, attempts, deliveries, due_at, expires_at,
        root_id, parent_id, headers, enqueued_at, delay, lifetime, role, linked, blockers, join_id)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, 0, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)
"""

# Read first, then updated without RETURNING: SQLite gathers returned rows in a table of its own, which for 21 columns
# costs 3 us a task more than the read (6 us instead of 9).
_DELIVERY_COLUMNS: Final = """
    SELECT seq, id, name, body, content_type, lane, priority, retries, attempts + 1, deliveries, due_at, expires_at,
           root_id, parent_id, headers, role, linked, input, input_type, join_id, revoked
    FROM   litetq_task
"""

_HOLD: Final = "UPDATE litetq_task SET state = 3, claim = ?1, worker = ?2, attempts = attempts + 1 WHERE seq = ?3"

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
_REMOVE_LINKED: Final = _REMOVE + " RETURNING claim, seq, id, linked, join_id"

_RECORD_COLUMNS: Final = """
    SELECT id, state, 'DONE', result, content_type, traceback, children, done_at, name,
           (SELECT queue FROM litetq_lane WHERE litetq_lane.id = lane), worker, retries, parent_id, root_id, headers,
           body, body_type, enqueued_at, started_at, NULL, runtime, reason
    FROM   litetq_result
"""

_LIVE_COLUMNS: Final = """
    SELECT t.id, t.status, t.state, t.meta, t.meta_type, t.traceback, NULL, NULL, t.name, l.queue, w.name, t.retries,
           t.parent_id, t.root_id, t.headers, t.body, t.content_type, t.enqueued_at, t.started_at, t.due_at, NULL, NULL
    FROM   litetq_task AS t
           JOIN litetq_lane AS l ON l.id = t.lane
           LEFT JOIN litetq_worker AS w ON w.id = t.worker
"""

_PLACES: Final = {Row.READY: "QUEUED", Row.SCHEDULED: "SCHEDULED", Row.BLOCKED: "BLOCKED", Row.CLAIMED: "CLAIMED"}
_REASONS: Final = {
    Row.READY: "waits for a free worker",
    Row.SCHEDULED: "waits until it is due",
    Row.BLOCKED: "waits for another task",
    Row.CLAIMED: "a worker holds it",
}


class Lane(NamedTuple):
    id: int
    queue: str
    interval: float | None
    max_running: int | None


class Worker(NamedTuple):
    """A row of `litetq_worker`."""

    id: int
    name: str
    run: str
    boot: str
    pid: int
    beats: int
    late: frozenset[str]
    started_at: float
    queues: str | None
    info: str | None


class Rescued(NamedTuple):
    """What became of the claims of a worker that is gone."""

    released: list[str]  # ids: never begun, back in their queue, no attempt spent
    redelivered: list[str]  # ids: begun and acknowledged late, to run again
    failed: list[str]  # ids: begun, ended as FAILURE(WorkerLostError)
    dead: list[str]  # ids: redelivered too often, dead letters


class End(NamedTuple):
    """How a task ends, as the workflow around it needs to know."""

    succeeded: bool
    value: bytes | None  # the encoded value or exception
    content_type: str | None


class Store:
    """The tasks, results, lanes and workers of one file."""

    def __init__(
        self,
        database: Database,
        *,
        result_expires: float | None = 86_400.0,
        redelivery_bound: int = 5,
        projection: str | None = None,
    ) -> None:
        """Stand before `database`, which is opened at the first verb.

        Args:
            result_expires: seconds that a finished task stays on record; None is for ever.
            redelivery_bound: how often begun work is given back before it rests as a dead letter.
            projection: address of another result backend; every end then gets an outbox row in the same transaction.
        """
        self.database = database
        self.result_expires = result_expires
        self.redelivery_bound = redelivery_bound
        self.projection = projection
        self._lanes: dict[str, int] = {}  # queue -> id of its own lane; lanes are never deleted
        self._queues: dict[int, str] = {}
        self._lanes_of = 0  # the opening of the file at which they were read: another may find another file there

    # -- send

    def send(self, plan: Plan, now: float, *, full: bool = False) -> None:
        """Enqueue all of `plan` in one transaction: READY, SCHEDULED when due later, BLOCKED when it waits for a task.

        A task whose id was revoked before ends at once as REVOKED.
        """
        if len(plan.messages) == 1 and not plan.links and not plan.joins:
            message = plan.messages[0]
            self.database.write(lambda tx: self._send_one(tx, message, now), full=full)
        else:
            self.database.write(lambda tx: self._send(tx, plan, now), full=full)
        if self._lanes_of != self.database.opened or any(m.queue not in self._lanes for m in plan.messages):
            self._remember_lanes()

    def _send_one(self, tx: Transaction, message: Message, now: float) -> None:
        tx.execute(_INSERT_TASK, _task_bindings(message, self._lane(tx, message.queue), now))
        self._end_revoked(tx, now, (message.id,))

    def _send(self, tx: Transaction, plan: Plan, now: float, self_seq: int | None = None) -> list[int]:
        """Insert the rows of a plan; return their seqs, in the order of its messages."""
        messages, _, joins = plan
        links = list(dict.fromkeys(plan.links))
        lanes = {queue: self._lane(tx, queue) for queue in {m.queue for m in messages}}
        if not links and not joins:
            first = tx.execute("SELECT seq FROM sqlite_sequence WHERE name = 'litetq_task'").get or 0
            tx.executemany(_INSERT_TASK, [_task_bindings(m, lanes[m.queue], now) for m in messages])
            self._end_revoked(tx, now, [m.id for m in messages])
            # AUTOINCREMENT gives consecutive numbers within one transaction: SQLite has one writer.
            return list(range(first + 1, first + 1 + len(messages)))

        blockers = [0] * len(messages)
        linked = [0] * len(messages)
        roles = [Role.TASK] * len(messages)
        for source, target, kind in links:
            if kind == Kind.ERRBACK:
                roles[target] = Role.ERRBACK
                blockers[target] = 1  # the first failure releases it, however many tasks it watches
            else:
                blockers[target] += 1
            if source >= 0:
                linked[source] = 1
        join_ids: list[int] = []
        body_of: dict[int, int] = {}
        for join in joins:
            tx.execute(
                "INSERT INTO litetq_join (size, remaining, immutable) VALUES (?1, ?1, ?2)",
                (len(join.members), int(join.immutable)),
            )
            join_ids.append(tx.connection.last_insert_rowid())
            for member in join.members:
                if member >= 0:
                    linked[member] = 1
            if join.body is not None:
                blockers[join.body] += 1
                linked[join.body] = 1  # its end takes the join's values with it
                body_of[join.body] = join_ids[-1]
        seqs = []
        for place, m in enumerate(messages):
            hangs = (roles[place], linked[place], blockers[place], body_of.get(place))
            tx.execute(_INSERT_TASK, _task_bindings(m, lanes[m.queue], now, *hangs))
            seqs.append(tx.connection.last_insert_rowid())
        for source, target, kind in links:
            source_seq = self_seq if source == SELF else seqs[source]
            tx.execute(
                "INSERT OR IGNORE INTO litetq_link (source, target, kind) VALUES (?1, ?2, ?3)",
                (source_seq, seqs[target], kind),
            )
        self._fill_joins(tx, joins, join_ids, seqs, now)
        self._end_revoked(tx, now, [m.id for m in messages])
        return seqs

    def _fill_joins(self, tx: Transaction, joins: Sequence[Join], ids: list[int], seqs: list[int], now: float) -> None:
        for join, join_id in zip(joins, ids, strict=True):
            if join.body is not None:
                tx.execute("UPDATE litetq_join SET body = ?1 WHERE id = ?2", (seqs[join.body], join_id))
            for place, member in enumerate(join.members):
                seq = seqs[member] if member >= 0 else None
                tx.execute(
                    "INSERT INTO litetq_part (join_id, place, member) VALUES (?1, ?2, ?3)", (join_id, place, seq)
                )
                if member < 0:
                    inner = ids[-2 - member]
                    tx.execute(
                        "UPDATE litetq_join SET outer_join = ?1, outer_place = ?2 WHERE id = ?3",
                        (join_id, place, inner),
                    )
        for join, join_id in zip(joins, ids, strict=True):
            if not join.members:
                self._join_complete(tx, join_id, now)

    def _end_revoked(self, tx: Transaction, now: float, ids: Sequence[str]) -> None:
        if tx.execute("SELECT EXISTS (SELECT 1 FROM litetq_revoked)").get:
            for id in ids:
                reason = tx.execute(
                    "SELECT reason FROM litetq_revoked WHERE id = ?1 AND expires_at > ?2", (id, now)
                ).get
                if reason is not None:
                    self._revoke_waiting(tx, id, reason, now)

    def _lane(self, tx: Transaction, queue: str) -> int:
        """Return the id of a queue's own lane, made when new."""
        # Only committed lanes are remembered: one that was rolled back must not be used.
        lane = self._lanes.get(queue) if self._lanes_of == self.database.opened else None
        if lane is None:
            lane = tx.execute("SELECT id FROM litetq_lane WHERE queue = ?1 AND key = ''", (queue,)).get
            if lane is None:
                tx.execute("INSERT INTO litetq_lane (queue) VALUES (?1)", (queue,))
                lane = tx.connection.last_insert_rowid()
        return int(lane)

    def lane_of(self, queue: str) -> int | None:
        """Return the id of a queue's lane as far as this process has met it."""
        return self._lanes.get(queue)

    def _remember_lanes(self) -> None:
        """Read the lanes again; only what is committed is ever remembered."""
        opened = self.database.opened
        rows = self.database.read(lambda tx: tx.execute("SELECT id, queue, key FROM litetq_lane").fetchall())
        self._queues = {id: queue for id, queue, _ in rows}
        self._lanes = {queue: id for id, queue, key in rows if key == ""}
        self._lanes_of = opened

    # -- claim

    def take(
        self,
        worker: int,
        name: str,
        free: int,
        outcomes: Sequence[Outcome],
        now: float,
        *,
        queues: frozenset[str] | None = None,
    ) -> Taken:
        """Settle `outcomes` and claim up to `free` READY tasks, in one transaction.

        Claimed tasks are held by `worker` under numbers that are drawn now and never again. They come by priority, then
        in commit order. What has expired or was revoked is not claimed but ends as REVOKED.
        """

        def operation(tx: Transaction) -> tuple[list[int], list[Any], dict[int, Any], float | None]:
            lost = self._settle(tx, outcomes, now, name) if outcomes else []
            claimed = self._claim(tx, worker, free, now, queues) if free > 0 else []
            # Read here: once the claim is committed, somebody may rescue it and end the chord.
            parts = {row[0]: self._parts(tx, row[19]) for _, row in claimed if row[19] is not None}
            return lost, claimed, parts, self._next_due(tx, now)

        lost, rows, parts, next_due = self.database.write(operation)
        return Taken(self._deliveries(rows, parts), lost, next_due)

    def probe(self, now: float, queues: frozenset[str] | None = None) -> tuple[bool, float | None]:
        """Return whether a claim would find something, and when the next scheduled task is due. Writes nothing."""

        def operation(tx: Transaction) -> tuple[bool, float | None]:
            due = self._next_due(tx, now)
            if due is not None and due <= now:
                return True, due
            for lane in self._open_lanes(tx, now, queues):
                if (
                    self._places(tx, lane, 1)
                    and tx.execute(
                        "SELECT EXISTS (SELECT 1 FROM litetq_task WHERE state = 0 AND lane = ?1)", (lane.id,)
                    ).get
                ):
                    return True, due
            return False, due

        return self.database.read(operation)

    def _next_due(self, tx: Transaction, now: float) -> float | None:
        """Return when the next scheduled task is due, or a closed lane in which something waits opens."""
        due: float | None = tx.execute("SELECT min(due_at) FROM litetq_task WHERE state = 1").get
        opens: float | None = tx.execute(
            "SELECT min(open_at) FROM litetq_lane WHERE open_at > ?1 AND paused = 0 "
            "AND EXISTS (SELECT 1 FROM litetq_task WHERE state = 0 AND lane = litetq_lane.id)",
            (now,),
        ).get
        return due if opens is None else opens if due is None else min(due, opens)

    def _open_lanes(self, tx: Transaction, now: float, queues: frozenset[str] | None) -> list[Lane]:
        lanes = []
        for id, queue, interval, limit in tx.execute(
            "SELECT id, queue, interval, max_running FROM litetq_lane WHERE paused = 0 AND open_at <= ?1", (now,)
        ):
            if queues is None or queue in queues:
                lanes.append(Lane(id, queue, interval, limit))
        return lanes

    def _claim(self, tx: Transaction, worker: int, free: int, now: float, queues: frozenset[str] | None) -> list[Any]:
        self._promote(tx, now, max(free, 100))
        lanes = self._open_lanes(tx, now, queues)
        places = {lane.id: self._places(tx, lane, free) for lane in lanes}
        if len(lanes) == 1:
            rows = self._first_of(tx, lanes[0].id, places[lanes[0].id])
        else:
            # Each lane's first ones, merged by priority and commit number; bodies are read for the winners only.
            picked: list[tuple[int, int, int]] = []
            for lane in lanes:
                picked += tx.execute(
                    "SELECT -priority, seq, lane FROM litetq_task WHERE state = 0 AND lane = ?1 "
                    "ORDER BY priority DESC, seq LIMIT ?2",
                    (lane.id, places[lane.id]),
                )
            wins = Counter(lane for _, _, lane in sorted(picked)[:free])
            rows = [row for lane, count in wins.items() for row in self._first_of(tx, lane, count)]
            rows.sort(key=lambda row: (-row[6], row[0]))
        if not rows:
            return []
        last = tx.execute(
            "UPDATE litetq_counter SET value = value + ?1 WHERE name = 'claim' RETURNING value", (len(rows),)
        ).get
        claimed = list(enumerate(rows, last - len(rows) + 1))
        tx.executemany(_HOLD, [(claim, worker, row[0]) for claim, row in claimed])
        for lane in lanes:
            if lane.interval is not None and any(row[5] == lane.id for row in rows):
                tx.execute("UPDATE litetq_lane SET open_at = max(open_at, ?1) + interval WHERE id = ?2", (now, lane.id))
        return [pair for pair in claimed if self._may_start(tx, *pair, now)]

    def _first_of(self, tx: Transaction, lane: int, count: int) -> list[Any]:
        """Read the first READY tasks of a lane, in the order in which they are to start."""
        rows: list[Any] = tx.execute(
            _DELIVERY_COLUMNS + " WHERE state = 0 AND lane = ?1 ORDER BY priority DESC, seq LIMIT ?2", (lane, count)
        ).fetchall()
        return rows

    def _places(self, tx: Transaction, lane: Lane, free: int) -> int:
        """Return how many tasks of a lane may be started now."""
        if lane.interval is not None:
            free = 1
        if lane.max_running is not None:
            running = tx.execute("SELECT count(*) FROM litetq_task WHERE state = 3 AND lane = ?1", (lane.id,)).get
            free = max(0, min(free, lane.max_running - running))
        return free

    def _may_start(self, tx: Transaction, claim: int, row: tuple[Any, ...], now: float) -> bool:
        """End what came too late instead of handing it out."""
        seq, expires_at, revoked = row[0], row[11], row[20]
        if revoked is not None:
            self._end(tx, seq, claim, states.REVOKED, _revoked(revoked), now, reason=revoked)
            return False
        if expires_at is not None and expires_at <= now:
            self._end(tx, seq, claim, states.REVOKED, _revoked("expired"), now, reason="expired")
            return False
        return True

    def _deliveries(self, rows: list[Any], parts: Mapping[int, Any]) -> list[Delivery]:
        if not rows:
            return []
        if self._lanes_of != self.database.opened or any(row[5] not in self._queues for _, row in rows):
            self._remember_lanes()
        queues = self._queues
        return [
            Delivery._make((claim, *row[:5], queues[row[5]], *row[6:17], self._input(row, parts)))
            for claim, row in rows
        ]

    def _input(self, row: tuple[Any, ...], parts: Mapping[int, Any]) -> Any:
        """Return what predecessors hand over: None, (content type, bytes), or for a chord body a tree of such."""
        value, value_type, join_id = row[17:20]
        if join_id is not None:
            return parts[row[0]]
        return None if value is None else (value_type, value)

    def _parts(self, tx: Transaction, join_id: int) -> list[Any] | None:
        if tx.execute("SELECT immutable FROM litetq_join WHERE id = ?1", (join_id,)).get:
            return None
        inner = dict(tx.execute("SELECT outer_place, id FROM litetq_join WHERE outer_join = ?1", (join_id,)).fetchall())
        parts: list[Any] = []
        for place, value, value_type in tx.execute(
            "SELECT place, value, value_type FROM litetq_part WHERE join_id = ?1 ORDER BY place", (join_id,)
        ).fetchall():
            parts.append(self._parts(tx, inner[place]) if place in inner else (value_type, value))
        return parts

    # -- settle

    def _settle(self, tx: Transaction, outcomes: Sequence[Outcome], now: float, worker: str | None) -> list[int]:
        """Commit how attempts ended; return the claim numbers that no longer hold, for which nothing was changed."""
        plain = [o for o in outcomes if o.disposition in _FINAL and not o.linked and o.plan is None]
        lost = self._settle_plain(tx, plain, now, worker) if plain else []
        if len(plain) < len(outcomes):
            for o in outcomes:
                if o.disposition not in _FINAL:
                    held = self._settle_open(tx, o, now, worker)
                elif o.linked or o.plan is not None:
                    held = self._settle_linked(tx, o, now, worker)
                else:
                    continue
                if not held:
                    lost.append(o.claim)
        return lost

    def _settle_plain(self, tx: Transaction, outcomes: Sequence[Outcome], now: float, worker: str | None) -> list[int]:
        """End tasks that nothing hangs on, with two statements for all of them."""
        expires_at = self._expiry(now)
        before = tx.connection.total_changes()
        tx.executemany(_RECORD_END, [_end_bindings(o, now, expires_at, worker) for o in outcomes])
        lost = []
        if tx.connection.total_changes() - before != len(outcomes):
            # A claim that is lost has left no result (what REPLACE removes is not counted); the held ones' rows still stand.
            lost = [o.claim for o in outcomes if not self._holds(tx, o)]
        tx.executemany(_REMOVE, [(o.seq, o.claim) for o in outcomes])
        if self.projection is not None:
            self._project(tx, [(o.claim, o.seq, o.id) for o in outcomes if o.claim not in lost])
        return lost

    def _settle_linked(self, tx: Transaction, o: Outcome, now: float, worker: str | None) -> bool:
        """End one task together with all that hangs on it; return whether the claim still held."""
        if o.plan is not None and self._holds(tx, o):
            self._send(tx, o.plan, now, o.seq)
        tx.execute(_RECORD_END, _end_bindings(o, now, self._expiry(now), worker))
        ended = tx.execute(_REMOVE_LINKED, (o.seq, o.claim)).fetchall()
        self._project(tx, ended)
        for _, seq, id, linked, join_id in ended:
            self._after_end(tx, seq, id, linked or o.plan is not None, join_id, _end_of(o), now)
        return bool(ended)

    def _project(self, tx: Transaction, ended: Iterable[tuple[Any, ...]]) -> None:
        if self.projection is not None:
            tx.executemany(
                "INSERT INTO litetq_outbox (target, id, claim) VALUES (?1, ?2, ?3)",
                [(self.projection, id, claim) for claim, _, id, *_ in ended],
            )

    def _expiry(self, now: float) -> float | None:
        return None if self.result_expires is None else now + self.result_expires

    def _holds(self, tx: Transaction, o: Outcome) -> bool:
        return bool(
            tx.execute("SELECT EXISTS (SELECT 1 FROM litetq_task WHERE seq = ?1 AND claim = ?2)", (o.seq, o.claim)).get
        )

    def _settle_open(self, tx: Transaction, outcome: Outcome, now: float, worker: str | None) -> bool:
        """Settle an attempt that does not end its task; return whether the claim still held."""
        revoked = tx.execute(
            "SELECT revoked FROM litetq_task WHERE seq = ?1 AND claim = ?2 AND revoked IS NOT NULL",
            (outcome.seq, outcome.claim),
        ).get
        if revoked is not None:
            return self._end(tx, outcome.seq, outcome.claim, states.REVOKED, _revoked(revoked), now, reason=revoked)
        if outcome.disposition == Disposition.REPLACE:
            return self._replace(tx, outcome, now)
        if outcome.disposition == Disposition.RELEASE:
            return self._give_back(tx, outcome.seq, outcome.claim, now, due_at=outcome.due_at, spent=False)
        label = "RETRY" if outcome.disposition == Disposition.RETRY else "REQUEUED"
        self._note_attempt(tx, outcome, label, worker, now)
        if outcome.disposition == Disposition.REQUEUE:
            return self._redeliver(tx, outcome.seq, outcome.claim, now) is not None
        return self._retry(tx, outcome, now)

    def _retry(self, tx: Transaction, o: Outcome, now: float) -> bool:
        """End an attempt and make the next one due; the task keeps its place in the order."""
        due_at = o.due_at if o.due_at is not None and o.due_at > now else None
        state = Row.READY if due_at is None else Row.SCHEDULED
        rows = tx.execute(
            """
            UPDATE litetq_task
            SET    state = ?3, claim = NULL, worker = NULL, due_at = ?4, retries = retries + 1, status = ?5, meta = ?6,
                   meta_type = ?7, traceback = ?8, started_at = NULL
            WHERE  seq = ?1 AND claim = ?2
            RETURNING seq
            """,
            (
                o.seq,
                o.claim,
                int(state),
                due_at if due_at is not None else o.due_at,
                o.state,
                o.result,
                o.content_type,
                o.traceback,
            ),
        ).fetchall()
        if rows and o.message is not None:
            m = o.message
            tx.execute(
                """
                UPDATE litetq_task
                SET    body = ?2, content_type = ?3, lane = ?4, priority = ?5, expires_at = ?6, headers = ?7, retries = ?8
                WHERE  seq = ?1
                """,
                (
                    o.seq,
                    m.body,
                    m.content_type,
                    self._lane(tx, m.queue),
                    m.priority,
                    m.expires_at,
                    m.headers,
                    m.retries,
                ),
            )
        if rows and o.plan is not None:
            self._send(tx, o.plan, now, o.seq)
            if any(link.source == SELF for link in o.plan.links):
                tx.execute("UPDATE litetq_task SET linked = 1 WHERE seq = ?1", (o.seq,))
        return bool(rows)

    def _give_back(
        self, tx: Transaction, seq: int, claim: int, now: float, *, due_at: float | None = None, spent: bool
    ) -> bool:
        """Undo a claim: the task is READY in its old place (SCHEDULED with a due time ahead)."""
        later = due_at is not None and due_at > now
        return bool(
            tx.execute(
                """
                UPDATE litetq_task
                SET    state = ?3, claim = NULL, worker = NULL, attempts = attempts - ?4, due_at = coalesce(?5, due_at)
                WHERE  seq = ?1 AND claim = ?2
                RETURNING seq
                """,
                (seq, claim, 1 if later else 0, 0 if spent else 1, due_at if later else None),
            ).fetchall()
        )

    def _redeliver(self, tx: Transaction, seq: int, claim: int, now: float) -> bool | None:
        """Give begun work back, counted. Returns True when it will run again, False when it now rests as a dead letter."""
        count = tx.execute(
            "UPDATE litetq_task SET deliveries = deliveries + 1 WHERE seq = ?1 AND claim = ?2 RETURNING deliveries",
            (seq, claim),
        ).get
        if count is None:
            return None
        if count > self.redelivery_bound:
            reason = f"redelivered {self.redelivery_bound} times and lost each time"
            self._end(
                tx, seq, claim, states.FAILURE, exception_json("WorkerLostError", reason), now, reason=reason, dead=True
            )
            return False
        return self._give_back(tx, seq, claim, now, spent=True)

    def _replace(self, tx: Transaction, outcome: Outcome, now: float) -> bool:
        """Put the plan's last message in the task's place: it takes over who waits for it."""
        held = tx.execute(
            "SELECT linked, join_id FROM litetq_task WHERE seq = ?1 AND claim = ?2", (outcome.seq, outcome.claim)
        ).fetchall()
        if not held:
            return False
        linked, join_id = held[0]
        plan = outcome.plan
        assert plan is not None
        seqs = self._send(tx, plan, now, outcome.seq)
        heir = seqs[-1]
        if not tx.execute("SELECT EXISTS (SELECT 1 FROM litetq_task WHERE seq = ?1)", (heir,)).get:
            reason = "its replacement was revoked"
            return self._end(tx, outcome.seq, outcome.claim, states.REVOKED, _revoked(reason), now, reason=reason)
        if linked or any(link.source == SELF for link in plan.links):
            # Whoever is told of the task's failure must be told when it is a step before the heir that fails.
            tx.executemany(
                "INSERT OR IGNORE INTO litetq_link (source, target, kind) "
                "SELECT ?1, target, kind FROM litetq_link WHERE source = ?2 AND kind = 3",
                [(seqs[place], outcome.seq) for place in _before(plan, len(seqs) - 1)],
            )
            tx.execute("UPDATE litetq_link SET source = ?1 WHERE source = ?2", (heir, outcome.seq))
            tx.execute("UPDATE litetq_part SET member = ?1 WHERE member = ?2", (heir, outcome.seq))
            tx.execute("UPDATE litetq_task SET linked = 1 WHERE seq = ?1", (heir,))
        tx.execute("DELETE FROM litetq_task WHERE seq = ?1", (outcome.seq,))
        if join_id is not None:
            self._drop_join(tx, join_id)
        return True

    def _note_attempt(self, tx: Transaction, o: Outcome, label: str, worker: str | None, now: float) -> None:
        tx.execute(
            """
            INSERT INTO litetq_attempt (id, attempt, claim, worker, outcome, error, error_type, traceback, ended_at, expires_at)
            SELECT id, attempts, claim, ?3, ?4, ?5, ?6, ?7, ?8, ?9 FROM litetq_task WHERE seq = ?1 AND claim = ?2
            """,
            (o.seq, o.claim, worker, label, o.result, o.content_type, o.traceback, now, self._expiry(now)),
        )

    def _end(
        self,
        tx: Transaction,
        seq: int,
        claim: int | None,
        state: str,
        error: bytes,
        now: float,
        *,
        reason: str,
        worker: str | None = None,
        dead: bool = False,
    ) -> bool:
        """End a task without a result of its own (revoked, expired, lost, failed with another); return whether it held."""
        tx.execute(_RECORD_END, _end_row(seq, claim, state, error, None, now, self._expiry(now), worker, reason, dead))
        rows = tx.execute(_REMOVE_LINKED, (seq, claim)).fetchall()
        self._project(tx, rows)
        for _, _, id, linked, join_id in rows:
            if linked or join_id is not None:
                self._after_end(tx, seq, id, linked, join_id, End(False, error, None), now)
        return bool(rows)

    # -- workflows: what waits for a task that ended

    def _after_end(
        self, tx: Transaction, seq: int, id: str, linked: int, join_id: int | None, end: End, now: float
    ) -> None:
        """Release or fail what waited for a task; a failure runs on through all that waits behind it.

        A loop over a work list, because a chain may have 10,000 steps.
        """
        work = [(seq, id, linked, join_id, end, True)]
        while work:
            seq, id, linked, join_id, end, fires = work.pop()
            if join_id is not None:
                self._drop_join(tx, join_id)
            if not linked:
                continue
            for target, kind in tx.execute("SELECT target, kind FROM litetq_link WHERE source = ?1", (seq,)).fetchall():
                if kind == Kind.ERRBACK:
                    if not end.succeeded and fires:
                        self._release_errback(tx, target, id, now)
                    else:
                        self._drop_errback(tx, seq, target)
                elif end.succeeded:
                    self._release(tx, target, end if kind == Kind.VALUE else None, now)
                else:
                    work += self._fail(tx, target, end, now, fires=False)
            tx.execute("DELETE FROM litetq_link WHERE source = ?1", (seq,))
            for join, place in tx.execute(
                "SELECT join_id, place FROM litetq_part WHERE member = ?1", (seq,)
            ).fetchall():
                if not end.succeeded:
                    work += self._join_failed(tx, join, chord_error(id, end), now)
                    continue
                tx.execute(
                    "UPDATE litetq_part SET member = NULL, filled = 1, value = ?3, value_type = ?4 "
                    "WHERE join_id = ?1 AND place = ?2",
                    (join, place, end.value, end.content_type),
                )
                self._join_advance(tx, join, now)

    def _release(self, tx: Transaction, target: int, value: End | None, now: float) -> None:
        """Take one blocker from a waiting task; at none it becomes READY, or SCHEDULED when its due time is ahead."""
        if value is not None:
            tx.execute(
                "UPDATE litetq_task SET input = ?2, input_type = ?3 WHERE seq = ?1",
                (target, b"null", None) if value.value is None else (target, value.value, value.content_type),
            )
        tx.execute(
            """
            UPDATE litetq_task
            SET    blockers   = blockers - 1,
                   due_at     = CASE WHEN blockers = 1 AND delay IS NOT NULL THEN ?2 + delay ELSE due_at END,
                   expires_at = CASE WHEN blockers = 1 AND lifetime IS NOT NULL THEN ?2 + lifetime ELSE expires_at END,
                   state      = CASE WHEN blockers > 1 THEN 2
                                     WHEN coalesce(?2 + delay, due_at, 0) > ?2 THEN 1
                                     ELSE 0 END
            WHERE  seq = ?1 AND state = 2
            """,
            (target, now),
        )

    def _release_errback(self, tx: Transaction, target: int, failed_id: str, now: float) -> None:
        """Let an errback run, once; what failed is its input, and on record as the result of `failed_id`."""
        failure = json.dumps({"id": failed_id}).encode()
        tx.execute("UPDATE litetq_task SET input = ?2, input_type = NULL WHERE seq = ?1", (target, failure))
        tx.execute("DELETE FROM litetq_link WHERE target = ?1", (target,))
        self._release(tx, target, None, now)

    def _drop_errback(self, tx: Transaction, source: int, target: int) -> None:
        """Forget an errback, and what waits for it, once nothing that it watches can fail any more."""
        tx.execute("DELETE FROM litetq_link WHERE source = ?1 AND target = ?2", (source, target))
        doomed = [] if self._is_waiting_for_any(tx, target) else [target]
        while doomed:
            seq = doomed.pop()
            gone = tx.execute(
                "DELETE FROM litetq_task WHERE seq = ?1 AND state = 2 RETURNING join_id", (seq,)
            ).fetchall()
            behind = tx.execute("SELECT target, kind FROM litetq_link WHERE source = ?1", (seq,)).fetchall()
            tx.execute("DELETE FROM litetq_link WHERE source = ?1", (seq,))
            tx.execute("DELETE FROM litetq_link WHERE target = ?1", (seq,))
            doomed += [
                target for target, kind in behind if kind != Kind.ERRBACK or not self._is_waiting_for_any(tx, target)
            ]
            for (join,) in tx.execute("SELECT join_id FROM litetq_part WHERE member = ?1", (seq,)).fetchall():
                body = self._body_of(tx, join)
                doomed += [] if body is None else [body]
            for (join_id,) in gone:
                if join_id is not None:
                    self._drop_join(tx, join_id)

    def _is_waiting_for_any(self, tx: Transaction, target: int) -> bool:
        return bool(tx.execute("SELECT EXISTS (SELECT 1 FROM litetq_link WHERE target = ?1)", (target,)).get)

    def _fail(self, tx: Transaction, target: int, end: End, now: float, *, fires: bool) -> list[Any]:
        """End a waiting task with the failure of the one it waited for; return the work this makes."""
        reason = "a task that it waited for failed"
        tx.execute(
            _RECORD_END,
            _end_row(
                target, None, states.FAILURE, end.value, end.content_type, now, self._expiry(now), None, reason, False
            ),
        )
        rows = tx.execute(_REMOVE_LINKED, (target, None)).fetchall()
        self._project(tx, rows)
        tx.execute("DELETE FROM litetq_link WHERE target = ?1", (target,))
        return [(seq, id, linked, join_id, end, fires) for _, seq, id, linked, join_id in rows]

    def _join_advance(self, tx: Transaction, join_id: int, now: float) -> None:
        remaining = tx.execute(
            "UPDATE litetq_join SET remaining = remaining - 1 WHERE id = ?1 RETURNING remaining", (join_id,)
        ).get
        if remaining == 0:
            self._join_complete(tx, join_id, now)

    def _join_complete(self, tx: Transaction, join_id: int, now: float) -> None:
        """All members have succeeded: release the body, or fill the place in the outer join."""
        while True:
            body, outer, place = tx.execute(
                "SELECT body, outer_join, outer_place FROM litetq_join WHERE id = ?1", (join_id,)
            ).fetchall()[0]
            if body is not None:
                self._release(tx, body, None, now)
            if outer is None:
                return
            tx.execute("UPDATE litetq_part SET filled = 1 WHERE join_id = ?1 AND place = ?2", (outer, place))
            remaining = tx.execute(
                "UPDATE litetq_join SET remaining = remaining - 1 WHERE id = ?1 RETURNING remaining", (outer,)
            ).get
            if remaining:
                return
            join_id = outer

    def _join_failed(self, tx: Transaction, join_id: int, error: End, now: float) -> list[Any]:
        """The first failure of a member fails the body, and with it the join, at once; the other members run on."""
        body = self._body_of(tx, join_id)
        return [] if body is None else self._fail(tx, body, error, now, fires=True)

    def _body_of(self, tx: Transaction, join_id: int) -> int | None:
        """Return the body that waits for a join, or for the outermost one around it."""
        while True:
            rows = tx.execute("SELECT body, outer_join FROM litetq_join WHERE id = ?1", (join_id,)).fetchall()
            if not rows or rows[0][1] is None:
                return rows[0][0] if rows else None
            join_id = rows[0][1]

    def _drop_join(self, tx: Transaction, join_id: int) -> None:
        """Forget a join, its values and the nested joins below it."""
        below = [join_id]
        while below:
            join = below.pop()
            below += [
                row[0] for row in tx.execute("SELECT id FROM litetq_join WHERE outer_join = ?1", (join,)).fetchall()
            ]
            tx.execute("DELETE FROM litetq_part WHERE join_id = ?1", (join,))
            tx.execute("DELETE FROM litetq_join WHERE id = ?1", (join,))

    # -- running tasks

    def update_state(
        self,
        id: str,
        state: str,
        meta: bytes | None,
        content_type: str | None,
        now: float,
        *,
        claim: int | None = None,
        started: bool = False,
    ) -> bool:
        """Record a state of an unfinished task; return False when the claim is lost (then nothing is changed).

        Without a claim number (a program that sets the state of any id, as Celery allows) an id unknown here gets a
        result row.
        """

        def operation(tx: Transaction) -> bool:
            changed = tx.execute(
                """
                UPDATE litetq_task
                SET    status = ?3, meta = ?4, meta_type = ?5, started_at = CASE WHEN ?6 THEN ?7 ELSE started_at END
                WHERE  id = ?1 AND (?2 IS NULL OR claim = ?2)
                RETURNING seq
                """,
                (id, claim, state, meta, content_type, started, now),
            ).fetchall()
            if not changed and claim is None:
                self._store_record(tx, Record(id, state, "DONE", meta, content_type, done_at=now), self._expiry(now))
                return True
            return bool(changed)

        return self.database.write(operation)

    def store_record(self, record: Record, expires_at: float | None, *, claim: int | None = None) -> None:
        """Write a result by id, guarded by no claim; with `claim`, only over older claims (projections)."""
        self.database.write(lambda tx: self._store_record(tx, record, expires_at, claim))

    def _store_record(self, tx: Transaction, r: Record, expires_at: float | None, claim: int | None = None) -> None:
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
            _record_row(r, None if r.queue is None else self._lane(tx, r.queue), expires_at, claim),
        )

    # -- revoke, purge, forget

    def revoke(self, ids: Iterable[str], reason: str, now: float) -> int:
        """End waiting tasks as REVOKED; a claimed one ends so instead of a further attempt. Return how many ended.

        Ids that the file does not know are remembered for three hours, and end when they come.
        """
        wanted = list(ids)

        def operation(tx: Transaction) -> int:
            return sum(self._revoke(tx, id, reason, now) for id in wanted)

        return self.database.write(operation)

    def _revoke(self, tx: Transaction, id: str, reason: str, now: float) -> int:
        ended = self._revoke_waiting(tx, id, reason, now)
        held = tx.execute(
            "UPDATE litetq_task SET revoked = ?2 WHERE id = ?1 AND state = 3 RETURNING seq", (id, reason)
        ).fetchall()
        known = ended or held or tx.execute("SELECT EXISTS (SELECT 1 FROM litetq_result WHERE id = ?1)", (id,)).get
        if not known:
            tx.execute(
                "INSERT OR REPLACE INTO litetq_revoked (id, reason, expires_at) VALUES (?1, ?2, ?3)",
                (id, reason, now + REVOKED_MEMORY_S),
            )
        return ended

    def _revoke_waiting(self, tx: Transaction, id: str, reason: str, now: float) -> int:
        seqs = [
            row[0] for row in tx.execute("SELECT seq FROM litetq_task WHERE id = ?1 AND state <> 3", (id,)).fetchall()
        ]
        return sum(self._end_waiting(tx, seq, reason, now) for seq in seqs)

    def _end_waiting(self, tx: Transaction, seq: int, reason: str, now: float) -> bool:
        """End a task that nobody holds as REVOKED; it no longer waits for anything."""
        ended = self._end(tx, seq, None, states.REVOKED, _revoked(reason), now, reason=reason)
        tx.execute("DELETE FROM litetq_link WHERE target = ?1", (seq,))
        return ended

    def is_revoked(self, seq: int, claim: int) -> bool:
        """Return whether a claimed task has been revoked since it was claimed, or the claim is lost."""
        return self.database.read(
            lambda tx: (
                not tx.execute(
                    "SELECT EXISTS (SELECT 1 FROM litetq_task WHERE seq = ?1 AND claim = ?2 AND revoked IS NULL)",
                    (seq, claim),
                ).get
            )
        )

    def purge(self, queues: Sequence[str] | None, now: float) -> int:
        """Remove what waits in these queues (None: in all), without a result, as Celery does; return how many.

        A purged task that others wait for ends as REVOKED, on record; for those others that is a failure as any other.
        """

        def operation(tx: Transaction) -> int:
            condition = (
                ""
                if queues is None
                else "AND lane IN (SELECT id FROM litetq_lane WHERE queue IN (SELECT value FROM json_each(?1)))"
            )
            bindings = () if queues is None else (json.dumps(list(queues)),)
            waiting = f"FROM litetq_task WHERE state IN (0, 1) {condition}"
            # First, so that errbacks which the second step releases are not taken for purged ones.
            tx.execute(f"DELETE {waiting} AND NOT linked AND join_id IS NULL", bindings)
            count = tx.connection.changes()
            knotted = tx.execute(f"SELECT seq {waiting} AND (linked OR join_id IS NOT NULL)", bindings).fetchall()
            return count + sum(self._end_waiting(tx, seq, "purged", now) for (seq,) in knotted)

        return self.database.write(operation)

    def forget(self, ids: Iterable[str]) -> int:
        """Remove finished results and the record of their attempts; return how many results there were."""
        wanted = json.dumps(list(ids))

        def operation(tx: Transaction) -> int:
            tx.execute("DELETE FROM litetq_attempt WHERE id IN (SELECT value FROM json_each(?1))", (wanted,))
            tx.execute("DELETE FROM litetq_result WHERE id IN (SELECT value FROM json_each(?1))", (wanted,))
            return tx.connection.changes()

        return self.database.write(operation)

    # -- read

    def read(self, id: str) -> Record | None:
        """Return what the file knows of a task; an unfinished one of this id comes before a finished one."""
        return self.database.read(lambda tx: self._read(tx, id))

    def _read(self, tx: Transaction, id: str) -> Record | None:
        # Waiters ask for ids that are finished, most of the time: one look-up then, two while it runs.
        live = tx.execute(_LIVE_COLUMNS + " WHERE t.id = ?1 ORDER BY t.seq DESC LIMIT 1", (id,)).fetchall()
        if live:
            return _live_record(live[0])
        done = tx.execute(_RECORD_COLUMNS + " WHERE id = ?1", (id,)).fetchall()
        return Record(*done[0]) if done else None

    def read_many(self, ids: Sequence[str]) -> dict[str, Record]:
        """Return what the file knows of each of these ids; unknown ones are left out."""
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

    def has_unfinished(self, now: float, queues: frozenset[str] | None = None) -> bool:
        """Return whether anything is claimed, or may start now, in these queues (all where None): what a drain waits for."""

        def operation(tx: Transaction) -> bool:
            for lane, queue in tx.execute("SELECT id, queue FROM litetq_lane WHERE paused = 0").fetchall():
                if (queues is None or queue in queues) and tx.execute(
                    "SELECT EXISTS (SELECT 1 FROM litetq_task WHERE state = 0 AND lane = ?1) "
                    "OR EXISTS (SELECT 1 FROM litetq_task WHERE state = 3 AND lane = ?1) "
                    "OR EXISTS (SELECT 1 FROM litetq_task WHERE state = 1 AND lane = ?1 AND due_at <= ?2)",
                    (lane, now),
                ).get:
                    return True
            return False

        return self.database.read(operation)

    # -- upkeep: each does a bounded piece and returns how much it was

    def promote(self, now: float, limit: int = 1000) -> int:
        """Make up to `limit` due tasks READY."""
        return self.database.write(lambda tx: self._promote(tx, now, limit))

    def _promote(self, tx: Transaction, now: float, limit: int) -> int:
        tx.execute(
            "UPDATE litetq_task SET state = 0 WHERE seq IN "
            "(SELECT seq FROM litetq_task WHERE state = 1 AND due_at <= ?1 ORDER BY due_at LIMIT ?2)",
            (now, limit),
        )
        return tx.connection.changes()

    def expire(self, now: float, limit: int = 1000) -> int:
        """End up to `limit` waiting tasks whose time is over, as REVOKED("expired")."""
        sql = (
            "SELECT seq FROM litetq_task WHERE expires_at IS NOT NULL AND state <> 3 AND expires_at <= ?1 "
            "ORDER BY expires_at LIMIT ?2"
        )
        if not self.database.read(lambda tx: tx.execute(sql, (now, 1)).fetchall()):
            return 0

        def operation(tx: Transaction) -> int:
            seqs = [row[0] for row in tx.execute(sql, (now, limit)).fetchall()]
            return sum(self._end_waiting(tx, seq, "expired", now) for seq in seqs)

        return self.database.write(operation)

    def prune(self, now: float, limit: int = 1000) -> int:
        """Remove up to `limit` expired results (and attempts, and remembered revokes) and give some space back."""
        if not self.database.read(lambda tx: self._prunable(tx, now)):
            return 0

        def operation(tx: Transaction) -> int:
            count = 0
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
        return any(
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

    # -- workers

    def register(
        self,
        name: str,
        run: str,
        boot: str,
        now: float,
        *,
        queues: Iterable[str] | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> int:
        """Add a worker; return its id, which no worker of this file had or will have."""

        def operation(tx: Transaction) -> int:
            tx.execute(
                "INSERT INTO litetq_worker (name, run, boot, pid, queues, info, started_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                (
                    name,
                    run,
                    boot,
                    os.getpid(),
                    None if queues is None else json.dumps(sorted(queues)),
                    json.dumps(info or {}),
                    now,
                ),
            )
            return tx.connection.last_insert_rowid()

        return self.database.write(operation)

    def set_late(self, worker: int, names: Iterable[str]) -> None:
        """Record which tasks this worker acknowledges late: a rescuer must know, and may not have the program."""
        late = json.dumps(sorted(names))
        self.database.write(
            lambda tx: tx.execute("UPDATE litetq_worker SET late = ?2 WHERE id = ?1", (worker, late)).fetchall()
        )

    def beat(self, worker: int) -> bool:
        """Count one heartbeat; return False when this worker was declared dead and must take a new identity."""
        return bool(
            self.database.write(
                lambda tx: tx.execute(
                    "UPDATE litetq_worker SET beats = beats + 1 WHERE id = ?1 RETURNING id", (worker,)
                ).fetchall()
            )
        )

    def workers(self) -> list[Worker]:
        """Return all workers that have neither left nor been rescued."""
        rows = self.database.read(
            lambda tx: tx.execute(
                "SELECT id, name, run, boot, pid, beats, late, started_at, queues, info FROM litetq_worker ORDER BY id"
            ).fetchall()
        )
        return [Worker._make((*row[:6], frozenset(json.loads(row[6])), *row[7:])) for row in rows]

    def holds(self, worker: int) -> bool:
        """Return whether a worker holds any claim."""
        return bool(
            self.database.read(
                lambda tx: (
                    tx.execute(
                        "SELECT EXISTS (SELECT 1 FROM litetq_task WHERE state = 3 AND worker = ?1)", (worker,)
                    ).get
                )
            )
        )

    def rescue(self, worker: int, begun: frozenset[int] | None, now: float) -> Rescued | None:
        """Give back or end all that a dead worker held, and remove the worker; None when it was gone already.

        Args:
            worker: a worker that the caller knows to be dead, with all its children.
            begun: the claim numbers whose user code was entered; None when that cannot be known, then all count as begun.
        """

        def operation(tx: Transaction) -> Rescued | None:
            rows = tx.execute("DELETE FROM litetq_worker WHERE id = ?1 RETURNING name, late", (worker,)).fetchall()
            if not rows:
                return None
            name, late = rows[0][0], frozenset(json.loads(rows[0][1]))
            rescued = Rescued([], [], [], [])
            for seq, claim, id, task in tx.execute(
                "SELECT seq, claim, id, name FROM litetq_task WHERE state = 3 AND worker = ?1 ORDER BY seq", (worker,)
            ).fetchall():
                if begun is not None and claim not in begun:
                    self._give_back(tx, seq, claim, now, spent=False)
                    rescued.released.append(id)
                    continue
                error = exception_json("WorkerLostError", f"Worker {name} was lost while the task ran")
                if task in late:
                    lost = Outcome(claim, seq, id, Disposition.REQUEUE, states.RETRY, error)
                    self._note_attempt(tx, lost, "LOST", name, now)
                    (rescued.redelivered if self._redeliver(tx, seq, claim, now) else rescued.dead).append(id)
                else:
                    self._end(tx, seq, claim, states.FAILURE, error, now, reason="its worker was lost", worker=name)
                    rescued.failed.append(id)
            return rescued

        return self.database.write(operation)

    def leave(self, worker: int, now: float) -> int:
        """Remove a worker that stops in order; what it still holds was never begun and goes back. Return how much."""

        def operation(tx: Transaction) -> int:
            held = tx.execute(
                "SELECT seq, claim FROM litetq_task WHERE state = 3 AND worker = ?1", (worker,)
            ).fetchall()
            for seq, claim in held:
                self._give_back(tx, seq, claim, now, spent=False)
            tx.execute("DELETE FROM litetq_worker WHERE id = ?1", (worker,))
            return len(held)

        return self.database.write(operation)

    # -- facts about the file

    def set_meta(self, key: str, value: str) -> None:
        self.database.write(
            lambda tx: tx.execute(
                "INSERT INTO litetq_meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, value),
            ).fetchall()
        )

    def get_meta(self, key: str) -> str | None:
        return self.database.read(lambda tx: tx.execute("SELECT value FROM litetq_meta WHERE key = ?1", (key,)).get)  # type: ignore[no-any-return]

    def outbox(self, limit: int = 500) -> list[tuple[int, str, Record, float | None, int | None]]:
        """Return results not yet relayed: (n, target, record, expires_at, claim)."""

        def operation(tx: Transaction) -> list[Any]:
            found = []
            for n, target, id, claim in tx.execute(
                "SELECT n, target, id, claim FROM litetq_outbox ORDER BY n LIMIT ?1", (limit,)
            ).fetchall():
                rows = tx.execute(_RECORD_COLUMNS + " WHERE id = ?1", (id,)).fetchall()
                expires_at = tx.execute("SELECT expires_at FROM litetq_result WHERE id = ?1", (id,)).get
                found.append((n, target, Record(*rows[0]) if rows else None, expires_at, claim))
            return found

        return self.database.read(operation)

    def relayed(self, last: int) -> None:
        """Forget outbox rows up to number `last`."""
        self.database.write(lambda tx: tx.execute("DELETE FROM litetq_outbox WHERE n <= ?1", (last,)).fetchall())


# The bindings of the hot statements, in one place each.
# fmt: off


def _task_bindings(
    m: Message, lane: int, now: float, role: int = Role.TASK, linked: int = 0, blockers: int = 0, join_id: int | None = None
) -> tuple[Any, ...]:
    due_at = m.due_at
    state = 2 if blockers else 1 if due_at is not None and due_at > now else 0
    return (m.id, m.name, state, lane, m.priority, m.body, m.content_type, m.retries, due_at, m.expires_at, m.root_id,
            m.parent_id, m.headers, now, m.delay, m.lifetime, role, linked, blockers, join_id)


def _end_bindings(o: Outcome, now: float, expires_at: float | None, worker: str | None) -> tuple[Any, ...]:
    keep_body = o.disposition != Disposition.COMPLETE
    reason = "ignored" if o.disposition == Disposition.IGNORE else None
    return (o.seq, o.claim, o.state, o.result, o.content_type, o.traceback, o.children, now, expires_at, worker, keep_body,
            o.started_at, o.runtime, reason, SMALL_BODY_BYTES, 0)


def _end_row(
    seq: int, claim: int | None, state: str, error: bytes | None, error_type: str | None, now: float,
    expires_at: float | None, worker: str | None, reason: str, dead: bool,
) -> tuple[Any, ...]:
    return (seq, claim, state, error, error_type, None, None, now, expires_at, worker, True, None, None, reason,
            SMALL_BODY_BYTES, int(dead))


def _record_row(r: Record, lane: int | None, expires_at: float | None, claim: int | None) -> tuple[Any, ...]:
    return (r.id, r.state, r.result, r.content_type, r.traceback, r.children, r.done_at, expires_at, r.name, lane, r.worker,
            r.retries, r.parent_id, r.root_id, r.headers, r.body, r.body_type, r.enqueued_at, r.started_at, r.runtime,
            r.reason, claim)


# fmt: on

_FINAL: Final = frozenset({Disposition.COMPLETE, Disposition.FAIL, Disposition.REVOKE, Disposition.IGNORE})


def exception_json(name: str, message: str, module: str = "litetq.exceptions") -> bytes:
    """Return an exception in the JSON form that `serialization.decode_exception` reads."""
    return json.dumps({"exc_type": name, "exc_message": [message], "exc_module": module}).encode()


def chord_error(id: str, end: End) -> End:
    """Return the ChordError that the body of a chord gets when member `id` failed; an inner one is passed on as it is."""
    cause = "an exception"
    if end.content_type is None and end.value is not None:
        error = _json_object(end.value)
        if error.get("exc_type") == "ChordError":
            return end
        args = error.get("exc_message") or []
        if "exc_type" in error:
            cause = f"{error['exc_type']}({', '.join(map(repr, args if isinstance(args, list) else [args]))})"
    return End(False, exception_json("ChordError", f"Dependency {id} raised {cause}"), None)


def _json_object(data: bytes) -> dict[str, Any]:
    """Return the object in `data`, or an empty one: what a task left must not keep its failure from the others."""
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _before(plan: Plan, place: int) -> set[int]:
    """Return the places of a plan whose failure fails `place` through links."""
    before: set[int] = set()
    work = [place]
    sources: dict[int, list[int]] = {}
    for source, target, kind in plan.links:
        if kind != Kind.ERRBACK and source >= 0:
            sources.setdefault(target, []).append(source)
    while work:
        found = set(sources.get(work.pop(), ())) - before
        before |= found
        work += found
    return before


def _revoked(reason: str) -> bytes:
    return exception_json("TaskRevokedError", reason)


def _end_of(outcome: Outcome) -> End:
    value = outcome.value if outcome.value is not None else outcome.result
    return End(outcome.disposition == Disposition.COMPLETE, value, outcome.content_type)


def _live_record(row: tuple[Any, ...]) -> Record:
    id, status, place, *rest = row
    return Record(id, status or states.PENDING, _PLACES[place], *rest)._replace(reason=_REASONS[place])
