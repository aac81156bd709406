"""Events: what happens to tasks and workers, as rows that any process can read while it happens.

    worker with -E -> `Recorder` -> rows, an end's in the transaction of its settle -> `Receiver` -> handlers, `State`

A worker without -E has no recorder, and asks nothing but whether it has one. The file keeps the last events only
(`mailbox.py`), so that whoever reads late misses the oldest; what became of a task is on record all the same.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from litetq import __version__, clock, context, execution, serialization, states
from litetq.engine import BACKSTOP_S, DEAF_S, EVENTS
from litetq.exceptions import OperationalError, Reject
from litetq.mailbox import Event, anonymous_node, event
from litetq.message import Delivery, Disposition, Outcome
from litetq.serialization import safe_repr

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.engine import FileEngine

V = TypeVar("V")

logger = logging.getLogger("celery.events")

HEARTBEAT_S: Final = 10.0  # between two worker-heartbeats; the file's own signs of life have the same rhythm
EXPIRE_FACTOR: Final = 2.0  # a worker counts as offline after so many heartbeats that did not come (Celery: 200 %)
HEARTBEATS_KEPT: Final = 4
MISSING: Final = "<not readable here>"


def software() -> dict[str, str]:
    """Return what worker events say of the program."""
    return {"sw_ident": "py-litetq", "sw_ver": __version__, "sw_sys": platform.system()}


def load_average() -> list[float]:
    """Return the load of the machine over 1, 5 and 15 minutes; zeros where it is not known (Windows)."""
    if sys.platform == "win32":
        return [0.0, 0.0, 0.0]
    try:
        return [round(load, 2) for load in os.getloadavg()]
    except OSError:
        return [0.0, 0.0, 0.0]


# -- the worker's end


# Ends of a claim that are no end of anything.
_NOT_TOLD: Final = frozenset({Disposition.RELEASE, Disposition.INTERRUPT})


class Recorder:
    """Makes the events of one worker. It exists only while the worker sends events.

    Task events are made in the worker's own thread, worker events in any.
    """

    def __init__(self, app: LiteTQ, engine: FileEngine, hostname: str) -> None:
        self._app = app
        self._engine = engine
        self._hostname = hostname
        self._accept = serialization.accept_set(app.conf.accept_content)
        self._started: set[int] = set()  # claims that are known to have begun

    def worker(self, type: str, active: int, processed: int, freq: float = HEARTBEAT_S) -> None:
        """Write worker-online, worker-heartbeat or worker-offline."""
        self._write([worker_event(type, self._hostname, active, processed, freq)])

    def dispatched(self, deliveries: Sequence[Delivery], idle: int) -> None:
        """Write that these were received; the first `idle` of them begin at once, nothing is before them in the pool."""
        now = clock.now()
        events = []
        for place, delivery in enumerate(deliveries):
            if not self._is_told(delivery.name):
                continue
            events.append(self._received(delivery, now))
            if place < idle:
                self._started.add(delivery.claim)
                events.append(self._event("task-started", now, delivery.id))
        self._write(events)

    def begun(self, held: Mapping[int, Delivery], ask: Callable[[], Container[int] | None]) -> None:
        """Write task-started for those that waited behind others and have begun since; `ask` tells which claims have."""
        waiting = [delivery for claim, delivery in held.items() if claim not in self._started]
        begun = ask() if waiting else None
        if begun is None:
            return
        now = clock.now()
        found = [delivery for delivery in waiting if delivery.claim in begun and self._is_told(delivery.name)]
        self._started.update(delivery.claim for delivery in found)
        self._write([self._event("task-started", now, delivery.id) for delivery in found])

    def ended(self, outcomes: Iterable[Outcome], held: Mapping[int, Delivery]) -> list[tuple[int, Event]]:
        """Return the events of how attempts ended, by claim: to be written where the claim still holds."""
        found: list[tuple[int, Event]] = []
        now = clock.now()
        for outcome in outcomes:
            delivery = held.get(outcome.claim)
            was_told = outcome.claim in self._started
            self._started.discard(outcome.claim)
            if delivery is None or not self._is_told(delivery.name) or outcome.disposition in _NOT_TOLD:
                continue
            if not was_told and outcome.started_at is not None:
                found.append((outcome.claim, self._event("task-started", outcome.started_at, outcome.id)))
            end = self._end(outcome, delivery)
            if end is not None:
                type, fields = end
                found.append((outcome.claim, self._event(type, now, outcome.id, **fields)))
        return found

    def _end(self, outcome: Outcome, delivery: Delivery) -> tuple[str, dict[str, Any]] | None:
        disposition = outcome.disposition
        if disposition == Disposition.COMPLETE:
            return "task-succeeded", {"result": self._result(outcome, delivery.name), "runtime": outcome.runtime}
        if disposition == Disposition.RETRY:
            return "task-retried", {
                "exception": safe_repr(self._error(outcome)),
                "traceback": outcome.traceback,
            }
        if disposition == Disposition.REQUEUE:
            return "task-rejected", {"requeue": True}
        if disposition == Disposition.REVOKE:
            return "task-revoked", {"terminated": True, "signum": None, "expired": False}
        if disposition != Disposition.FAIL:
            return None  # ignored, replaced
        error = self._error(outcome)
        if isinstance(error, Reject):
            return "task-rejected", {"requeue": False}
        return "task-failed", {"exception": safe_repr(error), "traceback": outcome.traceback}

    def _result(self, outcome: Outcome, name: str) -> str | None:
        """Return the value as text; None where it is not kept."""
        data = outcome.result if outcome.result is not None else outcome.value
        if data is None:
            return None
        task = self._app.tasks.get(name)
        limit = execution.REPR_LIMIT if task is None else task.resultrepr_maxsize
        try:
            return execution.shorten(safe_repr(serialization.decode(data, outcome.content_type, self._accept)), limit)
        except Exception:
            return MISSING

    def _error(self, outcome: Outcome) -> BaseException | None:
        if outcome.result is None:
            return None
        try:
            return serialization.decode_exception(outcome.result, outcome.content_type, self._accept)
        except Exception as error:
            return error

    def _is_told(self, name: str) -> bool:
        task = self._app.tasks.get(name)
        return task is None or bool(task.send_events)

    def _received(self, delivery: Delivery, now: float) -> Event:
        args, kwargs = self._shown_arguments(delivery)
        return self._event(
            "task-received",
            now,
            delivery.id,
            name=delivery.name,
            args=args,
            kwargs=kwargs,
            root_id=delivery.root_id or delivery.id,
            parent_id=delivery.parent_id,
            retries=delivery.retries,
            eta=context.iso(delivery.eta),
            expires=context.iso(delivery.expires_at),
        )

    def _shown_arguments(self, delivery: Delivery) -> tuple[str, str]:
        request = context.Context(delivery, self._hostname)
        if delivery.headers is not None and request.argsrepr is not None:
            return request.argsrepr, request.kwargsrepr or MISSING
        try:
            args, kwargs = serialization.loads_args(delivery.body, delivery.content_type, self._accept)
        except Exception:
            return MISSING, MISSING
        return execution.shorten(safe_repr(tuple(args))), execution.shorten(safe_repr(kwargs))

    def _event(self, type: str, at: float, id: str, **fields: Any) -> Event:
        return event(type, at, self._hostname, uuid=id, **fields)

    def _write(self, events: Sequence[Event]) -> None:
        if not events:
            return
        try:
            self._engine.write_events(events)
        except OperationalError as error:
            # Events are for people who watch; the tasks go on.
            logger.warning("%d events of %s are lost: %s", len(events), self._hostname, error)


def worker_event(type: str, hostname: str, active: int, processed: int, freq: float) -> Event:
    """Return a sign of life of a worker."""
    fields = {"freq": freq, "active": active, "processed": processed, "loadavg": load_average(), **software()}
    return event(type, clock.now(), hostname, **fields)


# -- the program's end


class Events:
    """Sending and reading events (`app.events`)."""

    def __init__(self, app: LiteTQ) -> None:
        self.app = app

    def Receiver(self, *args: Any, **options: Any) -> EventReceiver:
        """Return a reader of the events from now on."""
        return EventReceiver(*args, **{"app": self.app, **options})

    def Dispatcher(self, *args: Any, **options: Any) -> EventDispatcher:
        """Return what sends events of one's own."""
        return EventDispatcher(*args, **{"app": self.app, **options})

    def default_dispatcher(self, hostname: str | None = None, **_: Any) -> EventDispatcher:
        return EventDispatcher(hostname=hostname, app=self.app)

    def State(self, *args: Any, **options: Any) -> State:
        """Return an empty picture of workers and tasks; give its `event` to a receiver."""
        return State(*args, **options)


