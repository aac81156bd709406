"""How attempts end: retries, limits, acknowledgements, lost processes, and orders not to run."""

from __future__ import annotations

import time
from typing import Any

import pytest

from litetq.exceptions import (
    MaxRetriesExceededError,
    SoftTimeLimitExceeded,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkerLostError,
)
from tests.behaviour.conftest import LONG, Place
from tests.waiting import eventually

# -- retries


def test_a_task_is_retried_so_often_and_then_fails(worker: Place) -> None:
    result = worker.task("stubborn").delay("tried")
    with pytest.raises(MaxRetriesExceededError, match="Can't retry stubborn"):
        result.get(timeout=LONG)
    assert worker.notes("tried") == ["tried-0", "tried-1", "tried-2"]
    with pytest.raises(KeyError, match="live"):
        worker.task("raises_last").delay().get(timeout=LONG)


def test_a_retry_succeeds_in_the_end(worker: Place) -> None:
    assert worker.task("third_time").delay().get(timeout=LONG) == 2
    began = time.monotonic()
    assert worker.task("third_time").delay(0.3).get(timeout=LONG) == 2
    assert time.monotonic() - began >= 0.6


def test_a_retry_may_have_other_arguments(worker: Place) -> None:
    assert worker.task("other_arguments").delay(1).get(timeout=LONG) == [2, 5]


def test_errors_that_are_listed_are_retried_and_others_are_not(worker: Place) -> None:
    began = time.monotonic()
    assert worker.task("by_itself").delay("disk").get(timeout=LONG) == 1
    assert time.monotonic() - began >= 1  # its backoff
    with pytest.raises(ValueError, match="bug"):
        worker.task("by_itself").delay("bug").get(timeout=LONG)


def test_the_state_says_that_a_retry_is_waited_for(worker: Place) -> None:
    result = worker.task("waits_to_retry").delay("short")
    if worker.results_are_kept:
        eventually(lambda: result.state == "RETRY", within=LONG)
        assert isinstance(result.info, ValueError)
    assert result.get(timeout=LONG) == "short"


# -- limits


def test_a_soft_limit_is_raised_in_the_task(worker: Place) -> None:
    assert worker.task("too_long").apply_async((True,), soft_time_limit=0.3).get(timeout=LONG) == "cleaned"
    with pytest.raises(SoftTimeLimitExceeded):
        worker.task("too_long").apply_async(soft_time_limit=0.3).get(timeout=LONG)


def test_a_hard_limit_ends_the_task(children: Place) -> None:
    with pytest.raises(TimeLimitExceeded):
        children.task("too_long").apply_async(time_limit=0.5, queue="children").get(timeout=LONG)
    assert children.task("add").apply_async((1, 2), queue="children").get(timeout=LONG) == 3


# -- what is acknowledged, and when


def test_late_acknowledgement_changes_nothing_for_a_task_that_ends(worker: Place) -> None:
    assert worker.task("late").delay("once").get(timeout=LONG) == "once"
    with pytest.raises(ValueError):
        worker.app.send_task("fail").get(timeout=LONG)
    assert worker.notes("late-once") == ["late-once"]


def test_a_rejected_task_comes_back_or_is_gone(worker: Place) -> None:
    assert worker.task("rejected").delay("again", True).get(timeout=LONG) == "taken"
    assert len(worker.notes("rejected-again")) == 2
    gone = worker.task("rejected").delay("gone", False)
    worker.noted("rejected-gone")
    assert worker.task("add").delay(1, 2).get(timeout=LONG) == 3
    assert not gone.successful()
    assert worker.notes("rejected-gone") == ["rejected-gone"]


def test_an_ignored_task_has_no_end_to_be_seen(worker: Place) -> None:
    result = worker.task("ignored").delay()
    worker.noted("ignored")
    assert worker.task("add").delay(1, 2).get(timeout=LONG) == 3
    assert not result.ready() or result.state == "IGNORED"


def test_a_task_whose_process_dies_fails_as_lost(children: Place) -> None:
    with pytest.raises(WorkerLostError):
        children.task("dies").apply_async(queue="children").get(timeout=LONG)


def test_a_task_whose_process_dies_comes_back_if_it_wants_to(children: Place) -> None:
    assert children.task("dies_once").apply_async(("b",), queue="children").get(timeout=LONG) == "back"
    assert children.notes("dies-b") == ["dies-b", "dies-b"]


# -- orders not to run


def revoked(result: Any) -> bool:
    with pytest.raises(TaskRevokedError):
        result.get(timeout=LONG)
    return bool(result.state == "REVOKED")


def test_a_task_that_waits_for_its_time_is_revoked(worker: Place) -> None:
    result = worker.task("noted").apply_async(("revoked",), countdown=1)
    result.revoke()
    assert revoked(result)
    assert worker.notes("revoked") == []


def test_a_retry_that_is_waited_for_is_revoked(worker: Place) -> None:
    if not worker.results_are_kept:
        pytest.skip("nobody can see that it waits")
    result = worker.task("waits_to_retry").delay("long")
    eventually(lambda: result.state == "RETRY", within=LONG)
    result.revoke()
    assert revoked(result)


def test_a_task_behind_others_is_revoked(single: Place) -> None:
    single.task("held").apply_async(("first",), queue="single")
    behind = single.task("noted").apply_async(("behind",), queue="single")
    single.noted("began-first")
    behind.revoke()
    if not single.is_file:  # workers are told: they keep it in mind
        eventually(
            lambda: behind.id in (single.app.control.inspect(["single@here"]).revoked() or {}).get("single@here", ())
        )
    single.let_go("first")
    assert revoked(behind)
    assert single.notes("behind") == []


def test_a_running_task_is_terminated(children: Place) -> None:
    result = children.task("held").apply_async(("terminated",), queue="children")
    children.noted("began-terminated")
    result.revoke(terminate=True)
    assert revoked(result)
    assert children.notes("ended-terminated") == []
    assert children.task("add").apply_async((1, 2), queue="children").get(timeout=LONG) == 3
