"""What it takes to run failed tasks again: their rows, and what hung on them, kept as long as their results are.

Written only where something fails; what succeeds leaves nothing here. The tables are the copies of those of the living:
`litetq_past_task`, `_link`, `_join`, `_part`. Nothing here waits or runs. `restore` moves what belongs together back to the
living, in one transaction.

A task is kept once as it was when it *ended* (1), and an errback as it was before it was called or dropped (0), because a
further failure must find it again. What is named by a seq is therefore named by (seq, ended).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from litetq import states
from litetq.database import Transaction
from litetq.exceptions import NotOnRecord
from litetq.message import Kind, Linked

Key = tuple[int, int]  # (seq, ended)

_KEEP: Final = """
    INSERT OR IGNORE INTO litetq_past_task (
        seq, ended, id, name, lane, priority, body, content_type, due_at, expires_at, delay, lifetime, root_id, parent_id,
        headers, role, linked, input, input_type, join_id, kept_until)
    SELECT seq, ?2, id, name, lane, priority, CASE WHEN ?2 THEN NULL ELSE body END, content_type, due_at, expires_at, delay,
           lifetime, root_id, parent_id, headers, role, linked, input, input_type, join_id, ?3
    FROM   litetq_task
    WHERE  seq = ?1
"""

# What its result alone does not bring back.
_KEEP_ENDED: Final = (
    _KEEP + "AND claim IS ?4 AND (linked OR role OR blockers OR input IS NOT NULL OR join_id IS NOT NULL)"
)

# Two statements, because each is served by an index of its own.
_KEEP_LINKS: Final = (
    "INSERT OR IGNORE INTO litetq_past_link SELECT source, target, kind, ?2 FROM litetq_any_link WHERE source = ?1",
    "INSERT OR IGNORE INTO litetq_past_link SELECT source, target, kind, ?2 FROM litetq_any_link WHERE target = ?1",
)

_JOINS_BELOW: Final = """
    WITH RECURSIVE tree(id) AS (
        SELECT value FROM json_each(?1)
        UNION SELECT inner_one.id FROM tree JOIN litetq_past_join AS inner_one ON inner_one.outer_join = tree.id
    )
    SELECT id FROM tree
"""

_ROW: Final = """
    SELECT past.id, past.name, past.lane, past.priority, coalesce(past.body, result.body), past.content_type,
           past.due_at, past.expires_at, past.delay, past.lifetime, past.root_id, past.parent_id, past.headers, past.role,
           past.input, past.input_type, past.join_id, result.state, coalesce(result.attempts, 0)
    FROM   litetq_past_task AS past
           LEFT JOIN litetq_result AS result ON result.id = past.id
    WHERE  past.seq = ?1 AND past.ended = ?2
"""

_INSERT: Final = """
    INSERT INTO litetq_task (
        seq, id, name, state, lane, priority, body, content_type, retries, attempts, deliveries, due_at, expires_at, delay,
        lifetime, root_id, parent_id, headers, role, linked, blockers, input, input_type, join_id, enqueued_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9, 0, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)
"""

_NOTE_ATTEMPT: Final = """
    INSERT INTO litetq_attempt (id, attempt, claim, worker, outcome, error, error_type, traceback, ended_at, expires_at)
    SELECT id, attempts, claim, worker, state, result, content_type, traceback, done_at, expires_at
    FROM   litetq_result
    WHERE  id = ?1 AND claim IS NOT NULL
"""

# Nothing hung on these: their results have all there is, but for the place in the order, which is a new one.
_RESTORE_PLAIN: Final = """
    INSERT INTO litetq_task (
        id, name, state, lane, priority, body, content_type, retries, attempts, deliveries, root_id, parent_id, headers,
        enqueued_at)
    SELECT id, name, 0, lane, priority, body, body_type, 0, attempts, 0, root_id, parent_id, headers, ?2
    FROM   litetq_result
    WHERE  id = ?1
