"""Results: waiting, reading, calling back, and what a result object is as a value."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, current_app
from litetq.context import Context
from litetq.exceptions import IncompleteStream, TaskRevokedError, TimeoutError
from litetq.result import (
    AsyncResult,
    EagerResult,
    ResultSet,
    allow_join_result,
    denied_join_result,
    result_from_tuple,
)


@pytest.fixture
def add(app: LiteTQ) -> Any:
    @app.task(name="tasks.add")
    def add(x: Any, y: Any = 0) -> Any:
        return x + y

    return add


class Parcel(Exception):
    def __init__(self, number: int, note: str) -> None:
        super().__init__(number, note)


@pytest.fixture
def fail(app: LiteTQ) -> Any:
    @app.task(name="tasks.fail")
    def fail() -> None:
        raise Parcel(7, "lost")

    return fail


def in_background(function: Any, *args: Any) -> threading.Thread:
    thread = threading.Thread(target=function, args=args)
    thread.start()
    return thread


@pytest.mark.row("6.AsyncResult: attributes")
@pytest.mark.row("6.get: timeout")
@pytest.mark.row("6.exists")
def test_a_waiting_task_is_pending_and_known_and_an_unknown_id_is_pending_and_not(app: LiteTQ, add: Any) -> None:
    waiting, unknown = add.delay(1), app.AsyncResult("no such id")
    assert (waiting.state, waiting.exists(), waiting.ready(), waiting.result) == ("PENDING", True, False, None)
    assert (unknown.status, unknown.exists(), unknown.ready(), unknown.info) == ("PENDING", False, False, None)
    assert waiting.children is None and waiting.date_done is None and waiting.traceback is None
    assert (waiting.name, waiting.args, waiting.kwargs, waiting.queue) == ("tasks.add", [1], {}, "celery")
    for timeout in (0, 0.05):
        with pytest.raises(
            TimeoutError, match=r"^The operation timed out\. tasks\.add\[.*no worker runs on .*jobs.sqlite"
        ):
            waiting.get(timeout=timeout)
    with pytest.raises(TimeoutError, match="No task no such id is known to"):
        unknown.get(timeout=0)


@pytest.mark.row("6.AsyncResult: attributes")
@pytest.mark.row("6.ready, successful, failed")
@pytest.mark.row("6.stored meta")
def test_a_success_has_its_value_and_everything_else_about_it(app: LiteTQ, add: Any, run_waiting: Any) -> None:
    before = datetime.now(timezone.utc)
    result = add.delay(2, y=3)
    run_waiting(app)
    assert result.get(timeout=5) == 5 == result.result == result.info
    assert result.state == result.status == "SUCCESS"
    assert result.successful() and not result.failed() and result.ready()
    assert (result.name, result.worker, result.retries, result.queue) == ("tasks.add", "tests@here", 0, "celery")
    assert result.children == [] and result.traceback is None
    assert before <= result.date_done <= datetime.now(timezone.utc)
    assert result.maybe_throw() == 5


@pytest.mark.row("6.get: propagate")
def test_a_failure_raises_what_the_task_raised_with_the_workers_traceback_as_its_cause(
    app: LiteTQ, fail: Any, run_waiting: Any
) -> None:
    result = fail.delay()
    run_waiting(app)
    depths = set()
    for _ in range(3):
        with pytest.raises(Parcel) as caught:
            result.get(timeout=5)
        depths.add(len(caught.traceback))
        assert caught.value.args == (7, "lost")
        assert 'raise Parcel(7, "lost")' in str(caught.value.__cause__)
    assert len(depths) == 1  # the frames of one get() do not pile up on the next
    assert result.failed() and result.ready() and not result.successful()
    assert 'raise Parcel(7, "lost")' in result.traceback
    assert isinstance(result.get(propagate=False), Parcel) and isinstance(result.result, Parcel)
    with pytest.raises(Parcel):
        result.maybe_throw()
    assert isinstance(result.maybe_throw(propagate=False), Parcel)


def test_get_wakes_when_the_task_ends_well_before_its_slow_look(app: LiteTQ, add: Any, run_waiting: Any) -> None:
    result = add.delay(1)
    got: list[Any] = []
    looked = Heard()

    def wait() -> None:
        got.append((result.get(timeout=20, on_interval=lambda: looked(None)), time.monotonic()))

    began = time.monotonic()
    thread = in_background(wait)
    looked.wait()  # one slow look is over: it sleeps until the next one, or until a ring
    slow_look = time.monotonic()
    run_waiting(app)
    ended = time.monotonic()
    thread.join(20)
    assert got[0][0] == 1 and got[0][1] - ended < 0.5
    assert slow_look - began > 0.5  # it slept, it did not poll


def test_a_state_that_has_not_changed_is_told_once(app: LiteTQ, add: Any) -> None:
    result = add.delay(1)
    assert app.engine.update_state(result.id, "PROGRESS", b"50", None)
    seen: list[dict[str, Any]] = []
    with pytest.raises(TimeoutError):
        result.get(timeout=0.05, on_message=seen.append)  # looks at least twice
    assert [body["result"] for body in seen] == [50]


def test_a_result_that_was_seen_to_end_keeps_its_value(app: LiteTQ, add: Any, run_waiting: Any) -> None:
    result = add.delay(1)
    run_waiting(app)
    assert result.get(timeout=5) == 1
    app.results.forget([result.id])
    assert result.get(timeout=0) == 1 and not app.AsyncResult(result.id).exists()


@pytest.mark.row("6.get: on_message")
def test_on_message_gets_each_state_once_and_get_the_value(app: LiteTQ, run_waiting: Any) -> None:
    seen: list[dict[str, Any]] = []
    told = [threading.Event() for _ in range(3)]

    def on_message(body: dict[str, Any]) -> None:
        seen.append(body)
        told[len(seen) - 1].set()

    @app.task(bind=True)
    def hello(self: Any, a: int, b: int) -> str:
        for step, progress in enumerate((50, 90)):
            self.update_state(state="PROGRESS", meta={"progress": progress})
            assert told[step].wait(10)
        return f"hello world: {a + b}"

    result = hello.delay(1, 1)
    thread = in_background(run_waiting, app)
    assert result.get(on_message=on_message, propagate=False, timeout=20) == "hello world: 2"
    thread.join(20)
    rest = {"task_id": result.id, "traceback": None, "children": []}
    assert seen == [
        {"status": "PROGRESS", "result": {"progress": 50}, **rest},
        {"status": "PROGRESS", "result": {"progress": 90}, **rest},
        {"status": "SUCCESS", "result": "hello world: 2", **rest},
    ]


@pytest.mark.row("6.get: callback, on_interval")
def test_callback_and_on_interval_of_get_are_called(app: LiteTQ, add: Any, run_waiting: Any) -> None:
    result = add.delay(4)
    waits: list[int] = []
    with pytest.raises(TimeoutError):
        result.get(timeout=0.05, on_interval=lambda: waits.append(1))
    run_waiting(app)
    values: list[Any] = []
    assert result.get(timeout=5, callback=lambda id, value: values.append((id, value))) == 4
    assert waits and values == [(result.id, 4)]


@pytest.mark.row("3.result.get() inside a task")
@pytest.mark.row("6.get: disable_sync_subtasks")
def test_waiting_for_a_task_within_a_task_is_refused_unless_allowed(app: LiteTQ, add: Any, run_waiting: Any) -> None:
    other = add.delay(1)
    run_waiting(app)

    @app.task
    def waits(how: str) -> Any:
        if how == "allowed":
            with allow_join_result():
                return other.get(timeout=5)
        return other.get(timeout=5, disable_sync_subtasks=how == "plain")

    results = [waits.delay(how) for how in ("plain", "allowed", "by option")]
    run_waiting(app)
    with pytest.raises(RuntimeError, match=r"Never call result.get\(\) within a task!"):
        results[0].get(timeout=5)
    assert [result.get(timeout=5) for result in results[1:]] == [1, 1]
    with denied_join_result(), pytest.raises(RuntimeError):
        other.get(timeout=5)
    assert other.get(timeout=5) == 1


@pytest.mark.row("6.forget")
@pytest.mark.row("6.revoke")
def test_forget_removes_the_result_and_revoke_ends_what_has_not_begun(app: LiteTQ, add: Any, run_waiting: Any) -> None:
    forgotten, revoked = add.delay(1), add.delay(2)
    revoked.revoke()
    assert run_waiting(app) == [forgotten.id]
    assert forgotten.get(timeout=5) == 1
    forgotten.forget()
    assert (forgotten.state, forgotten.exists(), forgotten.result) == ("PENDING", False, None)
    assert revoked.state == "REVOKED" and revoked.ready()
    with pytest.raises(TaskRevokedError, match="^revoked$"):
        revoked.get(timeout=5)


@pytest.mark.row("2.exceptions Ignore, Reject")
def test_an_ignored_task_reads_as_pending(app: LiteTQ, run_waiting: Any) -> None:
    from litetq.exceptions import Ignore

    @app.task
    def quiet() -> None:
        raise Ignore()

    result = quiet.delay()
    run_waiting(app)
    assert result.state == "PENDING" and not result.ready() and result.exists()
    assert result.info is None


@pytest.mark.row("2.exceptions Ignore, Reject")
def test_an_ignored_task_keeps_the_state_that_it_gave_itself(app: LiteTQ, run_waiting: Any) -> None:
    from litetq.exceptions import Ignore

    @app.task(bind=True)
    def decide(self: Any, state: str, meta: Any) -> None:
        self.update_state(state=state, meta=meta)
        raise Ignore()

    @app.task
    def follow(value: Any) -> None: ...

    halfway = decide.delay("PROGRESS", {"current": 2})
    failed = decide.delay("FAILURE", {"exc_type": "ValueError", "exc_message": ["no"], "exc_module": "builtins"})
    done = decide.delay("SUCCESS", 5)
    chained = (decide.s("SUCCESS", 6) | follow.s()).apply_async()
    run_waiting(app)
    assert (halfway.state, halfway.info, halfway.ready()) == ("PROGRESS", {"current": 2}, False)
    with pytest.raises(ValueError, match="^no$"):
        failed.get(timeout=5)
    assert done.get(timeout=5) == 5
    assert chained.parent is not None and chained.parent.get(timeout=5) == 6
    assert chained.state == "FAILURE", "what waits for an ignored task never gets a value"


# -- then ----------------------------------------------------------------------------------------------------------


class Heard:
    """Notes what it is called with, and lets a test wait for it."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self._called = threading.Condition()

    def __call__(self, what: Any) -> None:
        with self._called:
            self.calls.append(what)
            self._called.notify_all()

    def wait(self, count: int = 1) -> list[Any]:
        with self._called:
            assert self._called.wait_for(lambda: len(self.calls) >= count, 20), self.calls
            return self.calls


