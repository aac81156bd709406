"""A worker inside the program: what the app starts, and waiting for it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, context
from litetq.exceptions import ImproperlyConfigured


def test_tasks_run_inside_the_program_and_several_times_in_one_process(app: LiteTQ) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    for n in range(3):
        with app.run_embedded(concurrency=2) as worker:
            assert add.delay(n, 2).get(timeout=10) == n + 2
            assert worker.statistics().concurrency == 2
        assert not worker.is_running
    assert not add.delay(1, 1).ready()  # nobody runs it now; it waits in the file


@pytest.mark.row("4.self.retry: callbacks, chain and group are kept")
def test_a_retry_and_its_callbacks_run_there(app: LiteTQ) -> None:
    @app.task(bind=True, max_retries=3)
    def flaky(self: Any) -> int:
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        retries: int = self.request.retries
        return retries

    ended = threading.Event()
    with app.run_embedded(concurrency=1):
        result = flaky.delay().then(lambda result: ended.set())
        assert result.get(timeout=10) == 2
        assert ended.wait(10)


def test_a_task_enqueues_into_the_file_that_overrides_the_apps(tmp_path: Path) -> None:
    app = LiteTQ("x", broker=tmp_path / "constructor.sqlite")

    @app.task
    def child() -> str:
        return "child"

    @app.task
    def parent() -> str:
        return child.delay().id

    app.override_broker(tmp_path / "given.sqlite", "FILE")
    with app.run_embedded(concurrency=1):
        id = parent.delay().get(timeout=10)
        assert app.AsyncResult(id).get(timeout=10) == "child"
    app.close()
    assert not (tmp_path / "constructor.sqlite").exists()


def test_nothing_is_started_or_waited_for_while_a_worker_imports(app: LiteTQ) -> None:
    result = app.send_task("any")
    with context.importing_module("jobs"):
        with pytest.raises(ImproperlyConfigured, match=r'a worker is started.*\'jobs\'.*if __name__ == "__main__"'):
            app.run_embedded()
        with pytest.raises(ImproperlyConfigured, match=r"a result is waited for.*'jobs'"):
            result.get(timeout=10)
