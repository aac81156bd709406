"""From a call and its options to a message in the file: what `apply_async`, `send_task` and `retry` have in common.

Everything is decided here in the calling process: times become UTC seconds, the body becomes bytes, wrong options become a
TypeError before anything is written. The hot path is a call without options (`delay`): figures stand at `send`.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final, TypedDict

from litetq import clock, context, serialization, signals
from litetq.address import is_of_broker
from litetq.exceptions import EncodeError, StoreBusy
from litetq.message import ROUTE, Message, Plan, uuid
from litetq.result import AsyncResult
from litetq.retry import RetryPolicy
from litetq.routing import has_own

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.context import Context
    from litetq.task import Task

PRIORITY_MAX: Final = 255
_FIRST_MOMENT, _LAST_MOMENT = -62_135_596_800.0, 253_402_300_799.0  # the years 1 to 9999, which is what can be shown


class CallOptions(TypedDict, total=False):
    """The options of one call beside `task_id`, as Celery names them; `durability`, `callback` and `if_new` are ours."""

    countdown: float | None  # seconds from now; negative is now; wins over eta
    eta: datetime | str | None  # not before; without a time zone it is UTC
    expires: float | datetime | str | None  # seconds from now, or a point in time; not started by then: REVOKED
    queue: Any  # a name, or an object with one
    priority: int | None  # 0..255, higher first; what is beyond is clipped
    serializer: str | None
    compression: str | None
    ignore_result: bool | None
    retry: bool | None  # try again while the file is busy; default task_publish_retry
    retry_policy: Mapping[str, Any] | None
    headers: Mapping[str, Any] | None
    shadow: str | None
    time_limit: float | None
    soft_time_limit: float | None
    argsrepr: str | None
    kwargsrepr: str | None
    reply_to: str | None
    add_to_parent: bool | None
    group_id: str | None
    group_index: int | None
    retries: int | None
    root_id: str | None
    parent_id: str | None
    replaced_task_nesting: int | None
    stamped_headers: Sequence[str] | None
    result_cls: Any
    link: Any  # a signature, or a list of them: called with the value when the task has succeeded
    link_error: Any  # the same for a failure
    durability: str | None  # "normal" or "full", for this call
    callback: Callable[[Any], Any] | None  # called with the result when the task has ended, as `result.then`
    if_new: bool | None  # with a task_id: where the file knows that id, nothing is enqueued and its result is returned
    throw: bool | None  # in eager mode: raise what the task raises; default task_eager_propagates
    # What chooses a connection or a place in a broker; accepted, and without meaning for a file:
    connection: Any
    producer: Any
    publisher: Any
    router: Any
    route_name: str | None
    task_type: Any
    exchange: Any
    routing_key: str | None
    delivery_mode: Any
    mandatory: bool | None
    immediate: bool | None


# Of how many arguments to come: those of an errback are no reason to refuse the call it belongs to. In Celery they show, if
# they do not fit, when it is called.
UNCHECKED: Final = -1
KNOWN_OPTIONS: Final = frozenset({"task_id", *CallOptions.__annotations__})
# Celery's header names whose values are the options' own.
_COPIED: Final = (
    "shadow",
    "argsrepr",
    "kwargsrepr",
    "reply_to",
    "ignore_result",
    "replaced_task_nesting",
    "group_index",
)


def refuse_unknown(options: Mapping[str, Any], task_name: str) -> None:
    """Raise TypeError for an option that no call has, naming the nearest one that there is.

    Names listed in `stamped_headers` are stamps and allowed.
    """
    stamps = options.get("stamped_headers") or ()
    for name in options:
        if name in KNOWN_OPTIONS or name in stamps:
            continue
        import difflib

        near = difflib.get_close_matches(name, KNOWN_OPTIONS, 1)
        hint = f"did you mean {near[0]!r}?" if near else "arguments of the task itself go into args and kwargs."
        raise TypeError(f"call of task {task_name!r}: unknown option {name!r}; {hint}")


def parent_request() -> Context | None:
    """Return the request of the attempt that a worker (or `apply`) runs here, looking through direct calls."""
    request = context.get_current_request()
    while request is not None and request.called_directly:
        request = request.get("outer")
    return request


# -- options to fields ---------------------------------------------------------------------------------------------


def point_in_time(value: datetime | str, option: str) -> float:
    """Return a point in time as UTC seconds; without a time zone it is UTC, as in Celery.

    Raises TypeError for anything but a datetime or its ISO 8601 text.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value[:-1] + "+00:00" if value.endswith("Z") else value)
        except ValueError:
            raise TypeError(f"option {option!r} must be a datetime or ISO 8601 text, found {value!r}") from None
    if not isinstance(value, datetime):
        raise TypeError(f"option {option!r} must be a datetime, found {value!r} ({type(value).__name__})")
    at = (value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value).timestamp()
    return min(max(at, _FIRST_MOMENT), _LAST_MOMENT)