@pytest.mark.row("6.then")
def test_then_calls_back_once_with_the_result_and_nobody_needs_to_get_it(
    app: LiteTQ, add: Any, run_waiting: Any
) -> None:
    heard = Heard()
    results = [add.delay(n).then(heard) for n in range(20)]
    assert heard.calls == []
    run_waiting(app)
    assert sorted(result.get() for result in heard.wait(20)) == list(range(20))
    results[0].then(heard)  # ended already: here and now
    assert len(heard.calls) == 21


def test_then_tells_a_failure_to_on_error_and_without_one_to_the_callback(
    app: LiteTQ, fail: Any, run_waiting: Any
) -> None:
    good, bad = Heard(), Heard()
    result = fail.delay()
    result.then(good, on_error=bad)
    run_waiting(app)
    assert isinstance(bad.wait()[0], Parcel) and good.calls == []
    result.then(good)
    assert good.calls == [result]


def test_an_error_in_a_callback_is_logged_and_the_next_one_is_called(
    app: LiteTQ, add: Any, run_waiting: Any, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()

    def broken(_: Any) -> None:
        raise ValueError("broken callback")

    result = add.delay(1)
    result.then(broken)
    result.then(heard)
    run_waiting(app)
    heard.wait()
    assert "broken callback" in caplog.text


def test_a_callback_held_weakly_is_forgotten_with_its_owner(app: LiteTQ, add: Any, run_waiting: Any) -> None:
    heard, kept = Heard(), Heard()
    result = add.delay(1)
    result.then(heard, weak=True)
    calls = heard.calls
    del heard
    result.then(kept)
    run_waiting(app)
    kept.wait()
    assert calls == []


def test_the_listening_thread_ends_with_the_last_callback(app: LiteTQ, add: Any, run_waiting: Any) -> None:
    heard = Heard()
    add.delay(1).then(heard)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "litetq-results"]
    assert thread.daemon
    run_waiting(app)
    heard.wait()
    thread.join(10)
    assert not thread.is_alive()
    add.delay(1).then(heard)
    run_waiting(app)
    heard.wait(2)


