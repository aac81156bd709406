"""The commands that workers know, and the thread of a worker that answers them.

A `Desk` is a thread of its own, so a worker answers while it is busy and while it stops. What is listed of tasks is read from
the file (`Facts`), by a worker for itself and by a caller for one that is silent. Callers stand in `control.py`.
"""

from __future__ import annotations

import fnmatch
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar, overload

from litetq import calling, clock, context, serialization
from litetq.engine import BACKSTOP_S, COMMANDS, DEAF_S
from litetq.events import HEARTBEAT_S, worker_event
from litetq.exceptions import OperationalError
from litetq.lanes import interval_of
from litetq.mailbox import Command, Listed

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.engine import FileEngine, Seat
    from litetq.message import Delivery
    from litetq.roster import Worker as WorkerRow

F = TypeVar("F", bound=Callable[..., Any])

logger = logging.getLogger("celery.worker.control")

TIDY_S: Final = 60.0  # between two looks of a desk for what is old
AFTER_ERROR_S: Final = 5.0
TERM: Final = "SIGTERM"
SHOWN_ATTRIBUTES: Final = ("exchange", "routing_key", "rate_limit")


# -- what commands have to do with


class Node(Protocol):
    """What the commands want of a worker. What its pool cannot do raises NotImplementedError; the answer says so."""

    app: LiteTQ
    engine: FileEngine
    hostname: str
    queues: frozenset[str]

    @property
    def seat(self) -> Seat: ...

    def statistics(self) -> Any: ...

    def stop(self, timeout: float | None = None, how: str = "warm") -> bool: ...

    def held(self) -> list[Delivery]: ...

    def began_at(self, claim: int) -> float | None: ...

    def serve(self, queues: frozenset[str]) -> None: ...

    def set_time_limit(self, name: str, hard: float | None, soft: float | None) -> bool: ...

    def pool_grow(self, number: int = 1) -> None: ...

    def pool_shrink(self, number: int = 1) -> None: ...

    def pool_restart(self) -> None: ...

    @property
    def scale(self) -> tuple[int, int] | None: ...

    def autoscale(self, largest: int, smallest: int) -> None: ...

    def terminate(self, id: str, signal: str | int = "TERM") -> bool: ...

    @property
    def sends_events(self) -> bool: ...

    def send_events(self, wanted: bool) -> None: ...

    def heartbeat(self) -> None: ...

    def tell_begun(self) -> None: ...


class PanelState:
    """What a command gets as its first argument.

    `app`, `hostname` and `worker` are what they say; `consumer.controller` leads to the worker too, as in Celery.
    """

    def __init__(self, worker: Node) -> None:
        self.worker = self.controller = worker
        self.app = worker.app
        self.hostname = worker.hostname
        self.engine = worker.engine

    @property
    def consumer(self) -> PanelState:
        return self


class CommandInfo(NamedTuple):
    """A command that workers know."""

    function: Callable[..., Any]
    name: str
    kind: str  # "control" or "inspect"
    alias: str | None = None
    visible: bool = True
    default_timeout: float = 1.0
    help: str | None = None
    signature: str | None = None  # of its arguments, for the command line
    args: Sequence[tuple[str, Callable[[str], Any]]] = ()  # name and type of each argument, for the command line
    variadic: str | None = None  # the argument that takes all the rest


PANEL: dict[str, CommandInfo] = {}  # by name and by alias


@overload
def control_command(function: F, /) -> F: ...


@overload
def control_command(**options: Any) -> Callable[[F], F]: ...


def control_command(function: Any = None, /, **options: Any) -> Any:
    """Make a function a command that changes a worker: `@control_command(args=[("n", int)], signature="[N=1]")`.

    It is called in the worker with the state (`PanelState`) and the caller's arguments; what it returns is the answer and
    must have a JSON form, what it raises is answered as {"error": ...}. It runs in the thread that answers all commands.
    """
    return _register("control", function, options)


@overload
def inspect_command(function: F, /) -> F: ...


@overload
def inspect_command(**options: Any) -> Callable[[F], F]: ...


def inspect_command(function: Any = None, /, **options: Any) -> Any:
    """Make a function a command that only tells something of a worker; as `control_command`."""
    return _register("inspect", function, options)


