"""What tests of programs use: a file of their own, tasks that are looked for and run, a time that can be moved, a worker.

    with temporary_file(app):                       # tasks and results are in a new file
        sign_up("ann@example.com")
        assert_enqueued(send_mail, args=["ann@example.com"])
        drain()                                     # runs it here, in this thread

Nothing here depends on a test framework. For pytest there are fixtures: those of `pytest_litetq` are there by themselves, and
Celery's are in `litetq.contrib.pytest`. Celery's names for some of this are those of `celery.contrib.testing`.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import socket
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from litetq import app as apps
from litetq import calling, clock, context, serialization, signals, states
from litetq.app import LiteTQ
from litetq.browse import Browse, Filter, Found
from litetq.engine import Seat
from litetq.exceptions import ImproperlyConfigured, LiteTQError, SerializationError
from litetq.execution import Trace, tracer_for
from litetq.lanes import OwnPace
from litetq.message import Delivery, Disposition, Outcome
from litetq.parts import Logging
from litetq.result import AsyncResult, allow_join_result
from litetq.signals import Signal
from litetq.wake import ALL, WORK

if TYPE_CHECKING:
    from litetq.worker import Worker

__all__ = [
    "Enqueued", "Time", "assert_enqueued", "assert_not_enqueued", "drain", "enqueued", "run_beat", "start_worker", "temporary_app",
    "temporary_file", "travel",
]  # fmt: skip

LIMIT: Final = 10_000  # attempts of one drain; arbitrary: more than a test means to run
SHOWN: Final = 10  # tasks that the text of a failed assertion lists; arbitrary
PAUSE_S: Final = 0.01  # between two looks of an assertion that waits
_FILE: Final = "jobs.sqlite"
_BY: Final = "a test"  # who decides where tasks are, as reports name it


# -- a file of its own


@contextmanager
def temporary_file(app: LiteTQ) -> Iterator[Path]:
    """Within the block, tasks and results of an app are in a new file, whatever is set; afterwards it is removed.

    Gives the path of the file. Workers of this app must have ended before the block does.
    """
    folder = tempfile.mkdtemp(prefix="litetq-test-")
    try:
        path = Path(folder) / _FILE
        with app.broker_overridden(path, _BY):
            yield path
    finally:
        shutil.rmtree(folder, ignore_errors=True)


DEFAULT_TEST_CONFIG: Final[Mapping[str, Any]] = {
    "worker_hijack_root_logger": False,
    "worker_log_color": False,
    "accept_content": ["json"],
    "enable_utc": True,
    "timezone": "UTC",
}


class UnitLogging(Logging):
    """Logging of an app in a test: what is set up stays as it is."""

    already_setup = True


def temporary_app(
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    enable_logging: bool = False,
    set_as_current: bool = False,
    log: Any = None,
    backend: Any = None,
    broker: Any = None,
    **kwargs: Any,
) -> LiteTQ:
    """Return a new app on a file of its own, which goes with the app, unless `broker` or the config names a place.

    Places that are in the memory of a process in Celery (`memory://`, `cache+memory://`) mean such a file. Celery's TestApp.

    Args:
        config: settings; what is not in them is as `DEFAULT_TEST_CONFIG` says, or else the default.
        enable_logging: a worker that `start_worker` starts sets up logging.
        kwargs: what the app takes.
    """
    settings = {**DEFAULT_TEST_CONFIG, **(config or {})}
    folder = None
    asked_for = broker or settings.get("broker_url")
    if asked_for is None or str(asked_for).startswith("memory:"):
        folder = tempfile.mkdtemp(prefix="litetq-test-")
        broker = Path(folder) / _FILE
    if broker is not None:
        settings.pop("broker_url", None)
    for given in (backend, settings.get("result_backend")):
        if given is not None and str(given).startswith(("cache", "memory")):
            backend = None
            settings.pop("result_backend", None)
    app = LiteTQ(name or "celery.tests", set_as_current=set_as_current, broker=broker, backend=backend, **kwargs)
    app.add_defaults(settings)
    if enable_logging:
        _logging_apps.add(app)
    if folder is not None:
        weakref.finalize(app, shutil.rmtree, folder, ignore_errors=True)
    return app


_logging_apps: Final[weakref.WeakSet[LiteTQ]] = weakref.WeakSet()  # whose workers set up logging


class Trap:
    """Stands where the current app is; every use of it is an error."""

    def __getattr__(self, name: str) -> Any:
        if name in ("_is_coroutine", "__func__", "__wrapped__"):
            raise AttributeError(name)  # asked by unittest.mock, doctest and inspect of whatever they meet
        raise RuntimeError("Test depends on current_app")


@contextmanager
def trapped_current_app() -> Iterator[None]:
    """Within the block, every use of the current app is an error: code that was not given its app shows."""
    with _current_app_restored():
        context.set_default_app(cast(LiteTQ, Trap()))
        context.set_current_app(None)
        yield


@contextmanager
def visiting_app(app: LiteTQ, use_trap: bool = False) -> Iterator[None]:
    """After the block, the current app and the default one are again what they were before it, and the app is closed.

    Celery's setup_default_app. Shared tasks of modules that are imported meanwhile stay: these are imported once.
    """
    try:
        with _current_app_restored():
            if use_trap:
                with trapped_current_app():
                    yield
            else:
                yield
    finally:
        app.close()


@contextmanager
def _current_app_restored() -> Iterator[None]:
    default, current = context._default_app, context._current_app.get()
    try:
        yield
    finally:
        context.set_default_app(default)
        context.set_current_app(current)


# -- what is enqueued


class Enqueued(NamedTuple):
    """A task that waits."""

    id: str
    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str
    state: str  # QUEUED; SCHEDULED: until its time comes; BLOCKED: until what it waits for has ended
    eta: datetime | None  # UTC
    retries: int

    def __str__(self) -> str:
        return f"{_call(self.name, self.args, self.kwargs)} in queue {self.queue}{_when(self.eta)}"


def enqueued(
    task: Any = None, *, args: Any = None, kwargs: Any = None, queue: str | None = None, app: LiteTQ | None = None
) -> list[Enqueued]:
    """Return the tasks that wait, in the order in which they were sent, 10,000 at most; those of a workflow too, whose turn has
    not come.

    Args:
        task: a task, or the name of one; None: of all.
        args, kwargs: only calls with exactly these arguments, as they were given to the call; None: with any.
        queue: only those in this queue.
        app: by default that of the task, or else the current one.
    """
    return [each for each in _waiting(_app_of(task, app)) if _is_meant(each, task, args, kwargs, queue)]


def assert_enqueued(
    task: Any = None,
    *,
    args: Any = None,
    kwargs: Any = None,
    queue: str | None = None,
    within: float | timedelta = 0.0,
    app: LiteTQ | None = None,
) -> Enqueued:
    """Return the task that waits and is as described, the last one if there are several; AssertionError when there is none.

    Args:
        within: seconds to wait for it, where something else than this thread sends it.
        others: as `enqueued` takes them.
    """
    __tracebackhide__ = True  # pytest then shows the line of the test
    app = _app_of(task, app)
    deadline = clock.monotonic() + calling.seconds(within, "within")
    while True:
        is_late = clock.monotonic() >= deadline
        found = enqueued(task, args=args, kwargs=kwargs, queue=queue, app=app)
        if found:
            return found[-1]
        if is_late:
            raise AssertionError(_not_found(app, task, args, kwargs, queue))
        time.sleep(PAUSE_S)


def assert_not_enqueued(
    task: Any = None, *, args: Any = None, kwargs: Any = None, queue: str | None = None, app: LiteTQ | None = None
) -> None:
    """Raise AssertionError when a task waits that is as described; takes what `enqueued` takes."""
    __tracebackhide__ = True
    found = enqueued(task, args=args, kwargs=kwargs, queue=queue, app=app)
    if found:
        raise AssertionError(f"{_described(task, args, kwargs, queue)} is not to be enqueued, and is:{_listed(found)}")


def _app_of(task: Any, app: LiteTQ | None) -> LiteTQ:
    found = app or (getattr(task, "app", None) if task is not None and not isinstance(task, str) else None)
    found = found or context.get_current_app()
    if found is None:
        raise ImproperlyConfigured("there is no current app: import the module of yours, or give app=...")
    return cast(LiteTQ, found)


def _refuse_server(app: LiteTQ) -> None:
    """Raise ImproperlyConfigured where tasks are sent to a server, which others read, too."""
    address = app.broker_address
    if address.scheme not in ("file", "memory"):
        raise ImproperlyConfigured(
            f"the tasks of {app!r} go to {address.scheme}://, and only a file can be looked into and drained: put the app on one, "
            "within  with temporary_file(app):  or by the fixture litetq_app"
        )


def _waiting(app: LiteTQ) -> list[Enqueued]:
    _refuse_server(app)
    browse = Browse(app.engine.database)
    return [_enqueued(app, each) for each in browse.sent_after(Filter(("WAITING",)), 0)]


def _enqueued(app: LiteTQ, found: Found) -> Enqueued:
    body = found.body or b""
    if found.body_bytes > len(body):
        record = app.engine.read(found.id)
        body = (record.body if record is not None else None) or body
    try:
        args, kwargs = serialization.loads_args(body, found.body_type, app.accepted_content)
    except LiteTQError as error:  # these bytes are not for everybody
        args, kwargs = [f"<{error}>"], {}
    eta = None if found.due_at is None else datetime.fromtimestamp(found.due_at, timezone.utc)
    return Enqueued(found.id, found.name or "", args, kwargs, found.queue or "", found.place, eta, found.retries)


def _is_meant(found: Enqueued, task: Any, args: Any, kwargs: Any, queue: str | None) -> bool:
    return (
        (task is None or found.name == _name(task))
        and (queue is None or found.queue == queue)
        and (args is None or _is_alike(found.args, list(args)))
        and (kwargs is None or _is_alike(found.kwargs, dict(kwargs)))
    )


def _name(task: Any) -> str:
    return task if isinstance(task, str) else str(task.name)


def _is_alike(found: Any, wanted: Any) -> bool:
    """Return whether this is what became of the wanted value on its way: JSON has lists for tuples, and text for keys."""
    if isinstance(found, list) and isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(map(_is_alike, found, wanted))
    if isinstance(found, dict) and isinstance(wanted, Mapping) and len(found) == len(wanted):
        keys = {key if key in found else str(key): value for key, value in wanted.items()}
        return found.keys() == keys.keys() and all(_is_alike(found[key], value) for key, value in keys.items())
    # This way round, so that a wanted value like `mock.ANY` or `pytest.approx` is asked.
    return bool(wanted == found) or (type(wanted) is not type(found) and _as_sent(wanted) == found)


def _as_sent(value: Any) -> Any:
    try:
        return serialization.decode(serialization.encode(value)[1], None)
    except SerializationError:
        return value


def _not_found(app: LiteTQ, task: Any, args: Any, kwargs: Any, queue: str | None) -> str:
    begin = f"{_described(task, args, kwargs, queue)} is to be enqueued, and is not."
    if app.conf.task_always_eager:
        return f"{begin} The setting task_always_eager is on: calls run at once, and nothing is enqueued."
    waiting = _waiting(app)
    ended = (
        [] if task is None else Browse(app.engine.database).tasks(Filter(("FINISHED", "RUNNING"), (_name(task),)), 3)
    )
    ends = ", ".join(f"{each.id} ({each.label})" for each in ended)
    taken = f"\nNo longer waiting, but sent: {ends}." if ended else ""
    if not waiting:
        return f"{begin} Nothing waits in {app.engine.path}.{taken}"
    return f"{begin} What waits:{_listed(waiting)}{taken}"


def _described(task: Any, args: Any, kwargs: Any, queue: str | None) -> str:
    name = "a task" if task is None else _name(task)
    given = (
        "" if args is None and kwargs is None else _call("", args or (), kwargs or {}, "..." if kwargs is None else "")
    )
    return f"{name}{given}{'' if queue is None else f' in queue {queue}'}"


def _call(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], more: str = "") -> str:
    parts = [*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items()), *([more] if more else ())]
    return f"{name}({', '.join(parts)})"


def _when(eta: datetime | None) -> str:
    return "" if eta is None else f", due {eta.isoformat(sep=' ', timespec='seconds')}"


def _listed(found: Sequence[Enqueued]) -> str:
    more = f"\n  and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "".join(f"\n  {each}" for each in found[:SHOWN]) + more


# -- running it


def drain(
    app: LiteTQ | None = None,
    *,
    ahead: float | timedelta = 0.0,
    beat: bool = False,
    retries: bool = True,
    queues: Sequence[str] | None = None,
    throw: bool = False,
    limit: int = LIMIT,
) -> list[AsyncResult[Any]]:
    """Run here, in this thread, all that may start now, and all that this sets going; return the attempts in their order.

    It is what a worker does: the same claims, the same attempts and ends, all of it in the file. Only hard time limits are
    not kept, rate limits do not delay, and what a retry asks for is not waited for.

    Args:
        app: by default the current one.
        ahead: seconds, or a timedelta: run also what comes due so soon, each when the time has come, for the time is moved
            there and back; `math.inf`: all that has an eta.
        beat: send periodic tasks too, all that come due within `ahead`.
        retries: False lets retries wait until they are due.
        queues: names of queues; None: all.
        throw: raise what a task raised, once its end is in the file; the rest waits for the next drain.
        limit: attempts after which RuntimeError is raised: tasks that send themselves would never come to an end.

    What is no error but meant for whoever called (KeyboardInterrupt, `pytest.fail()`) is raised in any case.
    """
    app = _app_of(None, app)
    context.refuse_while_importing("tasks are run")
    span = calling.seconds(ahead, "ahead")
    if beat and span == math.inf:
        raise ImproperlyConfigured("drain(beat=True): periodic tasks have no end; give ahead=, in seconds")
    _refuse_server(app)
    app.check()
    app.finalize()
    if queues is not None:
        queues = [calling.queue_name(queue) for queue in queues]
    seat = app.engine.seat(
        f"drain@{socket.gethostname()}",
        queues=None if queues is None else frozenset(queues),
        info={"pool": "drain", "concurrency": 1, "control": False, "events": False},
        pace=OwnPace(limited=False),
    )
    try:
        seat.set_late(frozenset(name for name, task in app.tasks.items() if task.acks_late))
        with _listening() as thrown:
            hand = _Hand(app, seat, thrown, retries, throw, limit)
            hand.run(span, beat)
            return hand.ran
    finally:
        seat.leave()


class _Hand:
    """One that claims, runs and settles, one task after the other, in the thread that calls it."""

    def __init__(
        self, app: LiteTQ, seat: Seat, thrown: list[BaseException], retries: bool, throw: bool, limit: int
    ) -> None:
        self.app = app
        self.seat = seat
        self.ran: list[AsyncResult[Any]] = []
        self._thrown = thrown
        self._retries_at_once = retries
        self._throw = throw
        self._limit = limit
        self._tracers: dict[str, Trace] = {}

    def run(self, span: float, beat: bool) -> None:
        """Run what may start, then what comes due within so many seconds, moving the time from one to the next."""
        if beat:
            run_beat(self.app)  # entries that are new are due from now on: the span begins when they are known
        end = clock.now() + span
        self._run_what_is_due(beat)
        while (due := self._next_due(beat)) is not None and due <= end:
            with clock.moved(to=max(due, clock.now())):
                self._run_what_is_due(beat)

    def _run_what_is_due(self, beat: bool) -> None:
        if beat:
            run_beat(self.app)
        self.app.engine.store.expire(clock.now())
        outcomes: list[Outcome] = []
        while True:
            taken = self.seat.take(1, outcomes)
            for outcome in outcomes:
                self._raise_what_was_thrown(outcome)
            if not taken.deliveries:
                return
            outcomes = [self._attempt(delivery) for delivery in taken.deliveries]

    def _attempt(self, delivery: Delivery) -> Outcome:
        if len(self.ran) >= self._limit:
            raise RuntimeError(
                f"drain has run {self._limit} attempts, and {delivery.name} waits: where tasks send themselves there is no end; "
                "give limit= if it is meant"
            )
        if delivery.name not in self._tracers:
            self._tracers[delivery.name] = tracer_for(self.app, delivery.name, self.seat.name)
        self.seat.executor.begin(delivery.claim)
        outcome = self._tracers[delivery.name](delivery)
        self.ran.append(AsyncResult(delivery.id, task_name=delivery.name, app=self.app))
        if outcome.disposition == Disposition.RETRY and self._retries_at_once:
            return outcome._replace(due_at=clock.now())
        return outcome

    def _raise_what_was_thrown(self, outcome: Outcome) -> None:
        """Raise what a settled attempt left by, if it is wanted, or is not the task's doing."""
        error = self._thrown.pop() if self._thrown else None
        self._thrown.clear()
        if error is not None and (self._throw or not isinstance(error, Exception)):
            raise error
        if error is None and self._throw and outcome.state == states.FAILURE and outcome.result is not None:
            # It did not begin: an unknown task, or bytes that are none.
            accept = frozenset({outcome.content_type or serialization.JSON})
            raise serialization.decode_exception(outcome.result, outcome.content_type, accept)

    def _next_due(self, beat: bool) -> float | None:
        _, due = self.seat.probe()
        if not beat:
            return due
        app = self.app
        following = app.engine.timetable.look(clock.now(), app.identity).next_at
        return min((each for each in (due, following) if each is not None), default=None)