# -- as a value ----------------------------------------------------------------------------------------------------


@pytest.mark.row("6.equality, hash, copy, pickle")
@pytest.mark.row("6.result_from_tuple, as_tuple, as_list")
def test_results_are_equal_by_id_and_survive_copy_pickle_and_tuple(app: LiteTQ) -> None:
    one = AsyncResult("1", parent=AsyncResult("0"))
    assert one == AsyncResult("1") == "1" and one != AsyncResult("2") and len({one, AsyncResult("1")}) == 1
    assert repr(one) == "<AsyncResult: 1>" and str(one) == one.task_id == "1"
    for twin in (copy.copy(one), pickle.loads(pickle.dumps(one)), result_from_tuple(one.as_tuple())):
        assert twin == one and twin.parent == one.parent and twin.app is app
    assert one.as_tuple() == (("1", (("0", None), None)), None) and one.as_list() == ["1", "0"]
    with pytest.raises(ValueError, match="requires valid id"):
        AsyncResult(None)  # type: ignore[arg-type]


def test_without_any_app_a_result_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match=r"create LiteTQ\(\.\.\.\) first"):
        AsyncResult("1")
    assert current_app.main == "default"


@pytest.mark.row("6.collect, get_leaf, iterdeps")
def test_walking_over_children_stops_at_what_has_not_ended(app: LiteTQ, add: Any, run_waiting: Any) -> None:
    result = add.delay(1)
    with pytest.raises(IncompleteStream):
        list(result.iterdeps())
    assert list(result.iterdeps(intermediate=True)) == [(None, result)]
    run_waiting(app)
    assert list(result.iterdeps()) == [(None, result)] and result.get_leaf() == 1


