"""Tasks: names, attributes, direct and eager calls, retries."""

from __future__ import annotations

import pickle
import socket
import sys
import time
import types
import warnings
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, Task, clock, current_app, current_task, get_task_logger, shared_task
from litetq.exceptions import (
    AlwaysEagerIgnored,
    DuplicateTaskNameWarning,
    EncodeError,
    InvalidTaskError,
    MaxRetriesExceededError,
    NotRegistered,
    Retry,
)
from litetq.execution import ExceptionInfo


def test_a_decorated_function_is_a_task_at_once_and_still_callable(app: LiteTQ) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        """Add two numbers."""
        return x + y

    assert isinstance(add, Task) and isinstance(add, app.Task)
    assert add(2, 2) == 4
    assert add.name == f"{__name__}.add"
    assert app.tasks[add.name] is add
    assert (add.__name__, add.__module__, add.__doc__) == ("add", __name__, "Add two numbers.")  # type: ignore[attr-defined]
    assert repr(add) == f"<@task: {__name__}.add of tests at {id(app):#x}>"
    assert repr(app) == f"<Celery tests at {id(app):#x}>"


@pytest.mark.row("1.laziness")
def test_making_an_app_and_tasks_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = LiteTQ("x", broker="jobs.sqlite", backend="results.sqlite")

    @app.task
    def add(x: int) -> int:
        return x

    assert add(1) == 1 and repr(add) and app.tasks
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["__main__", "__mp_main__", None])
def test_in_a_script_the_main_name_stands_for_the_module(module: str | None) -> None:
    assert LiteTQ(set_as_current=False).gen_task_name("add", module) == "__main__.add"
    assert LiteTQ("tasks", set_as_current=False).gen_task_name("add", module) == "tasks.add"
    assert LiteTQ("tasks", set_as_current=False).gen_task_name("add", "proj.jobs") == "proj.jobs.add"


def test_a_task_of_a_script_is_found_by_a_worker_that_imports_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scripted_jobs.py").write_text(
        "from litetq import LiteTQ\napp = LiteTQ(broker='x.sqlite')\n@app.task\ndef add(x): return x\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import scripted_jobs  # type: ignore[import-not-found]

    assert scripted_jobs.app.tasks["__main__.add"] is scripted_jobs.add
    with pytest.raises(NotRegistered):
        scripted_jobs.app.tasks["__main__.other"]
    del sys.modules["scripted_jobs"]


@pytest.mark.row("1.app.task: options become attributes")
def test_options_of_the_decorator_become_attributes_and_functions_methods(app: LiteTQ) -> None:
    def on_failure(self: Any, *args: Any) -> Any:
        return self

    @app.task(name="sum-of-two", serializer="pickle", rate_limit="10/s", on_failure=on_failure, custom=1)
    def add(x: int) -> int:
        return x

    assert (add.name, add.serializer, add.rate_limit, add.custom) == ("sum-of-two", "pickle", "10/s", 1)  # type: ignore[attr-defined]
    assert add.on_failure(ValueError(), "id", (), {}, None) is add  # type: ignore[func-returns-value]


@pytest.mark.row("1.app.task: name, base, bind")
def test_a_bound_task_gets_itself_and_its_argument_check_knows_that(app: LiteTQ) -> None:
    @app.task(bind=True)
    def show(self: Any, x: int) -> Any:
        return self, x

    assert show(1) == (show, 1)
    with pytest.raises(TypeError, match=r"show\(\) missing 1 required positional argument: 'x'"):
        show.delay()  # type: ignore[call-arg]


def test_attributes_follow_the_settings_until_they_are_set(app: LiteTQ) -> None:
    @app.task
    def add() -> None: ...

    assert add.acks_late is False and add.serializer == "json"
    app.conf.task_acks_late = True
    assert add.acks_late is True
    add.acks_late = False
    assert add.acks_late is False


@pytest.mark.row("1.create_task_cls, task_cls, app.Task")
def test_what_is_set_on_the_base_class_of_one_app_is_not_seen_by_another(tmp_path: Path) -> None:
    one, other = (LiteTQ(name, broker=tmp_path / name, set_as_current=False) for name in ("one", "two"))
    one.Task.max_retries = 11
    assert other.Task.max_retries == 3 and Task.max_retries == 3


