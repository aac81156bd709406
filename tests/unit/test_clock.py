"""The time can be moved, and comes back."""

from __future__ import annotations

import time

import pytest

from litetq import clock


def test_now_is_the_systems_time_in_utc_seconds() -> None:
    before = time.time()
    assert before <= clock.now() <= time.time()


def test_within_moved_the_time_is_elsewhere_and_runs_on() -> None:
    with clock.moved(by=3600):
        first = clock.now()
        assert first == pytest.approx(time.time() + 3600, abs=5)
        assert clock.now() >= first
        with clock.moved(to=1000.0):
            assert clock.now() == pytest.approx(1000, abs=5)
        assert clock.now() == pytest.approx(time.time() + 3600, abs=5)
    assert clock.now() == pytest.approx(time.time(), abs=5)


def test_the_time_comes_back_also_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), clock.moved(by=9999):
        raise ZeroDivisionError
    assert clock.now() == pytest.approx(time.time(), abs=5)


def test_a_source_of_ones_own_says_what_now_is() -> None:
    clock.set_source(lambda: 42.0)
    try:
        assert clock.now() == 42.0
    finally:
        clock.set_source(None)
    assert clock.now() == pytest.approx(time.time(), abs=5)
