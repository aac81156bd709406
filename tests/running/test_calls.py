"""What a call and a task's attributes say, as a real worker obeys it: forms of calling, formats, expiry, priority, limits."""

from __future__ import annotations

import json
import logging
import threading
import warnings
from collections.abc import Iterator
from datetime import date, datetime, time, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import apsw
import pytest

from litetq import LiteTQ, clock, serialization
from litetq.exceptions import (
    MaxRetriesExceededError,
    OperationalError,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkerLostError,
)
from litetq.result import AsyncResult
from tests.waiting import eventually


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    with LiteTQ("tasks", broker=db, set_as_current=False) as app:
        yield app


def record(result: Any) -> Any:
    return result.app.engine.read(result.id)


# -- forms of calling


@pytest.mark.row("2.methods: delay, apply_async, apply, s, si, signature, subtask")
def test_every_form_of_a_call_gives_the_same_value(app: LiteTQ) -> None:
    add = app.task(name="add")(lambda x, y=0: x + y)
    with app.run_embedded(concurrency=1):
        calls = [
            add.delay(2, y=3),
            add.apply_async((2,), {"y": 3}),
            add.apply((2,), {"y": 3}),
            add.s(2, y=3).delay(),
            add.s(2).apply_async(kwargs={"y": 3}),
            add.si(2, y=3).delay(),
            add.signature((2,), {"y": 3}).delay(),
            add.subtask((2,), {"y": 3}).apply_async(),
            app.send_task("add", (2,), {"y": 3}),
            app.signature("add", (2, 3)).delay(),
        ]
        assert [result.get(timeout=10) for result in calls] == [5] * 10
    assert (add.si(1) | add.si(5)).tasks[1].immutable


@pytest.mark.row("2.methods: AsyncResult")
@pytest.mark.row("1.AsyncResult, GroupResult, ResultSet, signature belong to the app")
def test_results_and_signatures_belong_to_the_app_that_made_them(app: LiteTQ, tmp_path: Path) -> None:
    add = app.task(name="add")(lambda x: x)
    with LiteTQ("other", broker=tmp_path / "other.sqlite"), app.run_embedded(concurrency=1):
        id = add.delay(7).id
        assert add.AsyncResult(id).get(timeout=10) == app.AsyncResult(id).get(timeout=10) == 7
        assert app.ResultSet([app.AsyncResult(id)]).get(timeout=10) == [7]
        assert app.GroupResult("g", [app.AsyncResult(id)]).get(timeout=10) == [7]
        assert app.signature("add", (8,)).delay().get(timeout=10) == 8
        assert not AsyncResult(id).exists()  # the current app's


@pytest.mark.row("1.send_task: arguments are checked only if the task is registered")
def test_a_call_by_name_is_not_checked(app: LiteTQ) -> None:
    app.task(name="add")(lambda x, y: x + y)
    with app.run_embedded(concurrency=1):
        result = app.send_task("add", (1,))
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'y'"):
            result.get(timeout=10)


@pytest.mark.row("8.missing argument")
def test_a_missing_argument_is_a_failure(app: LiteTQ) -> None:
    app.task(name="add", typing=False)(lambda x, y: x + y)
    with app.run_embedded(concurrency=1):
        result = app.tasks["add"].delay(1)
        assert isinstance(result.get(timeout=10, propagate=False), TypeError) and result.state == "FAILURE"


@pytest.mark.row("1.send_task: root_id and parent_id inside a task")
def test_a_call_by_name_within_a_task_is_its_child(app: LiteTQ) -> None:
    app.task(name="leaf", bind=True)(lambda self: [self.request.parent_id, self.request.root_id])
    app.task(name="middle")(lambda: app.send_task("leaf").id)
    app.task(name="top")(lambda: app.send_task("middle").id)
    with app.run_embedded(concurrency=1):
        top = app.send_task("top")
        middle = app.AsyncResult(top.get(timeout=10))
        leaf = app.AsyncResult(middle.get(timeout=10))
        assert leaf.get(timeout=10) == [middle.id, top.id]
        assert top.children == [middle] and middle.children == [leaf]


