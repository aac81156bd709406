"""What hangs on tasks: successors, errbacks, chords. Resolved here in SQL alone, by any worker, without the program.

A task that others wait for is `linked`; those that wait are BLOCKED rows. When a task ends, `after_end` goes, in the same
transaction, through what hangs on it. A link is a row of `litetq_link`, or, where its target waits for nothing else, it lies
in the rows of both tasks (the source's `follower`, the target's `follows`); `litetq_any_link` shows both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from litetq import states
from litetq.database import Database, Transaction
from litetq.message import SELF, Hanging, Join, Kind, Linked, Plan, Role, Waiting
from litetq.records import Gone, Records

CUT_OFF: Final = "the task before it took it off"
_BY_ITSELF, _WITH_ANOTHER, _OF_CHORD = range(3)  # why a task ends: of a failure with another nobody is told


class End(NamedTuple):
    """How a task ends, as the workflow around it needs to know."""

    succeeded: bool
    value: bytes | None  # the encoded value or exception
    content_type: str | None


class Released(NamedTuple):
    """A task whose last blocker is about to be taken from it, and the value that it gets."""

    seq: int
    value: End | None  # None: of its predecessor it gets none


class Workflow:
    """The tables `litetq_link`, `litetq_join` and `litetq_part`, and the BLOCKED tasks."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.past = records.past

    def after_end(
        self,
        tx: Transaction,
        gone: Gone,
        end: End,
        now: float,
        why: int = _BY_ITSELF,
        released: list[Released] | None = None,
    ) -> None:
        """Release or fail what waited for a task; a failure runs on through all that waits behind it.

        With a list `released`, what a success releases is only put there: the caller sees to it, within the same transaction,
        that each of them is released or claimed. A loop over a work list, because a chain may have 10,000 steps.
        """
        work = [(gone, end, why)]
        while work:
            gone, end, why = work.pop()
            seq, id = gone.seq, gone.id
            if gone.follows is not None:
                tx.execute(_UNTIE, (gone.follows,))
            if gone.join_id is not None:
                self.drop_join(tx, gone.join_id, keep=not end.succeeded)
            if gone.follower is not None:
                if end.succeeded:
                    value = end if gone.follower_kind == Kind.VALUE else None
                    self._let_go(tx, Released(gone.follower, value), now, released)
                else:
                    work += self._fail(tx, gone.follower, end, now, _WITH_ANOTHER)
            if gone.linked != Linked.ROWS:
                continue
            is_missed, is_member = tx.execute(_HANGS_ON, (seq,)).fetchall()[0]
            if is_missed and end.succeeded:
                self.past.note_success(tx, seq, end.value, end.content_type)
            for target, kind in tx.execute("SELECT target, kind FROM litetq_link WHERE source = ?1", (seq,)).fetchall():
                if kind == Kind.ERRBACK:
                    if not end.succeeded and why != _WITH_ANOTHER:
                        self._release_errback(tx, target, id, now, of_chord=why == _OF_CHORD)
                    else:
                        self._drop_errback(tx, seq, target, now)
                elif end.succeeded:
                    self._let_go(tx, Released(target, end if kind == Kind.VALUE else None), now, released)
                else:
                    work += self._fail(tx, target, end, now, _WITH_ANOTHER)
            tx.execute("DELETE FROM litetq_link WHERE source = ?1", (seq,))
            if not is_member:
                continue
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
                self._join_advance(tx, join, now, released)

    def cut(self, tx: Transaction, source: int, ids: Sequence[str], now: float) -> None:
        """End tasks of these ids that wait for `source` as REVOKED, with all behind them; errbacks go without a record.

        Their own errbacks are not called: what `source` decided is no failure.
        """
        for target, kind in tx.execute(_WAITING_FOR, (source, json.dumps(list(ids)))).fetchall():
            if kind == Kind.ERRBACK:
                self._drop_errback(tx, source, target, now)
                continue
            error = exception_json("TaskRevokedError", CUT_OFF)
            row = self.records.ending(target, None, states.REVOKED, error, None, now, reason=CUT_OFF)
            gone = self.records.end(tx, row)
            if gone is not None:
                self.after_end(tx, gone, End(False, error, None), now, _WITH_ANOTHER)
            tx.execute("DELETE FROM litetq_link WHERE target = ?1", (target,))

    def unfold(self, tx: Transaction, seq: int) -> None:
        """Make a row of a link that lies in the rows of its tasks, so that it can be given to another source."""
        follower = tx.execute("SELECT follower FROM litetq_task WHERE seq = ?1", (seq,)).get
        if follower is not None:
            tx.execute(_UNFOLD, (seq,))
            tx.execute("UPDATE litetq_task SET follows = NULL WHERE seq = ?1", (follower,))
            tx.execute(_UNTIE, (seq,))

    def _let_go(self, tx: Transaction, one: Released, now: float, released: list[Released] | None) -> None:
        if released is None:
            self.release(tx, one, now)
        else:
            released.append(one)

    def release(self, tx: Transaction, one: Released, now: float) -> None:
        """Take one blocker from a waiting task; at none it becomes READY, or SCHEDULED when its due time is ahead."""
        if one.value is None:
            tx.execute(_RELEASE, (one.seq, now))
        else:
            tx.execute(_RELEASE_WITH_VALUE, (one.seq, now, *input_of(one.value)))

    def _release_errback(
        self, tx: Transaction, target: int, failed_id: str, now: float, *, of_chord: bool = False
    ) -> None:
        """Let an errback run, once; what failed is its input, and on record as the result of `failed_id`.

        When it was a member of a chord that failed, the errback of a body of several steps is told of the last one.
        """
        self._keep_errback(tx, target, now)
        if of_chord:
            failed_id = tx.execute(_TELLS_OF, (target,)).get or failed_id
        failure = json.dumps({"id": failed_id}).encode()
        tx.execute(
            "UPDATE litetq_task SET input = ?2, input_type = NULL, blockers = 1 WHERE seq = ?1 AND state = 2",
            (target, failure),
        )
        tx.execute("DELETE FROM litetq_link WHERE target = ?1", (target,))
        self.release(tx, Released(target, None), now)

    def _keep_errback(self, tx: Transaction, target: int, now: float) -> None:
        """Keep an errback that is about to be called or dropped: what it watches may run, and fail, again."""
        behind = tx.execute(_BEHIND, (target,)).fetchall()
        tasks, joins = [n for is_join, n in behind if not is_join], [n for is_join, n in behind if is_join]
        self.past.keep_errback(tx, tasks, joins, self.records.expiry(now, states.FAILURE))

    def _drop_errback(self, tx: Transaction, source: int, target: int, now: float) -> None:
        """Forget an errback, and what waits for it, once nothing that it watches can fail any more."""
        tx.execute("DELETE FROM litetq_link WHERE source = ?1 AND target = ?2", (source, target))
        if not self._is_waiting_for_any(tx, target):
            self._discard(tx, target, now)

    def _discard(self, tx: Transaction, target: int, now: float) -> None:
        """Forget an errback, and what waits for it, without a record: it was there for a case that did not come."""
        doomed = [target]
        while doomed:
            seq = doomed.pop()
            if self.past.is_watched_by(tx, seq):
                self._keep_errback(tx, seq, now)
            gone = tx.execute(
                "DELETE FROM litetq_task WHERE seq = ?1 AND state = 2 RETURNING join_id, follower", (seq,)
            ).fetchall()
            if not gone:  # it has been called meanwhile, and those behind it wait for it
                continue
            behind = tx.execute("SELECT target, kind FROM litetq_link WHERE source = ?1", (seq,)).fetchall()
            tx.execute("DELETE FROM litetq_link WHERE source = ?1", (seq,))
            tx.execute("DELETE FROM litetq_link WHERE target = ?1", (seq,))
            doomed += [
                target for target, kind in behind if kind != Kind.ERRBACK or not self._is_waiting_for_any(tx, target)
            ]
            for (join,) in tx.execute("SELECT join_id FROM litetq_part WHERE member = ?1", (seq,)).fetchall():
                body = self._body_of(tx, join)
                doomed += [] if body is None else [body]
            join_id, follower = gone[0]
            doomed += [] if follower is None else [follower]
            if join_id is not None:
                self.drop_join(tx, join_id)

    def _is_waiting_for_any(self, tx: Transaction, target: int) -> bool:
        return bool(tx.execute("SELECT EXISTS (SELECT 1 FROM litetq_link WHERE target = ?1)", (target,)).get)

    def _fail(self, tx: Transaction, target: int, end: End, now: float, why: int) -> list[tuple[Gone, End, int]]:
        """End a waiting task with the failure of the one it waited for; return the work this makes.

        An errback is forgotten instead: it would have been told of failures after a success.
        """
        if tx.execute("SELECT role FROM litetq_task WHERE seq = ?1", (target,)).get == Role.ERRBACK:
            self._discard(tx, target, now)
            return []
        reason = "a task that it waited for failed"
        gone = self.records.end(
            tx, self.records.ending(target, None, states.FAILURE, end.value, end.content_type, now, reason=reason)
        )
        tx.execute("DELETE FROM litetq_link WHERE target = ?1", (target,))
        return [] if gone is None else [(gone, end, why)]

    def _join_advance(self, tx: Transaction, join_id: int, now: float, released: list[Released] | None) -> None:
        remaining = tx.execute(
            "UPDATE litetq_join SET remaining = remaining - 1 WHERE id = ?1 RETURNING remaining", (join_id,)
        ).get
        if remaining == 0:
            self._join_complete(tx, join_id, now, released)

    def _join_complete(self, tx: Transaction, join_id: int, now: float, released: list[Released] | None = None) -> None:
        """All members have succeeded: release the body, or fill the place in the outer join."""
        while True:
            body, outer, place = tx.execute(
                "SELECT body, outer_join, outer_place FROM litetq_join WHERE id = ?1", (join_id,)
            ).fetchall()[0]
            if body is not None:
                self._let_go(tx, Released(body, None), now, released)
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
        return [] if body is None else self._fail(tx, body, error, now, _OF_CHORD)

    def _body_of(self, tx: Transaction, join_id: int) -> int | None:
        """Return the body that waits for a join, or for the outermost one around it."""
        while True:
            rows = tx.execute("SELECT body, outer_join FROM litetq_join WHERE id = ?1", (join_id,)).fetchall()
            if not rows or rows[0][1] is None:
                return rows[0][0] if rows else None
            join_id = rows[0][1]

    def drop_join(self, tx: Transaction, join_id: int, *, keep: bool = False) -> None:
        """Forget a join, its values and the nested joins below it; with `keep` they stay on record, for another try."""
        below = [join_id]
        while below:
            join = below.pop()
            below += [
                row[0] for row in tx.execute("SELECT id FROM litetq_join WHERE outer_join = ?1", (join,)).fetchall()
            ]
            if keep:
                self.past.keep_join(tx, join)
            tx.execute("DELETE FROM litetq_part WHERE join_id = ?1", (join,))
            tx.execute("DELETE FROM litetq_join WHERE id = ?1", (join,))

    def open_joins(self, tx: Transaction, joins: Sequence[Join]) -> list[int]:
        """Make a row for each join of a plan and return their ids; 0 for what only adds members to joins that are there."""
        ids = []
        for join in joins:
            if join.body == SELF:
                ids.append(0)
                continue
            tx.execute(
                "INSERT INTO litetq_join (size, remaining, immutable) VALUES (?1, ?1, ?2)",
                (len(join.members), int(join.immutable)),
            )
            ids.append(tx.connection.last_insert_rowid())
        return ids

    def fill_joins(
        self, tx: Transaction, joins: Sequence[Join], ids: list[int], seqs: list[int], now: float, self_seq: int | None
    ) -> None:
        """Write who belongs to which join; what has no members is complete at once."""
        for join, join_id in zip(joins, ids, strict=True):
            if join.body == SELF:
                self._extend_joins(tx, self_seq, [seqs[member] for member in join.members])
                continue
            if join.body is not None:
                tx.execute("UPDATE litetq_join SET body = ?1 WHERE id = ?2", (seqs[join.body], join_id))
            tx.executemany(
                "INSERT INTO litetq_part (join_id, place, member) VALUES (?1, ?2, ?3)",
                [(join_id, place, seqs[member] if member >= 0 else None) for place, member in enumerate(join.members)],
            )
            tx.executemany(
                "UPDATE litetq_join SET outer_join = ?1, outer_place = ?2 WHERE id = ?3",
                [(join_id, place, ids[-2 - member]) for place, member in enumerate(join.members) if member < 0],
            )
        for join, join_id in zip(joins, ids, strict=True):
            if not join.members:
                self._join_complete(tx, join_id, now)

    def _extend_joins(self, tx: Transaction, member: int | None, further: Sequence[int]) -> None:
        """Give the joins that a task belongs to further members, after those they have; gone ones stay gone."""
        for (join_id,) in tx.execute("SELECT join_id FROM litetq_part WHERE member = ?1", (member,)).fetchall():
            size = tx.execute(
                "UPDATE litetq_join SET size = size + ?2, remaining = remaining + ?2 WHERE id = ?1 RETURNING size",
                (join_id, len(further)),
            ).get
            first = size - len(further)
            tx.executemany(
                "INSERT INTO litetq_part (join_id, place, member) VALUES (?1, ?2, ?3)",
                [(join_id, place, seq) for place, seq in enumerate(further, first)],
            )

    def is_member(self, database: Database, seq: int) -> bool:
        """Return whether a chord waits for this task."""
        sql = "SELECT EXISTS (SELECT 1 FROM litetq_part WHERE member = ?1)"
        return bool(database.read(lambda tx: tx.execute(sql, (seq,)).get))

    def hanging(self, database: Database, seq: int) -> Hanging:
        """Read all that waits behind a task: links, chords, and what waits behind those."""
        return database.read(lambda tx: self._hanging(tx, seq))

    def _hanging(self, tx: Transaction, seq: int) -> Hanging:
        reached = tx.execute(_BEHIND, (seq,)).fetchall()
        tasks = json.dumps([n for is_join, n in reached if not is_join])
        joins = json.dumps([n for is_join, n in reached if is_join])
        links: dict[int, list[tuple[int, int]]] = {}
        for source, target, kind in tx.execute(
            "SELECT source, target, kind FROM litetq_any_link WHERE source IN (SELECT value FROM json_each(?1)) "
            "ORDER BY source, target, kind",
            (tasks,),
        ).fetchall():
            links.setdefault(source, []).append((target, kind))
        return Hanging(
            {row[0]: Waiting(*row) for row in tx.execute(_WAITING, (tasks,)).fetchall()},
            links,
            {
                row[0]: row[1:]
                for row in tx.execute(
                    "SELECT id, body, outer_join, size FROM litetq_join WHERE id IN (SELECT value FROM json_each(?1))",
                    (joins,),
                ).fetchall()
            },
            dict(
                tx.execute(
                    "SELECT member, join_id FROM litetq_part WHERE member IN (SELECT value FROM json_each(?1))",
                    (tasks,),
                ).fetchall()
            ),
        )

    def parts(self, tx: Transaction, join_id: int) -> list[Any] | None:
        """Return the values of a chord's members in their order, each (content type, bytes), or a list of such for a group.

        None where the body takes none (immutable).
        """
        if tx.execute("SELECT immutable FROM litetq_join WHERE id = ?1", (join_id,)).get:
            return None
        inner = dict(tx.execute("SELECT outer_place, id FROM litetq_join WHERE outer_join = ?1", (join_id,)).fetchall())
        parts: list[Any] = []
        for place, value, value_type in tx.execute(
            "SELECT place, value, value_type FROM litetq_part WHERE join_id = ?1 ORDER BY place", (join_id,)
        ).fetchall():
            parts.append(self.parts(tx, inner[place]) if place in inner else (value_type, value))
        return parts


