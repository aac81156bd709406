"""Tasks that are `async def`, with real workers: in every pool, and thousands at once in the pool asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, aio, chord, group, signals
from litetq.exceptions import (
    Ignore,
    Reject,
    SoftTimeLimitExceeded,
    TaskError,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkerLostError,
)
from litetq.pool import ABANDONED_MIN
from tests.conftest import RunPython
from tests.waiting import eventually

IN_PROCESS = ["solo", "threads", "asyncio"]
ENDING = ["threads", "asyncio"]  # those of them that keep hard limits


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    app = LiteTQ("tasks", broker=db, set_as_current=False)
    yield app
    app.close()


# -- in every pool -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", IN_PROCESS)
def test_an_async_task_runs_on_one_loop_beside_all_others(app: LiteTQ, pool: str) -> None:
    loops = []

    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        await asyncio.sleep(0)
        loops.append((id(asyncio.get_running_loop()), threading.current_thread().name))
        return x + y

    with app.run_embedded(pool=pool, concurrency=3):
        assert group(add.s(n, n) for n in range(20)).delay().get(timeout=10) == [2 * n for n in range(20)]
    assert len(set(loops)) == 1 and loops[0][1] == "litetq-asyncio"


def test_async_tasks_run_in_child_processes(run_python: RunPython, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(
        "import asyncio, os\n"
        "from litetq import LiteTQ\n"
        "app = LiteTQ('tasks', broker='jobs.sqlite')\n"
        "@app.task(bind=True)\n"
        "async def where(self):\n"
        "    await asyncio.sleep(0.01)\n"
        "    return [os.getpid(), self.request.id]\n"
        "@app.task(soft_time_limit=0.2)\n"
        "async def soft():\n"
        "    await asyncio.sleep(60)\n"
        "@app.task(time_limit=0.2)\n"
        "async def hard():\n"
        "    await asyncio.sleep(60)\n"
    )
    main = (
        "import os, tasks\n"
        "with tasks.app.run_embedded(pool='processes', concurrency=1):\n"
        "    result = tasks.where.delay()\n"
        "    pid, id = result.get(timeout=30)\n"
        "    assert pid != os.getpid() and id == result.id\n"
        "    for task in (tasks.soft, tasks.hard):\n"
        "        print(repr(task.delay().get(timeout=30, propagate=False)))\n"
    )
    out, err = run_python(main).communicate(timeout=60)
    assert out.splitlines() == ["SoftTimeLimitExceeded()", "TimeLimitExceeded(0.2)"], err


@pytest.mark.parametrize("pool", IN_PROCESS)
def test_the_request_the_current_task_and_the_parent_are_the_attempts_own_within_it(app: LiteTQ, pool: str) -> None:
    seen = {}

    @app.task(name="child")
    def child() -> None: ...

    @app.task(name="parent", bind=True)
    async def parent(self: Any, n: int) -> None:
        await asyncio.sleep(0.05)
        assert app.current_task is self
        called = await child.adelay()
        seen[n] = (self.request.id, called.id)

    results = [parent.delay(n) for n in range(3)]
    with app.run_embedded(pool=pool, concurrency=3):
        for n, result in enumerate(results):
            result.get(timeout=10)
            assert seen[n][0] == result.id and [each.id for each in result.children or []] == [seen[n][1]]
        assert app.engine.read(seen[0][1]).parent_id == results[0].id  # type: ignore[union-attr]


@pytest.mark.parametrize("pool", IN_PROCESS)
def test_retries_ignore_reject_and_replacement_work_in_async_tasks(app: LiteTQ, pool: str) -> None:
    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="flaky", bind=True, max_retries=2)
    async def flaky(self: Any) -> int:
        await asyncio.sleep(0)
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return int(self.request.retries)

    @app.task(name="auto", autoretry_for=(ValueError,), default_retry_delay=0, retry_kwargs={"max_retries": 1})
    async def auto() -> None:
        await asyncio.sleep(0)
        raise ValueError("again")

    @app.task(name="replaced", bind=True)
    async def replaced(self: Any) -> None:
        raise self.replace(add.s(2, 3))

    @app.task(name="ignored")
    async def ignored() -> None:
        raise Ignore

    @app.task(name="rejected")
    async def rejected() -> None:
        raise Reject("no")

    with app.run_embedded(pool=pool):
        assert flaky.delay().get(timeout=10) == 2
        tried = auto.delay()
        with pytest.raises(ValueError, match="again"):
            tried.get(timeout=10)
        assert tried.retries == 1
        assert replaced.delay().get(timeout=10) == 5
        with pytest.raises(Reject):
            rejected.delay().get(timeout=10)
        id = ignored.delay().id
        eventually(lambda: app.engine.finished(id) is not None)
        assert app.AsyncResult(id).state == "PENDING"


@pytest.mark.parametrize("pool", IN_PROCESS)
def test_handlers_and_signals_surround_an_async_body(app: LiteTQ, pool: str) -> None:
    heard: list[str] = []

    class Told(app.Task):  # type: ignore[misc,name-defined]
        def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
            heard.append("before_start")

        def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
            heard.append(f"on_success {retval}")

        def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            heard.append(f"on_failure {exc!r}")

    @app.task(name="told", base=Told)
    async def told(fails: bool) -> str:
        await asyncio.sleep(0)
        heard.append("body")
        if fails:
            raise KeyError("x")
        return "done"

    def on_prerun(**_: Any) -> None:
        heard.append("prerun")

    def on_postrun(state: str, **_: Any) -> None:
        heard.append(f"postrun {state}")

    with contextlib.ExitStack() as stack:
        for signal, receiver in ((signals.task_prerun, on_prerun), (signals.task_postrun, on_postrun)):
            signal.connect(receiver, weak=False)
            stack.callback(signal.disconnect, receiver)
        stack.enter_context(app.run_embedded(pool=pool))
        told.delay(False).get(timeout=10)
        assert heard == ["prerun", "before_start", "body", "on_success done", "postrun SUCCESS"]
        heard.clear()
        told.delay(True).get(timeout=10, propagate=False)
        assert heard == ["prerun", "before_start", "body", "on_failure KeyError('x')", "postrun FAILURE"]


def test_a_handler_that_is_async_is_refused_in_one_sentence(app: LiteTQ) -> None:
    async def on_success(self: Any, *_: Any) -> None: ...

    with pytest.raises(TypeError, match=r"task 'told': its on_success is `async def`, and nobody would await it"):
        app.task(name="told", on_success=on_success)(lambda: None)
    assert "told" not in app.tasks


@pytest.mark.parametrize("pool", IN_PROCESS)
def test_a_coroutine_may_come_from_a_plain_function(app: LiteTQ, pool: str) -> None:
    """A decorator that knows nothing of coroutines hides `async def`; what it returns is awaited all the same."""

    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    app.task(name="double")(lambda n: double(n))
    with app.run_embedded(pool=pool):
        assert app.send_task("double", (4,)).get(timeout=10) == 8


@pytest.mark.parametrize("pool", IN_PROCESS)
def test_what_would_end_a_loop_ends_the_attempt_alone(app: LiteTQ, pool: str) -> None:
    @app.task(name="exits")
    async def exits() -> None:
        sys.exit(3)

    @app.task(name="cancels")
    async def cancels() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(60)

    @app.task(name="raises")
    async def raises() -> None:
        raise asyncio.CancelledError

    @app.task(name="note")
    async def note(n: int) -> int:
        return n

    with app.run_embedded(pool=pool):
        with pytest.raises(WorkerLostError, match="exitcode 3"):
            exits.delay().get(timeout=10)
        for task in (cancels, raises):
            with pytest.raises(TaskError, match="cancelled"):
                task.delay().get(timeout=10)
        assert note.delay(1).get(timeout=10) == 1


# -- time limits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", IN_PROCESS)
def test_a_soft_limit_is_raised_where_the_coroutine_waits(
    app: LiteTQ, pool: str, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task(name="caught", soft_time_limit=0.2)
    async def caught() -> str:
        try:
            await asyncio.sleep(60)
        except SoftTimeLimitExceeded:
            await asyncio.sleep(0.01)
            return "cleaned"
        return "never"

    @app.task(name="plain", soft_time_limit=0.2)
    async def plain() -> None:
        await asyncio.sleep(60)

    @app.task(name="quick", soft_time_limit=0.2)
    async def quick() -> str:
        return "in time"

    with app.run_embedded(pool=pool):
        result = caught.delay()
        assert result.get(timeout=10) == "cleaned"
        failed = plain.delay()
        with pytest.raises(SoftTimeLimitExceeded) as error:
            failed.get(timeout=10)
        assert type(error.value) is SoftTimeLimitExceeded and "await asyncio.sleep(60)" in (failed.traceback or "")
        assert quick.delay().get(timeout=10) == "in time"
    assert f"Soft time limit (0.2s) exceeded for caught[{result.id}]" in caplog.messages


@pytest.mark.parametrize("pool", IN_PROCESS)
def test_what_a_coroutine_waits_for_is_cancelled_by_its_soft_limit(app: LiteTQ, pool: str) -> None:
    cancelled = threading.Event()

    async def helper() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    @app.task(name="gathers", soft_time_limit=0.2)
    async def gathers() -> str:
        try:
            await asyncio.wait_for(asyncio.gather(helper(), asyncio.sleep(60)), 60)
        except SoftTimeLimitExceeded:
            return "soft"
        return "never"

    with app.run_embedded(pool=pool):
        assert gathers.delay().get(timeout=10) == "soft"
    assert cancelled.wait(5)


@pytest.mark.parametrize("pool", ENDING)
def test_a_hard_limit_cancels_the_coroutine_and_is_told_once(app: LiteTQ, pool: str) -> None:
    cancelled, failures = threading.Event(), []

    @app.task(name="long", time_limit=0.2, on_failure=lambda self, exc, *_: failures.append(repr(exc)))
    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    @app.task(name="note")
    async def note(n: int) -> int:
        return n

    with app.run_embedded(pool=pool, concurrency=1) as worker:
        with pytest.raises(TimeLimitExceeded) as error:
            long.delay().get(timeout=10)
        assert error.value.args == (0.2,) and cancelled.wait(5)
        assert note.delay(1).get(timeout=10) == 1
        eventually(lambda: worker.statistics().abandoned == 0)
    assert failures == ["TimeLimitExceeded(0.2)"]


def test_coroutines_that_swallow_their_cancel_are_counted_and_bounded(
    app: LiteTQ, caplog: pytest.LogCaptureFixture
) -> None:
    go = threading.Event()

    @app.task(name="stubborn", time_limit=0.1)
    async def stubborn() -> str:
        while not go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        return "too late"

    @app.task(name="note")
    async def note(n: int) -> int:
        return n

    try:
        with app.run_embedded(pool="asyncio", concurrency=1) as worker:
            ended = [stubborn.delay() for _ in range(ABANDONED_MIN)]
            for result in ended:
                with pytest.raises(TimeLimitExceeded):
                    result.get(timeout=10)
            eventually(lambda: worker.statistics().abandoned == ABANDONED_MIN)  # the loop has cut off the last one, too
            waiting = note.delay(1)
            eventually(lambda: any("go on all the same" in message for message in caplog.messages))
            assert worker.statistics().abandoned == ABANDONED_MIN and waiting.state == "PENDING"
            go.set()
            assert waiting.get(timeout=10) == 1
            eventually(lambda: worker.statistics().abandoned == 0)
            assert ended[0].state == "FAILURE"
    finally:
        go.set()


# -- the pool asyncio ----------------------------------------------------------------------------------------------


def test_a_thousand_naps_of_a_second_end_together(app: LiteTQ) -> None:
    running: set[int] = set()
    most = 0

    @app.task(name="nap")
    async def nap(n: int) -> int:
        nonlocal most
        running.add(n)
        most = max(most, len(running))
        await asyncio.sleep(1)
        running.discard(n)
        return n

    naps = group(nap.s(n) for n in range(1000)).delay()
    began = time.monotonic()
    with app.run_embedded(pool="asyncio") as worker:
        assert worker.statistics().concurrency == 1000
        assert naps.get(timeout=60) == list(range(1000))
    assert most > 500 and time.monotonic() - began < 20


def test_concurrency_bounds_how_many_coroutines_run(app: LiteTQ) -> None:
    now = most = 0

    @app.task(name="nap")
    async def nap() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1

    naps = group(nap.s() for _ in range(30)).delay()
    with app.run_embedded(pool="asyncio", concurrency=3):
        naps.get(timeout=20)
    assert most == 3


def test_plain_functions_run_in_threads_beside_the_loop(app: LiteTQ) -> None:
    go = threading.Event()
    names = []

    @app.task(name="blocks")
    def blocks() -> None:
        names.append(threading.current_thread().name)
        assert go.wait(30)

    @app.task(name="note")
    async def note(n: int) -> int:
        return n

    try:
        with app.run_embedded(pool="asyncio"):
            blocking = group(blocks.s() for _ in range(40)).delay()
            eventually(lambda: len(names) == 16)
            assert note.delay(1).get(timeout=20) == 1, (
                "more plain functions wait than there are threads; the loop is free"
            )
            go.set()
            blocking.get(timeout=20)
    finally:
        go.set()
    assert all(name.startswith("ThreadPoolWorker") for name in names) and len(names) == 40


def test_a_workflow_mixes_async_and_plain_tasks(app: LiteTQ) -> None:
    @app.task(name="fetch")
    async def fetch(n: int) -> int:
        await asyncio.sleep(0.01)
        return n

    app.task(name="total")(lambda values: sum(values))
    with app.run_embedded(pool="asyncio"):
        assert chord([fetch.s(n) for n in range(50)], app.signature("total")).delay().get(timeout=20) == sum(range(50))


def test_a_running_coroutine_can_be_terminated(app: LiteTQ) -> None:
    begun, cancelled = threading.Event(), threading.Event()
    told = []

    @app.task(name="long")
    async def long() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    def on_revoked(terminated: bool, signum: Any, **_: Any) -> None:
        told.append((terminated, signum))

    signals.task_revoked.connect(on_revoked, weak=False)
    try:
        with app.run_embedded(pool="asyncio"):
            result = long.delay()
            assert begun.wait(10)
            result.revoke(terminate=True)
            with pytest.raises(TaskRevokedError, match="terminated"):
                result.get(timeout=10)
            assert result.state == "REVOKED" and cancelled.wait(5)
    finally:
        signals.task_revoked.disconnect(on_revoked)
    assert told == [(True, 15)]


def test_a_plain_function_is_not_terminated_and_the_worker_says_so(
    app: LiteTQ, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go = threading.Event(), threading.Event()

    @app.task(name="plain")
    def plain() -> str:
        begun.set()
        return "whole" if go.wait(30) else "never"

    try:
        with app.run_embedded(pool="asyncio") as worker:
            result = plain.delay()
            assert begun.wait(10) and worker.terminate(result.id)
            eventually(lambda: any("plain is a plain function and cannot be" in text for text in caplog.messages))
            go.set()
            assert result.get(timeout=10) == "whole"
    finally:
        go.set()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGUSR1")
def test_sigusr1_is_a_soft_limit_ahead_of_time(app: LiteTQ) -> None:
    begun = threading.Event()

    @app.task(name="long")
    async def long() -> str:
        begun.set()
        try:
            await asyncio.sleep(60)
        except SoftTimeLimitExceeded:
            return "soft"
        return "never"

    with app.run_embedded(pool="asyncio") as worker:
        result = long.delay()
        assert begun.wait(10) and worker.terminate(result.id, "USR1")
        assert result.get(timeout=10) == "soft"


def test_a_warm_stop_lets_coroutines_finish(app: LiteTQ) -> None:
    begun = threading.Event()

    @app.task(name="long")
    async def long() -> str:
        begun.set()
        await asyncio.sleep(0.3)
        return "whole"

    with app.run_embedded(pool="asyncio") as worker:
        result = long.delay()
        assert begun.wait(10) and worker.stop(20)
    assert result.get(timeout=0) == "whole"


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("how", ["cold", "soft"])
def test_a_cold_stop_cancels_coroutines_and_they_end_or_go_back(app: LiteTQ, how: str, late: bool) -> None:
    app.conf.worker_soft_shutdown_timeout = 0.1
    begun, cancelled, failures = threading.Event(), threading.Event(), []

    @app.task(name="long", acks_late=late, on_failure=lambda self, exc, *_: failures.append(type(exc)))
    async def long() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    with app.run_embedded(pool="asyncio") as worker:
        result = long.delay()
        assert begun.wait(10) and worker.stop(20, how)
    assert cancelled.is_set()
    if late:
        record = app.engine.read(result.id)
        assert record is not None and record.place == "QUEUED" and failures == []
    else:
        assert isinstance(result.result, WorkerLostError) and failures == [WorkerLostError]


def test_a_cancel_before_any_code_of_the_task_gives_the_task_back(
    app: LiteTQ, caplog: pytest.LogCaptureFixture
) -> None:
    """As of a library that cancels all tasks of the loop: here while another one waits to write that it has started."""
    go = threading.Event()

    @app.task(name="note", track_started=True)
    async def note(n: int) -> int:
        return n

    @app.task(name="rude")
    async def rude() -> None:
        own = {asyncio.current_task(), asyncio.ensure_future(aio.in_background(go.wait, 30))}
        note.delay(1)
        while not (others := asyncio.all_tasks() - own):
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)  # it has come to where it waits
        for other in others:
            other.cancel()
        go.set()

    try:
        with app.run_embedded(pool="asyncio") as worker:
            rude.delay().get(timeout=20)
            eventually(lambda: worker.statistics().total.get("note") == 1)
            assert worker.statistics().states == {"SUCCESS": 2} and worker.statistics().released == 1
    finally:
        go.set()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_what_a_blocked_loop_cannot_start_goes_back_to_the_queue(app: LiteTQ) -> None:
    go, blocked = threading.Event(), threading.Event()

    @app.task(name="rude")
    async def rude() -> None:
        blocked.set()
        assert go.wait(30)

    @app.task(name="note")
    async def note(n: int) -> int:
        return n

    try:
        with app.run_embedded(pool="asyncio") as worker:
            held_up = rude.delay()
            assert blocked.wait(10)
            result = note.delay(1)
            eventually(lambda: worker.statistics().released > 0)
            record = app.engine.read(result.id)
            assert record is not None and record.place == "QUEUED"
            go.set()
            held_up.get(timeout=10)
            assert result.get(timeout=10) == 1
    finally:
        go.set()


@pytest.mark.parametrize("pool", ["threads", "asyncio"])
def test_a_program_that_ends_lets_a_running_coroutine_finish(run_python: RunPython, tmp_path: Path, pool: str) -> None:
    (tmp_path / "program.py").write_text(
        "import asyncio, threading\n"
        "from litetq import LiteTQ\n"
        "app = LiteTQ('tasks', broker='jobs.sqlite')\n"
        "begun = threading.Event()\n"
        "@app.task(name='long')\n"
        "async def long():\n"
        "    begun.set()\n"
        "    await asyncio.sleep(0.5)\n"
        "    return 'whole'\n"
        f"app.run_embedded(pool='{pool}')\n"
        "print(long.delay().id)\n"
        "begun.wait(20)\n"
    )
    out, err = run_python(tmp_path / "program.py").communicate(timeout=40)
    app = LiteTQ("tasks", broker=tmp_path / "jobs.sqlite", set_as_current=False)
    assert app.AsyncResult(out.strip()).get(timeout=0) == "whole", err
    app.close()


def test_a_context_variable_belongs_to_its_attempt(app: LiteTQ) -> None:
    tenant: ContextVar[int] = ContextVar("tenant", default=0)

    @app.task(name="tenancy")
    async def tenancy(n: int) -> bool:
        before = tenant.get()
        tenant.set(n)
        await asyncio.sleep(0.02)
        return before == 0 and tenant.get() == n

    with app.run_embedded(pool="asyncio"):
        assert all(group(tenancy.s(n) for n in range(1, 50)).delay().get(timeout=10))


@pytest.mark.parametrize("late", [False, True])
def test_work_of_a_killed_asyncio_worker_follows_the_promise(run_python: RunPython, tmp_path: Path, late: bool) -> None:
    (tmp_path / "tasks.py").write_text(
        "import asyncio\n"
        "from litetq import LiteTQ\n"
        "app = LiteTQ('tasks', broker='jobs.sqlite')\n"
        f"@app.task(name='long', acks_late={late})\n"
        "async def long():\n"
        "    print('begun', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    app.run_embedded(pool='asyncio').join()\n"
    )
    app = LiteTQ("tasks", broker=tmp_path / "jobs.sqlite", set_as_current=False)
    ran = []

    @app.task(name="long", acks_late=late)
    async def long() -> str:
        ran.append(1)
        return "again"

    results = [long.delay() for _ in range(5)]
    worker = run_python(tmp_path / "tasks.py")
    assert worker.stdout is not None
    for _ in results:
        assert worker.stdout.readline() == "begun\n"
    worker.kill()
    worker.wait()
    with app.run_embedded(pool="asyncio"):
        ends = [result.get(timeout=20, propagate=False) for result in results]
    app.close()
    if late:
        assert ends == ["again"] * 5
    else:
        assert ran == [] and all(isinstance(end, WorkerLostError) for end in ends)


def test_the_command_line_knows_the_pool(run_python: RunPython, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(
        "import asyncio\n"
        "from litetq import LiteTQ\n"
        "app = LiteTQ('tasks', broker='jobs.sqlite')\n"
        "@app.task\n"
        "async def nap():\n"
        "    await asyncio.sleep(0.5)\n"
        "if __name__ == '__main__':\n"
        "    for _ in range(200): nap.delay()\n"
    )
    assert run_python("-m", "tasks").wait(30) == 0
    worker = run_python("-m", "litetq", "-A", "tasks", "worker", "-P", "asyncio", "--drain")
    out, err = worker.communicate(timeout=60)
    assert worker.returncode == 0 and "1000 (asyncio)" in out, out + err


@pytest.mark.parametrize("pool", IN_PROCESS)
def test_log_lines_of_an_async_task_carry_its_id(app: LiteTQ, pool: str, caplog: pytest.LogCaptureFixture) -> None:
    from litetq.log import TaskFormatter, get_task_logger

    @app.task(name="says")
    async def says() -> None:
        await asyncio.sleep(0)
        get_task_logger("mine").warning("hello")

    lines = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(TaskFormatter("%(task_name)s %(task_id)s %(message)s", use_color=False).format(record))

    handler = Keep()
    get_task_logger("mine").addHandler(handler)
    try:
        with app.run_embedded(pool=pool):
            result = says.delay()
            result.get(timeout=10)
    finally:
        get_task_logger("mine").removeHandler(handler)
    assert lines == [f"says {result.id} hello"]
