"""A process that is killed in the middle of a verb: before its n-th statement, or before its n-th write to the disk.

`python killed.py` reads lines of FOLDER, VERB and BY, divided by tabs. It finds `before.sqlite` in FOLDER, leaves `N.sqlite` for
each N until the verb survives, and prints that N. Where processes can fork, each N is a fork of one process that has imported
everything and has no file open; elsewhere it is `python killed.py FOLDER VERB BY N`.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from litetq.message import SELF, Delivery, Disposition, Join, Kind, Link, Record
from litetq.timetable import Definition, Firing, Put, Run, Timetable
from tests.factories import (
    Queue,
    chain,
    chord,
    failure,
    interrupt,
    message,
    outcome,
    plan,
    release,
    requeue,
    retry,
    success,
)


class Verb(NamedTuple):
    prepare: Callable[[Queue], list[Delivery] | None]
    do: Callable[[Queue, list[Delivery]], object]


def claimed(*plans: Any, free: int = 20) -> Callable[[Queue], list[Delivery]]:
    """Send these plans and let the worker claim what is ready."""

    def prepare(queue: Queue) -> list[Delivery]:
        for sent in plans:
            queue.send(sent)
        return queue.claim(free)

    return prepare


def nothing(queue: Queue) -> None:
    pass


def revoked_before(queue: Queue) -> None:
    queue.store.revoke(["b"], "enough", queue.now)


def workflow() -> Any:
    """Two members and a nested group of two, a body, a step behind it, an errback."""
    return plan(
        "a", "b", "c", "d", "body", "last", "handler",
        links=[Link(4, 5, Kind.VALUE), Link(4, 6, Kind.ERRBACK)],
        joins=[Join((0, 1, -3), 4), Join((2, 3), None)],
    )  # fmt: skip


def mixed(queue: Queue) -> None:
    queue.send(message("high", priority=5, queue="other"), message("over", expires_at=queue.now), "plain")
    queue.send(message("due", due_at=queue.now), chain("x", "y").messages[0])
    queue.now -= 10
    queue.send(message("scheduled", due_at=queue.now + 5))
    queue.now += 10


def all_but_the_last_member(queue: Queue) -> list[Delivery]:
    queue.send(workflow())
    *members, last = queue.claim(4)
    queue.settle(*map(success, members))
    return [last]


def held_by_the_dead(queue: Queue) -> list[Delivery]:
    queue.store.roster.set_late(queue.worker, ["tasks.late"])
    queue.send(workflow())
    queue.send(message("late", name="tasks.late"), message("unbegun"))
    return queue.claim(20)


def old_results(queue: Queue) -> None:
    queue.send(*(message(f"{n}", body=b"x" * 3_000) for n in range(20)), "again")
    queue.run_all(lambda d: retry(d) if d.id == "again" and not d.retries else failure(d))
    queue.store.revoke(["unknown"], "enough", queue.now)
    queue.now += 1_000_000


def free_pages(queue: Queue) -> None:
    old_results(queue)
    queue.store.records.prune(queue.now)


def failed(queue: Queue) -> None:
    """A member and the body of a workflow, with what hangs on them, and a task of its own."""
    queue.send(workflow())
    queue.send("plain")
    queue.run_all(lambda d: failure(d) if d.id in ("c", "plain") else success(d))


def replaced(delivery: Delivery) -> Any:
    new = chain("step", delivery.id)
    return outcome(delivery, Disposition.REPLACE, "PENDING", plan=new)


def with_plan(delivery: Delivery) -> Any:
    return success(delivery, 1, plan=plan("free", "after", links=[Link(SELF, 1, Kind.VALUE)]))


def with_cuts(delivery: Delivery) -> Any:
    return success(delivery, 1, plan=plan("added", links=[Link(SELF, 0, Kind.VALUE)])._replace(cuts=("body",)))


def scheduled(queue: Queue) -> None:
    """An entry of the schedule that is due."""
    entry = Definition("mail", '{"task": "tasks.work"}', '{"every": 10}', "every 10 seconds", "UTC", None)
    assert timetable(queue).put([Put(entry, queue.now, queue.now, None)], "", queue.now)


def timetable(queue: Queue) -> Timetable:
    return Timetable(queue.database, queue.store)


def fire(queue: Queue) -> None:
    entry = timetable(queue).entry("mail")
    assert entry is not None
    due = Firing(queue.now, queue.now + 10, queue.now + 10, outcome="SENT")
    assert timetable(queue).fire(entry, due, Run("run", [plan("run")]), queue.now)


VERBS: dict[str, Verb] = {
    "send one": Verb(nothing, lambda q, _: q.send("a")),
    "send many to new queues": Verb(nothing, lambda q, _: q.send(*(message(f"{n}", queue=f"q{n % 3}") for n in range(9)))),
    "send a workflow": Verb(nothing, lambda q, _: q.send(workflow())),
    "send an empty chord": Verb(nothing, lambda q, _: q.send(chord([], "body"))),
    "send what was revoked": Verb(revoked_before, lambda q, _: q.send(chain("a", "b", "c"))),
    "claim": Verb(mixed, lambda q, _: q.claim(10)),
    "settle plain ones": Verb(claimed(plan(*"abcd")), lambda q, ds: q.settle(*map(success, ds[:2]), *map(failure, ds[2:]))),
    "settle and claim": Verb(claimed(plan(*"abcd"), free=2), lambda q, ds: q.take(2, *map(success, ds))),
    "settle a step of a chain": Verb(claimed(chain("a", "b")), lambda q, ds: q.settle(*map(success, ds))),
    "settle a step and claim the next": Verb(claimed(chain("a", "b", "c")), lambda q, ds: q.take(1, *map(success, ds))),
    "settle the last member and claim the body": Verb(all_but_the_last_member, lambda q, ds: q.take(2, *map(success, ds))),
    "settle a member": Verb(claimed(workflow()), lambda q, ds: q.settle(success(ds[0]))),
    "settle the last member": Verb(all_but_the_last_member, lambda q, ds: q.settle(*map(success, ds))),
    "fail a member": Verb(claimed(workflow()), lambda q, ds: q.settle(failure(ds[2]))),
    "fail a chain": Verb(claimed(chain(*"abcde")), lambda q, ds: q.settle(*map(failure, ds))),
    "settle with tasks that it brings": Verb(claimed(plan("a")), lambda q, ds: q.settle(with_plan(ds[0]))),
    "settle with tasks that it takes off": Verb(
        claimed(plan("a", "body", "last", links=[Link(0, 1, 1), Link(1, 2, 1), Link(1, 2, 3)])),
        lambda q, ds: q.settle(with_cuts(ds[0])),
    ),
    "retry": Verb(claimed(plan("a")), lambda q, ds: q.settle(retry(ds[0], due_at=q.now + 9, message=message("a", queue="new")))),
    "interrupt": Verb(claimed(plan("a", "b")), lambda q, ds: q.settle(*map(interrupt, ds))),
    "release": Verb(claimed(plan("a", "b")), lambda q, ds: q.settle(*map(release, ds))),
    "requeue": Verb(claimed(chain("a", "b")), lambda q, ds: q.settle(*map(requeue, ds))),
    "replace": Verb(claimed(workflow()), lambda q, ds: q.settle(replaced(ds[0]))),
    "rescue": Verb(held_by_the_dead, lambda q, ds: q.store.roster.rescue(q.worker, frozenset(d.claim for d in ds[1:-1]), q.now)),
    "leave": Verb(claimed(workflow()), lambda q, _: q.store.roster.leave(q.worker, q.now)),
    "promote": Verb(mixed, lambda q, _: q.store.promote(q.now)),
    "expire": Verb(
        lambda q: q.send(plan(message("a", expires_at=q.now), "b", "c", links=[Link(0, 1, 1), Link(0, 2, 3)])),
        lambda q, _: q.store.expire(q.now),
    ),
    "prune": Verb(old_results, lambda q, _: q.store.records.prune(q.now)),
    "give space back": Verb(free_pages, lambda q, _: q.store.records.give_space_back()),
    "purge": Verb(lambda q: q.send(workflow()), lambda q, _: q.store.purge(None, q.now)),
    "revoke": Verb(lambda q: q.send(workflow()), lambda q, _: q.store.revoke(["a", "last", "unknown"], "x", q.now)),
    "forget": Verb(old_results, lambda q, _: q.store.records.forget([f"{n}" for n in range(9)])),
    "run again": Verb(failed, lambda q, _: q.store.run_again(["last", "plain"], q.now)),
    "forget what failed": Verb(failed, lambda q, _: q.store.records.forget(["body"])),
    "update state": Verb(claimed(plan("a")), lambda q, ds: q.store.update_state("a", "PROGRESS", b"1", None, q.now, claim=ds[0].claim)),
    "store a record": Verb(nothing, lambda q, _: q.store.records.store_record(Record("a", "SUCCESS", "DONE", queue="new", done_at=q.now), None)),
    "register": Verb(nothing, lambda q, _: q.store.roster.register("w2@host", "run", "boot", q.now)),
    "put an entry": Verb(nothing, lambda q, _: scheduled(q)),
    "fire": Verb(scheduled, lambda q, _: fire(q)),
    "remove an entry": Verb(scheduled, lambda q, _: timetable(q).remove(["mail"], "")),
    "set meta": Verb(nothing, lambda q, _: q.store.set_meta("app", "x")),
}  # fmt: skip


def die() -> None:
    if hasattr(signal, "SIGKILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(9)


class Countdown:
    """Ends the process when it is asked for the n-th time, once it is armed."""

    def __init__(self, n: int) -> None:
        self.left = n
        self.armed = False

    def __call__(self, *_: Any) -> bool:
        if self.armed:
            self.left -= 1
            if not self.left:
                die()
        return True


class DyingFile(apsw.VFSFile):
    """A file that dies with its process before a write, a sync or a truncation."""

    countdown: Countdown

    def xWrite(self, data: Any, offset: int) -> None:
        self.countdown()
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self.countdown()
        super().xSync(flags)

    def xTruncate(self, size: int) -> None:
        self.countdown()
        super().xTruncate(size)


class DyingDisk(apsw.VFS):
    def __init__(self) -> None:
        self.base = apsw.vfs_names()[0]
        super().__init__("dying", self.base, makedefault=True)

    def xOpen(self, name: Any, flags: Any) -> DyingFile:
        return DyingFile(self.base, name, flags)


def run_one(folder: Path, verb: str, by: str, n: int) -> None:
    """Do the verb on a copy of the file and die before the n-th statement or write; return when there are fewer."""
    path = folder / f"{n}.sqlite"
    countdown = Countdown(n)
    if by == "write":
        DyingFile.countdown = countdown
        disk = DyingDisk()  # noqa: F841 - registered as long as it lives
    if verb == "open":
        countdown.armed = True
        if by == "statement":
            apsw.connection_hooks.append(lambda connection: setattr(connection, "exec_trace", countdown))
        queue = Queue(path, worker=1)
        queue.count("task")
        os._exit(0)
    shutil.copy(folder / "before.sqlite", path)
    now, deliveries = pickle.loads((folder / "before.pickle").read_bytes())
    queue = Queue(path, worker=1)
    queue.now = now
    queue.count("task")
    queue.database.write(lambda tx: None)
    assert queue.database._writer is not None
    if by == "statement":
        queue.database._writer.exec_trace = countdown
    countdown.armed = True
    VERBS[verb].do(queue, deliveries)
    os._exit(0)  # not closed: what is in the file must be there already


def main(folder: Path, verb: str, by: str) -> int:
    """Return the first n that the verb survived."""
    number = 1
    while True:
        if hasattr(os, "fork"):
            pid = os.fork()
            if pid == 0:
                try:
                    run_one(folder, verb, by, number)
                finally:
                    os._exit(1)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        else:
            code = subprocess.run([sys.executable, __file__, folder, verb, by, str(number)]).returncode
        if code == 0:
            return number
        assert code in (-9, 9), f"the process ended with {code}"
        number += 1


if __name__ == "__main__":
    if sys.argv[1:]:
        folder, verb, by, number = sys.argv[1:]
        run_one(Path(folder), verb, by, int(number))
    for line in sys.stdin:
        folder, verb, by = line.rstrip("\n").split("\t")
        print(main(Path(folder), verb, by), flush=True)
