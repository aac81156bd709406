"""Looking for what waits: by task, arguments and queue, with a text that helps when it is not there."""

from __future__ import annotations

import threading
from datetime import date, datetime, timedelta, timezone
from unittest.mock import ANY

import pytest

from litetq import LiteTQ, chain, group, shared_task
from litetq.exceptions import ImproperlyConfigured
from litetq.testing import assert_enqueued, assert_not_enqueued, drain, enqueued


@pytest.fixture
def app(app: LiteTQ) -> LiteTQ:
    @app.task(name="mail")
    def mail(to: str, subject: str = "Hello", **more: object) -> None: ...

    @app.task(name="count")
    def count(*things: object) -> None: ...

    return app


def test_a_call_is_found_by_task_arguments_and_queue(app: LiteTQ) -> None:
    mail = app.tasks["mail"]
    mail.delay("ann", subject="Hi")
    result = mail.apply_async(("bob",), queue="slow")
    assert_enqueued(mail)
    assert_enqueued("mail", args=["ann"], kwargs={"subject": "Hi"}, app=app)
    found = assert_enqueued(mail, queue="slow")
    assert (found.id, found.name, found.args, found.kwargs) == (result.id, "mail", ["bob"], {})
    assert (found.queue, found.state, found.eta, found.retries) == ("slow", "QUEUED", None, 0)
    assert [each.args for each in enqueued(mail)] == [["ann"], ["bob"]]
    assert len(enqueued(app=app)) == 2


def test_what_is_not_there_is_told_with_what_is(app: LiteTQ) -> None:
    mail = app.tasks["mail"]
    mail.apply_async(("ann",), {"subject": "Hi"}, queue="slow", eta=datetime(2100, 1, 2, 3, 4, 5, tzinfo=timezone.utc))
    with pytest.raises(AssertionError) as caught:
        assert_enqueued(mail, args=["bob"], queue="slow")
    assert str(caught.value) == (
        "mail('bob', ...) in queue slow is to be enqueued, and is not. What waits:\n"
        "  mail('ann', subject='Hi') in queue slow, due 2100-01-02 03:04:05+00:00"
    )


def test_an_empty_queue_and_what_ran_already_are_told(app: LiteTQ) -> None:
    mail = app.tasks["mail"]
    with pytest.raises(AssertionError, match=r"^mail is to be enqueued, and is not. Nothing waits in .*jobs.sqlite.$"):
        assert_enqueued(mail)
    result = mail.delay("ann")
    drain(app)
    with pytest.raises(AssertionError, match=rf"No longer waiting, but sent: {result.id} \(SUCCESS\)\."):
        assert_enqueued(mail)


def test_a_long_list_is_cut(app: LiteTQ) -> None:
    mail = app.tasks["mail"]
    for n in range(14):
        mail.delay(f"u{n}")
    with pytest.raises(AssertionError, match="and 4 more$"):
        assert_enqueued("count", app=app)


def test_a_call_that_is_not_wanted_is_told(app: LiteTQ) -> None:
    mail = app.tasks["mail"]
    assert_not_enqueued(mail)
    mail.delay("ann")
    assert_not_enqueued(mail, args=["bob"])
    with pytest.raises(AssertionError, match=r"^mail is not to be enqueued, and is:\n  mail\('ann'\) in queue celery$"):
        assert_not_enqueued(mail)


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        ([(1, 2)], [(1, 2)]),
        ([[1, (2, 3)]], [[1, (2, 3)]]),
        ([{1: "a"}], [{1: "a"}]),
        ([date(2026, 1, 2), b"\xff", 1.5], (date(2026, 1, 2), b"\xff", 1.5)),
        ([datetime(2026, 1, 2, tzinfo=timezone.utc)], [datetime(2026, 1, 2, tzinfo=timezone.utc)]),
        ([1, {"id": "x"}], [ANY, {"id": ANY}]),
        ([(1, 2)], ((ANY, 2),)),
        ([0.1 + 0.2], [pytest.approx(0.3)]),
        (["x" * 10_000], ["x" * 10_000]),
    ],
)
def test_arguments_are_compared_as_they_were_given(app: LiteTQ, sent: list[object], wanted: object) -> None:
    app.tasks["count"].delay(*sent)
    assert_enqueued("count", args=wanted, app=app)
    assert_not_enqueued("count", args=["other"], app=app)


def test_what_is_scheduled_or_waits_for_another_counts(app: LiteTQ) -> None:
    mail, count = app.tasks["mail"], app.tasks["count"]
    chain(mail.si("ann"), group(count.si(1), count.si(2)))()
    mail.apply_async(("bob",), countdown=60)
    assert [each.state for each in enqueued(app=app)] == ["QUEUED", "BLOCKED", "BLOCKED", "SCHEDULED"]
    due = assert_enqueued(mail, args=["bob"]).eta
    assert due is not None
    assert timedelta(seconds=50) < due - datetime.now(timezone.utc) <= timedelta(seconds=60)


def test_what_another_thread_sends_can_be_waited_for(app: LiteTQ) -> None:
    mail = app.tasks["mail"]
    go = threading.Event()

    def send() -> None:
        go.wait(10)
        mail.delay("ann")

    thread = threading.Thread(target=send)
    thread.start()
    try:
        assert_not_enqueued(mail)
        go.set()
        assert_enqueued(mail, within=10)
    finally:
        go.set()
        thread.join()


def test_eager_calls_are_told(app: LiteTQ) -> None:
    app.conf.task_always_eager = True
    mail = app.tasks["mail"]
    mail.delay("ann")
    with pytest.raises(AssertionError, match="task_always_eager is on"):
        assert_enqueued(mail)


def test_a_shared_task_is_looked_for_in_the_current_app(app: LiteTQ) -> None:
    app.set_current()

    @shared_task(name="shared")
    def shared() -> None: ...

    shared.delay()
    assert_enqueued(shared)


def test_a_name_alone_needs_an_app() -> None:
    with pytest.raises(ImproperlyConfigured, match="give app="):
        assert_enqueued("mail")


def test_bytes_that_must_not_be_read_are_shown_as_such(app: LiteTQ) -> None:
    app.tasks["count"].apply_async((1,), serializer="pickle")
    (found,) = enqueued("count", app=app)
    assert "untrusted content of type pickle" in found.args[0]
