"""Remote control: commands to workers, which lie in the file, and what a worker answers.

    app.control.ping() -> a row and a ring -> each worker's `Desk` thread -> its answer, a row and a ring -> the caller

A desk is a thread of its own, so a worker answers while it is busy and while it stops. Who is signed on is known from the
file: a caller waits no longer than until all of them have answered. What `inspect` lists of tasks lies in the file too, and
is read there where no worker answers.
"""

from __future__ import annotations

import fnmatch
import json
import logging
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar, overload

from litetq import calling, clock, context, serialization
from litetq.engine import BACKSTOP_S, COMMANDS, DEAF_S, REPLIES
from litetq.events import HEARTBEAT_S, worker_event
from litetq.exceptions import DuplicateNodenameWarning, OperationalError
from litetq.lanes import interval_of
from litetq.mailbox import Command, Listed
from litetq.message import uuid

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.engine import FileEngine, Seat
    from litetq.roster import Worker as WorkerRow

F = TypeVar("F", bound=Callable[..., Any])

logger = logging.getLogger("celery.worker.control")

LOOK_AGAIN_S: Final = 0.1  # a caller looks so often whether those who have not answered are still there
TIDY_S: Final = 60.0  # between two looks of a desk for what is old
AFTER_ERROR_S: Final = 5.0
TERM: Final = "SIGTERM"
SHOWN_ATTRIBUTES: Final = ("exchange", "routing_key", "rate_limit")


# -- the worker's end: commands


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
        "pool": _pool_facts(found),
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


def _pool_facts(found: Any) -> dict[str, Any]:
    return {
        "implementation": f"litetq.pool:{found.pool}",
        "max-concurrency": found.concurrency,
        "processes": found.processes,
        "max-tasks-per-child": "N/A",
        "put-guarded-by-semaphore": True,
        "timeouts": [0, 0],
        "writes": "N/A",
    }