@pytest.mark.row("20.task_annotations")
def test_annotations_set_attributes_of_the_named_task_and_of_all(app: LiteTQ) -> None:
    @app.task(name="tasks.add")
    def add() -> None: ...

    @app.task(name="tasks.mul")
    def mul() -> None: ...

    app.conf.task_annotations = {"tasks.add": {"rate_limit": "10/s"}, "*": {"rate_limit": "1/s", "max_retries": 7}}
    assert (add.rate_limit, add.max_retries) == ("10/s", 7)
    assert (mul.rate_limit, mul.max_retries) == ("1/s", 7)


@pytest.mark.row("1.app.task: a second registration")
def test_a_second_function_under_a_name_does_not_replace_the_first_and_a_warning_says_so(app: LiteTQ) -> None:
    @app.task(name="same")
    def first() -> int:
        return 1

    with pytest.warns(DuplicateTaskNameWarning, match=r"'same' is already registered.*first.*second") as caught:

        @app.task(name="same")
        def second() -> int:
            return 2

    assert second is first and second() == 1  # type: ignore[comparison-overlap]
    assert caught[0].filename == __file__


def test_a_class_that_takes_the_name_of_another_task_replaces_it_and_a_warning_says_so(app: LiteTQ) -> None:
    class First(Task):  # type: ignore[type-arg]
        name = "same"

        def run(self) -> int:
            return 1

    class Second(First):
        def run(self) -> int:
            return 2

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        app.register_task(First)
        app.register_task(First())
    with pytest.warns(DuplicateTaskNameWarning, match=r"'same'.*Second has replaced .*First") as caught:
        app.register_task(Second())
    assert app.tasks["same"]() == 2 and caught[0].filename == __file__


def test_two_apps_keep_tasks_of_the_same_name_apart(tmp_path: Path, run_waiting: Any) -> None:
    apps = [LiteTQ("x", broker=tmp_path / f"{n}.sqlite", set_as_current=False) for n in range(2)]
    results = []
    for number, app in enumerate(apps):

        @app.task(name="tasks.which")
        def which(number: int = number) -> int:
            return number

        results.append(which.delay())
    for app, result in zip(apps, results, strict=True):
        run_waiting(app)
        assert result.get(timeout=5) == apps.index(app)
        app.close()


@pytest.mark.row("1.register_task")
@pytest.mark.row("2.class-based task")
def test_a_class_based_task_is_one_instance_whose_state_survives_between_calls(app: LiteTQ, run_waiting: Any) -> None:
    class Counter(app.Task):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            self.calls = 0

        def run(self, step: int) -> int:
            self.calls += step
            return self.calls

    counter = app.register_task(Counter)
    assert counter.name == f"{__name__}.Counter" and app.tasks[counter.name] is counter
    results = [counter.delay(1), counter.delay(step=2)]
    run_waiting(app)
    assert [result.get(timeout=5) for result in results] == [1, 3]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'step'"):
        counter.delay()


@pytest.mark.row("1.app.task: name, base, bind")
def test_a_base_class_serves_decorated_functions(app: LiteTQ) -> None:
    class Loud(Task[..., Any]):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return f"{self.run(*args, **kwargs)}!"

    @app.task(base=Loud)
    def hello(name: str) -> str:
        return f"hello {name}"

    assert hello("you") == "hello you!"
    assert hello.apply(("me",)).get() == "hello me!"


@pytest.mark.row("1.constructor: classes for control and tasks")
@pytest.mark.row("1.create_task_cls, task_cls, app.Task")
def test_a_task_class_for_the_whole_app_may_be_named(db: Path) -> None:
    app = LiteTQ("x", broker=db, task_cls="litetq.task:Task")

    @app.task
    def add() -> None: ...

    assert isinstance(add, Task)


def test_looking_up_and_registering_tasks_fails_clearly(app: LiteTQ) -> None:
    with pytest.raises(NotRegistered, match=r"no\.such"):
        app.tasks["no.such"]
    with pytest.raises(NotRegistered):
        app.tasks.unregister("no.such")
    with pytest.raises(InvalidTaskError, match=r"must specify \.name"):
        app.tasks.register(Task())
    with pytest.raises(TypeError, match="must be a callable, found 'add'"):
        app.task("add")  # type: ignore[call-overload]


