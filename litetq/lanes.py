"""Lanes: a queue, or the part of a queue that shares a limit. A claim reads the first tasks of each open lane.

The limit of a task ("10/s") is a row with no queue, under the key `rate:<name of the task>`; each queue that has got such a task
has a lane with the same key, and all of them open and close together. Starts are evenly spaced, counted in the file by all
workers, or by one worker for itself (`OwnPace`).
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from litetq.database import Database, Transaction

RATE: Final = "rate:"  # and the name of a task: the key of its lanes
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}

# How far behind its time a lane may be and still catch up, so that a worker that wakes late does not slow the rate: half an
# interval, at most 0.1 s, at least 20 ms, which is how late a busy machine wakes a thread (measured, 2 cores).
_LATE_MOST_S: Final = 0.1
_LATE_LEAST_S: Final = 0.02

# No start closes a lane for longer than its interval: one that is closed for longer was closed before the clock was put back.
_CLOCK_SLACK_S: Final = 1.0  # arbitrary


def interval_of(rate: Any) -> float | None:
    """Return the seconds between two starts that a rate limit means; None: no limit.

    A rate is "10/s", "10/m", "10/h", or a number (or its text) of tasks a second; None, 0 and "" are no limit.
    Raises ValueError for anything else.
    """
    if rate is None or rate == "":
        return None
    number, _, unit = rate.partition("/") if isinstance(rate, str) else (rate, "", "")
    try:
        count = float(number)
        seconds = _SECONDS[unit.strip() or "s"]
    except (TypeError, ValueError, KeyError):
        count, seconds = math.nan, 0.0
    if not 0 <= count < math.inf or isinstance(number, bool):
        raise ValueError(f'a rate limit is like "10/s", "10/m", "10/h" or a number of tasks a second, found {rate!r}')
    return seconds / count if count else None


class Lane(NamedTuple):
    """A lane that is not paused, as a claim sees it."""

    id: int
    queue: str
    key: str  # '': the queue's own; else what all lanes with this key have in common is a limit
    open_at: float  # UTC seconds: closed until then
    interval: float | None  # seconds between two starts; None: no limit
    max_running: int | None  # claimed at once; None: no limit

    @property
    def is_limited(self) -> bool:
        return self.interval is not None or self.max_running is not None


class OwnPace:
    """The rate limits as one worker keeps them by itself, whatever the others start; `limited=False`: it keeps none."""

    def __init__(self, *, limited: bool = True) -> None:
        self.limited = limited
        self.opens: dict[str, float] = {}  # key -> when its lanes open for this worker, UTC seconds

    def seen(self, lane: Lane) -> Lane:
        """Return a lane as this worker sees it."""
        if lane.interval is None:
            return lane
        if not self.limited:
            return lane._replace(interval=None, open_at=0.0)
        return lane._replace(open_at=self.opens.get(lane.key, 0.0))


class Lanes:
    """The table `litetq_lane`. Lanes are never deleted, so ids may be remembered; only committed ones ever are."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._ids: dict[str, int] = {}  # queue -> id of its own lane
        self._queues: dict[int, str] = {}
        self._opening = 0  # of the file at which they were read: another may find another file there

    def known(self, queue: str) -> int | None:
        """Return the id of a queue's lane as far as this process has met it."""
        return self._ids.get(queue)

    def id_of(self, tx: Transaction, queue: str) -> int:
        """Return the id of a queue's own lane, made when new."""
        # Only committed lanes are remembered: one that was rolled back must not be used.
        lane = self._ids.get(queue) if self._opening == self.database.opened else None
        if lane is None:
            lane = tx.execute("SELECT id FROM litetq_lane WHERE queue = ?1 AND key = ''", (queue,)).get
            if lane is None:
                tx.execute("INSERT INTO litetq_lane (queue) VALUES (?1)", (queue,))
                lane = tx.connection.last_insert_rowid()
        return int(lane)

    def id_for(self, tx: Transaction, queue: str, task: str) -> int:
        """Return the id of the lane that a task of this name takes in a queue: its own where it has a limit."""
        lane = self.id_of(tx, queue)
        # Asked each time, 1 us: another process may have set a limit a moment ago.
        return self._limited_lane(tx, queue, RATE + task) if self._is_limited(tx, RATE + task) else lane

    def _is_limited(self, tx: Transaction, key: str) -> bool:
        sql = "SELECT coalesce(interval, max_running) FROM litetq_lane WHERE queue = '' AND key = ?1"
        return tx.execute(sql, (key,)).get is not None

    def _limited_lane(self, tx: Transaction, queue: str, key: str) -> int:
        lane = tx.execute("SELECT id FROM litetq_lane WHERE queue = ?1 AND key = ?2", (queue, key)).get
        if lane is None:
            tx.execute(
                "INSERT INTO litetq_lane (queue, key, open_at, interval, max_running, paused) "
                "SELECT ?1, key, open_at, interval, max_running, EXISTS "
                "(SELECT 1 FROM litetq_lane WHERE queue = ?1 AND key = '' AND paused) "
                "FROM litetq_lane WHERE queue = '' AND key = ?2",
                (queue, key),
            )
            lane = tx.connection.last_insert_rowid()
        return int(lane)

    def remember(self, queues: set[str]) -> None:
        """Read the lanes again unless all of these are known. Call it after a commit."""
        if self._opening != self.database.opened or not queues <= self._ids.keys():
            self._read()

    def queues_of(self, ids: set[int]) -> dict[int, str]:
        """Return the queues by id of lane; all of `ids` are among them."""
        if self._opening != self.database.opened or not ids <= self._queues.keys():
            self._read()
        return self._queues

    def _read(self) -> None:
        rows = self.database.read(lambda tx: tx.execute("SELECT id, queue, key FROM litetq_lane").fetchall())
        self._opening = self.database.opened
        self._queues = {id: queue for id, queue, _ in rows}
        self._ids = {queue: id for id, queue, key in rows if key == ""}

    # -- claim

    def served(self, tx: Transaction, queues: frozenset[str] | None, pace: OwnPace | None = None) -> list[Lane]:
        """Return the lanes of these queues (None: all) that are not paused, as a worker with this pace sees them."""
        lanes = [Lane._make(row) for row in tx.execute(_LANES) if queues is None or row[1] in queues]
        return lanes if pace is None else [pace.seen(lane) for lane in lanes]

    def places(self, tx: Transaction, lane: Lane, free: int, now: float) -> int:
        """Return how many tasks of a lane may be started now."""
        if lane.interval is not None:
            free = min(free, 1 + int(_behind(lane.open_at, lane.interval, now) / lane.interval))
        if lane.max_running is not None:
            lanes = "(SELECT id FROM litetq_lane WHERE key = ?1)" if lane.key else "(?1)"
            running = tx.execute(
                f"SELECT count(*) FROM litetq_task WHERE state = 3 AND lane IN {lanes}", (lane.key or lane.id,)
            ).get
            free = max(0, min(free, lane.max_running - running))
        return free

    def started(
        self,
        tx: Transaction,
        limited: Iterable[Lane],
        counts: Mapping[int, int],
        now: float,
        pace: OwnPace | None = None,
    ) -> None:
        """Close lanes with a rate limit until the next start after these; `counts` says how many began, by id of lane."""
        opens: dict[str, float] = {}
        for lane in limited:
            if lane.interval is not None and counts.get(lane.id):
                begun = opens.get(lane.key, now - _behind(lane.open_at, lane.interval, now))
                opens[lane.key] = begun + lane.interval * counts[lane.id]
        if pace is not None:
            pace.opens.update(opens)
        else:
            tx.executemany(
                "UPDATE litetq_lane SET open_at = ?1 WHERE key = ?2", [(at, key) for key, at in opens.items()]
            )

    def next_opening(self, tx: Transaction, lanes: Iterable[Lane], now: float) -> float | None:
        """Return when the first of these lanes that are closed opens in which something waits."""
        opens = [lane.open_at for lane in lanes if is_closed(lane, now) and tx.execute(IS_READY, (lane.id,)).get]
        return min(opens, default=None)

    # -- limits

    def limits(self) -> dict[str, float]:
        """Return the tasks that have a rate limit, each with the seconds between two starts."""
        rows = self.database.read(
            lambda tx: tx.execute(
                "SELECT key, interval FROM litetq_lane WHERE queue = '' AND interval IS NOT NULL"
            ).fetchall()
        )
        return {key.removeprefix(RATE): interval for key, interval in rows}

    def set_limits(self, intervals: Mapping[str, float | None], now: float) -> None:
        """Give tasks a rate limit, by name, or take it away (None). It counts from the next start on, also for what waits.

        The first limit of a task costs a look through all that waits.
        """

        def operation(tx: Transaction) -> None:
            for name, interval in intervals.items():
                self._set_limit(tx, RATE + name, name, interval, now)

        self.database.write(operation)

    def set_max_running(self, counts: Mapping[str, int | None]) -> None:
        """Let at most so many of a task run at once, by name, in all workers together; None: any number."""

        def operation(tx: Transaction) -> None:
            for name, count in counts.items():
                key = RATE + name
                was_limited = self._is_limited(tx, key)
                if count is not None:
                    tx.execute("INSERT OR IGNORE INTO litetq_lane (queue, key) VALUES ('', ?1)", (key,))
                tx.execute("UPDATE litetq_lane SET max_running = ?2 WHERE key = ?1", (key, count))
                if count is not None and not was_limited:
                    self._move(tx, key, name)

        self.database.write(operation)

    def _set_limit(self, tx: Transaction, key: str, name: str, interval: float | None, now: float) -> None:
        was_limited = self._is_limited(tx, key)
        if interval is None:
            # What waits in these lanes stays there: lanes like any other now.
            tx.execute("UPDATE litetq_lane SET interval = NULL, open_at = 0 WHERE key = ?1", (key,))
            return
        tx.execute("INSERT OR IGNORE INTO litetq_lane (queue, key) VALUES ('', ?1)", (key,))
        tx.execute(
            "UPDATE litetq_lane SET interval = ?2, open_at = min(open_at, ?3) WHERE key = ?1",
            (key, interval, now + interval),
        )
        if not was_limited:
            self._move(tx, key, name)

    def _move(self, tx: Transaction, key: str, name: str) -> None:
        """Take what is enqueued under a name into the lanes with this key, from those of the queues themselves."""
        for lane, queue in tx.execute(
            "SELECT id, queue FROM litetq_lane WHERE key = '' "
            "AND id IN (SELECT DISTINCT lane FROM litetq_task WHERE name = ?1)",
            (name,),
        ).fetchall():
            tx.execute(
                "UPDATE litetq_task SET lane = ?1 WHERE lane = ?2 AND name = ?3",
                (self._limited_lane(tx, queue, key), lane, name),
            )


