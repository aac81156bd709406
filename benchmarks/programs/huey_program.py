"""The program under measurement, with huey on SQLite. $BENCH_FILE is its file; it has no late acknowledgement and no bulk."""

import os
import time

import verbs
from huey import SqliteHuey

huey = SqliteHuey("bench", filename=os.environ["BENCH_FILE"])


@huey.task(name="noop")
def noop(value):
    return value


@huey.task(name="mark")
def mark(path):
    with open(path, "w") as file:
        file.write(repr(time.time()))


if __name__ == "__main__":
    # huey names tasks by their module, which is this one for the consumer, too.
    import huey_program as known

    verbs.main(
        verbs.Program(
            known.noop,
            known.noop,
            known.mark,
            lambda task, *args: task(*args),
            lambda result: result(blocking=True, timeout=30),
        )
    )