@contextmanager
def _listening() -> Iterator[list[BaseException]]:
    """Give a list of what tasks raise in this thread within the block."""
    thrown: list[BaseException] = []
    here = threading.get_ident()

    def failed(exception: BaseException, **_: Any) -> None:
        if threading.get_ident() == here:
            cause = exception.__cause__
            is_meant_for_us = cause is not None and not isinstance(cause, Exception | SystemExit)
            thrown.append(cast(BaseException, cause) if is_meant_for_us else exception)

    heard = (signals.task_failure, signals.task_internal_error)
    for signal in heard:
        signal.connect(failed, weak=False)
    try:
        yield thrown
    finally:
        for signal in heard:
            signal.disconnect(failed)


def run_beat(app: LiteTQ | None = None) -> list[AsyncResult[Any]]:
    """Do what a beat does now: send the periodic tasks that are due; return them.

    The first call is the start of a beat: the entries of the configuration are known from then on, and are due later.
    """
    app = _app_of(None, app)
    sent: list[AsyncResult[Any]] = []
    here = threading.get_ident()

    def note(sender: Any, headers: Mapping[str, Any], **_: Any) -> None:
        if threading.get_ident() == here:
            sent.append(AsyncResult(headers["id"], task_name=str(sender), app=app))

    service = app.Beat()
    service.prepare()
    signals.after_task_publish.connect(note, weak=False)
    try:
        while service.scheduler.tick() <= 0:
            pass
    finally:
        signals.after_task_publish.disconnect(note)
        service.scheduler.close()
    return sent


