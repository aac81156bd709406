"""What every program under measurement can be told to do, from the command line; answers with one line of JSON.

Standard library only: it runs inside the environment of litetq and inside that of its peers.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Program(NamedTuple):
    """One task queue: three tasks, and its words for sending and waiting."""

    noop: Any  # returns its argument
    late: Any  # the same, acknowledged late
    mark: Any  # writes the time into the file it is given
    send: Callable[..., Any]  # send(task, *args) -> result
    wait: Callable[[Any], Any]  # wait(result) -> value
    bulk: Callable[[int], dict[str, float]] | None = None  # send so many at once; seconds by kind
    canvas: Canvas | None = None
    coroutine: Any = None  # `async def`, returns its argument


class Canvas(NamedTuple):
    """Tasks of workflows, and its words for making them."""

    clock: Any  # returns the time, whatever it is given
    step: Any  # returns its argument
    since: Any  # returns how long ago the time that it is given was; of a list, the latest
    chain: Callable[..., Any]
    chord: Callable[..., Any]


def main(program: Program) -> None:
    verb, *words = sys.argv[1:]
    print(json.dumps(VERBS[verb](program, *words)), flush=True)


def enqueue(program: Program, count: str) -> dict[str, float]:
    """Send tasks one by one from one thread."""
    send, task = program.send, program.noop
    wait_for_connection(program)
    began, cpu = time.perf_counter(), time.process_time()
    for number in range(int(count)):
        send(task, number)
    return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}


def bulk(program: Program, count: str) -> dict[str, float]:
    """Send tasks with one call."""
    wait_for_connection(program)
    return program.bulk(int(count)) if program.bulk else {}


def fill(program: Program, count: str, kind: str, first: str, last: str) -> dict[str, float]:
    """Send a mark, so many tasks, and a mark: what lies between the two is what a worker drained."""
    task = {"noop": program.noop, "late": program.late, "async": program.coroutine}[kind]
    program.send(program.mark, first)
    for number in range(int(count)):
        program.send(task, number)
    program.send(program.mark, last)
    return {}


def roundtrip(program: Program, count: str, pause: str) -> dict[str, list[float]]:
    """Send and wait for the value, with a pause between in which both processes fall asleep; seconds of each."""
    for number in range(10):
        program.wait(program.send(program.noop, number))
    taken = []
    for number in range(int(count)):
        time.sleep(float(pause))
        began = time.perf_counter()
        value = program.wait(program.send(program.noop, number))
        taken.append(time.perf_counter() - began)
        if value != number:
            raise RuntimeError(f"sent {number}, got {value}")
    return {"seconds": taken}


def produce(program: Program, count: str, go_at: str) -> dict[str, Any]:
    """Send tasks one by one from a point in time on (UTC seconds); say when it was done and what went wrong."""
    wait_for_connection(program)
    errors = 0
    slowest = 0.0
    time.sleep(max(0.0, float(go_at) - time.time()))
    for number in range(int(count)):
        began = time.perf_counter()
        try:
            program.send(program.noop, number)
        except Exception as error:
            errors += 1
            print(repr(error), file=sys.stderr)
        slowest = max(slowest, time.perf_counter() - began)
    return {"errors": errors, "slowest": slowest, "ended_at": time.time()}


def chain(program: Program, count: str) -> dict[str, float]:
    """Send a chain of so many steps and wait for its end; seconds from the first step to the last, and for all of it."""
    canvas = _canvas(program)
    program.wait(canvas.chain(canvas.clock.s(), canvas.step.s(), canvas.since.s()).apply_async())
    steps = [canvas.step.s() for _ in range(int(count) - 2)]
    began = time.perf_counter()
    result = canvas.chain(canvas.clock.s(), *steps, canvas.since.s()).apply_async()
    sent = time.perf_counter() - began
    return {"steps": program.wait(result), "seconds": time.perf_counter() - began, "sent": sent}


def chord(program: Program, count: str) -> dict[str, float]:
    """Send a chord of so many members and wait for its body; seconds from the last member to the body, and for all of it."""
    canvas = _canvas(program)
    program.wait(canvas.chord([canvas.clock.s()], canvas.since.s()).apply_async())
    began = time.perf_counter()
    result = canvas.chord([canvas.clock.s() for _ in range(int(count))], canvas.since.s()).apply_async()
    sent = time.perf_counter() - began
    return {"body": program.wait(result), "seconds": time.perf_counter() - began, "sent": sent}


def _canvas(program: Program) -> Canvas:
    if program.canvas is None:
        raise RuntimeError("this task queue has no workflows under measurement")
    return program.canvas


def wait_for_connection(program: Program) -> None:
    """The first task opens the file or the connection: not part of a figure."""
    program.send(program.noop, -1)


VERBS: dict[str, Callable[..., dict[str, Any]]] = {
    "enqueue": enqueue,
    "bulk": bulk,
    "fill": fill,
    "roundtrip": roundtrip,
    "produce": produce,
    "chain": chain,
    "chord": chord,
}