class EventDispatcher:
    """Sends events of one's own. A context manager, for Celery's sake; there is nothing to close."""

    def __init__(
        self, connection: Any = None, hostname: str | None = None, app: LiteTQ | None = None, **_: Any
    ) -> None:
        self._app = app
        self.hostname = hostname or anonymous_node()
        self.enabled = True

    def send(self, type: str, blind: bool = False, utcoffset: Any = None, retry: Any = None, **fields: Any) -> None:
        """Write an event with these fields; they must have a JSON form, else their text is sent."""
        app = self._app or context.get_current_app()
        if app is None:
            raise RuntimeError("the dispatcher belongs to no app: use app.events.default_dispatcher()")
        if not isinstance(type, str) or not type:
            raise TypeError(f"an event needs a type like 'task-progress', found {type!r}")
        fields.pop("retry_policy", None)
        at = fields.pop("timestamp", None)
        app.engine.write_events([event(type, clock.now() if at is None else at, self.hostname, **fields)])

    def close(self) -> None:
        pass

    def __enter__(self) -> EventDispatcher:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class EventReceiver:
    """Reads the events that are written from now on, in the order of their commits.

    Args:
        channel: Celery's connection; accepted and unused.
        handlers: called with the event, by type of event; "*" for all that have none of their own.
        routing_key: which events: "#" all, "task.#" those of tasks, "worker.*"...
        since: number (`clock`) of an event: those behind it that the file still has come first. Not in Celery.
    """

    def __init__(
        self,
        channel: Any = None,
        handlers: Mapping[str, Callable[[dict[str, Any]], Any]] | None = None,
        routing_key: str = "#",
        node_id: str | None = None,
        app: LiteTQ | None = None,
        *,
        since: int | None = None,
        **_: Any,
    ) -> None:
        found = app or context.get_current_app()
        if found is None:
            raise RuntimeError("the receiver belongs to no app: use app.events.Receiver(...)")
        self.app = found
        self.handlers = {} if handlers is None else handlers
        self.routing_key = routing_key
        self.should_stop = False  # set it from any thread: capture ends within a second
        self._wanted = re.compile(
            "".join({"#": ".*", "*": "[^.]*"}.get(part, re.escape(part)) for part in re.split(r"([#*])", routing_key))
        )
        self._after = self.app.engine.mailbox.last_event() if since is None else since

    def capture(self, limit: int | None = None, timeout: float | None = None, wakeup: bool = True) -> None:
        """Call the handlers with events as they come; see `itercapture`."""
        for _ in self.itercapture(limit, timeout, wakeup):
            pass

    def itercapture(
        self, limit: int | None = None, timeout: float | None = None, wakeup: bool = True
    ) -> Iterator[dict[str, Any]]:
        """Call the handlers with events as they come, and yield each event afterwards.

        Args:
            limit: ends after so many events; None: never, unless `should_stop` is set.
            timeout: raises TimeoutError (`socket.timeout`) when no event came for so many seconds.
            wakeup: first ask all workers for a heartbeat.
        """
        engine = self.app.engine
        seen = 0
        with engine.mail_waiter(EVENTS) as waiter:
            if wakeup:
                self.wakeup_workers()
            heard_at = time.monotonic()
            while not self.should_stop:
                waiter.announce()
                for found in self._read():
                    heard_at = time.monotonic()
                    self.process(found["type"], found)
                    seen += 1
                    yield found
                    if self.should_stop or (limit is not None and seen >= limit):
                        return
                rest = DEAF_S if engine.bell.is_deaf else BACKSTOP_S
                if timeout is not None:
                    left = heard_at + timeout - time.monotonic()
                    if left <= 0:
                        raise TimeoutError(f"no event for {timeout:g} s")
                    rest = min(rest, left)
                waiter.wait(rest)

    def _read(self) -> Iterator[dict[str, Any]]:
        """Yield what has come; an event counts as read when it is yielded."""
        while True:
            events = self.app.engine.mailbox.events(self._after)
            if not events:
                return
            missed = events[0]["clock"] - self._after - 1
            if missed and self._after:
                logger.warning("%d events were written and pushed out before they were read here", missed)
            for found in events:
                self._after = found["clock"]
                if self._wanted.fullmatch(found["type"].replace("-", ".")):
                    found["local_received"] = clock.now()
                    found["utcoffset"] = utcoffset()
                    yield found

    def process(self, type: str, event: dict[str, Any]) -> None:
        """Call the handler for an event, if there is one."""
        handler = self.handlers.get(type) or self.handlers.get("*")
        if handler is not None:
            handler(event)

    def wakeup_workers(self, channel: Any = None) -> None:
        """Ask all workers for a heartbeat: who starts to watch learns at once who is there."""
        self.app.control.heartbeat()


