"""What runs here and now: the current app, the stack of running tasks, and the request of each attempt.

Everything is kept per context (`contextvars`), so threads, greenlets and coroutines do not see each other's. The process
also has a default app, which is used where no app was made current.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from litetq import platforms
from litetq.exceptions import ImproperlyConfigured
from litetq.hanging import VIEWS, views_of

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.message import Delivery
    from litetq.task import Task

_default_app: LiteTQ | None = None
_current_app: ContextVar[LiteTQ | None] = ContextVar("litetq_current_app", default=None)
# The running attempts of this context, outermost first; more than one when a task calls another one eagerly.
_running: ContextVar[tuple[tuple[Task[..., Any], Context], ...]] = ContextVar("litetq_running", default=())
_join_blocked: ContextVar[bool] = ContextVar("litetq_join_blocked", default=False)
block_joins = _join_blocked.set  # for the pipeline: as join_block(True), without the cost of a context manager
allow_joins_again = _join_blocked.reset


def set_default_app(app: LiteTQ | None) -> None:
    """Make `app` the one that is used where no other was made current, in every thread."""
    global _default_app
    _default_app = app


def set_current_app(app: LiteTQ | None) -> None:
    """Make `app` current in this context; other threads do not see it."""
    _current_app.set(app)


def get_current_app() -> LiteTQ | None:
    """Return the app of the running task, else the one made current here, else the default, else None."""
    running = _running.get()
    if running:
        return running[-1][0].app
    return _current_app.get() or _default_app


def get_current_task() -> Task[..., Any] | None:
    """Return the task that runs in this context, or None outside of one."""
    running = _running.get()
    return running[-1][0] if running else None


def get_current_worker_task() -> Task[..., Any] | None:
    """Return the task whose attempt runs in this context; one that was called directly is passed over."""
    return next((task for task, request in reversed(_running.get()) if not request.called_directly), None)


def get_current_request() -> Context | None:
    """Return the request of the attempt that runs in this context, or None outside of one."""
    running = _running.get()
    return running[-1][1] if running else None


def request_of(task: Task[..., Any]) -> Context | None:
    """Return the innermost request of this very task in this context."""
    request: Context
    for running, request in reversed(_running.get()):
        if running is task or running.name == task.name:
            return request
    return None


def enter(task: Task[..., Any], request: Context) -> Any:
    """Push an attempt; give what is returned to `leave`."""
    return _running.set((*_running.get(), (task, request)))


def leave(token: Any) -> None:
    """Pop the attempt that `enter` pushed."""
    _running.reset(token)


def is_join_blocked() -> bool:
    """Return True inside a task that a worker runs, where waiting for another task could wait for ever.

    In a greenlet it holds up no other task, and is allowed, as in Celery's pools of greenlets.
    """
    return _join_blocked.get() and not platforms.is_green()


@contextmanager
def join_block(blocked: bool) -> Iterator[None]:
    """Forbid or allow waiting for results within the block (`allow_join_result`, `denied_join_result`)."""
    token = _join_blocked.set(blocked)
    try:
        yield
    finally:
        _join_blocked.reset(token)


_importing: ContextVar[str | None] = ContextVar("litetq_importing", default=None)


@contextmanager
def importing_module(name: str) -> Iterator[None]:
    """Mark that a worker or a pool child imports the user's module `name` within the block."""
    token = _importing.set(name)
    try:
        yield
    finally:
        _importing.reset(token)


class TopLevelStart(ImproperlyConfigured):
    """A module that a worker imports starts a worker, or waits for a result, at its top level."""


def refuse_while_importing(what: str) -> None:
    """Raise when a worker imports this module: `what` at its top level would start workers without end, or wait for ever.

    The same trap as `multiprocessing`'s on platforms that spawn, and the same way out.
    """
    name = _importing.get()
    if name is not None:
        raise TopLevelStart(
            f"{what} at the top level of module {name!r}, which a worker is just importing; "
            f'move it below  if __name__ == "__main__":  in that module'
        )


