"""The program under measurement, with litetq. $BENCH_FILE is its file of tasks."""

import os
import time

import verbs

from litetq import LiteTQ, calling, chain, chord
from litetq.message import Plan

app = LiteTQ("bench", broker=os.environ["BENCH_FILE"])


@app.task(name="noop")
def noop(value):
    return value


@app.task(name="late", acks_late=True)
def late(value):
    return value


@app.task(name="coroutine")
async def coroutine(value):
    return value


@app.task(name="mark")
def mark(path):
    with open(path, "w") as file:
        file.write(repr(time.time()))


@app.task(name="clock")
def clock(*_):
    return time.time()


@app.task(name="since")
def since(at):
    return time.time() - (max(at) if isinstance(at, list) else at)


def send_bulk(count):
    began = time.perf_counter()
    messages = tuple(calling.message_for(app, "noop", noop, (number,), {}, {}) for number in range(count))
    built = time.perf_counter()
    app.engine.send(Plan(messages))
    ended = time.perf_counter()
    return {"seconds": ended - began, "commit": ended - built}


if __name__ == "__main__":
    verbs.main(
        verbs.Program(
            noop,
            late,
            mark,
            lambda task, *args: task.delay(*args),
            lambda result: result.get(timeout=120),
            send_bulk,
            verbs.Canvas(clock, noop, since, chain, chord),
            coroutine,
        )
    )