@pytest.mark.row("1.send_task: options")
def test_a_call_by_name_takes_the_options_of_a_call(app: LiteTQ) -> None:
    class Own(AsyncResult[Any]):
        """A result class of the program's."""

    heard: list[int] = []
    app.task(name="note")(heard.append)
    app.task(name="look", bind=True)(
        lambda self: [
            *(self.request.shadow, self.request.group, self.request.group_index, self.request.root_id),
            *(self.request.parent_id, self.request.retries, self.request.reply_to, self.request.timelimit),
            *(self.request.replaced_task_nesting, self.request.headers),
        ]
    )
    with app.run_embedded(concurrency=1) as worker:
        result = app.send_task(
            "look", shadow="dark", group_id="g", group_index=3, root_id="r", parent_id="p", retries=2, reply_to="me",
            time_limit=9, soft_time_limit=8, replaced_task_nesting=1, headers={"a": 1}, result_cls=Own,
            link=app.signature("note", (1,), immutable=True),
        )  # fmt: skip
        assert isinstance(app.send_task("look", result_cls=Own), Own)
        seen = result.get(timeout=10)
        assert worker.drain(10)
    assert seen == ["dark", "g", 3, "r", "p", 2, "me", [9, 8], 1, {"a": 1}] and heard == [1]


@pytest.mark.row("3.add_to_parent")
def test_a_call_may_stay_out_of_its_parents_children(app: LiteTQ) -> None:
    app.task(name="leaf", bind=True)(lambda self: self.request.parent_id)

    @app.task(name="top")
    def top() -> list[str]:
        return [app.send_task("leaf", add_to_parent=add).id for add in (True, False)]

    with app.run_embedded(concurrency=1):
        result = top.delay()
        ids = result.get(timeout=10)
        assert [app.AsyncResult(id).get(timeout=10) for id in ids] == [result.id, result.id]
    assert [child.id for child in result.children] == ids[:1]


@pytest.mark.row("3.connection, producer, publisher")
def test_what_names_a_connection_is_taken_and_means_nothing(app: LiteTQ) -> None:
    add = app.task(name="add")(lambda x: x)
    with app.run_embedded(concurrency=1):
        for option in ("connection", "producer", "publisher"):
            assert add.apply_async((1,), **{option: object()}).get(timeout=10) == 1


@pytest.mark.row("1.app.task: filter, shared, lazy")
def test_a_filter_decides_what_the_decorator_gives(app: LiteTQ) -> None:
    made = app.task(name="wrapped", filter=lambda task: ("filtered", task), shared=False, lazy=False)(lambda: "value")
    assert made == ("filtered", app.tasks["wrapped"])
    with app.run_embedded(concurrency=1):
        assert made[1].delay().get(timeout=10) == "value"


# -- formats


@pytest.mark.row("3.serializer and compression: call, task, setting")
@pytest.mark.row("20.task_serializer")
@pytest.mark.row("20.task_compression")
@pytest.mark.row("2.serializer")
@pytest.mark.row("2.compression")
def test_the_call_decides_on_the_format_then_the_task_then_the_setting(app: LiteTQ) -> None:
    app.conf.update(
        task_serializer="yaml", task_compression="bz2", accept_content=["json", "yaml", "pickle", "msgpack"]
    )
    plain = app.task(name="plain")(len)
    own = app.task(name="own", serializer="pickle", compression="zlib")(len)
    text = "x" * 5000
    sent = {
        "application/x-yaml; compression=bz2": plain.delay(text),
        "application/x-python-serialize; compression=zlib": own.delay(text),
        "application/x-msgpack; compression=lzma": own.apply_async((text,), serializer="msgpack", compression="lzma"),
    }
    for content_type, result in sent.items():
        assert record(result).body_type == content_type and len(record(result).body) < 1000
    with app.run_embedded(concurrency=1):
        assert [result.get(timeout=10) for result in sent.values()] == [5000] * 3


@pytest.mark.row("3.JSON types")
def test_values_go_to_a_worker_and_back_as_json_carries_them(app: LiteTQ) -> None:
    kinds = app.task(name="kinds")(lambda *values: [[type(value).__name__, value] for value in values])
    sent = [
        *(datetime(2026, 1, 2, 3, 4, 5, 6, timezone.utc), datetime(2026, 1, 2), date(2026, 1, 2), time(3, 4, 5)),
        *(Decimal("1.10"), UUID(int=7), b"bytes", {"key": None}, [1, 2.5, True], "文字"),
    ]
    with app.run_embedded(concurrency=1):
        assert kinds.delay(*sent).get(timeout=10) == [[type(value).__name__, value] for value in sent]
        assert kinds.delay((1,), {2: 3}).get(timeout=10) == [["list", [1]], ["dict", {"2": 3}]]
        broken = app.task(name="broken")(lambda: {1, 2}).delay()
        with pytest.raises(serialization.EncodeError, match="set"):
            broken.get(timeout=10)
    with pytest.raises(serialization.EncodeError, match="set"):
        kinds.delay({1, 2})


class Coded(Exception):
    """An error of the program, with two arguments."""

    def __init__(self, code: int, why: object) -> None:
        super().__init__(code, why)


