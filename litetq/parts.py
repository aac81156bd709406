"""What Celery's apps have beside tasks and settings, and code asks for: a connection, its pool, queues, a backend, a loader, logging.

A file needs none of them. Each is a small view of what the app has anyway, made when somebody asks for it: `app.connection()`,
`app.pool`, `app.amqp`, `app.backend`, `app.loader`, `app.log`.
"""

from __future__ import annotations

import importlib
import logging
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from litetq import clock, context, log, serialization, signals, states
from litetq.address import mask
from litetq.exceptions import ImproperlyConfigured, OperationalError, TaskRevokedError
from litetq.message import Record
from litetq.result import AsyncResult, GroupResult, told_by
from litetq.routing import Queue

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.message import Delivery

DRIVER: Final = "litetq"
OWN_REQUEST: Final = "litetq.parts:Request"  # what a task has that says nothing

# Set where somebody else ends tasks: it is given the end that is to be stored, and returns whether it has taken it.
ends_here: Final[ContextVar[Callable[[Record], bool] | None]] = ContextVar("litetq_ends_here", default=None)


# -- connection


class Transport:
    """What kind of broker this is."""

    driver_type = DRIVER
    driver_name = "sqlite"
    default_port = None
    implements: Mapping[str, Any] = {
        "asynchronous": False,
        "exchange_type": frozenset({"direct", "topic"}),
        "heartbeats": False,
    }
    recoverable_connection_errors = connection_errors = (OperationalError,)
    recoverable_channel_errors = channel_errors = ()

    def driver_version(self) -> str:
        """Return the version of the SQLite library."""
        from litetq.database import sqlite_version

        return sqlite_version()


class Channel:
    """What publishing through a connection of one's own would go through; there is nothing behind it but the file."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def queue_purge(self, queue: str, **_: Any) -> int:
        """Remove the waiting tasks of a queue; return how many."""
        removed: int = self.connection.app.control.purge(queues=[queue])
        return removed

    def close(self) -> None:
        """Do nothing."""

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Connection:
    """The file, as Celery's users meet a broker: something to be ensured, entered and released."""

    transport = Transport()
    connection_errors = recoverable_connection_errors = (OperationalError,)
    channel_errors = recoverable_channel_errors = ()
    heartbeat = 0
    supports_heartbeats = False
    transport_cls = DRIVER

    def __init__(self, app: LiteTQ) -> None:
        self.app = app
        self._is_open = False

    @property
    def hostname(self) -> str:
        """The path of the file."""
        return self.app.broker_address.path or ""

    virtual_host = userid = password = port = ""

    def as_uri(self, include_password: bool = False, **_: Any) -> str:
        """Return the address of the file."""
        text = self.app.broker_address.text
        return text if include_password else mask(text)

    def info(self) -> dict[str, Any]:
        """Return what monitors show of a broker."""
        return {"hostname": self.hostname, "transport": DRIVER, "uri_prefix": None, "heartbeat": 0, "alternates": []}

    @property
    def connected(self) -> bool:
        """Whether it was opened and not released since."""
        return self._is_open

    def connect(self) -> Connection:
        """Open the file; OperationalError (or another error of the file) when that cannot be."""
        self.app.engine.store.roster.workers()  # one read: a file that cannot be used shows here
        self._is_open = True
        return self

    def ensure_connection(self, *_: Any, **__: Any) -> Connection:
        """Open the file; there is nothing that could come back after a while, so this tries once."""
        return self.connect()

    @property
    def default_channel(self) -> Channel:
        return self.channel()

    def channel(self) -> Channel:
        """Return a channel."""
        return Channel(self.connect())

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ImproperlyConfigured(
            "app.connection() carries no messages of your own: litetq carries tasks; send a task by its name with "
            "app.send_task(), or give kombu a broker of its own"
        )

    SimpleQueue = SimpleBuffer = Producer = Consumer = drain_events = _refuse

    def clone(self, **_: Any) -> Connection:
        """Return another one to the same file."""
        return Connection(self.app)

    def release(self) -> None:
        """Forget that it was opened; the file stays open, since the app uses it."""
        self._is_open = False

    close = release

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<Connection: {self.as_uri()}>"


