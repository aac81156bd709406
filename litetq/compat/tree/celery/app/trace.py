"""One attempt of a task, as tracing tools meet it: they replace `build_tracer` here, or wrap what it returns.

`build_tracer(name, task, ...)` makes the function that runs attempts of a task; it is called as `trace(uuid, args, kwargs,
request)`. While nobody has replaced it, the worker goes past it; once somebody has, every attempt goes through what they made.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

from litetq import calling, context, execution, serialization, states
from litetq.context import Context
from litetq.execution import ExceptionInfo as ExceptionInfo
from litetq.message import Delivery, Message, Outcome

__all__ = [
    "TraceInfo", "build_tracer", "reset_worker_optimizations", "setup_worker_optimizations", "trace_task",
]  # fmt: skip

logger = logging.getLogger("celery.app.trace")
IGNORE_STATES = frozenset({states.IGNORED, states.RETRY, states.REJECTED})
_BASE_MODULES = ("litetq.task", "celery.app.task")  # where what every task has is defined, under either name


class trace_ok_t(NamedTuple):
    """How an attempt ended: its value, what went wrong or None, seconds, and the value as text."""

    retval: Any
    info: Any
    runtime: float
    retstr: str


class TraceInfo:
    """What went wrong, or which state an attempt ended in."""

    __slots__ = ("retval", "state")

    def __init__(self, state: str, retval: Any = None) -> None:
        self.state = state
        self.retval = retval


class _Attempt:
    """One delivery on its way through the tools that wrap the tracer."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.outcome: Outcome | None = None


_attempt: ContextVar[_Attempt | None] = ContextVar("litetq_traced_attempt", default=None)


def task_has_custom(task: Any, attr: str) -> bool:
    """Return whether the task's class, or something assigned to it, defines this attribute anew."""
    for kind in type(task).__mro__:
        if attr in kind.__dict__:
            found = kind.__dict__[attr]
            return not (kind.__module__ in _BASE_MODULES and getattr(found, "__module__", None) in _BASE_MODULES)
    return False


def build_tracer(
    name: str,
    task: Any,
    loader: Any = None,
    hostname: str | None = None,
    store_errors: bool = True,
    Info: Any = TraceInfo,
    eager: bool = False,
    propagate: bool = False,
    app: Any = None,
    monotonic: Callable[[], float] = time.monotonic,
    trace_ok_t: Any = trace_ok_t,
    IGNORE_STATES: Any = IGNORE_STATES,
) -> Callable[..., Any]:
    """Return the function that runs attempts of a task: `trace(uuid, args, kwargs, request)` -> `trace_ok_t`."""
    program = app or task.app
    tracer = execution.Tracer(name, task, app=program, hostname=hostname)

    def trace(uuid: str, args: Any, kwargs: Any, request: Mapping[str, Any] | None = None) -> Any:
        attempt = _attempt.get()
        if attempt is not None and attempt.outcome is None and attempt.delivery.id == uuid:
            outcome = attempt.outcome = tracer(attempt.delivery)
            return _as_celery_tells(outcome, program, Info, trace_ok_t)
        return _run_here(task, uuid, args, kwargs, request or {}, propagate, Info, trace_ok_t)

    return trace


_own_build_tracer = build_tracer


