"""The program under measurement, with Celery. $BENCH_REDIS is its broker and result backend."""

import os
import time

import verbs
from celery import Celery, chain, chord, group

app = Celery("bench", broker=os.environ["BENCH_REDIS"], backend=os.environ["BENCH_REDIS"])


@app.task(name="noop")
def noop(value):
    return value


@app.task(name="late", acks_late=True)
def late(value):
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
    group(noop.s(number) for number in range(count)).apply_async()
    return {"seconds": time.perf_counter() - began}


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
        )
    )
