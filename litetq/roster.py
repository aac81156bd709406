"""The roster: which workers are signed on, and what becomes of the claims of one that is gone."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from litetq import states
from litetq.database import Database, Transaction
from litetq.message import Disposition, Outcome
from litetq.workflow import exception_json

if TYPE_CHECKING:
    from litetq.store import Store


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


class Roster:
    """The table `litetq_worker`. Whoever is on it is alive, or not yet rescued."""

    def __init__(self, database: Database, store: Store) -> None:
        self.database = database
        self.store = store

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
        """Add a worker; return its id, which no worker of this file had or will have. Its queues have their lanes then."""
        names = None if queues is None else sorted(queues)

        def operation(tx: Transaction) -> int:
            self._open_lanes(tx, names or ())
            tx.execute(
                "INSERT INTO litetq_worker (name, run, boot, pid, queues, info, started_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                (
                    name,
                    run,
                    boot,
                    os.getpid(),
                    None if names is None else json.dumps(names),
                    json.dumps(info or {}),
                    now,
                ),
            )
            return tx.connection.last_insert_rowid()

        worker = self.database.write(operation)
        self.store.lanes.remember(set(names or ()))
        return worker

    def _open_lanes(self, tx: Transaction, queues: Iterable[str]) -> None:
        """Have a lane for each queue that a worker serves: the bell knows sleepers by lanes, and would ring in vain for others."""
        for queue in queues:
            self.store.lanes.id_of(tx, queue)

    def set_late(self, worker: int, names: Iterable[str]) -> None:
        """Record which tasks this worker acknowledges late: a rescuer must know, and may not have the program."""
        late = json.dumps(sorted(names))
        self.database.write(
            lambda tx: tx.execute("UPDATE litetq_worker SET late = ?2 WHERE id = ?1", (worker, late)).fetchall()
        )

    def set_queues(self, worker: int, queues: Iterable[str]) -> None:
        """Record which queues this worker serves from now on; they have their lanes then."""
        names = sorted(queues)

        def operation(tx: Transaction) -> None:
            self._open_lanes(tx, names)
            tx.execute("UPDATE litetq_worker SET queues = ?2 WHERE id = ?1", (worker, json.dumps(names)))

        self.database.write(operation)
        self.store.lanes.remember(set(names))

    def set_info(self, worker: int, info: Mapping[str, Any]) -> None:
        """Record what this worker is."""
        text = json.dumps(info)
        self.database.write(
            lambda tx: tx.execute("UPDATE litetq_worker SET info = ?2 WHERE id = ?1", (worker, text)).fetchall()
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

    def rescue(self, worker: int, begun: Container[int] | None, now: float) -> Rescued | None:
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
            for seq, claim, id, task, due_at in tx.execute(
                "SELECT seq, claim, id, name, due_at FROM litetq_task WHERE state = 3 AND worker = ?1 ORDER BY seq",
                (worker,),
            ).fetchall():
                if begun is not None and claim not in begun:
                    # What `carry.py` holds may be due later.
                    self.store.give_back(tx, seq, claim, now, due_at=due_at, spent=False)
                    rescued.released.append(id)
                    continue
                error = exception_json("WorkerLostError", f"Worker {name} was lost while the task ran")
                if task in late:
                    lost = Outcome(claim, seq, id, Disposition.REQUEUE, states.RETRY, error)
                    self.store.records.note_attempt(tx, lost, "LOST", name, now)
                    (rescued.redelivered if self.store.redeliver(tx, seq, claim, now) else rescued.dead).append(id)
                else:
                    self.store.end(
                        tx, seq, claim, states.FAILURE, error, now, reason="its worker was lost", worker=name
                    )
                    rescued.failed.append(id)
            return rescued

        return self.database.write(operation)

    def leave(self, worker: int, now: float) -> int:
        """Remove a worker that stops in order; what it still holds was never begun and goes back. Return how much."""

        def operation(tx: Transaction) -> int:
            held = tx.execute(
                "SELECT seq, claim, due_at FROM litetq_task WHERE state = 3 AND worker = ?1", (worker,)
            ).fetchall()
            for seq, claim, due_at in held:
                self.store.give_back(tx, seq, claim, now, due_at=due_at, spent=False)
            tx.execute("DELETE FROM litetq_worker WHERE id = ?1", (worker,))
            return len(held)

        return self.database.write(operation)