# Here and not in the store, which asks it, too: whether anything of a lane may start now.
IS_READY: Final = "SELECT EXISTS (SELECT 1 FROM litetq_task WHERE state = 0 AND lane = ?1)"

_LANES: Final = (
    "SELECT id, queue, key, open_at, interval, max_running FROM litetq_lane WHERE paused = 0 AND queue <> ''"
)


# Each priority present in a lane, the highest first: one step down the ready index for each, whatever waits.
_PRIORITIES: Final = """
    WITH RECURSIVE present (priority) AS (
        SELECT max(priority) FROM litetq_task WHERE state = 0 AND lane = ?1
        UNION ALL
        SELECT (SELECT max(priority) FROM litetq_task WHERE state = 0 AND lane = ?1 AND priority < present.priority)
        FROM   present
        WHERE  present.priority IS NOT NULL
    )
    SELECT priority FROM present WHERE priority IS NOT NULL
"""

# It waits since it was enqueued, or since it was due if that was later (a countdown, a retry).
_WAITING: Final = """
    SELECT seq, max(enqueued_at, coalesce(due_at, enqueued_at))
    FROM   litetq_task
    WHERE  state = 0 AND lane = ?1 AND priority = ?2 AND seq > ?3
    ORDER  BY seq
    LIMIT  ?4
"""


