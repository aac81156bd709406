"""The worker inside one process: what it claims, in which order, how it stops, and what it does when something breaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, execution
from litetq.engine import FileEngine
from litetq.exceptions import ImproperlyConfigured, Reject, TaskRevokedError, WorkerLostError
from litetq.message import Delivery, Message, Outcome, Plan, uuid
from tests.waiting import eventually

IN_PROCESS = ("threads", "solo")


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    app = LiteTQ("tasks", broker=db, set_as_current=False)
    yield app
    app.close()


class Gate:
    """A task waits here until the test opens it, and tells that it has come."""

    def __init__(self) -> None:
        self.come: list[Any] = []
        self.open = threading.Event()

    def __call__(self, who: Any) -> None:
        self.come.append(who)
        assert self.open.wait(30)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def state(app: LiteTQ, id: str) -> str | None:
    record = app.engine.read(id)
    return record.state if record else None


def place(app: LiteTQ, id: str) -> str | None:
    record = app.engine.read(id)
    return record.place if record else None


def send(app: LiteTQ, name: str, *calls: tuple[Any, ...], **fields: Any) -> list[str]:
    """Enqueue many calls in one transaction."""
    import json

    messages = [Message(uuid(), name, json.dumps([call, {}]).encode(), **fields) for call in calls]
    app.engine.send(Plan(tuple(messages)))
    return [message.id for message in messages]


@pytest.mark.row("3.queue, priority")
@pytest.mark.row("11.priority")
def test_tasks_start_by_priority_then_in_the_order_of_their_commits(app: LiteTQ) -> None:
    order: list[int] = []
    app.task(name="note")(order.append)
    for n, priority in enumerate([0, 5, 0, 255, 5]):
        send(app, "note", (n,), priority=priority)
    with app.run_embedded(pool="solo") as worker:
        assert worker.drain(20)
    assert order == [3, 1, 4, 0, 2]


def test_no_worker_of_another_queue_is_woken_instead(app: LiteTQ) -> None:
    app.task(name="same")(lambda n: n)
    with app.run_embedded(queues=["celery"]), app.run_embedded(queues=["never.used"], hostname="other@here"):
        began = time.monotonic()
        for n in range(16):
            assert app.tasks["same"].delay(n).get(timeout=10) == n
        # Half of them would wait until the right worker looks by itself, once a second.
        assert time.monotonic() - began < 4


@pytest.mark.parametrize("queues", [None, ["celery"]])
def test_only_the_queues_it_serves_are_claimed(app: LiteTQ, queues: list[str] | None) -> None:
    app.task(name="note")(lambda n: n)
    [mine] = send(app, "note", (1,))
    [other] = send(app, "note", (2,), queue="mail")
    with app.run_embedded(queues=queues) as worker:
        assert worker.drain(20)
    assert state(app, mine) == "SUCCESS" and place(app, other) == "QUEUED"
    with app.run_embedded(queues=["mail"]) as worker:
        assert worker.drain(20)
    assert state(app, other) == "SUCCESS"


@pytest.mark.row("8.-O fair")
def test_no_short_task_waits_for_a_long_one_in_threads(app: LiteTQ, gate: Gate) -> None:
    app.task(name="long")(gate)
    app.task(name="short")(lambda n: n)
    with app.run_embedded(concurrency=2):
        short = send(app, "short", *[(n,) for n in range(200)])  # now they are known to be quick
        eventually(lambda: state(app, short[-1]) == "SUCCESS")
        [long] = send(app, "long", ("a",))
        eventually(lambda: gate.come)
        more = send(app, "short", *[(n,) for n in range(200)])
        eventually(lambda: all(record.state == "SUCCESS" for record in app.engine.read_many(more).values()))
        assert place(app, long) == "CLAIMED"
        gate.open.set()


PROGRAM = """
import os, time
from pathlib import Path
from litetq import LiteTQ

HERE = Path(__file__).parent
app = LiteTQ("tasks", broker=HERE / "jobs.sqlite")

@app.task
def work(n):
    if n < 0:
        (HERE / "come").touch()
        while not (HERE / "go").exists():
            time.sleep(0.005)
    return os.getpid()

@app.task
def other(n):
    time.sleep(0.008)  # over before its child would count as one that shows no progress

if __name__ == "__main__":
    import sys
    from tests.running import test_worker
    with app.run_embedded(concurrency=2, pool="processes") as worker:
        getattr(test_worker, sys.argv[1])(app, worker, HERE)
