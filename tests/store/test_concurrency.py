"""Many threads and processes on one file: nobody sees contention, nothing is lost, nothing is done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from litetq.database import Database
from litetq.exceptions import StoreBusy
from tests.factories import Queue, assert_sound, message, success
from tests.waiting import eventually

PRODUCER = """
import sys
from pathlib import Path
from tests.factories import Queue
queue = Queue(Path(sys.argv[1]), worker=0)
for n in range(int(sys.argv[3])):
    queue.send(f"{sys.argv[2]}-{n}")
"""

CONSUMER = """
import sys, time
from pathlib import Path
from tests.factories import Queue, success
queue = Queue(Path(sys.argv[1]))
total = int(sys.argv[2])
ran, outcomes, deadline = [], [], time.monotonic() + 60
while outcomes or queue.count("result") < total:
    assert time.monotonic() < deadline, "it takes too long"
    if not outcomes and not queue.store.probe(queue.now)[0]:
        time.sleep(0.001)
        continue
    taken = queue.take(10, *outcomes)
    assert not taken.lost
    ran += [delivery.id for delivery in taken.deliveries]
    outcomes = [success(delivery) for delivery in taken.deliveries]
print("\\n".join(ran))
"""

STRANGER = """
import sys, apsw
connection = apsw.Connection(sys.argv[1])
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""

FORKING = """
import os, sys, threading
from pathlib import Path
from tests.factories import Queue
queue = Queue(Path(sys.argv[1]))
over = threading.Event()
sent = [0, 0]
def keep_sending(number):
    while not over.is_set():
        queue.send(f"thread-{number}-{sent[number]}")
        sent[number] += 1
threads = [threading.Thread(target=keep_sending, args=(number,)) for number in range(2)]
for thread in threads: thread.start()
for n in range(20):
    pid = os.fork()
    if pid == 0:
        for m in range(5):
            queue.send(f"child-{n}-{m}")
        assert queue.count("task") >= 5
        os._exit(0)
    queue.send(f"parent-{n}")
    assert os.waitpid(pid, 0)[1] == 0
over.set()
for thread in threads: thread.join()
print(sum(sent) + 20 * 6, queue.count("task"), len(queue.rows("SELECT DISTINCT id FROM litetq_task")))
"""


@contextmanager
def stranger(run_python: Any, path: Path) -> Iterator[Callable[[], None]]:
    """Another process holds the write lock, until it is let go."""
    process = run_python(STRANGER, path, stdin=subprocess.PIPE)
    assert process.stdout.readline() == "held\n"
    yield lambda: process.communicate("\n", timeout=10) and None
    if process.poll() is None:
        process.kill()


