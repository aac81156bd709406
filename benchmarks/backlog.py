"""Whether a long queue, or a long history, slows down the claim of the next task."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.claims import new_store, seat, work_through
from benchmarks.figures import OURS, Benchmark, Row, Sample, Scale, at_least, say
from litetq.database import Transaction
from litetq.message import Message, Plan, uuid
from litetq.store import Store

BATCH = 100
PIECE = 20_000  # messages in one transaction while filling
TURNS = 6  # measurements on the long file and the short one, in turn


def fill(store: Store, count: int, future: int) -> None:
    """Enqueue `count` tasks in two queues with three priorities, and `future` ones that are due in a day."""
    due_at = time.time() + 86_400
    for kind, many in (("waiting", count), ("future", future)):
        for start in range(0, many, PIECE):
            numbers = range(start, min(start + PIECE, many))
            plan = Plan(
                tuple(
                    Message(
                        uuid(), "noop", b"[[1],{}]", queue=("celery", "mail")[number % 2], priority=number % 3,
                        due_at=due_at + number if kind == "future" else None,
                    )
                    for number in numbers
                )
            )  # fmt: skip
            store.send(plan, time.time())


def finish(store: Store, count: int) -> None:
    """Write `count` finished tasks as settle would have left them, by SQL: running them would take minutes."""
    now = time.time()
    for start in range(0, count, PIECE):
        rows = [(uuid(), now, now + 86_400) for _ in range(min(PIECE, count - start))]

        def insert(tx: Transaction, rows: list[tuple[str, float, float]] = rows) -> None:
            tx.executemany(
                "INSERT INTO litetq_result (id, state, result, done_at, expires_at, name, lane, worker, attempts, claim, body) "
                "VALUES (?1, 'SUCCESS', x'31', ?2, ?3, 'noop', 1, 'bench', 1, 1, x'5B5B315D2C7B7D5D')",
                rows,
            )

        store.database.write(insert)


def compare(count: int, long: Callable[[Store], None]) -> Sample:
    """Claim and settle `count` tasks in turn on a file made long and on one that holds only these."""
    with new_store() as filled:
        began = time.perf_counter()
        long(filled)
        say(f"    filled in {time.perf_counter() - began:.0f} s")
        filled_seat = seat(filled)
        work_through(filled, filled_seat, count, BATCH)  # both warm
        rates: dict[str, list[float]] = {"long": [], "short": []}
        for _ in range(TURNS):
            rates["long"].append(count / work_through(filled, filled_seat, count, BATCH))
            with new_store() as short:
                fill(short, count, 0)
                rates["short"].append(count / work_through(short, seat(short), count, BATCH))
    best = {name: max(values) for name, values in rates.items()}
    return {"long file": best["long"], "short file": best["short"], "long / short": best["long"] / best["short"]}


def waiting(scale: Scale) -> Sample:
    backlog = scale.pick(1_000_000, 200_000)
    return compare(scale.pick(20_000, 5_000), lambda store: fill(store, backlog, backlog // 10))


def finished(scale: Scale) -> Sample:
    def long(store: Store) -> None:
        fill(store, 200_000, 0)
        finish(store, 5_000_000)

    return compare(20_000, long)


def _benchmark(name: str, what: str, side: Callable[[Scale], Sample]) -> Benchmark:
    return Benchmark(
        name,
        f"{what}; claim+settle in batches of {BATCH}, two queues, priorities 0 to 2; best of {TURNS} turns on each, in turn",
        (Row("long file", "tasks/s"), Row("short file", "tasks/s"), Row("long / short", "ratio", at_least(0.9))),
        {OURS: side},
        repeats=1,
    )


BACKLOG = _benchmark(
    "backlog", "1,000,000 tasks waiting and 100,000 due in a day (--quick: a fifth) against only those claimed", waiting
)
HISTORY = _benchmark("history", "5,000,000 finished tasks against none (only with --big)", finished)