"""


def mixed_load(app: LiteTQ, worker: Any, house: Path) -> None:
    """A quick task's name turns out slow once: what waited behind it in the same child is given back and runs elsewhere."""
    first = send(app, "tasks.work", *[(n,) for n in range(500)])
    eventually(lambda: state(app, first[-1]) == "SUCCESS")
    calls = [(-1,) if n == 40 else (n,) for n in range(400)]
    ids = send(app, "tasks.work", *calls)
    eventually(lambda: (house / "come").exists())
    quick = [id for id, call in zip(ids, calls, strict=True) if call != (-1,)]
    eventually(lambda: all(record.state == "SUCCESS" for record in app.engine.read_many(quick).values()))
    assert state(app, ids[40]) == "PENDING"
    attempts = app.engine.database.read(lambda tx: tx.execute("SELECT DISTINCT attempts FROM litetq_result").fetchall())
    assert attempts == [(1,)], "to be given back spends no attempt"
    (house / "go").touch()
    eventually(lambda: state(app, ids[40]) == "SUCCESS")


@pytest.mark.row("8.-O fair")
def test_what_waits_behind_a_slow_task_in_a_child_is_given_back(tmp_path: Path, run_python: Any) -> None:
    (tmp_path / "tasks.py").write_text(PROGRAM, encoding="utf-8")
    process = run_python(tmp_path / "tasks.py", "mixed_load")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


def unknown_behind_quick(app: LiteTQ, worker: Any, house: Path) -> None:
    first = send(app, "tasks.work", *[(n,) for n in range(500)])
    eventually(lambda: state(app, first[-1]) == "SUCCESS", 40)
    before = worker.statistics().released
    others = send(app, "tasks.other", *[(n,) for n in range(20)])
    eventually(lambda: state(app, others[-1]) == "SUCCESS", 40)
    released = worker.statistics().released - before
    assert released < 40, f"{released} claims of 20 tasks were given back"


@pytest.mark.row("8.prefetch")
def test_what_no_child_can_take_is_not_claimed_again_and_again(tmp_path: Path, run_python: Any) -> None:
    (tmp_path / "tasks.py").write_text(PROGRAM, encoding="utf-8")
    process = run_python(tmp_path / "tasks.py", "unknown_behind_quick")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


@pytest.mark.row("8.prefetch")
def test_a_worker_that_is_full_claims_nothing_that_it_would_have_to_give_back(app: LiteTQ, gate: Gate) -> None:
    app.task(name="long")(gate)
    app.task(name="short")(lambda n: n)
    with app.run_embedded(concurrency=1) as worker:
        short = send(app, "short", *[(n,) for n in range(200)])
        eventually(lambda: state(app, short[-1]) == "SUCCESS")
        send(app, "long", ("a",))
        eventually(lambda: gate.come)
        [behind] = send(app, "short", (1,))
        deadline = time.monotonic() + 0.5
        eventually(lambda: time.monotonic() > deadline)
        released = worker.statistics().released
        assert released < 20, f"{released} claims were given back within half a second"
        gate.open.set()
        eventually(lambda: state(app, behind) == "SUCCESS")


@pytest.mark.row("8.threads pool: shutdown leaves what waits")
@pytest.mark.parametrize("pool", IN_PROCESS)
def test_a_warm_stop_lets_run_what_runs_and_leaves_the_rest_unspent(app: LiteTQ, gate: Gate, pool: str) -> None:
    app.task(name="hold")(gate)
    ids = send(app, "hold", *[(n,) for n in range(5)])
    worker = app.run_embedded(concurrency=1, pool=pool)
    eventually(lambda: gate.come)
    assert worker.stop(0) is False
    gate.open.set()
    assert worker.join(20)
    assert [state(app, id) for id in ids] == ["SUCCESS"] + ["PENDING"] * 4
    attempts = app.engine.database.read(
        lambda tx: tx.execute("SELECT DISTINCT attempts, state FROM litetq_task").fetchall()
    )
    assert attempts == [(0, 0)]
    assert app.engine.store.roster.workers() == []


