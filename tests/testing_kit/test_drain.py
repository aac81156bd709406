"""`drain` does what a worker does, in the thread that calls it."""

from __future__ import annotations

import math
import os
import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from litetq import LiteTQ, chain, chord, clock, group, states
from litetq.exceptions import ChordError, ImproperlyConfigured, NotRegistered, Reject
from litetq.testing import drain, enqueued, run_beat, temporary_file, travel


def test_what_is_queued_runs_in_this_thread_and_is_on_record(app: LiteTQ) -> None:
    @app.task(bind=True)
    def where(self: Any, x: int) -> list[Any]:
        return [x, threading.get_ident(), self.request.hostname.split("@")[0], self.request.is_eager]

    first, second = where.delay(1), where.delay(2)
    ran = drain(app)
    assert [attempt.id for attempt in ran] == [first.id, second.id]
    assert first.get(timeout=0) == [1, threading.get_ident(), "drain", False]
    assert second.worker.startswith("drain@")
    assert drain(app) == []
    assert app.engine.workers() == []


def test_what_a_task_sends_runs_too_and_all_queues_are_served(app: LiteTQ) -> None:
    seen = []

    @app.task
    def count_down(n: int) -> None:
        seen.append(n)
        if n:
            count_down.apply_async((n - 1,), queue=f"q{n}")

    count_down.delay(3)
    assert len(drain(app)) == 4
    assert seen == [3, 2, 1, 0]


def test_only_the_queues_that_are_named_are_served(app: LiteTQ) -> None:
    @app.task
    def noop() -> None: ...

    noop.apply_async(queue="a")
    noop.apply_async(queue="b")
    assert len(drain(app, queues=["a"])) == 1
    assert [each.queue for each in enqueued(app=app)] == ["b"]


def test_priorities_count(app: LiteTQ) -> None:
    @app.task
    def say(x: str) -> str:
        return x

    for word, priority in (("low", 0), ("high", 9), ("middle", 5)):
        say.apply_async((word,), priority=priority)
    assert [attempt.get(timeout=0) for attempt in drain(app)] == ["high", "middle", "low"]


def test_a_retry_runs_without_its_delay_and_every_attempt_is_told(app: LiteTQ) -> None:
    @app.task(bind=True, max_retries=2, default_retry_delay=180)
    def flaky(self: Any) -> int:
        if self.request.retries < 2:
            raise self.retry(exc=ValueError("not yet"))
        retries: int = self.request.retries
        return retries

    result = flaky.delay()
    assert [attempt.id for attempt in drain(app)] == [result.id] * 3
    assert result.get(timeout=0) == 2


def test_retries_end_as_with_a_worker(app: LiteTQ) -> None:
    @app.task(autoretry_for=(ValueError,), max_retries=1, retry_backoff=True)
    def hopeless() -> None:
        raise ValueError("never")

    result = hopeless.delay()
    assert len(drain(app)) == 2
    assert result.state == states.FAILURE
    assert isinstance(result.result, ValueError)
    assert result.retries == 1


def test_retries_wait_where_they_are_asked_to(app: LiteTQ) -> None:
    @app.task(bind=True, max_retries=3)
    def flaky(self: Any) -> str:
        if not self.request.retries:
            raise self.retry(countdown=60)
        return "done"

    result = flaky.delay()
    assert len(drain(app, retries=False)) == 1
    assert result.state == states.RETRY
    (waiting,) = enqueued(flaky)
    assert waiting.eta is not None
    assert 50 < (waiting.eta - datetime.now(timezone.utc)).total_seconds() <= 60
    assert drain(app, retries=False) == []
    assert len(drain(app, retries=False, ahead=61)) == 1
    assert result.get(timeout=0) == "done"


def test_workflows_go_through(app: LiteTQ) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task
    def total(values: list[int]) -> int:
        return sum(values)

    chained = chain(add.s(1, 2), add.s(3), add.s(4))()
    joined = chord(group(add.s(n, n) for n in range(4)), total.s())()
    drain(app)
    assert chained.get(timeout=0) == 10
    assert joined.get(timeout=0) == 12