def start(*jobs: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_processes_that_send_and_claim_at_once_run_each_task_once(db: Path, run_python: Any) -> None:
    Queue(db).close()
    producers = [run_python(PRODUCER, db, f"p{n}", "300") for n in range(3)]
    consumers = [run_python(CONSUMER, db, "900") for _ in range(2)]
    for process in producers:
        assert process.communicate(timeout=60)[1] == ""
        assert process.returncode == 0
    ran: Counter[str] = Counter()
    for process in consumers:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        ran.update(out.split())
    assert ran == Counter(f"p{n}-{m}" for n in range(3) for m in range(300))
    queue = Queue(db)
    assert (queue.count("task"), queue.count("result")) == (0, 900)
    assert_sound(queue)
    queue.close()


def test_threads_that_send_and_claim_at_once_run_each_task_once(queue: Queue) -> None:
    ran: list[str] = []

    def produce(number: int) -> None:
        for n in range(150):
            queue.send(f"t{number}-{n}")

    def consume() -> None:
        outcomes: list[Any] = []
        while outcomes or len(ran) < 600:
            taken = queue.take(5, *outcomes)
            assert taken.lost == []
            ran.extend(delivery.id for delivery in taken.deliveries)
            outcomes = [success(delivery) for delivery in taken.deliveries]

    join(start(*(lambda n=n: produce(n) for n in range(4)), consume, consume))
    assert Counter(ran) == Counter(f"t{n}-{m}" for n in range(4) for m in range(150))
    assert queue.count("result") == 600


def test_a_stranger_who_holds_the_lock_is_waited_for(queue: Queue, run_python: Any) -> None:
    with stranger(run_python, queue.path) as let_go:
        threads = start(*(lambda n=n: queue.send(f"{n}") for n in range(5)))
        assert queue.count("task") == 0  # reading goes on
        let_go()
        join(threads)
    assert sorted(queue.run_all()) == [f"{n}" for n in range(5)]


def test_a_stranger_who_never_lets_go_is_reported_to_each_waiter_after_its_own_deadline(
    queue: Queue, run_python: Any
) -> None:
    queue.database.busy_timeout = 0.3
    waited: list[float] = []

    def send() -> None:
        began = time.monotonic()
        with pytest.raises(StoreBusy, match="write lock for 0.3 s"):
            queue.send("a")
        waited.append(time.monotonic() - began)

    with stranger(run_python, queue.path) as let_go:
        join(start(*[send] * 8))
        assert len(waited) == 8
        assert min(waited) >= 0.3
        assert max(waited) < 2.0  # not one timeout after the other
        let_go()
    queue.send("b")
    assert queue.run_all() == ["b"]


def test_closing_ends_a_wait_for_the_lock(queue: Queue, run_python: Any) -> None:
    def send() -> None:
        with pytest.raises(StoreBusy, match="closed the file"):
            queue.send("a")

    with stranger(run_python, queue.path) as let_go:
        threads = start(send)
        eventually(queue.database._lock.locked)
        began = time.monotonic()
        queue.close()
        assert time.monotonic() - began < 5
        join(threads)
        let_go()
    queue.send("b")
    assert queue.run_all() == ["b"]


def test_one_bad_operation_does_not_undo_its_neighbours(queue: Queue, run_python: Any) -> None:
    refused: list[BaseException] = []

    def broken(tx: Any) -> None:
        tx.execute("DELETE FROM litetq_lane")
        raise ValueError("a mistake of its own")

    def bad(action: Callable[[], object]) -> None:
        try:
            action()
        except (ValueError, apsw.ConstraintError) as error:
            refused.append(error)

    queue.send("warm")
    connection = queue.database._writer
    assert connection is not None
    with stranger(run_python, queue.path) as let_go:
        first = start(lambda: queue.send("first"))  # waits for the lock; the others gather behind it
        eventually(queue.database._lock.locked)
        threads = start(
            *(lambda n=n: queue.send(f"{n}") for n in range(6)),
            lambda: bad(lambda: queue.database.write(broken)),
            lambda: bad(lambda: queue.send(message("refused", priority=999))),
        )
        eventually(lambda: len(queue.database._pending) == 8)
        let_go()
        join([*first, *threads])
    assert sorted(type(error).__name__ for error in refused) == ["ConstraintError", "ValueError"]
    assert sorted(queue.run_all()) == [*(f"{n}" for n in range(6)), "first", "warm"]


def test_many_who_wait_are_committed_together(queue: Queue, run_python: Any) -> None:
    begins = 0

    def count(cursor: Any, sql: str, bindings: Any) -> bool:
        nonlocal begins
        begins += sql == "BEGIN IMMEDIATE"
        return True

    queue.send("warm")
    connection = queue.database._writer
    assert connection is not None
    with stranger(run_python, queue.path) as let_go:
        first = start(lambda: queue.send("first"))
        eventually(queue.database._lock.locked)
        threads = start(*(lambda n=n: queue.send(f"{n}") for n in range(8)))
        eventually(lambda: len(queue.database._pending) == 8)
        let_go()
        join(first)
        connection.exec_trace = count
        join(threads)
        connection.exec_trace = None
    assert begins <= 2
    assert queue.count("task") == 10


def test_an_interrupt_while_committing_for_others_is_raised_here_and_their_work_stands(
    queue: Queue, run_python: Any
) -> None:
    runs: Counter[str] = Counter()

    def insert(id: str, interrupted: bool = False) -> Callable[[Any], None]:
        def operation(tx: Any) -> None:
            runs[id] += 1
            if interrupted and runs[id] == 1:
                raise KeyboardInterrupt
            tx.execute("INSERT INTO litetq_meta (key, value) VALUES (?1, '')", (id,))

        return operation

    interrupts: list[str] = []

    def write(id: str, interrupted: bool = False) -> None:
        try:
            queue.database.write(insert(id, interrupted))
        except KeyboardInterrupt:
            interrupts.append(id)

    queue.database.write(lambda tx: None)
    with stranger(run_python, queue.path) as let_go:
        first = start(lambda: write("first"))
        eventually(queue.database._lock.locked)
        threads = start(*(lambda n=n: write(f"{n}", n == 2) for n in range(5)))
        eventually(lambda: len(queue.database._pending) == 5)
        let_go()
        join([*first, *threads])
    assert len(interrupts) == 1
    keys = [key for (key,) in queue.rows("SELECT key FROM litetq_meta WHERE key <> 'schema'")]
    assert sorted(keys) == ["0", "1", "2", "3", "4", "first"]


def test_a_transaction_that_an_interrupted_thread_left_open_is_undone(queue: Queue) -> None:
    queue.send("a")
    assert queue.database._writer is not None
    queue.database._writer.execute("BEGIN IMMEDIATE; DELETE FROM litetq_task")
    queue.send("b")
    assert queue.run_all() == ["a", "b"]


# Where the signal comes while Python clears up weak references, the interrupt is printed instead of raised.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")
def test_signals_at_any_moment_neither_lose_nor_repeat_what_others_wrote(queue: Queue) -> None:
    """The main thread is interrupted every few hundred microseconds, most of the time while it commits for the others."""

    class Interrupt(Exception):
        pass

    armed = False

    def interrupt(*_: Any) -> None:
        if armed:  # a signal that another thread received may come late
            raise Interrupt

    over = threading.Event()
    written: list[list[str]] = [[], [], []]

    def keep_sending(number: int) -> None:
        while not over.is_set():
            id = f"{number}-{len(written[number])}"
            queue.send(id)
            written[number].append(id)

    threads = start(*(lambda n=n: keep_sending(n) for n in range(3)))
    sent: list[str] = []
    interrupted = 0
    before = signal.signal(signal.SIGALRM, interrupt)
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        id = f"main-{len(sent)}-{interrupted}"
        try:
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, 0.000_2 + interrupted % 50 / 100_000)
                queue.send(id)
                sent.append(id)
            finally:
                armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupt:
            interrupted += 1
    signal.signal(signal.SIGALRM, before)
    over.set()
    join(threads)
    ids = Counter(id for (id,) in queue.rows("SELECT id FROM litetq_task"))
    assert interrupted > 20
    assert [id for id, count in ids.items() if count > 1] == []
    assert [id for id in [*sent, *(id for ids_ in written for id in ids_)] if id not in ids] == []
    assert {id for id in ids if not id.startswith("main")} == {id for ids_ in written for id in ids_}


