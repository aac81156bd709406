"""Events: what is told of tasks and workers, in which order, to whom, and what the picture drawn from it says."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, clock, mailbox
from litetq.exceptions import Reject
from litetq.message import Message, Plan, uuid
from tests.conftest import RunPython
from tests.waiting import eventually

LONG = 30.0


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    app = LiteTQ("tasks", broker=db, set_as_current=False, worker_send_task_events=True)
    yield app
    app.close()


def told(app: LiteTQ, id: str | None = None, after: int = 0) -> list[dict[str, Any]]:
    """Return the events that the file holds (of a task)."""
    return [event for event in app.engine.mailbox.events(after, 100_000) if id is None or event.get("uuid") == id]


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


TASKS = """
import os, sys
from pathlib import Path
from litetq import LiteTQ

app = LiteTQ("tasks", broker="jobs.sqlite")

@app.task
def add(x, y):
    return x + y

@app.task(bind=True, max_retries=1, default_retry_delay=0.01)
def again(self):
    raise self.retry(exc=ValueError("no"))
"""


@pytest.mark.row("14.task-sent, -received, -started, -succeeded")
@pytest.mark.row("20.task_send_sent_event")
def test_a_success_is_told_from_its_call_to_its_end(app: LiteTQ) -> None:
    app.conf.task_send_sent_event = True
    app.task(name="add")(lambda x, y: x + y)
    with app.run_embedded(hostname="w@x"):
        sent = app.tasks["add"].delay(2, y=3)
        assert sent.get(timeout=LONG) == 5
        found = told(app, sent.id)
    assert types(found) == ["task-sent", "task-received", "task-started", "task-succeeded"]
    call, received, started, succeeded = found
    assert (call["args"], call["kwargs"], call["queue"]) == ("(2,)", "{'y': 3}", "celery")
    assert call["hostname"].startswith("gen") and {event["hostname"] for event in found[1:]} == {"w@x"}
    assert (received["name"], received["args"], received["retries"], received["root_id"]) == ("add", "(2,)", 0, sent.id)
    assert (succeeded["result"], succeeded["runtime"] >= 0) == ("5", True)
    assert [event["clock"] for event in found] == sorted(event["clock"] for event in found)
    assert started["timestamp"] == pytest.approx(clock.now(), abs=LONG)


def test_a_start_is_told_while_the_task_runs_also_when_it_waited_in_the_pool(app: LiteTQ) -> None:
    go = threading.Event()

    @app.task(name="mostly_quick")
    def mostly_quick(wait: bool) -> None:
        assert not wait or go.wait(LONG)

    with app.run_embedded(concurrency=1):
        for _ in range(3):  # now it is known to be quick, and several are given to the thread at once
            last = [mostly_quick.delay(False) for _ in range(50)][-1]
            last.get(timeout=LONG)
        bodies = [b"[[false],{}]", b"[[true],{}]"]
        messages = [Message(uuid(), "mostly_quick", body) for body in bodies]
        app.engine.send(Plan(tuple(messages)))
        eventually(lambda: "task-started" in types(told(app, messages[1].id)), LONG)
        go.set()
        eventually(lambda: "task-succeeded" in types(told(app, messages[1].id)), LONG)
    assert types(told(app, messages[1].id)) == ["task-received", "task-started", "task-succeeded"]


@pytest.mark.row("14.task-failed, -retried")
def test_a_retry_and_the_failure_after_it_are_told_with_the_exception(app: LiteTQ) -> None:
    @app.task(name="again", bind=True, max_retries=1)
    def again(self: Any) -> None:
        raise self.retry(exc=ValueError("no"), countdown=0)

    with app.run_embedded():
        sent = again.delay()
        with pytest.raises(ValueError, match="no"):
            sent.get(timeout=LONG)
        found = told(app, sent.id)
    attempt = ["task-received", "task-started"]
    assert types(found) == [*attempt, "task-retried", *attempt, "task-failed"]
    assert found[2]["exception"] == found[5]["exception"] == "ValueError('no')"
    assert "ValueError: no" in found[5]["traceback"] and found[3]["retries"] == 1


@pytest.mark.row("14.task-rejected")
def test_a_rejection_is_told(app: LiteTQ) -> None:
    @app.task(name="refuse", acks_late=True)
    def refuse(requeue: bool) -> None:
        if requeue and refused:
            return
        refused.append(requeue)
        raise Reject("no", requeue=requeue)

    refused: list[bool] = []
    with app.run_embedded():
        once = refuse.delay(True)
        assert once.get(timeout=LONG) is None
        for_good = refuse.delay(False)
        eventually(lambda: "task-rejected" in types(told(app, for_good.id)))
    assert [event["requeue"] for event in told(app) if event["type"] == "task-rejected"] == [True, False]


@pytest.mark.row("14.task-revoked")
def test_what_ends_without_having_run_is_told_too(app: LiteTQ) -> None:
    app.task(name="add")(lambda: None)
    with app.run_embedded(hostname="w@x"):
        revoked = app.tasks["add"].apply_async(countdown=1000)
        revoked.revoke()
        expired = app.tasks["add"].apply_async(countdown=1000, expires=0.01)
        eventually(lambda: told(app, expired.id), LONG)
    [first], [second] = told(app, revoked.id), told(app, expired.id)
    assert (first["type"], first["expired"], first["terminated"]) == ("task-revoked", False, False)
    assert (second["type"], second["expired"], second["hostname"]) == ("task-revoked", True, "w@x")


def test_the_end_is_told_if_and_only_if_it_is_on_record(app: LiteTQ) -> None:
    """The claim is lost before the settle: the late worker's end changes nothing, and is not told."""
    come, go = threading.Event(), threading.Event()

    @app.task(name="late")
    def late() -> str:
        come.set()
        assert go.wait(LONG)
        return "late"

    with app.run_embedded(concurrency=1) as worker:
        sent = late.delay()
        assert come.wait(LONG)
        [row] = app.engine.workers()
        app.engine.store.roster.rescue(row.id, None, clock.now())
        go.set()
        eventually(lambda: worker.statistics().lost == 1)
    assert sent.state == "FAILURE"
    assert "task-succeeded" not in types(told(app, sent.id))