def seconds(value: Any, option: str) -> float:
    """Return a span in seconds; TypeError for what is not a number, ValueError for NaN."""
    total_seconds = getattr(value, "total_seconds", None)
    try:
        span = float(value if total_seconds is None else total_seconds())  # also Decimal, Fraction, numpy's numbers
    except (TypeError, ValueError):
        raise TypeError(f"option {option!r} must be seconds, found {value!r} ({type(value).__name__})") from None
    except OverflowError:
        span = math.inf
    if span != span:
        raise ValueError(f"option {option!r} must be seconds, found {value!r}, which is no number")
    return span


def _from_now(span: float, option: str) -> float:
    at = clock.now() + span
    if not _FIRST_MOMENT <= at <= _LAST_MOMENT:
        raise ValueError(f"option {option!r} must lead to a time in the years 1 to 9999, found {span} seconds")
    return at


def due_time(countdown: Any, eta: Any) -> float | None:
    """Return when a task may start, UTC seconds; None is now. A countdown wins over an eta; negative is now."""
    if countdown is not None:
        delay = seconds(countdown, "countdown")
        return _from_now(delay, "countdown") if delay > 0 else None
    return None if eta is None else point_in_time(eta, "eta")


def expiry_time(expires: Any) -> float | None:
    """Return until when a task must have started, UTC seconds; None is for ever."""
    if expires is None:
        return None
    if isinstance(expires, (datetime, str)):
        return point_in_time(expires, "expires")
    return _from_now(seconds(expires, "expires"), "expires")