def test_a_task_is_seen_at_every_moment_of_its_life(queue: Queue) -> None:
    ids = [f"{n}" for n in range(20)]
    over = threading.Event()
    missing: list[set[str]] = []

    def look() -> None:
        while not over.is_set():
            missing.append(set(ids) - queue.store.records.read_many(ids).keys())
            assert queue.store.records.read("7") is not None

    queue.send(*ids)
    threads = start(look, look)
    for _ in range(15):
        queue.run_all()
        queue.send(*ids)
    over.set()
    join(threads)
    assert [found for found in missing if found] == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_while_other_threads_write_loses_nothing_on_either_side(db: Path, run_python: Any) -> None:
    process = run_python(FORKING, db)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    expected, found, distinct = map(int, out.split())
    assert expected == found == distinct
    queue = Queue(db)
    assert_sound(queue)
    queue.close()


def test_two_handles_of_one_process_share_a_file(db: Path) -> None:
    one, two = Queue(db), Database(db)

    def send() -> None:
        for n in range(100):
            one.send(f"{n}")

    def note() -> None:
        for key in "abcdefgh":
            two.write(lambda tx, key=key: tx.execute("INSERT INTO litetq_meta VALUES (?1, '')", (key,)).fetchall())  # type: ignore[misc]

    threads = start(send, note)
    join(threads)
    assert one.count("task") == 100
    assert one.count("meta") >= 9
    two.close()
    one.close()