@pytest.mark.row("2.send_events")
@pytest.mark.row("2.methods: send_event")
def test_a_task_may_tell_of_itself_or_nothing_at_all(app: LiteTQ) -> None:
    @app.task(name="tells", bind=True)
    def tells(self: Any) -> None:
        self.send_event("task-progress", percent=30, where=Path("x"))

    app.task(name="silent", send_events=False)(lambda: None)
    with app.run_embedded(hostname="w@x"):
        sent, silent = tells.delay(), app.tasks["silent"].delay()
        sent.get(timeout=LONG), silent.get(timeout=LONG)
        found = told(app, sent.id)
    assert types(found) == ["task-received", "task-started", "task-progress", "task-succeeded"]
    assert (found[2]["percent"], found[2]["where"], found[2]["hostname"]) == (30, repr(Path("x")), "w@x")
    assert told(app, silent.id) == []


@pytest.mark.row("20.worker_send_task_events")
def test_without_the_option_nothing_is_written(app: LiteTQ) -> None:
    app.conf.worker_send_task_events = False
    app.task(name="add")(lambda: None)
    with app.run_embedded() as worker:
        app.tasks["add"].delay().get(timeout=LONG)
        app.tasks["add"].apply_async(countdown=1000).revoke()
        assert not worker.sends_events
    assert told(app) == []


@pytest.mark.row("9.control: enable_events, disable_events")
def test_events_are_turned_on_and_off_from_outside(app: LiteTQ) -> None:
    app.conf.worker_send_task_events = False
    app.task(name="add")(lambda: None)

    def answers(replies: Any) -> Any:
        [reply] = replies
        return list(reply.values())

    with app.run_embedded():
        assert answers(app.control.enable_events(reply=True, timeout=LONG)) == [{"ok": "task events enabled"}]
        assert answers(app.control.enable_events(reply=True, timeout=LONG)) == [{"ok": "task events already enabled"}]
        first = app.tasks["add"].delay()
        first.get(timeout=LONG)
        assert answers(app.control.disable_events(reply=True, timeout=LONG)) == [{"ok": "task events disabled"}]
        assert answers(app.control.disable_events(reply=True, timeout=LONG)) == [{"ok": "task events already disabled"}]
        second = app.tasks["add"].delay()
        second.get(timeout=LONG)
    assert types(told(app, first.id))[-1] == "task-succeeded" and told(app, second.id) == []


@pytest.mark.row("9.control: heartbeat")
@pytest.mark.row("14.worker-online, -heartbeat, -offline")
def test_workers_tell_that_they_come_live_and_go(app: LiteTQ) -> None:
    with app.run_embedded(hostname="w@x"):
        app.control.heartbeat(reply=True, timeout=LONG)
    found = told(app)
    assert types(found) == ["worker-online", "worker-heartbeat", "worker-offline"]
    for event in found:
        assert event["hostname"] == "w@x" and {"freq", "active", "processed", "loadavg", "sw_ident"} <= event.keys()