@pytest.mark.row("6.EagerResult")
def test_an_eager_result_can_be_revoked_and_copied() -> None:
    result: EagerResult[int] = EagerResult("1", 5, "SUCCESS", name="tasks.add")
    assert repr(result) == "<EagerResult: 1>" and result.ready() and result.name == "tasks.add"
    for twin in (copy.copy(result), pickle.loads(pickle.dumps(result))):
        assert twin == result and twin.get() == 5
    heard = Heard()
    result.then(heard)
    result.revoke()
    assert heard.calls == [result] and result.state == "REVOKED"
    with pytest.raises(TaskRevokedError, match="revoked"):
        result.get()


# -- sets ----------------------------------------------------------------------------------------------------------


@pytest.mark.row("6.ResultSet: state")
@pytest.mark.row("6.ResultSet: then")
@pytest.mark.row("6.join order and error")
def test_a_set_gives_the_values_in_its_order_and_raises_the_first_failure(
    app: LiteTQ, add: Any, fail: Any, run_waiting: Any
) -> None:
    good = app.ResultSet([add.delay(n) for n in range(5)])
    assert good.waiting() and not good.ready() and good.completed_count() == 0
    with pytest.raises(TimeoutError):
        good.get(timeout=0.05)
    mixed = ResultSet([add.delay(1), fail.delay()])
    heard = Heard()
    good.then(heard)
    run_waiting(app)
    assert good.get(timeout=5) == good.join(timeout=5) == [0, 1, 2, 3, 4]
    assert good.successful() and good.ready() and good.completed_count() == 5 and len(good) == 5
    assert heard.wait() == [good]
    with pytest.raises(Parcel):
        mixed.join(timeout=5)
    assert [type(value) for value in mixed.get(timeout=5, propagate=False)] == [int, Parcel]
    assert mixed.failed() and not mixed.successful()
    with pytest.raises(Parcel):
        mixed.maybe_throw()


@pytest.mark.row("6.iter_native")
def test_iter_native_yields_what_has_ended(app: LiteTQ, add: Any, run_waiting: Any) -> None:
    results = app.ResultSet([add.delay(n) for n in range(3)])
    with pytest.raises(TimeoutError, match=r"\d+ of \d+ tasks have not ended"):
        next(results.iter_native(timeout=0.05))
    run_waiting(app)
    seen = dict(results.iter_native(timeout=5))
    assert {id: meta["result"] for id, meta in seen.items()} == {r.id: n for n, r in enumerate(results)}


@pytest.mark.row("6.ResultSet: members")
def test_results_are_added_to_a_set_once_and_taken_out_again(app: LiteTQ) -> None:
    one, two = AsyncResult("1"), AsyncResult("2")
    results = ResultSet([one])
    results.update([one, two])
    assert list(results) == [one, two] and results[1] == two
    results.discard("3")
    results.remove("1")
    assert results.results == [two]
    with pytest.raises(KeyError):
        results.remove("1")
    results.clear()
    assert results == ResultSet([]) and repr(ResultSet([one])) == "<ResultSet: [1]>"


def test_results_of_another_file_are_read_there(tmp_path: Path) -> None:
    with LiteTQ("x", broker=tmp_path / "tasks.sqlite", backend=tmp_path / "results.sqlite") as app:
        assert app.engine is not app.results
        assert app.engine.path.name == "tasks.sqlite" and app.results.path.name == "results.sqlite"
    for backend in ("rpc://", "cache+memory://", "disabled://", f"db+sqlite:///{tmp_path / 'tasks.sqlite'}"):
        with LiteTQ("x", broker=tmp_path / "tasks.sqlite", backend=backend) as app:
            assert app.engine is app.results


