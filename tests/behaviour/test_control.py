"""Remote control, events, and what beat sends: who answers, what changes, what is heard."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from litetq.exceptions import TaskRevokedError
from tests.behaviour.conftest import LONG, Place
from tests.waiting import eventually

NODE = "one@here"


def ask(worker: Place, command: str, *args: Any) -> Any:
    """Return what the worker answers."""
    found = getattr(worker.app.control.inspect([NODE], timeout=LONG), command)(*args)
    assert found is not None, f"no answer to {command}"
    return found[NODE]


def test_workers_answer_a_ping(worker: Place) -> None:
    assert worker.app.control.ping([NODE], timeout=LONG) == [{NODE: {"ok": "pong"}}]
    assert ask(worker, "ping") == {"ok": "pong"}


def test_workers_say_what_they_are(worker: Place) -> None:
    assert "add" in ask(worker, "registered")
    stats = ask(worker, "stats")
    assert stats["pool"]["max-concurrency"] == 8
    assert stats["pid"] > 0
    assert [queue["name"] for queue in ask(worker, "active_queues")] == ["celery"]
    assert ask(worker, "report")["ok"]
    assert ask(worker, "conf")["worker_send_task_events"] is True
    assert isinstance(ask(worker, "clock")["clock"], int)


def test_questions_one_after_another_are_all_answered(worker: Place) -> None:
    times = [ask(worker, "clock")["clock"] for _ in range(20)]
    assert times == sorted(times)


def test_tasks_are_seen_on_their_way(worker: Place) -> None:
    running = worker.task("held").delay("seen running")
    later = worker.task("add").apply_async((1, 2), countdown=600)
    worker.noted("began-seen running")
    [active] = ask(worker, "active")
    assert (active["id"], active["name"], active["hostname"]) == (running.id, "held", NODE)
    assert active["args"] == ["seen running"]
    eventually(lambda: later.id in {found["request"]["id"] for found in ask(worker, "scheduled")}, within=LONG)
    assert ask(worker, "query_task", running.id)[running.id][0] == "active"
    later.revoke()
    with pytest.raises(TaskRevokedError):
        later.get(timeout=LONG)
    assert later.id in ask(worker, "revoked")
    worker.let_go("seen running")
    assert running.get(timeout=LONG) == "seen running"
    eventually(lambda: not ask(worker, "active"), within=LONG)


def test_a_pool_grows_and_shrinks(worker: Place) -> None:
    control = worker.app.control
    control.pool_grow(2, destination=[NODE], reply=True)
    eventually(lambda: ask(worker, "stats")["pool"]["max-concurrency"] == 10, within=LONG)
    control.pool_shrink(2, destination=[NODE], reply=True)
    eventually(lambda: ask(worker, "stats")["pool"]["max-concurrency"] == 8, within=LONG)


def test_limits_are_set_from_afar(worker: Place) -> None:
    control = worker.app.control
    [answer] = control.rate_limit("same", "100/s", destination=[NODE], reply=True, timeout=LONG)
    assert answer[NODE] == {"ok": "new rate limit set successfully"}
    [answer] = control.time_limit("too_long", soft=0.3, hard=50, destination=[NODE], reply=True, timeout=LONG)
    assert "ok" in answer[NODE]
    assert worker.task("too_long").delay(True).get(timeout=LONG) == "cleaned"


def test_an_order_to_a_task_that_is_not_known_is_answered(worker: Place) -> None:
    [answer] = worker.app.control.rate_limit("no.such.task", "1/s", destination=[NODE], reply=True, timeout=LONG)
    assert "error" in answer[NODE] or "ok" in answer[NODE]


def test_a_worker_is_stopped_from_afar(place: Place) -> None:
    process = place.start(
        "leaver", "worker", "-n", "leaver@here", "-P", "threads", "-c", "1", "-Q", "leaving", "-l", "INFO"
    )
    eventually(lambda: "ready." in place.log("leaver"), within=LONG)
    place.app.control.shutdown(destination=["leaver@here"])
    assert process.wait(LONG) == 0


def test_the_command_line_asks_workers(worker: Place) -> None:
    process = worker.start("inspecting", "inspect", "ping", "-d", NODE, "--json", "-t", "20")
    assert process.wait(LONG) == 0, worker.log("inspecting")
    assert json.loads(worker.log("inspecting"))[NODE] == {"ok": "pong"}


# -- events


@pytest.fixture
def heard(worker: Place) -> Iterator[list[dict[str, Any]]]:
    """The events that are told while a test runs."""
    found: list[dict[str, Any]] = []
    over = threading.Event()

    def take(event: dict[str, Any]) -> None:
        found.append(event)
        if over.is_set():
            raise KeyboardInterrupt

    def listen() -> None:
        with worker.app.connection_for_read() as connection:
            receiver = worker.app.events.Receiver(connection, handlers={"*": take})
            ready.set()
            while not over.is_set():
                try:
                    receiver.capture(limit=None, timeout=0.2, wakeup=False)
                except (TimeoutError, OSError):
                    continue
                except KeyboardInterrupt:
                    return

    ready = threading.Event()
    thread = threading.Thread(target=listen)
    thread.start()
    assert ready.wait(LONG)
    # A listener hears from some moment on: that moment has come when it hears of a task.
    eventually(lambda: worker.task("add").delay(0, 0).get(timeout=LONG) or found, within=LONG)
    yield found
    over.set()
    thread.join(LONG)


def test_what_happens_to_tasks_is_heard(worker: Place, heard: list[dict[str, Any]]) -> None:
    def told(id: str) -> list[str]:
        return [event["type"] for event in heard if event.get("uuid") == id]

    done = worker.task("add").delay(2, 3)
    assert done.get(timeout=LONG) == 5
    eventually(lambda: "task-succeeded" in told(done.id), within=LONG)
    assert told(done.id) == ["task-received", "task-started", "task-succeeded"]
    [received] = [event for event in heard if event.get("uuid") == done.id and event["type"] == "task-received"]
    assert (received["name"], received["args"], received["hostname"]) == ("add", "(2, 3)", NODE)
    failed = worker.task("fail").delay("heard")
    eventually(lambda: "task-failed" in told(failed.id), within=LONG)
    [failure] = [event for event in heard if event.get("uuid") == failed.id and event["type"] == "task-failed"]
    assert failure["exception"] == "ValueError('heard')"
    again = worker.task("third_time").delay()
    eventually(lambda: "task-succeeded" in told(again.id), within=LONG)
    assert told(again.id).count("task-retried") == 2


def test_workers_are_heard_and_may_be_told_to_be_silent(worker: Place, heard: list[dict[str, Any]]) -> None:
    control = worker.app.control
    control.heartbeat(destination=[NODE])  # at once, instead of some seconds later
    eventually(lambda: any(event["type"] == "worker-heartbeat" for event in heard), within=LONG)
    control.disable_events(destination=[NODE], reply=True)
    silent = worker.task("add").delay(2, 3)
    assert silent.get(timeout=LONG) == 5
    control.enable_events(destination=[NODE], reply=True)
    last = worker.task("add").delay(2, 3)
    eventually(lambda: any(event.get("uuid") == last.id for event in heard), within=LONG)
    assert not any(event.get("uuid") == silent.id for event in heard)


# -- what is sent when its time has come


def test_beat_sends_what_is_due_and_workers_run_it(worker: Place) -> None:
    worker.start("beat", "beat", "-l", "INFO", "-s", str(worker.folder / "schedule"))
    eventually(lambda: len(worker.notes("tick")) >= 3, within=LONG)
    assert worker.stop("beat") == 0