@pytest.mark.row("1.finalize, autofinalize=False")
@pytest.mark.row("1.on_after_finalize")
def test_without_autofinalize_tasks_may_not_be_used_before_finalize(db: Path) -> None:
    app = LiteTQ("x", broker=db, autofinalize=False)
    finalized: list[Any] = []

    @app.on_after_finalize.connect
    def note(sender: Any, **_: Any) -> None:
        finalized.append(sender)

    with pytest.raises(RuntimeError, match="app not finalized"):
        _ = app.tasks
    app.finalize()
    app.finalize()
    assert finalized == [app] and "celery.map" in app.tasks


def test_a_task_pickles_to_itself(app: LiteTQ) -> None:
    @app.task(name="pickled")
    def add() -> None: ...

    assert pickle.loads(pickle.dumps(add)) is add


def test_a_shared_task_belongs_to_each_app_and_means_the_current_one(tmp_path: Path) -> None:
    @shared_task(name="shared.twice")
    def twice(x: int) -> int:
        return 2 * x

    assert twice(4) == 8  # without any app
    one = LiteTQ("one", broker=tmp_path / "one")
    assert twice.app is one and one.tasks["shared.twice"] == twice
    two = LiteTQ("two", broker=tmp_path / "two")
    assert twice.app is two and two.tasks["shared.twice"] is not one.tasks["shared.twice"]
    with pytest.raises(TypeError, match="more than once"):
        shared_task(twice)
    assert isinstance(twice, Task) and isinstance(current_app, LiteTQ) and not isinstance(twice, LiteTQ)
    one.set_current()
    result = twice.delay(1)
    assert one.AsyncResult(result.id).exists()
    one.close()
    two.close()


@pytest.mark.row("1.current_task")
@pytest.mark.row("2.request: is_eager, called_directly")
def test_current_app_and_current_task_are_names_for_what_runs_here(app: LiteTQ) -> None:
    @app.task(bind=True)
    def look(self: Any) -> list[Any]:
        return [current_task.name == self.name, current_app.main, self.request.called_directly]

    assert not current_task and current_app == app
    assert look() == [True, "tests", True]
    assert not look.apply().get()[2]


@pytest.mark.row("2.methods: push_request, pop_request")
def test_the_request_outside_of_an_attempt_has_defaults(app: LiteTQ) -> None:
    @app.task
    def add() -> None: ...

    assert add.request.id is None and add.request.called_directly and add.request.retries == 0
    add.push_request(id="made-up")
    assert add.request.id == "made-up"
    add.pop_request()
    assert add.request.id is None
    assert add.get_logger().parent is get_task_logger("some.module").parent


def test_a_reserved_logger_name_is_refused() -> None:
    with pytest.raises(RuntimeError, match="reserved"):
        get_task_logger("celery.task")


# -- the argument check --------------------------------------------------------------------------------------------


def every_kind(a: int, b: int = 1, /, c: int = 2, *rest: int, d: int, e: int = 3, **more: int) -> None: ...
def places_only(a: int, /) -> None: ...
def keywords_only(*, a: int) -> None: ...
def plain(a: int, b: int = 2) -> None: ...


@pytest.mark.row("2.typing")
@pytest.mark.parametrize("function", [every_kind, places_only, keywords_only, plain])
@pytest.mark.parametrize(
    "call", [((), {}), ((1,), {}), ((1, 2, 3, 4), {"d": 1, "z": 2}), ((1,), {"a": 1}), ((), {"a": 1}), ((1, 2, 3), {})]
)
def test_a_call_that_python_would_refuse_is_refused_in_pythons_own_words(
    app: LiteTQ, function: Any, call: tuple[tuple[int, ...], dict[str, int]]
) -> None:
    task = app.task(function)
    try:
        function(*call[0], **call[1])
        expected = None
    except TypeError as error:
        expected = str(error)
    if expected is None:
        task.apply_async(*call)
    else:
        with pytest.raises(TypeError) as caught:
            task.apply_async(*call)
        assert str(caught.value) == expected


@pytest.mark.row("2.typing")
def test_nothing_is_enqueued_by_a_refused_call_and_typing_off_lets_it_through(app: LiteTQ) -> None:
    @app.task
    def strict(x: int) -> None: ...

    @app.task(typing=False)
    def loose(x: int) -> None: ...

    with pytest.raises(TypeError):
        strict.delay()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'countdown'"):
        strict.delay(1, countdown=3)  # type: ignore[call-arg]
    with pytest.raises(EncodeError, match="set"):
        strict.delay({1})  # type: ignore[arg-type]
    assert app.control.purge() == 0
    loose.delay()  # type: ignore[call-arg]
    assert app.control.purge() == 1


