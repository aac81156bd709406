"""The store alone: how fast tasks are claimed and settled, without anything that runs them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import OURS, Benchmark, Row, Sample, Scale
from litetq import states
from litetq.database import Database
from litetq.message import Delivery, Disposition, Message, Outcome, Plan, uuid
from litetq.store import Store

BATCHES = (1, 10, 100, 500)


@contextmanager
def new_store() -> Iterator[Store]:
    """Give a store on a new file, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="litetq-bench-") as folder:
        database = Database(Path(folder) / "jobs.sqlite")
        try:
            yield Store(database)
        finally:
            database.close()


def seat(store: Store) -> int:
    return store.roster.register("bench", uuid(), "boot", time.time())


def messages(count: int) -> Plan:
    return Plan(tuple(Message(uuid(), "noop", b"[[%d],{}]" % number) for number in range(count)))


def success(delivery: Delivery) -> Outcome:
    return Outcome(delivery.claim, delivery.seq, delivery.id, Disposition.COMPLETE, states.SUCCESS, b"1")


def work_through(store: Store, worker: int, count: int, batch: int) -> float:
    """Claim and settle `count` tasks, so many in one transaction as a worker does; return seconds."""
    outcomes: list[Outcome] = []
    done = 0
    began = time.perf_counter()
    while done < count:
        deliveries = store.take(worker, "bench", batch, outcomes, time.time()).deliveries
        if not deliveries:
            raise RuntimeError(f"only {done} of {count} tasks could be claimed")
        outcomes = [success(delivery) for delivery in deliveries]
        done += len(deliveries)
    store.take(worker, "bench", 0, outcomes, time.time())
    return time.perf_counter() - began


def sample(scale: Scale) -> Sample:
    found = {}
    for batch in BATCHES:
        count = scale.pick(20_000, 4_000) if batch > 1 else scale.pick(5_000, 2_000)
        with new_store() as store:
            store.send(messages(count), time.time())
            found[f"batch of {batch}"] = count / work_through(store, seat(store), count, batch)
    return found


CLAIM = Benchmark(
    "claim+settle",
    "store.take in one process, results of one byte; the outcomes of one batch and the claims of the next in one transaction",
    tuple(Row(f"batch of {batch}", "tasks/s") for batch in BATCHES),
    {OURS: sample},
)
