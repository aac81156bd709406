"""A beat that is asked whether it lives: it answers `ping` while its loop goes on, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from litetq import LiteTQ
from tests.waiting import eventually


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    app = LiteTQ("tasks", broker=db, set_as_current=False, beat_enable_remote_control=True)
    yield app
    app.close()


@pytest.mark.row("20.beat_enable_remote_control")
def test_a_beat_answers_ping_under_its_name(app: LiteTQ) -> None:
    service = app.Beat(hostname="celerybeat@here")
    thread = threading.Thread(target=service.start)
    thread.start()
    try:
        pong = [{"celerybeat@here": {"ok": "pong"}}]
        eventually(lambda: app.control.ping(destination=["celerybeat@here"], timeout=0.5) == pong)
        assert app.control.ping(destination=["other@here"], timeout=0.1) == []
        assert app.control.inspect(destination=["celerybeat@here"], timeout=0.1).stats() is None
    finally:
        service.stop()
        thread.join(10)
    assert app.control.ping(destination=["celerybeat@here"], timeout=0.1) == []


@pytest.mark.row("20.beat_remote_control_max_tick_age")
def test_a_beat_whose_loop_hangs_does_not_answer(app: LiteTQ) -> None:
    app.conf.beat_remote_control_max_tick_age = 0.2
    service = app.Beat(hostname="celerybeat@here", max_interval=0.05)
    service.prepare()
    hangs, go_on = threading.Event(), threading.Event()
    tick = service.scheduler.tick

    def hanging() -> float:
        if hangs.is_set():
            go_on.wait(30)
        return float(tick())

    service.scheduler.tick = hanging
    thread = threading.Thread(target=service.start)
    thread.start()
    try:
        ping = lambda: app.control.ping(destination=["celerybeat@here"], timeout=0.3)  # noqa: E731
        eventually(ping)
        hangs.set()
        eventually(lambda: not ping())
        go_on.set()
        eventually(ping)
    finally:
        go_on.set()
        service.stop()
        thread.join(10)
