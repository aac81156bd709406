"""How fast calls reach the queue, from one process without a worker."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.figures import OURS, Benchmark, Row, Sample, Scale, at_least
from benchmarks.sides import CELERY, HUEY, Side, on_each

BULK = 10_000


def sample(make: Callable[[], Side], scale: Scale) -> Sample:
    with make() as side:
        count = scale.pick(20_000, 2_000) if side.name == OURS else scale.pick(3_000, 500)
        answer = side.tell("enqueue", count)
        found = {"delay()": count / answer["seconds"], "CPU of delay()": answer["cpu"] / count * 1e6}
        answer = side.tell("bulk", BULK) if side.name != CELERY or not scale.quick else {}
        if "seconds" in answer:
            found["10,000 at once"] = BULK / answer["seconds"]
        if "commit" in answer:
            found["10,000 at once, engine.send(plan) alone"] = BULK / answer["commit"]
    return found


ENQUEUE = Benchmark(
    "enqueue",
    "one process, one thread, nobody listens; delay() returns when the task is committed (Redis: acknowledged in memory). "
    "At once: one plan, messages built and sent; Celery: group(...).apply_async(); huey has none",
    (
        Row("delay()", "tasks/s", at_least(30_000)),
        Row("CPU of delay()", "us a task"),
        Row("10,000 at once", "tasks/s", at_least(150_000)),
        Row("10,000 at once, engine.send(plan) alone", "tasks/s"),
    ),
    on_each((OURS, CELERY, HUEY), sample),
)