# -- the time


class Time:
    """What time it is for litetq in this process, to be moved."""

    def __init__(self, before: Callable[[], float], frozen: bool) -> None:
        self._before = before
        self._ahead = 0.0
        self._frozen_at = before() if frozen else None

    def seconds(self) -> float:
        """Return the present time, as UTC seconds."""
        return self._before() + self._ahead if self._frozen_at is None else self._frozen_at

    def now(self) -> datetime:
        """Return the present time, in UTC."""
        return datetime.fromtimestamp(self.seconds(), timezone.utc)

    def forward(self, seconds: float = 0.0, **units: float) -> datetime:
        """Go on by so many seconds, or by what `timedelta` takes (`minutes=5`, `days=1`); return what time it is then."""
        return self.to(self.seconds() + seconds + timedelta(**units).total_seconds())

    def to(self, point: datetime | str | float) -> datetime:
        """Go to a point in time: a datetime or its ISO text, in UTC where it has no zone, or UTC seconds."""
        at = float(point) if isinstance(point, int | float) else calling.point_in_time(point, "point")
        if self._frozen_at is None:
            self._ahead = at - self._before()
        else:
            self._frozen_at = at
        _wake_workers()
        return self.now()


@contextmanager
def travel(to: datetime | str | float | None = None, *, frozen: bool = False) -> Iterator[Time]:
    """Within the block, litetq's time can be moved: what is due, what has expired, when a periodic task runs.

    It is moved in this process, its workers of threads included; other processes keep the true time. Spans are not
    stretched: a `timeout` of a second takes a second. `time.time()` and `datetime.now()` are what they are.

    Args:
        to: begin there; None: now.
        frozen: the time stands still, unless it is moved.
    """
    time = Time(clock.now, frozen)
    before = clock.now
    clock.set_source(time.seconds)
    try:
        if to is not None:
            time.to(to)
        yield time
    finally:
        clock.set_source(before)
        _wake_workers()


