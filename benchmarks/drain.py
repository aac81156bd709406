"""How fast one worker works through what waits."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.figures import OURS, Benchmark, Row, Sample, Scale, at_least
from benchmarks.sides import CELERY, HUEY, Side, cpu_of, family, on_each, read_mark
from litetq.engine import FileEngine

END_TIMEOUT = 30.0  # seconds for the last results to be in the file


def sample(make: Callable[[], Side], scale: Scale, pool: str, concurrency: int, kind: str) -> Sample:
    with make() as side:
        count = scale.pick(60_000, 10_000) if side.name == OURS else scale.pick(3_000, 1_000)
        first, last = side.folder / "first", side.folder / "last"
        side.tell("fill", count, kind, first, last)
        with side.worker(pool, concurrency) as worker:
            began = read_mark(first, worker, 30)
            cpu = cpu_of(family(worker.pid))  # without what its start took
            ended = read_mark(last, worker, 120)
            cpu = cpu_of(family(worker.pid)) - cpu
            found = {"drained": count / (ended - began), "CPU of the worker": cpu / count * 1e6}
            if side.name == OURS:
                found["last result after last task"] = (settled_at(side) - ended) * 1000
        return found


def settled_at(side: Side) -> float:
    """Wait until no task is unfinished; return when that was."""
    engine = FileEngine(side.environment["BENCH_FILE"])
    try:
        deadline = time.monotonic() + END_TIMEOUT
        while engine.store.has_unfinished(time.time()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"tasks were left: {engine.store.records.counts()}")
            time.sleep(0.005)
        counts = engine.store.records.counts()
        if counts["QUEUED"] or counts["CLAIMED"]:
            raise RuntimeError(f"tasks were left: {counts}")
        return time.time()
    finally:
        engine.close()


SIDES = {"noop": (OURS, CELERY, HUEY), "late": (OURS, CELERY), "async": (OURS,)}
KINDS = {"noop": "", "late": ", acks_late", "async": ", async def"}


def drain(name: str, pool: str, concurrency: int, floor: float | None, kind: str = "noop") -> Benchmark:
    return Benchmark(
        name,
        f"one worker, {pool} -c {concurrency}, log level WARNING, results stored, tasks that return their argument"
        f"{KINDS[kind]}; from the start of the first task to the start of the last; "
        "solo is one thread for huey; CPU with children, without Redis",
        (
            Row("drained", "tasks/s", None if floor is None else at_least(floor)),
            Row("CPU of the worker", "us a task"),
            # From the last task's start to the look that finds all settled; a look is taken every 5 ms, after up to
            # 20 ms until the end is seen: what matters is whether it is near 25 ms or near a second.
            Row("last result after last task", "ms"),
        ),
        on_each(SIDES[kind], sample, pool, concurrency, kind),
    )


DRAINS = (
    drain("drain-solo", "solo", 1, 80_000),
    drain("drain-threads", "threads", 4, 80_000),
    drain("drain-processes", "processes", 2, 60_000),
    drain("drain-solo-late", "solo", 1, 80_000, "late"),
    drain("drain-threads-late", "threads", 4, 80_000, "late"),
    drain("drain-processes-late", "processes", 2, 60_000, "late"),
    drain("drain-asyncio", "asyncio", 1000, None, "async"),
)