def _register(kind: str, function: Callable[..., Any] | None, options: dict[str, Any]) -> Any:
    if function is None:
        return lambda function: _register(kind, function, options)
    fields = dict(options)
    name = fields.pop("name", None) or function.__name__
    fields["help"] = fields.get("help") or (function.__doc__ or "").strip().split("\n")[0]
    fields["args"] = fields.get("args") or ()
    info = CommandInfo(function, name, kind, **fields)
    PANEL[name] = info
    if info.alias:
        PANEL[info.alias] = info
    return function


def _ok(value: Any) -> dict[str, Any]:
    return {"ok": value}


def _error(sentence: str) -> dict[str, Any]:
    return {"error": sentence}


def _many(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]


# -- commands about the program


@inspect_command
def report(state: PanelState, **_: Any) -> Any:
    """Information about the installation for bug reports."""
    return _ok(state.app.bugreport())


@inspect_command(
    alias="dump_conf",
    signature="[include_defaults=False]",
    args=[("with_defaults", lambda text: text.lower() == "true")],
)
def conf(state: PanelState, with_defaults: bool = False, **_: Any) -> Any:
    """List configuration."""
    shown = state.app.conf.table(with_defaults=with_defaults)
    return {key: value for key, value in shown.items() if isinstance(key, str) and not key.startswith("__")}


@inspect_command(default_timeout=0.2)
def ping(state: PanelState, **_: Any) -> Any:
    """Ping worker(s)."""
    return _ok("pong")


@inspect_command(name="clock")
def logical_clock(state: PanelState, **_: Any) -> Any:
    """Get current logical clock value."""
    return {"clock": state.engine.mailbox.clock()}


@inspect_command(visible=False)
def hello(state: PanelState, from_node: str, revoked: Any = None, **_: Any) -> Any:
    """Request sync-data; the file has synchronized it already."""
    if from_node == state.hostname:
        return None
    mailbox = state.engine.mailbox
    return {"revoked": mailbox.revoked(clock.now()), "clock": mailbox.clock()}


@inspect_command(alias="dump_tasks", variadic="taskinfoitems", signature="[attr1 [attr2 [... [attrN]]]]")
def registered(state: PanelState, taskinfoitems: Any = None, builtins: bool = False, **_: Any) -> Any:
    """List of registered tasks."""
    wanted = [name for name in taskinfoitems or SHOWN_ATTRIBUTES if isinstance(name, str) and not name.startswith("_")]
    lines = []
    for name, task in sorted(state.app.tasks.items()):
        if builtins or not name.startswith("celery."):
            values = [(attribute, getattr(task, attribute, None)) for attribute in wanted]
            shown = " ".join(f"{attribute}={value}" for attribute, value in values if value is not None)
            lines.append(f"{task.name} [{shown}]" if shown else task.name)
    return lines


# -- commands about the worker


@inspect_command
def stats(state: PanelState, **_: Any) -> Any:
    """Request worker statistics/information."""
    found = state.worker.statistics()
    return {
        "total": found.total,
        "pid": os.getpid(),
        "clock": str(state.engine.mailbox.clock()),
        "uptime": round(found.uptime),
        "pool": _pool_facts(state, found),
        "broker": _broker_facts(state),
        "prefetch_count": found.concurrency,
        "rusage": _rusage(),
        "litetq": {
            "held": found.held,
            "states": found.states,
            "lost": found.lost,
            "released": found.released,
        },
    }


def _pool_facts(state: PanelState, found: Any) -> dict[str, Any]:
    conf = state.app.conf
    return {
        "implementation": f"litetq.pool:{found.pool}",
        "max-concurrency": found.concurrency,
        "processes": found.processes,
        "max-tasks-per-child": conf.worker_max_tasks_per_child or "N/A",
        "put-guarded-by-semaphore": True,
        "timeouts": [conf.task_soft_time_limit or 0, conf.task_time_limit or 0],
        "writes": "N/A",
    }


def _broker_facts(state: PanelState) -> dict[str, Any]:
    return {
        "hostname": state.engine.shown,
        "userid": None,
        "virtual_host": "/",
        "port": None,
        "insist": False,
        "ssl": False,
        "transport": state.engine.transport,
        "connect_timeout": state.engine.database.busy_timeout,
        "transport_options": {"durability": state.engine.database.durability},
        "login_method": None,
        "uri_prefix": None,
        "heartbeat": 0,
        "failover_strategy": "round-robin",
        "alternates": [],
    }


