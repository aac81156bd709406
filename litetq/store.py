"""The verbs of the file, each true as a whole or not at all: send, claim, settle. The heart; read it first.

Only rooms of this floor speak SQL: this one, those that it puts together (`lanes`, `records` with `past`, `workflow`, `roster`,
`mailbox`), and those that look or write from outside (`docs/architecture.md`). A verb takes the transaction and the time as `now`;
public methods without a `tx` open a transaction of their own. What may change what is written down in `states.TRANSITIONS`; every
statement that ends or gives back a claim names the claim number, and a caller whose number is gone changes nothing and is told so.

Values are opaque bytes here, with one exception: a failure must run through a workflow without the program that wrote
the tasks, so failures that these rooms themselves cause are written in the JSON form of exceptions (`serialization.py`).
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from litetq import states
from litetq.counter import ClaimNumbers
from litetq.database import Database, Transaction
from litetq.lanes import IS_READY, Lane, Lanes, OwnPace, first_by_age, is_closed, within_limits
from litetq.mailbox import STAMP, Event, Mailbox
from litetq.message import SELF, Delivery, Disposition, Kind, Linked, Message, Outcome, Plan, Record, Role, Taken
from litetq.records import Records, holds
from litetq.roster import Roster
from litetq.states import Row
from litetq.workflow import End, Released, Workflow, before, exception_json, input_of

# How long an id that the file does not know stays revoked; Celery's CELERY_WORKER_REVOKE_EXPIRES.
REVOKED_MEMORY_S: Final = 10_800.0

# Positional parameters, not named ones, on the hot statements: binding 16 names costs 1.9 us, 16 places 0.6 us.
_INSERT_TASK: Final = """
    INSERT INTO litetq_task (
        id, name, state, lane, priority, body, content_type, retries, attempts, deliveries, due_at, expires_at,
        root_id, parent_id, headers, enqueued_at, delay, lifetime, role, linked, blockers, join_id)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, 0, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)
"""
_INSERT_TIED: Final = _INSERT_TASK.replace("join_id)", "join_id, follows, follower, follower_kind)").replace(
    "?20)", "?20, ?21, ?22, ?23)"
)

# Read first, then updated without RETURNING: SQLite gathers returned rows in a table of its own, which for 21 columns
# costs 3 us a task more than the read (6 us instead of 9).
_DELIVERY_COLUMNS: Final = """
    SELECT seq, id, name, body, content_type, lane, priority, retries, attempts + 1, deliveries + interrupted, due_at,
           expires_at, root_id, parent_id, headers, role, linked, input, input_type, join_id, revoked
    FROM   litetq_task
"""

_HOLD: Final = "UPDATE litetq_task SET state = 3, claim = ?1, worker = ?2, attempts = attempts + 1 WHERE seq = ?3"

# What a settle has released and what may start at once, as it will be then: the columns of a delivery, and its two times.
# Nothing where something else of its lane is READY, or anything is due.
_RELEASED: Final = (
    _DELIVERY_COLUMNS.replace("due_at,", "coalesce(?2 + delay, due_at),", 1).replace(
        "expires_at,", "coalesce(?2 + lifetime, expires_at),", 1
    )
    + """
    WHERE  seq = ?1 AND state = 2 AND blockers = 1 AND coalesce(?2 + delay, due_at, 0) <= ?2
           AND NOT EXISTS (SELECT 1 FROM litetq_task AS other WHERE other.state = 0 AND other.lane = litetq_task.lane)
           AND NOT EXISTS (SELECT 1 FROM litetq_task AS other WHERE other.state = 1 AND other.due_at <= ?2)
"""
)

_HAND_OVER: Final = """
    UPDATE litetq_task
    SET    state = 3, claim = ?1, worker = ?2, attempts = attempts + 1, blockers = 0, due_at = ?4, expires_at = ?5,
           input = ?6, input_type = ?7, follows = NULL
    WHERE  seq = ?3 AND state = 2 AND blockers = 1