def priority_of(value: Any) -> int:
    """Return a priority within 0..255; TypeError for what is not a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"option 'priority' must be a whole number from 0 to {PRIORITY_MAX}, found {value!r}")
    return min(max(value, 0), PRIORITY_MAX)


def queue_name(queue: Any) -> str:
    """Return the name of a queue given as text or as an object with a name; TypeError for anything else."""
    name = getattr(queue, "name", queue)
    if not isinstance(name, str) or not name:
        raise TypeError(f"option 'queue' must be the name of a queue, found {queue!r}")
    return name


def text(value: Any, option: str) -> str:
    """Return a text that a file can keep; TypeError for anything else, ValueError for half a surrogate pair in it."""
    if not isinstance(value, str):
        raise TypeError(f"option {option!r} must be a text, found {value!r} ({type(value).__name__})")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"option {option!r} has a letter that UTF-8 cannot write, found {value!a}") from None
    return value


def _count(value: Any, option: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"option {option!r} must be a whole number from 0 up, found {value!r}")


def _limit(value: Any, option: str) -> None:
    if seconds(value, option) < 0:
        raise ValueError(f"option {option!r} must be 0 seconds or more, found {value!r}")


def _mapping(value: Any, option: str) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"option {option!r} must be a mapping of names to values, found {value!r}")


def _policy(value: Any, option: str) -> None:
    _mapping(value, option)
    RetryPolicy.from_mapping(value)


def _function(value: Any, option: str) -> None:
    if not callable(value):
        raise TypeError(f"option {option!r} must be a function or a class, found {value!r}")


def _durability(value: Any, option: str) -> None:
    if value not in ("normal", "full"):
        raise ValueError(f"option {option!r} must be 'normal' or 'full', found {value!r}")


# What would otherwise show only after the commit, in the worker, or never.
_CHECKS: Final[Mapping[str, Callable[[Any, str], object]]] = {
    **dict.fromkeys(("task_id", "root_id", "parent_id", "group_id"), text),
    "queue": lambda value, option: text(queue_name(value), option),
    "retries": _count,
    "headers": _mapping,
    "time_limit": _limit,
    "soft_time_limit": _limit,
    "retry_policy": _policy,
    "durability": _durability,
    "callback": _function,
    "result_cls": _function,
}


def check_values(options: Mapping[str, Any]) -> None:
    """Raise TypeError or ValueError for an option whose value cannot be used."""
    for option, value in options.items():
        check = _CHECKS.get(option)
        if check is not None and value is not None:
            check(value, option)


def time_limits(hard: Any, soft: Any) -> list[float | None]:
    """Return both time limits in seconds, None where there is none; ValueError for a soft one beyond the hard one."""
    limits = [limit.total_seconds() if isinstance(limit, timedelta) else limit for limit in (hard, soft)]
    if all(limits) and limits[1] > limits[0]:
        raise ValueError("soft_time_limit must be less than or equal to time_limit")  # Celery's own sentence
    return limits


def headers_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the options that travel as headers, under Celery's header names; defaults are left out."""
    headers = {name: options[name] for name in _COPIED if options.get(name) is not None}
    if options.get("group_id") is not None:
        headers["group"] = options["group_id"]
    hard, soft = options.get("time_limit"), options.get("soft_time_limit")
    if hard is not None or soft is not None:
        headers["timelimit"] = time_limits(hard, soft)
    if options.get("stamped_headers"):
        headers.update(stamps_of(options))
    if options.get("headers"):
        headers["headers"] = dict(options["headers"])
    return headers


def stamps_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a request shows of the stamps among options: nothing where there are none."""
    stamped = [name for name in options.get("stamped_headers") or () if name in options]
    return (
        {"stamped_headers": stamped, "stamps": {name: _as_stamp(options[name]) for name in stamped}} if stamped else {}
    )


def _as_stamp(value: Any) -> Any:
    """Return what JSON can write of a stamp: one value, or a list of several."""
    return list(value) if isinstance(value, (tuple, set, frozenset)) else value


write_headers: Final = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make an encoder for each call


def encode_headers(headers: Mapping[str, Any], name: str) -> str | None:
    """Return headers as a message keeps them; EncodeError when one has no JSON form."""
    if not headers:
        return None
    try:
        return write_headers(headers)
    except (TypeError, ValueError, RecursionError) as error:
        raise EncodeError(f"the headers of a call of task {name!r} cannot be written as JSON: {error}") from error


def checked_arguments(name: str, args: Any, kwargs: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return args and kwargs, empty for None; TypeError when they are not a list and a mapping."""
    if args is None:
        args = ()
    elif not isinstance(args, (list, tuple)):
        raise TypeError(
            f"call of task {name!r}: args must be a list or tuple, found {args!r}; (x) is no tuple, (x,) is"
        )
    if kwargs is None:
        kwargs = {}
    elif type(kwargs) is not dict and not isinstance(kwargs, Mapping):
        raise TypeError(f"call of task {name!r}: kwargs must be a mapping of names to values, found {kwargs!r}")
    return args, kwargs


# -- one call ------------------------------------------------------------------------------------------------------


