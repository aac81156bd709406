"""The schedule in the file: its entries, and each due time that something was done about.

An entry's `version` grows with each change of its row. Who wants to fire names the version that it has read: of any number of
beats that come with the same one, the first changes the row and enqueues the task, in one transaction, and the others change
nothing and are told so. Beside it, (entry, due time) is a key of the firings: a due time is never enqueued twice, also when
the clock is put back.

A verb opens a transaction of its own; `now` and all points in time are UTC seconds.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from litetq.database import Database, Transaction
from litetq.message import Kind, Message, Plan

if TYPE_CHECKING:
    from litetq.store import Store

KEPT_S: Final = 86_400.0  # arbitrary: how long firings stay; far longer than any clock is put back unnoticed
RUN_TIME: Final = ""  # the owner of entries made at run time

_COLUMNS: Final = (
    "name, owner, version, definition, schedule, words, zone, policy, paused, created_at, due_at, next_at, "
    "waiting_due_at, last_due_at, last_run_at, last_id, last_ends, runs, note"
)
# What is not said by the configuration.
_HAPPENED: Final = (
    *(
        "created_at",
        "due_at",
        "next_at",
        "waiting_due_at",
        "last_due_at",
        "last_run_at",
        "last_id",
        "last_ends",
        "runs",
    ),
    "note",
)
_SELECT: Final = f"SELECT {_COLUMNS} FROM litetq_entry"
# Whose entries a beat looks at: those made at run time, and those of its own program, but for names it cannot fire.
_MINE: Final = "owner IN ('', ?2) AND name NOT IN (SELECT value FROM json_each(?3))"


class Entry(NamedTuple):
    """A row of `litetq_entry`: one entry of the schedule as it is now."""

    name: str
    owner: str  # '': made at run time; else the app whose configuration holds it
    version: int
    definition: str  # JSON: task, args, kwargs, options
    schedule: str | None  # JSON; None: only its program knows it
    words: str  # the schedule, for people
    zone: str
    policy: str | None  # JSON; None: all defaults
    paused: int
    created_at: float
    due_at: float | None  # the first due time that nothing was done about; None: none comes
    next_at: float | None  # when beat looks at it
    waiting_due_at: float | None  # the due time that waits for the end of the run before it
    last_due_at: float | None
    last_run_at: float | None
    last_id: str | None  # the result of the last run
    last_ends: str | None  # JSON: ids of the tasks that end it; None: last_id alone
    runs: int
    note: str | None  # why it did not run, the last time that it did not

    @property
    def task(self) -> str:
        """The name of its task."""
        return str(json.loads(self.definition)["task"])


class Run(NamedTuple):
    """One run of an entry, ready to be enqueued."""

    id: str  # of its result
    plans: Sequence[Plan]

    def ends(self) -> str | None:
        """Return the ids of the tasks after which it is over, as JSON; None where that is `id` alone.

        Of a chain that is the last task, of a chord its body, of a group each member.
        """
        ids = [message.id for plan in self.plans for message in _last_of(plan)]
        return None if ids in ([self.id], []) else json.dumps(ids)


def _last_of(plan: Plan) -> list[Message]:
    """Return the messages of a plan that nothing waits for, errbacks apart."""
    before = {link.source for link in plan.links if link.kind != Kind.ERRBACK}
    before |= {link.target for link in plan.links if link.kind == Kind.ERRBACK}
    before |= {member for join in plan.joins for member in join.members}
    return [message for place, message in enumerate(plan.messages) if place not in before]


class Definition(NamedTuple):
    """What an entry is, apart from what has happened to it."""

    name: str
    definition: str
    schedule: str | None
    words: str
    zone: str
    policy: str | None


class Put(NamedTuple):
    """An entry to be added or changed."""

    definition: Definition
    due_at: float | None
    next_at: float | None
    version: int | None  # of the row that it changes; None: there is none


class Look(NamedTuple):
    """What a beat finds when it looks."""

    due: list[Entry]  # those whose time has come, in order
    waiting: list[Entry]  # those with a run that waits for the one before
    next_at: float | None  # when the next one's time comes


class Firing(NamedTuple):
    """What is to be done about one due time, and how the entry stands afterwards."""

    due_at: float
    next_due: float | None
    next_at: float | None
    outcome: str  # SENT; or SKIPPED or FAILED with a reason
    reason: str | None = None
    missed: int = 0  # due times before this one that are left out
    missed_reason: str | None = None
    overlap: str = "allow"


class Fired(NamedTuple):
    """What became of it."""

    entry: Entry
    outcome: str  # SENT, SKIPPED, WAITING, FAILED; or DONE: the due time had been dealt with before
    reason: str | None


class FiringRow(NamedTuple):
    """A row of `litetq_firing`."""

    entry: str
    due_at: float
    outcome: str
    task_id: str | None
    at: float
    reason: str | None
    missed: int


class Timetable:
    """The tables `litetq_entry` and `litetq_firing`."""

    def __init__(self, database: Database, store: Store) -> None:
        self.database = database
        self.store = store

    # -- reading

    def look(self, now: float, owner: str, ignored: Collection[str] = (), limit: int = 100) -> Look:
        """Return which entries of this owner (and of nobody) are due, up to `limit`, and when the next one is. Writes nothing."""
        bindings = (now, owner, json.dumps(list(ignored)), limit)

        def operation(tx: Transaction) -> Look:
            due = tx.execute(
                f"{_SELECT} WHERE paused = 0 AND next_at <= ?1 AND {_MINE} ORDER BY next_at LIMIT ?4", bindings
            ).fetchall()
            waiting = tx.execute(
                f"{_SELECT} WHERE waiting_due_at IS NOT NULL AND {_MINE} LIMIT ?4", bindings
            ).fetchall()
            next_at = tx.execute(
                f"SELECT next_at FROM litetq_entry WHERE paused = 0 AND next_at > ?1 AND {_MINE} ORDER BY next_at LIMIT 1",
                bindings[:3],
            ).get
            return Look([Entry(*row) for row in due], [Entry(*row) for row in waiting], next_at)

        return self.database.read(operation)

    def entries(self) -> list[Entry]:
        """Return all entries by name."""
        return self.database.read(lambda tx: [Entry(*row) for row in tx.execute(f"{_SELECT} ORDER BY name").fetchall()])

    def entry(self, name: str) -> Entry | None:
        return self.database.read(lambda tx: self._entry(tx, name))

    def _entry(self, tx: Transaction, name: str) -> Entry | None:
        rows = tx.execute(f"{_SELECT} WHERE name = ?1", (name,)).fetchall()
        return Entry(*rows[0]) if rows else None

    def firings(self, name: str, limit: int = 100) -> list[FiringRow]:
        """Return what was done about the latest due times of an entry, the newest first."""
        sql = "SELECT entry, due_at, outcome, task_id, at, reason, missed FROM litetq_firing WHERE entry = ?1"
        return self.database.read(
            lambda tx: [
                FiringRow(*row) for row in tx.execute(f"{sql} ORDER BY due_at DESC LIMIT ?2", (name, limit)).fetchall()
            ]
        )

    def is_unfinished(self, entry: Entry) -> bool:
        """Return whether the last run of an entry waits, runs or will be retried."""
        return entry.last_id is not None and self.database.read(lambda tx: self._is_unfinished(tx, entry))

    def _is_unfinished(self, tx: Transaction, entry: Entry) -> bool:
        # The row of a worker that died is ended or given back by the others: it blocks nobody for ever.
        ids = entry.last_ends or json.dumps([entry.last_id])
        sql = "SELECT EXISTS (SELECT 1 FROM litetq_task WHERE id IN (SELECT value FROM json_each(?1)))"
        return bool(tx.execute(sql, (ids,)).get)

    # -- changing

    def put(self, puts: Sequence[Put], owner: str, now: float) -> bool:
        """Add these entries, or change those of the same name; False, and nothing has changed, when one is not as it was read.

        What has happened to an entry before stays on record. A run that waits for the one before it is dropped.
        """

        def operation(tx: Transaction) -> bool:
            for definition, _, _, version in puts:
                row = self._entry(tx, definition.name)
                if version != (None if row is None else row.version):
                    return False
            for definition, due_at, next_at, _ in puts:
                tx.execute(
                    "INSERT INTO litetq_entry "
                    "(name, owner, definition, schedule, words, zone, policy, created_at, due_at, next_at) "
                    "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) "
                    "ON CONFLICT (name) DO UPDATE SET owner = ?2, definition = ?3, schedule = ?4, words = ?5, zone = ?6, "
                    "policy = ?7, due_at = ?9, next_at = ?10, waiting_due_at = NULL, note = NULL, version = version + 1",
                    (definition.name, owner, *definition[1:], now, due_at, next_at),
                )
            return True

        return self.database.write(operation) if puts else True

    def reserve_name(self, definition: Definition, due_at: float | None, next_at: float | None, now: float) -> bool:
        """Add an entry made at run time; False when there is one of this name, then nothing has changed."""

        def operation(tx: Transaction) -> bool:
            tx.execute(
                "INSERT OR IGNORE INTO litetq_entry "
                "(name, owner, definition, schedule, words, zone, policy, created_at, due_at, next_at) "
                "VALUES (?1, '', ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                (*definition, now, due_at, next_at),
            )
            return tx.connection.changes() > 0

        return self.database.write(operation)

    def remove(self, names: Sequence[str], owner: str) -> int:
        """Remove these entries of this owner; return how many. Tasks that were enqueued for them stay."""

        def operation(tx: Transaction) -> int:
            tx.execute(
                "DELETE FROM litetq_entry WHERE owner = ?2 AND name IN (SELECT value FROM json_each(?1))",
                (json.dumps(list(names)), owner),
            )
            return tx.connection.changes()

        return self.database.write(operation) if names else 0

    def set_paused(self, name: str, paused: bool, *, due_at: float | None = None, next_at: float | None = None) -> bool:
        """Pause an entry, or let it go on from this due time; False when there is none of this name."""

        def operation(tx: Transaction) -> bool:
            if paused:
                tx.execute(
                    "UPDATE litetq_entry SET paused = 1, waiting_due_at = NULL, version = version + 1 WHERE name = ?1",
                    (name,),
                )
            else:
                tx.execute(
                    "UPDATE litetq_entry SET paused = 0, due_at = ?2, next_at = ?3, version = version + 1 WHERE name = ?1",
                    (name, due_at, next_at),
                )
            return tx.connection.changes() > 0

        return self.database.write(operation)

    def postpone(self, entry: Entry, next_at: float, note: str | None = None) -> bool:
        """Have beat look at an entry again then; False when it was changed meanwhile."""
        return self._set(entry, {"next_at": next_at, "note": note or entry.note})

    def move_on(self, entry: Entry, due_at: float | None, next_at: float | None) -> bool:
        """Let an entry go on with another due time, none in between; False when it was changed meanwhile."""
        return self._set(entry, {"due_at": due_at, "next_at": next_at})

    def move(
        self, entry: Entry, due_at: float | None, next_at: float | None, note: str, now: float, *, forget: bool = False
    ) -> bool:
        """Let an entry go on from `now` with another due time; False when it was changed meanwhile.

        With `forget`, due times after now that were dealt with may come again.
        """

        def operation(tx: Transaction) -> bool:
            values = {"due_at": due_at, "next_at": next_at, "last_due_at": now, "note": note}
            changed = self._set_in(tx, entry, values)
            if changed and forget:
                tx.execute("DELETE FROM litetq_firing WHERE entry = ?1 AND due_at > ?2", (entry.name, now))
            return changed

        return self.database.write(operation)

    def _set(self, entry: Entry, values: Mapping[str, Any]) -> bool:
        return self.database.write(lambda tx: self._set_in(tx, entry, values))

    def _set_in(self, tx: Transaction, entry: Entry, values: Mapping[str, Any]) -> bool:
        assignments = ", ".join(f"{column} = :{column}" for column in values)
        tx.execute(
            f"UPDATE litetq_entry SET {assignments}, version = version + 1 WHERE name = :name AND version = :version",
            {**values, "name": entry.name, "version": entry.version},
        )
        return tx.connection.changes() > 0

    # -- what another beat is to know

    def memory(self, owner: str) -> str:
        """Return what has happened to the entries of this owner, as JSON."""
        sql = f"SELECT name, schedule, zone, {', '.join(_HAPPENED)} FROM litetq_entry WHERE owner = ?1 ORDER BY name"
        return json.dumps(self.database.read(lambda tx: tx.execute(sql, (owner,)).fetchall()))

    def recall(self, owner: str, memory: str) -> None:
        """Let the entries of this owner stand as they did where `memory` was written; those with another schedule stay as they are."""
        values = ", ".join(f"{column} = ?{number}" for number, column in enumerate(_HAPPENED, 5))
        sql = f"UPDATE litetq_entry SET {values}, version = version + 1 WHERE name = ?1 AND schedule IS ?2 AND zone = ?3 AND owner = ?4"
        rows = [(*row[:3], owner, *row[3:]) for row in json.loads(memory)]
        self.database.write(lambda tx: tx.executemany(sql, rows))

    # -- firing

    def fire(self, entry: Entry, firing: Firing, run: Run | None, now: float) -> Fired | None:
        """Do what `firing` says about one due time, as a whole: its row, the task, and how the entry stands.

        Args:
            entry: as it was read; None is returned, and nothing done, when it was changed meanwhile.
            run: what to enqueue, with outcome SENT; None when the caller believes that overlap forbids it.
        Returns what became of it: where `overlap` forbids it, the task is not enqueued and the outcome is SKIPPED or WAITING.
        """

        def operation(tx: Transaction) -> Fired | None:
            row = self._entry(tx, entry.name)
            if row is None or row.version != entry.version:
                return None
            outcome, reason = self._outcome(tx, row, firing)
            if outcome == "SENT" and run is None:
                return None  # the last run has ended since the caller looked: it has to make the message after all
            tx.execute(
                "INSERT OR IGNORE INTO litetq_firing (entry, due_at, outcome, task_id, at, reason, missed) "
                "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                (row.name, firing.due_at, outcome, run.id if run is not None and outcome == "SENT" else None, now, reason,
                 firing.missed),
            )  # fmt: skip
            if not tx.connection.changes():
                outcome, reason = "DONE", "this due time was dealt with before the clock was put back"
            sent = run if outcome == "SENT" else None
            self._send(tx, sent, now)
            return Fired(self._advance(tx, row, firing, outcome, reason, sent, now), outcome, reason)

        return self.database.write(operation)

    def _outcome(self, tx: Transaction, row: Entry, firing: Firing) -> tuple[str, str | None]:
        if firing.outcome != "SENT" or firing.overlap == "allow":
            return firing.outcome, firing.reason
        if row.waiting_due_at is not None:
            return "SKIPPED", "a run of it waits already (overlap=queue_one)"
        if not self._is_unfinished(tx, row):
            return firing.outcome, firing.reason
        if firing.overlap == "queue_one":
            return "WAITING", f"waits for the end of its last run, {row.last_id} (overlap=queue_one)"
        return "SKIPPED", f"its last run, {row.last_id}, is not finished (overlap=skip)"

    def _advance(
        self,
        tx: Transaction,
        row: Entry,
        firing: Firing,
        outcome: str,
        reason: str | None,
        sent: Run | None,
        now: float,
    ) -> Entry:
        changed = _after(row, sent, now)._replace(
            due_at=firing.next_due,
            next_at=firing.next_at,
            waiting_due_at=firing.due_at if outcome == "WAITING" else row.waiting_due_at,
            last_due_at=firing.due_at,
            note=reason or firing.missed_reason or (None if sent is not None else row.note),
        )
        self._write(tx, changed)
        return changed

    def _write(self, tx: Transaction, entry: Entry) -> None:
        tx.execute(
            "UPDATE litetq_entry SET version = ?2, due_at = ?3, next_at = ?4, waiting_due_at = ?5, last_due_at = ?6, "
            "last_run_at = ?7, last_id = ?8, last_ends = ?9, runs = ?10, note = ?11 WHERE name = ?1",
            (entry.name, entry.version, *entry[10:]),
        )

    def _send(self, tx: Transaction, run: Run | None, now: float) -> None:
        for plan in () if run is None else run.plans:
            self.store.send_in(tx, plan, now)

    def release_waiting(self, entry: Entry, run: Run | None, now: float) -> Entry | None:
        """Enqueue the run that waited for the one before it, or (None) give it up.

        None, and nothing is done, when the entry was changed meanwhile or its last run is not finished.
        """

        def operation(tx: Transaction) -> Entry | None:
            row = self._entry(tx, entry.name)
            if row is None or row.version != entry.version or self._is_unfinished(tx, row):
                return None
            how = ("FAILED", None, "it could not be sent") if run is None else ("SENT", run.id, None)
            tx.execute(
                "UPDATE litetq_firing SET outcome = ?4, task_id = ?5, reason = ?6, at = ?3 WHERE entry = ?1 AND due_at = ?2",
                (row.name, row.waiting_due_at, now, *how),
            )
            self._send(tx, run, now)
            changed = _after(row, run, now)._replace(waiting_due_at=None, note=None if run is not None else row.note)
            self._write(tx, changed)
            return changed

        return self.database.write(operation)

    def run_now(self, name: str, run: Run, now: float) -> Entry | None:
        """Enqueue a run of an entry out of turn; its due times stay as they are. None when there is no such entry."""

        def operation(tx: Transaction) -> Entry | None:
            row = self._entry(tx, name)
            if row is None:
                return None
            self._send(tx, run, now)
            tx.execute(
                "INSERT OR IGNORE INTO litetq_firing (entry, due_at, outcome, task_id, at, reason) "
                "VALUES (?1, ?2, 'SENT', ?3, ?2, 'out of turn')",
                (name, now, run.id),
            )
            changed = _after(row, run, now)
            self._write(tx, changed)
            return changed

        return self.database.write(operation)

    # -- upkeep

    def prune(self, now: float, limit: int = 1000) -> int:
        """Remove up to `limit` firings of more than a day ago; return how many."""
        old = (now - KEPT_S, limit)
        # Due times ahead of the clock stay: it was put back, and they must not come a second time.
        which = "FROM litetq_firing WHERE at < ?1 AND due_at < ?1 ORDER BY at LIMIT ?2"
        if not self.database.read(lambda tx: tx.execute(f"SELECT 1 {which}", old).fetchall()):
            return 0

        def operation(tx: Transaction) -> int:
            rows = tx.execute(f"SELECT entry, due_at {which}", old).fetchall()
            tx.executemany("DELETE FROM litetq_firing WHERE entry = ?1 AND due_at = ?2", rows)
            return len(rows)

        return self.database.write(operation)

    def ahead_of(self, now: float) -> list[Entry]:
        """Return entries whose last due time, or whose making, lies after `now`: the clock was put back."""
        sql = f"{_SELECT} WHERE coalesce(last_due_at, created_at) > ?1"
        return self.database.read(lambda tx: [Entry(*row) for row in tx.execute(sql, (now,)).fetchall()])


def _after(row: Entry, run: Run | None, now: float) -> Entry:
    """Return an entry as it is after a change, and after a run if there was one."""
    row = row._replace(version=row.version + 1)
    if run is None:
        return row
    return row._replace(last_run_at=now, last_id=run.id, last_ends=run.ends(), runs=row.runs + 1)