_RELEASE: Final = """
    UPDATE litetq_task
    SET    blockers   = blockers - 1,
           due_at     = CASE WHEN blockers = 1 AND delay IS NOT NULL THEN ?2 + delay ELSE due_at END,
           expires_at = CASE WHEN blockers = 1 AND lifetime IS NOT NULL THEN ?2 + lifetime ELSE expires_at END,
           state      = CASE WHEN blockers > 1 THEN 2
                             WHEN coalesce(?2 + delay, due_at, 0) > ?2 THEN 1
                             ELSE 0 END,
           follows    = NULL
    WHERE  seq = ?1 AND state = 2
"""
# One statement instead of two gives 2 % more steps of a chain: 11.0k against 10.8k per second of CPU (one task a take, 2,000
# steps, median of 8 runs each in turn, on a busy machine of 2 cores).
_RELEASE_WITH_VALUE: Final = _RELEASE.replace("SET ", "SET    input = ?3, input_type = ?4,\n          ", 1)

# Whether what has ended before a task would have used its value, and whether a chord waits for it.
_HANGS_ON: Final = """
    SELECT EXISTS (SELECT 1 FROM litetq_past_link WHERE source = ?1)
           OR EXISTS (SELECT 1 FROM litetq_past_part WHERE member = ?1),
           EXISTS (SELECT 1 FROM litetq_part WHERE member = ?1)
"""