def message_for(
    app: LiteTQ,
    name: str,
    task: Task[..., Any] | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
    parent: Context | None = None,
) -> Message:
    """Return the message of one call; options stand over the task's attributes, these over the settings.

    Raises TypeError or ValueError for a wrong option, EncodeError for arguments that the serializer cannot write.
    """
    conf, router = app.conf, app.router
    if not router.is_plain:
        options = router.options_for(name, task, args, kwargs, options)
        refuse_unknown(options, name)  # a route may have said anything
    if options:
        check_values(options)
    own = _Defaults if task is None else task
    queue = options.get("queue")
    if queue is None:
        queue = own.queue
    serializer = options.get("serializer") or own.serializer or conf.task_serializer
    compression = options.get("compression") or own.compression or conf.task_compression
    priority = options.get("priority")
    if priority is None and parent is not None and conf.task_inherit_parent_priority and not has_own(task, "priority"):
        priority = (parent.delivery_info or {}).get("priority")
    if priority is None:
        priority = own.priority
    if priority is None:
        priority = conf.task_default_priority
    expires = options["expires"] if "expires" in options else own.expires
    headers = headers_of(options) if options else None
    if options and (options.get("exchange") or options.get("routing_key")) and is_of_broker(app.broker_address.scheme):
        headers = {**(headers or {}), ROUTE: _route_of(options)}
    root_id, parent_id = options.get("root_id"), options.get("parent_id")
    if parent is not None:
        root_id = root_id or parent.root_id or parent.id
        parent_id = parent_id or parent.id
    if signals.before_task_publish.receivers:
        call = Publication(name, args, kwargs, queue_name(queue or conf.task_default_queue), priority, headers)
        id = call.ask_receivers(options, root_id, parent_id, expires)
        queue, priority, headers = call.queue, call.priority, call.headers
    else:
        id = options.get("task_id") or uuid()
    content_type, body = serialization.dumps_args(args, kwargs, serializer, compression)
    queue = router.default if queue is None else queue if type(queue) is str else queue_name(queue)
    priority = 0 if priority is None else priority_of(priority)
    return Message(
        id,
        name,
        body,
        content_type,
        queue,
        priority if router.is_plain else router.clipped(priority, queue),
        due_time(options.get("countdown"), options.get("eta")) if options else None,
        None if expires is None else expiry_time(expires),
        options.get("retries") or 0,
        root_id,
        parent_id,
        encode_headers(headers, name) if headers else None,
    )


def _route_of(options: Mapping[str, Any]) -> list[str | None]:
    """Return exchange and routing key that a call names itself: a broker sends it that way, to any number of queues."""
    exchange = options.get("exchange")
    return [getattr(exchange, "name", exchange) or None, options.get("routing_key") or None]


def maker_of_more(
    app: LiteTQ, message: Message, task: Task[..., Any], options: Mapping[str, Any]
) -> Callable[[Sequence[Any], Mapping[str, Any], str | None], Message] | None:
    """Return what makes further messages like this one, of other arguments and headers, for a tenth of the time.

    None where each call must be looked at: a route or a receiver of a signal may say something else of each.
    """
    if not app.router.is_plain or signals.before_task_publish.receivers:
        return None
    serializer = options.get("serializer") or task.serializer or app.conf.task_serializer
    compression = options.get("compression") or task.compression or app.conf.task_compression
    name, fixed, timing = message.name, message[4:11], message[12:]

    def another(args: Sequence[Any], kwargs: Mapping[str, Any], headers: str | None) -> Message:
        content_type, body = serialization.dumps_args(args, kwargs, serializer, compression)
        return Message._make((uuid(), name, body, content_type, *fixed, headers, *timing))

    return another