class ConnectionPool:
    """Hands out connections; there is no limit, for they are views."""

    def __init__(self, app: LiteTQ) -> None:
        self.app = app
        self.limit = app.conf.broker_pool_limit

    @contextmanager
    def acquire(self, block: bool = False, timeout: float | None = None) -> Iterator[Connection]:
        """Give a connection within a `with` block."""
        connection = Connection(self.app)
        try:
            yield connection
        finally:
            connection.release()

    def force_close_all(self, *_: Any, **__: Any) -> None:
        """Close the app's file; the next use opens it again."""
        self.app.close()


class Producer:
    """What programs pass to several calls as `producer=`. It publishes nothing itself: a call needs no producer here."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def publish(self, *_: Any, **__: Any) -> NoReturn:
        """Raise ImproperlyConfigured: a file carries tasks, no messages of a program's own."""
        raise ImproperlyConfigured(
            "app.producer_pool publishes no messages of your own: litetq carries tasks; "
            "send a task by its name with app.send_task(), or give kombu a broker of its own"
        )

    def release(self) -> None:
        """Do what is done when its block ends."""
        self.connection.release()

    close = release


class ProducerPool:
    """Hands out producers."""

    def __init__(self, app: LiteTQ) -> None:
        self._connections = ConnectionPool(app)
        self.limit = self._connections.limit

    @contextmanager
    def acquire(self, block: bool = False, timeout: float | None = None) -> Iterator[Producer]:
        """Give a producer within a `with` block."""
        with self._connections.acquire() as connection:
            yield Producer(connection)


# -- queues


class Queues(dict[str, Any]):
    """The declared queues by name, the default one among them; which of them workers serve can be chosen here."""

    def __init__(self, app: LiteTQ) -> None:
        router = app.router
        super().__init__(router.queues or {router.default: Queue(router.default)})
        self.app = app

    @property
    def consume_from(self) -> dict[str, Any]:
        """Those that workers of this process serve where nothing else is said."""
        chosen = self.app.selected_queues
        return dict(self) if chosen is None else {name: self.get(name) or Queue(name) for name in chosen}

    def select(self, include: Any) -> None:
        """Have workers of this process serve these alone."""
        if include:
            self.app.select_queues(include)

    def deselect(self, exclude: Any) -> None:
        """Have workers of this process serve all others."""
        if exclude:
            left_out = [exclude] if isinstance(exclude, str) else list(exclude)
            self.app.select_queues([name for name in self.consume_from if name not in left_out])

    def add(self, queue: Any, **options: Any) -> Any:
        """Declare a queue; return it."""
        declared = Queue(queue, **options) if isinstance(queue, str) else queue
        self.app.conf.task_queues = [*self.values(), declared]
        self[declared.name] = declared
        return declared


class Amqp:
    """Queues and routes, under the names that Celery's `app.amqp` has."""

    Queue = Queue

    def __init__(self, app: LiteTQ) -> None:
        self.app = app

    @property
    def queues(self) -> Queues:
        """The declared queues by name, the default one among them."""
        return Queues(self.app)

    @property
    def default_queue(self) -> Any:
        """The queue of tasks that no route sends elsewhere."""
        return self.queues.get(self.app.router.default) or Queue(self.app.router.default)

    @property
    def router(self) -> Any:
        """What the settings say about queues and routes."""
        return self.app.router

    @property
    def routes(self) -> Any:
        """The setting `task_routes`."""
        return self.app.conf.task_routes

    def flush_routes(self) -> None:
        """Do nothing: routes are looked up as the settings are at each call."""


# -- results


