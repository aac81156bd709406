"""What packages replace, wrap, subclass and add under Celery's names changes what runs."""

from __future__ import annotations

import importlib
import inspect
import sys
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from litetq import LiteTQ, Queue, chain, group
from litetq.exceptions import ImproperlyConfigured
from tests.conftest import RunPython
from tests.waiting import eventually


@pytest.fixture
def app(alias: None, db: Path) -> Any:
    app = LiteTQ("seams", broker=db, set_as_current=False)
    yield app
    app.close()


def run(app: LiteTQ, **options: Any) -> None:
    """Run all that is queued."""
    with app.run_embedded(1, **{"pool": "solo", **options}) as worker:
        assert worker.drain(30)


# -- the tracer


def wrap_tracer(monkeypatch: pytest.MonkeyPatch, calls: list[Any]) -> None:
    """Replace build_tracer as tracing tools do."""
    trace = importlib.import_module("celery.app.trace")
    original = trace.build_tracer

    def build(name: str, task: Any, *args: Any, **kwargs: Any) -> Any:
        inner = original(name, task, *args, **kwargs)

        def traced(*args: Any, **kwargs: Any) -> Any:
            ended = inner(*args, **kwargs)
            calls.append((args, ended))
            return ended

        return traced

    monkeypatch.setattr(trace, "build_tracer", build)


