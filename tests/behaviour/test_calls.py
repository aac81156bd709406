"""Calls and their results: values, states, failures, delays, what a task knows of its call."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from litetq import group
from litetq.exceptions import TaskRevokedError
from litetq.exceptions import TimeoutError as NotThere
from litetq.message import uuid
from tests.behaviour.conftest import LONG, Place
from tests.waiting import eventually


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1.5, "ä→😀", [1, [2, [3]]], {"a": {"b": [None]}}, "x" * 200_000, [], {}],
    ids=lambda value: repr(value)[:12],
)
def test_what_goes_in_comes_out(worker: Place, value: Any) -> None:
    assert worker.task("same").delay(value).get(timeout=LONG) == value


def test_dates_keep_their_type(worker: Place) -> None:
    moment = datetime(2026, 11, 20, 12, 30, 15, 250_000, tzinfo=timezone.utc)
    assert worker.task("same").delay(moment).get(timeout=LONG) == moment


def test_arguments_are_given_as_for_a_function(worker: Place) -> None:
    same, add = worker.task("same"), worker.task("add")
    assert same.delay(1, colour="red").get(timeout=LONG) == {"value": 1, "colour": "red"}
    assert add.apply_async((1,), {"b": 2}).get(timeout=LONG) == 3
    assert add.apply_async(kwargs={"a": 1, "b": 2}).get(timeout=LONG) == 3
    assert worker.app.send_task("add", (3, 4)).get(timeout=LONG) == 7
    assert add.s(2).delay(5).get(timeout=LONG) == 7


def test_a_result_says_what_became_of_its_task(worker: Place) -> None:
    done = worker.task("add").delay(1, 2)
    assert done.get(timeout=LONG) == 3
    assert (done.state, done.result, done.ready(), done.successful(), done.failed()) == (
        "SUCCESS",
        3,
        True,
        True,
        False,
    )
    failed = worker.task("fail").delay("no", 7)
    with pytest.raises(ValueError, match="no") as caught:
        failed.get(timeout=LONG)
    assert caught.value.args == ("no", 7)
    assert (failed.state, failed.ready(), failed.successful(), failed.failed()) == ("FAILURE", True, False, True)
    assert failed.get(propagate=False).args == ("no", 7)
    assert "raise ValueError" in failed.traceback


def test_an_unknown_task_fails(worker: Place) -> None:
    result = worker.app.send_task("nobody.knows")
    with pytest.raises(Exception, match="nobody.knows"):
        result.get(timeout=LONG)
    assert result.state == "FAILURE"


def test_arguments_that_do_not_fit_fail_the_task_in_the_worker(worker: Place) -> None:
    with pytest.raises(TypeError):
        worker.app.send_task("add", (1, 2, 3)).get(timeout=LONG)


def test_who_waits_too_short_is_told(worker: Place) -> None:
    result = worker.task("held").delay("waited for")
    with pytest.raises(NotThere):
        result.get(timeout=0.1)
    worker.let_go("waited for")
    assert result.get(timeout=LONG) == "waited for"


def test_states_on_the_way_are_seen(worker: Place) -> None:
    result = worker.task("progress").delay("seen")
    eventually(lambda: result.state == "HALFWAY", within=LONG)
    assert result.info == {"done": 1}
    worker.let_go("seen")
    assert result.get(timeout=LONG) == "whole"
    started = worker.task("held").delay("started")
    eventually(lambda: started.state == "STARTED", within=LONG)
    assert started.info["hostname"] == "one@here"
    worker.let_go("started")
    assert started.get(timeout=LONG) == "started"


def test_an_ignored_result_has_no_value(worker: Place) -> None:
    result = worker.task("quiet").delay("please")
    worker.noted("quiet-please")
    assert result.get(timeout=LONG) is None
    called = worker.task("same").apply_async((1,), ignore_result=True)
    assert worker.task("same").delay(2).get(timeout=LONG) == 2
    assert called.result is None


def test_a_countdown_and_an_eta_are_waited_for(worker: Place) -> None:
    before = datetime.now(timezone.utc)
    soon = worker.task("noted").apply_async(("soon",), countdown=0.7)
    at = worker.task("noted").apply_async(("at",), eta=before + timedelta(seconds=0.7))
    assert worker.task("noted").delay("now").get(timeout=LONG) == "now"
    assert soon.get(timeout=LONG) == "soon"
    assert at.get(timeout=LONG) == "at"
    assert datetime.now(timezone.utc) - before >= timedelta(seconds=0.7)
    assert worker.notes("now") == ["now"]
    assert worker.notes().index("now") < min(worker.notes().index("soon"), worker.notes().index("at"))


@pytest.mark.parametrize("given", [0.2, timedelta(seconds=0.2)])
def test_what_expires_before_it_begins_does_not_run(worker: Place, given: Any) -> None:
    if isinstance(given, timedelta):
        given = datetime.now(timezone.utc) + given
    late = worker.task("noted").apply_async((f"expired-{given}",), countdown=1, expires=given)
    with pytest.raises(TaskRevokedError):
        late.get(timeout=LONG)
    assert late.state == "REVOKED"
    assert worker.notes("expired") == []
    assert worker.task("add").apply_async((1, 2), expires=LONG).get(timeout=LONG) == 3


def test_a_task_knows_its_call(worker: Place) -> None:
    id = uuid()
    result = worker.task("request").apply_async((1, 2), task_id=id, headers={"colour": "red"}, priority=3)
    found = result.get(timeout=LONG)
    assert result.id == id
    assert found.pop("priority") in (3, 6)  # Redis counts the other way round
    assert found == {
        "id": id,
        "root": id,
        "parent": None,
        "retries": 0,
        "queue": "celery",
        "args": [1, 2],
        "hostname": "one@here",
        "headers": "red",
        "group": False,
    }


def test_what_a_task_calls_is_its_child(worker: Place) -> None:
    result = worker.task("calls").delay()
    id = result.get(timeout=LONG)
    if worker.results_are_kept:
        [child] = result.children
        assert (child.id, child.get(timeout=LONG)) == (id, 2)


def test_callbacks_get_the_value_and_errbacks_the_failure(worker: Place) -> None:
    noted, told, told_all = worker.task("noted"), worker.task("told"), worker.task("told_all")
    if not worker.results_are_kept:
        told_all = told  # the failure itself is not told to who cannot read it
    worker.task("add").apply_async((1, 1), link=[noted.s(), worker.task("quiet").si("linked")], link_error=told.s())
    worker.noted("2", "quiet-linked")
    failed = worker.task("fail").apply_async(("bad",), link=noted.si("never"), link_error=[told.s(), told_all.s()])
    worker.noted(f"told-{failed.id}", *([f"told-{failed.id}-ValueError-bad"] if worker.results_are_kept else []))
    assert worker.notes("never") == []


def test_results_are_read_by_id_and_forgotten(worker: Place) -> None:
    if not worker.results_are_kept:
        pytest.skip("a reply is read by who called, once")
    result = worker.task("add").delay(1, 2)
    assert result.get(timeout=LONG) == 3
    again = worker.app.AsyncResult(result.id)
    assert (again.state, again.get(timeout=LONG), again.name or "add") == ("SUCCESS", 3, "add")
    again.forget()
    assert worker.app.AsyncResult(result.id).state == "PENDING"


def test_many_results_are_waited_for_together(worker: Place) -> None:
    add = worker.task("add")
    results = [add.delay(n, 1) for n in range(100)]
    assert [result.get(timeout=LONG) for result in reversed(results)] == list(range(100, 0, -1))
    if worker.results_are_kept:
        assert group(add.s(n, 1) for n in range(50)).apply_async().get(timeout=LONG) == list(range(1, 51))


def test_threads_call_and_wait_side_by_side(worker: Place) -> None:
    found: list[int] = []

    def work(first: int) -> None:
        found.extend(worker.task("add").delay(n, 0).get(timeout=LONG) for n in range(first, first + 10))

    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 50, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert sorted(found) == list(range(50))
