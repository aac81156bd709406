"""Lanes: a queue, or the part of a queue that shares a limit. A claim reads the first tasks of each open lane."""

from __future__ import annotations

from typing import NamedTuple

from litetq.database import Database, Transaction


class Lane(NamedTuple):
    """An open lane, as a claim sees it."""

    id: int
    queue: str
    interval: float | None  # seconds between two starts; None: no limit
    max_running: int | None  # claimed at once; None: no limit


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

    def open_ones(self, tx: Transaction, now: float, queues: frozenset[str] | None) -> list[Lane]:
        """Return the lanes of these queues (None: all) from which tasks may start now."""
        return [
            Lane(id, queue, interval, limit)
            for id, queue, interval, limit in tx.execute(
                "SELECT id, queue, interval, max_running FROM litetq_lane WHERE paused = 0 AND open_at <= ?1", (now,)
            )
            if queues is None or queue in queues
        ]

    def places(self, tx: Transaction, lane: Lane, free: int) -> int:
        """Return how many tasks of a lane may be started now."""
        if lane.interval is not None:
            free = 1
        if lane.max_running is not None:
            running = tx.execute("SELECT count(*) FROM litetq_task WHERE state = 3 AND lane = ?1", (lane.id,)).get
            free = max(0, min(free, lane.max_running - running))
        return free

    def started(self, tx: Transaction, lane: Lane, now: float) -> None:
        """Close a lane with a rate limit until its next start."""
        tx.execute("UPDATE litetq_lane SET open_at = max(open_at, ?1) + interval WHERE id = ?2", (now, lane.id))

    def next_opening(self, tx: Transaction, now: float) -> float | None:
        """Return when a closed lane in which something waits opens."""
        opens: float | None = tx.execute(
            "SELECT min(open_at) FROM litetq_lane WHERE open_at > ?1 AND paused = 0 "
            "AND EXISTS (SELECT 1 FROM litetq_task WHERE state = 0 AND lane = litetq_lane.id)",
            (now,),
        ).get
        return opens