def _rusage() -> Any:
    try:
        import resource
    except ImportError:
        return "N/A"
    used: Any = resource.getrusage(resource.RUSAGE_SELF)  # type: ignore[attr-defined,unused-ignore]  # not on Windows
    return {name[3:]: getattr(used, name) for name in dir(used) if name.startswith("ru_")}


@inspect_command
def memsample(state: PanelState, **_: Any) -> Any:
    """Sample current RSS memory usage."""
    sample = _resident()
    _samples.append(sample)
    del _samples[:-100]
    return sample


@inspect_command(signature="[n_samples=10]", args=[("samples", int)])
def memdump(state: PanelState, samples: int = 10, **_: Any) -> Any:
    """Dump statistics of previous memsample requests."""
    return "\n".join(f"- rss (sample): {sample}" for sample in _samples[-samples:])


_samples: list[str | None] = []


def _resident() -> str | None:
    """Return how much memory this process has, for people; None where psutil is missing."""
    try:
        import psutil
    except ImportError:
        return None
    return f"{psutil.Process().memory_info().rss / 2**20:.2f}MB"


@inspect_command(
    default_timeout=60.0,
    signature="[object_type=Request] [num=200 [max_depth=10]]",
    args=[("type", str), ("num", int), ("max_depth", int)],
)
def objgraph(state: PanelState, num: int = 200, max_depth: int = 10, type: str = "Request", **_: Any) -> Any:
    """Create graph of uncollected objects (memory-leak debugging)."""
    import importlib
    import tempfile

    try:
        graphs: Any = importlib.import_module("objgraph")
    except ImportError:
        raise ImportError("Requires the objgraph library") from None
    found = graphs.by_type(type)[:num]
    with tempfile.NamedTemporaryFile(prefix="litetq-objects", suffix=".png", delete=False) as file:
        graphs.show_backrefs(found, max_depth=max_depth, highlight=lambda value: value in found, filename=file.name)
    return {"filename": file.name}


@control_command
def shutdown(state: PanelState, msg: str = "Got shutdown from remote", **_: Any) -> Any:
    """Shutdown worker(s)."""
    logger.warning(msg)
    state.worker.stop(timeout=0)
    return NO_ANSWER


NO_ANSWER: Final = object()  # what a command returns that nobody gets an answer to


# -- commands about the pool


@control_command(signature="[N=1]", args=[("n", int)])
def pool_grow(state: PanelState, n: int = 1, **_: Any) -> Any:
    """Grow pool by n processes/threads."""
    return _resize(state, "pool_grow", state.worker.pool_grow, n, "pool will grow")


@control_command(signature="[N=1]", args=[("n", int)])
def pool_shrink(state: PanelState, n: int = 1, **_: Any) -> Any:
    """Shrink pool by n processes/threads."""
    return _resize(state, "pool_shrink", state.worker.pool_shrink, n, "pool will shrink")


def _resize(state: PanelState, name: str, resize: Callable[[int], None], n: int, done: str) -> Any:
    if state.worker.scale is not None:
        return _error(f"{name} is not supported with autoscale. Adjust autoscale range instead.")
    try:
        resize(n)
    except (NotImplementedError, ValueError) as error:
        return _error(str(error))
    return _ok(done)


@control_command
def pool_restart(state: PanelState, modules: Any = None, reload: bool = False, reloader: Any = None, **_: Any) -> Any:
    """Restart execution pool."""
    if not state.app.conf.worker_pool_restarts:
        raise ValueError("Pool restarts not enabled")
    state.worker.pool_restart()
    return _ok("reload started")


@control_command(signature="[max [min]]", args=[("max", int), ("min", int)])
def autoscale(state: PanelState, max: int | None = None, min: int | None = None, **_: Any) -> Any:
    """Modify autoscale settings."""
    now = state.worker.scale
    if now is None:
        raise ValueError("Autoscale not enabled")
    largest, smallest = now[0] if max is None else max, now[1] if min is None else min
    state.worker.autoscale(largest, smallest)
    return _ok(f"autoscale now max={largest} min={smallest}")


# -- commands about events


@control_command
def enable_events(state: PanelState, **_: Any) -> Any:
    """Tell worker(s) to send task-related events."""
    if state.worker.sends_events:
        return _ok("task events already enabled")
    state.worker.send_events(True)
    logger.info("Events of group {task} enabled by remote.")
    return _ok("task events enabled")