@pytest.mark.row("6.exceptions in JSON")
def test_an_exception_comes_back_from_a_worker_as_itself_or_under_its_name(app: LiteTQ) -> None:
    class Local(Exception):
        """Cannot be found by anybody else."""

    errors: dict[str, Exception] = {
        "known": Coded(4, "why"),
        "odd": Coded(4, object),
        "local": Local("here"),
        "built in": FileNotFoundError(2, "gone", "x"),
    }

    def fail(which: str) -> None:
        raise errors[which]

    app.task(name="fails")(fail)
    with app.run_embedded(concurrency=1):
        got = {which: app.send_task("fails", (which,)).get(timeout=10, propagate=False) for which in errors}
    assert type(got["known"]) is Coded and got["known"].args == (4, "why")
    assert type(got["odd"]) is Coded and got["odd"].args == (4, repr(object))
    assert type(got["local"]).__name__ == "Local" and str(got["local"]) == "here"
    assert type(got["built in"]) is FileNotFoundError and got["built in"].filename == "x"


@pytest.mark.row("3.registering serializers")
def test_a_format_of_ones_own_goes_to_a_worker_and_back(app: LiteTQ) -> None:
    serialization.register("reversed", lambda value: json.dumps(value)[::-1], _read_reversed, "application/x-reversed")
    try:
        app.conf.accept_content = ["json", "reversed"]
        add = app.task(name="add", serializer="reversed")(lambda x, y: x + y)
        result = add.delay(1, 2)
        assert record(result).body.startswith(b"]") and record(result).body_type == "application/x-reversed"
        with app.run_embedded(concurrency=1):
            assert result.get(timeout=10) == 3
    finally:
        serialization.unregister("reversed")


def _read_reversed(data: bytes) -> Any:
    return json.loads(data[::-1])


@pytest.mark.row("3.registering compressors")
def test_a_compression_of_ones_own_is_used_by_name(app: LiteTQ, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serialization, "_compressions", {})
    letters: list[bytes] = []

    def shrink(data: bytes) -> bytes:
        letters.append(data)
        return b"%d" % (len(letters) - 1)

    serialization.register_compression(shrink, lambda data: letters[int(data)], "application/x-letters", ["letters"])
    size = app.task(name="size")(len)
    result = size.apply_async(("x" * 100,), compression="letters")
    assert record(result).body == b"0" and record(result).body_type == "application/json; compression=letters"
    with app.run_embedded(concurrency=1):
        assert result.get(timeout=10) == 100
    with pytest.raises(ValueError, match="'zlib' is taken"):
        serialization.register_compression(shrink, bytes, "application/x-other", ["zlib"])
    with pytest.raises(serialization.SerializerNotInstalled, match=r"'nothing'; known are .*letters.*zlib"):
        size.apply_async(("x",), compression="nothing")


@pytest.mark.row("6.result_compression, result_serializer")
@pytest.mark.row("20.result_compression")
@pytest.mark.row("20.result_serializer")
def test_results_have_the_format_of_their_settings(app: LiteTQ) -> None:
    app.conf.update(result_serializer="yaml", result_compression="zlib", accept_content=["json", "yaml"])
    repeat = app.task(name="repeat")(lambda text: text * 5000)
    with app.run_embedded(concurrency=1):
        result = repeat.delay("x")
        assert result.get(timeout=10) == "x" * 5000
    kept = record(result)
    assert kept.content_type == "application/x-yaml; compression=zlib" and len(kept.result) < 1000


@pytest.mark.row("6.result_accept_content")
@pytest.mark.row("20.result_accept_content")
def test_results_may_be_accepted_in_other_formats_than_tasks(app: LiteTQ, db: Path) -> None:
    app.conf.update(result_serializer="yaml", result_accept_content=["yaml"])
    same = app.task(name="same")(lambda x: x)
    with app.run_embedded(concurrency=1):
        result = same.delay([1])
        assert result.get(timeout=10) == [1]
    with LiteTQ("reader", broker=db, set_as_current=False) as reader:
        with pytest.raises(serialization.ContentDisallowed, match="yaml"):
            reader.AsyncResult(result.id).get(timeout=10)


# -- attributes


@pytest.mark.row("2.expires, priority")
def test_a_task_may_say_when_it_expires_and_how_urgent_it_is(app: LiteTQ) -> None:
    order: list[str] = []
    never = app.task(name="never", expires=0.01)(lambda: order.append("never"))
    lazy = app.task(name="lazy")(lambda: order.append("lazy"))
    urgent = app.task(name="urgent", priority=9)(lambda: order.append("urgent"))
    expired = never.delay()
    lazy.delay()
    urgent.delay()
    lazy.apply_async(priority=200)
    with clock.moved(by=1):
        with app.run_embedded(pool="solo") as worker:
            assert worker.drain(10)
    assert order == ["lazy", "urgent", "lazy"]
    with pytest.raises(TaskRevokedError, match="expired"):
        expired.get(timeout=10)


