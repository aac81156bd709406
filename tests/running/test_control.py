"""Remote control: who answers what and when, what an order changes, and what is known without any worker."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, clock, exceptions
from litetq.control import control_command, inspect_command
from litetq.exceptions import DuplicateNodenameWarning
from litetq.message import Message, Plan, uuid
from litetq.panel import PANEL
from tests.conftest import RunPython
from tests.waiting import eventually

LONG = 30.0  # seconds that an answer may take at most; each comes within milliseconds


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    app = LiteTQ("tasks", broker=db, set_as_current=False)
    yield app
    app.close()


class Gate:
    """A task waits here until the test opens it, and tells that it has come."""

    def __init__(self) -> None:
        self.come = threading.Event()
        self.open = threading.Event()

    def __call__(self, *_: Any) -> None:
        self.come.set()
        assert self.open.wait(LONG)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


@pytest.fixture
def panel() -> Iterator[None]:
    """Whatever commands the test adds are gone after it."""
    before = dict(PANEL)
    yield
    PANEL.clear()
    PANEL.update(before)


def ask(app: LiteTQ, command: str, destination: Any = None, **arguments: Any) -> Any:
    """Return the answer of the only worker."""
    [reply] = app.control.broadcast(command, arguments, destination=destination, reply=True, timeout=LONG)
    [answer] = reply.values()
    return answer


# -- who answers


@pytest.mark.row("1.app.control")
@pytest.mark.row("9.inspect: ping")
def test_a_worker_is_not_waited_for_longer_than_it_takes_to_answer(app: LiteTQ) -> None:
    with app.run_embedded(hostname="w@here"):
        began = time.monotonic()
        assert app.control.ping(timeout=LONG) == [{"w@here": {"ok": "pong"}}]
        assert app.control.inspect(timeout=LONG).ping() == {"w@here": {"ok": "pong"}}
        assert time.monotonic() - began < LONG / 2


@pytest.mark.row("9.Python API")
@pytest.mark.row("9.no reply")
def test_without_a_worker_nobody_answers(app: LiteTQ) -> None:
    inspect = app.control.inspect(timeout=0.05)
    assert app.control.ping(timeout=0.05) == []
    for question in ("ping", "stats", "active", "reserved", "scheduled", "registered", "revoked", "active_queues"):
        assert getattr(inspect, question)() is None
    assert app.control.broadcast("ping") is None  # nobody waits for an answer


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_worker_answers_while_all_its_places_are_busy(app: LiteTQ, gate: Gate, pool: str) -> None:
    task = app.task(name="busy")(gate)
    with app.run_embedded(pool=pool, concurrency=1):
        sent = task.delay()
        assert gate.come.wait(LONG)
        assert ask(app, "ping") == {"ok": "pong"}
        [active] = ask(app, "active")
        assert active["id"] == sent.id
        gate.open.set()


def test_a_worker_answers_while_it_stops(app: LiteTQ, gate: Gate) -> None:
    task = app.task(name="busy")(gate)
    with app.run_embedded(concurrency=1) as worker:
        task.delay()
        assert gate.come.wait(LONG)
        worker.stop(timeout=0)
        assert ask(app, "ping") == {"ok": "pong"} and len(ask(app, "active")) == 1
        gate.open.set()
        assert worker.join(LONG)
    assert app.control.ping(timeout=0.05) == []


def test_a_killed_worker_is_not_waited_for(app: LiteTQ, db: Path, tmp_path: Path, run_python: RunPython) -> None:
    worker = start_worker(run_python, tmp_path, db)
    eventually(lambda: app.control.ping(timeout=0.5), LONG)
    worker.kill()
    worker.wait(LONG)
    with app.run_embedded(hostname="w@here"):
        began = time.monotonic()
        assert app.control.ping(timeout=LONG) == [{"w@here": {"ok": "pong"}}]
        assert time.monotonic() - began < LONG / 2


@pytest.mark.row("20.worker_enable_remote_control")
def test_a_worker_without_remote_control_answers_nothing(app: LiteTQ) -> None:
    app.conf.worker_enable_remote_control = False
    with app.run_embedded():
        assert app.control.ping(timeout=0.2) == []


def test_an_order_is_not_for_workers_that_start_later(app: LiteTQ) -> None:
    app.control.shutdown()
    with app.run_embedded() as worker:
        assert ask(app, "ping") == {"ok": "pong"}
        assert worker.stopping is None


@pytest.mark.row("9.broadcast")
@pytest.mark.row("9.Python API")
def test_orders_reach_those_they_are_addressed_to(app: LiteTQ) -> None:
    with app.run_embedded(hostname="a@x"), app.run_embedded(hostname="b@x"):

        def asked(**address: Any) -> set[str]:
            return {node for reply in app.control.ping(**{"timeout": LONG, **address}) for node in reply}

        assert asked() == {"a@x", "b@x"}
        assert asked(destination=["b@x"]) == {"b@x"}
        assert asked(pattern="a@*", matcher="glob") == asked(pattern="a@", matcher="pcre") == {"a@x"}
        assert len(app.control.ping(timeout=LONG, limit=1)) == 1
        heard: list[Any] = []
        assert app.control.ping(timeout=LONG, callback=heard.append) == heard
        began = time.monotonic()
        assert asked(destination=["a@x", "not-yet@x"], timeout=0.3) == {"a@x"}
        assert time.monotonic() - began >= 0.3
        assert app.control.inspect("a@x").ping() == {"ok": "pong"}
        assert set(app.control.inspect(["a@x"]).stats()) == set(app.control.inspect(pattern="a*").stats()) == {"a@x"}


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ({"destination": "a@x"}, "destination must be a list/tuple"),
        ({"pattern": 1, "matcher": "glob"}, "must be strings"),
        ({"pattern": "a", "matcher": "regexp"}, "matcher='regexp'.* glob, pcre"),
        ({"pattern": "(", "matcher": "pcre"}, "no regular expression"),
    ],
)
def test_a_wrong_address_is_refused_before_anything_is_written(app: LiteTQ, address: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        app.control.broadcast("shutdown", **address)
    assert app.engine.mailbox.last_command() == 0


@pytest.mark.row("8.duplicate node name")
def test_two_workers_of_one_name_are_told_of(app: LiteTQ) -> None:
    with app.run_embedded(hostname="same@x"), app.run_embedded(hostname="same@x"):
        with pytest.warns(DuplicateNodenameWarning, match="same@x"):
            assert app.control.inspect(timeout=LONG).ping() == {"same@x": {"ok": "pong"}}


def test_old_orders_and_answers_leave_the_file(app: LiteTQ, monkeypatch: pytest.MonkeyPatch) -> None:
    app.conf.control_queue_ttl, app.conf.control_queue_expires = timedelta(minutes=5), 10
    with app.run_embedded():
        ask(app, "ping")
    later = clock.now() + 301
    monkeypatch.setattr(clock, "now", lambda: later)
    app.control.broadcast("ping")
    rows = app.engine.database.read(
        lambda tx: tx.execute(
            "SELECT (SELECT count(*) FROM litetq_command), (SELECT count(*) FROM litetq_reply)"
        ).fetchall()
    )
    assert rows == [(1, 0)]


# -- commands of one's own


@pytest.mark.usefixtures("panel")
def test_commands_of_ones_own_are_answered_as_celerys(app: LiteTQ) -> None:
    @control_command(args=[("n", int)], signature="[N=1]")
    def add_to_total(state: Any, n: int = 1) -> Any:
        """Count up."""
        return {"ok": [state.app is app, state.hostname, state.consumer.controller is state.worker, n]}

    @inspect_command(name="odd", alias="strange")
    def values(state: Any) -> Any:
        return {"a set": {2, 1}, "an object": Path}

    assert PANEL["add_to_total"].help == "Count up."
    with app.run_embedded(hostname="w@x"):
        assert ask(app, "add_to_total", n=3) == {"ok": [True, "w@x", True, 3]}
        assert ask(app, "strange") == ask(app, "odd") == {"a set": [1, 2], "an object": repr(Path)}


@pytest.mark.row("9.reply texts")
@pytest.mark.usefixtures("panel")
def test_what_a_command_raises_is_its_answer_and_the_next_one_is_heard(app: LiteTQ) -> None:
    @control_command
    def breaks(state: Any) -> Any:
        raise ValueError("no good")

    with app.run_embedded():
        assert ask(app, "breaks") == {"error": "ValueError('no good')"}
        assert ask(app, "nonsense") == {"error": "KeyError('nonsense')"}
        assert "unexpected" in ask(app, "breaks", no_such=1)["error"]
        assert ask(app, "ping") == {"ok": "pong"}


# -- what a worker tells


@pytest.mark.row("9.inspect: report, conf, clock, hello, memsample, objgraph")
@pytest.mark.row("9.inspect: stats")
@pytest.mark.row("9.inspect: registered, active_queues")
@pytest.mark.row("9.stats: fields")
@pytest.mark.row("15.passwords are masked")
def test_what_a_worker_tells_has_celerys_form(app: LiteTQ) -> None:
    app.conf.broker_transport_options = {"password": "geheim"}
    app.task(name="limited", rate_limit="10/s")(lambda: None)
    app.task(name="plain")(lambda: 1)
    with app.run_embedded(hostname="w@x", concurrency=2, queues=["celery", "mail"]):
        app.tasks["plain"].delay().get(timeout=LONG)
        inspect = app.control.inspect("w@x", timeout=LONG)
        assert inspect.registered() == ["limited [rate_limit=10/s]", "plain"]
        assert inspect.registered("max_retries") == ["limited [max_retries=3]", "plain [max_retries=3]"]
        stats = eventually(lambda: (s := inspect.stats())["total"] and s)
        assert stats["total"] == {"plain": 1} and stats["pid"] == os.getpid() and stats["prefetch_count"] == 2
        assert stats["pool"]["max-concurrency"] == 2 and stats["pool"]["processes"] == [os.getpid()]
        assert stats["broker"]["transport"] == "sqlite" and stats["uptime"] >= 0 and "rusage" in stats
        assert [queue["name"] for queue in inspect.active_queues()] == ["celery", "mail"]
        assert inspect.active_queues()[0]["exchange"]["type"] == "direct"
        assert "litetq:" in inspect.report()["ok"]
        assert "geheim" not in repr(inspect.conf()) and "broker_transport_options" in inspect.conf()
        assert "timezone" in inspect.conf(with_defaults=True)
        assert inspect.clock()["clock"] >= 1
        assert inspect.hello("other@x")["revoked"] == [] and inspect.hello("w@x") is None
        assert inspect.memsample() is None or inspect.memsample().endswith("MB")
        assert "Requires the objgraph library" in str(inspect.objgraph()) or "filename" in inspect.objgraph()


@pytest.mark.row("9.inspect: query_task, scheduled, reserved, active")
@pytest.mark.row("9.active: fields")
@pytest.mark.row("9.scheduled: fields, also without a worker")
def test_lists_of_tasks_have_celerys_form(app: LiteTQ, gate: Gate) -> None:
    busy = app.task(name="busy", acks_late=True)(gate)
    app.task(name="later")(lambda x, y=0: None)
    with app.run_embedded(hostname="w@x", concurrency=1):
        running = busy.delay()
        assert gate.come.wait(LONG)
        due = app.tasks["later"].apply_async((1,), {"y": 2}, countdown=1000, priority=3)
        inspect = app.control.inspect("w@x", timeout=LONG)
        [active] = inspect.active()
        assert active.pop("time_start") == pytest.approx(clock.now(), abs=LONG)
        assert active == {
            "id": running.id,
            "name": "busy",
            "args": [],
            "kwargs": {},
            "type": "busy",
            "hostname": "w@x",
            "acknowledged": False,
            "delivery_info": {"exchange": "", "routing_key": "celery", "priority": 0, "redelivered": False},
            "worker_pid": os.getpid(),
        }
        [scheduled] = inspect.scheduled()
        assert set(scheduled) == {"eta", "priority", "request"} and scheduled["priority"] == 3
        assert scheduled["request"]["id"] == due.id and scheduled["request"]["kwargs"] == {"y": 2}
        assert scheduled["request"]["time_start"] is None and scheduled["request"]["worker_pid"] is None
        found = inspect.query_task(running.id, due.id, "unknown")
        assert {id: state for id, (state, _) in found.items()} == {running.id: "active", due.id: "scheduled"}
        assert inspect.query_task([due.id])[due.id][1]["args"] == [1]
        assert inspect.reserved() == []
        assert inspect.active(safe=True)[0]["args"] == "()"
        gate.open.set()


def test_a_due_task_is_listed_once_however_many_workers_serve_its_queue(app: LiteTQ) -> None:
    app.task(name="later")(lambda: None)
    ids = {app.tasks["later"].apply_async(countdown=1000, queue=queue).id for queue in ("celery", "mail", "nobody")}
    with (
        app.run_embedded(hostname="a@x", queues=["celery"]),
        app.run_embedded(hostname="b@x", queues=["celery", "mail"]),
    ):
        found = app.control.inspect(timeout=LONG).scheduled()
    assert [len(found[node]) for node in ("a@x", "b@x", "file@jobs.sqlite")] == [1, 1, 1]
    assert {item["request"]["id"] for items in found.values() for item in items} == ids


# -- without any worker


@pytest.mark.row("9.scheduled: fields, also without a worker")
def test_what_is_due_later_is_listed_without_a_worker(app: LiteTQ) -> None:
    sent = app.send_task("of.another.program", (1,), countdown=1000)
    began = time.monotonic()
    found = app.control.inspect(timeout=LONG).scheduled()
    assert time.monotonic() - began < LONG / 2
    assert [item["request"]["id"] for item in found["file@jobs.sqlite"]] == [sent.id]
    assert app.control.inspect("file@jobs.sqlite").scheduled()[0]["request"]["args"] == [1]
    assert app.control.inspect(["other@x"], timeout=0.05).scheduled() is None


@pytest.mark.skipif(os.name == "nt", reason="no SIGSTOP")
def test_what_a_silent_or_dead_worker_runs_is_listed_from_the_file(
    app: LiteTQ, db: Path, tmp_path: Path, run_python: RunPython
) -> None:
    worker = start_worker(run_python, tmp_path, db, "--hostname", "w@x")
    sent = app.send_task("tasks.hang")
    eventually(lambda: (tmp_path / "come").exists(), LONG)
    pid = int(eventually(lambda: (tmp_path / "come").read_text(), LONG))
    os.kill(worker.pid, signal.SIGSTOP)
    inspect = app.control.inspect("w@x", timeout=0.2)
    eventually(lambda: inspect.ping() is None, LONG)  # the signal takes a moment to stop all threads
    [active] = inspect.active()
    assert active["id"] == sent.id and active["hostname"] == "w@x" and active["worker_pid"] == pid
    worker.kill()
    worker.wait(LONG)
    assert [task["id"] for task in app.control.inspect(timeout=LONG).active()["w@x"]] == [sent.id]


@pytest.mark.row("8.revoke")
@pytest.mark.row("9.inspect: revoked")
def test_a_revoke_needs_no_worker(app: LiteTQ) -> None:
    app.task(name="add")(lambda: None)
    waiting, later = app.tasks["add"].delay(), app.tasks["add"].apply_async(countdown=1000)
    assert app.control.revoke([waiting.id, later.id, "not-yet-known"]) is None
    assert waiting.state == later.state == "REVOKED"
    assert set(app.engine.mailbox.revoked(clock.now())) == {waiting.id, later.id, "not-yet-known"}
    app.control.rate_limit("add", "5/m")
    with app.run_embedded():
        assert set(ask(app, "revoked")) == {waiting.id, later.id, "not-yet-known"}


# -- what orders change


@pytest.mark.row("9.control: revoke")
def test_revoke_answers_as_celery_does(app: LiteTQ, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    busy = app.task(name="busy")(gate)
    with app.run_embedded(concurrency=1) as worker:
        running = busy.delay()
        assert gate.come.wait(LONG)
        waiting = busy.delay()
        replies = app.control.revoke(waiting.id, reply=True, timeout=LONG)
        assert replies == [{worker.hostname: {"ok": f"tasks {{'{waiting.id}'}} flagged as revoked"}}]
        assert waiting.state == "REVOKED"
        [reply] = app.control.terminate(running.id, reply=True, timeout=LONG)
        assert "cannot be terminated" in reply[worker.hostname]["error"]
        assert f"Task busy[{running.id}] is not terminated: pool threads" in caplog.text  # most wait for no answer
        with pytest.raises(exceptions.TimeoutError, match=r"is PENDING after 0.1 s: a worker holds it\."):
            running.get(timeout=0.1)
        gate.open.set()
    assert running.get(timeout=LONG) is None


@pytest.mark.row("8.terminate")
@pytest.mark.row("9.control: terminate")
def test_terminate_ends_what_runs_in_a_child(app: LiteTQ, db: Path, tmp_path: Path, run_python: RunPython) -> None:
    start_worker(run_python, tmp_path, db)
    sent = app.send_task("tasks.hang")
    eventually(lambda: (tmp_path / "come").exists(), LONG)
    [unknown] = app.control.terminate("unknown", reply=True, timeout=LONG)
    assert list(unknown.values()) == [{"ok": "terminate: tasks unknown"}]
    [reply] = app.control.terminate([sent.id], signal="SIGTERM", reply=True, timeout=LONG)
    assert list(reply.values()) == [{"ok": f"terminate: {sent.id}"}]
    assert eventually(lambda: sent.state == "REVOKED", LONG)


@pytest.mark.row("9.control: add_consumer, cancel_consumer")
def test_a_queue_is_served_from_the_order_on_until_the_next_one(app: LiteTQ) -> None:
    app.task(name="add")(lambda x: x)
    with app.run_embedded() as worker:
        before = app.tasks["add"].apply_async((1,), queue="mail")
        assert ask(app, "ping") and before.state == "PENDING"
        [reply] = app.control.add_consumer("mail", reply=True, timeout=LONG)
        assert reply[worker.hostname] == {"ok": "add consumer mail"}
        assert before.get(timeout=LONG) == 1 and app.tasks["add"].apply_async((2,), queue="mail").get(timeout=LONG) == 2
        [reply] = app.control.cancel_consumer("mail", reply=True, timeout=LONG)
        assert reply[worker.hostname] == {"ok": "no longer consuming from mail"}
        assert [queue["name"] for queue in ask(app, "active_queues")] == ["celery"]
        eventually(lambda: app.engine.workers()[0].queues == '["celery"]')
        after = app.tasks["add"].apply_async((3,), queue="mail")
        assert app.tasks["add"].delay(4).get(timeout=LONG) == 4
        assert after.state == "PENDING"


@pytest.mark.row("9.control: rate_limit")
@pytest.mark.row("9.reply texts")
def test_a_rate_limit_is_set_for_all_workers_and_for_good(app: LiteTQ) -> None:
    app.task(name="add")(lambda: None)
    with app.run_embedded():
        assert ask(app, "rate_limit", task_name="add", rate_limit="6/m") == {"ok": "new rate limit set successfully"}
        assert ask(app, "registered") == ["add [rate_limit=6/m]"]
        assert app.engine.store.lanes.limits() == {"add": 10.0}
        assert ask(app, "rate_limit", task_name="nobody", rate_limit="6/m") == {"error": "unknown task"}
        assert "Invalid rate limit string" in ask(app, "rate_limit", task_name="add", rate_limit="often")["error"]
        assert ask(app, "rate_limit", task_name="add", rate_limit=None) == {"ok": "rate limit disabled successfully"}
    assert app.engine.store.lanes.limits() == {}
    app.control.rate_limit("add", "1/s")
    assert app.engine.store.lanes.limits() == {"add": 1.0}
    with pytest.raises(ValueError, match="often"):
        app.control.rate_limit("add", "often")


@pytest.mark.row("8.time limits changed while it runs")
@pytest.mark.row("9.control: time_limit")
def test_time_limits_hold_from_the_next_start_on(app: LiteTQ, gate: Gate) -> None:
    busy = app.task(name="busy")(gate)
    with app.run_embedded(concurrency=1):
        assert ask(app, "time_limit", task_name="nobody", soft=1, hard=2) == {"error": "unknown task"}
        [reply] = app.control.time_limit("busy", hard=0.2, reply=True, timeout=LONG)
        assert list(reply.values()) == [{"ok": "time limits set successfully"}]
        sent = busy.delay()
        assert eventually(lambda: sent.state == "FAILURE", LONG)
        gate.open.set()


@pytest.mark.row("9.control: pool_grow, pool_shrink, pool_restart, autoscale")
def test_a_pool_changes_its_size(app: LiteTQ) -> None:
    with app.run_embedded(concurrency=1):
        assert ask(app, "pool_grow", n=2) == {"ok": "pool will grow"}
        eventually(lambda: ask(app, "stats")["pool"]["max-concurrency"] == 3)
        assert ask(app, "pool_shrink", n=1) == {"ok": "pool will shrink"}
        eventually(lambda: ask(app, "stats")["pool"]["max-concurrency"] == 2)
        assert "none would be left" in ask(app, "pool_shrink", n=2)["error"]
        assert ask(app, "pool_restart") == {"error": "ValueError('Pool restarts not enabled')"}
        app.conf.worker_pool_restarts = True
        assert ask(app, "pool_restart") == {"ok": "reload started"}
        assert ask(app, "autoscale", max=3, min=1) == {"error": "ValueError('Autoscale not enabled')"}
    with app.run_embedded(pool="solo"):
        assert "solo" in ask(app, "pool_grow")["error"]
    with app.run_embedded(autoscale=(3, 1)):
        assert ask(app, "autoscale", max=5) == {"ok": "autoscale now max=5 min=1"}
        assert "not supported with autoscale" in ask(app, "pool_grow")["error"]


@pytest.mark.row("9.control: shutdown")
def test_shutdown_lets_what_runs_finish(app: LiteTQ, gate: Gate) -> None:
    busy = app.task(name="busy")(gate)
    with app.run_embedded(concurrency=1) as worker:
        sent = busy.delay()
        assert gate.come.wait(LONG)
        app.control.shutdown()
        eventually(lambda: worker.stopping == "warm")
        gate.open.set()
        assert worker.join(LONG)
    assert sent.state == "SUCCESS" and app.control.inspect(timeout=0.05).ping() is None


@pytest.mark.row("9.control: shutdown")
def test_a_worker_process_is_shut_down_from_another_process(
    app: LiteTQ, db: Path, tmp_path: Path, run_python: RunPython
) -> None:
    worker = start_worker(run_python, tmp_path, db)
    eventually(lambda: app.control.ping(timeout=0.5), LONG)
    app.control.shutdown()
    assert worker.wait(LONG) == 0


@pytest.mark.row("9.purge, discard_all")
@pytest.mark.parametrize("name", ["purge", "discard_all"])
def test_purge_removes_what_waits(app: LiteTQ, name: str) -> None:
    for queue in ("celery", "mail"):
        app.send_task("x", queue=queue)
    purge: Callable[..., int] = getattr(app.control, name)
    assert purge(["mail"]) == 1 and purge() == 1 and purge() == 0


PROGRAM = """
import os, time
from pathlib import Path
from litetq import LiteTQ

