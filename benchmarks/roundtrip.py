"""How long `delay().get()` takes between two processes that both sleep."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from benchmarks.figures import OURS, Benchmark, Row, Sample, Scale, at_most
from benchmarks.sides import CELERY, HUEY, Side, on_each

PAUSE = 0.003  # seconds; both processes are asleep by then, and their code and data have left the processor's caches


def sample(make: Callable[[], Side], scale: Scale, pool: str, concurrency: int) -> Sample:
    with make() as side, side.worker(pool, concurrency):
        count = {OURS: scale.pick(3_000, 500), CELERY: scale.pick(300, 50), HUEY: scale.pick(30, 10)}[side.name]
        at_once = sorted(side.tell("roundtrip", count, 0)["seconds"])
        apart = sorted(side.tell("roundtrip", count, PAUSE)["seconds"])
    found = {"p50": statistics.median(at_once), "p99": at_once[int(len(at_once) * 0.99)], "worst": at_once[-1]}
    found |= {"p50, 3 ms apart": statistics.median(apart), "p99, 3 ms apart": apart[int(len(apart) * 0.99)]}
    return {what: value * 1000 for what, value in found.items()}


def roundtrip(pool: str, concurrency: int) -> Benchmark:
    return Benchmark(
        f"roundtrip-{pool}",
        f"one worker, {pool} -c {concurrency}; one caller, one call at a time, the next at once or {PAUSE * 1000:g} ms later; "
        "huey's consumer and its get() poll (defaults)",
        (
            Row("p50", "ms", at_most(0.3)),
            Row("p99", "ms", at_most(2.0)),
            Row("worst", "ms"),
            Row("p50, 3 ms apart", "ms", at_most(0.3)),
            Row("p99, 3 ms apart", "ms", at_most(2.0)),
        ),
        on_each((OURS, CELERY, HUEY), sample, pool, concurrency),
    )


ROUNDTRIPS = (roundtrip("threads", 4), roundtrip("processes", 2))