class Marks:
    """The verbs by which Celery puts an end on record; each is a `store_result`, by whoever has one."""

    store_result: Callable[..., Any]

    def mark_as_done(
        self, task_id: str, result: Any, request: Any = None, store_result: bool = True, state: str = states.SUCCESS
    ) -> None:
        """Put on record that a task has succeeded; what waits for it is the file's business."""
        if store_result:
            self.store_result(task_id, result, state, request=request)

    def mark_as_failure(
        self,
        task_id: str,
        exc: BaseException,
        traceback: str | None = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """Put on record that a task has failed; its errbacks are not called by this."""
        if store_result:
            self.store_result(task_id, exc, state, traceback, request)

    def mark_as_revoked(
        self,
        task_id: str,
        reason: str = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        """Put on record that a task was revoked; `app.control.revoke` does revoke it."""
        if store_result:
            self.store_result(task_id, TaskRevokedError(reason), state, request=request)

    def mark_as_retry(
        self,
        task_id: str,
        exc: BaseException,
        traceback: str | None = None,
        request: Any = None,
        store_result: bool = True,
        state: str = states.RETRY,
    ) -> Any:
        """Put on record that a task will be tried again."""
        return self.store_result(task_id, exc, state, traceback, request)


@dataclass(frozen=True, slots=True)
class FileBackend(Marks):
    """The results of an app, with the methods of Celery's backends that programs call; with those of the file, too.

    What is stored here is guarded by no claim: the end of a task that a worker runs comes over it.
    """

    app: LiteTQ
    results: Any

    supports_native_join = True
    supports_autoexpire = True
    persistent = True
    is_async = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.results, name)

    def as_uri(self, include_password: bool = False) -> str:
        """Return the address."""
        return self.app.result_address.text if include_password else mask(self.app.result_address.text)

    # -- writing

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **_: Any
    ) -> Any:
        """Put on record what became of a task; a state that is no end is that of a waiting or running task, if there is one.

        Returns the result. Raises EncodeError where the result serializer cannot write it.
        """
        conf, is_end = self.app.conf, state in states.READY_STATES
        encode = serialization.encode_exception_typed if isinstance(result, BaseException) else serialization.encode
        content_type, data = encode(result, conf.result_serializer, conf.result_compression)
        if is_end or not self.app.engine.update_state(task_id, state, data, content_type, traceback=traceback):
            now = clock.now()
            record = Record(
                task_id,
                state,
                "DONE",
                data,
                content_type,
                traceback,
                done_at=now if is_end else None,
                **told_by(request),
            )
            is_taken = ends_here.get()
            if is_taken is None or not is_taken(record):
                self.results.store_record(record, self.results.store.records.expiry(now, state))
        return result

    def mark_as_started(self, task_id: str, **meta: Any) -> Any:
        """Put on record that a task has begun."""
        return self.store_result(task_id, meta, states.STARTED)

    def forget(self, task_id: Any) -> Any:
        """Remove the result of a task, or of several."""
        return self.results.forget([task_id] if isinstance(task_id, str) else task_id)

    # -- reading

    def _result(self, task_id: str) -> AsyncResult[Any]:
        return AsyncResult(task_id, app=self.app)

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Any]:
        """Return what is on record of a task: task_id, status, result, traceback, children, date_done of one that ended.

        Of one that the file knows also name, args, kwargs, worker, retries, queue and parent_id, as with `result_extended`.
        """
        return self._result(task_id)._get_task_meta()

    def get_state(self, task_id: str) -> str:
        """Return the state of a task."""
        return self._result(task_id).state

    get_status = get_state

    def get_result(self, task_id: str) -> Any:
        """Return the result of a task, or its exception."""
        return self._result(task_id).result

    def get_traceback(self, task_id: str) -> str | None:
        """Return the traceback of a task that failed."""
        return self._result(task_id).traceback

    def get_children(self, task_id: str) -> Any:
        """Return the results of the tasks that a task has called."""
        return self._result(task_id).children

    def task_result_exists(self, task_id: str) -> bool:
        """Return whether the file knows the task."""
        return self._result(task_id).exists()

    def reload_task_result(self, task_id: str) -> None:
        """Do nothing: each look reads."""

    def is_cached(self, task_id: str) -> bool:
        """Return False: each look reads."""
        return False

    def wait_for(self, task_id: str, timeout: float | None = None, **_: Any) -> dict[str, Any]:
        """Return what is on record of a task once it has ended; TimeoutError after `timeout` seconds."""
        self._result(task_id).get(timeout=timeout, propagate=False, disable_sync_subtasks=False)
        return self.get_task_meta(task_id)

    def add_pending_result(self, result: Any, weak: bool = False) -> Any:
        """Return the result: whoever waits for one is told by the file's bell."""
        return result

    def remove_pending_result(self, result: Any) -> Any:
        """Return the result."""
        return result

    # -- groups

    def save_group(self, group_id: str, result: GroupResult) -> GroupResult:
        """Keep which results a group has; returns the group."""
        GroupResult(group_id, result.results, result.parent, self.app).save()
        return result

    def restore_group(self, group_id: str, cache: bool = True) -> GroupResult | None:
        """Return a group that was saved, or None."""
        return GroupResult.restore(group_id, app=self.app)

    def delete_group(self, group_id: str) -> None:
        """Forget which results a group has; theirs stay."""
        GroupResult(group_id, app=self.app).delete()


