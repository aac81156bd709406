"""Which pool is meant by a name, and pools that somebody else has written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, pools
from litetq.exceptions import ImproperlyConfigured, WorkerLostError
from litetq.pool import SimplePool
from tests.conftest import RunPython


class ExecutorPool(SimplePool):
    """The example of docs/guide/concurrency.md."""

    name = "executor"

    def start(self) -> None:
        self.executor = ThreadPoolExecutor(self.concurrency, "own")

    def launch(self, attempt: Callable[[], None]) -> None:
        self.executor.submit(attempt)

    def stop(self, *, kill: bool = False) -> None:
        self.executor.shutdown(wait=not kill)


class Incomplete(SimplePool):
    """Does not say how an attempt is started."""


class NotMade(SimplePool):
    def __init__(self) -> None:
        pass


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    app = LiteTQ("tasks", broker=db, set_as_current=False)
    yield app
    app.close()


def test_a_class_of_ones_own_is_a_pool(app: LiteTQ) -> None:
    together = threading.Barrier(3)

    @app.task(name="where")
    def where() -> str:
        together.wait(20)
        return threading.current_thread().name

    @app.task(name="fail")
    def fail() -> None:
        raise ValueError("no")

    with app.run_embedded(pool=ExecutorPool, concurrency=3) as worker:
        assert (worker.statistics().pool, worker.statistics().concurrency) == ("executor", 3)
        names = {result.get(timeout=20) for result in [where.delay() for _ in range(6)]}
        assert names <= {"own_0", "own_1", "own_2"} and len(names) == 3
        with pytest.raises(ValueError, match="no"):
            fail.delay().get(timeout=20)
        with pytest.raises(NotImplementedError, match="pool executor"):
            worker.terminate("any")


def test_a_cold_stop_ends_what_such_a_pool_runs_by_the_rule_for_lost_workers(app: LiteTQ) -> None:
    begun, go = threading.Event(), threading.Event()

    @app.task(name="hold")
    def hold() -> None:
        begun.set()
        go.wait(60)

    worker = app.run_embedded(pool=ExecutorPool, concurrency=1)
    result = hold.delay()
    assert begun.wait(20)
    assert worker.stop(20, how="cold")
    go.set()
    with pytest.raises(WorkerLostError):
        result.get(timeout=5)


def test_a_hard_limit_that_such_a_pool_cannot_keep_is_refused_at_the_start(app: LiteTQ) -> None:
    app.task(name="limited", time_limit=5)(lambda: None)
    with pytest.raises(ImproperlyConfigured, match="pool=executor cannot stop a task at a hard time limit"):
        app.run_embedded(pool=ExecutorPool)


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        (dict, "it has no start(), room()"),
        ("collections:OrderedDict", "pool collections:OrderedDict: it has no start(), room()"),
        ("os:path", "no class"),
        ("tests.nowhere:Pool", "cannot be imported"),
        ("os:Nothing", "cannot be imported"),
        ("nonsense", "there is no such pool; choose one of prefork"),
        (NotMade, "cannot be made with (run, begin, wake, concurrency)"),
    ],
)
def test_what_is_no_pool_is_told_in_one_sentence(app: LiteTQ, pool: Any, words: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        app.run_embedded(pool=pool)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_pool_that_cannot_start_an_attempt_ends_its_worker_and_loses_nothing(app: LiteTQ) -> None:
    add = app.task(name="add")(lambda a, b: a + b)
    worker = app.run_embedded(pool=Incomplete, concurrency=1)
    result = add.delay(1, 2)
    assert worker.join(20)
    assert "no launch()" in str(worker.failure)
    with app.run_embedded(concurrency=1):
        assert result.get(timeout=20) == 3


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("prefork", "processes"),
        ("Threads", "threads"),
        ("celery.concurrency.prefork:TaskPool", "processes"),
        ("celery.concurrency.thread:TaskPool", "threads"),
        ("celery.concurrency.solo:TaskPool", "solo"),
    ],
)
def test_celerys_names_and_paths_of_pools_are_known(name: str, meant: str) -> None:
    assert pools.find(name) == pools.Found(meant)


@pytest.mark.row("8.pools prefork, threads, solo")
@pytest.mark.system
@pytest.mark.parametrize("how", ["path", "custom", "setting"])
def test_a_pool_is_named_on_the_command_line_as_with_celery(
    how: str, db: Path, app: LiteTQ, run_python: RunPython
) -> None:
    folder = db.parent
    (folder / "own_pool.py").write_text(
        "import time\nfrom tests.running.test_pools import ExecutorPool\nclass Own(ExecutorPool):\n    name = 'own'\n",
        encoding="utf-8",
    )
    setting = "app.conf.worker_pool = 'own_pool:Own'\n" if how == "setting" else ""
    (folder / "tasks.py").write_text(
        "import threading\nfrom litetq import LiteTQ\napp = LiteTQ('tasks', broker='jobs.sqlite')\n"
        + setting
        + "@app.task\n"
        "def where():\n    return threading.current_thread().name\n",
        encoding="utf-8",
    )
    words = {"path": ["-P", "own_pool:Own"], "custom": ["--pool=custom"], "setting": []}[how]
    result = app.send_task("tasks.where")
    env = {"CELERY_CUSTOM_WORKER_POOL": "own_pool:Own"} if how == "custom" else {}
    worker = run_python("-m", "litetq", "-A", "tasks", "worker", "--drain", "-c", "2", *words, env=env)
    out, err = worker.communicate(timeout=60)
    assert worker.returncode == 0, err
    assert "concurrency: 2 (own)" in out
    assert result.get(timeout=5).startswith("own_")