def test_a_replaced_build_tracer_sees_each_attempt_as_celery_shows_it(
    app: LiteTQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = app.task(lambda x, y: x + y, name="add")
    fail = app.task(lambda: 1 / 0, name="fail")
    calls: list[Any] = []
    wrap_tracer(monkeypatch, calls)
    added, failed = add.apply_async((2, 3), headers={"trace": "t1"}), fail.delay()
    run(app)
    ((id, args, kwargs, request), ended), (_, failure) = calls
    assert (id, list(args), kwargs) == (added.id, [2, 3], {})
    assert request["headers"] == {"trace": "t1"}
    assert (request["trace"], request["task"], request["id"], request["retries"]) == ("t1", "add", added.id, 0)
    assert request["delivery_info"]["routing_key"] == "celery"
    assert (ended.retval, ended.info) == (5, None)
    assert failure.info.state == "FAILURE" and isinstance(failure.info.retval, ZeroDivisionError)
    assert added.get(timeout=5) == 5
    assert failed.state == "FAILURE"


def test_a_value_of_the_step_before_reaches_the_tracer(app: LiteTQ, monkeypatch: pytest.MonkeyPatch) -> None:
    add = app.task(lambda x, y: x + y, name="add")
    calls: list[Any] = []
    wrap_tracer(monkeypatch, calls)
    result = chain(add.s(1, 2), add.s(10), app=app)()
    run(app)
    assert [list(args[1]) for args, _ in calls] == [[1, 2], [3, 10]]
    assert result.get(timeout=5) == 13


def test_without_a_tool_the_worker_has_its_own_tracer(app: LiteTQ) -> None:
    from litetq import execution

    importlib.import_module("celery.app.trace")
    app.task(lambda: None, name="nothing")
    assert type(execution.build_tracer("nothing", app.tasks["nothing"], app=app)) is execution.Tracer


def test_a_tool_that_forgets_to_run_the_task_fails_it_and_says_so(app: LiteTQ, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = importlib.import_module("celery.app.trace")
    monkeypatch.setattr(trace, "build_tracer", lambda *a, **k: lambda *a, **k: None)
    result = app.task(lambda: None, name="nothing").delay()
    run(app)
    with pytest.raises(RuntimeError, match="must call the one it wraps"):
        result.get(timeout=5)


def test_a_tool_that_fails_after_the_task_leaves_its_end_as_it_is(app: LiteTQ, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = importlib.import_module("celery.app.trace")
    original = trace.build_tracer

    def build(*args: Any, **kwargs: Any) -> Any:
        inner = original(*args, **kwargs)

        def traced(*args: Any) -> Any:
            inner(*args)
            raise OSError("the collector is away")

        return traced

    monkeypatch.setattr(trace, "build_tracer", build)
    result = app.task(lambda: "done", name="work").delay()
    run(app)
    assert result.get(timeout=5) == "done"


def test_bytes_that_cannot_be_read_fail_as_ever_with_a_tool_in_place(
    app: LiteTQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    wrap_tracer(monkeypatch, calls)
    app.task(lambda: None, name="nothing")
    sender = LiteTQ("other", broker=app.broker_address.path, set_as_current=False)
    sender.conf.accept_content = ["json", "pickle"]
    result = sender.send_task("nothing", serializer="pickle")
    sender.close()
    run(app)
    assert app.AsyncResult(result.id).state == "FAILURE"
    assert calls == []


def test_task_has_custom_knows_what_every_task_has(app: LiteTQ) -> None:
    has = importlib.import_module("celery.app.trace").task_has_custom
    plain = app.task(lambda: None, name="plain")

    class Own(app.Task):  # type: ignore[name-defined,misc]
        def __call__(self) -> None: ...

    own = app.task(lambda: None, name="own", base=Own)
    assert not has(plain, "__call__")
    assert not has(plain, "on_failure")
    assert has(own, "__call__")


def test_a_task_that_a_tool_wraps_in_a_proxy_runs_through_it_with_its_request(
    app: LiteTQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As New Relic does: the proxy has the task's class, and a `run` that comes to the `__call__` of the task."""
    through: list[str] = []

    class Proxy:
        def __init__(self, task: Any) -> None:
            object.__setattr__(self, "wrapped", task)

        @property
        def __class__(self) -> Any:  # type: ignore[override]
            return type(self.wrapped)

        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            return self.wrapped.__dict__

        def __getattr__(self, name: str) -> Any:
            return getattr(self.wrapped, name)

        def run(self, *args: Any, **kwargs: Any) -> Any:
            through.append(self.wrapped.name)
            return self.wrapped(*args, **kwargs)

    trace = importlib.import_module("celery.app.trace")
    own = trace.build_tracer
    monkeypatch.setattr(trace, "build_tracer", lambda name, task, *a, **k: own(name, Proxy(task), *a, **k))
    show = app.task(bind=True, name="show")(lambda self, x: [self.request.id, self.request.called_directly, x])
    with app.run_embedded(1):
        result = show.delay(7)
        assert result.get(timeout=30) == [result.id, False, 7]
    assert through == ["show"]


def test_a_wrapped_run_is_what_the_worker_calls(app: LiteTQ) -> None:
    add = app.task(lambda x, y: x + y, name="add")
    original = add.run
    add.run = lambda *args: original(*args) * 100  # type: ignore[method-assign]
    result = add.delay(1, 2)
    run(app)
    assert result.get(timeout=5) == 300


def test_tools_of_a_program_reach_the_children_of_its_pool(run_python: RunPython, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(
        "from celery import Celery\n"
        "import celery.app.trace as trace, celery.concurrency.prefork as prefork\n"
        "original, told = trace.build_tracer, []\n"
        "def build(name, task, *args, **kwargs):\n"
        "    inner = original(name, task, *args, **kwargs)\n"
        "    def traced(uuid, args, kwargs, request):\n"
        "        told.append('traced ' + request['id'][-4:])\n"
        "        return inner(uuid, args, kwargs, request)\n"
        "    return traced\n"
        "trace.build_tracer = build\n"
        "prefork.process_initializer = lambda app, hostname: told.append('initialized ' + app.main)\n"
        "app = Celery('tasks', broker='jobs.sqlite')\n"
        "@app.task\n"
        "def tell():\n"
        "    return told\n",
        encoding="utf-8",
    )
    worker = run_python("-m", "litetq", "--as-celery", "-A", "tasks", "worker", "-c", "1", "--drain")
    sent = run_python(
        "import litetq; litetq.install_as_celery()\nfrom tasks import tell\nr = tell.delay(); print(r.id[-4:], r.get(timeout=50))"
    )
    out, err = sent.communicate(timeout=60)
    if not out:  # the worker had drained before the task came
        worker.communicate(timeout=60)
        run_python("-m", "litetq", "--as-celery", "-A", "tasks", "worker", "-c", "1", "--drain").communicate(timeout=60)
    end, _, told = out.strip().partition(" ")
    assert told == str(["initialized tasks", f"traced {end}"]), err


# -- sending


def test_a_patched_apply_async_sees_delays_and_every_member_of_a_workflow(
    app: LiteTQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_class = importlib.import_module("celery.app.task").Task
    original, seen = task_class.apply_async, []

    def apply_async(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(self.name)
        kwargs["headers"] = {**(kwargs.get("headers") or {}), "trace": f"t{len(seen)}"}
        return original(self, *args, **kwargs)

    one = app.task(lambda: 1, name="one")
    header = app.task(lambda *_: app.current_task.request.trace, name="header")  # type: ignore[union-attr]
    monkeypatch.setattr(task_class, "apply_async", apply_async)
    single = header.delay()
    members = group([one.s(), header.s()], app=app)()
    steps = chain(one.s(), header.s(), app=app)()
    run(app)
    assert single.get(timeout=5) == "t1"
    assert members.get(timeout=5)[1] is not None
    assert steps.get(timeout=5) is not None
    assert sorted(seen) == ["header", "header", "header", "one", "one"]


def test_a_patched_send_task_sees_calls_by_name(app: LiteTQ, monkeypatch: pytest.MonkeyPatch) -> None:
    celery = importlib.import_module("celery")
    original, seen = celery.Celery.send_task, []

    def send_task(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(args[0])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(celery.Celery, "send_task", send_task)
    app.send_task("a.b")
    assert seen == ["a.b"]


def test_headers_may_be_changed_before_publishing_and_are_keys_of_the_request(app: LiteTQ) -> None:
    signals = importlib.import_module("celery.signals")

    @signals.before_task_publish.connect
    def add_header(headers: dict[str, Any], **_: Any) -> None:
        headers["correlation"] = "c-1"
        headers.setdefault("headers", {})

    @app.task(bind=True)
    def show(self: Any) -> Any:
        request = self.request
        return [request.correlation, request.get("correlation"), request.get("nothing", 7), request.given]

    result = show.apply_async(headers={"given": 1})
    signals.before_task_publish.disconnect(add_header)
    run(app)
    assert result.get(timeout=5) == ["c-1", "c-1", 7, 1]


def test_task_sent_is_told_of_what_was_published(app: LiteTQ) -> None:
    signals = importlib.import_module("celery.signals")
    told: list[Any] = []

    def sent(sender: str, task_id: str, args: Any, **_: Any) -> None:
        told.append((sender, task_id, list(args)))

    signals.task_sent.connect(sent)
    result = app.send_task("a.b", (1,))
    assert told == [("a.b", result.id, [1])]


def test_mock_patch_reaches_the_runtime_and_puts_everything_back(alias: None) -> None:
    from litetq import beat

    original = beat.Scheduler
    with mock.patch("celery.beat.Scheduler") as replaced:
        assert beat.Scheduler is replaced
    assert beat.Scheduler is original
    assert "Scheduler" not in importlib.import_module("celery.beat").__dict__


def test_a_patched_apply_entry_sees_what_beat_sends(app: LiteTQ, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = importlib.import_module("celery.beat").Scheduler
    original, seen = scheduler.apply_entry, []

    def apply_entry(self: Any, entry: Any, producer: Any = None) -> Any:
        seen.append(entry.name)
        entry.options["headers"] = {"monitor": entry.name}
        return original(self, entry, producer)

    monkeypatch.setattr(scheduler, "apply_entry", apply_entry)
    done = threading.Event()

    @app.task(name="tick", bind=True)
    def tick(self: Any) -> None:
        if self.request.monitor == "every":
            done.set()

    app.conf.beat_schedule = {"every": {"task": "tick", "schedule": 0.1}}
    with app.run_embedded(1, beat=True):
        assert done.wait(30)
    assert seen[0] == "every"


def test_handlers_and_signals_of_a_failure_find_the_exception_being_handled(app: LiteTQ) -> None:
    signals = importlib.import_module("celery.signals")
    told: list[Any] = []

    def failed(**_: Any) -> None:
        told.append(("signal", repr(sys.exc_info()[1])))

    class Base(app.Task):  # type: ignore[name-defined,misc]
        def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            told.append(("handler", sys.exc_info()[1] is exc))

        def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            told.append(("retry", type(sys.exc_info()[1]).__name__))

    @app.task(base=Base, bind=True, max_retries=1)
    def fail(self: Any) -> None:
        try:
            raise ZeroDivisionError("division by zero")
        except ZeroDivisionError as error:
            raise self.retry(exc=error, countdown=0) from None

    signals.task_failure.connect(failed)
    result = fail.delay()
    run(app)
    signals.task_failure.disconnect(failed)
    assert told == [("retry", "Retry"), ("handler", True), ("signal", "ZeroDivisionError('division by zero')")]
    assert sys.exc_info()[1] is None
    assert "as_handled" not in (result.traceback or "")


# -- what a program adds to its workers


def test_a_step_starts_and_stops_with_the_worker_and_has_a_timer(app: LiteTQ) -> None:
    bootsteps = importlib.import_module("celery.bootsteps")
    happened: list[str] = []
    ticked = threading.Event()

    class Beacon(bootsteps.StartStopStep):  # type: ignore[misc,name-defined]
        requires = {"celery.worker.components:Timer"}

        def __init__(self, worker: Any, **options: Any) -> None:
            happened.append(f"made {worker.app.main}")

        def start(self, worker: Any) -> None:
            happened.append("start")
            self.entry = worker.timer.call_repeatedly(0.01, ticked.set, (), priority=10)

        def stop(self, worker: Any) -> None:
            happened.append("stop")
            self.entry.cancel()

    class After(bootsteps.StartStopStep):  # type: ignore[misc,name-defined]
        requires = (Beacon,)

        def start(self, worker: Any) -> None:
            happened.append("after")

        def stop(self, worker: Any) -> None:
            happened.append("stop after")

    app.steps["worker"].add(After)
    app.steps["worker"].add(Beacon)
    with app.run_embedded(1):
        assert ticked.wait(30)
    assert happened == ["made seams", "start", "after", "stop after", "stop"]


@pytest.mark.system
def test_options_that_an_app_adds_to_the_worker_reach_its_steps_and_those_of_all_commands_are_told(
    run_python: RunPython, tmp_path: Path
) -> None:
    (tmp_path / "tasks.py").write_text(
        "from celery import Celery, bootsteps\n"
        "from celery.signals import user_preload_options\n"
        "from click import Option\n"
        "app = Celery('tasks', broker='jobs.sqlite')\n"
        "app.user_options['worker'].add(Option(('--shop',), default='none', help='Which shop.'))\n"
        "app.user_options['preload'].add(Option(('-Z', '--template'), default='plain'))\n"
        "user_preload_options.connect(lambda options, **_: print('template:', options['template']), weak=False)\n"
        "class Shop(bootsteps.Step):\n"
        "    def __init__(self, worker, shop=None, template=None, **options):\n"
        "        print('shop:', shop, options['concurrency'], template)\n"
        "app.steps['worker'].add(Shop)\n",
        encoding="utf-8",
    )
    worker = ("-m", "litetq", "--as-celery", "-A", "tasks", "worker", "-c", "1", "-P", "solo", "--drain")
    for words, shown in (
        (["--shop", "corner", "-Z", "fancy"], ["shop: corner 1 fancy", "template: fancy\n"]),
        ([], ["shop: none 1 plain", "template: plain\n"]),
    ):
        out, err = run_python(*worker, *words).communicate(timeout=60)
        assert [each for each in shown if each not in out + err] == []
    report = run_python("-m", "litetq", "--as-celery", "-A", "tasks", "report", "--template", "fancy")
    out, err = report.communicate(timeout=60)
    assert "template: fancy\n" in out, err  # every command takes it, and its function need not know it
    process = run_python(*worker, "--shup", "corner")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "No such option '--shup'. Did you mean --shop?" in err


def test_a_step_that_cannot_start_keeps_the_worker_from_starting(app: LiteTQ) -> None:
    steps = importlib.import_module("celery.bootsteps")
    stopped: list[str] = []

    class First(steps.StartStopStep):  # type: ignore[misc,name-defined]
        def stop(self, worker: Any) -> None:
            stopped.append("first")

    class Wrong(steps.StartStopStep):  # type: ignore[misc,name-defined]
        requires = (First,)

        def start(self, worker: Any) -> None:
            raise RuntimeError("no port")

    app.steps["worker"].update({First, Wrong})
    with pytest.raises(RuntimeError, match="no port"):
        app.run_embedded(1)
    assert stopped == ["first"]
    assert app.engine.store.roster.workers() == []


def test_who_listens_to_worker_ready_finds_the_sender_that_celery_names(app: LiteTQ) -> None:
    consumer = importlib.import_module("celery.worker.consumer")
    signals = importlib.import_module("celery.signals")
    ready: list[Any] = []

    def on_ready(sender: Any, **_: Any) -> None:
        ready.append((isinstance(sender, consumer.Consumer), sender.hostname, sender.app.main))
        sender.app.send_task("nobody.has.this", task_id="sent at the start")

    signals.worker_ready.connect(on_ready)
    with app.run_embedded(1, pool="solo", hostname="one@here") as worker:
        assert eventually(lambda: app.AsyncResult("sent at the start").ready())
        assert worker.hostname == "one@here"
    assert ready == [(True, "one@here", "seams")]


def test_a_consumer_step_is_refused_with_the_reason(app: LiteTQ) -> None:
    steps = importlib.import_module("celery.bootsteps")
    app.steps["consumer"].add(type("Messages", (steps.ConsumerStep,), {}))
    with pytest.raises(NotImplementedError, match="a file has tasks only"):
        app.run_embedded(1)


def test_a_request_class_of_a_task_is_told_of_its_failure(app: LiteTQ) -> None:
    request_class = importlib.import_module("celery.worker.request").Request
    told: list[Any] = []

    class Own(request_class):  # type: ignore[misc,valid-type]
        def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
            super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
            told.append((self.task.name, self.id, list(self.args), repr(exc_info.exception)))

    class Base(app.Task):  # type: ignore[name-defined,misc]
        Request = Own

    result = app.task(lambda x: 1 / x, name="divide", base=Base).delay(0)
    app.task(lambda x: x, name="fine", base=Base).delay(0)
    run(app)
    assert told == [("divide", result.id, [0], "ZeroDivisionError('division by zero')")]


def test_a_request_class_is_told_of_a_hard_time_limit(app: LiteTQ) -> None:
    parts = importlib.import_module("litetq.parts")
    told: list[Any] = []
    gate = threading.Event()

    class Own(parts.Request):  # type: ignore[misc,name-defined]
        def on_timeout(self, soft: bool, timeout: float) -> None:
            told.append((soft, timeout))

    task = app.task(lambda: gate.wait(30), name="long", time_limit=0.2)
    task.Request = Own
    result = task.delay()
    with app.run_embedded(1):
        with pytest.raises(Exception, match="TimeLimitExceeded"):
            result.get(timeout=30)
        eventually(lambda: told == [(False, 0.2)])
        gate.set()


def test_hooks_of_a_loader_are_called(alias: None, db: Path) -> None:
    base = importlib.import_module("celery.loaders.base").BaseLoader
    told: list[str] = []

    class Own(base):  # type: ignore[misc,valid-type]
        def on_task_init(self, task_id: str, task: Any) -> None:
            told.append(f"init {task.name}")

        def on_process_cleanup(self) -> None:
            told.append("cleanup")

    app = LiteTQ("loaded", broker=db, loader=Own, set_as_current=False)
    app.task(lambda: None, name="nothing").delay()
    run(app)
    app.close()
    assert told == ["init nothing", "cleanup"]


def test_what_was_connected_to_finalization_is_called_with_each_app(alias: None, db: Path) -> None:
    connect = importlib.import_module("celery._state").connect_on_app_finalize
    seen: list[Any] = []
    connect(seen.append)
    app = LiteTQ("late", broker=db, set_as_current=False)
    app.finalize()
    seen_apps = list(seen)
    importlib.import_module("litetq.app")._at_finalize.remove(seen.append)
    assert seen_apps == [app]


def test_the_file_is_entered_and_ensured_like_a_connection(app: LiteTQ) -> None:
    with app.connection() as connection:
        connection.ensure_connection(max_retries=1)
        assert connection.connected
        assert connection.transport.driver_type == "litetq"
        assert connection.as_uri().endswith("jobs.sqlite")
    with app.pool.acquire(block=True) as pooled:
        assert pooled.default_channel.connection is pooled
    assert not connection.connected
    assert list(app.amqp.queues) == ["celery"]


def test_a_producer_is_handed_out_for_many_calls_and_publishes_nothing_else(app: LiteTQ) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    with app.producer_or_acquire() as producer, app.producer_or_acquire(producer) as same:
        assert same is producer
        sent = [add.apply_async((n, 1), producer=producer) for n in range(3)]
        sent.append(app.send_task(add.name, (3, 1), producer=producer))
    with (
        app.producer_pool.acquire(block=True) as producer,
        pytest.raises(ImproperlyConfigured, match="litetq carries tasks; send a task"),
    ):
        producer.publish({"hello": "you"}, exchange="mine", routing_key="all")
    run(app)
    assert [result.get(timeout=0) for result in sent] == [1, 2, 3, 4]


def test_workers_of_the_process_show_what_they_hold(app: LiteTQ) -> None:
    state = importlib.import_module("celery.worker.state")
    begun, gate = threading.Event(), threading.Event()

    @app.task
    def hold() -> None:
        begun.set()
        gate.wait(30)

    app.send_task("never.seen")
    held = hold.delay()
    with app.run_embedded(1):
        assert begun.wait(30)
        assert [request.id for request in state.active_requests] == [held.id]
        app.control.revoke("an-id")
        assert "an-id" in state.revoked
        gate.set()
        held.get(timeout=30)
        eventually(lambda: state.total_count[hold.name] == 1)


def test_an_app_of_ones_own_class_makes_registry_and_tasks_of_its_own(alias: None, db: Path) -> None:
    celery = importlib.import_module("celery")

    class Tasks(importlib.import_module("celery.app.registry").TaskRegistry):  # type: ignore[misc]
        pass

    class Own(celery.Celery):  # type: ignore[misc,name-defined]
        registry_cls = Tasks

        def create_task_cls(self) -> Any:
            return self.subclass_with_self(
                "celery.contrib.abortable:AbortableTask", abstract=True, name="OwnTask", attribute="_app"
            )

    app = Own("own", broker=db, set_as_current=False)
    task = app.task(lambda: None, name="nothing")
    assert type(app.tasks) is Tasks
    assert type(task).__mro__[1].__name__ == "AbortableTask"
    assert task.app is app


def test_settings_are_found_by_the_last_part_of_their_names(app: LiteTQ) -> None:
    app.conf.result_expires = 77
    assert app.conf.find_value_for_key("expires", "result") == 77
    assert app.conf.find_value_for_key("always_eager") is False
    with pytest.raises(KeyError):
        app.conf.find_value_for_key("no_such_thing")


def test_requests_are_pushed_and_shown_as_options_of_a_call(app: LiteTQ) -> None:
    context_class = importlib.import_module("celery.app.task").Context
    task = app.task(lambda: None, name="nothing")
    assert task.request_stack.top is None
    task.request_stack.push(context_class(id="an-id", timelimit=[3, 2], headers={"a": 1}))
    options = task.request.as_execution_options()
    assert (options["task_id"], options["time_limit"], options["soft_time_limit"], options["headers"]) == (
        "an-id",
        3,
        2,
        {"a": 1},
    )
    assert len(task.request_stack.stack) == 1
    assert task.request_stack.pop().id == "an-id"  # type: ignore[union-attr]
    assert task.request_stack.pop() is None


# -- contrib


def test_an_abortable_task_sees_that_it_is_to_stop(app: LiteTQ) -> None:
    abortable = importlib.import_module("celery.contrib.abortable")
    begun = threading.Event()

    @app.task(bind=True, base=abortable.AbortableTask)
    def work(self: Any) -> str:
        begun.set()
        eventually(self.is_aborted)
        return "stopped early"

    with app.run_embedded(1):
        result = work.delay()
        assert begun.wait(30)
        assert not result.is_aborted()
        abortable.AbortableAsyncResult(result.id, app=app).abort()
        assert result.get(timeout=30) == "stopped early"


def test_start_worker_runs_tasks_within_a_block(app: LiteTQ) -> None:
    importlib.import_module("celery.contrib.testing.tasks")
    worker_room = importlib.import_module("celery.contrib.testing.worker")
    add = app.task(lambda x, y: x + y, name="add")
    with worker_room.start_worker(app) as worker:
        assert add.delay(1, 2).get(timeout=30) == 3
    assert not worker.is_running


def test_celerys_fixtures_give_an_app_and_a_worker(run_python: RunPython, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import litetq; litetq.install_as_celery()\npytest_plugins = ('celery.contrib.pytest',)\n", encoding="utf-8"
    )
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_a_task_runs(celery_app, celery_worker):\n"
        "    @celery_app.task\n"
        "    def mul(x, y): return x * y\n"
        "    celery_worker.reload()\n"
        "    assert mul.delay(4, 4).get(timeout=10) == 16\n"
        "@pytest.mark.celery(task_default_queue='own')\n"
        "def test_a_mark_sets_settings(celery_app):\n"
        "    assert celery_app.conf.task_default_queue == 'own'\n"
        "def test_a_session_worker(celery_session_app, celery_session_worker):\n"
        "    assert celery_session_app.tasks['celery.ping'].delay().get(timeout=10) == 'pong'\n",
        encoding="utf-8",
    )
    out, err = run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py").communicate(timeout=100)
    assert "3 passed" in out, out + err


def test_a_chord_is_always_allowed(app: LiteTQ) -> None:
    app.backend.ensure_chords_allowed()


def test_eager_calls_within_eager_calls_may_be_waited_for_as_in_celery(app: LiteTQ) -> None:
    inner = app.task(lambda x: x + 1, name="inner")
    outer = app.task(lambda x: inner.apply((x,)).get() + 1, name="outer")
    assert outer.apply((1,)).get() == 3
    sent = outer.delay(1)
    run(app)
    with pytest.raises(RuntimeError, match="Never call result.get"):
        sent.get(timeout=5)


# -- what Celery's apps, tasks and bootsteps have beside


def test_an_app_may_prepare_the_settings_of_its_source(alias: None, db: Path) -> None:
    celery = importlib.import_module("celery")

    class Prepared(celery.Celery):  # type: ignore[misc,name-defined]
        def prepare_config(self, c: Any) -> Any:
            c["task_default_queue"] = c.get("task_default_queue", "none") + "-prepared"
            return c

    app = Prepared("prepared", broker=db, config_source={"task_default_queue": "mail", "timezone": "Europe/Oslo"})
    assert (app.conf.task_default_queue, app.conf.timezone) == ("mail-prepared", "Europe/Oslo")
    assert Prepared("without", broker=db).conf.task_default_queue == "none-prepared"


def test_a_setting_counts_where_no_value_is_given(app: LiteTQ) -> None:
    app.conf.task_default_queue = "mail"
    assert app.either("task_default_queue", None, "post") == "post"
    assert app.either("task_default_queue", None, 0) == 0
    assert app.either("task_default_queue", None) == "mail"
    assert app.conf.without_defaults()["task_default_queue"] == "mail"
    assert "timezone" not in app.conf.without_defaults()


def test_workers_of_the_process_serve_the_queues_that_are_selected(app: LiteTQ) -> None:
    app.conf.task_queues = ["mail", "post", "press"]
    app.select_queues(["mail", "press"])
    assert sorted(app.amqp.queues.consume_from) == ["mail", "press"]
    app.amqp.queues.deselect("press")
    with app.run_embedded(1) as worker:
        assert worker.queues == {"mail"}
    app.select_queues()
    app.amqp.queues.add("late")
    with app.run_embedded(1) as worker:
        assert worker.queues == {"mail", "post", "press", "late"}
    with app.run_embedded(1, queues=["post"]) as worker:
        assert worker.queues == {"post"}


def test_where_a_call_would_go_can_be_asked(app: LiteTQ) -> None:
    app.conf.task_routes = {"work.*": "works"}
    app.conf.task_queues = [Queue("works"), Queue("rest")]
    app.conf.task_default_queue = "rest"
    route = app.amqp.router.route
    assert route({}, "work.hard")["queue"] is app.amqp.queues["works"]
    assert route({"queue": "own"}, "work.hard", (1,), {"n": 2})["queue"].name == "own"
    assert route({"priority": 3}, "play") == {"priority": 3, "queue": app.amqp.queues["rest"]}


def test_what_a_connection_cannot_do_is_said(app: LiteTQ) -> None:
    with app.connection() as connection, pytest.raises(ImproperlyConfigured, match="litetq carries tasks"):
        connection.SimpleQueue("mine")


def test_the_init_of_a_base_finds_function_name_app_and_options(app: LiteTQ) -> None:
    """celery-once looks at the signature of `run` there."""
    found: list[Any] = []

    class Looks(importlib.import_module("celery").Task):  # type: ignore[misc]
        abstract = True

        def __init__(self) -> None:
            found.append([self.name, self.app, self.max_retries, list(inspect.signature(self.run).parameters)])

    app.task(base=Looks, name="looks", max_retries=7)(lambda x, y: None)
    app.task(base=Looks, name="bound", bind=True)(lambda self, z: None)
    assert found == [["looks", app, 7, ["x", "y"]], ["bound", app, 3, ["z"]]]


def test_the_base_class_of_an_apps_tasks_can_be_replaced(app: LiteTQ) -> None:
    """As in the documentation of Flask: each task runs in a context of the application."""
    before = app.task(name="before")(lambda: "ran")
    entered: list[str] = []

    class ContextTask(app.Task):  # type: ignore[name-defined,misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            entered.append(self.name)
            return self.run(*args, **kwargs)

    app.Task = ContextTask
    after = app.task(name="after")(lambda: "ran")
    with app.run_embedded(1):
        assert (before.delay().get(timeout=30), after.delay().get(timeout=30)) == ("ran", "ran")
    assert entered == ["before", "after"]
    with pytest.raises(ImproperlyConfigured, match="must be a class of tasks"):
        app.Task = dict  # type: ignore[assignment]


def test_a_method_of_a_class_of_tasks_is_wrapped_once(app: LiteTQ) -> None:
    class Louder(importlib.import_module("celery").Task):  # type: ignore[misc,name-defined]
        name = "louder"

        def run(self, word: str) -> str:
            return word

    def around(run: Any) -> Any:
        return lambda self, word: run(self, word).upper()

    Louder.add_around("run", around)
    Louder.add_around("run", around)
    assert Louder.bind(app) is app
    assert Louder()("hello") == "HELLO"


def test_a_blueprint_starts_its_steps_in_order_and_stops_them_in_reverse(alias: None) -> None:
    bootsteps = importlib.import_module("celery.bootsteps")
    happened: list[str] = []

    class First(bootsteps.StartStopStep):  # type: ignore[misc,name-defined]
        def start(self, parent: Any) -> None:
            happened.append("start first")

        def stop(self, parent: Any) -> None:
            happened.append("stop first")

        def info(self, parent: Any) -> dict[str, Any]:
            return {"first": "is there"}

    class Second(First):
        requires = (First,)

        def start(self, parent: Any) -> None:
            happened.append("start second")

        def stop(self, parent: Any) -> None:
            raise OSError("cannot stop")

    class Unwanted(First):
        enabled = False

    class Parent:
        steps: list[Any]

    parent = Parent()
    blueprint = bootsteps.Blueprint([Second, First, Unwanted], "mine", on_stopped=lambda: happened.append("stopped"))
    blueprint.apply(parent).start(parent)
    assert (blueprint.human_state(), len(parent.steps), blueprint.info(parent)) == ("running", 2, {"first": "is there"})
    blueprint.stop(parent)
    blueprint.stop(parent)
    blueprint.join(0)
    assert happened == ["start first", "start second", "stop first", "stopped"]


# -- what tests replace, and put back


def test_what_a_test_replaces_in_a_module_is_put_back_however_it_does_so(alias: None) -> None:
    seen = importlib.import_module("celery.canvas")
    real = importlib.import_module("litetq.canvas")
    original = real.maybe_signature
    with pytest.MonkeyPatch.context() as outer:
        outer.setattr("celery.canvas.maybe_signature", 1)
        with mock.patch("celery.canvas.maybe_signature", 2):
            assert (seen.maybe_signature, real.maybe_signature) == (2, 2)
        assert real.maybe_signature == 1
    assert real.maybe_signature is original
    seen.maybe_signature = 3
    seen.maybe_signature = original
    with mock.patch("celery.canvas.maybe_signature"), pytest.MonkeyPatch.context() as inner:
        inner.setattr(seen, "maybe_signature", 4)
    assert (seen.maybe_signature, real.maybe_signature) == (original, original)


def test_what_forbids_to_wait_in_a_task_can_be_replaced(alias: None, app: LiteTQ) -> None:
    result = app.task(name="t")(lambda: 1).apply()
    with (
        mock.patch("celery.result.task_join_will_block", return_value=True),
        pytest.raises(RuntimeError, match="Never call"),
    ):
        result.get()
    assert result.get() == 1