@control_command
def disable_events(state: PanelState, **_: Any) -> Any:
    """Tell worker(s) to stop sending task-related events."""
    if not state.worker.sends_events:
        return _ok("task events already disabled")
    state.worker.send_events(False)
    logger.info("Events of group {task} disabled by remote.")
    return _ok("task events disabled")


@control_command
def heartbeat(state: PanelState, **_: Any) -> Any:
    """Tell worker(s) to send event heartbeat immediately."""
    found = state.worker.statistics()
    processed = sum(found.total.values())
    # Also from a worker that sends no other events: somebody asks who is there.
    state.engine.write_events([worker_event("worker-heartbeat", state.hostname, found.held, processed, HEARTBEAT_S)])
    return None


# -- commands about queues


@control_command(
    signature="<queue> [exchange [type [routing_key]]]",
    args=[("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)],
)
def add_consumer(
    state: PanelState, queue: str, exchange: Any = None, exchange_type: Any = None, routing_key: Any = None, **_: Any
) -> Any:
    """Tell worker(s) to consume from task queue by name."""
    state.engine.bind(calling.queue_name(queue), exchange, exchange_type, routing_key)
    state.worker.serve(state.worker.queues | {calling.queue_name(queue)})
    return _ok(f"add consumer {queue}")


@control_command(signature="<queue>", args=[("queue", str)])
def cancel_consumer(state: PanelState, queue: str, **_: Any) -> Any:
    """Tell worker(s) to stop consuming from task queue by name."""
    state.worker.serve(state.worker.queues - {queue})
    return _ok(f"no longer consuming from {queue}")


@inspect_command
def active_queues(state: PanelState, **_: Any) -> Any:
    """List the task queues a worker is currently consuming from."""
    names = sorted(state.worker.queues)
    found = [(name, state.engine.about_queue(name, state.hostname)) for name in names]
    return [_queue_facts(name) if about is None else about for name, about in found if about is None or about]


def _queue_facts(name: str) -> dict[str, Any]:
    exchange = {
        "name": name,
        "type": "direct",
        "arguments": None,
        "durable": True,
        "passive": False,
        "auto_delete": False,
        "delivery_mode": None,
        "no_declare": False,
    }
    missing = ("queue_arguments", "binding_arguments", "consumer_arguments", "alias", "expires", "message_ttl")
    limits = ("max_length", "max_length_bytes", "max_priority")
    return {
        "name": name,
        "exchange": exchange,
        "routing_key": name,
        "durable": True,
        "exclusive": False,
        "auto_delete": False,
        "no_ack": False,
        "no_declare": None,
        "bindings": [],
        **dict.fromkeys((*missing, *limits)),
    }


# -- commands about tasks


@control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(state: PanelState, task_id: Any, terminate: bool = False, signal: Any = None, **_: Any) -> Any:
    """Revoke task by task id (or list of ids)."""
    ids = {str(id) for id in _many(task_id)}
    state.engine.revoke(sorted(ids), "revoked")
    if not terminate:
        logger.info("Tasks flagged as revoked: %s", ", ".join(sorted(ids)))
        return _ok(f"tasks {ids} flagged as revoked")
    try:
        ended = _end_running(state, sorted(ids), signal or TERM)
    except (NotImplementedError, ValueError) as error:
        return _error(str(error))
    return _ok(f"terminate: {', '.join(ended)}" if ended else "terminate: tasks unknown")


def _end_running(state: PanelState, ids: Sequence[str], signal: Any) -> list[str]:
    """Terminate what this worker has of these tasks; return which those are. Raises as its `terminate`.

    Most who ask for it wait for no answer, so the log says it, too.
    """
    try:
        ended = [id for id in ids if state.worker.terminate(id, signal)]
    except (NotImplementedError, ValueError) as error:
        for delivery in state.worker.held():
            if delivery.id in ids:
                logger.warning("Task %s[%s] is not terminated: %s", delivery.name, delivery.id, error)
        raise
    for id in ended:
        logger.info("Terminating %s (%s)", id, signal)
    return ended


@control_command(variadic="headers", signature="[key1=value1 [key2=value2 [... [keyN=valueN]]]]")
def revoke_by_stamped_headers(
    state: PanelState, headers: Any, terminate: bool = False, signal: Any = None, **_: Any
) -> Any:
    """Revoke task by header (or list of headers)."""
    stamps = stamps_of(headers)
    found = state.engine.revoke_stamped(stamps)
    if not terminate:
        return _ok(f"headers {headers} flagged as revoked, but not terminated")
    try:
        ended = _end_running(state, found, signal or TERM)
    except (NotImplementedError, ValueError) as error:
        return _error(str(error))
    return _ok(f"headers {stamps} revoked" if ended else f"headers {headers} were not terminated")


def stamps_of(headers: Any) -> dict[str, list[Any]]:
    """Return stamps by name, given as a mapping of names to one or several, or as a list of "name=stamp"."""
    if isinstance(headers, Mapping):
        return {str(name): _many(value) for name, value in headers.items()}
    found: dict[str, list[Any]] = {}
    for text in _many(headers):
        name, is_pair, value = str(text).partition("=")
        if not is_pair:
            raise ValueError(f"a stamped header is given as name=stamp, found {text!r}")
        found.setdefault(name, []).append(value)
    return found


@control_command(signature="<signal> [id1 [id2 [... [idN]]]]", args=[("signal", str)], variadic="task_id")
def terminate(state: PanelState, signal: Any, task_id: Any, **_: Any) -> Any:
    """Terminate task by task id (or list of ids)."""
    return revoke(state, task_id, terminate=True, signal=signal)


@control_command(
    signature="<task_name> <rate_limit (e.g., 5/s | 5/m | 5/h)>", args=[("task_name", str), ("rate_limit", str)]
)
def rate_limit(state: PanelState, task_name: str, rate_limit: Any, **_: Any) -> Any:
    """Tell worker(s) to modify the rate limit for a task by type."""
    try:
        interval_of(rate_limit)
    except ValueError as error:
        return _error(f"Invalid rate limit string: {error!r}")
    if task_name not in state.app.tasks:
        logger.error("Rate limit attempt for unknown task %s", task_name)
        return _error("unknown task")
    state.engine.set_rate_limit(task_name, rate_limit)
    state.app.tasks[task_name].rate_limit = rate_limit
    if not rate_limit:
        logger.info("Rate limits disabled for tasks of type %s", task_name)
        return _ok("rate limit disabled successfully")
    logger.info("New rate limit for tasks of type %s: %s.", task_name, rate_limit)
    return _ok("new rate limit set successfully")


@control_command(
    signature="<task_name> <soft_secs> [hard_secs]", args=[("task_name", str), ("soft", float), ("hard", float)]
)
def time_limit(state: PanelState, task_name: str, hard: Any = None, soft: Any = None, **_: Any) -> Any:
    """Tell worker(s) to modify the time limit for task by type."""
    if not state.worker.set_time_limit(task_name, hard, soft):
        logger.error("Change time limit attempt for unknown task %s", task_name)
        return _error("unknown task")
    logger.info("New time limits for tasks of type %s: soft=%s hard=%s", task_name, soft, hard)
    return _ok("time limits set successfully")


@inspect_command(alias="dump_revoked", name="revoked")
def revoked_ids(state: PanelState, **_: Any) -> Any:
    """List of revoked task-ids."""
    return state.engine.mailbox.revoked(clock.now())


@inspect_command(alias="dump_active", name="active")
def active_tasks(state: PanelState, safe: bool = False, **_: Any) -> Any:
    """List of tasks currently being executed."""
    return _facts(state).active(_row(state), safe, state.worker.began_at)


@inspect_command(alias="dump_reserved", name="reserved")
def reserved_tasks(state: PanelState, **_: Any) -> Any:
    """List of currently reserved tasks, not including scheduled/active."""
    return _facts(state).reserved(_row(state))


@inspect_command(alias="dump_schedule", name="scheduled")
def scheduled_tasks(state: PanelState, **_: Any) -> Any:
    """List of currently scheduled ETA/countdown tasks."""
    return _facts(state).scheduled(_row(state))


@inspect_command(variadic="ids", signature="[id1 [id2 [... [idN]]]]")
def query_task(state: PanelState, ids: Any, **_: Any) -> Any:
    """Query for task information by id."""
    return _facts(state).query([str(id) for id in _many(ids)], _row(state), state.worker.began_at)


def _facts(state: PanelState) -> Facts:
    return Facts(state.app, state.engine)


def _row(state: PanelState) -> WorkerRow:
    """Return how this worker is signed on; it may have taken a new identity a moment ago."""
    mine = [row for row in state.engine.workers() if row.id == state.worker.seat.id]
    if not mine:
        raise OperationalError(f"worker {state.hostname} is not signed on just now; ask again")
    return mine[0]


# -- what the file says of the tasks of a worker


class Facts:
    """What `inspect` lists of tasks, read from the file: by a worker for itself, by a caller for one that is silent."""

    def __init__(self, app: LiteTQ, engine: FileEngine) -> None:
        self._app = app
        self._engine = engine
        self._accept = serialization.accept_set(app.conf.accept_content)

    def active(
        self, worker: WorkerRow, safe: bool = False, began_at: Callable[[int], float | None] | None = None
    ) -> list[dict[str, Any]]:
        """Return the tasks whose code a worker has entered."""
        begun = self._engine.begun(worker)
        return [
            self._info(task, worker, begun, safe, began_at)
            for task in self._engine.mailbox.held(worker.id)
            if begun is None or task.claim in begun
        ]

    def reserved(self, worker: WorkerRow) -> list[dict[str, Any]]:
        """Return the tasks that a worker has claimed and not begun."""
        begun = self._engine.begun(worker)
        if begun is None:
            return []  # what may have begun is listed as active
        return [self._info(task, worker) for task in self._engine.mailbox.held(worker.id) if task.claim not in begun]

    def scheduled(self, worker: WorkerRow | None) -> list[dict[str, Any]]:
        """Return the tasks due later that are listed under this worker; None: those whose queues nobody serves.

        Nobody holds a task that is due later, so that each is listed once: under the worker of its queue that signed on
        first.
        """
        queues = [queue for queue, first in self._first_servers().items() if first == (worker and worker.id)]
        return [
            {"eta": context.iso(task.due_at), "priority": task.priority, "request": self._info(task, worker)}
            for task in (self._engine.mailbox.scheduled(queues) if queues else ())
        ]

    def _first_servers(self) -> dict[str, int | None]:
        """Return for each queue the worker that signed on first of those that serve it and may live."""
        servers = [
            (row.id, None if row.queues is None else frozenset(json.loads(row.queues)))
            for row in self._engine.workers()
            if self._engine.may_live(row)
        ]
        return {
            queue: next((id for id, served in servers if served is None or queue in served), None)
            for queue in self._engine.mailbox.queues()
        }

    def query(
        self, ids: Sequence[str], worker: WorkerRow, began_at: Callable[[int], float | None] | None = None
    ) -> dict[str, Any]:
        """Return [state, info] of those of these tasks that are this worker's, or due later and listed under it."""
        found: dict[str, Any] = {}
        begun = self._engine.begun(worker)
        servers: dict[str, int | None] | None = None
        for task in self._engine.mailbox.named(ids):
            if task.worker == worker.id:
                is_active = begun is None or task.claim in begun
                info = self._info(task, worker, begun if is_active else {}, False, began_at if is_active else None)
                found[task.id] = ["active" if is_active else "reserved", info]
            elif task.worker is None:
                servers = self._first_servers() if servers is None else servers
                if servers.get(task.queue) == worker.id:
                    found[task.id] = ["scheduled", self._info(task, worker)]
        return found

    def _info(
        self,
        task: Listed,
        worker: WorkerRow | None,
        begun: Mapping[int, int | None] | None = None,
        safe: bool = False,
        began_at: Callable[[int], float | None] | None = None,
    ) -> dict[str, Any]:
        has_begun = begun is None or task.claim in begun
        args, kwargs = self._shown(task) if safe else self._arguments(task)
        return {
            "id": task.id,
            "name": task.name,
            "args": args,
            "kwargs": kwargs,
            "type": task.name,
            "hostname": worker.name if worker is not None else None,
            "time_start": (began_at(task.claim) if began_at and task.claim else None) or task.started_at,
            "acknowledged": bool(has_begun and worker is not None and task.claim and task.name not in worker.late),
            "delivery_info": {
                "exchange": "",
                "routing_key": task.queue,
                "priority": task.priority,
                "redelivered": task.deliveries > 0,
            },
            "worker_pid": begun.get(task.claim) if begun is not None and task.claim is not None else None,
        }

    def _shown(self, task: Listed) -> tuple[str, str]:
        """Return texts for the arguments: those that the call gave for logs and monitors, else what they look like."""
        headers = json.loads(task.headers) if task.headers and "argsrepr" in task.headers else {}
        args, kwargs = self._arguments(task)
        return (
            headers.get("argsrepr") or (args if isinstance(args, str) else repr(tuple(args))),
            headers.get("kwargsrepr") or (kwargs if isinstance(kwargs, str) else repr(kwargs)),
        )

    def _arguments(self, task: Listed) -> tuple[Any, Any]:
        try:
            return serialization.loads_args(task.body, task.content_type, self._accept)
        except Exception as error:
            unreadable = f"<not readable here: {error}>"
            return unreadable, unreadable


# -- the thread that answers


class Desk:
    """The thread of a worker that answers commands, also while the worker is busy or stops, and sends its heartbeats.

    Args:
        after: number of the last command that is not for this worker: those given before it signed on.
        answers: False: it only sends the worker's heartbeats, which are events.
    """

    def __init__(self, worker: Node, after: int, *, answers: bool = True) -> None:
        self._worker = worker
        self._engine = worker.engine
        self._after = after
        self._answers = answers
        self._beat_at = clock.monotonic() + HEARTBEAT_S
        self._is_stopping = False
        self._tidy_at = clock.monotonic() + TIDY_S
        self._waiter = worker.engine.mail_waiter(COMMANDS)
        self._thread = threading.Thread(target=self._run, name=f"litetq-control-{worker.hostname}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the command that is just being answered. May be repeated."""
        self._is_stopping = True
        self._waiter.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        context.set_current_app(self._worker.app)
        while not self._is_stopping:
            self._waiter.announce()
            if self._is_stopping:  # before the announcement, which forgets the wake-up
                break
            self._waiter.wait(self._round())
        self._waiter.close()

    def _round(self) -> float:
        """Do what there is to do; return how many seconds to rest at most."""
        rest = DEAF_S if self._engine.bell.is_deaf else BACKSTOP_S
        try:
            if self._answers:
                for command in self._engine.mailbox.commands(self._after, clock.now()):
                    self._after = command.n
                    self._answer(command)
            if clock.monotonic() >= self._beat_at:
                self._beat_at = clock.monotonic() + HEARTBEAT_S
                self._worker.heartbeat()
            self._worker.tell_begun()
            if clock.monotonic() >= self._tidy_at:
                self._tidy_at = clock.monotonic() + TIDY_S
                self._engine.mailbox.prune(clock.now())
            return rest
        except OperationalError as error:
            logger.error("remote control: %s", error)
        except Exception:
            # Whoever asked gets no answer; the next one must.
            logger.exception("remote control raised; it goes on")
        return AFTER_ERROR_S

    def _answer(self, command: Command) -> None:
        body = command.body
        if not is_meant(self._worker.hostname, body.get("destination"), body.get("pattern"), body.get("matcher")):
            return
        answer = self._obey(body["method"], body.get("arguments") or {})
        if command.ticket is None or answer is NO_ANSWER:
            return
        lifetime = calling.seconds(self._worker.app.conf.control_queue_expires, "control_queue_expires")
        text = to_json(answer)
        self._engine.reply(command.ticket, self._worker.seat.id, self._worker.hostname, text, lifetime)

    def _obey(self, method: str, arguments: dict[str, Any]) -> Any:
        try:
            return PANEL[method].function(PanelState(self._worker), **arguments)
        except Exception as error:
            if method in PANEL:
                logger.error("remote control command %s failed: %r", method, error, exc_info=True)
            else:
                logger.error("No such control command: %s", method)
            return _error(repr(error))


def is_meant(
    node: str, destination: Sequence[str] | None = None, pattern: str | None = None, matcher: str | None = None
) -> bool:
    """Return whether a command with this address is meant for a node of this name."""
    if destination:
        return node in destination
    if pattern and matcher:
        return MATCHERS[matcher](node, pattern)
    return True


MATCHERS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "glob": fnmatch.fnmatchcase,
    "pcre": lambda node, pattern: re.match(pattern, node) is not None,
}


def to_json(value: Any) -> str:
    """Return a value as JSON; what JSON does not know is shown as text, sets as lists."""
    try:
        return json.dumps(value, default=plain)
    except (TypeError, ValueError, RecursionError):  # keys that are no text, cycles
        return json.dumps(repr(value))


def plain(value: Any) -> Any:
    return sorted(value, key=repr) if isinstance(value, (set, frozenset)) else repr(value)