"""


class Store:
    """The tasks of one file, and the door to what belongs to them: `lanes`, `records`, `workflow`, `roster`."""

    def __init__(
        self,
        database: Database,
        *,
        result_expires: float | None = 86_400.0,
        failure_expires: float | None = 86_400.0,
        redelivery_bound: int = 5,
        projection: str | None = None,
        ageing: float | None = None,
    ) -> None:
        """Stand before `database`, which is opened at the first verb.

        Args:
            result_expires: seconds that a finished task stays on record; None is for ever.
            failure_expires: the same for one that ended as FAILURE.
            redelivery_bound: how often begun work is given back before it rests as a dead letter.
            projection: address of another result backend; every end then gets an outbox row in the same transaction.
            ageing: seconds of waiting that raise a task's priority by one, when this process claims; None: it never rises.
        """
        self.database = database
        self.ageing = ageing
        self.redelivery_bound = redelivery_bound
        self.claim_numbers = ClaimNumbers(database)
        self.lanes = Lanes(database)
        self.records = Records(
            database,
            self.lanes,
            result_expires=result_expires,
            failure_expires=failure_expires,
            projection=projection,
        )
        self.workflow = Workflow(self.records)
        self.roster = Roster(database, self)
        self.mailbox = Mailbox(database)

    # -- send

    def send(self, plan: Plan, now: float, *, full: bool = False, events: Sequence[Event] = ()) -> bool:
        """Enqueue all of `plan` in one transaction: READY, SCHEDULED when due later, BLOCKED when it waits for a task.

        A task whose id was revoked before ends at once as REVOKED. `events` are written with it. Returns False where
        nothing was done, because the file knows the id of a plan that is to be new.
        """
        is_sent = True
        if plan.if_new:
            is_sent = self.database.write(lambda tx: self._send_if_new(tx, plan, now, events), full=full)
        elif events:
            self.database.write(lambda tx: self._send_and_tell(tx, plan, now, events), full=full)
        elif len(plan.messages) == 1 and not plan.links and not plan.joins:
            message = plan.messages[0]
            self.database.write(lambda tx: self._send_one(tx, message, now), full=full)
        else:
            self.database.write(lambda tx: self.send_in(tx, plan, now), full=full)
        self.lanes.remember({message.queue for message in plan.messages})
        return is_sent

    def _send_if_new(self, tx: Transaction, plan: Plan, now: float, events: Sequence[Event]) -> bool:
        if self.records.knows(tx, plan.messages[0].id):
            return False
        self._send_and_tell(tx, plan, now, events)
        return True

    def _send_and_tell(self, tx: Transaction, plan: Plan, now: float, events: Sequence[Event]) -> None:
        self.send_in(tx, plan, now)
        self.mailbox.record(tx, events)

    def _send_one(self, tx: Transaction, message: Message, now: float) -> None:
        tx.execute(_INSERT_TASK, _task_bindings(message, self.lanes.id_for(tx, message.queue, message.name), now))
        self._end_revoked(tx, now, (message,))

    def send_in(self, tx: Transaction, plan: Plan, now: float, self_seq: int | None = None) -> list[int]:
        """Insert the rows of a plan; return their seqs, in the order of its messages."""
        messages = plan.messages
        lanes = {way: self.lanes.id_for(tx, *way) for way in {(m.queue, m.name) for m in messages}}
        # AUTOINCREMENT gives consecutive numbers within one transaction: SQLite has one writer.
        first = 1 + (tx.execute("SELECT seq FROM sqlite_sequence WHERE name = 'litetq_task'").get or 0)
        seqs = list(range(first, first + len(messages)))
        if plan.links or plan.joins:
            self._insert_tied(tx, plan, lanes, seqs, now, self_seq)
        else:
            tx.executemany(_INSERT_TASK, [_task_bindings(m, lanes[m.queue, m.name], now) for m in messages])
        self._end_revoked(tx, now, messages)
        return seqs

    def _insert_tied(
        self,
        tx: Transaction,
        plan: Plan,
        lanes: Mapping[tuple[str, str], int],
        seqs: list[int],
        now: float,
        self_seq: int | None,
    ) -> None:
        join_ids = self.workflow.open_joins(tx, plan.joins)
        ties = _Ties(plan, seqs, join_ids, self_seq)
        tx.executemany(
            _INSERT_TIED,
            [
                _task_bindings(m, lanes[m.queue, m.name], now, *own) + further
                for m, own, further in zip(plan.messages, ties.own, ties.further, strict=True)
            ],
        )
        tx.executemany("INSERT OR IGNORE INTO litetq_link (source, target, kind) VALUES (?1, ?2, ?3)", ties.links)
        if any(link.source == SELF for link in plan.links):
            tx.execute("UPDATE litetq_task SET linked = ?2 WHERE seq = ?1", (self_seq, Linked.ROWS))
        self.workflow.fill_joins(tx, plan.joins, join_ids, seqs, now, self_seq)

    def _end_revoked(self, tx: Transaction, now: float, messages: Sequence[Message]) -> None:
        if tx.execute("SELECT EXISTS (SELECT 1 FROM litetq_revoked)").get:
            for message in messages:
                for key in (message.id, *stamp_keys(message.headers)):
                    reason = tx.execute(
                        "SELECT reason FROM litetq_revoked WHERE id = ?1 AND expires_at > ?2", (key, now)
                    ).get
                    if reason is not None:
                        self._revoke_waiting(tx, message.id, reason, now)
                        break

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
        pace: OwnPace | None = None,
        events: Sequence[tuple[int, Event]] = (),
    ) -> Taken:
        """Settle `outcomes` and claim up to `free` READY tasks, in one transaction.

        Claimed tasks are held by `worker` under numbers that are drawn now and never again. They come by priority (where
        priorities age: by what they have risen to), then in commit order. What has expired or was revoked is not handed out
        but ends as REVOKED. Rate limits are counted in the file, or with a `pace` by that. Of `events` those are written
        whose claim, named before each, still held.
        """

        def operation(tx: Transaction) -> tuple[list[int], list[Any], list[Any], dict[int, Any], float | None, bool]:
            released: list[Released] | None = [] if free > 0 else None
            lost = self._settle(tx, outcomes, now, name, released) if outcomes else []
            if events:
                self.mailbox.record(tx, [event for claim, event in events if claim not in lost])
            lanes = self.lanes.served(tx, queues, pace)
            handed = self._hand_over(tx, worker, free, now, lanes, released) if released else []
            held = handed or (self._claim(tx, worker, free, now, lanes, pace) if free > 0 else [])
            claimed = [(claim, row) for claim, row in held if self._may_start(tx, claim, row, now)]
            # Read here: once the claim is committed, somebody may rescue it and end the chord.
            parts = {row[0]: self.workflow.parts(tx, row[19]) for _, row in claimed if row[19] is not None}
            if any(lane.interval is not None for lane in lanes):
                lanes = self.lanes.served(tx, queues, pace)  # the claim may have closed some
            more = (
                (not handed and 0 < free == len(held))
                or len(claimed) < len(held)  # the end of what came too late may have released something
                or _makes_ready(outcomes, bool(handed))
            )
            return lost, held, claimed, parts, self._next_due(tx, lanes, now), more

        lost, held, rows, parts, next_due, more = self.database.write(operation)
        refused = [] if len(rows) == len(held) else self._refused([pair for pair in held if pair not in rows])
        return Taken(self._deliveries(rows, parts), lost, next_due, refused, more)

    def probe(
        self, now: float, queues: frozenset[str] | None = None, pace: OwnPace | None = None
    ) -> tuple[bool, float | None]:
        """Return whether a claim would find something, and when the next scheduled task is due. Writes nothing."""

        def operation(tx: Transaction) -> tuple[bool, float | None]:
            lanes = self.lanes.served(tx, queues, pace)
            due = self._next_due(tx, lanes, now)
            if due is not None and due <= now:
                return True, due
            for lane in lanes:
                if (
                    not is_closed(lane, now)
                    and self.lanes.places(tx, lane, 1, now)
                    and tx.execute(IS_READY, (lane.id,)).get
                ):
                    return True, due
            return False, due

        return self.database.read(operation)

    def _next_due(self, tx: Transaction, lanes: Sequence[Lane], now: float) -> float | None:
        """Return when the next scheduled task is due, or a closed lane in which something waits opens."""
        due: float | None = tx.execute("SELECT min(due_at) FROM litetq_task WHERE state = 1").get
        opens = self.lanes.next_opening(tx, lanes, now)
        return due if opens is None else opens if due is None else min(due, opens)

    def _claim(
        self, tx: Transaction, worker: int, free: int, now: float, served: Sequence[Lane], pace: OwnPace | None
    ) -> list[Any]:
        self._promote(tx, now, max(free, 100))
        lanes = [lane for lane in served if not is_closed(lane, now)]
        places = {lane.id: self.lanes.places(tx, lane, free, now) for lane in lanes}
        if self.ageing is not None:
            rows = self._first_by_age(tx, lanes, places, free, now, self.ageing)
        elif len(lanes) == 1:
            rows = self._first_of(tx, lanes[0].id, places[lanes[0].id])
        else:
            rows = self._first_of_all(tx, lanes, places, free)
        if not rows:
            return []
        claimed = self._numbered(tx, rows)
        tx.executemany(_HOLD, [(claim, worker, row[0]) for claim, row in claimed])
        limited = [lane for lane in lanes if lane.interval is not None]
        if limited:
            self.lanes.started(tx, limited, Counter(row[5] for row in rows), now, pace)
        return claimed

    def _numbered(self, tx: Transaction, rows: list[Any]) -> list[Any]:
        """Draw a claim number for each of these."""
        return list(enumerate(rows, self.claim_numbers.draw(tx, len(rows))))

    def _hand_over(
        self, tx: Transaction, worker: int, free: int, now: float, lanes: Sequence[Lane], released: Sequence[Released]
    ) -> list[Any]:
        """Claim what the settle has just released, straight from BLOCKED, where a claim would take all of it and no more.

        That is, where nothing else is READY here and nothing limits the lanes. Otherwise all of it is released, and none claimed.
        It spares a step of a chain a second write of its row and two of the ready index.
        """
        rows = self._startable(tx, free, now, lanes, released)
        if not rows:
            for one in released:
                self.workflow.release(tx, one, now)
            return []
        claimed = self._numbered(tx, rows)
        tx.executemany(_HAND_OVER, [(claim, worker, row[0], *row[10:12], *row[17:19]) for claim, row in claimed])
        return claimed

    def _startable(
        self, tx: Transaction, free: int, now: float, lanes: Sequence[Lane], released: Sequence[Released]
    ) -> list[Any]:
        """Read what was released, in the order in which it is to start; nothing unless all of it may, and nothing else."""
        if len(released) > free or (len(lanes) > 1 and any(tx.execute(IS_READY, (lane.id,)).get for lane in lanes)):
            return []
        plain = {lane.id for lane in lanes if not lane.is_limited}
        rows = []
        for seq, value in released:
            for row in tx.execute(_RELEASED, (seq, now)).fetchall():
                if row[5] in plain:
                    rows.append(row if value is None else (*row[:17], *input_of(value), *row[19:]))
        if len(rows) < len(released):
            return []
        rows.sort(key=_rank)
        return rows

    def _first_of(self, tx: Transaction, lane: int, count: int) -> list[Any]:
        """Read the first READY tasks of a lane, in the order in which they are to start."""
        rows: list[Any] = tx.execute(
            _DELIVERY_COLUMNS + " WHERE state = 0 AND lane = ?1 ORDER BY priority DESC, seq LIMIT ?2", (lane, count)
        ).fetchall()
        return rows

    def _first_of_all(self, tx: Transaction, lanes: list[Lane], places: Mapping[int, int], free: int) -> list[Any]:
        # Each lane's first ones, merged by priority and commit number; bodies are read for the winners only.
        picked: list[tuple[int, int, int]] = []
        for lane in lanes:
            picked += tx.execute(
                "SELECT -priority, seq, lane FROM litetq_task WHERE state = 0 AND lane = ?1 "
                "ORDER BY priority DESC, seq LIMIT ?2",
                (lane.id, places[lane.id]),
            )
        picked = within_limits(sorted(picked), lanes, places)
        wins = Counter(lane for _, _, lane in picked[:free])
        rows = [row for lane, count in wins.items() for row in self._first_of(tx, lane, count)]
        rows.sort(key=_rank)
        return rows

    def _first_by_age(
        self, tx: Transaction, lanes: list[Lane], places: Mapping[int, int], free: int, now: float, step: float
    ) -> list[Any]:
        """Read the first READY tasks of all lanes where waiting raises the priority; `step` is seconds for one more."""
        heads = [first_by_age(tx, lane.id, places[lane.id], now, step) for lane in lanes]
        picked = within_limits(list(heapq.merge(*heads)), lanes, places)[:free]
        return [tx.execute(f"{_DELIVERY_COLUMNS} WHERE seq = ?1", (seq,)).fetchall()[0] for _, seq, _ in picked]

    def _may_start(self, tx: Transaction, claim: int, row: tuple[Any, ...], now: float) -> bool:
        """End what came too late instead of handing it out."""
        seq, expires_at, revoked = row[0], row[11], row[20]
        if revoked is not None:
            self.end(tx, seq, claim, states.REVOKED, _revoked(revoked), now, reason=revoked)
            return False
        if expires_at is not None and expires_at <= now:
            self.end(tx, seq, claim, states.REVOKED, _revoked("expired"), now, reason="expired")
            return False
        return True

    def _deliveries(self, rows: list[Any], parts: Mapping[int, Any]) -> list[Delivery]:
        if not rows:
            return []
        queues = self.lanes.queues_of({row[5] for _, row in rows})
        return [
            Delivery._make((claim, *row[:5], queues[row[5]], *row[6:17], self._input(row, parts)))
            for claim, row in rows
        ]

    def _refused(self, rows: list[Any]) -> list[tuple[Delivery, str]]:
        queues = self.lanes.queues_of({row[5] for _, row in rows})
        return [
            (Delivery._make((claim, *row[:5], queues[row[5]], *row[6:17], None)), row[20] or "expired")
            for claim, row in rows
        ]

    def _input(self, row: tuple[Any, ...], parts: Mapping[int, Any]) -> Any:
        """Return what predecessors hand over: None, (content type, bytes), or for a chord body a tree of such."""
        value, value_type, join_id = row[17:20]
        if join_id is not None:
            return parts[row[0]]
        return None if value is None else (value_type, value)

    # -- settle

    def _settle(
        self,
        tx: Transaction,
        outcomes: Sequence[Outcome],
        now: float,
        worker: str | None,
        released: list[Released] | None = None,
    ) -> list[int]:
        """Commit how attempts ended; return the claim numbers that no longer hold, for which nothing was changed.

        With a list `released`, what successes release is only put there (`Workflow.after_end`).
        """
        plain = [o for o in outcomes if o.disposition in _FINAL and not o.linked and o.plan is None]
        lost = self.records.end_plain(tx, plain, now, worker) if plain else []
        if len(plain) < len(outcomes):
            for o in outcomes:
                if o.disposition not in _FINAL:
                    held = self._settle_open(tx, o, now, worker)
                elif o.linked or o.plan is not None:
                    held = self._settle_linked(tx, o, now, worker, released)
                else:
                    continue
                if not held:
                    lost.append(o.claim)
        return lost

    def _settle_linked(
        self, tx: Transaction, o: Outcome, now: float, worker: str | None, released: list[Released] | None
    ) -> bool:
        """End one task together with all that hangs on it; return whether the claim still held."""
        if o.plan is not None and holds(tx, o):
            self._bring(tx, o.plan, now, o.seq)
        gone = self.records.end(tx, self.records.ending_of(tx, o, now, worker))
        if gone is not None:
            self.workflow.after_end(tx, gone, _end_of(o), now, released=released)
        return gone is not None

    def _bring(self, tx: Transaction, plan: Plan, now: float, seq: int) -> None:
        """Do what a task decided at the end of an attempt: take off what waits for it, and enqueue what it brings."""
        if plan.cuts:
            self.workflow.cut(tx, seq, plan.cuts, now)
        self.send_in(tx, plan, now, seq)

    def _settle_open(self, tx: Transaction, outcome: Outcome, now: float, worker: str | None) -> bool:
        """Settle an attempt that does not end its task; return whether the claim still held."""
        revoked = tx.execute(
            "SELECT revoked FROM litetq_task WHERE seq = ?1 AND claim = ?2 AND revoked IS NOT NULL",
            (outcome.seq, outcome.claim),
        ).get
        if revoked is not None:
            return self.end(tx, outcome.seq, outcome.claim, states.REVOKED, _revoked(revoked), now, reason=revoked)
        if outcome.disposition == Disposition.REPLACE:
            return self._replace(tx, outcome, now)
        if outcome.disposition in (Disposition.RELEASE, Disposition.INTERRUPT):
            had_begun = outcome.disposition == Disposition.INTERRUPT
            return self.give_back(
                tx, outcome.seq, outcome.claim, now, due_at=outcome.due_at, spent=False, had_begun=had_begun
            )
        label = "RETRY" if outcome.disposition == Disposition.RETRY else "REQUEUED"
        self.records.note_attempt(tx, outcome, label, worker, now)
        if outcome.disposition == Disposition.REQUEUE:
            return self.redeliver(tx, outcome.seq, outcome.claim, now) is not None
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
        if rows:
            self.records.project(tx, o.id, o.claim)
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
                    self.lanes.id_for(tx, m.queue, m.name),
                    m.priority,
                    m.expires_at,
                    m.headers,
                    m.retries,
                ),
            )
        if rows and o.plan is not None:
            self._bring(tx, o.plan, now, o.seq)
        return bool(rows)

    def give_back(
        self,
        tx: Transaction,
        seq: int,
        claim: int,
        now: float,
        *,
        due_at: float | None = None,
        spent: bool,
        had_begun: bool = False,
    ) -> bool:
        """Undo a claim: the task is READY in its old place (SCHEDULED with a due time ahead); return whether the claim held.

        Where the attempt had begun and is not spent, the next one is told that this is no first delivery.
        """
        later = due_at is not None and due_at > now
        return bool(
            tx.execute(
                """
                UPDATE litetq_task
                SET    state = ?3, claim = NULL, worker = NULL, attempts = attempts - ?4, due_at = coalesce(?5, due_at),
                       interrupted = interrupted + ?6
                WHERE  seq = ?1 AND claim = ?2
                RETURNING seq
                """,
                (seq, claim, 1 if later else 0, 0 if spent else 1, due_at if later else None, int(had_begun)),
            ).fetchall()
        )

    def redeliver(self, tx: Transaction, seq: int, claim: int, now: float) -> bool | None:
        """Give begun work back, counted.

        Returns True when it will run again, False when it now rests as a dead letter, None when the claim no longer held.
        """
        count = tx.execute(
            "UPDATE litetq_task SET deliveries = deliveries + 1 WHERE seq = ?1 AND claim = ?2 RETURNING deliveries",
            (seq, claim),
        ).get
        if count is None:
            return None
        if count > self.redelivery_bound:
            reason = f"redelivered {self.redelivery_bound} times and given back each time"
            self.end(
                tx, seq, claim, states.FAILURE, exception_json("WorkerLostError", reason), now, reason=reason, dead=True
            )
            return False
        return self.give_back(tx, seq, claim, now, spent=True)

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
        self.workflow.unfold(tx, outcome.seq)
        seqs = self.send_in(tx, plan, now, outcome.seq)
        heir = seqs[-1]
        if not tx.execute("SELECT EXISTS (SELECT 1 FROM litetq_task WHERE seq = ?1)", (heir,)).get:
            reason = "its replacement was revoked"
            return self.end(tx, outcome.seq, outcome.claim, states.REVOKED, _revoked(reason), now, reason=reason)
        if linked or any(link.source == SELF for link in plan.links):
            # Whoever is told of the task's failure must be told when it is a step before the heir that fails.
            earlier = [seqs[place] for place in before(plan, len(seqs) - 1)]
            tx.executemany(
                "INSERT OR IGNORE INTO litetq_link (source, target, kind) "
                "SELECT ?1, target, kind FROM litetq_link WHERE source = ?2 AND kind = 3",
                [(seq, outcome.seq) for seq in earlier],
            )
            tx.execute("UPDATE litetq_link SET source = ?1 WHERE source = ?2", (heir, outcome.seq))
            tx.execute("UPDATE litetq_part SET member = ?1 WHERE member = ?2", (heir, outcome.seq))
            marked = [(seq, Linked.ROWS) for seq in (heir, *earlier)]
            tx.executemany("UPDATE litetq_task SET linked = ?2 WHERE seq = ?1", marked)
        self.workflow.past.note_heir(tx, outcome.seq, heir)
        tx.execute("DELETE FROM litetq_task WHERE seq = ?1", (outcome.seq,))
        if join_id is not None:
            self.workflow.drop_join(tx, join_id)
        return True

    def end(
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
        ending = self.records.ending(seq, claim, state, error, None, now, reason=reason, worker=worker, dead=dead)
        gone = self.records.end(tx, ending)
        if gone is None:
            return False
        self._tell_end(tx, gone.id, state, error, reason, now)
        self.workflow.after_end(tx, gone, End(False, error, None), now)
        return True

    def _tell_end(self, tx: Transaction, id: str, state: str, error: bytes, reason: str, now: float) -> None:
        """Write the event of such an end, if any worker sends events."""
        if state == states.REVOKED:
            fields: dict[str, Any] = {"terminated": False, "signum": None, "expired": reason == "expired"}
            self.mailbox.record_end(tx, id, "task-revoked", now, fields)
        else:
            told = json.loads(error)
            shown = f"{told['exc_type']}({', '.join(map(repr, told['exc_message']))})"
            self.mailbox.record_end(tx, id, "task-failed", now, {"exception": shown, "traceback": None})

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
        traceback: str | None = None,
    ) -> bool:
        """Record a state of an unfinished task; return False when the claim is lost (then nothing is changed).

        Without a claim number (a program that sets the state of any id, as Celery allows) an id unknown here gets a
        result row.
        """

        def operation(tx: Transaction) -> bool:
            changed = tx.execute(
                """
                UPDATE litetq_task
                SET    status = ?3, meta = ?4, meta_type = ?5, started_at = CASE WHEN ?6 THEN ?7 ELSE started_at END,
                       traceback = coalesce(?8, traceback)
                WHERE  id = ?1 AND (?2 IS NULL OR claim = ?2)
                RETURNING seq
                """,
                (id, claim, state, meta, content_type, started, now, traceback),
            ).fetchall()
            if not changed and claim is None:
                said = Record(id, state, "DONE", meta, content_type, traceback, done_at=now)
                self.records.write(tx, said, self.records.expiry(now))
            elif not changed:
                return False
            self.records.project(tx, id, claim)
            return True

        return self.database.write(operation)

    # -- revoke, purge

    def revoke(self, ids: Iterable[str], reason: str, now: float) -> int:
        """End waiting tasks as REVOKED; a claimed one ends so instead of a further attempt. Return how many ended.

        Ids that the file does not know are remembered for three hours, and end when they come.
        """
        wanted = list(ids)

        def operation(tx: Transaction) -> int:
            return sum(self._revoke(tx, id, reason, now) for id in wanted)

        return self.database.write(operation)

    def revoke_stamped(self, stamps: Mapping[str, Iterable[Any]], reason: str, now: float) -> list[str]:
        """Revoke the tasks that carry any of these stamps, also those sent within the next three hours; return their ids.

        Waiting ones end; a claimed one ends instead of a further attempt, as by `revoke`.
        """
        wanted = {_stamp_key(name, value) for name, values in stamps.items() for value in values}
        expires_at = now + REVOKED_MEMORY_S
        rows = [(key, reason, expires_at) for key in sorted(wanted)]
        # Remembered first: what is sent after that ends by itself, and what was sent before is seen below.
        self.database.write(
            lambda tx: tx.executemany(
                "INSERT OR REPLACE INTO litetq_revoked (id, reason, expires_at) VALUES (?1, ?2, ?3)", rows
            )
        )
        found: list[str] = []
        last = 0
        while True:
            page = self.database.read(
                lambda tx, last=last: tx.execute(  # type: ignore[misc]
                    "SELECT seq, id, headers FROM litetq_task WHERE seq > ?1 ORDER BY seq LIMIT 5000", (last,)
                ).fetchall()
            )
            if not page:
                break
            last = page[-1][0]
            found += [id for _, id, headers in page if not wanted.isdisjoint(stamp_keys(headers))]
        if found:
            self.revoke(found, reason, now)
        return found

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
        ended = self.end(tx, seq, None, states.REVOKED, _revoked(reason), now, reason=reason)
        tx.execute("DELETE FROM litetq_link WHERE target = ?1", (seq,))
        return ended

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

    def run_again(self, ids: Sequence[str], now: float) -> int:
        """Let the failed tasks among these, and all failed ones of their workflows, run again; return how many.

        What has not failed is left alone, so a second call does nothing. Raises NotOnRecord when what is needed has expired;
        then nothing has changed.
        """
        return self.database.write(lambda tx: self.records.past.restore(tx, ids, now))

    # -- upkeep: each does a bounded piece and returns how much it was

    def has_unfinished(self, now: float, queues: frozenset[str] | None = None) -> bool:
        """Return whether anything is claimed, or may start now, in these queues (None: all): what a drain waits for.

        Paused queues do not count: nothing of them will start.
        """

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

    def _unclaimed(self, tx: Transaction, seqs: Sequence[int]) -> list[Delivery]:
        """Return waiting tasks as a claim would hand them out, under claim number 0."""
        found = []
        for seq in seqs:
            row = tx.execute(_DELIVERY_COLUMNS + " WHERE seq = ?1", (seq,)).fetchall()[0]
            queue = tx.execute("SELECT queue FROM litetq_lane WHERE id = ?1", (row[5],)).get
            found.append(Delivery._make((0, *row[:5], queue, *row[6:17], None)))
        return found

    def promote(self, now: float, limit: int = 1000) -> int:
        """Make up to `limit` due tasks READY."""
        return self.database.write(lambda tx: self._promote(tx, now, limit))

    def _promote(self, tx: Transaction, now: float, limit: int) -> int:
        # Asked first, because nothing is due at most claims: 1 us instead of 7.
        if not tx.execute("SELECT EXISTS (SELECT 1 FROM litetq_task WHERE state = 1 AND due_at <= ?1)", (now,)).get:
            return 0
        tx.execute(
            "UPDATE litetq_task SET state = 0 WHERE seq IN "
            "(SELECT seq FROM litetq_task WHERE state = 1 AND due_at <= ?1 ORDER BY due_at LIMIT ?2)",
            (now, limit),
        )
        return tx.connection.changes()

    def expire(self, now: float, limit: int = 1000, *, ended: list[Delivery] | None = None) -> int:
        """End up to `limit` waiting tasks whose time is over, as REVOKED("expired"); they are added to `ended`."""
        sql = (
            "SELECT seq FROM litetq_task WHERE expires_at IS NOT NULL AND state <> 3 AND expires_at <= ?1 "
            "ORDER BY expires_at LIMIT ?2"
        )
        if not self.database.read(lambda tx: tx.execute(sql, (now, 1)).fetchall()):
            return 0

        def operation(tx: Transaction) -> int:
            seqs = [row[0] for row in tx.execute(sql, (now, limit)).fetchall()]
            if ended is not None:
                ended[:] = self._unclaimed(tx, seqs)
            return sum(self._end_waiting(tx, seq, "expired", now) for seq in seqs)

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


# fmt: off


def _task_bindings(
    m: Message, lane: int, now: float, role: int = Role.TASK, linked: int = 0, blockers: int = 0, join_id: int | None = None
) -> tuple[Any, ...]:
    due_at = m.due_at
    state = 2 if blockers else 1 if due_at is not None and due_at > now else 0
    return (m.id, m.name, state, lane, m.priority, m.body, m.content_type, m.retries, due_at, m.expires_at, m.root_id,
            m.parent_id, m.headers, now, m.delay, m.lifetime, role, linked, blockers, join_id)


# fmt: on


class _Ties:
    """How the tasks of a plan hang together, as their rows say it.

    Attributes:
        own: per message its role, what hangs on it (message.Linked), its blockers and, of a body, its join.
        further: per message whom it follows, its follower, and the kind of the link to that one.
        links: the links that need a row: (source, target, kind).
    """

    def __init__(self, plan: Plan, seqs: Sequence[int], join_ids: Sequence[int], self_seq: int | None) -> None:
        count = len(seqs)
        roles, linked, blockers = [Role.TASK] * count, [Linked.NOTHING] * count, [0] * count
        body_of: list[int | None] = [None] * count
        links = dict.fromkeys(plan.links)
        for _, target, kind in links:
            if kind == Kind.ERRBACK:
                # The first failure releases it, however many tasks it watches.
                blockers[target] += roles[target] != Role.ERRBACK
                roles[target] = Role.ERRBACK
            else:
                blockers[target] += 1
        for join, join_id in zip(plan.joins, join_ids, strict=True):
            for member in join.members:
                if member >= 0:
                    linked[member] = Linked.ROWS
            if join.body is not None and join.body != SELF:
                blockers[join.body] += 1
                linked[join.body] = Linked.ROWS  # its end takes the join's values with it
                body_of[join.body] = join_id
        follows: list[int | None] = [None] * count
        follower: list[tuple[int | None, int | None]] = [(None, None)] * count
        self.links: list[tuple[int | None, int, int]] = []
        for source, target, kind in links:
            if source == SELF:
                self.links.append((self_seq, seqs[target], kind))
            elif blockers[target] == 1 and roles[target] != Role.ERRBACK and follower[source][0] is None:
                # The only thing that the target waits for: no row of its own, which spares a chain two pages per step.
                follower[source] = (seqs[target], kind)
                follows[target] = seqs[source]
                linked[source] = linked[source] or Linked.FOLLOWER
            else:
                self.links.append((seqs[source], seqs[target], kind))
                linked[source] = Linked.ROWS
        self.own = list(zip(roles, linked, blockers, body_of, strict=True))
        self.further = [(leader, *behind) for leader, behind in zip(follows, follower, strict=True)]


_FINAL: Final = frozenset({Disposition.COMPLETE, Disposition.FAIL, Disposition.REVOKE, Disposition.IGNORE})


def stamp_keys(headers: str | None) -> list[str]:
    """Return under which keys `litetq_revoked` would hold the stamps of a task."""
    if headers is None or '"stamps"' not in headers:
        return []
    stamps = json.loads(headers)["stamps"].items()
    return [
        _stamp_key(name, value) for name, given in stamps for value in (given if isinstance(given, list) else [given])
    ]


def _stamp_key(name: str, value: Any) -> str:
    return f"{STAMP}{json.dumps([name, str(value)])}"


def _revoked(reason: str) -> bytes:
    return exception_json("TaskRevokedError", reason)


def _rank(row: Any) -> tuple[int, int]:
    """Sort deliveries into the order in which they start: by priority, then in commit order."""
    return -row[6], row[0]


def _makes_ready(outcomes: Sequence[Outcome], handed: bool) -> bool:
    """Return whether these ends may have made something READY that was not `handed` over, perhaps for other workers."""
    return any(o.plan or o.disposition or (o.linked and not handed) for o in outcomes)


def _end_of(outcome: Outcome) -> End:
    value = outcome.value if outcome.value is not None else outcome.result
    return End(outcome.disposition == Disposition.COMPLETE, value, outcome.content_type)
