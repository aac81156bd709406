"""What a caller reads, forgets, revokes and waits for, while a real worker runs the tasks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, chain, clock, group, states, upkeep
from litetq.engine import result_mask
from litetq.exceptions import TaskRevokedError, TimeoutError
from litetq.message import Delivery, Outcome
from tests.conftest import RunPython
from tests.factories import failure, success
from tests.waiting import eventually


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    with LiteTQ("tasks", broker=db) as app:
        yield app


class Gate:
    """A task waits here until the test opens it, and tells that it has come."""

    def __init__(self) -> None:
        self.come = threading.Event()
        self.open = threading.Event()

    def __call__(self, *_: Any) -> str:
        self.come.set()
        assert self.open.wait(30)
        return "through"


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


@pytest.fixture
def add(app: LiteTQ) -> Any:
    return app.task(name="add")(lambda x, y=0: x + y)


@pytest.mark.row("6.AsyncResult: ignored, backend, app, supports_native_join, TimeoutError")
@pytest.mark.row("1.app.backend")
def test_a_result_has_celerys_other_attributes(app: LiteTQ, add: Any) -> None:
    result = add.delay(1)
    assert (result.ignored, result.app, result.backend, result.supports_native_join) == (
        *(False, app),
        *(app.backend, True),
    )
    assert add.apply_async((1,), ignore_result=True).ignored
    with pytest.raises(result.TimeoutError) as caught:
        result.get(timeout=0)
    assert isinstance(caught.value, TimeoutError)
    with app.run_embedded(concurrency=1):
        assert result.get(timeout=10) == 1 and app.backend.read(result.id).state == "SUCCESS"  # type: ignore[union-attr]


@pytest.fixture
def two_files(tmp_path: Path) -> Iterator[LiteTQ]:
    files = {"broker": tmp_path / "tasks.sqlite", "backend": tmp_path / "results.sqlite"}
    with LiteTQ("tasks", **files, set_as_current=False) as app:
        yield app


@pytest.mark.row("6.exists")
@pytest.mark.row("7.custom states")
def test_with_results_in_another_file_states_on_the_way_are_seen(two_files: LiteTQ, gate: Gate) -> None:
    app = two_files

    @app.task(name="work", bind=True)
    def work(self: Any) -> str:
        self.update_state(state="PROGRESS", meta={"done": 1})
        gate()
        if self.request.retries == 0:
            raise self.retry(exc=ValueError("again"), countdown=1000)
        return "done"

    result = work.delay()
    assert result.exists() and (result.state, result.queue) == ("PENDING", "celery")
    with app.run_embedded(concurrency=1):
        assert gate.come.wait(10)
        assert (result.state, result.info) == ("PROGRESS", {"done": 1})
        assert app.ResultSet([result]).waiting()
        gate.open.set()
        eventually(lambda: result.state == "RETRY")
        assert repr(result.result) == "ValueError('again')"
        with clock.moved(by=1001):
            app.send_task("work", countdown=0)
            assert result.get(timeout=30) == "done"
        result.forget()
        eventually(lambda: not app.AsyncResult(result.id).exists())  # it may just be copied
    assert app.engine.read(result.id) is None and not app.AsyncResult(result.id).exists()


def test_with_results_in_another_file_an_id_sent_again_is_unfinished(two_files: LiteTQ) -> None:
    same = two_files.task(name="same")(lambda x: x)
    with two_files.run_embedded(concurrency=1):
        assert same.apply_async((1,), task_id="one").get(timeout=10) == 1
    again = same.apply_async((2,), task_id="one")
    assert (again.state, again.ready()) == ("PENDING", False)
    with two_files.run_embedded(concurrency=1):
        assert again.get(timeout=10) == 2


def test_with_results_in_another_file_an_end_counts_before_it_is_copied_there(
    two_files: LiteTQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = two_files.task(name="same")(lambda x: x)
    with two_files.run_embedded(concurrency=1):
        assert same.apply_async((1,), task_id="one").get(timeout=10) == 1
    monkeypatch.setattr(upkeep, "RELAY_S", 3600.0)
    with two_files.run_embedded(concurrency=1):
        again = same.apply_async((2,), task_id="one")
        eventually(lambda: two_files.engine.read("one").place == "DONE")  # type: ignore[union-attr]
        assert two_files.engine.store.records.outbox(), "the copy is still that of the first run"
        assert again.get(timeout=10) == 2
    assert not two_files.engine.store.records.outbox() and again.get(timeout=10) == 2


def test_who_only_reads_results_makes_no_file_of_tasks(two_files: LiteTQ, tmp_path: Path) -> None:
    assert not two_files.AsyncResult("unknown").exists()
    assert [path.name for path in tmp_path.glob("*.sqlite")] in ([], ["results.sqlite"])


@pytest.mark.row("6.get: interval, no_ack")
def test_what_concerns_polling_is_taken_and_the_value_comes_without(app: LiteTQ, add: Any) -> None:
    result = add.apply_async((2,), countdown=0.3)
    with app.run_embedded(concurrency=1):
        assert result.get(timeout=10, interval=60, no_ack=False) == 2  # a look each minute would be too late
        assert result.wait(timeout=10, interval=60) == 2


@pytest.mark.row("6.forget: parents too")
def test_to_forget_a_result_forgets_those_before_it(app: LiteTQ, add: Any) -> None:
    result = chain(add.s(1, 1), group(add.s(1), add.s(2)), app.task(name="total")(sum).s())()
    with app.run_embedded(concurrency=1):
        assert result.get(timeout=10) == 7
    members = list(result.parent)
    everything = [result, *members, result.parent.parent]
    assert [each.state for each in everything] == ["SUCCESS"] * 4
    result.forget()
    assert [(each.state, each.exists()) for each in everything] == [("PENDING", False)] * 4


@pytest.mark.row("6.forget: parents too")
def test_a_very_long_chain_is_forgotten_at_once(app: LiteTQ, add: Any) -> None:
    result = chain([add.s(1, 1), *(add.s(1) for _ in range(2999))])()
    with app.run_embedded(concurrency=1) as worker:
        assert worker.drain(60)
    first = result.as_list()[-1]
    assert app.AsyncResult(first).exists()
    result.forget()
    assert not app.AsyncResult(first).exists() and not result.exists()


PROGRAM = """
import time
from pathlib import Path
from litetq import LiteTQ