"""


class _Row(NamedTuple):
    id: str
    name: str
    lane: int
    priority: int
    body: bytes | None
    content_type: str | None
    due_at: float | None
    expires_at: float | None
    delay: float | None
    lifetime: float | None
    root_id: str | None
    parent_id: str | None
    headers: str | None
    role: int
    input: bytes | None
    input_type: str | None
    join_id: int | None
    state: str | None  # of its result
    attempts: int


class Past:
    """The tables `litetq_past_…`."""

    # -- keep

    def keep(self, tx: Transaction, seq: int, claim: int | None, until: float | None) -> None:
        """Keep a task that is about to end in a failure, and who waited for it or for whom it waited."""
        tx.execute(_KEEP_ENDED, (seq, 1, until, claim))
        if tx.connection.changes():
            for sql in _KEEP_LINKS:
                tx.execute(sql, (seq, 1))

    def keep_plain(self, tx: Transaction, ended: Sequence[tuple[int, int, float | None]]) -> None:
        """Keep tasks on which nothing hangs: (seq, claim, until)."""
        tx.executemany(_KEEP_ENDED, [(seq, 1, until, claim) for seq, claim, until in ended])

    def keep_errback(self, tx: Transaction, tasks: Iterable[int], joins: Iterable[int], until: float | None) -> None:
        """Keep an errback and all behind it, as they are before it is called or dropped."""
        for seq in tasks:
            tx.execute(_KEEP, (seq, 0, until))
            for sql in _KEEP_LINKS:
                tx.execute(sql, (seq, 0))
        for join_id in joins:
            self.keep_join(tx, join_id)

    def keep_join(self, tx: Transaction, join_id: int) -> None:
        """Keep a join and the values that it has; those below it are kept one by one."""
        tx.execute(
            "INSERT OR IGNORE INTO litetq_past_join (id, body, immutable, outer_join, outer_place) "
            "SELECT id, body, immutable, outer_join, outer_place FROM litetq_join WHERE id = ?1",
            (join_id,),
        )
        tx.execute(
            "INSERT OR IGNORE INTO litetq_past_part (join_id, place, member, filled, value, value_type) "
            "SELECT join_id, place, member, filled, value, value_type FROM litetq_part WHERE join_id = ?1",
            (join_id,),
        )

    def is_watched_by(self, tx: Transaction, target: int) -> bool:
        """Return whether a task that has failed would call this errback, if it ran and failed again."""
        return bool(tx.execute("SELECT EXISTS (SELECT 1 FROM litetq_past_link WHERE target = ?1)", (target,)).get)

    # -- what the living do meanwhile

    def note_success(self, tx: Transaction, seq: int, value: bytes | None, value_type: str | None) -> None:
        """Give the value of a task that has succeeded to those who had ended before it, as if they still waited."""
        tx.execute(
            "UPDATE litetq_past_task SET input = ?2, input_type = ?3 WHERE ended = 1 AND seq IN "
            "(SELECT target FROM litetq_past_link WHERE source = ?1 AND kind = 1 AND ended = 1)",
            (seq, b"null" if value is None else value, None if value is None else value_type),
        )
        if tx.execute("SELECT EXISTS (SELECT 1 FROM litetq_past_task WHERE seq = ?1 AND ended = 0)", (seq,)).get:
            # An errback that was called: what is kept of it, and of those behind it, is for another call.
            tx.execute("DELETE FROM litetq_past_link WHERE source = ?1 AND ended = 1", (seq,))
            return
        tx.execute("DELETE FROM litetq_past_link WHERE source = ?1", (seq,))
        tx.execute(
            "UPDATE litetq_past_part SET member = NULL, filled = 1, value = ?2, value_type = ?3 WHERE member = ?1",
            (seq, value, value_type),
        )

    def note_heir(self, tx: Transaction, seq: int, heir: int) -> None:
        """Put a task that replaces another in its place."""
        tx.execute("UPDATE OR IGNORE litetq_past_link SET source = ?2 WHERE source = ?1", (seq, heir))
        tx.execute("UPDATE litetq_past_part SET member = ?2 WHERE member = ?1", (seq, heir))

    # -- forget

    def forget(self, tx: Transaction, ids: str) -> None:
        """Forget the tasks of these ids (JSON): they can no longer be run again, nor what needs them."""
        self._drop(
            tx,
            tx.execute(
                "SELECT seq, ended, join_id FROM litetq_past_task WHERE id IN (SELECT value FROM json_each(?1))", (ids,)
            ).fetchall(),
        )

    def is_prunable(self, tx: Transaction, now: float) -> bool:
        sql = "SELECT EXISTS (SELECT 1 FROM litetq_past_task WHERE kept_until IS NOT NULL AND kept_until <= ?1)"
        return bool(tx.execute(sql, (now,)).get)

    def prune(self, tx: Transaction, now: float, limit: int) -> int:
        """Forget up to `limit` tasks whose time is over; return how many."""
        rows = tx.execute(
            "SELECT seq, ended, join_id FROM litetq_past_task WHERE kept_until IS NOT NULL AND kept_until <= ?1 "
            "ORDER BY kept_until LIMIT ?2",
            (now, limit),
        ).fetchall()
        self._drop(tx, rows)
        return len(rows)

    def _drop(self, tx: Transaction, rows: Sequence[tuple[int, int, int | None]]) -> None:
        """Remove tasks (seq, ended, join) with the links to them; one from them shows that something is missing."""
        if not rows:
            return
        tx.executemany("DELETE FROM litetq_past_task WHERE seq = ?1 AND ended = ?2", [row[:2] for row in rows])
        tx.executemany("DELETE FROM litetq_past_link WHERE target = ?1", [row[:1] for row in rows])
        self._drop_joins(tx, [join_id for _, _, join_id in rows if join_id is not None])

    def _drop_joins(self, tx: Transaction, roots: Sequence[int]) -> None:
        if roots:
            joins = tx.execute(_JOINS_BELOW, (json.dumps(roots),)).fetchall()
            tx.executemany("DELETE FROM litetq_past_part WHERE join_id = ?1", joins)
            tx.executemany("DELETE FROM litetq_past_join WHERE id = ?1", joins)

    # -- restore

    def restore(self, tx: Transaction, ids: Sequence[str], now: float) -> int:
        """Let the failed tasks among these run again, with all failed ones of their workflows; return how many.

        Each keeps its id. One that ended is READY, or BLOCKED behind those that run again; what has succeeded stays, and its
        values are where they were. The results of what runs again are removed, the failures stay on record as attempts.
        Raises NotOnRecord, and changes nothing, when something that is needed has expired.
        """
        wanted = json.dumps(list(ids))
        starts = tx.execute(_FAILED, (wanted,)).fetchall()
        plain = tx.execute(_FAILED_PLAIN, (wanted,)).fetchall()
        for id, is_whole in plain:
            if not is_whole:
                raise _missing(id)
            tx.execute(_NOTE_ATTEMPT, (id,))
            tx.execute(_RESTORE_PLAIN, (id, now))
            tx.execute("DELETE FROM litetq_result WHERE id = ?1", (id,))
        return len(plain) + (_Restoring(tx, [(seq, 1) for (seq,) in starts]).run(now) if starts else 0)


_FAILED: Final = """
    SELECT max(past.seq)
    FROM   json_each(?1) AS wanted
           JOIN litetq_past_task AS past ON past.id = wanted.value AND past.ended = 1
           JOIN litetq_result AS result ON result.id = past.id AND result.state <> 'SUCCESS'
    WHERE  NOT EXISTS (SELECT 1 FROM litetq_task WHERE litetq_task.id = past.id)
    GROUP  BY past.id
