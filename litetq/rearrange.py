"""What a person does to tasks from outside: delete them, move them to another queue, let a queue rest, take a revoke back.

Each verb takes a batch of ids and is one transaction: all of the batch or nothing of it, whatever is killed. None touches a task
that a worker holds; how many those were is in the answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from litetq import clock, states
from litetq.database import Transaction
from litetq.engine import FileEngine
from litetq.wake import ALL, RESULT, WORK
from litetq.workflow import exception_json

BATCH = 500  # ids in one transaction; arbitrary, some milliseconds, so that workers hardly wait


class Deleted(NamedTuple):
    """What became of a batch that was to be deleted."""

    results: int  # ends that are no longer on record
    waiting: int  # tasks that will not run and are not on record
    ended: int  # tasks that others waited for: ended as REVOKED, which is on record until it expires
    running: int  # held by a worker, left alone


class Moved(NamedTuple):
    """What became of a batch that was to be moved."""

    moved: int
    running: int  # held by a worker, left alone


class Rearrange:
    """The verbs, for the file of one engine."""

    def __init__(self, engine: FileEngine) -> None:
        self.engine = engine
        self.store = engine.store

    def delete(self, ids: Sequence[str]) -> Deleted:
        """Remove finished tasks from the record, and waiting tasks as if they had never been sent.

        A waiting task that others wait for ends as REVOKED instead; for those others that is a failure as any other.
        """
        wanted = json.dumps(list(ids))
        now = clock.now()

        def operation(tx: Transaction) -> Deleted:
            among = "id IN (SELECT value FROM json_each(?1))"
            running = tx.execute(f"SELECT count(*) FROM litetq_task WHERE {among} AND state = 3", (wanted,)).get
            unfinished = f"SELECT id FROM litetq_task WHERE {among}"
            tx.execute(f"DELETE FROM litetq_attempt WHERE {among} AND id NOT IN ({unfinished})", (wanted,))
            tx.execute(f"DELETE FROM litetq_result WHERE {among} AND id NOT IN ({unfinished})", (wanted,))
            results = tx.connection.changes()
            plain = f"{among} AND state IN (0, 1) AND NOT linked AND join_id IS NULL"
            tx.execute(f"DELETE FROM litetq_task WHERE {plain}", (wanted,))
            waiting = tx.connection.changes()
            knotted = tx.execute(f"SELECT seq FROM litetq_task WHERE {among} AND state <> 3", (wanted,)).fetchall()
            return Deleted(results, waiting, sum(self._end(tx, seq, now) for (seq,) in knotted), running)

        deleted = self.store.database.write(operation)
        self.engine.bell.ring(RESULT)
        return deleted

    def _end(self, tx: Transaction, seq: int, now: float) -> bool:
        error = exception_json("TaskRevokedError", "deleted")
        ended = self.store.end(tx, seq, None, states.REVOKED, error, now, reason="deleted")
        tx.execute("DELETE FROM litetq_link WHERE target = ?1", (seq,))
        return ended

    def move(self, ids: Sequence[str], queue: str) -> Moved:
        """Put what waits into another queue; it keeps its priority and its place by the time it was sent."""
        wanted = json.dumps(list(ids))

        def operation(tx: Transaction) -> Moved:
            among = "id IN (SELECT value FROM json_each(?1))"
            running = tx.execute(f"SELECT count(*) FROM litetq_task WHERE {among} AND state = 3", (wanted,)).get
            rows = tx.execute(
                f"SELECT seq, name, lane FROM litetq_task WHERE {among} AND state <> 3", (wanted,)
            ).fetchall()
            lanes = {name: self.store.lanes.id_for(tx, queue, name) for name in {name for _, name, _ in rows}}
            moves = [(lanes[name], seq) for seq, name, lane in rows if lane != lanes[name]]
            tx.executemany("UPDATE litetq_task SET lane = ?1 WHERE seq = ?2", moves)
            return Moved(len(moves), running)

        moved = self.store.database.write(operation)
        self.store.lanes.remember({queue})
        self.engine.bell.ring(WORK, ALL)
        return moved

    def unrevoke(self, ids: Sequence[str]) -> int:
        """Forget that these ids are revoked, where they have not ended by it; return how many were."""
        wanted = json.dumps(list(ids))

        def operation(tx: Transaction) -> int:
            among = "id IN (SELECT value FROM json_each(?1))"
            tx.execute(f"DELETE FROM litetq_revoked WHERE {among}", (wanted,))
            count = tx.connection.changes()
            tx.execute(f"UPDATE litetq_task SET revoked = NULL WHERE {among} AND revoked IS NOT NULL", (wanted,))
            return count + tx.connection.changes()

        return self.store.database.write(operation)

    def pause(self, queue: str) -> bool:
        """Let nobody claim from a queue until it is resumed; it is on record, so it holds for workers to come, too.

        What has been claimed runs on. A queue that nobody has used yet may be paused. Return False where it was paused.
        """
        return self._set_paused(queue, True)

    def resume(self, queue: str) -> bool:
        """Let workers claim from a queue again, and wake them. Return False where it was not paused."""
        changed = self._set_paused(queue, False)
        self.engine.bell.ring(WORK, ALL)
        return changed

    def _set_paused(self, queue: str, paused: bool) -> bool:
        def operation(tx: Transaction) -> bool:
            if paused:
                self.store.lanes.id_of(tx, queue)
            tx.execute("UPDATE litetq_lane SET paused = ?2 WHERE queue = ?1 AND paused <> ?2", (queue, int(paused)))
            return bool(tx.connection.changes())

        return self.store.database.write(operation)
