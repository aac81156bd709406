"""The application: it puts the program together, and reaches the running parts inside the few methods that start them.

Making an app and its tasks opens nothing, reads no setting and imports no module of the user. The file is opened at the
first use of `engine` or `results`; settings are read at the first look at one.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import warnings
import weakref
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime, timezone, tzinfo
from functools import lru_cache
from types import ModuleType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Literal,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    cast,
    overload,
)

from litetq import calling, canvas, clock, context, green, result, serialization, signals
from litetq.address import DISABLED, FILE_ENDINGS, Address, is_of_broker, mask, parse
from litetq.conf import Settings
from litetq.exceptions import (
    AlwaysEagerIgnored,
    CeleryWarning,
    DuplicateTaskNameWarning,
    ImproperlyConfigured,
    InvalidTaskError,
    NotRegistered,
    SerializerNotInstalled,
)
from litetq.message import uuid
from litetq.result import ResultBase, ResultListener, result_from_tuple
from litetq.routing import Router
from litetq.signals import Signal
from litetq.task import Forward, Task, app_label, refuse_async_handlers, set_attribute, task_from_function

if TYPE_CHECKING:
    from litetq.beat import Service as Beat
    from litetq.engine import FileEngine
    from litetq.entries import Entries
    from litetq.parts import Amqp, Connection, ConnectionPool, Logging, ProducerPool
    from litetq.projection import Projection
    from litetq.worker import Worker as RunningWorker

P = ParamSpec("P")
R = TypeVar("R")

# Names of their own, because the app has members called Task and Worker.
AnyTask: TypeAlias = Task[..., Any]
TaskOf: TypeAlias = Task[P, R]

if TYPE_CHECKING:

    class CoroutineTask(Task[P, R]):
        """A task made of an `async def` function: its result is what the function returns when it is awaited."""

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...  # type: ignore[override]

    class MakesTask(Protocol):
        """What `task(...)` with options returns."""

        @overload
        def __call__(self, fun: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineTask[P, R]: ...

        @overload
        def __call__(self, fun: Callable[P, R], /) -> TaskOf[P, R]: ...

    class MakesBoundTask(Protocol):
        """The same with `bind=True`: the function's first argument is the task."""

        @overload
        def __call__(self, fun: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> CoroutineTask[P, R]: ...

        @overload
        def __call__(self, fun: Callable[Concatenate[Any, P], R], /) -> TaskOf[P, R]: ...


DEFAULT_FILE: Final = "litetq.sqlite"
_MAIN_MODULES: Final = ("__main__", "__mp_main__")  # the second is what a spawned child calls the script
# Result backends that are no place of their own: the broker's file serves them. That a task ended is always on record.
_IN_BROKER_FILE: Final = ("rpc", "cache", "memory", "disabled")
_FILE_SCHEMES: Final = ("file", "memory")
_KEEPING_RESULTS: Final = ("redis", "rediss", "sentinel")  # of these, the brokers that keep results, too
_LIKE_TASKS: Final = "the same as the tasks"
_ONE_WAY: Final = ("broker_write_url", "broker_read_url")
_OF_DJANGO: Final = "DJANGO_SETTINGS_MODULE"


class TaskRegistry(dict[str, AnyTask]):
    """The tasks of one app by name. A name that is missing raises NotRegistered.

    A task of a script is sent as `__main__.x` and, where a worker imports the script as a module, registered as `module.x`:
    looking up the one finds the other.
    """

    NotRegistered = NotRegistered

    def __init__(self, tasks: Mapping[str, AnyTask] | None = None, script_module: str | None = None) -> None:
        super().__init__(tasks or {})
        self._script_module = script_module

    def __missing__(self, name: str) -> AnyTask:
        module, _, function = name.rpartition(".")
        if module == "__main__" and self._script_module is not None:
            task = self.get(f"{self._script_module}.{function}")
            if task is not None:
                return task
        raise NotRegistered(name)

    def register(self, task: AnyTask | type[AnyTask]) -> None:
        """Add a task (or an instance of a task class) under its name."""
        if not task.name:
            kind = task if isinstance(task, type) else type(task)
            raise InvalidTaskError(f"Task class {kind.__name__!r} must specify .name attribute")
        self[task.name] = task() if isinstance(task, type) else task

    def unregister(self, name: str | AnyTask) -> None:
        """Take a task out; NotRegistered when it is not in."""
        key = name if isinstance(name, str) else name.name
        if self.pop(key, None) is None:
            raise NotRegistered(key)


class LiteTQ:
    """A task queue in one SQLite file, with Celery's interface.

    Args:
        main: what stands for the module in names of tasks that are defined in a script.
        broker: where tasks are: the path of a file, or a URL of a file or a broker (`litetq.address`); a relative path is fixed
            here and now.
        backend: where results are, likewise; by default with the tasks, if those who keep them can keep results.
        control: the class of `app.control`, or its `module:name`.
        set_as_current: make this the app that `current_app` and shared tasks mean.
        tasks: tasks to begin with.
        include: modules that a worker imports.
        changes: settings, as a mapping.
        config_source: what `config_from_object` takes.
        task_cls: the base class of tasks, or its `module:name`.
        autofinalize: False raises RuntimeError when tasks are used before `finalize()`.
        namespace: the prefix of settings in the config source.
        strict_typing: check arguments at call time, unless a task says otherwise.
        durability: "normal" survives a kill of every process, "full" also a loss of power.
        loader: a class whose hooks are told when workers and tasks begin and end (`litetq.parts.Loader`), or its `module:name`.
        fixups: what fits the app into a framework: callables that take the app, or their `module:name`; by default
            `builtin_fixups`. What they return may have `set_up()` (before modules of tasks are imported),
            `autodiscover_tasks()` (packages), `check_file(path)` (refuse a file of tasks) and `release()` (let go of what this
            thread holds open).
        amqp, events, log: Celery's parts that a file does not need; accepted and unused.
        conf: further settings by keyword.
    """

    task_cls: Any = Task
    control_cls: Callable[[LiteTQ], Any] | str = "litetq.control:Control"
    loader_cls: Callable[[LiteTQ], Any] | str = "litetq.parts:Loader"
    registry_cls: type[TaskRegistry] = TaskRegistry
    builtin_fixups: tuple[str, ...] = ("litetq.contrib.django:fixup",)

    def __init__(
        self,
        main: str | None = None,
        loader: Any = None,
        backend: str | os.PathLike[str] | None = None,
        amqp: Any = None,
        events: Any = None,
        log: Any = None,
        control: Any = None,
        set_as_current: bool = True,
        tasks: Mapping[str, AnyTask] | None = None,
        broker: str | os.PathLike[str] | list[str] | None = None,
        include: str | Sequence[str] | None = None,
        changes: Mapping[str, Any] | None = None,
        config_source: Any = None,
        fixups: Any = None,
        task_cls: Any = None,
        autofinalize: bool = True,
        namespace: str | None = None,
        strict_typing: bool = True,
        durability: str | None = None,
        **conf: Any,
    ) -> None:
        self.main = main
        if broker is None and isinstance(main, str) and _looks_like_place(main):
            warnings.warn(
                f"{type(self).__name__}({main!r}): the first argument is the name of the app, not where its tasks lie; "
                f"for that, write broker={main!r}",
                CeleryWarning,
                stacklevel=_frames_of_ours(),
            )
        self.autofinalize = autofinalize
        self.strict_typing = strict_typing
        self.has_own_task_class = bool(task_cls) or type(self).task_cls is not Task
        self.task_cls = task_cls or self.task_cls
        self.on_configure = Signal(name="app.on_configure")
        self.on_after_configure = Signal(providing_args={"source"}, name="app.on_after_configure")
        self.on_after_finalize = Signal(name="app.on_after_finalize")
        self.on_after_fork = Signal(name="app.on_after_fork")  # sent in a pool's child, once it has this app
        self.finalized = False
        self._lock = threading.RLock()
        # Those that workers of this process serve; None: all that are declared.
        self.selected_queues: tuple[str, ...] | None = None
        self._home = _DefiningModule.of_caller()
        self._default_broker = _in_working_directory(DEFAULT_FILE)
        self._override: tuple[Address, str] | None = None
        self._engine: FileEngine | None = None
        self._results: FileEngine | Projection | None = None
        self._result_listeners: dict[bool, ResultListener] = {}  # by whether who waits is a greenlet
        self._router: Router | None = None
        self._task_base: type[AnyTask] | None = None
        self._names_warned: set[str] = set()
        self._discoveries: list[Callable[[], None]] = []
        self._is_configured = False
        self._periodic: dict[str, dict[str, Any]] = {}  # entries of the schedule that wait for the configuration
        self._tasks = self.registry_cls(tasks, self._home.importable_name())
        self.steps: dict[str, set[Any]] = {"worker": set(), "consumer": set()}  # what workers start and stop with them
        # modules through which somebody found the app, and its name there; children of a pool import them, too
        self.named_in: dict[str, str] = {}
        self.user_options: dict[str, set[Any]] = defaultdict(set)  # click options that commands take too, by command
        # Parsed now: a wrong one shows here, and a relative path means the working directory of now.
        self._given_broker = None if broker is None else parse(broker)
        self._given_backend = None if backend is None else _place_of_results(backend)
        own = {
            "broker_url": None if self._given_broker is None else self._given_broker.text,
            "result_backend": None if self._given_backend is None else self._given_backend.text,
            "include": _names(include) or None,
            "litetq_durability": durability,
        }
        if changes is not None and not isinstance(changes, Mapping):
            raise TypeError(f"changes must be a mapping of settings to values, found {changes!r}")
        given = {**(changes or {}), **conf, **{name: value for name, value in own.items() if value is not None}}
        self.conf = Settings(
            given,
            namespace=namespace,
            before=self._configuring,
            after=self._configured,
            mask=mask,
            prepare=self._own_preparation(),
        )
        if config_source is not None:
            self.conf.config_from_object(config_source)
        self._control_class = control or self.control_cls
        self._control: Any = None
        self._loader: Any = None
        self._oid = uuid()
        if loader is not None:
            self.loader_cls = loader
            self.loader.listen()
        self._events: Any = None
        _apps.add(self)
        if set_as_current:
            self.set_current()
        self.fixups = [made for made in (_made(each, self) for each in self._wanted_fixups(fixups)) if made is not None]
        self.on_init()

    def _wanted_fixups(self, given: Iterable[Any] | None) -> Iterable[Any]:
        if given is not None:
            return given
        # Ours is not even imported without Django.
        own = () if os.environ.get(_OF_DJANGO) else LiteTQ.builtin_fixups
        return [each for each in self.builtin_fixups if each not in own]

    def on_init(self) -> None:
        """Called at the end of the constructor; for subclasses."""

    # -- current and default ------------------------------------------------------------------------------------------

    def set_current(self) -> None:
        """Make this the current app of this thread or coroutine; the default one too, as long as there is none."""
        if context.get_current_app() is None:
            context.set_default_app(self)
        context.set_current_app(self)

    def set_default(self) -> None:
        """Make this the app of all threads that have no current one."""
        context.set_default_app(self)

    @property
    def current_task(self) -> AnyTask | None:
        """The task that runs here, or None."""
        return context.get_current_task()

    @property
    def current_worker_task(self) -> AnyTask | None:
        """The task whose attempt runs here, or None; one that it calls directly, as a function, does not count."""
        return context.get_current_worker_task()

    # -- configuration ------------------------------------------------------------------------------------------------

    @property
    def namespace(self) -> str | None:
        """The prefix of settings in the config source."""
        return self.conf.namespace

    def _configuring(self) -> None:
        self.on_configure.send(sender=self)

    def _configured(self, conf: Settings) -> None:
        self._is_configured = True
        if self._periodic:
            conf.beat_schedule = {**(conf.beat_schedule or {}), **self._periodic}
        self.on_after_configure.send(sender=self, source=conf)

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Take the settings from a module's name, an object or a class; read at the first look at a setting, or now (force).

        With `silent` a missing module is no error.
        """
        self.conf.config_from_object(obj, silent=silent, force=force, namespace=namespace)

    def config_from_envvar(self, variable_name: str, silent: bool = False, force: bool = False) -> bool:
        """Take the settings from the module that an environment variable names; return whether there is one.

        Raises ImproperlyConfigured when the variable is not set, unless `silent`.
        """
        return self.conf.config_from_envvar(variable_name, silent=silent, force=force)

    def config_from_cmdline(self, argv: Iterable[str], namespace: str = "celery") -> None:
        """Assign settings from words like `worker.concurrency=10`; `.concurrency=10` means one of this namespace."""
        self.conf.config_from_cmdline(argv, namespace)

    def prepare_config(self, c: dict[str, Any]) -> Mapping[str, Any]:
        """Return the settings of the config source as they shall count; for subclasses, given what the source has by name."""
        return c

    def _own_preparation(self) -> Callable[[dict[str, Any]], Mapping[str, Any]] | None:
        return None if type(self).prepare_config is LiteTQ.prepare_config else self.prepare_config

    def either(self, default_key: str, *defaults: Any) -> Any:
        """Return the first of these values that is not None, or else what the setting says."""
        return next((value for value in defaults if value is not None), self.conf.get(default_key))

    def add_defaults(self, fun: Mapping[str, Any] | Callable[[], Mapping[str, Any]]) -> None:
        """Add settings that count where nothing else is set; a callable is asked when settings are first read."""
        self.conf.add_defaults(fun)

    def now(self) -> datetime:
        """Return the present time, in the app's time zone."""
        return datetime.fromtimestamp(clock.now(), self.timezone)

    @property
    def timezone(self) -> tzinfo:
        """The setting `timezone`; without one UTC, or the local one with `enable_utc=False`."""
        name = self.conf.timezone
        if not name:
            return timezone.utc if self.conf.enable_utc else cast(tzinfo, datetime.now().astimezone().tzinfo)
        return name if isinstance(name, tzinfo) else _zone(name)

    @timezone.setter
    def timezone(self, value: Any) -> None:
        self.conf.timezone = value

    @property
    def configured(self) -> bool:
        """Whether the settings have been read."""
        return self._is_configured

    def uses_utc_timezone(self) -> bool:
        return self.timezone == timezone.utc

    @property
    def accepted_content(self) -> frozenset[str]:
        """The content types that tasks may come in (`accept_content`)."""
        return _accepted(self.conf.accept_content)

    @property
    def accepted_results(self) -> frozenset[str]:
        """The content types that results may come in (`result_accept_content`, else `accept_content`)."""
        conf = self.conf
        return _accepted(conf.result_accept_content or conf.accept_content)

    def check(self) -> None:
        """Raise ImproperlyConfigured for what would show only when a task runs or ends: places, formats, compression, time zone.

        Opens nothing.
        """
        conf = self.conf
        if not is_of_broker(self._broker()[0].scheme):
            _file_of("broker", *self._broker())
            self._check_results(*self._backend())
        for key in _ONE_WAY:
            if self._override is None and self.conf.value_set_for(key):
                other = parse(self.conf[key])
                if not _is_same_file(other, self.broker_address):
                    raise ImproperlyConfigured(
                        f"setting {key}: {mask(other.text)} is another place than {mask(self.broker_address.text)} "
                        f"({self.broker_source}); a file is written where it is read, so set broker_url alone"
                    )
        for key in ("accept_content", "result_accept_content"):
            with _naming_setting(key):
                serialization.accept_set(conf[key] or ())
        for key in ("task_serializer", "result_serializer"):
            with _naming_setting(key):
                serialization.encode(None, conf[key])
        for key in ("task_compression", "result_compression"):
            with _naming_setting(key):
                serialization.encode(None, "json", conf[key])
        _ = self.timezone

    def setup_security(
        self,
        allowed_serializers: Iterable[str] | None = None,
        key: str | None = None,
        key_password: bytes | str | None = None,
        cert: str | None = None,
        store: str | None = None,
        digest: str | None = None,
        serializer: str = "json",
    ) -> None:
        """Sign what is sent from this process, and read only what a trusted certificate stands for: the serializer `auth`.

        Call it where the app is made, so that every process does. `task_serializer` must be 'auth' and `accept_content` ['auth'].

        Args:
            allowed_serializers: accepted for Celery's sake; `accept_content` says what is read.
            key, key_password, cert: the files of this program's private key and certificate; by default those of the settings
                `security_key`, `security_key_password` and `security_certificate`.
            store: the directory of certificates that are trusted, or a pattern of such files (`security_cert_store`).
            digest: by default `security_digest`.
            serializer: what the content is written with.

        Raises ImproperlyConfigured for what is missing, SecurityError for a file that is none of those.
        """
        from litetq import security

        security.set_up(self.conf, key, key_password, cert, store, digest, serializer)

    # -- the file -----------------------------------------------------------------------------------------------------

    def override_broker(self, url: str | os.PathLike[str], source: str = "the command line") -> None:
        """Use this file for tasks and results, whatever else is set, from the next use on; `source` says who wanted it.

        A broker takes the tasks alone.
        """
        address = parse(url)
        with self._lock:
            self.conf.override(source, **_places(address))
            self._override = (address, source)
            self._close_engines()

    @contextmanager
    def broker_overridden(self, url: str | os.PathLike[str], source: str) -> Iterator[None]:
        """Within the block, use this file for tasks and results, as `override_broker` makes it; afterwards, what was used before.

        Not while a worker of this app runs.
        """
        address, before = parse(url), self._override
        with self.conf.overridden(source, **_places(address)):
            self._use((address, source))
            try:
                yield
            finally:
                self._use(before)

    def _use(self, override: tuple[Address, str] | None) -> None:
        with self._lock:
            self._override = override
            self._close_engines()

    @property
    def is_broker_overridden(self) -> bool:
        """Return whether something outside of the app decided where tasks are: its other processes must be told."""
        return self._override is not None or self.broker_address.path is None

    def home(self) -> dict[str, Any] | None:
        """Return how another process finds this app: module, attribute, file, is_main, main_name; None when it cannot.

        What a factory has made (`app = create_app().extensions["celery"]`) is no global where it was made: it is found where
        somebody found it before, else in whichever module of this process it is a global.
        """
        own = self._home.directions(self._home.attribute_of(self))
        if own is not None:
            return own
        for name, attribute in self.named_in.items():
            return _DefiningModule.of(vars(sys.modules[name])).directions(attribute)
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] in (__package__, "celery"):
                continue  # the current app and such: there in this process only
            elsewhere = _DefiningModule.of(getattr(module, "__dict__", {}))
            found = elsewhere.directions(elsewhere.attribute_of(self))
            if found is not None:
                return found
        return None

    @property
    def broker_address(self) -> Address:
        """Where tasks are sent."""
        return self._broker()[0]

    @property
    def broker_source(self) -> str:
        """Who decided where tasks are sent, in words."""
        return self._broker()[1]

    def _broker(self) -> tuple[Address, str]:
        if self._override is not None:
            return self._override
        url, source = self.conf.broker_url, self.conf.source_of("broker_url")
        if not url:
            one_way = self.conf.broker_write_url or self.conf.broker_read_url
            if one_way:
                key = next(key for key in _ONE_WAY if self.conf[key])
                return parse(one_way), f"the setting {key}"
            return parse(self._default_broker), f"the default, {DEFAULT_FILE} in the working directory"
        if source == "constructor" and self._given_broker is not None:
            return self._given_broker, _IN_WORDS[source]
        return parse(url), _IN_WORDS.get(source, source)

    @property
    def result_address(self) -> Address:
        """Where results are written and read; by default where tasks are sent."""
        return self._backend()[0]

    @property
    def result_source(self) -> str:
        """Who decided where results are, in words."""
        return self._backend()[1]

    def _backend(self) -> tuple[Address, str]:
        if self._override is not None and not is_of_broker(self._override[0].scheme):
            return self._override
        url, source = self.conf.result_backend, self.conf.source_of("result_backend")
        address = None
        if source == "constructor" and self._given_backend is not None:
            address = self._given_backend
        elif url:
            address = _place_of_results(url)
        broker = self._broker()[0]
        if is_of_broker(broker.scheme):
            keeps_results = broker.scheme.startswith(_KEEPING_RESULTS)
            if address is None and not keeps_results:
                return parse(DISABLED), "the default with such a broker"
            if address is not None and (address.scheme in ("rpc", DISABLED) or not keeps_results):
                return address, _IN_WORDS.get(source, source)
        if address is None or address.scheme in _IN_BROKER_FILE:
            return broker, _LIKE_TASKS
        return address, _IN_WORDS.get(source, source)

    @property
    def engine(self) -> FileEngine:
        """What holds the tasks, the file or a broker's engine; opened at the first use, by whichever thread comes first.

        Raises ImproperlyConfigured for a broker that litetq has no adapter for, or whose package is missing.
        """
        return self._engine or self._open_engine()

    @property
    def results(self) -> FileEngine | Projection:
        """What holds the results: what holds the tasks, unless `result_backend` names another file, or a backend beside it."""
        return self._results or self._open_results()

    @property
    def backend(self) -> Any:
        """Where results are kept: their file, or the backend of a package that `result_backend` names."""
        results = self.results
        plugged_in = getattr(getattr(results, "archive", None), "backend", None)
        if plugged_in is not None:
            return plugged_in
        from litetq.parts import FileBackend

        return FileBackend(self, results)

    def _open_engine(self) -> FileEngine:
        with self._lock:
            if self._engine is None and is_of_broker(self._broker()[0].scheme):
                self._engine = self._open_wire()
            if self._engine is None:
                address = _file_of("broker", *self._broker())
                results = self._backend()[0]
                # A name that rows of the file have: no password belongs there.
                projection = None if _is_same_file(address, results) else mask(results.text)
                from litetq.engine import FileEngine

                if address.path is not None:
                    self._check_file(address.path)
                engine = FileEngine(address.path, projection=projection, **self._file_options(address))
                recorded = self._home.describe(self)
                if recorded is not None:
                    engine.record_app(recorded)
                self._engine = engine
            return self._engine

    def _open_wire(self) -> FileEngine:
        """Return the engine for a broker, with its results; the packages that it needs are imported now."""
        from litetq import adapters, wiring

        broker, (results, source) = self._broker()[0], self._backend()
        conf = self.conf
        expires = _span(conf.result_expires, "result_expires")
        failures = conf.result_failure_expires
        return adapters.open_engine(
            broker.text,
            wiring.results_of_broker(self, results, source, is_of_broker=source == _LIKE_TASKS),
            wiring.program_of(self),
            codec=wiring.codec_of(self),
            transport_options=dict(conf.broker_transport_options or {}),
            connecting=wiring.connecting_options(conf, broker),
            broker_options=wiring.broker_options(self),
            naming=wiring.naming_of(conf),
            result_expires=expires,
            failure_expires=expires if failures is None else _span(failures, "result_failure_expires"),
            sends_events=bool(conf.task_send_sent_event),
        )

    def _check_file(self, path: str) -> None:
        for fixup in self.fixups:
            if hasattr(fixup, "check_file"):
                fixup.check_file(path)

    def _open_results(self) -> FileEngine | Projection:
        with self._lock:
            if self._results is None:
                address, source = self._backend()
                if is_of_broker(self._broker()[0].scheme):
                    self._results = self.engine
                    return self._results
                self._check_results(address, source)
                if address.scheme not in _FILE_SCHEMES:
                    from litetq import projection, wiring

                    elsewhere = wiring.results_at(self, address, source)
                    self._results = projection.Projection(self, elsewhere, self.engine, self.release)
                elif _is_same_file(address, self._broker()[0]):
                    self._results = self.engine
                else:
                    from litetq.engine import ResultFile

                    self._results = ResultFile(address.path, tasks=self._file_of_tasks, **self._file_options(address))
            return self._results

    def _check_results(self, address: Address, source: str) -> None:
        if address.scheme in _FILE_SCHEMES:
            return
        from litetq import wiring

        wiring.check_results(self, address, source)

    def release(self) -> None:
        """Let go of what the framework that the app is fitted into holds open for this thread, as database connections."""
        for fixup in self.fixups:
            if hasattr(fixup, "release"):
                fixup.release()

    def _file_of_tasks(self) -> FileEngine | None:
        """Return the file of the tasks, if there is one: whoever only reads results must not make it."""
        address = self._broker()[0]
        if address.scheme not in _FILE_SCHEMES:
            return None
        is_there = self._engine is not None or address.path is None or os.path.exists(address.path)
        return self.engine if is_there else None

    def _file_options(self, address: Address) -> dict[str, Any]:
        """Return what address, transport options and settings say about a file."""
        conf = self.conf
        is_broker = address == self._broker()[0]
        more = (conf.broker_transport_options if is_broker else conf.result_backend_transport_options) or {}

        def option(name: str, default: Any) -> Any:
            return address.options.get(name, more.get(name, default))

        expires = _span(conf.result_expires, "result_expires")
        failures = conf.result_failure_expires
        return {
            "durability": address.durability or more.get("durability") or conf.litetq_durability,
            "busy_timeout": option("busy_timeout", conf.litetq_busy_timeout),
            "check_file_system": option("check_file_system", True),
            "result_expires": expires,
            "failure_expires": expires if failures is None else _span(failures, "result_failure_expires"),
            "redelivery_bound": option("redelivery_bound", conf.litetq_redelivery_bound),
            "lease": option("lease", conf.litetq_lease),
            "silence_bound": option("silence_bound", conf.litetq_silence_bound),
            "sends_events": bool(conf.task_send_sent_event),
            "ageing": _span(conf.litetq_priority_ageing, "litetq_priority_ageing"),
        }

    @property
    def result_listener(self) -> ResultListener:
        """What calls back when tasks end (`AsyncResult.then`)."""
        # A greenlet's callbacks run in one; the event loop is on a native thread, where no greenlet would ever run.
        kind = green.is_greenlet()
        with self._lock:
            if kind not in self._result_listeners:
                self._result_listeners[kind] = ResultListener(lambda: self.results)
            return self._result_listeners[kind]

    def _close_engines(self) -> None:
        engines = {id(engine): engine for engine in (self._engine, self._results) if engine is not None}
        self._engine = self._results = None
        for engine in engines.values():
            engine.close()

    def close(self) -> None:
        """Close what is open; the next use opens it again. A second close does nothing."""
        with self._lock:
            self._close_engines()

    def __enter__(self) -> LiteTQ:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def router(self) -> Router:
        """What the settings say about queues and routes."""
        if self._router is None or not self._router.is_for(self.conf):
            self._router = Router(self.conf)
        return self._router

    # -- tasks --------------------------------------------------------------------------------------------------------

    @property
    def tasks(self) -> TaskRegistry:
        """The registered tasks by name; finalizes the app."""
        self.finalize(auto=True)
        return self._tasks

    def finalize(self, auto: bool = False) -> None:
        """Take in the shared tasks and tell `on_after_finalize`; once.

        Raises RuntimeError when it is asked for by a use of the tasks (auto) and `autofinalize` is off.
        """
        if self.finalized:
            return
        with self._lock:
            if self.finalized:
                return
            if auto and not self.autofinalize:
                raise RuntimeError("Contract breach: app not finalized; call app.finalize() before its tasks are used")
            self.finalized = True
            for name, function in canvas.builtin_tasks(self).items():
                self._add_function(function, {"name": name, **canvas.BUILTIN_OPTIONS.get(name, {})})
            for shared in list(_shared):
                self._add_function(*shared)
            for callback in list(_at_finalize):
                callback(self)
            self.on_after_finalize.send(sender=self)

    @property
    def Task(self) -> type[AnyTask]:
        """This app's base class of tasks: what is set on it counts for this app's tasks only."""
        if self._task_base is None:
            self._task_base = self.create_task_cls()
        return self._task_base

    @Task.setter
    def Task(self, base: type[AnyTask]) -> None:
        """Make this the base class of tasks; also of those that were made before without one, as long as nothing is finalized."""
        if not (isinstance(base, type) and issubclass(base, Task)):
            raise ImproperlyConfigured(f"app.Task = {base!r}: it must be a class of tasks, derived from app.Task")
        former, self._task_base = self._task_base, base
        if not self.finalized:
            for task in self._tasks.values():
                if type(task) is former:
                    task.__class__ = base

    def create_task_cls(self) -> type[AnyTask]:
        """Make a base class of tasks that belong to this app."""
        base = self.task_cls
        if isinstance(base, str):
            import pkgutil

            try:
                base = pkgutil.resolve_name(base)
            except (ImportError, AttributeError, ValueError) as error:
                raise ImproperlyConfigured(f"task_cls={base!r}: {error}; name a class as module:Class") from error
        if not (isinstance(base, type) and issubclass(base, Task)):
            raise ImproperlyConfigured(f"task_cls={self.task_cls!r}: it must be a class of tasks, or its module:Class")
        fields = {"_app": self, "abstract": True, "__module__": base.__module__, "__doc__": base.__doc__}
        return cast("type[AnyTask]", type(base.__name__, (base,), fields))

    def subclass_with_self(
        self,
        Class: Any,
        name: str | None = None,
        attribute: str = "app",
        reverse: str | None = None,
        keep_reduce: bool = False,
        **kw: Any,
    ) -> type[Any]:
        """Return a subclass of a class (or of its `module:name`) that knows this app; for subclasses of the app."""
        import pkgutil

        base = pkgutil.resolve_name(Class) if isinstance(Class, str) else Class
        fields = {attribute: self, "__module__": base.__module__, "__doc__": base.__doc__, **kw}
        return type(name or base.__name__, (base,), fields)

    @overload
    def task(self, fun: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineTask[P, R]: ...

    @overload
    def task(self, fun: Callable[P, R], /) -> TaskOf[P, R]: ...

    @overload
    def task(self, *, bind: Literal[True], **options: Any) -> MakesBoundTask: ...

    @overload
    def task(self, *, bind: Literal[False] = ..., **options: Any) -> MakesTask: ...

    def task(self, *args: Any, **options: Any) -> Any:
        """Make a task of a function: `@app.task`, or `@app.task(name=..., bind=True, ...)`.

        Args:
            name: the task's name; by default module and function.
            base: the task's class; by default `app.Task`.
            bind: give the task itself to the function as its first argument.
            filter: called with the task, returns what the decorator returns.
            shared, lazy: accepted for Celery's sake; a task is real at once and belongs to its app.
            options: further attributes of the task; functions among them become its methods.

        A second function under a name does not replace the first one; DuplicateTaskNameWarning says so.
        """
        if len(args) > 1:
            raise TypeError(f"@task() takes exactly 1 argument ({len(args)} given)")
        if args and not callable(args[0]):
            raise TypeError(f"argument 1 to @task() must be a callable, found {args[0]!r}; give options by keyword")
        return self._task_from(args[0], **options) if args else lambda function: self._task_from(function, **options)

    def _task_from(
        self,
        function: Callable[..., Any],
        name: str | None = None,
        base: type[AnyTask] | None = None,
        bind: bool = False,
        filter: Callable[[Any], Any] | None = None,
        shared: bool = True,
        lazy: bool = True,
        **options: Any,
    ) -> Any:
        task = self._add_function(function, {"name": name, "base": base, "bind": bind, **options})
        return task if filter is None else filter(task)

    def _add_function(self, function: Callable[..., Any], options: Mapping[str, Any]) -> AnyTask:
        rest = dict(options)
        given, base, bind = rest.pop("name", None), rest.pop("base", None), rest.pop("bind", False)
        if given is not None:
            calling.text(given, "name")
        if base is not None and not (isinstance(base, type) and issubclass(base, Task)):
            raise TypeError(f"option 'base' must be a class of tasks, found {base!r}")
        name = given or self.gen_task_name(_function_name(function), _function_module(function))
        with self._lock:
            known = self._tasks.get(name)
            if known is not None:
                self._warn_of_duplicate(known, function, name)
                return known
            task = task_from_function(self, function, name, base or self.Task, bind, rest)
            return self._add(task)

    def _add(self, task: AnyTask) -> AnyTask:
        task._app = self
        if task.typing is None:
            task.typing = self.strict_typing
        refuse_async_handlers(task)
        self._tasks[task.name] = task
        type(task).on_bound(self)
        return task

    def _warn_of_duplicate(self, known: AnyTask, function: Callable[..., Any], name: str) -> None:
        before = _made_of(known)
        if before is function or known.__dict__.get("run") is None:
            return
        self._warn_once_of(
            name,
            f"{_qualified(before)} stays, {_qualified(function)} was not registered and calls under this name do not reach it",
        )

    def _warn_once_of(self, name: str, what_became: str) -> None:
        if name in self._names_warned:
            return
        self._names_warned.add(name)
        warnings.warn(
            f"Task name {name!r} is already registered to a different callable: {what_became}. "
            "Give one of them another name with name=...",
            DuplicateTaskNameWarning,
            stacklevel=_frames_of_ours(),
        )

    def register_task(self, task: AnyTask | type[AnyTask], **options: Any) -> AnyTask:
        """Add a class-based task (an instance, or the class, of which one is made).

        It replaces one of the same name; DuplicateTaskNameWarning says so, where that was made of something else.
        """
        made = task() if isinstance(task, type) else task
        if not isinstance(made, Task):
            raise TypeError(
                f"register_task needs a task or a class of tasks, found {task!r}; @app.task takes functions"
            )
        if not made.name:
            made.name = self.gen_task_name(type(made).__name__, type(made).__module__)
        for name, value in options.items():
            set_attribute(made, name, value)
        known = self._tasks.get(made.name)
        if known is not None and _made_of(known) is not _made_of(made):
            self._warn_once_of(
                made.name,
                f"{_qualified(_made_of(made))} has replaced {_qualified(_made_of(known))}, which calls no longer reach",
            )
        with self._lock:
            return self._add(made)

    def gen_task_name(self, name: str, module: str | None) -> str:
        """Return the name of a task by default: module and function; in a script, `main` stands for the module."""
        if not module or module in _MAIN_MODULES:
            return f"{self.main or '__main__'}.{name}"
        return f"{module}.{name}"

    # -- periodic tasks -----------------------------------------------------------------------------------------------

    def add_periodic_task(
        self, schedule: Any, sig: Any, args: Sequence[Any] = (), kwargs: Any = (), name: str | None = None, **opts: Any
    ) -> str:
        """Add an entry to the setting `beat_schedule`; return its name.

        Args:
            schedule: seconds, a timedelta, a cron line such as "*/5 * * * *", `crontab(...)`.
            sig: a signature, or a task.
            args, kwargs: put before the arguments of the signature, and over its keyword arguments.
            name: the entry's name; without one, entries of equal calls replace each other, as in Celery.
            opts: options of `apply_async`; and catch_up, overlap, jitter, deadline, starts_at, ends_at.
        """
        from litetq.entries import periodic_entry

        key, entry = periodic_entry(schedule, sig, args, dict(kwargs or {}), name, opts)
        known = (self.conf.beat_schedule or {}) if self._is_configured else self._periodic
        if name is None and key in known:
            warnings.warn(
                f"The periodic task {key!r} replaces an equal one; give each a name to have both.",
                CeleryWarning,
                stacklevel=_frames_of_ours(),
            )
        if self._is_configured:
            self.conf.beat_schedule = {**known, key: entry}
        else:
            self._periodic[key] = entry
        return key

    def periodic(self, schedule: Any, name: str | None = None, **options: Any) -> Callable[[Any], AnyTask]:
        """Make a task of a function, or take a task, and have beat send it: `@app.periodic(30.0)`.

        Takes what `add_periodic_task` takes; the entry is called like the task, unless `name` says otherwise.
        """

        def decorate(target: Any) -> AnyTask:
            task: AnyTask = target if isinstance(target, Task) else self.task(target)
            self.add_periodic_task(schedule, task, name=name or task.name, **options)
            return task

        return decorate

    @property
    def schedule(self) -> Entries:
        """The periodic tasks in the file, to be looked at and changed while beats run."""
        from litetq.entries import Entries

        return Entries(self)

    @property
    def identity(self) -> str:
        """A name for this app that is the same in all of its processes: module:attribute, else what stands for its module."""
        found = self._home.describe(self)
        return f"{found['module']}:{found['attribute']}" if found else self.main or "app"

    # -- calling and asking -------------------------------------------------------------------------------------------

    def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        countdown: float | None = None,
        eta: datetime | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> result.AsyncResult[Any]:
        """Enqueue a call of a task by name; its code need not be here. Takes the options of `Task.apply_async`.

        A subclass that overrides this sees the calls of tasks, too: `delay` and `apply_async` then come here with the task, its
        arguments checked, as `task_type`.
        """
        task: Any = options.get("task_type")
        if task is None:
            if self.conf.task_always_eager:
                warnings.warn(AlwaysEagerIgnored("task_always_eager has no effect on send_task"), stacklevel=2)
            if not calling.text(name, "name"):
                raise ValueError("send_task needs the name of a task, found an empty one")
            task = self._tasks.get(name)
        args, kwargs = calling.checked_arguments(name, args, kwargs)
        if options:
            calling.refuse_unknown(options, name)
        for option, value in (("countdown", countdown), ("eta", eta), ("task_id", task_id)):
            if value is not None:
                options[option] = value
        if options.get("link") or options.get("link_error"):
            return cast("result.AsyncResult[Any]", canvas.send_linked(task, self, name, args, kwargs, options))
        return calling.send(self, name, task, args, kwargs, options)

    def has_own_send_task(self) -> bool:
        """Return whether a subclass, a tool or a test has a `send_task` of its own, which wants to see each call."""
        return type(self).send_task is not _SEND_TASK or "send_task" in self.__dict__

    async def asend_task(
        self, name: str, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> result.AsyncResult[Any]:
        """Do as `send_task` does, without holding the event loop."""
        from litetq import aio

        return await aio.in_background(self.send_task, name, args, kwargs, **options)

    def signature(self, varies: Any, *args: Any, **kwargs: Any) -> canvas.Signature:
        """Return a call that has not been made yet: of a task or its name, or of a dict that describes one."""
        kwargs["app"] = self
        return canvas.signature(varies, *args, **kwargs)

    # The classes of results, of this app's file: to be called, and for `isinstance`, `except app.AsyncResult.TimeoutError`,
    # `app.GroupResult.restore(id)`.
    AsyncResult = cast("type[result.AsyncResult[Any]]", result.OfApp(result.AsyncResult))
    GroupResult = cast("type[result.GroupResult]", result.OfApp(result.GroupResult))
    ResultSet = cast("type[result.ResultSet]", result.OfApp(result.ResultSet))

    def result_from_tuple(self, r: Any) -> ResultBase:
        """Return the result that `as_tuple` described."""
        return result_from_tuple(r, self)

    # -- modules ------------------------------------------------------------------------------------------------------

    def adopt_script(self) -> None:
        """Make `import tasks` bring the running script where that is tasks.py: a second copy would have a second app."""
        self._home.adopt()

    def set_up_framework(self) -> None:
        """Make the framework that the app is fitted into ready for modules of tasks, which import from it."""
        for fixup in self.fixups:
            if hasattr(fixup, "set_up"):
                fixup.set_up()

    def import_default_modules(self) -> list[ModuleType]:
        """Import what a worker needs: what was asked for by `autodiscover_tasks`, and settings `imports` and `include`.

        Raises what a module raised.
        """
        self.adopt_script()
        self.set_up_framework()
        for _, response in signals.import_modules.send(sender=self):
            if isinstance(response, Exception):
                raise response
        for discover in self._discoveries:
            discover()
        names = [*_names(self.conf.imports), *_names(self.conf.include)]
        return [importlib.import_module(name) for name in dict.fromkeys(names)]

    def autodiscover_tasks(
        self,
        packages: Sequence[str] | Callable[[], Sequence[str]] | None = None,
        related_name: str | None = "tasks",
        force: bool = False,
    ) -> None:
        """Import `<package>.<related_name>` of each package, where there is such a module, when a worker starts (or now).

        Args:
            packages: names, or a callable that returns them then; None: those of the framework, as Django's installed apps.
            related_name: None imports the packages themselves.
            force: import now.
        """

        def discover() -> None:
            names = packages() if callable(packages) else packages
            for package in self._packages_of_fixups() if names is None else names:
                _import_related(package, related_name)

        if force:
            discover()
        else:
            self._discoveries.append(discover)

    def _packages_of_fixups(self) -> list[str]:
        return [
            package
            for fixup in self.fixups
            if hasattr(fixup, "autodiscover_tasks")
            for package in fixup.autodiscover_tasks()
        ]

    # -- orders and questions to workers ------------------------------------------------------------------------------

    @property
    def control(self) -> Any:
        """Orders and questions to the workers of the file (`litetq.control.Control`)."""
        if self._control is None:
            self._control = _made(self._control_class, self)
        return self._control

    @property
    def events(self) -> Any:
        """Sending and reading events (`litetq.events.Events`)."""
        if self._events is None:
            from litetq.events import Events

            self._events = Events(self)
        return self._events

    # -- what Celery's apps have beside ---------------------------------------------------------------------------------

    def connection(self, *_: Any, **__: Any) -> Connection:
        """Return the file as something to be ensured, entered and released (`litetq.parts.Connection`)."""
        from litetq.parts import Connection

        return Connection(self)

    connection_for_read = connection_for_write = connection_or_acquire = connection
    broker_connection = default_connection = connection

    @property
    def oid(self) -> str:
        """The id of this app's process among those that ask for results."""
        return self._oid

    thread_oid = oid

    @property
    def annotations(self) -> Any:
        """The setting `task_annotations`."""
        return self.conf.task_annotations or ()

    @property
    def pool(self) -> ConnectionPool:
        """What hands out connections: `with app.pool.acquire() as connection`."""
        from litetq.parts import ConnectionPool

        return ConnectionPool(self)

    @property
    def producer_pool(self) -> ProducerPool:
        """What hands out producers: `with app.producer_pool.acquire() as producer`. Calls take one and need none."""
        from litetq.parts import ProducerPool

        return ProducerPool(self)

    def producer_or_acquire(self, producer: Any = None) -> AbstractContextManager[Any]:
        """Return a block that has the producer given, or one of the pool."""
        return self.producer_pool.acquire() if producer is None else nullcontext(producer)

    default_producer = producer_or_acquire

    def select_queues(self, queues: str | Iterable[str] | None = None) -> None:
        """Have workers of this process serve these queues where nothing else is said; None: again all that are declared."""
        self.selected_queues = None if queues is None else tuple(_names(queues))

    @property
    def amqp(self) -> Amqp:
        """Queues and routes, as Celery shows them."""
        from litetq.parts import Amqp

        return Amqp(self)

    @property
    def loader(self) -> Any:
        """What imports the modules that a worker needs, and is told when workers and tasks begin and end."""
        if self._loader is None:
            self._loader = _made(self.loader_cls, self)
        return self._loader

    @property
    def log(self) -> Logging:
        """Set-up of logging from a program."""
        from litetq.parts import Logging

        return Logging(self)

    # -- running ------------------------------------------------------------------------------------------------------

    def Worker(self, **options: Any) -> RunningWorker:
        """Return a worker for this app, not yet started. Options are those of `litetq.worker.Worker`.

        With `loglevel` or `logfile`, logging is set up as for `litetq worker`.
        """
        context.refuse_while_importing("a worker is started")  # before the file is opened for it
        from litetq.worker import Worker

        self.check()
        loglevel, logfile = options.pop("loglevel", None), options.pop("logfile", None)
        if loglevel or logfile:
            self.log.setup(loglevel, logfile)
        concurrency, queues = options.get("concurrency"), options.get("queues")
        if concurrency is not None and (isinstance(concurrency, bool) or not isinstance(concurrency, int)):
            raise ImproperlyConfigured(
                f"concurrency={concurrency!r}: give a whole number of tasks at a time, from 1 up"
            )
        if queues is not None:
            options["queues"] = _queue_names(queues)
            if not options["queues"]:
                raise ImproperlyConfigured(
                    f"queues={queues!r}: a worker needs a queue; leave it out for the default ones"
                )
        return Worker(self, engine=self.engine, **options)

    WorkController = Worker

    def Beat(self, **options: Any) -> Beat:
        """Return a beat for this app, not yet started: `start()` ticks until `stop()`.

        Options are those of `litetq.beat.Service`, also by Celery's names: `scheduler` for `scheduler_cls`, `schedule` for
        `schedule_filename`.
        """
        context.refuse_while_importing("beat is started")
        from litetq.beat import Service

        for name, ours in (("scheduler", "scheduler_cls"), ("schedule", "schedule_filename")):
            if options.get(name) is not None:
                options[ours] = options.pop(name)
        return Service(self, **options)

    def run_embedded(
        self,
        concurrency: int | None = None,
        pool: str | type[Any] = "threads",
        queues: Sequence[str] | None = None,
        beat: bool = False,
        **options: Any,
    ) -> RunningWorker:
        """Start a worker inside this program and return its handle at once.

        What was enqueued is in the file and survives a crash of the program; a task that was running then ends as FAILURE
        (WorkerLostError) at the next start, or runs again if it has `acks_late`.

        The handle is a context manager; leaving it lets running tasks finish and leaves waiting ones in the file. It has
        `stop(timeout)`, `drain(timeout)` and `statistics()`. No signal handlers are installed and nothing is printed.

        Args:
            concurrency: tasks at a time; by default the number of CPUs, at most 4; in pool asyncio 1000, and 100 with greenlets.
            pool: "threads", "solo", "processes", "asyncio", a class of your own, or, in a program that one of them has
                patched, "gevent" or "eventlet".
            queues: names of the queues to serve; None: the default ones.
            beat: send periodic tasks, too.
        """
        if concurrency is None and pool not in ("asyncio", "gevent", "eventlet"):
            concurrency = min(4, os.cpu_count() or 1)
        worker = self.Worker(pool=pool, concurrency=concurrency, queues=queues, embedded=True, beat=beat, **options)
        worker.start()
        return worker

    def worker_main(self, argv: Sequence[str] | None = None) -> Any:
        """Run `litetq worker` with these arguments, which name the command: `["worker", "-l", "INFO"]`."""
        arguments = sys.argv if argv is None else argv
        if "worker" not in arguments:
            raise ValueError(
                "The worker sub-command must be specified in argv.\n"
                "Use app.start() to programmatically start other commands."
            )
        return self.start(argv)

    def start(self, argv: Sequence[str] | None = None) -> Any:
        """Run the `litetq` command for this app, by default with the arguments of this program."""
        from litetq import cli

        return cli.main(list(sys.argv[1:] if argv is None else argv), app=self)

    # -- as a value ---------------------------------------------------------------------------------------------------

    def bugreport(self) -> str:
        """Return versions, platform, where tasks and results go and who decided that, and the settings, passwords hidden."""
        import platform

        from litetq import __version__

        broker, results = self.broker_address, self.result_address
        return (
            f"\nsoftware -> litetq:{__version__} py:{platform.python_version()}\n"
            f"platform -> system:{platform.system()} arch:{', '.join(filter(None, platform.architecture()))}\n"
            f"            kernel version:{platform.release()} imp:{platform.python_implementation()}\n"
            f"settings -> broker:{mask(broker.text)} ({self.broker_source})\n"
            f"            results:{mask(results.text)} ({self.result_source})\n"
            f"            working directory:{os.getcwd()} import path:{sys.path[0] if sys.path else ''}\n"
            f"\n{self.conf.humanize()}\n"
        )

    def __repr__(self) -> str:
        # Under the name that Celery's users, and their doctests, know; a subclass has its own.
        name = "Celery" if type(self) is LiteTQ else type(self).__name__
        return f"<{name} {app_label(self)}>"

    def __reduce__(self) -> Any:
        return _restore_app, (type(self), self._keywords())

    def _keywords(self) -> dict[str, Any]:
        """Return the constructor's keywords that make an app like this one elsewhere: another process or directory."""
        changes = dict(self.conf.changes)
        for setting, address in (("broker_url", self._given_broker), ("result_backend", self._given_backend)):
            if address is not None and address.path is not None and changes.get(setting) == address.text:
                changes[setting] = os.fspath(address.path)
        return {
            "main": self.main,
            "changes": changes,
            "config_source": self.conf.config_source,
            "task_cls": self.task_cls,
            "autofinalize": self.autofinalize,
            "namespace": self.namespace,
            "strict_typing": self.strict_typing,
        }


_apps: weakref.WeakSet[LiteTQ] = weakref.WeakSet()
_shared: list[tuple[Callable[..., Any], dict[str, Any]]] = []
_at_finalize: list[Callable[[LiteTQ], object]] = []

_IN_WORDS: Final = {"constructor": "the app's constructor", "conf": "an assignment to app.conf"}
_NO_ADAPTER: Final = (
    "the {0} {1} (from {2}) cannot be used: litetq has no adapter for {3}://; "
    "give the path of a file, or a URL of redis:// or amqp://"
)


def connect_on_app_finalize(callback: Callable[[LiteTQ], object]) -> Callable[[LiteTQ], object]:
    """Call this with every app that is finalized from now on; how packages add tasks of their own to all apps."""
    _at_finalize.append(callback)
    return callback


def _made(cls: Callable[[LiteTQ], Any] | str, app: LiteTQ) -> Any:
    """Return an instance for this app, of a class or its `module:name`."""
    if isinstance(cls, str):
        import pkgutil

        return pkgutil.resolve_name(cls)(app)
    return cls(app)


def _restore_app(cls: type[LiteTQ], keywords: dict[str, Any]) -> LiteTQ:
    return cls(set_as_current=False, **keywords)


_SEND_TASK: Final = LiteTQ.send_task


def current_or_default_app() -> LiteTQ:
    """Return the current app; where there is none, one is made with all defaults, which is the default app from then on."""
    app = context.get_current_app()
    if app is None:
        app = LiteTQ("default", set_as_current=False)
        context.set_default_app(app)
    return app


current_app: LiteTQ = cast(LiteTQ, Forward(current_or_default_app))
current_task: AnyTask = cast(AnyTask, Forward(context.get_current_task))


def bugreport(app: LiteTQ | None = None) -> str:
    """Return what a bug report needs about this app, by default the current one."""
    return (app or current_or_default_app()).bugreport()


@overload
def shared_task(fun: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineTask[P, R]: ...


@overload
def shared_task(fun: Callable[P, R], /) -> TaskOf[P, R]: ...


@overload
def shared_task(*, bind: Literal[True], **options: Any) -> MakesBoundTask: ...


@overload
def shared_task(*, bind: Literal[False] = ..., **options: Any) -> MakesTask: ...


def shared_task(*args: Any, **options: Any) -> Any:
    """Make a task of a function for whichever app there is: every app has it, and calling it means the current one's.

    Takes the options of `app.task`.
    """
    if args and callable(args[0]):
        return _share(args[0], options)
    return lambda function: _share(function, options)


def _share(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    if isinstance(function, Forward):
        raise TypeError("@shared_task was applied more than once to the same function; remove one of the two.")
    kept = {name: value for name, value in options.items() if name not in ("shared", "lazy")}
    _shared.append((function, kept))
    for app in list(_apps):
        if app.finalized:
            app._add_function(function, kept)

    def find() -> AnyTask:
        app = current_or_default_app()
        name = kept.get("name") or app.gen_task_name(_function_name(function), _function_module(function))
        return app.tasks[name]

    return Forward(find, __doc__=function.__doc__, __wrapped__=function, __module__=function.__module__)


class _DefiningModule:
    """Where an app was made: what a worker needs to find it again without being told (`litetq worker FILE`)."""

    def __init__(self, name: str | None, file: str | None, spec_name: str | None) -> None:
        self._name = name
        self._file = file
        self._spec_name = spec_name

    @classmethod
    def of_caller(cls) -> _DefiningModule:
        """Return the module of the nearest caller that is not ours."""
        frame = sys._getframe(1)
        while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == __package__:
            frame = frame.f_back
        return cls.of(frame.f_globals)

    @classmethod
    def of(cls, known: Mapping[str, Any]) -> _DefiningModule:
        """Return the module that has these globals."""
        file = known.get("__file__")
        spec = known.get("__spec__")
        return cls(known.get("__name__"), os.path.abspath(file) if file else None, getattr(spec, "name", None))

    def importable_name(self) -> str | None:
        """Return the name under which a worker can import the module; a script's is its file name, or that of `-m`."""
        if self._name not in _MAIN_MODULES:
            return self._name
        if self._spec_name is not None and self._spec_name not in _MAIN_MODULES:
            return self._spec_name.removesuffix(".__main__")
        if self._file is None or not self._file.endswith(".py"):
            return None
        return os.path.splitext(os.path.basename(self._file))[0]

    def adopt(self) -> None:
        """Let modules that import the running script get this very script, and so this app, instead of a second copy."""
        name, script = self.importable_name(), sys.modules.get(self._name or "")
        if name is not None and script is not None:
            sys.modules.setdefault(name, script)

    def directions(self, attribute: str | None) -> dict[str, Any] | None:
        """Return how a child of this very program finds the app: a script is run once more under another name."""
        is_main = self._name in _MAIN_MODULES
        if attribute is None or (self._file is None and not getattr(sys, "frozen", False)):
            return None
        main_name = self._spec_name if is_main and self._spec_name not in _MAIN_MODULES else None
        return {
            "module": self._name,
            "attribute": attribute,
            "file": self._file,
            "is_main": is_main,
            "main_name": main_name,
        }

    def describe(self, app: LiteTQ) -> dict[str, Any] | None:
        """Return module, attribute and file of the app, or None when it cannot be found by a name."""
        name, attribute = self.importable_name(), self.attribute_of(app)
        if name is None or attribute is None or self._file is None:
            return None
        return {"module": name, "attribute": attribute, "file": self._file}

    def attribute_of(self, app: LiteTQ) -> str | None:
        """Return the name of the app among the module's globals; None: it is none of them."""
        module = sys.modules.get(self._name or "")
        return (
            None if module is None else next((key for key, value in list(vars(module).items()) if value is app), None)
        )


def _span(value: Any, setting: str) -> float | None:
    """Return a span in seconds; None where it has no end (results) or is not wanted (ageing), and for 0."""
    return calling.seconds(value, setting) if value else None


def _is_same_file(one: Address, other: Address) -> bool:
    return (one.scheme, one.path) == (other.scheme, other.path)


def _looks_like_place(name: str) -> bool:
    """Return whether a name was rather meant as a file's path, or as a URL."""
    return "://" in name or name.lower().endswith((*FILE_ENDINGS, ".sqlite3"))


def _in_working_directory(name: str) -> str:
    try:
        return os.path.abspath(name)
    except OSError:
        return name  # the working directory is gone; whoever opens this file says so


def _function_name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _function_module(function: Callable[..., Any]) -> str | None:
    return getattr(function, "__module__", None)


def _made_of(task: AnyTask) -> Any:
    """Return the function that a task was made of, or its class."""
    run = task.__dict__.get("run")
    return type(task) if run is None else getattr(run, "__func__", run)


def _qualified(function: Callable[..., Any]) -> str:
    return f"{_function_module(function)}.{getattr(function, '__qualname__', _function_name(function))}"


def _frames_of_ours() -> int:
    """Return the stacklevel of the nearest frame outside this file, seen from the caller."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        level, frame = level + 1, frame.f_back
    return level


def _names(value: str | Iterable[str] | None) -> list[str]:
    if value is not None and not isinstance(value, Iterable):
        raise TypeError(f"modules must be given as a list of their names, found {value!r}")
    return [value] if isinstance(value, str) else list(value or ())


def _places(address: Address) -> dict[str, str]:
    """Return the settings that put tasks, and results with them where they lie in a file, at one place."""
    if is_of_broker(address.scheme):
        return {"broker_url": address.text}
    return {"broker_url": address.text, "result_backend": address.text}


def _file_of(what: str, address: Address, source: str) -> Address:
    """Return the address; ImproperlyConfigured when it is no file."""
    if address.scheme not in _FILE_SCHEMES:
        raise ImproperlyConfigured(_NO_ADAPTER.format(what, mask(address.text), source, address.scheme))
    return address


def _place_of_results(text: str | os.PathLike[str]) -> Address:
    from litetq import projection

    return projection.place(text)


def _queue_names(queues: Any) -> frozenset[str]:
    """Return names of queues given as a list, or as a text with commas, as on the command line."""
    if isinstance(queues, str):
        queues = [name.strip() for name in queues.split(",")]
    if not isinstance(queues, Iterable):
        raise TypeError(f"queues must be a list of names, found {queues!r}")
    return frozenset(calling.queue_name(queue) for queue in queues)


@contextmanager
def _naming_setting(key: str) -> Iterator[None]:
    try:
        yield
    except SerializerNotInstalled as error:
        raise ImproperlyConfigured(f"setting {key}: {error}") from error


def _import_related(package: str, related_name: str | None) -> None:
    """Import `<package>.<related_name>`; where there is none, nothing. What the module raises is raised."""
    try:
        importlib.import_module(package)
    except ModuleNotFoundError:
        package, _, _ = package.rpartition(".")  # a class within a module, as in Django's INSTALLED_APPS
        if not package:
            raise
    if not related_name:
        return
    module = f"{package}.{related_name}"
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        # `package` may be a plain module, which has no modules below it.
        if error.name != module:
            raise


def _accepted(names: str | Iterable[str]) -> frozenset[str]:
    return _accepted_set((names,) if isinstance(names, str) else tuple(names))


@lru_cache
def _accepted_set(names: tuple[str, ...]) -> frozenset[str]:
    return serialization.accept_set(names)


@lru_cache
def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ImproperlyConfigured(
            f"setting timezone: {name!r} is no known time zone; give one like 'Europe/Oslo', or 'UTC'"
        ) from error
