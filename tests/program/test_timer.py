"""The timer of a worker's own steps: functions are called later, again and again, or no more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from litetq import clock
from litetq.steps import Timer
from tests.waiting import eventually

LONG = 20.0  # seconds


@pytest.fixture
def timer() -> Iterator[Timer]:
    timer = Timer("test-timer")
    yield timer
    timer.stop()


def test_a_call_comes_at_its_time_and_one_whose_time_is_over_at_once(timer: Timer) -> None:
    called: list[str] = []
    soon = datetime.now(timezone.utc) + timedelta(seconds=0.05)
    timer.call_at(soon, called.append, ("soon",))
    timer.call_at(clock.now() - 60, called.append, ("long over",))
    timer.call_at(clock.now() + 3600, called.append, ("much later",))
    eventually(lambda: len(called) == 2, LONG)
    assert called == ["long over", "soon"]


def test_what_is_called_again_and_again_outlives_its_own_errors_and_ends_when_it_is_cancelled(
    timer: Timer, caplog: pytest.LogCaptureFixture
) -> None:
    times: list[int] = []

    def fail() -> None:
        times.append(len(times))
        raise ValueError("each time")

    entry = timer.call_repeatedly(0.001, fail)
    eventually(lambda: len(times) >= 3, LONG)
    timer.cancel(entry)
    timer.call_after(0, times.clear)
    eventually(lambda: not times, LONG)
    passed = threading.Event()
    timer.call_after(0.02, passed.set)
    assert passed.wait(LONG) and not times
    assert "each time" in caplog.text


def test_a_timer_that_is_cleared_or_stopped_calls_nothing(timer: Timer) -> None:
    called: list[str] = []
    timer.call_after(0.02, called.append, ("cleared",))
    timer.clear()
    passed = threading.Event()
    timer.call_after(0.05, passed.set)
    assert passed.wait(LONG) and not called
    timer.call_after(3600, called.append, ("stopped",))
    timer.stop()
    assert not called
