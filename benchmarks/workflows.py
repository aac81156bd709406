"""How fast one step of a workflow follows another."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.figures import OURS, Benchmark, Row, Sample, Scale, at_least, at_most
from benchmarks.sides import CELERY, Side, on_each

STEPS, MEMBERS = 1_000, 10_000


def chain_sample(make: Callable[[], Side], scale: Scale, pool: str) -> Sample:
    with make() as side, side.worker(pool, 1):
        answer = side.tell("chain", STEPS)
    return {"steps": STEPS / answer["steps"], "with sending": STEPS / answer["seconds"]}


def chord_sample(make: Callable[[], Side], scale: Scale, pool: str, concurrency: int) -> Sample:
    count = MEMBERS if side_is_ours(make) else scale.pick(MEMBERS, MEMBERS // 10)
    with make() as side, side.worker(pool, concurrency):
        answer = side.tell("chord", count)
    return {
        "members": count / answer["seconds"],
        "sending": count / answer["sent"],
        "last member to body": answer["body"] * 1000,
    }


def side_is_ours(make: Callable[[], Side]) -> bool:
    return getattr(make, "name", None) == OURS


WORKFLOWS = (
    Benchmark(
        "chain",
        f"{STEPS:,} steps that hand a value on, one worker, solo; from the start of the first step to that of the last, and from "
        "the call to its value",
        (Row("steps", "steps/s", at_least(10_000)), Row("with sending", "steps/s")),
        on_each((OURS, CELERY), chain_sample, "solo"),
        peer_repeats=2,
    ),
    Benchmark(
        "chord",
        f"{MEMBERS:,} members that return the time, and a body that looks how long ago the last one was; one worker, threads -c 4; "
        f"members: from the call to its value (Celery with --quick: {MEMBERS // 10:,})",
        (
            Row("members", "tasks/s"),
            Row("sending", "tasks/s"),
            Row("last member to body", "ms", at_most(50)),
        ),
        on_each((OURS, CELERY), chord_sample, "threads", 4),
        peer_repeats=2,
    ),
)