app = LiteTQ("tasks", broker="jobs.sqlite")

@app.task(name="hang")
def hang():
    Path("come").touch()
    while True:
        time.sleep(0.05)
"""


@pytest.mark.row("6.revoke: terminate, signal, wait, timeout")
def test_a_result_can_end_its_running_task_and_wait_for_the_answer(
    app: LiteTQ, tmp_path: Path, run_python: RunPython
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    run_python("-m", "litetq", "-A", "program", "worker", "-c", "1", "-P", "processes")
    result = app.send_task("hang")
    eventually(lambda: (tmp_path / "come").exists(), 30)
    result.revoke(terminate=True, signal="SIGTERM", wait=True)
    with pytest.raises(TaskRevokedError, match="terminated"):
        result.get(timeout=30)
    assert result.state == "REVOKED"


@pytest.mark.row("8.revoke: a state of another worker stays")
def test_a_revoke_without_terminate_leaves_what_runs_alone(app: LiteTQ, gate: Gate) -> None:
    task = app.task(name="busy")(gate)
    with app.run_embedded(concurrency=1):
        result = task.delay()
        assert gate.come.wait(10)
        result.revoke()
        gate.open.set()
        assert result.get(timeout=10) == "through" and result.state == "SUCCESS"


@pytest.mark.row("6.throw, maybe_throw, maybe_reraise")
def test_a_failure_is_raised_where_that_is_asked_for(app: LiteTQ) -> None:
    app.task(name="fails")(lambda: int("x"))
    with app.run_embedded(concurrency=1):
        result = app.send_task("fails")
        result.get(timeout=10, propagate=False)
    for ask in (result.maybe_throw, result.maybe_reraise, result.throw):
        with pytest.raises(ValueError, match="invalid literal"):
            ask()
    with pytest.raises(KeyError, match="given"):
        result.throw(KeyError("given"))
    seen: list[Any] = []
    assert isinstance(result.maybe_throw(propagate=False, callback=lambda *pair: seen.append(pair)), ValueError)
    assert seen[0][0] == result.id and isinstance(seen[0][1], ValueError)


@pytest.mark.row("6.ResultSet: get, join and their arguments")
@pytest.mark.parametrize("way", ["get", "join", "join_native"])
def test_a_set_is_waited_for_with_celerys_arguments(app: LiteTQ, add: Any, way: str) -> None:
    app.task(name="fails")(lambda: int("x"))
    good = app.ResultSet([add.delay(n) for n in range(3)])
    bad = app.ResultSet([add.delay(7), app.send_task("fails")])
    never = app.ResultSet([add.apply_async((1,), countdown=1000)])
    seen: list[tuple[str, Any]] = []
    ticks: list[int] = []
    wait: Callable[..., Any] = getattr(good, way)
    with app.run_embedded(concurrency=1):
        arguments = {"callback": lambda *pair: seen.append(pair), "interval": 60, "no_ack": False, "timeout": 10}
        nothing = [] if way == "join" else None  # as Celery's: what a callback gets is not gathered as well
        assert wait(**arguments, on_interval=lambda: ticks.append(1)) == nothing
        assert sorted(seen) == sorted((result.id, n) for n, result in enumerate(good))
        assert getattr(good, way)(timeout=10) == [0, 1, 2]
        assert [type(value) for value in getattr(bad, way)(timeout=10, propagate=False)] == [int, ValueError]
        with pytest.raises(ValueError, match="invalid literal"):
            getattr(bad, way)(timeout=10)
        with pytest.raises(TimeoutError):
            getattr(never, way)(timeout=0.05)

        @app.task(name="waits")
        def waits(ids: list[str], disable: bool) -> Any:
            results = app.ResultSet([app.AsyncResult(id) for id in ids])
            return getattr(results, way)(timeout=10, disable_sync_subtasks=disable)

        ids = [result.id for result in good]
        assert waits.delay(ids, False).get(timeout=10) == [0, 1, 2]
        with pytest.raises(RuntimeError, match="Never call"):
            waits.delay(ids, True).get(timeout=10)


@pytest.mark.row("6.stored meta: group_id, parent_id, children")
def test_what_belongs_to_a_task_is_on_record_after_its_end(app: LiteTQ, add: Any) -> None:
    app.task(name="top")(lambda: group(add.s(1), add.s(2)).delay().id)
    with app.run_embedded(concurrency=1) as worker:
        top = app.send_task("top")
        group_id = top.get(timeout=10)
        assert worker.drain(10)
    [made] = top.children
    assert made.id == group_id and [child.get(timeout=0) for child in made] == [1, 2]
    member = app.backend.read(made[1].id)
    assert member is not None and (member.parent_id, member.root_id) == (top.id, top.id)
    meta: list[dict[str, Any]] = []
    app.AsyncResult(top.id).get(timeout=0, on_message=meta.append)
    [children] = [seen.pop("children") for seen in meta]
    assert meta == [{"task_id": top.id, "status": "SUCCESS", "result": group_id, "traceback": None}]
    assert [app.result_from_tuple(child) for child in children] == [made]


@pytest.mark.row("7.constants and sets")
@pytest.mark.row("6.precedence of states")
def test_states_are_celerys() -> None:
    names = "PENDING RECEIVED STARTED SUCCESS FAILURE REVOKED REJECTED RETRY IGNORED".split()
    assert [getattr(states, name) for name in names] == names
    assert states.READY_STATES == {"SUCCESS", "FAILURE", "REVOKED"}
    assert states.UNREADY_STATES == {"PENDING", "RECEIVED", "STARTED", "REJECTED", "RETRY"}
    assert states.EXCEPTION_STATES == {"RETRY", "FAILURE", "REVOKED"}
    assert states.PROPAGATE_STATES == {"FAILURE", "REVOKED"}
    assert states.ALL_STATES == {"PENDING", "RECEIVED", "STARTED", "SUCCESS", "FAILURE", "REVOKED", "RETRY"}
    order = ["SUCCESS", "FAILURE", "CUSTOM", "REVOKED", "STARTED", "RECEIVED", "REJECTED", "RETRY", "PENDING"]
    assert [states.precedence(name) for name in order] == list(range(len(order)))
    assert states.state("RETRY") < states.state("STARTED") < states.state("CUSTOM") <= states.state("SUCCESS")


@pytest.mark.row("6.states never overwrite a terminal one")
@pytest.mark.row("6.the first SUCCESS is kept")
def test_an_attempt_that_lost_its_task_changes_no_end(app: LiteTQ, gate: Gate) -> None:
    """The claim is taken from a worker that still runs the task; another one brings it to its end first."""
    calls: list[int] = []

    @app.task(name="twice", bind=True, acks_late=True)
    def twice(self: Any) -> str:
        calls.append(1)
        if len(calls) > 1:
            return "first to end"
        gate()
        self.update_state(state="PROGRESS", meta="late")
        return "late"

    with app.run_embedded(concurrency=2) as worker:
        result = twice.delay()
        assert gate.come.wait(10)
        [row] = app.engine.workers()
        with app.run_embedded(concurrency=1):
            app.engine.store.roster.rescue(row.id, None, 1e12)
            assert result.get(timeout=30) == "first to end"
            gate.open.set()
            eventually(lambda: worker.statistics().lost == 1)
    again = app.AsyncResult(result.id)
    assert (again.state, again.get(timeout=0)) == ("SUCCESS", "first to end")


def test_who_waits_for_a_task_is_woken_by_its_end_and_not_by_the_success_of_another(app: LiteTQ, add: Any) -> None:
    """Else a get() at the end of a chain would look at each step, and take the processor from the worker."""
    engine = app.engine
    waited = add.delay(1)
    mask = result_mask([waited.id])
    others = [result for result in (add.delay(2) for _ in range(50)) if result_mask([result.id]) != mask][:2]
    seat = engine.seat("w1@host")
    held = {delivery.id: delivery for delivery in seat.take(60).deliveries}

    def end(id: str, end: Callable[[Delivery], Outcome]) -> bool:
        with engine.watch([waited.id]) as watch:
            watch.announce()
            seat.take(0, [end(held[id])])
            return watch.wait(0)

    assert not end(others[0].id, success)
    assert end(others[1].id, failure)  # a failure may end others with it
    assert end(waited.id, success)
    seat.leave()