def _for_worker(name: str, task: Any, *, app: Any, hostname: str | None = None) -> execution.Trace:
    """Make the tracer of a worker: litetq's own, or what the tools that replaced `build_tracer` make of it."""
    if build_tracer is _own_build_tracer:
        return execution.Tracer(name, task, app=app, hostname=hostname)
    traced = build_tracer(name, task, app.loader, hostname, app=app)
    plain = execution.Tracer(name, task, app=app, hostname=hostname)

    def trace(delivery: Delivery) -> Outcome:
        try:
            args, kwargs = plain.arguments(delivery)
        except Exception:
            return plain(delivery)  # which says what is wrong with the bytes
        attempt = _Attempt(delivery)
        token = _attempt.set(attempt)
        try:
            traced(delivery.id, args, kwargs, request_of(delivery, hostname, args, kwargs))
        except Exception:
            if attempt.outcome is None:
                raise
            logger.exception("Task %s[%s]: what wraps its tracer raised; the end of the task stands", name, delivery.id)
        finally:
            _attempt.reset(token)
        if attempt.outcome is None:
            raise RuntimeError(
                f"what replaced celery.app.trace.build_tracer did not run task {name!r}: its tracer must call the one it wraps"
            )
        return attempt.outcome

    return trace


execution.build_tracer = _for_worker


def request_of(delivery: Delivery, hostname: str | None, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the request of a delivery as Celery hands it to a tracer: headers, custom ones among them, and arguments."""
    message = Message(
        delivery.id, delivery.name, delivery.body, delivery.content_type, delivery.queue, delivery.priority, delivery.eta,
        delivery.expires_at, delivery.retries, delivery.root_id, delivery.parent_id, delivery.headers,
    )  # fmt: skip
    custom = (json.loads(delivery.headers).get("headers") if delivery.headers else None) or {}
    return {
        **calling.protocol_headers(message),
        "headers": custom.get("headers", custom),
        "args": args,
        "kwargs": kwargs,
        "hostname": hostname,
        "is_eager": False,
        "correlation_id": delivery.id,
        "delivery_info": {
            "exchange": "",
            "routing_key": delivery.queue,
            "priority": delivery.priority,
            "redelivered": delivery.deliveries > 0,
        },
        "properties": {"correlation_id": delivery.id},
    }


def _as_celery_tells(outcome: Outcome, app: Any, Info: Any, ended: Any) -> Any:
    value: Any = None
    if outcome.result is not None:
        accept = frozenset({outcome.content_type or serialization.JSON})  # written by this very process
        read = serialization.decode if outcome.state == states.SUCCESS else serialization.decode_exception
        value = read(outcome.result, outcome.content_type, accept)
    info = None if outcome.state == states.SUCCESS else Info(outcome.state, value)
    return ended(value, info, outcome.runtime or 0.0, execution.shorten(repr(value)))


def _run_here(
    task: Any, id: str, args: Any, kwargs: Any, request: Mapping[str, Any], propagate: bool, Info: Any, ended_as: Any
) -> Any:
    """Run an attempt that no file knows of, as `trace_task` and tests do."""
    made = Context(**{**request, "id": id, "args": args, "kwargs": kwargs, "task": task.name, "called_directly": False})
    ended = execution.run_eagerly(task, made, args, kwargs)
    if propagate and isinstance(ended.value, Exception) and ended.state in states.PROPAGATE_STATES:
        raise ended.value
    info = None if ended.state == states.SUCCESS else Info(ended.state, ended.value)
    return ended_as(ended.value, info, ended.runtime, execution.shorten(repr(ended.value)))


def trace_task(
    task: Any, uuid: str, args: Any, kwargs: Any, request: Mapping[str, Any] | None = None, **options: Any
) -> Any:
    """Run an attempt of a task here and now, and return how it ended."""
    return build_tracer(task.name, task, **options)(uuid, args, kwargs, request)


def setup_worker_optimizations(app: Any, hostname: str | None = None) -> None:
    """Make this app the default one, as a worker does for its process."""
    context.set_default_app(app)


def reset_worker_optimizations(app: Any = None) -> None:
    """Do nothing: a worker patches nothing that could be put back."""


def get_task_name(request: Any, default: str) -> str:
    """Return the name that logs show for a task: that of its call, if it has one."""
    return getattr(request, "shadow", None) or default


def saferepr(o: Any, maxlen: int = 128, **_: Any) -> str:
    """Return a value as text of at most so many characters."""
    return execution.shorten(repr(o), maxlen)