@pytest.mark.row("2.resultrepr_maxsize")
def test_a_task_says_how_much_of_its_result_is_logged(app: LiteTQ, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app.task(name="short", resultrepr_maxsize=10)(lambda: "x" * 3000)
    app.task(name="usual")(lambda: "x" * 3000)
    with app.run_embedded(concurrency=1):
        for name in ("short", "usual"):
            assert len(app.send_task(name).get(timeout=10)) == 3000
    shown = [line.rpartition("s: ")[2] for line in caplog.messages if " succeeded in " in line]
    assert [len(text) for text in shown] == [10, 1024] and all(text.endswith("...") for text in shown)


@pytest.mark.row("2.OperationalError, MaxRetriesExceededError")
def test_a_task_has_the_errors_that_its_callers_catch(app: LiteTQ, db: Path) -> None:
    app.conf.litetq_busy_timeout = 0.05
    task = app.task(name="again", bind=True, max_retries=0)(lambda self: self.retry())
    with app.run_embedded(concurrency=1):
        with pytest.raises(task.MaxRetriesExceededError) as caught:
            task.delay().get(timeout=10)
        assert isinstance(caught.value, MaxRetriesExceededError)
    holder = apsw.Connection(str(db))
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(task.OperationalError):
        task.apply_async(retry=False)
    holder.close()


@pytest.mark.row("2.builtin tasks")
@pytest.mark.row("6.celery.backend_cleanup")
def test_every_app_has_celerys_builtin_tasks_and_they_work(app: LiteTQ) -> None:
    assert {"celery.map", "celery.starmap", "celery.chunks", "celery.accumulate", "celery.backend_cleanup"} <= set(
        app.tasks
    )
    add = app.task(name="add")(lambda x, y=1: x + y)
    app.conf.result_expires = 60
    with app.run_embedded(concurrency=1):
        assert app.send_task("celery.map", (add.s(), [1, 2])).get(timeout=10) == [2, 3]
        assert app.send_task("celery.starmap", (add.s(), [[1, 2], [3, 4]])).get(timeout=10) == [3, 7]
        assert app.send_task("celery.chunks", (add.s(), [[1, 2], [3, 4]], 1)).get(timeout=10) == [[3], [7]]
        assert app.send_task("celery.accumulate", (1, 2)).get(timeout=10) == [1, 2]
    for cleanup in (app.backend.cleanup, app.tasks["celery.backend_cleanup"]):
        old = add.delay(1)
        with app.run_embedded(concurrency=1):
            assert old.get(timeout=10) == 2
        with clock.moved(by=61):  # no worker is there any more that could do it
            assert app.AsyncResult(old.id).exists()
            cleanup()
            assert not app.AsyncResult(old.id).exists()


@pytest.mark.row("6.celery.backend_cleanup")
def test_the_task_that_tidies_up_removes_what_has_expired(app: LiteTQ) -> None:
    app.conf.result_expires = 60
    kept = app.task(name="kept")(lambda: 1)
    with app.run_embedded(concurrency=1):
        old = kept.delay()
        assert old.get(timeout=10) == 1
        assert app.send_task("celery.backend_cleanup").get(timeout=10) is None
        assert app.AsyncResult(old.id).exists()
    with clock.moved(by=61):
        app.tasks["celery.backend_cleanup"].apply()
    assert not app.AsyncResult(old.id).exists()


# -- settings that stand behind attributes


@pytest.mark.row("20.task_ignore_result")
def test_by_setting_no_result_is_kept(app: LiteTQ) -> None:
    app.conf.task_ignore_result = True
    plain = app.task(name="plain")(lambda: 1)
    kept = app.task(name="kept", ignore_result=False)(lambda: 1)
    with app.run_embedded(concurrency=1):
        assert kept.delay().get(timeout=10) == 1
        ignored = plain.delay()
        assert ignored.get(timeout=10) is None
        eventually(lambda: ignored.state == "SUCCESS")
    assert app.AsyncResult(ignored.id).result is None and record(ignored).result is None


@pytest.mark.row("20.task_track_started")
@pytest.mark.parametrize("track", [True, False])
def test_by_setting_the_start_of_a_task_is_on_record(app: LiteTQ, track: bool) -> None:
    app.conf.task_track_started = track
    come, go = threading.Event(), threading.Event()

    @app.task(name="hold")
    def hold() -> None:
        come.set()
        assert go.wait(30)

    try:
        with app.run_embedded(concurrency=1):
            result = hold.delay()
            assert come.wait(10)
            assert result.state == ("STARTED" if track else "PENDING")
            go.set()
            result.get(timeout=10)
    finally:
        go.set()


@pytest.mark.row("20.task_time_limit")
@pytest.mark.row("20.task_acks_on_timeout")
@pytest.mark.row("2.acks_on_timeout")
def test_by_setting_every_task_has_a_hard_limit_and_may_be_delivered_again_at_it(app: LiteTQ) -> None:
    app.conf.update(task_time_limit=0.2, task_acks_late=True, task_acks_on_timeout=False)
    runs: list[int] = []
    go = threading.Event()

    @app.task(name="stuck_once")
    def stuck_once() -> str:
        runs.append(1)
        if len(runs) == 1:
            go.wait(30)
        return "in time"

    app.task(name="stuck", acks_late=False)(lambda: go.wait(30))
    try:
        with app.run_embedded(concurrency=1):
            assert stuck_once.delay().get(timeout=10) == "in time"
            with pytest.raises(TimeLimitExceeded):
                app.send_task("stuck").get(timeout=10)
    finally:
        go.set()
    assert len(runs) == 2


@pytest.mark.row("20.task_publish_retry")
@pytest.mark.row("20.task_publish_retry_policy")
def test_by_setting_a_call_gives_up_at_once_or_waits_for_a_busy_file(app: LiteTQ, db: Path) -> None:
    app.conf.litetq_busy_timeout = 0.05
    task = app.task(name="add")(lambda: 1)
    task.delay()
    holder = apsw.Connection(str(db))

    def waited(**settings: Any) -> float:
        app.conf.update(settings)
        began = clock.monotonic()
        with pytest.raises(task.OperationalError):
            task.delay()
        return clock.monotonic() - began

    holder.execute("BEGIN IMMEDIATE")
    policy = {"max_retries": 4, "interval_start": 0.2, "interval_step": 0, "interval_max": 0.2}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert waited(task_publish_retry_policy=policy) > 0.9 > waited(task_publish_retry=False)
    holder.execute("ROLLBACK")
    holder.close()
    assert task.delay().exists()


@pytest.mark.row("20.broker_transport_options")
@pytest.mark.row("1.conf.update")
def test_transport_options_say_how_long_a_busy_file_is_waited_for(app: LiteTQ, db: Path) -> None:
    app.conf.update({"broker_transport_options": {"busy_timeout": 0.05}, "task_default_queue": "mine"})
    assert app.send_task("any").queue == "mine"
    holder = apsw.Connection(str(db))
    holder.execute("BEGIN IMMEDIATE")
    began = clock.monotonic()
    with pytest.raises(OperationalError):
        app.send_task("any", retry=False)
    holder.close()
    assert clock.monotonic() - began < 3  # by default it would be waited for half a minute


@pytest.mark.row("20.result_backend_transport_options")
def test_results_in_another_file_have_transport_options_of_their_own(app: LiteTQ, tmp_path: Path) -> None:
    other = tmp_path / "results.sqlite"
    app.conf.update(result_backend=str(other), result_backend_transport_options={"busy_timeout": 0.05})
    result = app.task(name="one")(lambda: 1).delay()
    with app.run_embedded(concurrency=1):
        assert result.get(timeout=10) == 1
    holder = apsw.Connection(str(other))
    holder.execute("BEGIN IMMEDIATE")
    began = clock.monotonic()
    with pytest.raises(OperationalError):
        result.forget()
    holder.close()
    assert clock.monotonic() - began < 3 and app.engine.read(app.send_task("any").id)


# -- states


@pytest.mark.row("8.sys.exit in a task")
@pytest.mark.parametrize(("late", "state"), [(False, "FAILURE"), (True, "FAILURE")])
def test_a_task_that_exits_is_lost_as_celery_says_it(app: LiteTQ, late: bool, state: str) -> None:
    app.task(name="leave", acks_late=late)(lambda: exit_with(2))
    with app.run_embedded(concurrency=1):
        result = app.send_task("leave")
        with pytest.raises(WorkerLostError, match=r"^Worker exited prematurely: exitcode 2\.$"):
            result.get(timeout=10)
        assert result.state == state
        app.task(name="after")(lambda: "alive")
        assert app.send_task("after").get(timeout=10) == "alive"


def exit_with(code: int) -> None:
    raise SystemExit(code)