# -- eager ---------------------------------------------------------------------------------------------------------


@pytest.mark.row("3.apply")
@pytest.mark.row("6.EagerResult")
@pytest.mark.row("20.task_eager_propagates")
def test_apply_runs_here_and_gives_a_result_that_is_ready(app: LiteTQ) -> None:
    @app.task
    def divide(x: int, y: int) -> float:
        return x / y

    good, bad = divide.apply((6, 3)), divide.apply(args=[1], kwargs={"y": 0})
    assert good.ready() and good.get() == 2 and good.state == "SUCCESS" and good.name == divide.name
    assert bad.failed() and isinstance(bad.result, ZeroDivisionError) and "ZeroDivisionError" in (bad.traceback or "")
    with pytest.raises(ZeroDivisionError):
        bad.get()
    assert isinstance(bad.get(propagate=False), ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        divide.apply((1, 0), throw=True)
    app.conf.task_eager_propagates = True
    with pytest.raises(ZeroDivisionError):
        divide.apply((1, 0))


@pytest.mark.row("2.request: is_eager, called_directly")
@pytest.mark.row("3.task_always_eager")
@pytest.mark.row("20.task_always_eager")
def test_always_eager_runs_at_the_call_with_arguments_as_the_serializer_gives_them(app: LiteTQ, db: Path) -> None:
    app.conf.task_always_eager = True

    @app.task(bind=True)
    def show(self: Any, x: Any) -> Any:
        return x, self.request.is_eager

    assert show.delay((1, datetime(2026, 1, 2))).get() == ([1, datetime(2026, 1, 2)], True)
    with pytest.raises(EncodeError):
        show.delay({1})
    assert not db.exists()
    with pytest.warns(AlwaysEagerIgnored):
        app.send_task("elsewhere")


def test_waiting_within_an_eager_task_is_refused_as_in_a_worker(app: LiteTQ) -> None:
    app.conf.task_always_eager = True

    @app.task
    def inner() -> int:
        return 1

    @app.task
    def outer() -> int:
        return inner.delay().get()

    with pytest.raises(RuntimeError, match="Never call"):
        outer.delay().get()


@pytest.mark.row("3.apply")
def test_eager_retries_follow_each_other_without_waiting(app: LiteTQ) -> None:
    tries: list[tuple[int, int]] = []

    @app.task(bind=True, max_retries=2)
    def stubborn(self: Any, x: int) -> int:
        tries.append((self.request.retries, x))
        if x < 3:
            raise self.retry(args=(x + 1,), countdown=3600)
        return x

    assert stubborn.apply((1,)).get() == 3
    assert tries == [(0, 1), (1, 2), (2, 3)]


# -- retry ---------------------------------------------------------------------------------------------------------


@pytest.mark.row("4.called directly")
def test_retry_called_directly_raises_the_cause(app: LiteTQ) -> None:
    @app.task(bind=True)
    def fail(self: Any, exc: Any) -> None:
        raise self.retry(exc=exc)

    with pytest.raises(KeyError, match="mine"):
        fail(KeyError("mine"))
    with pytest.raises(Retry, match="Task can be retried"):
        fail(None)


@pytest.mark.row("4.exhaustion")
def test_retries_run_out_with_the_cause_or_with_celerys_sentence(app: LiteTQ) -> None:
    @app.task(bind=True, max_retries=1)
    def with_cause(self: Any, x: int) -> None:
        raise self.retry(exc=KeyError(self.request.retries))

    @app.task(bind=True, max_retries=1)
    def without(self: Any, x: int, y: int = 0) -> None:
        raise self.retry()

    assert repr(with_cause.apply((1,)).result) == "KeyError(1)"
    result = without.apply((1,), {"y": 2})
    assert isinstance(result.result, MaxRetriesExceededError)
    assert str(result.result) == f"Can't retry {without.name}[{result.id}] args:(1,) kwargs:{{'y': 2}}"


@pytest.mark.row("4.self.retry: same id, one more retry, same queue and priority")
@pytest.mark.row("4.state")
def test_a_retry_is_put_into_the_file_with_its_delay_and_only_what_was_given_anew_changes(
    app: LiteTQ, run_waiting: Any
) -> None:
    @app.task(bind=True)
    def later(self: Any, x: int, y: int = 0) -> Any:
        if self.request.retries == 0:
            raise self.retry(args=(x + 1,), countdown=60, priority=7, headers={"seen": 1}, exc=ValueError("again"))
        return [x, y, self.request.retries, self.request.delivery_info["priority"], self.request.headers]

    result = later.apply_async((1,), {"y": 5}, queue="slow", priority=3)
    assert run_waiting(app) == [result.id]
    assert result.state == "RETRY" and repr(result.result) == "ValueError('again')" and not result.ready()
    with clock.moved(by=61):
        assert run_waiting(app) == [result.id]
    assert result.get(timeout=5) == [2, 5, 1, 7, {"seen": 1}]
    assert (result.retries, result.queue) == (1, "slow")


@pytest.mark.row("4.throw=False")
def test_a_retry_without_new_arguments_keeps_the_message_as_it_is(app: LiteTQ) -> None:
    caught: list[Retry] = []

    @app.task(bind=True, default_retry_delay=10)
    def again(self: Any) -> str:
        if self.request.retries:
            return "done"
        call = self.retry(throw=False)
        caught.append(call)
        return "never seen"

    with clock.moved(by=0):
        assert again.apply().get() == "done"
    assert caught[0].replacement is None and str(caught[0]) == "Retry in 10s"
    assert caught[0].due_at is not None and abs(caught[0].due_at - clock.now() - 10) < 5


@pytest.mark.row("4.new arguments")
def test_a_parameter_given_anew_replaces_the_old_value_whichever_way_that_came(app: LiteTQ) -> None:
    seen: list[tuple[Any, ...]] = []

    @app.task(bind=True)
    def mixed(self: Any, a: int, b: int = 0, **options: Any) -> None:
        seen.append((a, b, options))
        if self.request.retries == 0:
            raise self.retry(kwargs={"a": 10, "c": 3})
        if self.request.retries == 1:
            raise self.retry(args=(20, 21))

    mixed.apply((1,), {"b": 2})
    assert seen == [(1, 2, {}), (10, 0, {"c": 3}), (20, 21, {"c": 3})]


@pytest.mark.row("4.autoretry")
@pytest.mark.row("4.backoff formula")
def test_autoretry_covers_the_named_errors_with_exact_backoff(app: LiteTQ) -> None:
    delays: list[Any] = []

    class Noting(Task[..., Any]):
        def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            delays.append(self.request.retries)

    @app.task(
        bind=True, base=Noting, autoretry_for=(OSError,), dont_autoretry_for=(FileNotFoundError,), retry_backoff=True,
        retry_jitter=False, retry_kwargs={"max_retries": 3},
    )  # fmt: skip
    def flaky(self: Any, kind: str) -> None:
        raise {"os": OSError, "missing": FileNotFoundError, "other": ValueError}[kind]()

    assert isinstance(flaky.apply(("os",)).result, OSError) and delays == [0, 1, 2]
    assert isinstance(flaky.apply(("missing",)).result, FileNotFoundError) and len(delays) == 3
    assert isinstance(flaky.apply(("other",)).result, ValueError) and len(delays) == 3
    for retries, delay in enumerate((1, 2, 4, 8)):
        flaky.push_request(called_directly=False, retries=retries, id="x")
        flaky.max_retries = None
        flaky.retry_kwargs = {}
        with pytest.raises(Retry) as caught:
            flaky.retry_automatically(OSError())
        flaky.pop_request()
        assert caught.value.when == delay


@pytest.mark.row("2.methods: update_state")
@pytest.mark.row("7.custom states")
def test_update_state_shows_a_state_of_its_own_and_its_meta(app: LiteTQ, run_waiting: Any) -> None:
    seen: list[tuple[Any, ...]] = []

    @app.task(bind=True)
    def work(self: Any) -> str:
        own = app.AsyncResult(self.request.id)
        self.update_state(state="PROGRESS", meta={"progress": 50})
        seen.append((own.state, own.info, own.ready()))
        self.update(state="PROGRESS", meta={"progress": 90})
        seen.append((own.state, own.info, own.ready()))
        return "done"

    result = work.delay()
    run_waiting(app)
    assert seen == [("PROGRESS", {"progress": 50}, False), ("PROGRESS", {"progress": 90}, False)]
    assert result.get(timeout=5) == "done"


@pytest.mark.row("3.countdown, eta")
def test_times_of_a_call_are_read_as_celery_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from litetq.calling import due_time, expiry_time

    if hasattr(time, "tzset"):  # far from UTC, so that a naive time taken as local would show
        monkeypatch.setenv("TZ", "Asia/Shanghai")
        time.tzset()
    at = datetime(2030, 1, 2, 3, 4, 5)
    assert due_time(None, at) == at.replace(tzinfo=timezone.utc).timestamp()  # naive is UTC, wherever this runs
    assert due_time(None, at.replace(tzinfo=timezone(timedelta(hours=8)))) == due_time(None, at - timedelta(hours=8))  # type: ignore[operator]
    assert due_time(-5, None) is None and due_time(None, None) is None
    with clock.moved(by=0):
        assert abs((due_time(10, at) or 0) - clock.now() - 10) < 1  # countdown wins
        assert (expiry_time(-1) or 0) < clock.now()
    assert expiry_time(at) == due_time(None, at) and expiry_time(None) is None
    if hasattr(time, "tzset"):
        monkeypatch.undo()
        time.tzset()


@pytest.mark.row("1.gen_task_name")
def test_modules_made_by_hand_keep_their_task_names(app: LiteTQ) -> None:
    module = types.ModuleType("made.by.hand")
    exec("def job(): return 1", module.__dict__)
    assert app.task(module.job).name == "made.by.hand.job"


def test_a_limit_that_retry_was_given_holds_for_the_automatic_retry_of_what_it_then_raises(app: LiteTQ) -> None:
    tries: list[int] = []

    @app.task(bind=True, max_retries=10, autoretry_for=(KeyError,))
    def gives_up(self: Any) -> None:
        tries.append(self.request.retries)
        raise self.retry(exc=KeyError("enough"), max_retries=0 if len(tries) == 3 else None)

    result = gives_up.apply()
    assert (tries, result.state) == ([0, 1, 2], "FAILURE") and isinstance(result.result, KeyError)


def test_a_call_made_from_the_running_one_goes_where_that_came_from(app: LiteTQ, run_waiting: Any) -> None:
    @app.task(bind=True, name="again", ignore_result=True)
    def again(self: Any) -> None:
        if self.request.queue_of_next is not None:
            self.signature_from_request(headers={"queue_of_next": None}).apply_async(task_id="next")

    again.apply_async(queue="slow", priority=7, headers={"queue_of_next": "slow"})
    ran: list[str] = run_waiting(app)
    assert "next" in ran
    record = app.engine.read("next")
    assert record is not None and record.queue == "slow"


def test_the_request_of_an_eager_call_names_this_machine(app: LiteTQ) -> None:
    @app.task(bind=True)
    def where(self: Any) -> Any:
        return self.request.hostname

    assert where.apply().get() == socket.gethostname()


def test_the_request_shows_the_limits_that_hold_also_those_of_the_settings(app: LiteTQ, run_waiting: Any) -> None:
    app.conf.task_time_limit, app.conf.task_soft_time_limit = 60, 50

    @app.task(bind=True, time_limit=30)
    def shows(self: Any) -> Any:
        return [self.request.timelimit, self.request.time_limit, self.request.soft_time_limit]

    sent = [shows.delay(), shows.apply_async(soft_time_limit=20)]
    run_waiting(app)
    assert [result.get(timeout=5) for result in sent] == [[[30, 50], 30, 50], [[30, 20], 30, 20]]
    assert shows.apply().get() == [[30, 50], 30, 50]


def test_what_a_test_replaces_on_a_shared_task_is_put_back(app: LiteTQ) -> None:
    @shared_task(max_retries=5)
    def shared() -> int:
        return 1

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shared, "max_retries", 0)
        patched.setattr(shared, "run", lambda: 2)
        assert (shared(), shared.max_retries) == (2, 0)
    assert (shared(), shared.max_retries) == (1, 5)


def test_what_is_being_handled_makes_an_einfo(app: LiteTQ) -> None:
    try:
        int("x")
    except ValueError as error:
        for einfo in (ExceptionInfo(), ExceptionInfo(sys.exc_info()), ExceptionInfo(error, internal=True)):
            assert einfo.exception is error and einfo.type is ValueError and "invalid literal" in str(einfo)
