"""Where tasks go and in which order they come: queues, routes, priorities, rates, and who serves what."""

from __future__ import annotations

import time

from litetq.message import uuid
from tests.behaviour.conftest import LONG, Place
from tests.waiting import eventually


def test_a_task_waits_in_its_queue_for_who_serves_it(worker: Place) -> None:
    quiet = worker.task("noted").apply_async(("other queue",), queue="later")
    routed = worker.task("routed").delay("by its name")
    assert worker.task("add").delay(1, 2).get(timeout=LONG) == 3
    assert worker.notes("other queue") == worker.notes("routed") == []
    worker.worker("late", "-P", "threads", "-c", "2", "-Q", "later,elsewhere")
    assert quiet.get(timeout=LONG) == "other queue"
    assert routed.get(timeout=LONG) == "by its name"
    assert worker.stop("late") == 0


def test_one_worker_does_one_after_another_in_the_order_of_the_calls(single: Place) -> None:
    results = [single.task("noted").apply_async((f"turn-{n:02}",), queue="single") for n in range(30)]
    assert results[-1].get(timeout=LONG) == "turn-29"
    assert single.notes("turn") == [f"turn-{n:02}" for n in range(30)]


def test_the_more_urgent_come_first(place: Place) -> None:
    for n in range(3):
        for priority in (0, 3, 6, 9):
            place.task("noted").apply_async((f"urgent-{priority}-{n}",), queue="urgent", priority=priority)
    place.worker("urgent", "-P", "threads", "-c", "1", "--prefetch-multiplier", "1", "-Q", "urgent")
    eventually(lambda: len(place.notes("urgent")) == 12, within=LONG)
    assert place.notes("urgent") == [f"urgent-{priority}-{n}" for priority in (9, 6, 3, 0) for n in range(3)]
    assert place.stop("urgent") == 0


def test_a_rate_is_kept_and_others_do_not_wait_for_it(worker: Place) -> None:
    worker.app.control.rate_limit("late", "10/s", destination=["one@here"] if not worker.is_file else None, reply=True)
    results = [worker.task("late").delay(f"rated-{n}") for n in range(8)]
    assert worker.task("add").delay(1, 2).get(timeout=LONG) == 3
    began = time.monotonic()
    for result in results:
        result.get(timeout=LONG)
    worker.app.control.rate_limit("late", None, reply=True)
    assert time.monotonic() - began > 0.4  # seven intervals of a tenth; the first may have passed before


def test_a_worker_is_told_which_queues_to_serve(worker: Place) -> None:
    control, add = worker.app.control, worker.task("add")
    first = add.apply_async((1, 2), queue="added")
    control.add_consumer("added", destination=["one@here"], reply=True)
    assert first.get(timeout=LONG) == 3
    served = control.inspect(["one@here"], timeout=5).active_queues()["one@here"]
    assert {queue["name"] for queue in served} == {"celery", "added"}
    control.cancel_consumer("added", destination=["one@here"], reply=True)
    second = worker.task("noted").apply_async(("not served",), queue="added")
    assert add.delay(1, 2).get(timeout=LONG) == 3
    assert worker.notes("not served") == []
    control.add_consumer("added", destination=["one@here"], reply=True)
    assert second.get(timeout=LONG) == "not served"


def test_what_waits_is_thrown_away_on_request(place: Place) -> None:
    ids = [place.task("noted").apply_async((f"purged-{n}",), queue="purged", task_id=uuid()).id for n in range(5)]
    assert len(ids) == 5
    code = place.start("purge", "purge", "-f", "-Q", "purged").wait(LONG)
    assert code == 0, place.log("purge")
    assert "5" in place.log("purge")
    place.worker("purged", "-P", "threads", "-c", "1", "-Q", "purged")
    assert place.task("add").apply_async((1, 2), queue="purged").get(timeout=LONG) == 3
    assert place.notes("purged") == []
    place.stop("purged")


def test_a_worker_that_is_stopped_finishes_what_runs_and_leaves_the_rest(place: Place) -> None:
    place.worker("stopped", "-P", "threads", "-c", "1", "-Q", "stopped")
    running = place.task("held").apply_async(("stopping",), queue="stopped")
    waiting = [place.task("noted").apply_async((f"left-{n}",), queue="stopped") for n in range(5)]
    place.noted("began-stopping")
    place.signal("stopped")
    eventually(lambda: "Warm shutdown" in place.log("stopped"), within=LONG)
    place.let_go("stopping")
    assert place.stop("stopped") == 0
    assert running.get(timeout=LONG) == "stopping"
    assert place.notes("left") == []
    place.worker("stopped", "-P", "threads", "-c", "1", "-Q", "stopped")
    assert [result.get(timeout=LONG) for result in waiting] == [f"left-{n}" for n in range(5)]
    assert place.notes("left") == [f"left-{n}" for n in range(5)]
    place.stop("stopped")