@pytest.mark.row("1.app.events")
@pytest.mark.row("14.Receiver: handlers, capture, itercapture, limit, timeout, wakeup")
def test_one_process_reads_what_another_does(app: LiteTQ, tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "tasks.py").write_text(TASKS)
    heard: list[dict[str, Any]] = []
    receiver = app.events.Receiver(handlers={"task-succeeded": heard.append, "task-failed": heard.append})
    run_python("-m", "litetq", "-A", "tasks", "worker", "-c", "1", "-E")
    good, bad = app.send_task("tasks.add", (1, 2)), app.send_task("tasks.again")
    for _ in receiver.itercapture(timeout=LONG, wakeup=False):
        receiver.should_stop = len(heard) == 2
    assert {event["uuid"]: event["type"] for event in heard} == {good.id: "task-succeeded", bad.id: "task-failed"}
    assert types(told(app, good.id)) == ["task-received", "task-started", "task-succeeded"]


def test_a_reader_is_woken_by_what_it_waits_for(app: LiteTQ) -> None:
    heard: list[dict[str, Any]] = []
    receiver = app.events.Receiver(handlers={"*": heard.append})
    reader = threading.Thread(target=lambda: receiver.capture(limit=1, wakeup=False))
    reader.start()
    app.events.default_dispatcher(hostname="me@x").send("my-event", said="hello")
    reader.join(LONG)
    assert not reader.is_alive()
    assert [(event["type"], event["said"], event["hostname"]) for event in heard] == [("my-event", "hello", "me@x")]
    assert heard[0]["local_received"] >= heard[0]["timestamp"]


@pytest.mark.row("14.Receiver: handlers, capture, itercapture, limit, timeout, wakeup")
def test_a_reader_ends_at_its_limit_its_time_or_when_told(app: LiteTQ) -> None:
    send = app.events.default_dispatcher().send
    receiver = app.events.Receiver()
    for n in range(3):
        send("my-event", n=n)
    receiver.capture(limit=2)
    assert [event["n"] for event in receiver.itercapture(limit=1)] == [2]
    with pytest.raises(TimeoutError):
        receiver.capture(timeout=0.01)
    receiver.should_stop = True
    receiver.capture()
    assert [event["n"] for event in app.events.Receiver(since=0).itercapture(limit=3)] == [0, 1, 2]


def test_a_reader_takes_only_what_its_key_says(app: LiteTQ) -> None:
    receiver = app.events.Receiver(routing_key="task.#")
    for type in ("worker-online", "task-sent", "other", "task-my-own"):
        app.events.default_dispatcher().send(type)
    assert types(list(receiver.itercapture(limit=2, wakeup=False))) == ["task-sent", "task-my-own"]


@pytest.mark.row("14.Receiver: handlers, capture, itercapture, limit, timeout, wakeup")
def test_whoever_starts_to_watch_learns_who_is_there(app: LiteTQ) -> None:
    app.conf.worker_send_task_events = False
    state = app.events.State()
    with app.run_embedded(hostname="w@x"):
        app.events.Receiver(handlers={"*": state.event}).capture(limit=1, timeout=LONG)
        assert [worker.hostname for worker in state.alive_workers()] == ["w@x"]


def test_the_newest_events_are_kept(
    app: LiteTQ, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mailbox, "EVENTS_KEPT", 5)
    slow = app.events.Receiver()
    app.events.default_dispatcher().send("my-event", n=-1)
    [_] = slow.itercapture(limit=1)
    for n in range(20):
        app.events.default_dispatcher().send("my-event", n=n)
    assert [event["n"] for event in told(app)] == [15, 16, 17, 18, 19]
    assert [event["n"] for event in slow.itercapture(limit=5)] == [15, 16, 17, 18, 19]
    assert "15 events" in caplog.text
    later = clock.now() + mailbox.EVENTS_KEPT_S + 1
    app.engine.mailbox.prune(later)
    assert told(app) == []


def test_the_picture_shows_workers_and_tasks(app: LiteTQ) -> None:
    app.task(name="add")(lambda x: x)
    app.task(name="bad")(lambda: 1 / 0)
    joined: list[str] = []
    left: list[str] = []
    state = app.events.State(
        on_node_join=lambda worker: joined.append(worker.hostname),
        on_node_leave=lambda worker: left.append(worker.hostname),
    )
    receiver = app.events.Receiver(handlers={"*": state.event})
    with app.run_embedded(hostname="w@x"):
        good, bad = app.tasks["add"].delay(1), app.tasks["bad"].delay()
        eventually(lambda: {good.state, bad.state} == {"SUCCESS", "FAILURE"})
        receiver.capture(limit=7, timeout=LONG, wakeup=False)
        assert [worker.hostname for worker in state.alive_workers()] == ["w@x"] == joined
    assert state.event_count == 7 and state.task_count == 2
    assert state.task_types() == ["add", "bad"]
    task = state.tasks[good.id]
    assert (task.name, task.state, task.result, task.args, task.ready) == ("add", "SUCCESS", "1", "(1,)", True)
    assert task.worker is not None and task.worker.hostname == "w@x" and task.info()["result"] == "1"
    assert state.tasks[bad.id].exception == "ZeroDivisionError('division by zero')"
    assert {task.uuid for task in state.tasks_by_type["add"]} == {good.id}
    assert [id for id, _ in state.tasks_by_worker("w@x", limit=1)] == [next(state.tasks_by_time())[0]]
    receiver.capture(limit=1, timeout=LONG, wakeup=False)
    assert left == ["w@x"] and list(state.alive_workers()) == []
    state.clear()
    assert not state.tasks and state.event_count == 0