def test_the_failure_of_a_member_fails_the_chord_and_calls_errbacks(app: LiteTQ) -> None:
    told = []

    @app.task
    def fail() -> None:
        raise KeyError("member")

    @app.task
    def total(values: list[int]) -> int:
        return sum(values)

    @app.task
    def on_error(id: str) -> None:
        told.append(id)

    result = chord([fail.s()], total.s().on_error(on_error.s()))()
    drain(app)
    assert isinstance(result.result, ChordError)
    assert told


def test_what_is_due_later_waits_unless_the_time_is_moved_ahead(app: LiteTQ) -> None:
    seen = []

    @app.task(bind=True)
    def note(self: Any, name: str) -> None:
        seen.append((name, round(clock.now() - start)))

    start = clock.now()
    note.apply_async(("hour",), countdown=3600)
    note.apply_async(("minute",), countdown=60)
    note.apply_async(("day",), eta=datetime.now(timezone.utc) + timedelta(days=1))
    assert drain(app) == []
    assert len(drain(app, ahead=timedelta(hours=2))) == 2
    assert seen == [("minute", 60), ("hour", 3600)]
    assert clock.now() - start < 60  # the time has come back
    assert len(drain(app, ahead=math.inf)) == 1
    assert seen[-1] == ("day", 86400)


def test_the_span_ahead_is_of_the_beginning_not_of_each_step(app: LiteTQ) -> None:
    @app.task
    def again() -> None:
        again.apply_async(countdown=60)

    again.delay()
    assert len(drain(app, ahead=150)) == 3  # at 0, 60 and 120 seconds


def test_what_has_expired_is_revoked(app: LiteTQ) -> None:
    @app.task
    def noop() -> None: ...

    result = noop.apply_async(countdown=60, expires=30)
    assert drain(app, ahead=100) == []
    assert result.state == states.REVOKED


def test_what_expired_before_it_was_due_is_revoked_at_once(app: LiteTQ) -> None:
    @app.task
    def noop() -> None: ...

    result = noop.apply_async(countdown=3600, expires=30)
    with travel() as time:
        time.forward(60)
        drain(app)
        assert result.state == states.REVOKED


def test_rate_limits_do_not_delay(app: LiteTQ) -> None:
    @app.task(rate_limit="1/h")
    def rare() -> None: ...

    for _ in range(3):
        rare.delay()
    app.engine.set_rate_limit(rare.name, "1/h")
    assert len(drain(app)) == 3


def test_what_a_task_raises_is_raised_where_it_is_asked_for_and_its_end_is_on_record(app: LiteTQ) -> None:
    @app.task
    def fail(text: str) -> None:
        raise LookupError(text)

    first, second = fail.delay("one"), fail.delay("two")
    with pytest.raises(LookupError, match="one") as caught:
        drain(app, throw=True)
    assert any(entry.name == "fail" for entry in caught.traceback)  # where it was raised
    assert first.state == states.FAILURE
    assert second.state == states.PENDING
    drain(app)
    assert second.state == states.FAILURE


def test_a_retry_is_not_thrown_its_last_failure_is(app: LiteTQ) -> None:
    @app.task(autoretry_for=(ValueError,), max_retries=2)
    def fail() -> None:
        raise ValueError("each time")

    result = fail.delay()
    with pytest.raises(ValueError, match="each time"):
        drain(app, throw=True)
    assert result.retries == 2


def test_an_unknown_task_fails_as_with_a_worker(app: LiteTQ) -> None:
    result = app.send_task("nobody.knows")
    drain(app)
    assert result.state == states.FAILURE
    app.send_task("nobody.knows")
    with pytest.raises(NotRegistered):
        drain(app, throw=True)


