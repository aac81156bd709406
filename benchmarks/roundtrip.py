"""How long `delay().get()` takes between two processes that both sleep."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from benchmarks.figures import OURS, Benchmark, Row, Sample, Scale, at_most
from benchmarks.sides import CELERY, HUEY, Side, on_each

PAUSE = 0.003  # seconds between two, so that the worker has gone to sleep


def sample(make: Callable[[], Side], scale: Scale, pool: str, concurrency: int) -> Sample:
    with make() as side, side.worker(pool, concurrency):
        count = {OURS: scale.pick(3_000, 500), CELERY: scale.pick(300, 50), HUEY: scale.pick(30, 10)}[side.name]
        taken = sorted(side.tell("roundtrip", count, PAUSE)["seconds"])
    return {
        "p50": statistics.median(taken) * 1000,
        "p99": taken[int(len(taken) * 0.99)] * 1000,
        "worst": taken[-1] * 1000,
    }


def roundtrip(pool: str, concurrency: int) -> Benchmark:
    return Benchmark(
        f"roundtrip-{pool}",
        f"one worker, {pool} -c {concurrency}; one caller, one call at a time, {PAUSE * 1000:g} ms between two; "
        "huey's consumer and its get() poll (defaults)",
        (Row("p50", "ms", at_most(0.3)), Row("p99", "ms", at_most(2.0)), Row("worst", "ms")),
        on_each((OURS, CELERY, HUEY), sample, pool, concurrency),
    )


ROUNDTRIPS = (roundtrip("threads", 4), roundtrip("processes", 2))