_WAITING_FOR: Final = """
    SELECT target, kind
    FROM   litetq_any_link
    WHERE  source = ?1
           AND target IN (SELECT seq FROM litetq_task WHERE id IN (SELECT value FROM json_each(?2)))
"""

_UNTIE: Final = f"UPDATE litetq_task SET follower = NULL, follower_kind = NULL, linked = {Linked.ROWS} WHERE seq = ?1"

_UNFOLD: Final = (
    "INSERT OR IGNORE INTO litetq_link (source, target, kind) "
    "SELECT seq, follower, follower_kind FROM litetq_task WHERE seq = ?1"
)

_TELLS_OF: Final = """
    SELECT CASE WHEN headers LIKE '%"tells_of":%' THEN json_extract(headers, '$.tells_of') END
    FROM   litetq_task
    WHERE  seq = ?1
"""

# From a task over links, and over joins to their bodies; an errback, too, is something that hangs on a task.
_BEHIND: Final = """
    WITH RECURSIVE behind(is_join, n) AS (
        VALUES (0, ?1)
        UNION SELECT 0, link.target FROM behind JOIN litetq_link AS link ON link.source = n WHERE NOT is_join
        UNION SELECT 0, follower FROM behind JOIN litetq_task ON seq = n WHERE NOT is_join AND follower IS NOT NULL
        UNION SELECT 1, part.join_id FROM behind JOIN litetq_part AS part ON part.member = n WHERE NOT is_join
        UNION SELECT 1, outer_join FROM behind JOIN litetq_join ON id = n WHERE is_join AND outer_join IS NOT NULL
        UNION SELECT 0, body FROM behind JOIN litetq_join ON id = n WHERE is_join AND body IS NOT NULL
    )
    SELECT is_join, n FROM behind
"""

