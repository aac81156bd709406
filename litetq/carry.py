"""Waiting tasks carried from one place to another: what `litetq migrate` does. Here are the loop, and files as either end of it.

What is carried is first *held* where it is (in a file: claimed, so that no worker begins it; at a broker: not acknowledged), then it
is sent to the other place under its old ids, one load after another, and when that has confirmed it, it is removed where it was. Killed in
between, what was held and not yet removed goes back to where it was. Of that, one load may have been sent already: it is in both
places then. Carried again, a file knows it by its ids and does not take it twice; a broker does not know ids.

A workflow that waits is one load: all of its tasks, with what waits for what. It stays where it is while one of its tasks runs, or
when a chord in it has values already.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from litetq import clock
from litetq.database import Transaction
from litetq.engine import FileEngine
from litetq.exceptions import LiteTQError, OperationalError
from litetq.message import Join, Link, Message, Plan, Role
from litetq.probes import reached
from litetq.wake import ALL, WORK

PAGE: Final = 500  # loads held at a time; arbitrary, some ten milliseconds, so that workers hardly wait
RUNNING: Final = "running, or belonging to what runs"
HALF_DONE: Final = "in workflows that have begun"


class Load(NamedTuple):
    """What is carried in one go: a task, or all tasks of a workflow."""

    plan: Plan
    ticket: Any = None  # by which its source knows it
    embed: Any = None  # of a message that came from a broker: what waits for its task; the plan is then that task alone

    @property
    def size(self) -> int:
        return len(self.plan.messages)


class Carried(NamedTuple):
    """A task that is in the other place now; it may have been there before."""

    id: str
    name: str
    queue: str  # in the other place


class Choice(NamedTuple):
    """Which tasks are carried.

    `names` of tasks, None: all. `queues`, each with its name in the other place, None: all, and their names stay.
    """

    names: frozenset[str] | None = None
    queues: Mapping[str, str] | None = None

    def takes(self, plan: Plan) -> bool:
        return all(
            (self.names is None or one.name in self.names) and (self.queues is None or one.queue in self.queues)
            for one in plan.messages
        )

    def renamed(self, plan: Plan) -> Plan:
        if self.queues is None:
            return plan
        messages = [one._replace(queue=self.queues.get(one.queue, one.queue)) for one in plan.messages]
        return plan._replace(messages=tuple(messages))


class Source(Protocol):
    """Where loads come from. `stays` says, by reason, how many tasks cannot be carried, as far as is known."""

    def take(self, count: int, choice: Choice) -> list[Load]:
        """Hold up to so many loads that were not looked at yet."""

    def done(self, load: Load) -> None:
        """Remove what is in the other place now."""

    def give_back(self, loads: Sequence[Load]) -> None: ...

    def stays(self) -> Mapping[str, int]: ...

    def waiting(self, choice: Choice) -> Mapping[str, int]:
        """Return how many tasks wait, by queue; nothing is held."""

    def close(self) -> None: ...


class Target(Protocol):
    """Where loads go."""

    def put(self, load: Load) -> None:
        """Have it there when this returns. Raises OperationalError, or LiteTQError where it cannot be there."""


class Carrier:
    """Carries from a source to a target.

    Args:
        removes: remove what is carried where it was; otherwise it is in both places afterwards, and runs in both.
    """

    def __init__(self, source: Source, target: Target, choice: Choice, *, removes: bool = False) -> None:
        self._source = source
        self._target = target
        self._choice = choice
        self._removes = removes
        self.refused: Counter[str] = Counter()  # why the target could not take tasks -> how many

    def carry(self, limit: int | None = None, is_over: Callable[[], bool] = lambda: False) -> Iterator[Carried]:
        """Carry what waits now and has not been looked at yet, `limit` loads at most; yield each task once it is there.

        It ends between two loads when `is_over` says so.
        """
        left = limit
        while (left is None or left > 0) and not is_over():
            loads = self._source.take(PAGE if left is None else min(PAGE, left), self._choice)
            if not loads:
                return
            left = None if left is None else left - len(loads)
            held = list(loads)
            try:
                while held and not is_over():
                    carried = self._move(held[0])
                    del held[0]
                    yield from carried
            finally:
                self._source.give_back(held)

    def _move(self, load: Load) -> list[Carried]:
        sent = load._replace(plan=self._choice.renamed(load.plan))
        try:
            self._target.put(sent)
        except OperationalError:
            raise
        except LiteTQError as error:
            self.refused[str(error)] += sent.size
            self._source.give_back([load])
            return []
        if self._removes:
            self._source.done(load)
        else:
            self._source.give_back([load])
        return [Carried(one.id, one.name, one.queue) for one in sent.plan.messages]


# -- files

_ROW: Final = """
    SELECT t.seq, t.state, t.role, t.input, t.input_type, t.join_id, t.id, t.name, t.body, t.content_type, l.queue,
           t.priority, t.due_at, t.expires_at, t.retries, t.root_id, t.parent_id, t.headers, t.delay, t.lifetime
    FROM   litetq_task AS t JOIN litetq_lane AS l ON l.id = t.lane
