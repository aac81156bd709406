"""Options of a call: what reaches the file, and what is refused before anything is written."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import apsw
import pytest

from litetq import LiteTQ, clock
from litetq.exceptions import EncodeError, StoreBusy


@pytest.fixture
def add(app: LiteTQ) -> Any:
    @app.task(name="tasks.add")
    def add(x: int, y: int = 0) -> int:
        return x + y

    return add


def record(result: Any) -> Any:
    return result.app.engine.read(result.id)


def test_delay_and_apply_async_put_the_same_call_into_the_file(add: Any) -> None:
    one, two = record(add.delay(1, y=2)), record(add.apply_async(args=[1], kwargs={"y": 2}))
    assert one.body == two.body == b'[[1],{"y":2}]'
    assert (one.name, one.queue, one.state) == ("tasks.add", "celery", "PENDING")
    assert (one.name, one.queue, one.headers) == (two.name, two.queue, two.headers)


def test_delay_goes_through_an_overridden_apply_async(app: LiteTQ) -> None:
    class Routed(app.Task):  # type: ignore[name-defined, misc]
        def apply_async(self, *args: Any, **options: Any) -> Any:
            return super().apply_async(*args, **{"queue": "routed", **options})

    @app.task(base=Routed)
    def job() -> None: ...

    assert record(job.delay()).queue == "routed"


@pytest.mark.row("3.task_id")
def test_ids_are_made_in_the_order_of_the_calls_and_may_be_chosen(add: Any) -> None:
    ids = [add.delay(n).id for n in range(50)]
    assert ids == sorted(ids) and len(set(ids)) == 50
    chosen = add.apply_async((1,), task_id="order 17 / 发票")
    assert chosen.id == "order 17 / 发票" and record(chosen).name == "tasks.add"


@pytest.mark.row("1.send_task: a negative countdown")
@pytest.mark.row("3.countdown, eta")
def test_a_delayed_call_waits_and_an_expired_one_is_revoked(app: LiteTQ, add: Any, run_waiting: Any) -> None:
    later = add.apply_async((1,), countdown=60, expires=120)
    never = add.apply_async((2,), expires=-1)
    past = add.apply_async((3,), countdown=-5)
    at = add.apply_async((4,), eta=datetime.now(timezone.utc) + timedelta(hours=1))
    assert run_waiting(app) == [past.id]
    with clock.moved(by=61):
        assert run_waiting(app) == [later.id]
    with clock.moved(by=3700):
        run_waiting(app)
    assert at.get(timeout=5) == 4
    assert never.state == "REVOKED" and str(never.result) == "expired"


@pytest.mark.row("2.request: delivery_info")
@pytest.mark.row("3.queue, priority")
@pytest.mark.row("3.shadow, headers, time limits")
def test_queue_priority_and_headers_of_a_call_reach_its_request(app: LiteTQ, run_waiting: Any) -> None:
    @app.task(bind=True)
    def show(self: Any) -> list[Any]:
        request = self.request
        info = request.delivery_info
        return [info["routing_key"], info["priority"], request.headers, request.shadow, request.timelimit]

    class Queue:
        name = "named"

    result = show.apply_async(
        queue=Queue(), priority=300, headers={"a": 1}, shadow="another name", time_limit=9, soft_time_limit=8
    )
    run_waiting(app)
    assert result.get(timeout=5) == ["named", 255, {"a": 1}, "another name", [9, 8]]


@pytest.mark.row("2.queue")
@pytest.mark.row("2.shadow_name")
@pytest.mark.row("11.default queue")
@pytest.mark.row("20.task_default_queue")
def test_attributes_of_the_task_stand_where_the_call_says_nothing(app: LiteTQ) -> None:
    @app.task(queue="own", expires=60, priority=4, shadow_name=lambda self, args, kwargs, options: f"job {args[0]}")
    def job(x: int) -> None: ...

    own, called = record(job.delay(7)), record(job.apply_async((8,), queue="call"))
    assert (own.queue, called.queue) == ("own", "call")
    assert '"shadow":"job 7"' in own.headers
    app.conf.task_default_queue = "elsewhere"
    assert record(app.send_task("by.name")).queue == "elsewhere"
    assert record(app.send_task(job.name, (1,))).queue == "own"


@pytest.mark.row("2.ignore_result")
@pytest.mark.row("3.ignore_result")
def test_ignore_result_gives_none_at_once_and_the_call_overrides_the_task(
    app: LiteTQ, add: Any, run_waiting: Any
) -> None:
    ignored = add.apply_async((3,), ignore_result=True)
    kept = add.apply_async((3,), ignore_result=False)

    @app.task(ignore_result=True)
    def quiet() -> int:
        return 5

    assert quiet.delay().get(timeout=0) is None
    assert ignored.get(timeout=0) is None
    run_waiting(app)
    assert kept.get(timeout=5) == 3
    assert app.AsyncResult(ignored.id).result is None and ignored.state == "SUCCESS"


@pytest.mark.row("2.request: root_id, parent_id")
@pytest.mark.row("3.calling inside a task")
@pytest.mark.row("6.collect, get_leaf, iterdeps")
@pytest.mark.row("6.children")
def test_a_task_called_by_another_knows_its_parent_and_root_and_is_its_child(app: LiteTQ, run_waiting: Any) -> None:
    @app.task(bind=True)
    def leaf(self: Any) -> list[Any]:
        return [self.request.parent_id, self.request.root_id]

    @app.task
    def helper() -> Any:
        return leaf.delay()

    @app.task(bind=True)
    def middle(self: Any) -> list[Any]:
        helper()  # a direct call in between changes nothing
        return [self.request.parent_id, self.request.root_id]

    @app.task
    def top() -> str:
        return middle.delay().id

    result = top.delay()
    run_waiting(app)
    (child,) = result.children
    (grandchild,) = child.children
    assert child.id == result.get(timeout=5)
    assert child.get(timeout=5) == [result.id, result.id]
    assert grandchild.get(timeout=5) == [child.id, result.id]
    assert [value for _, value in result.collect()] == [result.get(), child.get(), grandchild.get()]


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"count_down": 3}, TypeError, r"task 'tasks.add': unknown option 'count_down'; did you mean 'countdown'"),
        ({"zzz": 3}, TypeError, r"unknown option 'zzz'; arguments of the task itself go into args and kwargs"),
        ({"countdown": "soon"}, TypeError, r"'countdown' must be seconds, found 'soon'"),
        ({"eta": 5}, TypeError, r"'eta' must be a datetime, found 5"),
        ({"eta": "tomorrow"}, TypeError, r"'eta' must be a datetime or ISO 8601 text, found 'tomorrow'"),
        ({"expires": []}, TypeError, r"'expires' must be seconds, found \[\]"),
        ({"priority": "high"}, TypeError, r"'priority' must be a whole number from 0 to 255, found 'high'"),
        ({"queue": 7}, TypeError, r"'queue' must be the name of a queue, found 7"),
        ({"headers": {"x": object()}}, EncodeError, r"headers of a call of task 'tasks.add' cannot be written as JSON"),
        ({"time_limit": 1, "soft_time_limit": 2}, ValueError, r"soft_time_limit must be less than or equal"),
        (
            {"time_limit": 1, "soft_time_limit": timedelta(seconds=2)},
            ValueError,
            r"less than or equal to time_limit",
        ),
        ({"args": 16}, TypeError, r"args must be a list or tuple, found 16; \(x\) is no tuple, \(x,\) is"),
        ({"kwargs": [1]}, TypeError, r"kwargs must be a mapping of names to values, found \[1\]"),
    ],
)
def test_a_wrong_option_is_named_and_nothing_is_enqueued(
    app: LiteTQ, add: Any, options: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        add.apply_async(**{"args": (1,), **options})
    assert app.control.purge() == 0


@pytest.mark.row("2.a soft limit above the hard one")
def test_soft_limit_above_the_hard_one_is_refused_at_the_call(app: LiteTQ) -> None:
    @app.task(soft_time_limit=10, time_limit=5)
    def job() -> None: ...

    with pytest.raises(ValueError, match="soft_time_limit must be less"):
        job.delay()


def test_one_limit_may_be_a_number_and_the_other_a_timedelta(app: LiteTQ) -> None:
    @app.task(soft_time_limit=20, time_limit=timedelta(seconds=30))
    def job() -> None: ...

    job.delay()
    headers = record(job.apply_async(time_limit=10, soft_time_limit=timedelta(seconds=5))).headers
    assert json.loads(headers or "{}")["timelimit"] == [10, 5.0]


@pytest.mark.row("3.retry, retry_policy")
def test_a_busy_file_is_tried_again_by_the_publish_policy_and_then_named(db: Path) -> None:
    with LiteTQ("tests", broker=db, litetq_busy_timeout=0.05) as app:
        app.send_task("first")
        holder = apsw.Connection(str(db))
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy):
            app.send_task("refused", retry=False)
        with pytest.raises(StoreBusy):
            app.send_task("refused", retry_policy={"max_retries": 1, "interval_start": 0})
        release = threading.Timer(0.2, holder.execute, ["ROLLBACK"])
        release.start()
        patient = app.send_task("second", retry_policy={"max_retries": 100, "interval_max": 0.05})
        release.join()
        holder.close()
        assert patient.exists()
        assert app.control.purge() == 2


def test_a_call_that_returned_is_in_the_file_for_another_process(app: LiteTQ, add: Any, db: Path) -> None:
    result = add.delay(1)
    code = f"from litetq import LiteTQ; print(LiteTQ(broker={str(db)!r}).AsyncResult({result.id!r}).exists())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "True"


@pytest.mark.row("2.serializer")
def test_pickle_travels_only_where_it_is_accepted(app: LiteTQ, run_waiting: Any) -> None:
    @app.task(serializer="pickle", name="tasks.size")
    def size(x: Any) -> int:
        return len(x)

    refused = size.delay({1, 2})
    run_waiting(app)
    assert refused.state == "FAILURE"
    assert str(refused.result) == (
        "Refusing to deserialize untrusted content of type pickle (application/x-python-serialize)"
    )
    app.conf.accept_content = ["json", "pickle"]
    taken = size.delay({1, 2})
    run_waiting(app)
    assert taken.get(timeout=5) == 2
    with pytest.raises(EncodeError, match="lambda"):
        size.delay(lambda: 1)


def test_a_compressed_body_is_smaller_and_read_without_asking(app: LiteTQ, run_waiting: Any) -> None:
    @app.task
    def size(x: str) -> int:
        return len(x)

    result = size.apply_async(("x" * 10_000,), compression="zlib")
    assert len(record(result).body) < 1000
    run_waiting(app)
    assert result.get(timeout=5) == 10_000


def test_what_callback_names_is_called_when_the_task_has_ended(app: LiteTQ, add: Any, run_waiting: Any) -> None:
    ended = threading.Event()
    values: list[int] = []

    def note(result: Any) -> None:
        values.append(result.get())
        ended.set()

    add.apply_async((20,), {"y": 1}, callback=note)
    assert not values
    run_waiting(app)
    assert ended.wait(10) and values == [21]