def test_who_interrupts_is_not_swallowed(app: LiteTQ) -> None:
    @app.task
    def interrupted() -> None:
        raise KeyboardInterrupt

    @app.task
    def skips() -> None:
        pytest.skip("from within")

    result = interrupted.delay()
    with pytest.raises(KeyboardInterrupt):
        drain(app)
    assert result.state == states.FAILURE
    skips.delay()
    with pytest.raises(pytest.skip.Exception):
        drain(app)


def test_a_task_that_sends_itself_without_end_is_told(app: LiteTQ) -> None:
    @app.task
    def again() -> None:
        again.delay()

    again.delay()
    with pytest.raises(RuntimeError, match=r"drain has run 20 attempts, and .*again waits.*limit="):
        drain(app, limit=20)
    assert len(enqueued(again)) == 1  # given back


def test_a_rejected_task_is_requeued_and_ends_as_a_dead_letter(app: LiteTQ) -> None:
    @app.task(acks_late=True)
    def refuse() -> None:
        raise Reject("no", requeue=True)

    result = refuse.delay()
    assert len(drain(app)) == 6  # the first time, and five redeliveries
    assert result.state == states.FAILURE


def test_async_tasks_run(app: LiteTQ) -> None:
    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    result = add.delay(1, 2)
    drain(app)
    assert result.get(timeout=0) == 3


def test_periodic_tasks_are_sent_as_their_time_comes(app: LiteTQ) -> None:
    seen = []

    @app.task
    def tick() -> None:
        seen.append(round(clock.now() - start))

    app.add_periodic_task(30.0, tick.s(), name="tick")
    start = clock.now()
    assert len(drain(app, beat=True, ahead=100)) == 3
    assert seen == [30, 60, 90]


def test_a_periodic_task_needs_an_end(app: LiteTQ) -> None:
    with pytest.raises(ImproperlyConfigured, match="give ahead="):
        drain(app, beat=True, ahead=math.inf)


def test_beat_sends_what_is_due_when_the_time_is_moved(app: LiteTQ) -> None:
    @app.task
    def report() -> None: ...

    app.conf.beat_schedule = {"nightly": {"task": report.name, "schedule": timedelta(days=1)}}
    with travel() as time:
        assert run_beat(app) == []  # it begins: the entry is known from now on
        assert run_beat(app) == []
        time.forward(days=1)
        (sent,) = run_beat(app)
        assert sent.name == report.name
        assert run_beat(app) == []
        assert [attempt.id for attempt in drain(app)] == [sent.id]


def test_without_an_app_the_current_one_is_meant(app: LiteTQ) -> None:
    app.set_current()

    @app.task
    def noop() -> None: ...

    noop.delay()
    assert len(drain()) == 1


def test_no_app_at_all_is_said() -> None:
    with pytest.raises(ImproperlyConfigured, match="give app="):
        drain()


def test_a_worker_that_was_killed_in_a_drain_leaves_nothing_undone(app: LiteTQ, run_python: Any) -> None:
    program = f"""
import os
from litetq import LiteTQ
from litetq.testing import drain

app = LiteTQ("tests", broker={str(app.engine.path)!r})

@app.task(name="die", acks_late=True)
def die():
    os._exit(9)

die.delay()
die.delay()
drain(app)
"""
    process = run_python(program)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 9, errors
    seen = []

    @app.task(name="die", acks_late=True)
    def die() -> None:
        seen.append(os.getpid())

    with app.run_embedded(pool="solo") as worker:
        assert worker.drain(timeout=20)
    assert seen == [os.getpid()] * 2  # begun, and acknowledged late: it runs again


def test_an_app_of_a_server_is_told_to_take_a_file() -> None:
    app = LiteTQ("tests", broker="redis://127.0.0.1:1/0", set_as_current=False)

    @app.task
    def noop() -> None: ...

    for refused in (drain, lambda app: enqueued(app=app)):
        with pytest.raises(ImproperlyConfigured, match=r"go to redis://, and only a file.*with temporary_file\(app\)"):
            refused(app)
    with temporary_file(app):
        noop.delay()
        assert len(drain(app)) == 1
    app.close()