"""
_NEXT: Final = f"""{_ROW}
    WHERE  t.seq > ?1 AND t.state IN (0, 1)
           AND (?2 IS NULL OR t.name IN (SELECT value FROM json_each(?2)))
           AND (?3 IS NULL OR l.queue IN (SELECT value FROM json_each(?3)))
    ORDER  BY t.seq LIMIT ?4
"""
_KNOTTED: Final = """
    SELECT linked OR follows IS NOT NULL OR join_id IS NOT NULL
           OR EXISTS (SELECT 1 FROM litetq_link WHERE source = ?1 OR target = ?1)
           OR EXISTS (SELECT 1 FROM litetq_part WHERE member = ?1)
    FROM   litetq_task WHERE seq = ?1
"""
_DRAW: Final = "UPDATE litetq_counter SET value = value + ?1 WHERE name = 'claim' RETURNING value"
_HOLD: Final = "UPDATE litetq_task SET state = 3, claim = ?1, worker = ?2, attempts = attempts + 1 WHERE seq = ?3"
_AMONG: Final = "IN (SELECT value FROM json_each(?1))"


class _Knot(NamedTuple):
    """The rows of a workflow: all that is connected."""

    tasks: tuple[int, ...]
    joins: tuple[int, ...]


class _Ticket(NamedTuple):
    claims: tuple[tuple[int, int], ...]  # (claim number, seq) of what is held
    knot: _Knot | None


class FileSource:
    """A file whose tasks are carried away. It signs on as a worker does: what it holds comes back when it dies."""

    def __init__(self, engine: FileEngine, *, removes: bool) -> None:
        self._engine = engine
        self._after = 0  # seq of the last task that was looked at
        self._seen: set[int] = set()  # tasks of workflows that were looked at
        self._why: Counter[str] = Counter()
        self._seat = engine.seat("migrate", queues=frozenset(), info={"pool": "migrate"}) if removes else None
        if self._seat is not None:
            self._seat.rescue()  # what an earlier one held and died of

    def take(self, count: int, choice: Choice) -> list[Load]:
        names = None if choice.names is None else json.dumps(sorted(choice.names))
        queues = None if choice.queues is None else json.dumps(sorted(choice.queues))

        def operation(tx: Transaction) -> list[Load]:
            rows = tx.execute(_NEXT, (self._after, names, queues, count)).fetchall()
            loads: list[Load] = []
            for row in rows:
                self._after = row[0]
                load = self._load(tx, row, choice)
                if load is not None:
                    loads.append(load)
            return loads

        while True:
            before = self._after
            if self._seat is None:
                loads = self._engine.database.read(operation)
            else:
                self._seat.beat()
                loads = self._engine.database.write(operation)
                reached("held")
            if loads or self._after == before:
                return loads

    def _load(self, tx: Transaction, row: tuple[Any, ...], choice: Choice) -> Load | None:
        """Return what a row belongs to, held; None where it stays, or was looked at before."""
        seq = row[0]
        if seq in self._seen:
            return None
        knot = _knot_of(tx, seq) if tx.execute(_KNOTTED, (seq,)).get else None
        if knot is None:
            rows = [row]
        else:
            self._seen.update(knot.tasks)
            rows = tx.execute(f"{_ROW} WHERE t.seq {_AMONG} ORDER BY t.seq", (json.dumps(knot.tasks),)).fetchall()
        why = _why_not(tx, rows, knot)
        if why is not None:
            self._why[why] += len(rows)
            return None
        plan = _plan(tx, rows, knot)
        if not choice.takes(plan):
            return None
        claims: tuple[tuple[int, int], ...] = ()
        if self._seat is not None:
            startable = [(one[0],) for one in rows if one[1] in (0, 1)]
            last = tx.execute(_DRAW, (len(startable),)).get
            claims = tuple((last - number, seq) for number, (seq,) in enumerate(startable))
            tx.executemany(_HOLD, [(claim, self._seat.id, one) for claim, one in claims])
        return Load(plan, _Ticket(claims, knot))

    def done(self, load: Load) -> None:
        self._engine.database.write(lambda tx: _remove(tx, load.ticket))

    def give_back(self, loads: Sequence[Load]) -> None:
        if self._seat is None or not loads:
            return

        now = clock.now()

        def operation(tx: Transaction) -> None:
            for load in loads:
                for (claim, seq), one in zip(load.ticket.claims, _startable(load.plan), strict=True):
                    self._engine.store.give_back(tx, seq, claim, now, due_at=one.due_at, spent=False)

        self._engine.database.write(operation)
        self._engine.bell.ring(WORK, ALL)

    def stays(self) -> Mapping[str, int]:
        """Return what was left, by reason, and what others hold now."""
        sql = "SELECT count(*) FROM litetq_task WHERE state = 3 AND worker IS NOT ?1"
        own = None if self._seat is None else self._seat.id
        running = int(self._engine.database.read(lambda tx: tx.execute(sql, (own,)).get))
        found = Counter(self._why)
        found[RUNNING] = max(found[RUNNING], running)
        return +found

    def waiting(self, choice: Choice) -> Mapping[str, int]:
        sql = """
            SELECT l.queue, t.name, count(*) FROM litetq_task AS t JOIN litetq_lane AS l ON l.id = t.lane
            WHERE  t.state <> 3 GROUP BY 1, 2
        """
        found: Counter[str] = Counter()
        for queue, name, count in self._engine.database.read(lambda tx: tx.execute(sql).fetchall()):
            if choice.takes(Plan((Message("", name, b"", queue=queue),))):
                found[queue] += count
        return found

    def close(self) -> None:
        if self._seat is not None:
            self._seat.leave()


def _startable(plan: Plan) -> list[Message]:
    blocked = {link.target for link in plan.links} | {join.body for join in plan.joins if join.body is not None}
    return [one for place, one in enumerate(plan.messages) if place not in blocked]


def _knot_of(tx: Transaction, seq: int) -> _Knot:
    """Return all that hangs together with a task, in whichever direction."""
    tasks: set[int] = set()
    joins: set[int] = set()
    new_tasks, new_joins = {seq}, set[int]()
    while new_tasks or new_joins:
        tasks |= new_tasks
        joins |= new_joins
        some = (json.dumps(sorted(new_tasks)),)
        ends = (
            *tx.execute(f"SELECT target FROM litetq_any_link WHERE source {_AMONG}", some).fetchall(),
            *tx.execute(f"SELECT source FROM litetq_any_link WHERE target {_AMONG}", some).fetchall(),
        )
        of_tasks = (
            *tx.execute(f"SELECT join_id FROM litetq_part WHERE member {_AMONG}", some).fetchall(),
            *tx.execute(f"SELECT join_id FROM litetq_task WHERE seq {_AMONG} AND join_id IS NOT NULL", some).fetchall(),
        )
        some = (json.dumps(sorted(new_joins)),)
        within = (
            *tx.execute(
                f"SELECT member FROM litetq_part WHERE join_id {_AMONG} AND member IS NOT NULL", some
            ).fetchall(),
            *tx.execute(f"SELECT body FROM litetq_join WHERE id {_AMONG} AND body IS NOT NULL", some).fetchall(),
        )
        around = (
            *tx.execute(
                f"SELECT outer_join FROM litetq_join WHERE id {_AMONG} AND outer_join IS NOT NULL", some
            ).fetchall(),
            *tx.execute(f"SELECT id FROM litetq_join WHERE outer_join {_AMONG}", some).fetchall(),
        )
        new_tasks = {row[0] for row in (*ends, *within)} - tasks
        new_joins = {row[0] for row in (*of_tasks, *around)} - joins
    return _Knot(tuple(sorted(tasks)), tuple(sorted(joins)))


def _why_not(tx: Transaction, rows: Sequence[tuple[Any, ...]], knot: _Knot | None) -> str | None:
    """Return why a load must stay; None: it need not."""
    if any(row[1] == 3 for row in rows):
        return RUNNING
    if any(row[1] in (0, 1) and (row[2] == Role.ERRBACK or row[5] is not None) for row in rows):
        return HALF_DONE  # an errback that is to be told, a body whose values lie in its join
    if any(row[3] is not None and (row[4], row[9]) != (None, None) for row in rows):
        return HALF_DONE  # the value of the step before is no JSON: it is not read here
    if (
        knot is not None
        and tx.execute(
            f"SELECT EXISTS (SELECT 1 FROM litetq_part WHERE join_id {_AMONG} AND filled)", (json.dumps(knot.joins),)
        ).get
    ):
        return HALF_DONE
    return None


def _plan(tx: Transaction, rows: Sequence[tuple[Any, ...]], knot: _Knot | None) -> Plan:
    messages = tuple(_message(row) for row in rows)
    if knot is None:
        return Plan(messages)
    place = {row[0]: number for number, row in enumerate(rows)}
    tasks, joins = (json.dumps(knot.tasks),), (json.dumps(knot.joins),)
    links = tuple(
        Link(place[source], place[target], kind)
        for source, target, kind in tx.execute(
            f"SELECT source, target, kind FROM litetq_any_link WHERE source {_AMONG} ORDER BY source, target, kind",
            tasks,
        ).fetchall()
    )
    number_of = {join: number for number, join in enumerate(knot.joins)}
    members: dict[int, dict[int, int]] = {join: {} for join in knot.joins}
    for join, at, member in tx.execute(
        f"SELECT join_id, place, member FROM litetq_part WHERE join_id {_AMONG} AND member IS NOT NULL", joins
    ).fetchall():
        members[join][at] = place[member]
    found = tx.execute(
        f"SELECT id, body, immutable, outer_join, outer_place FROM litetq_join WHERE id {_AMONG}", joins
    ).fetchall()
    for join, _, _, outer, at in found:
        if outer is not None:
            members[outer][at] = -2 - number_of[join]
    return Plan(
        messages,
        links,
        tuple(
            Join(
                tuple(member for _, member in sorted(members[join].items())),
                None if body is None else place[body],
                bool(immutable),
            )
            for join, body, immutable, _, _ in sorted(found)
        ),
    )


def _message(row: tuple[Any, ...]) -> Message:
    """Return a row as a message; the value of the step before it becomes its first argument."""
    _, _, _, value, _, _, *fields = row
    message = Message(*fields)
    if value is None:
        return message
    args, kwargs = json.loads(message.body)
    return message._replace(body=json.dumps([[json.loads(value), *args], kwargs]).encode())


def _remove(tx: Transaction, ticket: _Ticket) -> None:
    """Remove a load from its file, if it is still held; else somebody took this process for dead, and runs it."""
    held = [
        seq
        for claim, seq in ticket.claims
        if tx.execute("SELECT 1 FROM litetq_task WHERE seq = ?1 AND claim = ?2", (seq, claim)).get
    ]
    if len(held) < len(ticket.claims):
        return
    if ticket.knot is None:
        tx.executemany("DELETE FROM litetq_task WHERE seq = ?1", [(seq,) for seq in held])
        return
    tasks, joins = (json.dumps(ticket.knot.tasks),), (json.dumps(ticket.knot.joins),)
    tx.execute(f"DELETE FROM litetq_task WHERE seq {_AMONG}", tasks)
    tx.execute(f"DELETE FROM litetq_link WHERE source {_AMONG}", tasks)
    tx.execute(f"DELETE FROM litetq_part WHERE join_id {_AMONG}", joins)
    tx.execute(f"DELETE FROM litetq_join WHERE id {_AMONG}", joins)


class FileTarget:
    """A file that tasks are carried to: what it knows by its id, waiting or ended, it does not take twice."""

    def __init__(self, engine: FileEngine) -> None:
        self._engine = engine

    def put(self, load: Load) -> None:
        # By what begins it, and has begun or may: behind a failed task that runs again, errbacks wait under ids they had before.
        if not self._knows_any([one.id for one in _startable(load.plan)]):
            self._engine.send(load.plan)

    def _knows_any(self, ids: Sequence[str]) -> bool:
        sql = """
            SELECT EXISTS (SELECT 1 FROM litetq_task WHERE id IN (SELECT value FROM json_each(?1)) AND state <> 2)
                OR EXISTS (SELECT 1 FROM litetq_result WHERE id IN (SELECT value FROM json_each(?1)))
        """
        wanted = json.dumps(ids)
        return bool(self._engine.database.read(lambda tx: tx.execute(sql, (wanted,)).get))