def send(
    app: LiteTQ,
    name: str,
    task: Task[..., Any] | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
) -> AsyncResult[Any]:
    """Commit one call to the file and return its result object.

    When this returns, the task is in the file; when it raises, nothing is. `delay(1, 2)` costs 4.3 us of Python beside
    `engine.send` (CPython 3.11, 2 cores; no publish signal connected).

    Raises OperationalError when the file stayed busy through all attempts of the publish retry policy.
    """
    parent = parent_request()
    message = message_for(app, name, task, args, kwargs, options, parent)
    if options and options.get("if_new"):
        is_sent = publish(app, _plan_if_new(message, options), options)
    else:
        is_sent = publish(app, Plan((message,)), options)
    if signals.after_task_publish.receivers and is_sent and _captured.get() is None:
        tell_published(message, args, kwargs)
    result: AsyncResult[Any]
    if not options:
        result = AsyncResult(message.id, None, name, app)
        if task is not None and task.ignore_result:
            result.ignored = True
    else:
        result = (options.get("result_cls") or AsyncResult)(message.id, task_name=name, app=app)
        ignored = options.get("ignore_result")
        result.ignored = bool(task is not None and task.ignore_result if ignored is None else ignored)
    if parent is not None and is_sent and options.get("add_to_parent", True):
        running = context.get_current_task()
        if running is not None and running.trail:
            parent.children.append(result)
    if options.get("callback") is not None:
        result.then(options["callback"])
    return result


def _plan_if_new(message: Message, options: Mapping[str, Any]) -> Plan:
    if not options.get("task_id"):
        raise ValueError(
            f"call of task {message.name!r}: if_new=True needs a task_id, by which the task is known or new"
        )
    return Plan((message,), if_new=True)


