"""Time travel: what is due, what has expired, with a worker in this process."""

from __future__ import annotations

import sys
import time as real_time
from datetime import datetime, timedelta, timezone

import pytest

from litetq import LiteTQ, clock, states, wake, worker
from litetq.testing import drain, enqueued, travel
from tests.waiting import eventually


def test_the_time_goes_forward_and_comes_back() -> None:
    with travel() as time:
        before = time.now()
        time.forward(minutes=5)
        time.forward(30)
        assert timedelta(seconds=330) <= time.now() - before < timedelta(seconds=340)
        assert clock.now() == pytest.approx(real_time.time() + 330, abs=5)
    assert clock.now() == pytest.approx(real_time.time(), abs=5)


@pytest.mark.parametrize(
    "point", [datetime(2030, 1, 2, 3, 4, 5), "2030-01-02T03:04:05Z", "2030-01-02T04:04:05+01:00", 1893553445.0]
)
def test_a_point_is_a_datetime_its_text_or_utc_seconds(point: datetime | str | float) -> None:
    with travel(point, frozen=True) as time:
        assert time.now() == datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def test_frozen_it_stands_still_until_it_is_moved() -> None:
    with travel("2030-01-01T00:00:00Z", frozen=True) as time:
        first = clock.now()
        assert clock.now() == first
        assert time.forward(hours=1) == datetime(2030, 1, 1, 1, tzinfo=timezone.utc)
        assert clock.now() == first + 3600


def test_travels_within_travels_come_back_to_where_they_began() -> None:
    with travel("2030-01-01T00:00:00Z", frozen=True) as outer:
        with travel() as inner:
            inner.forward(days=1)
            assert inner.now().day == 2
        assert outer.now().day == 1
        assert clock.now() == outer.seconds()


def test_a_wrong_point_is_told() -> None:
    with travel() as time, pytest.raises(TypeError, match="'point' must be a datetime or ISO 8601 text, found 'soon'"):
        time.to("soon")


def test_an_eta_is_computed_from_the_moved_time_and_comes_due_with_it(app: LiteTQ) -> None:
    @app.task
    def noop() -> None: ...

    with travel("2030-06-01T12:00:00Z", frozen=True) as time:
        result = noop.apply_async(countdown=3600)
        assert enqueued(noop)[0].eta == datetime(2030, 6, 1, 13, tzinfo=timezone.utc)
        time.forward(minutes=59)
        assert drain(app) == []
        time.forward(minutes=1)
        assert len(drain(app)) == 1
        assert result.date_done == datetime(2030, 6, 1, 13, tzinfo=timezone.utc)


def test_a_sleeping_worker_of_this_process_sees_that_the_time_has_come(
    app: LiteTQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "BACKSTOP_S", 60.0)  # else it would look by itself a second later

    @app.task
    def noop() -> str:
        return "ran"

    with travel() as time, app.run_embedded(pool="threads", concurrency=1) as running:
        result = noop.apply_async(countdown=3600)
        expires = noop.apply_async(countdown=7200, expires=3700)
        assert eventually(lambda: is_asleep(running))
        time.forward(hours=1, seconds=1)
        assert result.get(timeout=10) == "ran"
        time.forward(hours=2)
        assert eventually(lambda: expires.state == states.REVOKED)


def is_asleep(running: worker.Worker) -> bool:
    """Return whether the worker's thread waits for the bell."""
    frame = sys._current_frames().get(running._thread.ident or 0)
    while frame is not None:
        if frame.f_code is wake.Waiter.wait.__code__:
            return True
        frame = frame.f_back
    return False