def first_by_age(tx: Transaction, lane: int, count: int, now: float, step: float) -> list[tuple[int, int, int]]:
    """Return the first READY tasks of a lane as (negative risen priority, seq, lane), in the order in which they start.

    A task counts as one priority higher for each full `step` seconds that it has waited, without an upper bound; so whatever
    comes later at any priority, it is passed by only for a bounded time. Tasks that were given the same priority start in
    commit order. Only the head of each priority is looked at, so this costs a few reads per priority that is present (256 at
    the most) and not more when a million wait.
    """
    if not count:
        return []
    priorities = [row[0] for row in tx.execute(_PRIORITIES, (lane,)).fetchall()]
    streams = [_rising(tx, lane, priority, now, step) for priority in priorities]
    return list(itertools.islice(heapq.merge(*streams), count))


def _rising(tx: Transaction, lane: int, priority: int, now: float, step: float) -> Iterator[tuple[int, int, int]]:
    """Yield the tasks of one priority in commit order, each with what it has risen to; read in pages, a short one first."""
    last, page = 0, 1
    while rows := tx.execute(_WAITING, (lane, priority, last, page)).fetchall():
        for seq, since in rows:
            yield -priority - max(0, int((now - since) // step)), seq, lane
        last, page = rows[-1][0], page * 2


def within_limits(
    picked: Sequence[tuple[int, int, int]], lanes: Iterable[Lane], places: Mapping[int, int]
) -> list[tuple[int, int, int]]:
    """Return those of the first tasks (priority, seq, lane) that may start, where queues have a limit in common."""
    key_of = {lane.id: lane.key for lane in lanes if lane.key and (lane.interval or lane.max_running)}
    if len(set(key_of.values())) == len(key_of):
        return list(picked)
    left = {key: max(places[lane] for lane, other in key_of.items() if other == key) for key in key_of.values()}
    kept = []
    for task in picked:
        key = key_of.get(task[2])
        if key is not None:
            if not left[key]:
                continue
            left[key] -= 1
        kept.append(task)
    return kept


def is_closed(lane: Lane, now: float) -> bool:
    """Return whether no task of a lane may start yet, because of those that did a moment ago."""
    return now < lane.open_at and (lane.interval is None or lane.open_at <= now + lane.interval + _CLOCK_SLACK_S)


def _behind(open_at: float, interval: float, now: float) -> float:
    """Return how many seconds a lane is behind its time that it may catch up; one that was idle is not behind."""
    behind = max(0.0, now - open_at)
    most = max(min(interval / 2, _LATE_MOST_S), _LATE_LEAST_S)
    return behind if behind <= most else most if interval <= most else 0.0
