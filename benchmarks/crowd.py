"""Many processes on one file: eight producers and four workers against one and one."""

from __future__ import annotations

import time
from contextlib import ExitStack

from benchmarks.drain import settled_at
from benchmarks.figures import OURS, Benchmark, Row, Sample, Scale, at_least, at_most
from benchmarks.sides import Litetq, answer_of

START = 2.0  # seconds until all producers send at once


def throughput(count: int, producers: int, workers: int) -> tuple[float, int, float]:
    """Return tasks/s from the first call to the last result, errors of callers, and the longest call in seconds."""
    with Litetq() as side, ExitStack() as stack:
        for _ in range(workers):
            stack.enter_context(side.worker("solo", 1))
        side.tell("roundtrip", 20, 0.01)  # the workers run
        go_at = time.time() + START
        sent = [side.start_program("produce", count // producers, go_at) for _ in range(producers)]
        answers = [answer_of(process) for process in sent]
        seconds = settled_at(side) - go_at
    return count / seconds, sum(a["errors"] for a in answers), max(a["slowest"] for a in answers)


def sample(scale: Scale) -> Sample:
    count = scale.pick(40_000, 8_000)
    one, errors, _ = throughput(count, 1, 1)
    many, more_errors, slowest = throughput(count, 8, 4)
    return {
        "1 producer + 1 worker": one,
        "8 producers + 4 workers": many,
        "many / one": many / one,
        "errors of callers": errors + more_errors,
        "longest delay() of eight": slowest * 1000,
    }


CROWD = Benchmark(
    "crowd",
    "delay() in loops while solo workers run; from the first call until no task is unfinished",
    (
        Row("1 producer + 1 worker", "tasks/s"),
        Row("8 producers + 4 workers", "tasks/s"),
        Row("many / one", "ratio", at_least(0.6)),
        Row("errors of callers", "errors", at_most(0)),
        Row("longest delay() of eight", "ms"),
    ),
    {OURS: sample},
)
