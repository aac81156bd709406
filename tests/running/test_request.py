"""What a task that runs in a worker sees of its own call (`self.request`), and what others see of its arguments."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, Task
from tests.waiting import eventually


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    with LiteTQ("tasks", broker=db, set_as_current=False) as app:
        yield app


def fields(app: LiteTQ, *names: str, call: dict[str, Any], **options: Any) -> list[Any]:
    """Call a task in a worker and return these fields of its request."""
    app.task(name="look", bind=True, **options)(lambda self, *a, **k: [getattr(self.request, name) for name in names])
    with app.run_embedded(concurrency=1, hostname="w@here"):
        seen: list[Any] = app.send_task("look", **call).get(timeout=10)
    return seen


@pytest.mark.row("2.request: eta, expires, utc")
def test_times_are_iso_texts_in_utc(app: LiteTQ) -> None:
    at = datetime.now(timezone.utc) + timedelta(seconds=0.2)
    far = datetime.now(timezone(timedelta(hours=8))) + timedelta(days=1)
    eta, expires, utc = fields(app, "eta", "expires", "utc", call={"eta": at, "expires": far})
    assert abs(datetime.fromisoformat(eta) - at) < timedelta(milliseconds=1) and eta.endswith("+00:00")
    assert abs(datetime.fromisoformat(expires) - far) < timedelta(milliseconds=1) and expires.endswith("+00:00")
    assert utc is True


@pytest.mark.row("2.request: eta, expires, utc")
def test_a_call_without_times_has_none(app: LiteTQ) -> None:
    assert fields(app, "eta", "expires", call={}) == [None, None]


@pytest.mark.row("2.request: hostname")
def test_the_request_names_the_worker_that_runs_it(app: LiteTQ) -> None:
    assert fields(app, "hostname", "origin", call={}) == ["w@here", None]


@pytest.mark.row("2.request: reply_to, correlation_id, headers, properties")
@pytest.mark.row("3.argsrepr, kwargsrepr, reply_to")
def test_the_request_has_what_celerys_message_would_carry(app: LiteTQ) -> None:
    names = ("id", "correlation_id", "reply_to", "headers", "properties", "stamps")
    call = {"task_id": "1", "reply_to": "me", "headers": {"tenant": "acme"}}
    assert fields(app, *names, "tenant", call=call) == [
        *("1", "1", "me", {"tenant": "acme"}, {"correlation_id": "1", "reply_to": "me"}, {}, "acme")
    ]


@pytest.mark.row("2.request: timelimit, time_limit, soft_time_limit")
@pytest.mark.parametrize(
    ("options", "call", "seen"),
    [
        ({}, {}, [[None, None], None, None]),
        ({"time_limit": 9, "soft_time_limit": 5}, {}, [[9, 5], 9, 5]),
        ({"time_limit": 9, "soft_time_limit": 5}, {"time_limit": 8}, [[8, 5], 8, 5]),
        ({}, {"soft_time_limit": 4}, [[None, 4], None, 4]),
    ],
)
def test_the_request_shows_the_limits_of_call_and_task(
    app: LiteTQ, options: dict[str, Any], call: dict[str, Any], seen: list[Any]
) -> None:
    names = ("timelimit", "time_limit", "soft_time_limit")
    assert fields(app, *names, call=call, **options) == seen
    if call or options:
        assert app.tasks["look"].apply(**call).get() == seen


@pytest.mark.row("2.request: argsrepr, kwargsrepr, shadow")
def test_the_request_shows_the_texts_that_stand_for_its_arguments_and_name(app: LiteTQ) -> None:
    call = {"args": (1,), "kwargs": {"y": 2}, "argsrepr": "(one)", "kwargsrepr": "{why}", "shadow": "dark"}
    seen = fields(app, "args", "kwargs", "argsrepr", "kwargsrepr", "shadow", call=call)
    assert seen == [[1], {"y": 2}, "(one)", "{why}", "dark"]


@pytest.mark.row("2.request: ignore_result, replaced_task_nesting")
def test_the_request_knows_whether_its_result_is_wanted(app: LiteTQ) -> None:
    seen: list[Any] = []
    app.task(name="look", bind=True)(
        lambda self: seen.append((self.request.ignore_result, self.request.replaced_task_nesting))
    )
    with app.run_embedded(concurrency=1) as worker:
        app.send_task("look", ignore_result=True)
        assert worker.drain(10)
    assert seen == [(True, 0)]


@pytest.mark.row("2.request: loglevel, logfile")
def test_an_eager_call_hands_over_where_to_log(app: LiteTQ) -> None:
    look = app.task(name="look", bind=True)(lambda self: [self.request.loglevel, self.request.logfile])
    assert look.apply(loglevel=logging.INFO, logfile="x.log").get() == [logging.INFO, "x.log"]
    with app.run_embedded(concurrency=1):
        assert look.delay().get(timeout=10) == [None, None]  # the worker's own; a task logs through its logger


@pytest.mark.row("2.argsrepr, kwargsrepr hide secrets in log, events and lists")
@pytest.mark.row("3.argsrepr, kwargsrepr, reply_to")
def test_a_secret_argument_is_seen_by_the_task_alone(app: LiteTQ, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    come, go = threading.Event(), threading.Event()
    seen: list[Any] = []

    @app.task(name="log_in")
    def log_in(user: str, password: str = "") -> None:
        seen.append((user, password))
        come.set()
        assert go.wait(30)

    app.conf.update(worker_send_task_events=True, task_send_sent_event=True)
    hidden = {"argsrepr": "('m*',)", "kwargsrepr": "{'password': '***'}"}
    try:
        with app.run_embedded(concurrency=1, hostname="w@here"):
            result = log_in.apply_async(("me",), {"password": "geheim"}, **hidden)
            later = log_in.apply_async(("me",), {"password": "geheim"}, countdown=1000, **hidden)
            assert come.wait(10)
            inspect = app.control.inspect("w@here", timeout=30)
            [active], [scheduled] = inspect.active(safe=True), inspect.scheduled()
            go.set()
            result.get(timeout=10)
            eventually(lambda: len(app.engine.mailbox.events(0, 100)) >= 4)
            events = app.engine.mailbox.events(0, 100)
    finally:
        go.set()
    assert seen == [("me", "geheim")]
    told = [event for event in events if event["type"] in ("task-sent", "task-received")]
    assert {(event["args"], event["kwargs"]) for event in told} == {("('m*',)", "{'password': '***'}")}
    assert (active["args"], active["kwargs"]) == ("('m*',)", "{'password': '***'}")
    assert scheduled["request"]["id"] == later.id
    shown = f"{caplog.text} {events} {active}"
    assert "geheim" not in shown


@pytest.mark.parametrize("eager", [False, True])
def test_a_call_that_is_overridden_and_calls_that_of_its_class_keeps_the_request(app: LiteTQ, eager: bool) -> None:
    class Loud(Task[..., Any]):
        abstract = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return ["called", self.request.id, *super().__call__(*args, **kwargs)]

    @app.task(base=Loud, bind=True, max_retries=2, default_retry_delay=0)
    def show(self: Any, depth: int = 1) -> Any:
        if depth and self.request.retries < 1:
            raise self.retry()
        # A call of the task to itself is one of its own, as that of any function.
        return [self.request.id, self.request.called_directly, *(show(depth - 1) if depth else [])]

    if eager:
        result = show.apply()
    else:
        result = show.delay()
        with app.run_embedded(1):
            result.get(timeout=30)
    assert result.get(timeout=30) == ["called", result.id, result.id, False, "called", result.id, None, True]
    assert eager or result.retries == 1


def test_an_async_call_that_is_overridden_keeps_the_request(app: LiteTQ) -> None:
    class Loud(Task[..., Any]):
        abstract = True

        async def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return await super().__call__(*args, **kwargs)

    @app.task(base=Loud, bind=True)
    async def show(self: Any) -> Any:
        return [self.request.id, self.request.called_directly]

    with app.run_embedded(1):
        result = show.delay()
        assert result.get(timeout=30) == [result.id, False]