def test_a_callback_gets_a_group_within_a_set_as_one_value(app: LiteTQ, add: Any, run_waiting: Any) -> None:
    one, group = add.delay(1), app.GroupResult("inner", [add.delay(2), add.delay(3)])
    run_waiting(app)
    seen: list[tuple[str, Any]] = []
    app.ResultSet([one, group]).get(timeout=5, callback=lambda *pair: seen.append(pair))
    assert seen == [(one.id, 1), ("inner", [2, 3])]


def test_the_classes_of_results_of_an_app_are_classes(app: LiteTQ, add: Any) -> None:
    result = add.delay(1)
    assert isinstance(result, app.AsyncResult) and not isinstance(result, app.GroupResult)
    assert app.AsyncResult(result.id).app is app

    class Shown(app.AsyncResult):  # type: ignore[name-defined, misc, type-arg]
        pass

    assert isinstance(Shown(result.id, app=app), AsyncResult)
    with pytest.raises(app.AsyncResult.TimeoutError):
        result.get(timeout=0)
    app.GroupResult("saved", [result]).save()
    restored = app.GroupResult.restore("saved")
    assert restored is not None and restored.results == [result] and restored.app is app


def test_a_group_is_kept_where_the_caller_says(app: LiteTQ, add: Any) -> None:
    group = app.GroupResult("g", [add.delay(1)])
    with pytest.raises(AttributeError, match="save_group"):
        group.save(backend=object())
    group.save(backend=app.backend)
    assert app.GroupResult.restore("g", backend=app.backend) == group
    group.delete(backend=app.backend)
    assert app.GroupResult.restore("g") is None


def test_what_a_program_stores_with_a_request_is_all_on_record(app: LiteTQ) -> None:
    request = Context(
        task="foo", args=["one", 2], kwargs={"k": 3}, hostname="w1", retries=1, delivery_info={"routing_key": "q"}
    )
    app.backend.store_result("1", "value", "SUCCESS", request=request)
    result = app.AsyncResult("1")
    assert (result.name, result.args, result.kwargs, result.worker) == ("foo", ["one", 2], {"k": 3}, "w1")
    assert (result.retries, result.queue, result.result) == (1, "q", "value")
    meta = app.backend.get_task_meta("1")
    assert (meta["status"], meta["name"], meta["args"], meta["queue"]) == ("SUCCESS", "foo", ["one", 2], "q")


def test_a_result_whose_arguments_cannot_be_written_is_kept_without_them(app: LiteTQ) -> None:
    app.backend.store_result("1", 5, "SUCCESS", request=Context(task="foo", args=[object()], kwargs={}))
    assert (app.AsyncResult("1").result, app.AsyncResult("1").args) == (5, None)


def test_a_state_that_a_program_stores_keeps_its_traceback_and_is_no_end(app: LiteTQ, add: Any) -> None:
    waiting = add.delay(1)
    for id in ("unknown", waiting.id):
        app.backend.mark_as_retry(id, KeyError("red"), traceback="where it was")
        result = app.AsyncResult(id)
        assert (result.state, result.traceback, result.date_done) == ("RETRY", "where it was", None)


def test_the_states_of_a_set_hold_exceptions_themselves(app: LiteTQ, run_waiting: Any) -> None:
    app.task(name="fails")(lambda: int("x"))
    result = app.send_task("fails")
    run_waiting(app)
    [(_, meta)] = app.ResultSet([result]).iter_native(timeout=5)
    assert isinstance(meta["result"], ValueError)
    seen: list[dict[str, Any]] = []
    app.AsyncResult(result.id).get(timeout=0, propagate=False, on_message=seen.append)
    assert isinstance(seen[-1]["result"], ValueError)


def test_a_failure_that_is_revoked_here_and_now_has_no_traceback_any_more(app: LiteTQ) -> None:
    result = app.task(name="fails")(lambda: int("x")).apply()
    assert result.traceback
    result.revoke()
    assert result.traceback is None


def test_an_eager_result_on_record_has_all_that_one_of_a_worker_has(app: LiteTQ) -> None:
    app.conf.task_store_eager_result = True
    call = app.task(name="t")(lambda a, b=0: a + b).s(1, b=2)
    call.stamp(batch="seven")
    id = call.apply().id
    result = app.AsyncResult(id)
    assert (result.result, result.name, result.args, result.kwargs) == (3, "t", [1], {"b": 2})
    meta = result._get_task_meta()
    assert (meta["batch"], meta["stamped_headers"]) == ("seven", ["batch"])