# -- what a worker has in hand


class Request:
    """A task as the worker's own process sees it; a subclass, as `Task.Request`, is told how it ended.

    `on_timeout` and `on_failure` are called after the fact: the end is decided, and what they raise is logged. A strategy makes
    one of its message (`litetq.strategies.Message`), and acknowledges or rejects it by that.
    """

    utc = True
    eta = None  # whoever has it is not early
    connection_errors = (OperationalError,)

    def __init__(
        self,
        message: Any,
        *,
        task: Any,
        app: LiteTQ,
        hostname: str | None = None,
        on_ack: Callable[..., Any] | None = None,
        on_reject: Callable[..., Any] | None = None,
        **_: Any,
    ) -> None:
        delivery: Delivery = getattr(message, "delivery", message)
        self.message = message
        self.task = task
        self.app = app
        self.hostname = hostname
        self.id = self.task_id = self.correlation_id = delivery.id
        self.name = self.task_name = self.type = delivery.name
        self.root_id = delivery.root_id or delivery.id
        self.parent_id = delivery.parent_id
        self._delivery = delivery
        self._context = context.Context(delivery, hostname)
        self._on_ack = on_ack
        self._on_reject = on_reject

    def __getattr__(self, name: str) -> Any:
        """Whatever else its message tells: retries, stamps, group, replaced_task_nesting, headers of the caller's own."""
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._context, name)

    @staticmethod
    def class_for(task: Any) -> type[Request] | None:
        """Return the class that a task wants; None where it has none of its own."""
        wanted = task.Request
        if wanted in (None, OWN_REQUEST, Request):
            return None
        found: type[Request] = pkgutil.resolve_name(wanted) if isinstance(wanted, str) else wanted
        return found

    @property
    def request_dict(self) -> dict[str, Any]:
        """The headers."""
        return self._context.as_dict()

    @property
    def delivery_info(self) -> Any:
        """Where it came from."""
        return self._context.delivery_info

    @property
    def ignore_result(self) -> bool:
        """Whether its value is not kept."""
        return bool(self._context.ignore_result)

    @property
    def reply_to(self) -> Any:
        """Where the call wants its answer."""
        return self._context.reply_to

    @property
    def args(self) -> Any:
        """Its positional arguments; empty where they cannot be read."""
        return self._payload[0]

    @property
    def kwargs(self) -> Any:
        """Its arguments by keyword; empty where they cannot be read."""
        return self._payload[1]

    @property
    def _payload(self) -> Any:
        if self.message is not self._delivery:
            return self.message.payload
        try:
            accept = serialization.accept_set(self.app.conf.accept_content)
            return *serialization.loads_args(self._delivery.body, self._delivery.content_type, accept), {}
        except Exception:
            return (), {}, {}

    def acknowledge(self) -> None:
        """Have the task end, where a strategy decides that; else nothing is to be done."""
        if self._on_ack is not None:
            self._on_ack()

    def reject(self, requeue: bool = False) -> None:
        """Have the task fail, or come again, where a strategy decides that; else nothing is to be done."""
        if self._on_reject is not None:
            self._on_reject(requeue=requeue)

    def info(self, safe: bool = False) -> dict[str, Any]:
        """Return what monitors show of it."""
        return {"id": self.id, "name": self.name, "args": self.args, "kwargs": self.kwargs, "hostname": self.hostname}

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Called when it has exceeded its hard time limit; a soft one is told to the task alone."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Called when it has failed, with the exception as `exc_info.exception`."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.name}[{self.id}]>"