app = LiteTQ("tasks", broker="jobs.sqlite")

@app.task
def hang():
    Path("coming").write_text(str(os.getpid()))
    os.replace("coming", "come")
    while True:
        time.sleep(0.05)
"""


def start_worker(run_python: RunPython, tmp_path: Path, db: Path, *arguments: str) -> Any:
    (tmp_path / "tasks.py").write_text(PROGRAM)
    return run_python("-m", "litetq", "-A", "tasks", "worker", "-c", "1", *arguments)


@pytest.mark.row("6.revoke_by_stamped_headers")
@pytest.mark.row("9.control: revoke_by_stamped_headers")
def test_a_revoke_by_stamps_ends_what_carries_one_and_nothing_else(app: LiteTQ, gate: Gate) -> None:
    busy = app.task(name="busy")(gate)

    def send(**stamps: Any) -> Any:
        return busy.apply_async(stamped_headers=list(stamps), **stamps)

    with app.run_embedded(concurrency=1) as worker:
        running = send(batch="a")
        assert gate.come.wait(LONG)
        before = [send(batch="a"), send(batch=["x", "b"], other="a")]
        spared = [send(batch="c"), send(other="a"), busy.delay()]
        assert app.control.revoke_by_stamped_headers({"batch": ["a", "b"]}) is None
        after = send(batch="b")
        assert [result.state for result in [*before, after]] == ["REVOKED"] * 3
        assert [result.state for result in [running, *spared]] == ["PENDING"] * 4
        [reply] = app.control.revoke_by_stamped_headers({"batch": "z"}, reply=True, timeout=LONG)
        assert reply[worker.hostname] == {"ok": "headers {'batch': 'z'} flagged as revoked, but not terminated"}
        [reply] = app.control.revoke_by_stamped_headers({"batch": "z"}, terminate=True, reply=True, timeout=LONG)
        assert reply[worker.hostname] == {"ok": "headers {'batch': 'z'} were not terminated"}
        assert set(ask(app, "revoked")) == {result.id for result in [running, *before, after]}
        gate.open.set()
        assert [result.get(timeout=LONG) for result in [running, *spared]] == [None] * 4
    last = send(batch="last")
    last.revoke_by_stamped_headers({"batch": "last"})
    assert last.state == "REVOKED"
    with pytest.raises(ValueError, match="name=stamp, found 'batch'"):
        app.control.revoke_by_stamped_headers(["batch"])


def test_asking_what_runs_costs_the_same_whatever_waits(app: LiteTQ) -> None:
    def steps() -> int:
        """How many instructions SQLite's machine takes for the questions that a worker answers from the file."""
        count = 0

        def tick() -> bool:
            nonlocal count
            count += 1
            return False

        reader = app.engine.database._reader
        assert reader is not None
        reader.set_progress_handler(tick, 1)
        app.engine.mailbox.held(1)
        app.engine.mailbox.named(["x"])
        app.engine.mailbox.revoked(clock.now())
        reader.set_progress_handler(None)
        return count

    app.send_task("x")
    app.engine.mailbox.held(1)
    few = steps()
    app.engine.send(Plan(tuple(Message(uuid(), "x", b"[[],{}]") for _ in range(2000))))
    assert steps() < few * 2
