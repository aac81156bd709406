"""What a task has around its body, in a real worker: handlers, their order, their errors, and who calls them when a child is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ
from litetq.exceptions import EncodeError, Ignore, Reject
from tests.conftest import RunPython
from tests.waiting import eventually


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    with LiteTQ("tasks", broker=db, set_as_current=False) as app:
        yield app


class Noting:
    """A base class for tasks whose handlers write down that they were called, and how."""

    def __init__(self, app: LiteTQ) -> None:
        self.calls: list[tuple[Any, ...]] = []
        calls = self.calls

        class Noted(app.Task):  # type: ignore[name-defined, misc]
            def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
                calls.append(("before_start", task_id, args, kwargs))

            def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
                calls.append(("on_success", retval, task_id, args, kwargs))

            def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
                calls.append(("on_retry", repr(exc), task_id, repr(einfo.exception)))

            def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
                calls.append(("on_failure", repr(exc), task_id, args, kwargs, "Traceback" in str(einfo)))

            def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
                calls.append(("after_return", status, repr(retval), task_id, args, kwargs, einfo is not None))

        self.base = Noted

    def names(self) -> list[str]:
        return [call[0] for call in self.calls]


@pytest.fixture
def noting(app: LiteTQ) -> Noting:
    return Noting(app)


@pytest.mark.row("2.handlers: order")
def test_handlers_are_called_in_celerys_order_with_its_arguments(app: LiteTQ, noting: Noting) -> None:
    @app.task(base=noting.base, name="halve")
    def halve(n: int, by: int = 2) -> float:
        noting.calls.append(("run",))
        return n / by

    with app.run_embedded(concurrency=1):
        good = halve.delay(4, by=2)
        assert good.get(timeout=10) == 2
        bad = halve.delay(4, by=0)
        assert isinstance(bad.get(timeout=10, propagate=False), ZeroDivisionError)
    error = "ZeroDivisionError('division by zero')"
    assert noting.calls == [
        ("before_start", good.id, [4], {"by": 2}),
        ("run",),
        ("on_success", 2.0, good.id, [4], {"by": 2}),
        ("after_return", "SUCCESS", "2.0", good.id, [4], {"by": 2}, False),
        ("before_start", bad.id, [4], {"by": 0}),
        ("run",),
        ("on_failure", error, bad.id, [4], {"by": 0}, True),
        ("after_return", "FAILURE", error, bad.id, [4], {"by": 0}, True),
    ]


@pytest.mark.parametrize("pool", ["threads", "asyncio"])
def test_a_result_that_cannot_be_encoded_is_a_failure_for_handlers_and_log_too(
    app: LiteTQ, noting: Noting, caplog: pytest.LogCaptureFixture, pool: str
) -> None:
    @app.task(base=noting.base, name="plain")
    def plain() -> set[int]:
        return {1}

    @app.task(base=noting.base, name="coroutine")
    async def coroutine() -> set[int]:
        return {1}

    with caplog.at_level("INFO"), app.run_embedded(pool=pool):
        for task in (plain, coroutine):
            error = task.delay().get(timeout=10, propagate=False)
            assert isinstance(error, EncodeError) and "pass a list" in str(error)
    assert noting.names() == ["before_start", "on_failure", "after_return"] * 2
    assert "succeeded" not in caplog.text and caplog.text.count("raised unexpected: EncodeError") == 2


def test_a_result_that_nobody_reads_may_be_anything(app: LiteTQ) -> None:
    @app.task(name="quiet", ignore_result=True)
    def quiet() -> set[int]:
        return {1}

    @app.task(name="loud")
    def loud() -> set[int]:
        return {1}

    @app.task(name="take")
    def take(value: object) -> None: ...

    with app.run_embedded():
        for result in (quiet.delay(), loud.apply_async(ignore_result=True)):
            eventually(lambda: app.engine.read(result.id).place == "DONE")  # type: ignore[union-attr]  # noqa: B023
            assert (result.state, result.result) == ("SUCCESS", None)
        linked = quiet.apply_async(link=take.s())
        eventually(lambda: app.engine.read(linked.id).place == "DONE")  # type: ignore[union-attr]
        assert linked.state == "FAILURE", "a callback would have to be given it"


@pytest.mark.row("2.handlers: after a retry")
def test_after_return_is_called_for_ends_only(app: LiteTQ, noting: Noting) -> None:
    @app.task(base=noting.base, name="ends", bind=True, acks_late=True)
    def ends(self: Any, how: str) -> str:
        if self.request.retries or self.request.delivery_info["redelivered"]:
            return "done"
        raise {
            "retry": lambda: self.retry(exc=ValueError("again"), countdown=0, throw=False),
            "ignore": Ignore,
            "requeue": lambda: Reject("no", requeue=True),
        }[how]()

    with app.run_embedded(concurrency=1):
        retried = ends.delay("retry")
        assert retried.get(timeout=10) == "done"
        assert noting.names() == ["before_start", "on_retry", "before_start", "on_success", "after_return"]
        assert noting.calls[1] == ("on_retry", "ValueError('again')", retried.id, "Retry(None, ValueError('again'), 0)")
        noting.calls.clear()
        ignored = ends.delay("ignore")
        eventually(lambda: app.engine.read(ignored.id).place == "DONE")  # type: ignore[union-attr]
        assert noting.names() == ["before_start"]
        noting.calls.clear()
        assert ends.delay("requeue").get(timeout=10) == "done"
        assert noting.names() == ["before_start", "before_start", "on_success", "after_return"]


def test_on_retry_is_given_the_exception_that_retry_was_given(app: LiteTQ, noting: Noting) -> None:
    @app.task(base=noting.base, name="again", bind=True)
    def again(self: Any, error: bool) -> str:
        if self.request.retries:
            return "done"
        raise self.retry(exc=ValueError("no") if error else None, countdown=0)

    with app.run_embedded(concurrency=1):
        for error in (True, False):
            assert again.delay(error).get(timeout=10) == "done"
    told = [(call[1], call[3]) for call in noting.calls if call[0] == "on_retry"]
    assert told == [("ValueError('no')", "Retry(None, ValueError('no'), 0)"), ("None", "Retry(None, None, 0)")]


@pytest.mark.row("2.handlers: an exception in them")
@pytest.mark.parametrize("handler", ["on_success", "after_return", "on_failure"])
def test_what_a_handler_raises_is_logged_and_the_end_stands(
    app: LiteTQ, caplog: pytest.LogCaptureFixture, handler: str
) -> None:
    def raises(*_: Any) -> None:
        raise KeyError("the handler's")

    @app.task(name="work", bind=True, **{handler: lambda self, *_: raises()})
    def work(self: Any, fail: bool) -> str:
        if fail:
            raise ValueError("the task's")
        return "value"

    with app.run_embedded(concurrency=1):
        result = work.delay(handler == "on_failure")
        value = result.get(timeout=10, propagate=False)
    assert (result.state, repr(value)) == (
        ("FAILURE", 'ValueError("the task\'s")') if handler == "on_failure" else ("SUCCESS", "'value'")
    )
    assert 'KeyError: "the handler\'s"' in caplog.text


@pytest.mark.row("2.handlers: before_start raises")
def test_what_before_start_raises_fails_the_task_which_does_not_run(app: LiteTQ, noting: Noting) -> None:
    class Refusing(noting.base):  # type: ignore[name-defined, misc]
        def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
            raise ValueError("not today")

    ran: list[int] = []
    app.task(base=Refusing, name="refused")(lambda: ran.append(1))
    with app.run_embedded(concurrency=1):
        result = app.send_task("refused")
        with pytest.raises(ValueError, match="not today"):
            result.get(timeout=10)
    assert result.state == "FAILURE" and ran == [] and noting.names() == ["on_failure", "after_return"]


@pytest.mark.row("2.__call__")
def test_a_call_of_ones_own_is_what_the_worker_runs(app: LiteTQ) -> None:
    class Loud(app.Task):  # type: ignore[name-defined, misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            assert not self.request.called_directly
            return f"{self.run(*args, **kwargs)}!"

    app.task(base=Loud, name="hello")(lambda name: f"hello {name}")
    with app.run_embedded(concurrency=1):
        assert app.send_task("hello", ("you",)).get(timeout=10) == "hello you!"


@pytest.mark.row("2.class-based task")
def test_a_class_is_made_once_and_keeps_its_state_in_a_worker(app: LiteTQ) -> None:
    made: list[int] = []

    class Counter(app.Task):  # type: ignore[name-defined, misc]
        name = "counter"

        def __init__(self) -> None:
            made.append(1)
            self.calls = 0

        def run(self) -> int:
            self.calls += 1
            return self.calls

    counter = app.register_task(Counter)
    with app.run_embedded(concurrency=1):
        assert [counter.delay().get(timeout=10) for _ in range(3)] == [1, 2, 3]
    assert made == [1]


PROGRAM = """
import os, sys
from pathlib import Path
from litetq import LiteTQ, signals
from litetq.exceptions import WorkerLostError