def utcoffset() -> int:
    """Return how many hours local time is behind UTC, as events say it."""
    return (time.altzone if time.localtime().tm_isdst > 0 else time.timezone) // 3600


# -- a picture of workers and tasks

_STATE_OF: Final = {
    "sent": states.PENDING,
    "received": states.RECEIVED,
    "started": states.STARTED,
    "failed": states.FAILURE,
    "retried": states.RETRY,
    "succeeded": states.SUCCESS,
    "revoked": states.REVOKED,
    "rejected": states.REJECTED,
}


class SeenWorker:
    """What events have told of a worker."""

    _fields = tuple("hostname pid freq heartbeats clock active processed loadavg sw_ident sw_ver sw_sys".split())

    def __init__(self, hostname: str | None = None, freq: float = 60, **fields: Any) -> None:
        self.hostname = hostname
        self.pid: int | None = None
        self.freq = freq  # seconds between two heartbeats
        self.heartbeats: list[float] = []  # when the last ones were received, UTC seconds
        self.clock = 0
        self.active: int | None = None
        self.processed: int | None = None
        self.loadavg: Sequence[float] | None = None
        self.sw_ident: str | None = None
        self.sw_ver: str | None = None
        self.sw_sys: str | None = None
        self.update(fields)

    def update(self, fields: Mapping[str, Any], **more: Any) -> None:
        """Set attributes."""
        self.__dict__.update(fields, **more)

    def event(
        self,
        type_: str | None,
        timestamp: float | None = None,
        local_received: float | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Take over what an event says; each is a sign of life, except `offline`."""
        self.update(fields or {})
        if type_ == "offline":
            self.heartbeats.clear()
        elif timestamp and local_received:
            self.heartbeats.append(local_received)
            self.heartbeats.sort()
            del self.heartbeats[:-HEARTBEATS_KEPT]

    @property
    def heartbeat_expires(self) -> float:
        """When it counts as offline unless it is heard of before, UTC seconds."""
        return self.heartbeats[-1] + self.freq * EXPIRE_FACTOR

    @property
    def alive(self) -> bool:
        return bool(self.heartbeats) and clock.now() < self.heartbeat_expires

    @property
    def status_string(self) -> str:
        return "ONLINE" if self.alive else "OFFLINE"

    @property
    def id(self) -> str:
        return f"{self.hostname}.{self.pid}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SeenWorker) and self.hostname == other.hostname

    def __hash__(self) -> int:
        return hash(self.hostname)

    def __repr__(self) -> str:
        return f"<Worker: {self.hostname} ({self.status_string} clock:{self.clock})"


class SeenTask:
    """What events have told of a task."""

    _fields = tuple(
        (
            "uuid name state received sent started rejected succeeded failed retried revoked args kwargs eta expires retries "
            "worker result exception timestamp runtime traceback exchange routing_key clock client root_id parent_id"
        ).split()
    )
    _info_fields = tuple(
        "args kwargs retries result eta runtime expires exception exchange routing_key root_id parent_id".split()
    )
    # Of an event that comes after one that happened later, only this is taken over.
    merge_rules: Mapping[str, Sequence[str]] = {
        states.RECEIVED: ("name", "args", "kwargs", "parent_id", "root_id", "retries", "eta", "expires")
    }

    def __init__(self, uuid: str | None = None, cluster_state: State | None = None, **fields: Any) -> None:
        self.__dict__.update(dict.fromkeys(self._fields))
        self.uuid = uuid
        self.state: str = states.PENDING
        self.clock = 0
        self.name: str | None = None
        self.worker: SeenWorker | None = None
        self.client: str | None = None
        self.root_id: str | None = None
        self.parent_id: str | None = None
        self.timestamp: float | None = None
        self.cluster_state = cluster_state
        self.__dict__.update(fields)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "cluster_state": None}  # which sets itself when it is restored

    def event(
        self,
        type_: str,
        timestamp: float | None = None,
        local_received: float | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Take over what an event says. Events of one task may come out of order: the furthest state stays."""
        told = dict(fields or {})
        state = _STATE_OF.get(type_)
        if state is None:
            state = type_.upper()
        else:
            setattr(self, type_, timestamp)
        is_late = states.precedence(state) > states.precedence(self.state)
        if is_late and states.RETRY not in (state, self.state):
            kept = self.merge_rules.get(state)
            told = told if kept is None else {name: value for name, value in told.items() if name in kept}
        else:
            told.update(state=state, timestamp=timestamp)
        self.__dict__.update(told)

    def info(self, fields: Sequence[str] | None = None, extra: Sequence[str] = ()) -> dict[str, Any]:
        """Return what is known of it, for people."""
        names = [*(self._info_fields if fields is None else fields), *extra]
        return {name: value for name in names if (value := getattr(self, name, None)) is not None}

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._fields}

    @property
    def id(self) -> str | None:
        return self.uuid

    @property
    def ready(self) -> bool:
        return self.state in states.READY_STATES

    @property
    def origin(self) -> str | None:
        return self.client if self.worker is None else self.worker.id

    @property
    def parent(self) -> SeenTask | None:
        return self._other(self.parent_id)

    @property
    def root(self) -> SeenTask | None:
        return self._other(self.root_id)

    @property
    def children(self) -> set[SeenTask]:
        """The tasks that it called, as far as they are in the picture."""
        known = self.cluster_state.tasks.values() if self.cluster_state is not None else ()
        return {task for task in known if task.parent_id == self.uuid}

    def _other(self, id: str | None) -> SeenTask | None:
        return self.cluster_state.tasks.get(id) if id is not None and self.cluster_state is not None else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SeenTask) and self.uuid == other.uuid

    def __hash__(self) -> int:
        return hash(self.uuid)

    def __repr__(self) -> str:
        return f"<Task: {self.name}({self.uuid}) {self.state} clock:{self.clock}>"