_WAITING: Final = """
    SELECT seq, litetq_task.id, name, body, content_type, queue, priority, headers, delay, lifetime, role
    FROM   litetq_task
    JOIN   litetq_lane ON litetq_lane.id = lane
    WHERE  seq IN (SELECT value FROM json_each(?1))
"""


def input_of(value: End) -> tuple[bytes, str | None]:
    """Return what a successor gets of a value: its bytes and their content type."""
    return (b"null", None) if value.value is None else (value.value, value.content_type)


def exception_json(name: str, message: str, module: str = "litetq.exceptions") -> bytes:
    """Return an exception in the JSON form that `serialization.decode_exception` reads."""
    return json.dumps({"exc_type": name, "exc_message": [message], "exc_module": module}).encode()


def chord_error(id: str, end: End) -> End:
    """Return the ChordError that the body of a chord gets when member `id` failed; an inner one is passed on as it is."""
    cause = "an exception"
    if end.value is not None:  # whatever its type: serializers of programs' own are JSON, most of the time
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


def before(plan: Plan, place: int) -> set[int]:
    """Return the places of a plan whose failure fails `place` through links."""
    found: set[int] = set()
    work = [place]
    sources: dict[int, list[int]] = {}
    for source, target, kind in plan.links:
        if kind != Kind.ERRBACK and source >= 0:
            sources.setdefault(target, []).append(source)
    while work:
        further = set(sources.get(work.pop(), ())) - found
        found |= further
        work += further
    return found
