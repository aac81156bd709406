"""Signals: functions that are called when something happens, by Celery's names.

A signal costs its sender one attribute test while nobody listens: `if signal.receivers:`. An error in a receiver is logged
and returned as its response; it never reaches the sender.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final, TypeVar

logger = logging.getLogger(__name__)

Receiver = TypeVar("Receiver", bound=Callable[..., Any])

# Celery's own waits between the attempts of a receiver connected with `retry=True`, in seconds.
_RETRY_FIRST: Final = 2.0
_RETRY_STEP: Final = 2.0
_RETRY_MAX: Final = 30.0


class Signal:
    """One kind of event, and who listens to it.

    `receivers` is empty as long as nobody is connected. It is replaced, never changed in place, so that sending needs no
    lock.
    """

    def __init__(
        self, providing_args: Iterable[str] | None = None, use_caching: bool = False, name: str | None = None
    ) -> None:
        self.name = name
        self.providing_args = frozenset(providing_args or ())
        self.use_caching = use_caching  # Celery's; looking through a short list needs no cache
        self.receivers: list[_Connection] = []
        self._lock = threading.RLock()  # re-entered when a garbage collection within drops a dead receiver

    def connect(self, *args: Any, **options: Any) -> Any:
        """Call the receiver at each `send` from now on; the same receiver and sender are connected once.

        `connect(receiver, sender=None, weak=True, dispatch_uid=None, retry=False)`, or without a receiver as a decorator.

        Args:
            sender: only events of this sender (an object, or the name of a task); None: of all.
            weak: hold the receiver weakly; it is forgotten when nothing else holds it.
            dispatch_uid: what identifies the receiver instead of itself.
            retry: call a receiver that raised again until it does not, after 2, 4, ... at most 30 seconds; held strongly.

        Raises ValueError for a receiver without `**kwargs`: signals may carry more in a later version.
        """
        if args and callable(args[0]):
            return self._connect(args[0], *args[1:], **options)

        def decorate(receiver: Receiver) -> Receiver:
            self._connect(receiver, *args, **options)
            return receiver

        return decorate

    def _connect(
        self,
        receiver: Receiver,
        sender: Any = None,
        weak: bool = True,
        dispatch_uid: Hashable = None,
        retry: bool = False,
    ) -> Receiver:
        if not _accepts_keywords(receiver):
            raise ValueError(
                f"Signal receiver must accept keyword arguments: {receiver!r} was connected to signal {self.name!r}; "
                "add **kwargs to its parameters."
            )
        key = (_identity(receiver) if dispatch_uid is None else dispatch_uid, _identity(sender))
        connection = _Connection(key, sender, _call_until_done(receiver) if retry else receiver)
        if weak and not retry:
            connection.hold_weakly(self._drop)
        with self._lock:
            if all(known.key != key for known in self.receivers):
                self.receivers = [*self.receivers, connection]
        return receiver

    def disconnect(
        self, receiver: Any = None, sender: Any = None, weak: bool | None = None, dispatch_uid: Hashable = None
    ) -> bool:
        """Stop calling the receiver; return whether it was connected. `weak` has no effect."""
        key = (_identity(receiver) if dispatch_uid is None else dispatch_uid, _identity(sender))
        with self._lock:
            before = len(self.receivers)
            self.receivers = [known for known in self.receivers if known.key != key]
            return len(self.receivers) < before

    def _drop(self, connection: _Connection) -> None:
        with self._lock:
            self.receivers = [known for known in self.receivers if known is not connection]

    def has_listeners(self, sender: Any = None) -> bool:
        """Return whether an event of this sender would be heard."""
        return any(known.hears(sender) for known in self.receivers)

    def send(self, sender: Any, **named: Any) -> list[tuple[Callable[..., Any], Any]]:
        """Call who listens, in the order of connecting; return pairs of receiver and response (or what it raised)."""
        responses: list[tuple[Callable[..., Any], Any]] = []
        for connection in self.receivers:
            receiver = connection.receiver()
            if receiver is None or not connection.hears(sender):
                continue
            try:
                response = receiver(signal=self, sender=sender, **named)
            except Exception as error:
                logger.exception("Signal handler %r raised an error", receiver)
                response = error
            responses.append((receiver, response))
        return responses

    send_robust = send

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.name} providing_args={set(self.providing_args)!r}>"


class _Connection:
    """One receiver of one signal."""

    __slots__ = ("key", "receiver", "sender")

    def __init__(self, key: tuple[Hashable, Hashable], sender: Any, receiver: Callable[..., Any]) -> None:
        self.key = key
        self.sender = sender
        self.receiver: Callable[[], Callable[..., Any] | None] = lambda: receiver

    def hold_weakly(self, drop: Callable[[_Connection], None]) -> None:
        """Let the receiver go when nothing else holds it, and call `drop` then."""
        receiver = self.receiver()
        assert receiver is not None
        reference = weakref.WeakMethod if inspect.ismethod(receiver) else weakref.ref
        self.receiver = reference(receiver, lambda _gone: drop(self))

    def hears(self, sender: Any) -> bool:
        return self.sender is None or self.key[1] == _identity(sender)


def _identity(target: Any) -> Hashable:
    """Return what makes two receivers or senders the same: the object; a string by its value, a method by its parts."""
    if isinstance(target, str):
        return target
    if inspect.ismethod(target):
        return id(target.__self__), id(target.__func__)
    return id(target)


def _accepts_keywords(receiver: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(receiver).parameters.values()
    except (TypeError, ValueError):
        return True  # written in C: calling it will tell
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _call_until_done(receiver: Callable[..., Any]) -> Callable[..., Any]:
    def call(**named: Any) -> Any:
        interval = _RETRY_FIRST
        while True:
            try:
                return receiver(**named)
            except Exception:
                logger.exception(
                    "Could not process signal receiver %r. Retrying in %.0f seconds...", receiver, interval
                )
            time.sleep(interval)
            interval = min(interval + _RETRY_STEP, _RETRY_MAX)

    return call


def _signal(name: str, *providing_args: str) -> Signal:
    return Signal(providing_args, name=name)


# A task is sent. Sender: the task's name. In the calling process; `headers` and `properties` may be changed.
before_task_publish = _signal(
    "before_task_publish", "body", "exchange", "routing_key", "headers", "properties", "declare", "retry_policy"
)
after_task_publish = _signal("after_task_publish", "headers", "body", "exchange", "routing_key")

# A task runs. Sender: the task (task_received, task_rejected, task_unknown: the worker).
task_received = _signal("task_received", "request")
task_prerun = _signal("task_prerun", "task_id", "task", "args", "kwargs")
task_postrun = _signal("task_postrun", "task_id", "task", "args", "kwargs", "retval", "state")
task_success = _signal("task_success", "result", "runtime")
task_retry = _signal("task_retry", "request", "reason", "einfo")
task_failure = _signal("task_failure", "task_id", "exception", "args", "kwargs", "traceback", "einfo")
task_internal_error = _signal(
    "task_internal_error", "task_id", "args", "kwargs", "request", "exception", "traceback", "einfo"
)
task_revoked = _signal("task_revoked", "request", "terminated", "signum", "expired")
task_rejected = _signal("task_rejected", "message", "exc")
task_unknown = _signal("task_unknown", "message", "exc", "name", "id")

# The program and its workers. Sender: the app (import_modules), the node's name or the worker.
import_modules = _signal("import_modules")
celeryd_init = _signal("celeryd_init", "instance", "conf", "options")
celeryd_after_setup = _signal("celeryd_after_setup", "instance", "conf")
worker_init = _signal("worker_init")
worker_before_create_process = _signal("worker_before_create_process")
worker_process_init = _signal("worker_process_init")
worker_process_shutdown = _signal("worker_process_shutdown", "pid", "exitcode")
worker_ready = _signal("worker_ready")
worker_shutting_down = _signal("worker_shutting_down", "sig", "how", "exitcode")
worker_shutdown = _signal("worker_shutdown")
heartbeat_sent = _signal("heartbeat_sent")

# Logging. Who connects to `setup_logging` sets logging up alone.
setup_logging = _signal("setup_logging", "loglevel", "logfile", "format", "colorize")
after_setup_logger = _signal("after_setup_logger", "logger", "loglevel", "logfile", "format", "colorize")
after_setup_task_logger = _signal("after_setup_task_logger", "logger", "loglevel", "logfile", "format", "colorize")

beat_init = _signal("beat_init")
beat_embedded_init = _signal("beat_embedded_init")

eventlet_pool_started = _signal("eventlet_pool_started")
eventlet_pool_preshutdown = _signal("eventlet_pool_preshutdown")
eventlet_pool_postshutdown = _signal("eventlet_pool_postshutdown")
eventlet_pool_apply = _signal("eventlet_pool_apply", "target", "args", "kwargs")

user_preload_options = _signal("user_preload_options", "app", "options")