def tell_published(message: Message, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Send the signal `after_task_publish` for a message that is committed."""
    signals.after_task_publish.send(
        sender=message.name,
        body=(args, kwargs, dict(_NO_EMBED)),
        headers=protocol_headers(message),
        exchange="",
        routing_key=message.queue,
    )


class _Captured(list[Plan]):
    """The plans that were not committed, and how many arguments their tasks will get from others."""

    awaited = 0


_captured: ContextVar[_Captured | None] = ContextVar("litetq_captured", default=None)


@contextmanager
def captured(awaited: int = 0) -> Iterator[list[Plan]]:
    """Collect what is published within the block instead of committing it: how a task's own `apply_async` is asked.

    `awaited` positional arguments are allowed to be missing.
    """
    plans = _Captured()
    plans.awaited = awaited
    token = _captured.set(plans)
    try:
        yield plans
    finally:
        _captured.reset(token)


def awaited_arguments() -> int:
    """Return how many positional arguments of a call will come from the tasks before it, or UNCHECKED."""
    plans = _captured.get()
    return 0 if plans is None else plans.awaited


def publish(app: LiteTQ, plan: Plan, options: Mapping[str, Any]) -> bool:
    """Commit a plan, trying again as the publish retry policy says while the file is busy; return whether it was new."""
    if app.router.broadcasts and app.engine.knows_workers:
        plan = app.router.spread(plan, lambda: workers_and_queues(app))
    plans = _captured.get()
    if plans is not None:
        plans.append(plan)
        return True
    durability = options.get("durability")
    delays: Iterator[float] | None = None
    while True:
        try:
            return app.engine.send(plan, durability=durability)
        except StoreBusy:
            if delays is None:
                delays = _publish_delays(app, options)
            delay = next(delays, None)
            if delay is None:
                raise
        time.sleep(delay)


def _publish_delays(app: LiteTQ, options: Mapping[str, Any]) -> Iterator[float]:
    """Return the seconds to wait before each further try to commit a call; none where it is not to be tried again."""
    wanted = options.get("retry")
    if not (app.conf.task_publish_retry if wanted is None else wanted):
        return iter(())
    policy = {**(app.conf.task_publish_retry_policy or {}), **(options.get("retry_policy") or {})}
    return RetryPolicy.from_mapping(policy).delays()


def workers_and_queues(app: LiteTQ) -> list[tuple[str, list[str]]]:
    """Return the workers that are signed on, each with the queues that it serves."""
    workers = app.engine.store.roster.workers()
    return [(worker.name, json.loads(worker.queues)) for worker in workers if worker.queues is not None]


class _Defaults:
    """What a task that is not registered here has for attributes."""

    queue: Any = None
    serializer: str | None = None
    compression: str | None = None
    priority: int | None = None
    expires: Any = None


# -- as Celery's protocol 2 shows it ---------------------------------------------------------------------------------

_NO_EMBED: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def hostname() -> str:
    """Return the name of this machine."""
    import socket  # 2 ms of import time, for headers that only wires and receivers of signals look at

    return socket.gethostname()


def origin() -> str:
    """Return who sends, as Celery writes it: pid@host."""
    return f"{os.getpid()}@{hostname()}"


def protocol_headers(message: Message) -> dict[str, Any]:
    """Return the headers of Celery's protocol 2 that this message stands for; custom ones lie beside the known."""
    own: dict[str, Any] = json.loads(message.headers) if message.headers else {}
    custom = own.pop("headers", {})
    return {
        "lang": "py",
        "task": message.name,
        "id": message.id,
        "shadow": None,
        "eta": context.iso(message.due_at),
        "expires": context.iso(message.expires_at),
        "group": None,
        "group_index": None,
        "retries": message.retries,
        "timelimit": [None, None],
        "root_id": message.root_id or message.id,
        "parent_id": message.parent_id,
        "argsrepr": None,
        "kwargsrepr": None,
        "origin": origin(),
        "ignore_result": False,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        **own,
        **custom,
    }


class Publication:
    """One call while the receivers of `before_task_publish` look at it and may change headers, queue and priority."""

    def __init__(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        queue: str,
        priority: Any,
        headers: dict[str, Any] | None,
    ) -> None:
        self.name = name
        self.args = args
        self.kwargs = kwargs
        self.queue = queue
        self.priority = priority
        self.headers: dict[str, Any] = headers or {}

    def ask_receivers(
        self, options: Mapping[str, Any], root_id: str | None, parent_id: str | None, expires: Any
    ) -> str:
        """Send the signal, take over what was changed, and return the task's id."""
        id: str = options.get("task_id") or uuid()
        sketch = Message(
            id,
            self.name,
            b"",
            None,
            self.queue,
            0,
            due_time(options.get("countdown"), options.get("eta")),
            expiry_time(expires),
            options.get("retries") or 0,
            root_id,
            parent_id,
            encode_headers(self.headers, self.name),
        )
        shown = protocol_headers(sketch)
        before = dict(shown)
        properties = {"correlation_id": id, "reply_to": options.get("reply_to"), "priority": self.priority}
        signals.before_task_publish.send(
            sender=self.name,
            body=(self.args, self.kwargs, dict(_NO_EMBED)),
            exchange="",
            routing_key=self.queue,
            headers=shown,
            properties=properties,
            declare=[],
            retry_policy=options.get("retry_policy"),
        )
        self.priority = properties["priority"]
        self._take_over(before, shown)
        return id

    def _take_over(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        custom = dict(self.headers.pop("headers", {}))
        for name, value in after.items():
            if name in before and before[name] == value:
                continue
            if name in _SETTABLE_HEADERS:
                self.headers[name] = value
            elif name not in _FIXED_HEADERS:
                custom[name] = value
        for name in before.keys() - after.keys():
            custom.pop(name, None)
            self.headers.pop(name, None)
        if custom:
            self.headers["headers"] = custom


_SETTABLE_HEADERS: Final = frozenset(
    "shadow timelimit argsrepr kwargsrepr origin ignore_result replaced_task_nesting stamped_headers stamps".split()
)
_FIXED_HEADERS: Final = frozenset("lang task id eta expires group group_index retries root_id parent_id".split())