def test_an_event_that_comes_late_does_not_turn_a_task_back(app: LiteTQ) -> None:
    state = app.events.State()
    common = {"hostname": "w@x", "uuid": "1", "local_received": time.time(), "timestamp": time.time()}
    state.event({**common, "type": "task-succeeded", "clock": 3, "result": "1", "runtime": 0.1})
    state.event({**common, "type": "task-received", "clock": 2, "name": "add", "args": "()", "foreign": 1})
    task = state.tasks["1"]
    assert (task.state, task.name, task.args, task.clock) == ("SUCCESS", "add", "()", 3)
    assert not hasattr(task, "foreign")


@pytest.mark.row("14.heartbeat rule")
def test_a_worker_that_is_not_heard_of_counts_as_offline(app: LiteTQ, monkeypatch: pytest.MonkeyPatch) -> None:
    state = app.events.State()
    now = clock.now()
    state.event({"type": "worker-heartbeat", "hostname": "w@x", "freq": 10, "timestamp": now, "local_received": now})
    assert state.workers["w@x"].alive and state.workers["w@x"].status_string == "ONLINE"
    monkeypatch.setattr(clock, "now", lambda: now + 21)
    assert not state.workers["w@x"].alive and list(state.alive_workers()) == []


def test_the_picture_forgets_the_oldest(app: LiteTQ) -> None:
    state = app.events.State(max_tasks_in_memory=2, max_workers_in_memory=1)
    for n in range(4):
        state.event({"type": "task-received", "uuid": str(n), "hostname": f"w{n}@x", "name": "add", "clock": n})
    assert list(state.tasks) == ["2", "3"] and list(state.workers) == ["w3@x"]
    assert state.freeze_while(lambda: len(state.tasks), clear_after=True) == 2
    assert list(state.tasks) == ["2", "3"]  # they have not ended
    state.clear(ready=False)
    assert not state.tasks


def test_the_picture_can_be_put_away_and_taken_up_again(app: LiteTQ) -> None:
    state = app.events.State(max_tasks_in_memory=3)
    for number in range(4):
        state.event(
            {
                "type": "task-sent",
                "uuid": f"t{number}",
                "hostname": "w",
                "name": "a.b",
                "timestamp": 1.0,
                "clock": number,
            }
        )
    again = pickle.loads(pickle.dumps(state))
    assert list(again.tasks) == ["t1", "t2", "t3"]
    assert again.tasks["t1"].cluster_state is again
    assert (again.event_count, again.task_types(), again.tasks.limit) == (4, ["a.b"], 3)
    again.tasks.limit = 1
    again.tasks.update()
    assert list(again.tasks) == ["t3"]


def test_an_event_without_a_type_is_refused(app: LiteTQ) -> None:
    with pytest.raises(TypeError, match="needs a type like 'task-progress', found ''"):
        app.events.default_dispatcher().send("")


def test_a_worker_that_has_gone_stays_in_the_picture_unless_somebody_is_told(app: LiteTQ) -> None:
    def told(type_: str, name: str = "w@x") -> dict[str, Any]:
        return {"type": type_, "hostname": name, "timestamp": time.time(), "local_received": time.time()}

    state = app.events.State()
    state.event(told("worker-online"))
    state.event(told("worker-offline"))
    assert state.workers["w@x"].status_string == "OFFLINE" and list(state.alive_workers()) == []
    (stranger, is_new), _ = state.event(told("worker-offline", "stranger@x"))
    assert not is_new and not stranger.alive and "stranger@x" not in state.workers
    left: list[Any] = []
    state = app.events.State(on_node_leave=left.append)
    state.event(told("worker-online"))
    state.event(told("worker-offline"))
    assert [worker.hostname for worker in left] == ["w@x"] and not state.workers


def test_an_event_of_a_worker_that_names_none_is_counted_and_passed_over(app: LiteTQ) -> None:
    state = app.events.State()
    assert state.event({"type": "worker-online"}) is None
    assert (state.event_count, list(state.workers)) == (1, [])
