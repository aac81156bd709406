"""A worker within a test."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from litetq.result import allow_join_result
from litetq.signals import Signal
from litetq.worker import Worker

__all__ = ["TestWorkController", "start_worker", "test_worker_started", "test_worker_starting", "test_worker_stopped"]

test_worker_starting = Signal(name="test_worker_starting")
test_worker_started = Signal(name="test_worker_started", providing_args={"worker", "consumer"})
test_worker_stopped = Signal(name="test_worker_stopped", providing_args={"worker"})
TestWorkController = Worker


@contextmanager
def start_worker(
    app: Any,
    concurrency: int = 1,
    pool: str = "solo",
    loglevel: Any = "error",
    logfile: str | None = None,
    perform_ping_check: bool = True,
    ping_task_timeout: float = 10.0,
    shutdown_timeout: float = 10.0,
    **kwargs: Any,
) -> Iterator[Any]:
    """Run a worker in this process within the block; it takes tasks when the block is entered.

    Raises RuntimeError when it has not stopped `shutdown_timeout` seconds after the end of the block.
    """
    options = {name: kwargs[name] for name in ("queues", "hostname", "beat") if kwargs.get(name) is not None}
    test_worker_starting.send(sender=app)
    app.finalize()
    if perform_ping_check and "celery.ping" not in app.tasks:
        raise AssertionError(
            "the worker is to be tried with the task celery.ping, which the app does not have: import "
            "celery.contrib.testing.tasks before the app is used, or give perform_ping_check=False"
        )
    logger = logging.getLogger("celery")
    level_before = logger.level
    logger.setLevel(loglevel.upper() if isinstance(loglevel, str) else loglevel)
    worker = app.run_embedded(concurrency=concurrency, pool=pool, **options)
    try:
        if perform_ping_check:
            with allow_join_result():
                assert app.tasks["celery.ping"].delay().get(timeout=ping_task_timeout) == "pong"
        test_worker_started.send(sender=app, worker=worker, consumer=worker)
        yield worker
    finally:
        stopped = worker.stop(shutdown_timeout)
        logger.setLevel(level_before)
        test_worker_stopped.send(sender=app, worker=worker)
        if not stopped:
            raise RuntimeError(
                f"Worker {worker.hostname} did not stop within {shutdown_timeout} seconds: a task of it is still running"
            )