class _Index:
    """Tasks of the picture by something: `index[key]` is a set of them, `index(key)` yields (id, task) by time."""

    def __init__(self, state: State, key_of: Callable[[SeenTask], Any]) -> None:
        self._state = state
        self._key_of = key_of

    def __getitem__(self, key: Any) -> set[SeenTask]:
        return {task for task in list(self._state.tasks.values()) if self._key_of(task) == key}

    def __call__(self, key: Any, limit: int | None = None, reverse: bool = True) -> Iterator[tuple[str, SeenTask]]:
        found = ((id, task) for id, task in self._state.tasks_by_time(reverse=reverse) if self._key_of(task) == key)
        for number, pair in enumerate(found):
            if limit is not None and number >= limit:
                return
            yield pair


class Recent(OrderedDict[str, V]):
    """A dictionary that forgets what was heard of longest ago when it has more than `limit` entries; None: it forgets nothing."""

    def __init__(self, limit: int | None = None, known: Mapping[str, V] | None = None) -> None:
        super().__init__(known or {})
        self.limit = limit
        self.update()

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Add entries, and forget what is too much for the limit of now."""
        super().update(*args, **kwargs)
        while self.limit and len(self) > self.limit:
            self.popitem(last=False)

    def hear_of(self, key: str, value: V) -> None:
        """Add an entry, or make it the last one to be forgotten."""
        self[key] = value
        self.move_to_end(key)
        self.update()

    def __reduce__(self) -> Any:
        return type(self), (self.limit, dict(self))


class State:
    """A picture of workers and tasks, drawn from events: `Receiver(handlers={"*": state.event})`.

    Args:
        callback: called with (state, event) before an event is taken in.
        workers, tasks: what is known at the beginning.
        taskheap: accepted for Celery's sake.
        max_workers_in_memory, max_tasks_in_memory: the ones that were heard of longest ago are forgotten first.
        on_node_join, on_node_leave: called with the worker.
    """

    Worker = SeenWorker
    Task = SeenTask

    def __init__(
        self,
        callback: Callable[[State, dict[str, Any]], Any] | None = None,
        workers: Mapping[str, SeenWorker] | None = None,
        tasks: Mapping[str, SeenTask] | None = None,
        taskheap: Any = None,
        max_workers_in_memory: int = 5000,
        max_tasks_in_memory: int = 10_000,
        on_node_join: Callable[[SeenWorker], Any] | None = None,
        on_node_leave: Callable[[SeenWorker], Any] | None = None,
        **_: Any,
    ) -> None:
        self.event_callback = callback
        self.workers = Recent(max_workers_in_memory, workers)
        self.tasks = Recent(max_tasks_in_memory, tasks)
        for task in self.tasks.values():
            task.cluster_state = self
        self.event_count = 0
        self.task_count = 0  # tasks received
        self.max_workers_in_memory = max_workers_in_memory
        self.max_tasks_in_memory = max_tasks_in_memory
        self.on_node_join = on_node_join
        self.on_node_leave = on_node_leave
        self.handlers: dict[str, Callable[[str, dict[str, Any]], Any]] = {}  # by group of events, for ones of one's own
        self.tasks_by_type = _Index(self, lambda task: task.name)
        self.tasks_by_worker = _Index(self, lambda task: task.worker.hostname if task.worker is not None else None)
        self._seen_types: set[str] = set()
        self._mutex = threading.RLock()

    def event(self, event: dict[str, Any]) -> Any:
        """Take an event in; return ((worker or task, is new), what happened)."""
        with self._mutex:
            return self._event(event)

    def _event(self, event: dict[str, Any]) -> Any:
        self.event_count += 1
        if self.event_callback is not None:
            self.event_callback(self, event)
        group, _, subject = event["type"].partition("-")
        if group in self.handlers:
            return self.handlers[group](subject, event), subject
        if group == "worker":
            return (self._worker_event(subject, event), subject) if "hostname" in event else None
        if group == "task":
            return self._task_event(subject, event), subject
        return None

    def _worker_event(self, subject: str, event: dict[str, Any]) -> tuple[SeenWorker, bool]:
        """A worker that has gone is forgotten where somebody is told that it has; else it stays, as offline."""
        name = event["hostname"]
        if subject == "offline" and name not in self.workers:
            worker, is_new = self.Worker(name), False
        else:
            worker, is_new = self.get_or_create_worker(name)
        worker.event(subject, event.get("timestamp"), event.get("local_received"), event)
        if subject == "offline":
            if self.on_node_leave is not None:
                self.on_node_leave(worker)
                self.workers.pop(name, None)
        elif self.on_node_join is not None and (is_new or subject == "online"):
            self.on_node_join(worker)
        return worker, is_new

    def _task_event(self, subject: str, event: dict[str, Any]) -> tuple[SeenTask, bool]:
        task, is_new = self.get_or_create_task(event["uuid"])
        if subject == "sent":
            task.client = event["hostname"]
        else:
            task.worker, _ = self.get_or_create_worker(event["hostname"])
            task.worker.event(None, event.get("timestamp"), event.get("local_received"))
        if subject == "received":
            self.task_count += 1
        fields = {name: value for name, value in event.items() if name not in ("type", "hostname", "pid")}
        task.event(subject, event.get("timestamp"), event.get("local_received"), fields)
        if task.name is not None:
            self._seen_types.add(task.name)
        return task, is_new

    def get_or_create_worker(self, hostname: str, **fields: Any) -> tuple[SeenWorker, bool]:
        """Return a worker, and whether it was not known."""
        worker = self.workers.get(hostname)
        is_new = worker is None
        if worker is None:
            worker = self.Worker(hostname)
        self.workers.hear_of(hostname, worker)
        worker.update(fields)
        return worker, is_new

    def get_or_create_task(self, uuid: str) -> tuple[SeenTask, bool]:
        """Return a task, and whether it was not known."""
        task = self.tasks.get(uuid)
        is_new = task is None
        if task is None:
            task = self.Task(uuid, self)
        self.tasks.hear_of(uuid, task)
        return task, is_new

    def freeze_while(self, fun: Callable[..., Any], *args: Any, clear_after: bool = False, **kwargs: Any) -> Any:
        """Call `fun` while no event is taken in."""
        with self._mutex:
            try:
                return fun(*args, **kwargs)
            finally:
                if clear_after:
                    self.clear()

    def clear(self, ready: bool = True) -> None:
        """Forget workers, counts, and the tasks that have ended (with ready=False all)."""
        with self._mutex:
            self.workers.clear()
            self.clear_tasks(ready)
            self.event_count = self.task_count = 0

    def clear_tasks(self, ready: bool = True) -> None:
        """Forget the tasks that have ended (with ready=False all)."""
        with self._mutex:
            self._clear_tasks(ready)

    def _clear_tasks(self, ready: bool = True) -> None:  # Celery's subclasses override it
        kept = [(id, task) for id, task in self.tasks.items() if ready and not task.ready]
        self.tasks.clear()
        self.tasks.update(kept)

    def itertasks(self, limit: int | None = None) -> Iterator[tuple[str, SeenTask]]:
        """Yield (id, task)."""
        yield from list(self.tasks.items())[:limit]

    def tasks_by_time(self, limit: int | None = None, reverse: bool = True) -> Iterator[tuple[str, SeenTask]]:
        """Yield (id, task), the one heard of last first."""
        with self._mutex:
            found = sorted(self.tasks.items(), key=lambda pair: pair[1].clock, reverse=reverse)
        yield from found[:limit]

    tasks_by_timestamp = tasks_by_time

    def task_types(self) -> list[str]:
        """Return the names of all tasks that were heard of."""
        return sorted(self._seen_types)

    def alive_workers(self) -> Iterator[SeenWorker]:
        """Yield the workers that seem to live."""
        return (worker for worker in list(self.workers.values()) if worker.alive)

    def __repr__(self) -> str:
        return f"<State: events={self.event_count} tasks={self.task_count}>"

    def __reduce__(self) -> Any:
        # Callbacks stay behind: who takes the picture up again has its own.
        make = partial(
            type(self),
            workers=dict(self.workers),
            tasks=dict(self.tasks),
            max_workers_in_memory=self.max_workers_in_memory,
            max_tasks_in_memory=self.max_tasks_in_memory,
        )
        kept = {"event_count": self.event_count, "task_count": self.task_count, "_seen_types": self._seen_types}
        return make, (), kept