@pytest.mark.row("8.cold shutdown")
def test_a_cold_stop_ends_what_runs_by_the_rule_for_lost_workers(
    app: LiteTQ, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    app.task(name="early")(gate)
    app.task(name="late", acks_late=True)(gate)
    [early], [late] = send(app, "early", ("e",)), send(app, "late", ("l",))
    [waiting] = send(app, "early", ("w",))
    worker = app.run_embedded(concurrency=2)
    eventually(lambda: len(gate.come) == 2)
    assert worker.stop(20, how="cold")
    assert state(app, early) == "FAILURE" and isinstance(app.AsyncResult(early).result, WorkerLostError)
    assert place(app, late) == "QUEUED" and place(app, waiting) == "QUEUED"
    why = "Worker was stopped cold while the task ran."
    assert f"Task early[{early}]: {why} It ends as FAILURE." in caplog.messages
    assert f"Task late[{late}]: {why} It runs again." in caplog.messages
    gate.open.set()
    with app.run_embedded() as again:
        assert again.drain(20)
    assert state(app, late) == "SUCCESS" and state(app, early) == "FAILURE"


def test_start_and_stop_may_be_repeated(app: LiteTQ) -> None:
    app.task(name="note")(lambda n: n)
    for n in range(5):
        with app.run_embedded(concurrency=2) as worker:
            assert app.send_task("note", (n,)).get(timeout=10) == n
        assert worker.stop() and worker.stop(how="cold") and worker.join()


def test_two_workers_in_one_process_share_the_work(app: LiteTQ) -> None:
    app.task(name="note")(lambda n: n)
    ids = send(app, "note", *[(n,) for n in range(300)])
    with app.run_embedded(hostname="a@here") as one, app.run_embedded(hostname="b@here") as two:
        eventually(lambda: all(record.place == "DONE" for record in app.engine.read_many(ids).values()))
        assert len(app.engine.store.roster.workers()) == 2
        eventually(lambda: sum(w.statistics().total.get("note", 0) for w in (one, two)) == 300)


def test_a_worker_declared_dead_goes_on_under_a_new_identity(app: LiteTQ, gate: Gate) -> None:
    app.task(name="hold")(gate)
    app.task(name="note")(lambda n: n)
    [held] = send(app, "hold", (1,))
    with app.run_embedded(concurrency=2) as worker:
        eventually(lambda: gate.come)
        [before] = app.engine.store.roster.workers()
        app.engine.store.roster.rescue(before.id, None, time.time())
        worker._seat.beat()
        [after] = app.engine.store.roster.workers()
        assert after.id > before.id and after.run == before.run
        gate.open.set()
        assert app.send_task("note", (7,)).get(timeout=10) == 7
        eventually(lambda: worker.statistics().lost == 1)
    assert state(app, held) == "FAILURE"


def test_a_full_disk_at_the_end_of_a_task_loses_nothing(
    app: LiteTQ, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """The outcome is kept, claiming stops, and the settle is tried again until there is space."""
    app.task(name="big")(lambda who: gate(who) or "x" * 200_000)
    [first, second] = send(app, "big", ("a",), ("b",))
    with app.run_embedded(concurrency=1):
        eventually(lambda: gate.come)
        set_limit = lambda tx, pages: tx.execute(f"PRAGMA max_page_count = {pages}").fetchall()  # noqa: E731
        app.engine.database.write(lambda tx: set_limit(tx, 1))
        gate.open.set()
        # It runs and cannot be recorded; the second one is not even claimed.
        eventually(lambda: "the disk is full" in caplog.text or "cannot write" in caplog.text)
        assert place(app, first) == "CLAIMED" and len(gate.come) == 1
        app.engine.database.write(lambda tx: set_limit(tx, 1_000_000))
        eventually(lambda: state(app, second) == "SUCCESS", 15)
    assert state(app, first) == "SUCCESS" and gate.come == ["a", "b"]


def test_an_end_that_the_file_refuses_fails_its_task_and_its_neighbours_stand(
    app: LiteTQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(name: str, task: Any, **known: Any) -> Callable[[Delivery], Outcome]:
        trace = execution.Tracer(name, task, **known)

        def spoiled(delivery: Delivery) -> Outcome:
            outcome = trace(delivery)
            return outcome._replace(state=None) if delivery.body == b"[[3], {}]" else outcome  # type: ignore[arg-type]

        return spoiled

    monkeypatch.setattr(execution, "build_tracer", build)
    app.task(name="note")(lambda n: n)
    ids = send(app, "note", *[(n,) for n in range(6)])
    with app.run_embedded(pool="solo") as worker:
        assert worker.drain(20)
    assert [state(app, id) for id in ids] == ["SUCCESS"] * 3 + ["FAILURE"] + ["SUCCESS"] * 2


def test_tools_may_wrap_every_attempt_through_one_slot(app: LiteTQ, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    original = execution.build_tracer

    def build(name: str, task: Any, **known: Any) -> Callable[[Delivery], Outcome]:
        trace = original(name, task, **known)
        return lambda delivery: (seen.append(delivery.id), trace(delivery))[1]

    monkeypatch.setattr(execution, "build_tracer", build)
    app.task(name="note")(lambda n: n)
    with app.run_embedded():
        result = app.send_task("note", (1,))
        assert result.get(timeout=10) == 1
    assert seen == [result.id]


@pytest.mark.row("2.methods: retry")
@pytest.mark.row("2.request: retries")
def test_a_retry_keeps_id_and_place_and_leaves_its_history(app: LiteTQ) -> None:
    order: list[str] = []

    @app.task(name="flaky", bind=True, max_retries=3, default_retry_delay=0)
    def flaky(self: Any) -> str:
        order.append(f"flaky {self.request.retries}")
        if self.request.retries < 2:
            raise self.retry(exc=ValueError("again"))
        return "done"

    app.task(name="note")(lambda n: order.append(f"note {n}"))
    [id] = send(app, "flaky", ())
    send(app, "note", *[(n,) for n in range(500)])
    with app.run_embedded(pool="solo") as worker:
        assert worker.drain(20)
    # It goes before all that was sent after it, but for what had been claimed together with it.
    assert order.index("flaky 2") < 300 and order[-1] == "note 499"
    record = app.engine.read(id)
    assert record is not None and (record.state, record.retries) == ("SUCCESS", 2)
    assert [(a["attempt"], a["outcome"]) for a in app.engine.store.records.attempts_of(id)] == [
        (1, "RETRY"),
        (2, "RETRY"),
    ]


@pytest.mark.row("4.new arguments")
def test_a_retry_with_new_arguments_runs_with_them(app: LiteTQ) -> None:
    seen: list[int] = []

    @app.task(name="count", bind=True, default_retry_delay=0)
    def count(self: Any, n: int) -> int:
        seen.append(n)
        if n < 3:
            raise self.retry(args=(n + 1,))
        return n

    with app.run_embedded():
        assert count.delay(1).get(timeout=10) == 3
    assert seen == [1, 2, 3]


@pytest.mark.row("3.expires")
def test_an_expired_task_is_revoked_though_nobody_claims_it(app: LiteTQ) -> None:
    app.task(name="note")(lambda n: n)
    with app.run_embedded(queues=["other"]):
        result = app.send_task("note", (1,), expires=0.01)
        with pytest.raises(TaskRevokedError, match="expired"):
            result.get(timeout=10)
    assert result.state == "REVOKED"


@pytest.mark.row("6.revoke")
@pytest.mark.row("8.revoke")
def test_a_task_revoked_while_it_waits_never_runs(app: LiteTQ, gate: Gate) -> None:
    app.task(name="hold")(gate)
    with app.run_embedded(concurrency=1):
        first, second = app.send_task("hold", (1,)), app.send_task("hold", (2,))
        eventually(lambda: gate.come)
        second.revoke()
        assert second.state == "REVOKED"
        gate.open.set()
        first.get(timeout=10)
    assert gate.come == [1]


@pytest.mark.row("3.countdown, eta")
def test_a_task_starts_when_it_is_due_and_not_before(app: LiteTQ) -> None:
    @app.task(name="now")
    def now() -> float:
        return time.time()

    with app.run_embedded():
        due = time.time() + 0.3
        result = now.apply_async(countdown=0.3)
        assert place(app, result.id) == "SCHEDULED"
        assert result.get(timeout=10) >= due - 0.01


@pytest.mark.row("2.exceptions Ignore, Reject")
def test_a_rejected_message_is_given_back_and_bounded(app: LiteTQ) -> None:
    runs: list[int] = []

    @app.task(name="refuse", acks_late=True)
    def refuse() -> None:
        runs.append(1)
        raise Reject("not here", requeue=True)

    [id] = send(app, "refuse", ())
    with app.run_embedded(pool="solo") as worker:
        assert worker.drain(20)
    record = app.engine.read(id)
    assert record is not None and record.state == "FAILURE" and len(runs) == 6  # once, and five redeliveries
    assert "redelivered" in (record.reason or "")


@pytest.mark.row("20.result_backend")
def test_results_in_another_file_are_copied_there(tmp_path: Path) -> None:
    app = LiteTQ(
        "tasks",
        broker=tmp_path / "jobs.sqlite",
        backend=f"db+sqlite:///{tmp_path / 'results.sqlite'}",
        set_as_current=False,
    )
    app.task(name="note")(lambda n: n)
    with app.run_embedded():
        results = [app.send_task("note", (n,)) for n in range(20)]
        assert [result.get(timeout=10) for result in results] == list(range(20))
        failed = app.send_task("note", ())
        with pytest.raises(TypeError):
            failed.get(timeout=10)
    app.close()
    copies = FileEngine(tmp_path / "results.sqlite")  # alone: an app would look into the file of the tasks, too
    found = copies.read_many([result.id for result in (*results, failed)])
    assert [found[result.id].result for result in results] == [str(n).encode() for n in range(20)]
    assert found[failed.id].state == "FAILURE"
    copies.close()


def test_a_pool_process_that_cannot_start_ends_the_worker_with_a_sentence(app: LiteTQ) -> None:
    """This app is made inside of a function: no other process can find it."""
    with pytest.raises(RuntimeError, match="cannot be found by a new process"):
        app.run_embedded(pool="processes")
    assert app.engine.store.roster.workers() == []


@pytest.mark.parametrize(
    ("options", "words"), [({"pool": "nonsense"}, "no such pool"), ({"concurrency": -1}, "at least one")]
)
def test_wrong_options_are_refused_before_anything_starts(app: LiteTQ, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=words):
        app.run_embedded(**options)