def _wake_workers() -> None:
    """Let the workers of this process look what is due: they may have gone to sleep until a time that is now past."""
    for app in list(apps._apps):
        if app._engine is not None:
            app._engine.bell.ring(WORK, ALL)


# -- a worker

test_worker_starting = Signal(name="test_worker_starting")
test_worker_started = Signal(name="test_worker_started", providing_args={"worker", "consumer"})
test_worker_stopped = Signal(name="test_worker_stopped", providing_args={"worker"})

PING: Final = "celery.ping"
_OF_WORKER: Final = ("queues", "hostname", "beat", "autoscale", "options")


def pong() -> str:
    """Answer."""
    return "pong"


@contextmanager
def start_worker(
    app: LiteTQ,
    concurrency: int = 1,
    pool: Any = "solo",
    loglevel: Any = "error",
    logfile: str | None = None,
    perform_ping_check: bool = True,
    ping_task_timeout: float = 10.0,
    shutdown_timeout: float = 10.0,
    **kwargs: Any,
) -> Iterator[Worker]:
    """Run a worker in this process within the block; it takes tasks when the block is entered.

    The app is the current and the default one from then on. What this takes and where it differs from Celery's:

    Args:
        concurrency, pool: tasks at a time, and where they run. Instead of "solo", which cannot keep a hard time limit, it is one
            thread where the setting or a task has one.
        loglevel: of the logger `celery`, within the block.
        logfile: sets up logging as a worker does, into this file.
        perform_ping_check: send a task first and wait for its answer. Child processes are asked nothing: they have
            answered when the worker has started.
        ping_task_timeout: seconds for that.
        shutdown_timeout: seconds for what still runs at the end of the block.
        kwargs: `queues`, `hostname` (default `gen<pid>@<host>`), `beat`, `autoscale`, `options`; what else Celery's workers take means nothing here.

    Raises RuntimeError when the worker has not stopped in time: a task still runs.
    """
    test_worker_starting.send(sender=app)
    worker = None
    logger = logging.getLogger("celery")
    level = logger.level
    try:
        app.finalize()
        app.set_current()
        app.set_default()
        if logfile is not None or app in _logging_apps:
            app.log.setup(loglevel=loglevel, logfile=logfile)
        logger.setLevel(loglevel.upper() if isinstance(loglevel, str) else loglevel)
        options = {name: kwargs[name] for name in _OF_WORKER if kwargs.get(name) is not None}
        options.setdefault("hostname", f"gen{os.getpid()}@{socket.gethostname()}")
        if pool == "solo" and (app.conf.task_time_limit or any(task.time_limit for task in app.tasks.values())):
            pool, concurrency = "threads", 1
        worker = app.Worker(pool=pool, concurrency=concurrency, embedded=True, **options)
        worker.start()
        try:
            if perform_ping_check and worker.statistics().processes in ([], [os.getpid()]):
                _ping(app, worker, ping_task_timeout)
            test_worker_started.send(sender=app, worker=worker, consumer=worker)
            yield worker
        finally:
            _stop(worker, shutdown_timeout)
    finally:
        logger.setLevel(level)
        test_worker_stopped.send(sender=app, worker=worker)


def _ping(app: LiteTQ, worker: Worker, timeout: float) -> None:
    if PING not in app.tasks:
        app.task(name=PING)(pong)
    queue = next(iter(sorted(worker.queues)), None)
    with allow_join_result():
        answer = app.tasks[PING].apply_async(queue=queue).get(timeout=timeout)
    assert answer == "pong", f"the worker answered {answer!r}"


def _stop(worker: Worker, timeout: float) -> None:
    if not worker.stop(timeout):
        running = ", ".join(f"{each.name}[{each.id}]" for each in worker.held())
        raise RuntimeError(
            f"Worker {worker.hostname} has not stopped within {timeout:g} seconds; still running: {running or 'nothing'}. "
            "Give a larger shutdown_timeout if your tasks take longer."
        )
