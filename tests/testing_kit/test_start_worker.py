"""A worker within a test, as Celery's `start_worker` is one; an app and a file that go with the test."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, context, current_app, testing
from litetq.exceptions import TimeLimitExceeded, TimeoutError
from litetq.testing import (
    start_worker,
    temporary_app,
    temporary_file,
    trapped_current_app,
    visiting_app,
)


def test_it_takes_tasks_at_once_and_is_gone_after_the_block(app: LiteTQ) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    app.finalize()
    assert "celery.ping" not in app.tasks  # nothing need be imported for the check
    with start_worker(app) as worker:
        assert worker.is_running
        assert worker.statistics().pool == "solo"
        assert add.delay(1, 2).get(timeout=10) == 3
        assert worker.statistics().total["celery.ping"] == 1
    assert not worker.is_running
    assert app.engine.workers() == []


def test_the_app_is_the_current_and_the_default_one(app: LiteTQ) -> None:
    other = LiteTQ("other", broker=app.engine.path)
    other.set_current()
    with start_worker(app, perform_ping_check=False):
        assert context.get_current_app() is app
        seen: list[Any] = []
        thread = threading.Thread(target=lambda: seen.append(context.get_current_app()))
        thread.start()
        thread.join()
        assert seen == [app]


def test_queues_pool_and_name_are_what_is_asked_for(app: LiteTQ) -> None:
    @app.task
    def where() -> str:
        return threading.current_thread().name

    with start_worker(
        app, pool="threads", concurrency=2, queues=["own"], hostname="w@here", without_heartbeat=True
    ) as worker:
        assert worker.hostname == "w@here"
        assert worker.statistics().concurrency == 2
        assert where.apply_async(queue="own").get(timeout=10) != threading.current_thread().name


def test_a_hard_time_limit_is_kept_where_celerys_default_pool_could_not(app: LiteTQ) -> None:
    """Celery's documentation of Django sets one for all tasks, and `solo` is what its testing kit takes."""
    app.conf.task_time_limit = 0.2

    @app.task
    def stay() -> None:
        threading.Event().wait(2)

    with start_worker(app, concurrency=2) as worker:
        with pytest.raises(TimeLimitExceeded):
            stay.delay().get(timeout=10)
        assert worker.statistics().concurrency == 1


def test_what_happens_is_told(app: LiteTQ) -> None:
    told: list[tuple[str, Any, bool]] = []

    def note(signal: Any, sender: Any, worker: Any = None, **_: Any) -> None:
        told.append((signal.name, sender, worker is not None))

    for signal in (testing.test_worker_starting, testing.test_worker_started, testing.test_worker_stopped):
        signal.connect(note)
    with start_worker(app):
        pass
    assert told == [
        ("test_worker_starting", app, False),
        ("test_worker_started", app, True),
        ("test_worker_stopped", app, True),
    ]


def test_a_task_that_runs_on_is_named(app: LiteTQ) -> None:
    release = threading.Event()
    began = threading.Event()

    @app.task(name="slow")
    def slow() -> None:
        began.set()
        release.wait(20)

    worker = None
    with pytest.raises(RuntimeError, match=r"has not stopped within 0.1 seconds; still running: slow\["):
        with start_worker(app, shutdown_timeout=0.1) as worker:
            slow.delay()
            assert began.wait(10)
    release.set()
    assert worker is not None
    assert worker.join(10)


def test_a_worker_that_does_not_answer_ends_the_block_before_it_began(app: LiteTQ) -> None:
    release = threading.Event()

    @app.task(name="celery.ping")
    def ping() -> None:
        release.wait(20)

    threading.Timer(0.5, release.set).start()
    with pytest.raises(TimeoutError), start_worker(app, ping_task_timeout=0.05):
        raise AssertionError("not reached")
    assert app.engine.workers() == []


def test_the_loggers_level_counts_within_the_block_only(app: LiteTQ) -> None:
    logger = logging.getLogger("celery")
    before = logger.level
    with start_worker(app, loglevel="debug"):
        assert logger.level == logging.DEBUG
    assert logger.level == before


def test_a_temporary_app_has_a_file_that_nobody_shares() -> None:
    one = temporary_app(
        "one", {"broker_url": "memory://", "result_backend": "cache+memory://", "task_default_queue": "q"}
    )
    two = temporary_app()
    assert one.engine.path != two.engine.path
    assert one.results is one.engine
    assert one.conf.task_default_queue == "q"
    assert (two.main, two.conf.timezone, two.conf.worker_hijack_root_logger) == ("celery.tests", "UTC", False)
    one.close()
    two.close()


def test_a_temporary_app_takes_the_file_that_is_named(db: Path) -> None:
    with temporary_app(broker=db) as app:
        assert app.engine.path == db
    with temporary_app(config={"broker_url": str(db)}) as app:
        assert app.engine.path == db


def test_the_file_of_an_app_is_another_one_within_the_block(db: Path) -> None:
    app = LiteTQ("own", broker=db, set_as_current=False)

    @app.task
    def noop() -> str:
        return "ran"

    with temporary_file(app) as path:
        noop.delay()
        assert app.engine.path == path
        assert path.exists()
        assert app.conf.broker_url == app.broker_address.text
    assert not path.parent.exists()
    assert not db.exists()
    assert app.broker_source == "the app's constructor"
    with app, temporary_file(app), start_worker(app):
        assert noop.delay().get(timeout=10) == "ran"
    assert app.engine.path == db
    app.close()


def test_the_current_app_is_as_it_was_after_a_visit(app: LiteTQ) -> None:
    app.set_current()
    guest = temporary_app()
    with visiting_app(guest):
        guest.set_current()
        guest.set_default()
        assert context.get_current_app() is guest
    assert context.get_current_app() is app


def test_a_trap_raises_where_the_current_app_is_used(app: LiteTQ) -> None:
    with trapped_current_app(), pytest.raises(RuntimeError, match="Test depends on current_app"):
        _ = current_app.conf
    assert current_app.conf is app.conf