def _broker_facts(state: PanelState) -> dict[str, Any]:
    return {
        "hostname": str(state.engine.path),
        "userid": None,
        "virtual_host": "/",
        "port": None,
        "insist": False,
        "ssl": False,
        "transport": "sqlite",
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
def add_consumer(state: PanelState, queue: str, exchange: Any = None, **_: Any) -> Any:
    """Tell worker(s) to consume from task queue by name."""
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
    return [_queue_facts(name) for name in sorted(state.worker.queues)]


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
    limits = ("max_length", "max_length_bytes", "max_priority", "bindings")
    return {
        "name": name,
        "exchange": exchange,
        "routing_key": name,
        "durable": True,
        "exclusive": False,
        "auto_delete": False,
        "no_ack": False,
        "no_declare": None,
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
        ended = [id for id in sorted(ids) if state.worker.terminate(id, signal or TERM)]
    except (NotImplementedError, ValueError) as error:
        return _error(str(error))
    for id in ended:
        logger.info("Terminating %s (%s)", id, signal or TERM)
    return _ok(f"terminate: {', '.join(ended)}" if ended else "terminate: tasks unknown")


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
        ended = [id for id in found if state.worker.terminate(id, signal or TERM)]
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
        args, kwargs = self._arguments(task)
        return {
            "id": task.id,
            "name": task.name,
            "args": repr(tuple(args)) if safe and not isinstance(args, str) else args,
            "kwargs": repr(kwargs) if safe and not isinstance(kwargs, str) else kwargs,
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

    def _arguments(self, task: Listed) -> tuple[Any, Any]:
        try:
            return serialization.loads_args(task.body, task.content_type, self._accept)
        except Exception as error:
            unreadable = f"<not readable here: {error}>"
            return unreadable, unreadable


# -- the worker's end: the thread that answers


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
        lifetime: float = self._worker.app.conf.control_queue_expires or 10.0
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
        return json.dumps(value, default=_plain)
    except (TypeError, ValueError, RecursionError):  # keys that are no text, cycles
        return json.dumps(repr(value))


def _plain(value: Any) -> Any:
    return sorted(value, key=repr) if isinstance(value, (set, frozenset)) else repr(value)


# -- the caller's end


class Control:
    """Orders and questions to the workers of a file (`app.control`)."""

    def __init__(self, app: LiteTQ) -> None:
        self.app = app

    @property
    def inspect(self) -> Callable[..., Inspect]:
        """`inspect(destination=None, timeout=1.0, ...)` returns an `Inspect`."""
        app = self.app
        return lambda *args, **options: Inspect(*args, **{"app": app, **options})

    def broadcast(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        destination: Sequence[str] | None = None,
        connection: Any = None,
        reply: bool = False,
        timeout: float | None = 1.0,
        limit: int | None = None,
        callback: Callable[[dict[str, Any]], Any] | None = None,
        channel: Any = None,
        pattern: str | None = None,
        matcher: str | None = None,
        **extra_kwargs: Any,
    ) -> list[dict[str, Any]] | None:
        """Give a command to all workers, or those named; with `reply` return their answers: `[{node: answer}]`.

        The command is in the file when this returns. Those who are signed on get it, also those who are busy; it is too
        late for them after the setting `control_queue_ttl`.

        Args:
            destination: names of nodes, as a list.
            timeout: seconds to wait for answers; not longer than until all who are signed on have answered. None: only that.
            limit: answers to wait for.
            callback: called with each answer as it comes.
            pattern, matcher: names of nodes as a "glob" or "pcre" pattern; both or none.
            connection, channel: accepted and unused; there is one file.
            extra_kwargs: further arguments of the command.
        """
        _check_address(destination, pattern, matcher)
        body = {"method": command, "arguments": {**(arguments or {}), **extra_kwargs}, "destination": destination}
        if pattern and matcher:
            body.update(pattern=pattern, matcher=matcher)
        lifetime: float = self.app.conf.control_queue_ttl or 300.0
        text = json.dumps(body, default=_plain)
        engine = self.app.engine
        if not reply:
            engine.post(None, text, lifetime)
            return None
        ticket = uuid()
        asked = _Asked(engine, ticket, lambda node: is_meant(node, destination, pattern, matcher))
        with engine.mail_waiter(REPLIES) as waiter:
            waiter.announce()
            engine.post(ticket, text, lifetime)
            return asked.collect(waiter, timeout, limit, callback)

    # -- tasks

    def revoke(
        self,
        task_id: str | Iterable[str],
        destination: Sequence[str] | None = None,
        terminate: bool = False,
        signal: Any = TERM,
        **options: Any,
    ) -> list[dict[str, Any]] | None:
        """Order not to run these tasks: what has not begun ends as REVOKED, ids not seen yet are remembered.

        That is done when this returns, also where no worker lives, whatever `destination` says. What runs goes on; with
        `terminate` the worker that runs it ends it. `options` as for `broadcast`.
        """
        if not isinstance(task_id, Iterable):
            raise TypeError(f"revoke needs the id of a task, or several, found {task_id!r}")
        ids = [task_id] if isinstance(task_id, str) else [str(id) for id in task_id]
        _check_address(destination, options.get("pattern"), options.get("matcher"))
        self.app.engine.revoke(ids, "revoked")
        if not terminate and not options.get("reply"):
            return None
        arguments = {"task_id": ids, "terminate": terminate, "signal": _signal_name(signal)}
        return self.broadcast("revoke", arguments, destination, **options)

    def revoke_by_stamped_headers(
        self,
        headers: Any,
        destination: Sequence[str] | None = None,
        terminate: bool = False,
        signal: Any = TERM,
        **options: Any,
    ) -> list[dict[str, Any]] | None:
        """Revoke the tasks that carry any of these stamps (`{name: stamp or stamps}`), now or within three hours.

        As `revoke`: done when this returns, also where no worker lives.
        """
        _check_address(destination, options.get("pattern"), options.get("matcher"))
        stamps = stamps_of(headers)
        self.app.engine.revoke_stamped(stamps)
        if not terminate and not options.get("reply"):
            return None
        given = dict(headers) if isinstance(headers, Mapping) else stamps
        arguments = {"headers": given, "terminate": terminate, "signal": _signal_name(signal)}
        return self.broadcast("revoke_by_stamped_headers", arguments, destination, **options)

    def terminate(
        self, task_id: str | Iterable[str], destination: Sequence[str] | None = None, signal: Any = TERM, **options: Any
    ) -> list[dict[str, Any]] | None:
        """Revoke these tasks and end those that run."""
        return self.revoke(task_id, destination, True, signal, **options)

    def purge(self, queues: Sequence[str] | str | None = None) -> int:
        """Remove all waiting tasks (of these queues); return how many. What runs goes on."""
        if isinstance(queues, str):
            queues = [name.strip() for name in queues.split(",")]
        if queues is not None and not isinstance(queues, Iterable):
            raise TypeError(f"queues must be a list of names, found {queues!r}")
        names = None if queues is None else sorted({calling.queue_name(queue) for queue in queues})
        purged: int = self.app.engine.purge(names)
        return purged

    discard_all = purge

    def rate_limit(self, task_name: str, rate_limit: Any, destination: Any = None, **options: Any) -> Any:
        """Set the rate limit of a task: "10/s", "10/m", "10/h", a number per second, 0 or None for none.

        It is in the file when this returns, also where no worker lives, and holds for all workers. Raises ValueError for
        what is no rate, unless a reply says so.
        """
        if not options.get("reply"):
            self.app.engine.set_rate_limit(task_name, rate_limit)
            return None
        return self.broadcast("rate_limit", {"task_name": task_name, "rate_limit": rate_limit}, destination, **options)

    def time_limit(
        self,
        task_name: str,
        soft: float | None = None,
        hard: float | None = None,
        destination: Any = None,
        **options: Any,
    ) -> Any:
        """Set the time limits of a task, in seconds, for what is started from now on."""
        arguments = {"task_name": task_name, "hard": hard, "soft": soft}
        return self.broadcast("time_limit", arguments, destination, **options)

    # -- workers

    def ping(self, destination: Any = None, timeout: float | None = 1.0, **options: Any) -> Any:
        """Return `[{node: {"ok": "pong"}}]` of those who live."""
        return self.broadcast("ping", {}, destination, reply=True, timeout=timeout, **options)

    def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str = "direct",
        routing_key: str | None = None,
        options: Mapping[str, Any] | None = None,
        destination: Any = None,
        **broadcast: Any,
    ) -> Any:
        """Let workers serve a further queue. Exchange and routing key have no meaning for a file."""
        arguments = {
            "queue": queue,
            "exchange": exchange,
            "exchange_type": exchange_type,
            "routing_key": routing_key,
            **(options or {}),
        }
        return self.broadcast("add_consumer", arguments, destination, **broadcast)

    def cancel_consumer(self, queue: str, destination: Any = None, **options: Any) -> Any:
        """Let workers no longer serve a queue; what they have claimed of it they run."""
        return self.broadcast("cancel_consumer", {"queue": queue}, destination, **options)

    def enable_events(self, destination: Any = None, **options: Any) -> Any:
        """Let workers send events, as with -E."""
        return self.broadcast("enable_events", {}, destination, **options)

    def disable_events(self, destination: Any = None, **options: Any) -> Any:
        """Let workers send no more events."""
        return self.broadcast("disable_events", {}, destination, **options)

    def heartbeat(self, destination: Any = None, **options: Any) -> Any:
        """Let workers send the event worker-heartbeat now, also those that send no other events."""
        return self.broadcast("heartbeat", {}, destination, **options)

    def pool_grow(self, n: int = 1, destination: Any = None, **options: Any) -> Any:
        """Let pools have n more processes or threads."""
        return self.broadcast("pool_grow", {"n": n}, destination, **options)

    def pool_shrink(self, n: int = 1, destination: Any = None, **options: Any) -> Any:
        """Let pools have n fewer processes or threads."""
        return self.broadcast("pool_shrink", {"n": n}, destination, **options)

    def pool_restart(
        self, modules: Any = None, reload: bool = False, reloader: Any = None, destination: Any = None, **options: Any
    ) -> Any:
        """Let pools start anew; needs the setting `worker_pool_restarts`."""
        arguments = {"modules": modules, "reload": reload, "reloader": reloader}
        return self.broadcast("pool_restart", arguments, destination, **options)

    def autoscale(self, max: int, min: int, destination: Any = None, **options: Any) -> Any:
        """Set between which sizes pools scale themselves."""
        return self.broadcast("autoscale", {"max": max, "min": min}, destination, **options)

    def shutdown(self, destination: Any = None, **options: Any) -> Any:
        """Stop workers: what runs may finish. No worker answers this."""
        return self.broadcast("shutdown", {}, destination, **options)


def _check_address(destination: Any, pattern: Any, matcher: Any) -> None:
    if destination is not None and not isinstance(destination, (list, tuple)):
        raise ValueError(f"destination must be a list/tuple not {type(destination)}")
    if pattern is not None and matcher is not None:
        if not isinstance(pattern, str) or not isinstance(matcher, str):
            raise ValueError(f"pattern and matcher must be strings not {type(pattern)}, {type(matcher)}")
        if matcher not in MATCHERS:
            raise ValueError(f"matcher={matcher!r}: there is no such matcher; choose one of {', '.join(MATCHERS)}")
        if matcher == "pcre":
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"pattern={pattern!r} is no regular expression: {error}") from error


def _signal_name(signal: Any) -> Any:
    return getattr(signal, "name", signal)


class _Asked:
    """Those who were asked, and what they have answered so far."""

    def __init__(self, engine: FileEngine, ticket: str, is_asked: Callable[[str], bool]) -> None:
        self._engine = engine
        self._ticket = ticket
        self._is_asked = is_asked
        self._answered: set[int] = set()
        self._after = 0
        self._found: list[dict[str, Any]] = []

    def collect(
        self, waiter: Any, timeout: float | None, limit: int | None, callback: Callable[[dict[str, Any]], Any] | None
    ) -> list[dict[str, Any]]:
        deadline = None if timeout is None else time.monotonic() + timeout
        was_asked = False
        while True:
            for reply in self._engine.mailbox.replies(self._ticket, self._after):
                self._after = reply.n
                self._answered.add(reply.worker)
                self._found.append({reply.node: reply.value})
                if callback is not None:
                    callback(self._found[-1])
                if limit and len(self._found) >= limit:
                    return self._found
            missing = self._missing()
            was_asked = was_asked or bool(missing or self._found)
            # Where nobody is signed on, one who just starts may not be so yet: the full time, as in Celery.
            if not missing and (was_asked or deadline is None):
                return self._found
            rest = LOOK_AGAIN_S if deadline is None else min(LOOK_AGAIN_S, deadline - time.monotonic())
            if rest <= 0:
                return self._found
            waiter.wait(min(rest, DEAF_S) if self._engine.bell.is_deaf else rest)
            waiter.announce()

    def _missing(self) -> bool:
        """Return whether anybody is signed on, lives and answers commands who was asked and has not answered."""
        return any(
            row.id not in self._answered
            and self._is_asked(row.name)
            and json.loads(row.info or "{}").get("control", True)
            and self._engine.may_live(row)
            for row in self._engine.workers()
        )


class Inspect:
    """Questions to the workers of a file. Each method returns `{node: answer}`, or None when nobody answered.

    `active`, `reserved` and `scheduled` are answered from the file for nodes that do not answer.

    Args:
        destination: names of nodes; with one name instead of a list, methods return its answer alone.
        timeout, callback, limit, pattern, matcher: as for `Control.broadcast`.
    """

    def __init__(
        self,
        destination: str | Sequence[str] | None = None,
        timeout: float | None = 1.0,
        callback: Callable[[dict[str, Any]], Any] | None = None,
        connection: Any = None,
        app: LiteTQ | None = None,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> None:
        self._app = app
        self.destination = destination
        self.timeout = timeout
        self.callback = callback
        self.limit = limit
        self.pattern = pattern
        self.matcher = matcher or ("glob" if pattern else None)

    @property
    def app(self) -> LiteTQ:
        app = self._app or context.get_current_app()
        if app is None:
            raise RuntimeError("inspect belongs to no app: use app.control.inspect(...)")
        return app

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        replies = self.app.control.broadcast(
            command,
            arguments,
            self._nodes(),
            reply=True,
            timeout=self.timeout,
            limit=self.limit,
            callback=self.callback,
            pattern=self.pattern,
            matcher=self.matcher,
        )
        return _by_node(replies or [])

    def _nodes(self) -> Sequence[str] | None:
        return [self.destination] if isinstance(self.destination, str) else self.destination

    def _result(self, found: dict[str, Any]) -> Any:
        if isinstance(self.destination, str):
            return found.get(self.destination)
        return found or None

    def _request(self, command: str, **arguments: Any) -> Any:
        return self._result(self._ask(command, **arguments))

    def _with_file(self, command: str, list_of: Callable[[Facts, WorkerRow], list[Any]], **arguments: Any) -> Any:
        """Ask, and add what the file knows of those that did not answer."""
        engine = self.app.engine
        meant = [row for row in engine.workers() if is_meant(row.name, self._nodes(), self.pattern, self.matcher)]
        found = self._ask(command, **arguments) if any(engine.may_live(row) for row in meant) else {}
        facts = Facts(self.app, engine)
        for row in meant:
            if row.name not in found:
                listed = list_of(facts, row)
                if listed:
                    found[row.name] = listed
        return found

    # -- from the file where need be

    def active(self, safe: bool | None = None) -> Any:
        """Return the tasks that run."""
        return self._result(self._with_file("active", lambda facts, row: facts.active(row, bool(safe)), safe=safe))

    def reserved(self, safe: bool | None = None) -> Any:
        """Return the tasks that a worker has claimed and not begun."""
        return self._result(self._with_file("reserved", lambda facts, row: facts.reserved(row)))

    def scheduled(self, safe: bool | None = None) -> Any:
        """Return the tasks due later: `{node: [{"eta", "priority", "request"}]}`.

        Those of queues that nobody serves are listed under `file@<name of the file>`.
        """
        found = self._with_file("scheduled", lambda facts, row: facts.scheduled(row))
        name = f"file@{self.app.engine.path.name}"
        if is_meant(name, self._nodes(), self.pattern, self.matcher):
            unserved = Facts(self.app, self.app.engine).scheduled(None)
            if unserved:
                found[name] = unserved
        return self._result(found)

    # -- from workers

    def report(self) -> Any:
        """Return the bug report of each worker."""
        return self._request("report")

    def conf(self, with_defaults: bool = False) -> Any:
        """Return the settings of each worker, secrets hidden."""
        return self._request("conf", with_defaults=with_defaults)

    def query_task(self, *ids: Any) -> Any:
        """Return `{node: {id: [state, info]}}` of tasks that a worker holds or lists as scheduled."""
        wanted = ids[0] if len(ids) == 1 and isinstance(ids[0], (list, tuple)) else ids
        return self._request("query_task", ids=list(wanted))

    def clock(self) -> Any:
        """Return a number that grows with the life of the file."""
        return self._request("clock")

    def ping(self, destination: str | Sequence[str] | None = None) -> Any:
        """Return `{node: {"ok": "pong"}}` of those who live."""
        if destination:
            self.destination = destination
        return self._request("ping")

    def stats(self) -> Any:
        """Return what each worker is and has done."""
        return self._request("stats")

    def revoked(self) -> Any:
        """Return the ids that were revoked lately."""
        return self._request("revoked")

    def registered(self, *taskinfoitems: str) -> Any:
        """Return the names of the tasks that each worker knows, with these of their attributes."""
        return self._request("registered", taskinfoitems=list(taskinfoitems))

    registered_tasks = registered

    def active_queues(self) -> Any:
        """Return the queues that each worker serves."""
        return self._request("active_queues")

    def hello(self, from_node: str, revoked: Any = None) -> Any:
        return self._request("hello", from_node=from_node, revoked=revoked)

    def memsample(self) -> Any:
        """Return how much memory each worker has; needs psutil there."""
        return self._request("memsample")

    def memdump(self, samples: int = 10) -> Any:
        """Return the last samples that `memsample` took."""
        return self._request("memdump", samples=samples)

    def objgraph(self, type: str = "Request", n: int = 200, max_depth: int = 10) -> Any:
        """Let each worker draw who holds objects of a type; needs objgraph there."""
        return self._request("objgraph", num=n, max_depth=max_depth, type=type)


def _by_node(replies: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return answers by node; warns of two nodes of one name."""
    found: dict[str, Any] = {}
    twice = set()
    for reply in replies:
        twice |= found.keys() & reply.keys()
        found.update(reply)
    if twice:
        names = ", ".join(sorted(twice))
        warnings.warn(
            f"Received multiple replies from node {'name' if len(twice) == 1 else 'names'}: {names}.\n"
            "Please make sure you give each node a unique nodename using\nthe worker's `-n` option.",
            DuplicateNodenameWarning,
            stacklevel=4,
        )
    return found