class Context:
    """The request of one attempt: Celery's `Task.request`.

    Attributes have Celery's names. What the message did not carry has its default; what is in the message's headers is
    decoded at the first look at any of it, because most tasks never look.
    """

    id: str | None = None
    task: str | None = None
    args: Any = None
    kwargs: Any = None
    logfile: str | None = None
    loglevel: int | None = None
    hostname: str | None = None
    retries: int = 0
    is_eager: bool = False
    called_directly: bool = True
    utc: bool = True
    correlation_id: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    attempts: int = 1  # times begun, this one included; not in Celery
    delivery: Delivery | None = None  # what the file handed over; not in Celery
    # An overridden `__call__` runs the attempt, and has not come to that of `Task` yet; not in Celery.
    _is_before_run: bool = False
    retry_call: Any = None  # the Retry that `retry(throw=False)` returned
    limit_of_retries: int | None = None  # what `retry(max_retries=)` was given; not in Celery
    children: list[Any]
    plan: Any  # what `replace` and `add_to_chord` decided
    # Read from the file, as it is at the first look at one of them (`hanging`): dicts of signatures, as Celery's.
    chain: Any  # the steps after this one, the next one last; None: none
    callbacks: Any
    errbacks: Any
    chord: Any  # the body of the chord that this task is a member of
    _seen: dict[str, Any]  # these four as they were at the first look
    # From the headers; they have no class attribute, so that the first look comes to __getattr__:
    eta: str | None
    expires: str | None
    delivery_info: dict[str, Any] | None
    reply_to: str | None
    group: str | None
    group_index: int | None
    timelimit: Any  # [hard, soft]
    time_limit: float | None
    soft_time_limit: float | None
    shadow: str | None
    argsrepr: str | None
    kwargsrepr: str | None
    origin: str | None
    ignore_result: bool | None
    replaced_task_nesting: int
    stamped_headers: list[str] | None
    stamps: dict[str, Any] | None
    headers: dict[str, Any] | None
    properties: dict[str, Any] | None

    def __init__(self, delivery: Delivery | None = None, hostname: str | None = None, **fields: Any) -> None:
        if fields:
            self.__dict__.update(fields)
        if hostname is not None:
            self.hostname = hostname
        if delivery is not None:
            self.delivery = delivery
            self.id = self.correlation_id = delivery.id
            self.task = delivery.name
            self.retries = delivery.retries
            self.attempts = delivery.attempts
            self.called_directly = False
            self.root_id = delivery.root_id or delivery.id
            self.parent_id = delivery.parent_id

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        if name in _FROM_HEADERS:
            if self.delivery is not None and "_decoded" not in own:
                own["_decoded"] = True
                _fill_from_delivery(own, self.delivery)
                if name in own:
                    return own[name]
            return _FROM_HEADERS[name]
        if name in ("time_limit", "soft_time_limit"):
            return (self.timelimit or (None, None))[name == "soft_time_limit"]
        if name == "children":
            made: list[Any] = []
            self.children = made
            return made
        if name == "plan":
            return None
        if name in VIEWS:
            app, delivery = get_current_app(), self.delivery
            if app is None or delivery is None or not delivery.linked:
                seen: dict[str, Any] = dict.fromkeys(VIEWS)
            else:
                seen = views_of(app, delivery)
            own["_seen"] = seen
            own.update({view: deepcopy(value) for view, value in seen.items() if view not in own})
            return own[name]
        if self.delivery is not None and "_decoded" not in own:  # a custom header
            own["_decoded"] = True
            _fill_from_delivery(own, self.delivery)
            if name in own:
                return own[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set attributes from a mapping and keywords."""
        self.__dict__.update(*args, **kwargs)

    def clear(self) -> None:
        """Forget everything; attributes show their defaults again."""
        self.__dict__.clear()

    def get(self, key: str, default: Any = None) -> Any:
        """Return an attribute, or `default` where there is none of this name."""
        return getattr(self, key, default)

    def as_execution_options(self) -> dict[str, Any]:
        """Return the options of `apply_async` that make a call like the one this attempt belongs to."""
        hard, soft = self.timelimit or (None, None)
        return {
            "task_id": self.id,
            "root_id": self.root_id,
            "parent_id": self.parent_id,
            "group_id": self.group,
            "group_index": self.group_index,
            "shadow": self.shadow,
            "chord": self.chord,
            "chain": self.chain,
            "link": self.callbacks,
            "link_error": self.errbacks,
            "expires": self.expires,
            "soft_time_limit": soft,
            "time_limit": hard,
            "headers": self.headers,
            "retries": self.retries,
            "reply_to": self.reply_to,
            "replaced_task_nesting": self.replaced_task_nesting,
            "origin": self.origin,
            **self.stamp_options(),
        }

    def stamp_options(self) -> dict[str, Any]:
        """Return the options of `apply_async` that give a call the stamps of this one; nothing where it has none."""
        if self.stamps is None or self.stamped_headers is None:
            return {}
        own = {name: value for name, value in self.stamps.items() if name in self.stamped_headers}
        return {"stamped_headers": self.stamped_headers, **own}

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, defaults included."""
        return {name: getattr(self, name) for name in sorted(_SHOWN)}

    def __repr__(self) -> str:
        return f"<Context: {self.as_dict()!r}>"


class RequestStack:
    """The requests of one task in this context, the innermost on top; by Celery's name `Task.request_stack`."""

    def __init__(self, task: Task[..., Any]) -> None:
        self._task = task

    def push(self, request: Context) -> None:
        """Make this the request that the task sees, until `pop`."""
        request.__dict__["pushed"] = enter(self._task, request)

    def pop(self) -> Context | None:
        """End what the last `push` made; return its request."""
        request = self.top
        if request is None or "pushed" not in request.__dict__:
            return None
        leave(request.__dict__["pushed"])
        return request

    @property
    def top(self) -> Context | None:
        """The innermost request, or None."""
        return request_of(self._task)

    def __len__(self) -> int:
        return len(self.stack)

    @property
    def stack(self) -> list[Context]:
        """All of them, the innermost last."""
        return [request for task, request in _running.get() if task is self._task]


# Their defaults.
_FROM_HEADERS: Final[dict[str, Any]] = dict.fromkeys(
    "shadow timelimit argsrepr kwargsrepr origin ignore_result stamped_headers stamps reply_to group group_index headers "
    "delivery_info eta expires properties".split()
)
_FROM_HEADERS["replaced_task_nesting"] = 0
_SHOWN: Final = frozenset(Context.__annotations__) - {"delivery", "retry_call", "limit_of_retries", "plan", "_seen"}


def _fill_from_delivery(own: dict[str, Any], delivery: Delivery) -> None:
    headers: dict[str, Any] = json.loads(delivery.headers) if delivery.headers else {}
    custom = headers.pop("headers", None) or {}
    for name, value in {**headers, **custom}.items():
        own.setdefault(name, value)
    own["timelimit"] = _time_limits(own.get("timelimit"), delivery.name)
    own.setdefault("headers", custom or None)
    own.setdefault("stamps", {})  # as Celery: None only where there was no message
    own.setdefault(
        "delivery_info",
        {
            "exchange": "",
            "routing_key": delivery.queue,
            "priority": delivery.priority,
            "redelivered": delivery.deliveries > 0,
        },
    )
    own.setdefault("properties", {"correlation_id": delivery.id, "reply_to": own.get("reply_to")})
    own.setdefault("eta", iso(delivery.eta))
    own.setdefault("expires", iso(delivery.expires_at))


def _time_limits(given: Any, name: str) -> list[float | None]:
    """Return [hard, soft] as the call says, else the task, else the settings of whoever runs it."""
    app = get_current_app()
    called = given if isinstance(given, list) and len(given) == 2 else [None, None]
    if app is None:
        return called
    own = limits_of(app, app.tasks.get(name))
    return [limit if limit is not None else default for limit, default in zip(called, own, strict=True)]


def limits_of(app: LiteTQ, task: Task[..., Any] | None) -> list[float | None]:
    """Return [hard, soft] of a task, which its settings may have."""
    own = [None, None] if task is None else [task.time_limit, task.soft_time_limit]
    settings = [app.conf.task_time_limit, app.conf.task_soft_time_limit]
    return [limit if limit is not None else default for limit, default in zip(own, settings, strict=True)]


def iso(at: float | None) -> str | None:
    """Return a moment as Celery writes it in headers: ISO 8601 in UTC, or None."""
    return None if at is None else datetime.fromtimestamp(at, timezone.utc).isoformat()