# -- modules


class Loader:
    """Imports what a worker needs; a subclass given to the app (`loader=`) is told when workers and tasks begin and end."""

    name = "default"
    override_backends: Mapping[str, str] = {}
    worker_initialized = False

    def __init__(self, app: LiteTQ, **_: Any) -> None:
        self.app = app

    @property
    def conf(self) -> Any:
        """The app's settings."""
        return self.app.conf

    def now(self, utc: bool = True) -> Any:
        """Return the present time."""
        return self.app.now()

    def import_default_modules(self) -> list[ModuleType]:
        """Import what a worker imports; return the modules."""
        return self.app.import_default_modules()

    def import_task_module(self, module: str) -> ModuleType:
        """Import one module."""
        return importlib.import_module(module)

    def import_module(self, module: str, package: str | None = None) -> ModuleType:
        """Import one module."""
        return importlib.import_module(module, package=package)

    def import_from_cwd(self, module: str, imp: Any = None, package: str | None = None) -> ModuleType:
        """Import one module, which may lie in the working directory."""
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        return importlib.import_module(module, package=package)

    def autodiscover_tasks(self, packages: Sequence[str], related_name: str = "tasks") -> None:
        """Import `<package>.<related_name>` of each package, where there is one."""
        self.app.autodiscover_tasks(packages, related_name, force=True)

    def config_from_object(self, obj: Any, silent: bool = False) -> bool:
        """Take the settings from there."""
        self.app.config_from_object(obj, silent=silent)
        return True

    # -- what a subclass may define

    def on_task_init(self, task_id: str, task: Any) -> None:
        """Called before each task."""

    def on_process_cleanup(self) -> None:
        """Called after each task."""

    def on_worker_init(self) -> None:
        """Called when a worker starts."""

    def on_worker_process_init(self) -> None:
        """Called when a child of a worker starts."""

    def on_worker_shutdown(self) -> None:
        """Called when a worker ends."""

    # -- who calls it

    def init_worker(self) -> None:
        """Import what a worker needs and tell, once, that one starts in this process."""
        if not self.worker_initialized:
            self.worker_initialized = True
            self.import_default_modules()
            self.on_worker_init()

    def init_worker_process(self) -> None:
        """Tell that a child of a worker starts in this process."""
        self.on_worker_process_init()

    def shutdown_worker(self) -> None:
        """Tell that the worker of this process ends."""
        self.on_worker_shutdown()

    def listen(self) -> None:
        """Have the hooks called that a subclass defines; the others cost nothing."""

        def is_ours(sender: Any) -> bool:
            return getattr(sender, "app", None) in (self.app, None)

        def before(sender: Any, task_id: str, task: Any, **_: Any) -> None:
            if is_ours(task):
                self.on_task_init(task_id, task)

        def after(sender: Any, **_: Any) -> None:
            if is_ours(sender):
                self.on_process_cleanup()

        def starts(sender: Any, **_: Any) -> None:
            if is_ours(sender):
                self.init_worker()

        def ends(sender: Any, **_: Any) -> None:
            if is_ours(sender):
                self.shutdown_worker()

        def child_starts(**_: Any) -> None:
            self.init_worker_process()

        for hook, signal, receiver in (
            ("on_task_init", signals.task_prerun, before),
            ("on_process_cleanup", signals.task_postrun, after),
            ("on_worker_init", signals.worker_init, starts),
            ("on_worker_shutdown", signals.worker_shutdown, ends),
            ("on_worker_process_init", signals.worker_process_init, child_starts),
        ):
            if getattr(type(self), hook) is not getattr(Loader, hook):
                signal.connect(receiver, weak=False)