HERE = Path(__file__).parent
app = LiteTQ("lost", broker=HERE / "jobs.sqlite")

def note(*words):
    with open(HERE / "ledger", "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

class Told(app.Task):
    def on_failure(self, exc, task_id, args, kwargs, einfo):
        note("on_failure", os.getpid(), type(exc).__name__, args, kwargs)

@app.task(base=Told)
def die(n, m=0):
    os._exit(3)

@app.task
def told(failed_id):
    note("errback", failed_id)

@signals.task_failure.connect
def failed(sender, task_id, exception, args, kwargs, **more):
    note("task_failure", os.getpid(), sender.name, type(exception).__name__, args, kwargs)

if __name__ == "__main__":
    with app.run_embedded(concurrency=1, pool="processes") as worker:
        result = die.apply_async((1,), {"m": 2}, link_error=told.s())
        try:
            result.get(timeout=30)
        except WorkerLostError:
            assert worker.drain(30)
            print(os.getpid(), result.id)
"""


@pytest.mark.row("2.lost child: on_failure, errbacks and task_failure in the main process")
def test_when_a_child_is_lost_the_worker_itself_calls_the_handlers(tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "lost.py").write_text(PROGRAM)
    process = run_python(tmp_path / "lost.py")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    pid, id = out.split()
    lines = (tmp_path / "ledger").read_text().splitlines()
    assert sorted(lines) == [
        f"errback {id}",
        f"on_failure {pid} WorkerLostError [1] {{'m': 2}}",
        f"task_failure {pid} lost.die WorkerLostError [1] {{'m': 2}}",
    ]


@pytest.mark.row("2.methods: add_trail")
def test_a_result_added_to_the_trail_is_a_child(app: LiteTQ) -> None:
    @app.task(name="parent", bind=True)
    def parent(self: Any) -> None:
        self.add_trail(app.AsyncResult("of another program"))

    with app.run_embedded(concurrency=1):
        result = parent.delay()
        result.get(timeout=10)
    assert result.children == [app.AsyncResult("of another program")]


@pytest.mark.row("1.current_worker_task")
def test_the_task_of_the_attempt_is_told_apart_from_one_that_it_calls_directly(app: LiteTQ) -> None:
    @app.task(name="inner")
    def inner() -> list[Any]:
        return [app.current_task.name, app.current_worker_task and app.current_worker_task.name]  # type: ignore[union-attr]

    app.task(name="outer")(lambda: inner())
    with app.run_embedded(concurrency=1):
        assert app.send_task("outer").get(timeout=10) == ["inner", "outer"]
    assert inner() == ["inner", None] and app.current_worker_task is None


def test_an_exception_that_cannot_be_shown_is_told_as_what_it_is(app: LiteTQ, caplog: pytest.LogCaptureFixture) -> None:
    class Mute(Exception):
        def __repr__(self) -> str:
            raise ValueError("no words")

        __str__ = __repr__

    @app.task
    def fail() -> None:
        raise Mute

    @app.task(ignore_result=True)
    def succeed() -> Mute:
        return Mute()

    app.conf.worker_send_task_events = True
    with caplog.at_level("INFO"), app.run_embedded():
        results = [fail.delay(), succeed.delay()]
        for result in results:
            result.get(timeout=10, propagate=False)
    assert [result.state for result in results] == ["FAILURE", "SUCCESS"]
    assert "raised unexpected: <" in caplog.text and caplog.text.count("whose repr() raised ValueError") == 2