"""

_FAILED_PLAIN: Final = """
    SELECT DISTINCT result.id, result.body IS NOT NULL AND result.lane IS NOT NULL
    FROM   json_each(?1) AS wanted
           JOIN litetq_result AS result ON result.id = wanted.value AND result.state IN ('FAILURE', 'REVOKED')
    WHERE  NOT EXISTS (SELECT 1 FROM litetq_past_task AS past WHERE past.id = result.id AND past.ended = 1)
           AND NOT EXISTS (SELECT 1 FROM litetq_task WHERE litetq_task.id = result.id)
"""


class _Restoring:
    """One restore: find what belongs together, then write it."""

    def __init__(self, tx: Transaction, starts: Iterable[Key]) -> None:
        self.tx = tx
        self.rows: dict[Key, _Row] = {}
        self.seqs: dict[Key, int] = {}  # as they are written
        self.into: dict[Key, list[tuple[int, int]]] = {}  # (source as it will be, kind)
        self.remaining: dict[int, int] = {}  # join -> members that have not succeeded
        self._gather(starts)

    def run(self, now: float) -> int:
        blockers = {key: self._blockers(key) for key in self.rows}
        ended = [key for key in self.rows if key[1]]
        for key in sorted(self.rows, key=lambda key: (-key[1], key[0])):
            self._write_task(key, blockers[key], now)
        for key in self.rows:
            self._write_links(key)
            join_id = self.rows[key].join_id
            if join_id is not None:
                self._write_join(key, join_id)
        for key in ended:
            self.tx.execute(_NOTE_ATTEMPT, (self.rows[key].id,))
            self.tx.execute("DELETE FROM litetq_result WHERE id = ?1", (self.rows[key].id,))
        self._forget_all()
        return len(ended)

    # -- what belongs together

    def _gather(self, starts: Iterable[Key]) -> None:
        """Read all that failed with these: before and behind them, and the other members of their chords."""
        pending = list(starts)
        while pending:
            key = pending.pop()
            if key in self.rows:
                continue
            found = self.tx.execute(_ROW, key).fetchall()
            if not found:
                continue
            row = _Row(*found[0])
            if key[1] and row.state in (None, states.SUCCESS):
                continue  # its result has expired, or belongs to another task that was sent under the same id
            if row.body is None:
                raise _missing(row.id)
            self.rows[key] = row
            pending += self._neighbours(key, row)

    def _neighbours(self, key: Key, row: _Row) -> list[Key]:
        seq, ended = key
        found = [
            (target, 0 if kind == Kind.ERRBACK else ended)
            for target, kind in self.tx.execute(
                "SELECT target, kind FROM litetq_past_link WHERE source = ?1 AND (ended = ?2 OR kind = 3)", key
            ).fetchall()
        ]
        found += [(source, ended) for source, _ in self._awaited(key)]
        # An errback that waits goes with those that it watches; one that was called, and failed, runs again alone.
        found += [(source, 1) for source in self._watched(key)]
        if row.join_id is not None:
            found += [
                (member, ended)
                for (member,) in self.tx.execute(
                    f"SELECT member FROM litetq_past_part WHERE member IS NOT NULL AND join_id IN ({_JOINS_BELOW})",
                    (json.dumps([row.join_id]),),
                ).fetchall()
            ]
        for (join_id,) in self.tx.execute("SELECT join_id FROM litetq_past_part WHERE member = ?1", (seq,)).fetchall():
            body = self._body_of(join_id)
            found += [] if body is None else [(body, ended)]
        return found

    def _awaited(self, key: Key) -> list[tuple[int, int]]:
        """Return whose success a task waits for: (source, kind)."""
        links: list[tuple[int, int]] = self.tx.execute(
            "SELECT source, kind FROM litetq_past_link WHERE target = ?1 AND ended = ?2 AND kind <> 3", key
        ).fetchall()
        return links

    def _watched(self, key: Key) -> list[int]:
        """Return whose failure an errback waits for."""
        if key[1]:
            return []
        sql = "SELECT DISTINCT source FROM litetq_past_link WHERE target = ?1 AND kind = 3"
        return [source for (source,) in self.tx.execute(sql, key[:1]).fetchall()]

    def _body_of(self, join_id: int) -> int | None:
        while True:
            rows = self.tx.execute("SELECT body, outer_join FROM litetq_past_join WHERE id = ?1", (join_id,)).fetchall()
            if not rows or rows[0][1] is None:
                return rows[0][0] if rows else None
            join_id = rows[0][1]

    # -- what still blocks

    def _blockers(self, key: Key) -> int:
        """Return how many links and joins a task will wait for; the errbacks' kind counts once."""
        row = self.rows[key]
        awaited = self._awaited(key)
        if any(self._source(source, key[1]) is None for source, _ in awaited):
            raise _missing(row.id)
        count = len(awaited) + bool(self._watched(key))
        if row.join_id is not None:
            count += self._missing_in(row.join_id, key) > 0
        return count

    def _source(self, seq: int, ended: int) -> int | None:
        """Return the task that a link will lead from, as it is called before it is written; None where it is gone."""
        if (seq, ended) in self.rows or (seq, 1) in self.rows or self._lives(seq):
            return seq
        return None

    def _missing_in(self, join_id: int, key: Key) -> int:
        """Count the members of a join that have not succeeded; all of them live, or run again."""
        ended = key[1]
        if not self.tx.execute("SELECT EXISTS (SELECT 1 FROM litetq_past_join WHERE id = ?1)", (join_id,)).get:
            raise _missing(self.rows[key].id)
        within = dict(
            self.tx.execute("SELECT outer_place, id FROM litetq_past_join WHERE outer_join = ?1", (join_id,)).fetchall()
        )
        open_ones = 0
        for place, member, filled in self.tx.execute(
            "SELECT place, member, filled FROM litetq_past_part WHERE join_id = ?1", (join_id,)
        ).fetchall():
            if place in within:
                open_ones += self._missing_in(within[place], key) > 0
            elif not filled:
                if (member, ended) not in self.rows and not self._lives(member):
                    raise _missing(self.rows[key].id)
                open_ones += 1
        self.remaining[join_id] = open_ones
        return open_ones

    def _lives(self, seq: int | None) -> bool:
        return bool(self.tx.execute("SELECT EXISTS (SELECT 1 FROM litetq_task WHERE seq = ?1)", (seq,)).get)

    # -- write

    def _write_task(self, key: Key, blockers: int, now: float) -> None:
        row = self.rows[key]
        due_at = row.due_at if row.due_at is not None and row.due_at > now else None
        expires_at = row.expires_at if row.expires_at is not None and row.expires_at > now else None
        state = 2 if blockers else 0 if due_at is None else 1
        # The old place in the order; for an errback, which may just run in its old row, a new one.
        seq = key[0] if key[1] else None
        self.tx.execute(
            _INSERT,
            (seq, row.id, row.name, state, row.lane, row.priority, row.body, row.content_type, row.attempts if key[1] else 0,
             due_at, expires_at, row.delay, row.lifetime, row.root_id, row.parent_id, row.headers, row.role,
             Linked.ROWS, blockers, row.input, row.input_type, None, now),
        )  # fmt: skip
        self.seqs[key] = self.tx.connection.last_insert_rowid() if seq is None else seq

    def _write_links(self, key: Key) -> None:
        """Link a task to those that it waits for: what runs again, or what has been alive all the time."""
        seq, ended = key
        for source, kind in self._awaited(key):
            before = self.seqs.get((source, ended)) or self.seqs.get((source, 1)) or source
            self._link(before, self.seqs[key], kind)
        for source in self._watched(key):
            # An errback that it watches may be there twice: it failed itself, and waits for another call.
            befores = [self.seqs[source, of] for of in (0, 1) if (source, of) in self.seqs]
            for before in befores or ([source] if self._lives(source) else []):
                self._link(before, self.seqs[key], Kind.ERRBACK)
        if ended:
            # An errback that was neither called nor dropped, because others that it watches are alive.
            for (target,) in self.tx.execute(
                "SELECT target FROM litetq_past_link WHERE source = ?1 AND ended = 1 AND kind = 3 AND EXISTS "
                "(SELECT 1 FROM litetq_task WHERE seq = target AND state = 2)",
                (seq,),
            ).fetchall():
                if (target, 0) not in self.seqs:
                    self._link(seq, target, Kind.ERRBACK)

    def _link(self, source: int, target: int, kind: int) -> None:
        self.tx.execute(
            "INSERT OR IGNORE INTO litetq_link (source, target, kind) VALUES (?1, ?2, ?3)", (source, target, kind)
        )

    def _write_join(self, key: Key, join_id: int, outer: tuple[int, int] | None = None) -> None:
        """Write the join of a body, and those within it, as it is now."""
        immutable = self.tx.execute("SELECT immutable FROM litetq_past_join WHERE id = ?1", (join_id,)).get
        parts = self.tx.execute(
            "SELECT place, member, filled, value, value_type FROM litetq_past_part WHERE join_id = ?1", (join_id,)
        ).fetchall()
        within = dict(
            self.tx.execute("SELECT outer_place, id FROM litetq_past_join WHERE outer_join = ?1", (join_id,)).fetchall()
        )
        body = self.seqs[key] if outer is None else None
        self.tx.execute(
            "INSERT INTO litetq_join (size, remaining, body, immutable, outer_join, outer_place) "
            "VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            (len(parts), self.remaining[join_id], body, immutable, *(outer or (None, None))),
        )
        new = self.tx.connection.last_insert_rowid()
        if body is not None:
            self.tx.execute("UPDATE litetq_task SET join_id = ?2 WHERE seq = ?1", (body, new))
        for place, member, filled, value, value_type in parts:
            if place in within:
                filled = int(not self.remaining[within[place]])
            elif not filled:
                member = self.seqs.get((member, key[1]), member)
            self.tx.execute(
                "INSERT INTO litetq_part (join_id, place, member, filled, value, value_type) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                (new, place, member, filled, value, value_type),
            )
        for place, inner in within.items():
            self._write_join(key, inner, (new, place))

    def _forget_all(self) -> None:
        self.tx.executemany("DELETE FROM litetq_past_task WHERE seq = ?1 AND ended = ?2", list(self.rows))
        self.tx.executemany(
            "DELETE FROM litetq_past_link WHERE source = ?1 OR target = ?1", [key[:1] for key in self.rows]
        )
        joins = [row.join_id for key, row in self.rows.items() if row.join_id is not None and not self._is_kept(key[0])]
        for join_id in self.tx.execute(_JOINS_BELOW, (json.dumps(joins),)).fetchall():
            self.tx.execute("DELETE FROM litetq_past_part WHERE join_id = ?1", join_id)
            self.tx.execute("DELETE FROM litetq_past_join WHERE id = ?1", join_id)

    def _is_kept(self, seq: int) -> bool:
        """Return whether a task is on record still: as it was at the other of the two times."""
        return bool(self.tx.execute("SELECT EXISTS (SELECT 1 FROM litetq_past_task WHERE seq = ?1)", (seq,)).get)


def _missing(id: str) -> NotOnRecord:
    return NotOnRecord(
        f"Task {id} cannot be run again: what it needs of its workflow has expired or was forgotten; send the workflow anew."
    )