# -- logging


class Logging:
    """Set-up of logging from a program, under the names that Celery's `app.log` has."""

    already_setup = False

    def __init__(self, app: LiteTQ) -> None:
        self.app = app
        self.loglevel = logging.WARNING

    def setup(
        self,
        loglevel: Any = None,
        logfile: str | None = None,
        redirect_stdouts: bool = False,
        redirect_level: Any = "WARNING",
        colorize: bool | None = None,
        hostname: str | None = None,
    ) -> bool:
        """Set up logging as a worker does, and what is printed too if asked for; return whether it was done by this call."""
        done = self.setup_logging_subsystem(loglevel, logfile, colorize=colorize)
        if redirect_stdouts:
            log.redirect_prints(log.level_number(redirect_level))
        return done

    def setup_logging_subsystem(
        self,
        loglevel: Any = None,
        logfile: str | None = None,
        format: str | None = None,
        colorize: bool | None = None,
        **_: Any,
    ) -> bool:
        """Set up logging as a worker does, once; return whether it was done by this call."""
        if type(self).already_setup:
            return False
        type(self).already_setup = True
        level = log.level_number(loglevel) if loglevel else self.loglevel
        colour = self.app.conf.worker_log_color if colorize is None else colorize
        settings = log.settings_of(self.app.conf, level, logfile, colour)._replace(redirect_level=None)
        try:
            log.set_up(settings._replace(format=format, task_format=format) if format else settings)
        except ImproperlyConfigured:
            type(self).already_setup = False
            raise
        return True

    def setup_task_loggers(
        self,
        loglevel: Any = None,
        logfile: str | None = None,
        format: str | None = None,
        colorize: bool | None = None,
        **_: Any,
    ) -> Any:
        """Set up the tasks' loggers, as `setup_logging_subsystem` does, and return the one above them."""
        self.setup_logging_subsystem(loglevel, logfile, format, colorize)
        return logging.getLogger(log.TASK_LOGGER)

    def redirect_stdouts(self, loglevel: Any = None, name: str = log.REDIRECTED) -> None:
        """Make what is printed from now on lines of the log."""
        log.redirect_prints(log.level_number(loglevel or "WARNING"))

    def redirect_stdouts_to_logger(
        self, logger: logging.Logger, loglevel: Any = None, stdout: bool = True, stderr: bool = True
    ) -> Any:
        """Make what is printed from now on lines of this logger; return the stream that does it."""
        stream = log.Redirected(logger, log.level_number(loglevel or logger.level or logging.ERROR))
        if stdout:
            sys.stdout = stream
        if stderr:
            sys.stderr = stream
        return stream

    def get_default_logger(self, name: str = log.BASE_LOGGER, **_: Any) -> Any:
        """Return the logger of this name."""
        return logging.getLogger(name)

    def supports_color(self, colorize: bool | None = None, logfile: Any = None) -> bool:
        """Return whether lines would be coloured."""
        return not logfile and log.has_colour(sys.stderr, colorize)
