"""Tasks: what `@app.task` makes of a function, and the base class of class-based tasks.

A task is a real object from the moment of its decoration; nothing is opened and no setting is read before its first use.
The single late lookup of this room is `Forward`: a name that stands for the task (or app) that is current when it is used.
"""

from __future__ import annotations

import functools
import inspect
import logging
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import FunctionType, MappingProxyType, MethodType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar

from litetq import calling, canvas, clock, context, draft, exceptions, result, retry, serialization, states
from litetq.canvas import Signature
from litetq.context import Context
from litetq.eager import links_of
from litetq.exceptions import EncodeError, Ignore, Retry
from litetq.log import get_task_logger
from litetq.message import Message, Record, uuid
from litetq.result import EagerResult, denied_join_result

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from litetq.app import LiteTQ
    from litetq.calling import CallOptions
    from litetq.models import Modelled

P = ParamSpec("P")
R = TypeVar("R")


class FromSetting:
    """An attribute that has the value of a setting as long as nobody sets it on the task or its class."""

    def __init__(self, setting: str) -> None:
        self._setting = setting
        self._name = setting

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, task: Task[..., Any] | None, owner: type | None = None) -> Any:
        if task is None:
            return None
        if not task.is_annotated:
            task.annotate()
            if self._name in task.__dict__:
                return task.__dict__[self._name]
        return getattr(task.app.conf, self._setting)


class Task(Generic[P, R]):
    """A function that can run elsewhere and later. Subclasses define `run`; `@app.task` takes a function for it.

    An instance lives as long as the process and serves all its calls; what one call brings is in `request`. Attributes that
    are None here and named in Celery's settings follow the settings.
    """

    MaxRetriesExceededError: ClassVar[type[exceptions.MaxRetriesExceededError]] = exceptions.MaxRetriesExceededError
    OperationalError: ClassVar[type[exceptions.OperationalError]] = exceptions.OperationalError

    abstract: bool = True
    name: str = None  # type: ignore[assignment]  # given at registration
    typing: bool | None = None  # check the arguments at call time; default app.strict_typing

    max_retries: int | None = 3  # None: retry for ever
    default_retry_delay: float = 180  # seconds
    autoretry_for: tuple[type[BaseException], ...] = ()
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    retry_kwargs: Mapping[str, Any] = {}
    retry_backoff: bool | float = False  # seconds of the first delay, True is 1
    retry_backoff_max: float = 600  # seconds
    retry_jitter: bool = True

    queue: Any = None
    exchange: Any = None
    routing_key: str | None = None
    delivery_mode: Any = None
    max_running: int | None = None  # at once, in all workers of the file together; not in Celery
    expires: Any = None
    compression: str | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    trail: bool = True  # record the tasks that it calls as its children
    send_events: bool = True
    resultrepr_maxsize: int = 1024  # characters
    throws: tuple[type[BaseException], ...] = ()  # expected failures: logged as such, without a traceback

    serializer: Any = FromSetting("task_serializer")
    priority: Any = FromSetting("task_default_priority")
    rate_limit: Any = FromSetting("task_default_rate_limit")
    track_started: Any = FromSetting("task_track_started")
    acks_late: Any = FromSetting("task_acks_late")
    acks_on_failure_or_timeout: Any = FromSetting("task_acks_on_failure_or_timeout")
    acks_on_failure: Any = FromSetting("task_acks_on_failure")
    acks_on_timeout: Any = FromSetting("task_acks_on_timeout")
    reject_on_worker_lost: Any = FromSetting("task_reject_on_worker_lost")
    retry_on_worker_lost: Any = FromSetting("task_retry_on_worker_lost")
    ignore_result: Any = FromSetting("task_ignore_result")
    store_eager_result: Any = FromSetting("task_store_eager_result")
    store_errors_even_if_ignored: Any = FromSetting("task_store_errors_even_if_ignored")

    # Either is an object or its "module:name": the class that the worker's process tells how it ended, and what decides how a
    # worker runs it (`litetq.strategies`).
    Request: Any = "litetq.parts:Request"
    Strategy: Any = "litetq.strategies:default"

    is_annotated: bool = False  # task_annotations are applied at the first use; not in Celery
    _app: LiteTQ | None = None
    _outside: Context | None = None  # the request where none runs
    _arguments_check: Callable[..., Any] | None = None
    _models: Modelled | None = None  # of a task with pydantic=True

    # -- what a task does ---------------------------------------------------------------------------------------------

    def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The body of the task."""
        raise NotImplementedError("Tasks must define the run method.")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the body here and now; nothing is enqueued.

        Called by a `__call__` that overrides it and runs an attempt, this is that attempt: the request stays.
        """
        request = context.request_of(self)
        if request is not None and request._is_before_run:
            request._is_before_run = False
            return self.run(*args, **kwargs)
        token = context.enter(self, Context(args=args, kwargs=kwargs, outer=context.get_current_request()))
        try:
            return self.run(*args, **kwargs)
        finally:
            context.leave(token)

    @property
    def app(self) -> LiteTQ:
        """The app it belongs to; for one that is registered nowhere, the current app."""
        if self._app is None:
            current = context.get_current_app()
            if current is None:
                raise RuntimeError(f"task {self.name!r} belongs to no app: use @app.task or app.register_task(...)")
            return current
        return self._app

    @app.setter
    def app(self, app: LiteTQ) -> None:
        self._app = app

    def _get_app(self) -> LiteTQ:
        """Return the app, by the name that subclasses in packages use."""
        return self.app

    @property
    def backend(self) -> Any:
        """Where its results lie."""
        return self.app.backend

    @property
    def request(self) -> Context:
        """The attempt that runs in this context; outside of one, a request with all its defaults."""
        running = context.request_of(self)
        if running is not None:
            return running
        if self._outside is None:
            self._outside = Context()
        return self._outside

    def push_request(self, *args: Any, **fields: Any) -> None:
        """Make up a request with these fields, until `pop_request`; for tests."""
        self.request_stack.push(Context(**dict(*args, **fields)))

    def pop_request(self) -> None:
        """End the request of the last `push_request`."""
        self.request_stack.pop()

    @property
    def request_stack(self) -> context.RequestStack:
        """The requests of this task in this context."""
        return context.RequestStack(self)

    @classmethod
    def bind(cls, app: LiteTQ) -> LiteTQ:
        """Make this the app of a class of tasks; return the app."""
        cls._app = app
        return app

    @classmethod
    def add_around(cls, attr: str, around: Callable[[Any], Any]) -> None:
        """Put what `around` makes of a method in its place; a second time, in place of what the first made of it."""
        inner = getattr(getattr(cls, attr), "__wrapped__", getattr(cls, attr))
        made = around(inner)
        made.__wrapped__ = inner
        setattr(cls, attr, made)

    def start_strategy(self, app: LiteTQ, consumer: Any, **kwargs: Any) -> Callable[..., Any]:
        """Return the handler of messages that the task's strategy makes for a worker."""
        strategy = pkgutil.resolve_name(self.Strategy) if isinstance(self.Strategy, str) else self.Strategy
        handler: Callable[..., Any] = strategy(self, app, consumer, **kwargs)
        return handler

    def send_event(self, type_: str, retry: bool = True, retry_policy: Any = None, **fields: Any) -> None:
        """Write an event about the task that runs here, such as "task-progress", with fields of one's own."""
        request = self.request
        self.app.events.default_dispatcher(hostname=request.hostname).send(type_, uuid=request.id, **fields)

    # -- calling it ---------------------------------------------------------------------------------------------------

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> result.AsyncResult[R]:
        """Enqueue a call with these arguments. When this returns, it is in the file."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> result.AsyncResult[R]:
        """Enqueue a call with options (`litetq.calling.CallOptions`). When this returns, it is in the file.

        Raises:
            TypeError: the arguments do not fit the task's signature, or an option is unknown or of a wrong type.
            EncodeError: the arguments cannot be written by the serializer.
            OperationalError: the file could not be written in time; nothing of the call is in it.
        """
        given: dict[str, Any] = options  # type: ignore[assignment]  # a TypedDict is a plain dict
        if task_id is not None:
            given["task_id"] = task_id
        args, kwargs = self.checked_call(args, kwargs, given)
        app = self.app
        if app.conf.task_always_eager:
            return self.apply_as_if_sent(args, kwargs, **given)
        if app.has_own_send_task():
            seen: result.AsyncResult[R] = app.send_task(self.name, args, kwargs, task_type=self, **given)
            return seen
        if given and (given.get("link") or given.get("link_error")):
            sent: result.AsyncResult[R] = canvas.send_linked(self, app, self.name, args, kwargs, given)
            return sent
        return calling.send(app, self.name, self, args, kwargs, given)

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> result.AsyncResult[R]:
        """Do as `delay` does, without holding the event loop: `result = await task.adelay(...)`."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> result.AsyncResult[R]:
        """Do as `apply_async` does, without holding the event loop: the file may be locked for a while.

        When this returns, it is in the file; when it is cancelled, it may be.
        """
        from litetq import aio

        return await aio.sent(self.app, functools.partial(self.apply_async, args, kwargs, task_id, **options))

    def checked_call(
        self, args: Any, kwargs: Any, options: dict[str, Any], awaited: int = 0
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return the arguments of a call that may be made; a shadow name is added to the options.

        `awaited` positional arguments will come from the tasks before it, and may be missing; UNCHECKED: nobody knows how many.
        """
        if not self.is_annotated:
            self.annotate()
        args, kwargs = calling.checked_arguments(self.name, args, kwargs)
        if self.typing and awaited != calling.UNCHECKED:
            check = self._arguments_check or self._make_arguments_check()
            try:
                check(*(None,) * awaited, *args, **kwargs)
            except TypeError:
                missing = calling.awaited_arguments()
                if not missing:
                    raise
                if missing != calling.UNCHECKED:
                    check(*(None,) * missing, *args, **kwargs)
        if self.soft_time_limit and self.time_limit:
            calling.time_limits(self.time_limit, self.soft_time_limit)
        if self._models is not None and options.get("serializer", self.serializer) != "pickle":
            args, kwargs = self._models.plain_arguments(args, kwargs)
        if options:
            calling.refuse_unknown(options, self.name)
        shadow = self.shadow_name(args, kwargs, options)
        if shadow:
            options.setdefault("shadow", shadow)
        return args, kwargs

    def has_own_apply_async(self) -> bool:
        """Return whether the task, its class or a tracing tool has an `apply_async` of its own, which wants to see each call.

        Likewise where its app has a `send_task` of its own.
        """
        return (
            type(self).apply_async is not _APPLY_ASYNC or "apply_async" in self.__dict__ or self.app.has_own_send_task()
        )

    def has_own_shadow_name(self) -> bool:
        """Return whether the task names each call for logs and monitors."""
        return type(self).shadow_name is not Task.shadow_name or "shadow_name" in self.__dict__

    def takes_failure(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] = MappingProxyType({})) -> bool:
        """Return whether, as an errback, it is called with (request, exc, traceback) instead of the id of what failed.

        As in Celery, that is a task which is not bound and takes more than one argument besides those of its signature.
        """
        if getattr(self.run, "__self__", None) is not None:
            return False
        taken = inspect.signature(self.run)
        if args or kwargs:
            try:
                taken = inspect.signature(functools.partial(self.run, *args, **kwargs))
            except (TypeError, ValueError):
                pass  # it will fail when it is called, and says why
        by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        kinds = [parameter.kind for parameter in taken.parameters.values()]
        return sum(kind in by_place for kind in kinds) > 1 or inspect.Parameter.VAR_POSITIONAL in kinds

    def apply_as_if_sent(self, args: Sequence[Any], kwargs: Mapping[str, Any], **options: Any) -> EagerResult[R]:
        """Run here and now, with arguments that went through the serializer as if they had travelled."""
        serializer = options.get("serializer") or self.serializer
        content_type, body = serialization.dumps_args(args, kwargs, serializer)
        args, kwargs = serialization.loads_args(body, content_type, frozenset({content_type or serialization.JSON}))
        with denied_join_result():
            ended = self.apply(args, kwargs, **options)
        if self.app.conf.litetq_eager_results and ended.state == states.SUCCESS:
            self._send_result(ended, options.get("throw"))
        if options.get("callback") is not None:
            ended.then(options["callback"])
        return ended

    def _send_result(self, ended: EagerResult[R], throw: bool | None) -> None:
        """Let a result go through the serializer as a worker's does; what cannot be encoded makes a failure of the success."""
        conf = self.app.conf
        children = list(ended.children or [])
        try:
            content_type, data = serialization.encode(ended.result, conf.result_serializer, conf.result_compression)
        except EncodeError as error:
            ended.settle(error, states.FAILURE, f"{type(error).__name__}: {error}\n", children)
            if conf.task_eager_propagates if throw is None else throw:
                raise
        else:
            value = serialization.decode(data, content_type, serialization.accept_set(conf.result_serializer))
            ended.settle(value, states.SUCCESS, None, children)

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        retries: int = 0,
        throw: bool | None = None,
        logfile: str | None = None,
        loglevel: int | None = None,
        headers: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> EagerResult[R]:
        """Run the task here and now, as a worker would, and return its result; retries follow without waiting.

        Nothing is written to the file. With `throw` (default: setting task_eager_propagates) a failure is raised.
        """
        from litetq.execution import run_eagerly  # the only one here that runs anything; imported when it does

        args, kwargs = calling.checked_arguments(self.name, args, kwargs)
        calling.refuse_unknown(options, self.name)
        if options.get("link") or options.get("link_error"):
            options.update(task_id=task_id or uuid(), throw=throw)
            ended: EagerResult[R] = Signature(self, args, kwargs, app=self.app).apply(**options)
            return ended
        id = task_id or uuid()
        parent = calling.parent_request()
        hard, soft = context.limits_of(self.app, self)
        limits = [options.get("time_limit", hard), options.get("soft_time_limit", soft)]
        while True:
            request = Context(
                id=id,
                task=self.name,
                args=args,
                kwargs=kwargs,
                parent_id=options.get("parent_id") or (parent.id if parent is not None else None),
                root_id=options.get("root_id") or (parent.root_id or parent.id if parent is not None else id),
                correlation_id=id,
                retries=retries,
                is_eager=True,
                called_directly=False,
                logfile=logfile,
                loglevel=loglevel or 0,
                hostname=calling.hostname(),
                headers=dict(headers) if headers else None,
                timelimit=None if limits == [None, None] else limits,
                ignore_result=options.get("ignore_result", self.ignore_result),
                **calling.stamps_of(options),
                delivery_info={
                    "is_eager": True,
                    "exchange": options.get("exchange"),
                    "routing_key": options.get("routing_key"),
                    "priority": options.get("priority"),
                },
                **links_of(id),
            )
            attempt = run_eagerly(self, request, args, kwargs)
            if attempt.retry is None:
                break
            retries += 1
            if attempt.retry.replacement is not None:
                args, kwargs = _arguments_of(attempt.retry.replacement)
        if self.store_eager_result and not request.ignore_result:
            self._store_eagerly(request, attempt.state, attempt.value, attempt.traceback)
        if throw is None:
            throw = self.app.conf.task_eager_propagates
        if throw and attempt.state in states.PROPAGATE_STATES and isinstance(attempt.value, BaseException):
            raise attempt.value
        return EagerResult(
            id,
            attempt.value,
            attempt.state,
            traceback=attempt.traceback,
            name=self.name,
            children=list(request.children),
        )

    def _store_eagerly(self, request: Context, state: str, value: Any, traceback: str | None) -> None:
        """Put the end of an eager run on record as that of one in a worker."""
        conf, results = self.app.conf, self.app.results
        encode = serialization.encode_exception_typed if isinstance(value, BaseException) else serialization.encode
        content_type, data = encode(value, conf.result_serializer, conf.result_compression)
        now = clock.now()
        results.store_record(
            Record(
                request.id or "", state, "DONE", data, content_type, traceback, done_at=now, **result.told_by(request)
            ),
            results.store.records.expiry(now, state),
        )

    # -- as a value ---------------------------------------------------------------------------------------------------

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """Return a call with these arguments that has not been made yet."""
        return self.signature(args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        """Return such a call that takes no arguments from elsewhere."""
        return self.signature(args, kwargs, immutable=True)

    def signature(self, args: Sequence[Any] | None = None, *more: Any, **options: Any) -> Signature:
        """Return such a call; takes what `Signature` takes after the task."""
        options.setdefault("app", self.app)
        return canvas.signature(self, args, *more, **options)

    subtask = signature

    def map(self, it: Iterable[Any]) -> Signature:
        """Return the call of one task that calls this one with each item."""
        return canvas.xmap(self.s(), it, app=self.app)

    def starmap(self, it: Iterable[Any]) -> Signature:
        """Return the call of one task that calls this one with the arguments that each item is."""
        return canvas.xstarmap(self.s(), it, app=self.app)

    def chunks(self, it: Iterable[Any], n: int) -> canvas.chunks:
        """Return a group of such calls, each for n of the items."""
        return canvas.chunks(self.s(), it, n, app=self.app)

    def signature_from_request(
        self,
        request: Context | None = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        **options: Any,
    ) -> Signature:
        """Return the call that the running attempt was made by, with other arguments or options; for the queue it came from."""
        request = self.request if request is None else request
        if queue is not None:
            options["queue"] = queue
        place = request.delivery_info or {}
        known = {
            "task_id": request.id,
            "root_id": request.root_id,
            "parent_id": request.parent_id,
            "headers": request.headers,
            "shadow": request.shadow,
            "ignore_result": self.ignore_result if request.ignore_result is None else request.ignore_result,
            "priority": place.get("priority"),
            **request.stamp_options(),
        }
        if queue is None:
            known.update(exchange=place.get("exchange"), routing_key=place.get("routing_key"))
            if request.delivery is not None:
                known["queue"] = request.delivery.queue
        own = {name: value for name, value in known.items() if value is not None}
        return self.signature(
            request.args if args is None else args,
            request.kwargs if kwargs is None else kwargs,
            options={**own, **options},
        )

    subtask_from_request = signature_from_request

    def AsyncResult(self, task_id: str, **kwargs: Any) -> result.AsyncResult[R]:
        """Return the result of one of its calls."""
        return result.AsyncResult(task_id, task_name=self.name, app=self.app, **kwargs)

    def _make_arguments_check(self) -> Callable[..., Any]:
        check = arguments_check(self.run)
        # Stored on the instance: functions there are not bound.
        self.__dict__["_arguments_check"] = check
        return check

    # -- within an attempt --------------------------------------------------------------------------------------------

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """End this attempt and ask for another one: `raise self.retry(...)`.

        The next attempt is committed together with the end of this one; nothing is written here. Without `countdown`
        or `eta` it is due after `default_retry_delay`. Queue, priority, headers and limits stay unless given.

        Args:
            exc: the cause, which is raised when no retries are left.
            throw: False returns the Retry instead of raising it; the attempt goes on, and whatever it returns, it is
                followed by the retry.
            max_retries: the limit for this time; None: the task's own.

        Raises:
            Retry: always, unless `throw=False`.
            MaxRetriesExceededError: no retries are left, and there is no `exc`.
        """
        request = self.request
        if request.called_directly:
            raise exc or Retry("Task can be retried", None)
        limit = self.max_retries if max_retries is None else max_retries
        if max_retries is not None:
            request.limit_of_retries = max_retries
        new_args, new_kwargs = self._arguments_of_next(request, args, kwargs)
        if limit is not None and request.retries + 1 > limit:
            if exc is not None:
                raise exc
            raise self.MaxRetriesExceededError(
                f"Can't retry {self.name}[{request.id}] args:{tuple(new_args)} kwargs:{new_kwargs}",
                task_args=tuple(new_args),
                task_kwargs=new_kwargs,
            )
        if not eta and countdown is None:
            countdown = self.default_retry_delay
        calling.refuse_unknown(options, self.name)
        call = Retry(exc=exc, when=eta or countdown, is_eager=request.is_eager)
        call.due_at = calling.point_in_time(eta, "eta") if eta else clock.now() + max(0.0, float(countdown or 0))
        if args is not None or kwargs is not None or options:
            call.replacement = self._next_message(request, new_args, new_kwargs, options)
        if throw:
            raise call
        request.retry_call = call
        return call

    def _arguments_of_next(
        self, request: Context, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return the arguments of the next attempt; a parameter given anew replaces the old one, whichever way it came."""
        old_args: Sequence[Any] = request.args or ()
        old_kwargs: Mapping[str, Any] = request.kwargs or {}
        if args is not None and kwargs is not None:
            return args, kwargs
        if args is not None:
            taken = _positional_names(self.run)[: len(args)]
            return args, {name: value for name, value in old_kwargs.items() if name not in taken}
        if kwargs is not None:
            names = _positional_names(self.run)
            replaced = list(old_args)
            rest = dict(kwargs)
            for place, name in enumerate(names[: len(replaced)]):
                if name in rest:
                    replaced[place] = rest.pop(name)
            return replaced, rest
        return old_args, old_kwargs

    def _next_message(
        self, request: Context, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Message:
        """Return what the next attempt is to be, where it differs from this one."""
        import json

        delivery = request.delivery
        serializer = options.get("serializer") or self.serializer
        content_type, body = serialization.dumps_args(args, kwargs, serializer, options.get("compression"))
        headers: dict[str, Any] = json.loads(delivery.headers) if delivery is not None and delivery.headers else {}
        headers.update(calling.headers_of(options))
        queue, priority = options.get("queue"), options.get("priority")
        expires_at = delivery.expires_at if delivery is not None else None
        return Message(
            id=request.id or "",
            name=self.name,
            body=body,
            content_type=content_type,
            queue=self.app.router.name_of(queue) if queue else delivery.queue if delivery is not None else "",
            priority=calling.priority_of(priority)
            if priority is not None
            else (delivery.priority if delivery is not None else 0),
            expires_at=calling.expiry_time(options["expires"]) if "expires" in options else expires_at,
            retries=request.retries + 1,
            root_id=request.root_id,
            parent_id=request.parent_id,
            headers=calling.encode_headers(headers, self.name),
        )

    def retry_automatically(self, error: BaseException) -> None:
        """Raise what `retry` raises if `autoretry_for` covers this error; else return. Called while it is handled."""
        if not self.autoretry_for or isinstance(error, (Ignore, Retry, *self.dont_autoretry_for)):
            return
        if not isinstance(error, tuple(self.autoretry_for)):
            return
        options = dict(self.retry_kwargs)
        if (
            self.request.limit_of_retries is not None
        ):  # a retry() in this attempt has set it, and may just have given up by it
            options["max_retries"] = self.request.limit_of_retries
        if self.retry_backoff:
            options["countdown"] = retry.get_exponential_backoff_interval(
                factor=int(max(1.0, self.retry_backoff)),
                retries=self.request.retries,
                maximum=int(self.retry_backoff_max),
                full_jitter=self.retry_jitter,
            )
        raise self.retry(exc=error, **options)

    def replace(self, sig: Any) -> Any:
        """End this attempt and put `sig` in the task's place: `raise self.replace(sig)`.

        What `sig` returns becomes the value of this task, under its id; what waits for this task waits for `sig`. A group is
        replaced by the list of its values. The end of the attempt and all of `sig` are one transaction.

        Raises:
            Ignore: always; the attempt ends here.
            ImproperlyConfigured: `sig` is no signature, an empty chain, or a member of another chord.
        """
        request = self.request
        if request.called_directly:
            raise RuntimeError(f"task {self.name!r} was called directly, so there is no attempt that could be replaced")
        sig = canvas.replacement_of(request, sig, self.app)
        if request.is_eager:
            return self.on_replace(sig)
        canvas.replace_by(request, lambda: self.on_replace(sig))

    def on_replace(self, sig: Signature) -> Any:
        """Send what replaces the running task, and end the attempt. What it sends under the task's id takes its place."""
        if self.request.is_eager:
            raise canvas.Replaced(sig.apply(throw=False))
        sig.delay()
        raise Ignore("Replaced by new task")

    def add_to_chord(self, sig: Any, lazy: bool = False) -> Any:
        """Add a call to the chord that this task is a member of; its value comes after those of the others.

        It is enqueued together with the end of this attempt. Returns its result, with `lazy` the signature.

        Raises ValueError when this task belongs to no chord.
        """
        request = self.request
        if request.is_eager:
            added = canvas.add_member_here(sig, request, self.app)
        elif request.delivery is not None and self.app.engine.is_member(request.delivery):
            plan, added = canvas.further_member(sig, request, self.app)
            request.plan = draft.combined(request.plan, plan)
        else:
            added = None
        if added is None:
            raise ValueError("Current task is not member of any chord")
        return sig if lazy else added

    def update_state(self, task_id: str | None = None, state: str | None = None, meta: Any = None, **_: Any) -> None:
        """Record a state of its own, visible to callers at once; a late worker's is dropped.

        Args:
            task_id: by default the task that runs here.
            state: any name; one that is not Celery's counts as not ready.
            meta: what `result.info` shows; any value that the result serializer takes.

        What Celery hands on to a result backend beside these is accepted, and has no meaning.
        """
        request = self.request
        id = task_id or request.id
        conf = self.app.conf
        if id is None or (request.is_eager and not conf.task_store_eager_result):
            return  # called directly or eagerly: nothing of this call is in the file
        encode = serialization.encode_exception_typed if isinstance(meta, BaseException) else serialization.encode
        content_type, data = encode(meta, conf.result_serializer, conf.result_compression)
        self.app.engine.update_state(
            id,
            state or states.PENDING,
            data,
            content_type,
            claim=request.delivery.claim if request.delivery is not None and id == request.id else None,
        )

    update = update_state  # Celery's tutorials name it so

    def add_trail(self, child: Any) -> Any:
        """Record a result as a child of the running attempt, and return it."""
        if self.trail:
            self.request.children.append(child)
        return child

    def get_logger(self, **_: Any) -> logging.Logger:
        """Return the logger for this task's lines, by Celery's older name."""
        return get_task_logger(self.name)

    # -- what a task may define ---------------------------------------------------------------------------------------

    def shadow_name(self, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> str | None:
        """Return the name that logs and monitors show for a call; None: the task's own."""
        return None

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Called in the worker before `run`; what it raises fails the attempt."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Called in the worker after `run` returned; what it raises is logged, the success stays."""

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called in the worker when the task failed."""

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called in the worker when the attempt ended and another one is due."""

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called in the worker when the task has ended, after `on_success` or `on_failure`; not after a retry."""

    @classmethod
    def on_bound(cls, app: LiteTQ) -> None:
        """Called when a task of this class is registered with an app."""

    # -- set-up -------------------------------------------------------------------------------------------------------

    def annotate(self) -> None:
        """Apply the setting `task_annotations`; done once, at the first use."""
        self.is_annotated = True
        for annotation in annotations_for(self, self.app.conf.task_annotations):
            for name, value in annotation.items():
                set_attribute(self, name, value)

    def __repr__(self) -> str:
        return f"<@task: {self.name} of {app_label(self.app)}>"

    def __reduce__(self) -> Any:
        # By name: the other side imports the module that defines it.
        module = self.__module__ if self.__module__ in sys.modules else None
        return restore_task, (self.name, module)


_APPLY_ASYNC = Task.apply_async


def app_label(app: LiteTQ) -> str:
    """Return an app's name and place, as Celery's reprs show them."""
    return f"{app.main or '__main__'} at {id(app):#x}"


def restore_task(name: str, module: str | None) -> Task[..., Any]:
    """Return the current app's task of this name, after importing its module; how tasks are unpickled."""
    if module:
        import importlib

        importlib.import_module(module)
    app = context.get_current_app()
    if app is None:
        raise RuntimeError(f"task {name!r} cannot be restored: there is no current app; create LiteTQ(...) first")
    return app.tasks[name]


def task_from_function(
    app: LiteTQ,
    function: Callable[..., Any],
    name: str,
    base: type[Task[..., Any]],
    bind: bool,
    options: dict[str, Any],
) -> Task[..., Any]:
    """Return an instance of `base` that runs this function. Options become its attributes, functions among them methods.

    An `__init__` of the base finds them, the name, the app and the function in place.
    """
    task = base.__new__(base)
    task.name = name
    task._app = app
    own = task.__dict__
    if any(option.startswith("pydantic") for option in options):
        function, options = _with_models(task, function, name, bind, options)
    run = MethodType(function, task) if bind else function
    own.update(run=run, __wrapped__=run, abstract=False)
    for attribute in ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__"):
        if hasattr(function, attribute):
            own[attribute] = getattr(function, attribute)
    for option, value in options.items():
        set_attribute(task, option, value)
    task.__init__()  # type: ignore[misc]
    return task


def _with_models(
    task: Task[..., Any], function: Callable[..., Any], name: str, bind: bool, options: dict[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the function that gets pydantic's models, and the options that are not pydantic's."""
    from litetq import models

    ours = {option: options[option] for option in models.OPTIONS if option in options}
    rest = {option: value for option, value in options.items() if option not in ours}
    if not ours.get("pydantic"):
        return function, rest
    task._models = models.Modelled(task.app, function, name, bind, **ours)
    return task._models.body(), rest


_HANDLERS = ("before_start", "on_success", "on_failure", "on_retry", "after_return")


def refuse_async_handlers(task: Task[..., Any]) -> None:
    """Raise TypeError for a handler that is `async def`: handlers are called, in every pool, and nobody awaits them."""
    for name in _HANDLERS:
        if inspect.iscoroutinefunction(getattr(task, name)):
            raise TypeError(
                f"task {task.name!r}: its {name} is `async def`, and nobody would await it; make it a plain function, and "
                f"do what must be awaited in the task itself"
            )


def set_attribute(task: Task[..., Any], name: str, value: Any) -> None:
    """Set an attribute as if it were written in the task's class: a function becomes a method."""
    if isinstance(value, staticmethod):
        value = value.__func__
    elif isinstance(value, FunctionType):
        value = MethodType(value, task)
    setattr(task, name, value)


def annotations_for(task: Task[..., Any], annotations: Any) -> list[Mapping[str, Any]]:
    """Return the mappings of `task_annotations` that are meant for this task, those for all ("*") first."""
    if not annotations:
        return []
    found: list[Mapping[str, Any]] = []
    for source in annotations if isinstance(annotations, (list, tuple)) else [annotations]:
        if isinstance(source, Mapping):
            found.extend(source[key] for key in ("*", task.name) if source.get(key))
            continue
        if isinstance(source, str):
            import pkgutil

            source = pkgutil.resolve_name(source)
        if isinstance(source, type):
            source = source()
        for method, arguments in (("annotate_any", ()), ("annotate", (task,))):
            answer = getattr(source, method, lambda *_: None)(*arguments)
            if answer:
                found.append(answer)
    return found


# -- arguments -----------------------------------------------------------------------------------------------------


def arguments_check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of the same signature that does nothing, so that calling it raises Python's own TypeError.

    It costs 0.1 us to call, where `inspect.signature(...).bind` costs 2.5 us (CPython 3.11). What has no readable
    signature is not checked.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return _accept_anything
    code = f"def check({_parameter_list(parameters)}): pass"
    names: dict[str, Any] = {}
    exec(code, names)  # made of the parameters' names alone, which Python itself has parsed
    check: Callable[..., Any] = names["check"]
    check.__name__ = getattr(function, "__name__", "run")
    check.__qualname__ = getattr(function, "__qualname__", check.__name__)
    return check


def _parameter_list(parameters: Sequence[inspect.Parameter]) -> str:
    parts: list[str] = []
    kinds = [parameter.kind for parameter in parameters]
    for place, parameter in enumerate(parameters):
        kind = parameter.kind
        if kind is parameter.KEYWORD_ONLY and not {parameter.VAR_POSITIONAL, parameter.KEYWORD_ONLY} & set(
            kinds[:place]
        ):
            parts.append("*")
        star = "*" if kind is parameter.VAR_POSITIONAL else "**" if kind is parameter.VAR_KEYWORD else ""
        default = "" if parameter.default is parameter.empty else "=None"
        parts.append(f"{star}{parameter.name}{default}")
        if kind is parameter.POSITIONAL_ONLY and parameter.POSITIONAL_ONLY not in kinds[place + 1 :]:
            parts.append("/")
    return ", ".join(parts)


def _accept_anything(*args: Any, **kwargs: Any) -> None:
    """Check nothing."""


def _positional_names(function: Callable[..., Any]) -> list[str]:
    """Return the names of the parameters that can be given by place and by name, in order; "" for place only."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    by_place = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [p.name if p.kind is p.POSITIONAL_OR_KEYWORD else "" for p in by_place]


def _arguments_of(message: Message) -> tuple[Sequence[Any], Mapping[str, Any]]:
    accept = frozenset({message.content_type or serialization.JSON})  # written by this very process
    return serialization.loads_args(message.body, message.content_type, accept)


# -- late lookup ---------------------------------------------------------------------------------------------------


class Forward:
    """Stands for an object that is looked up each time it is used: a shared task, the current app, the current task."""

    _find: Callable[[], Any]

    def __init__(self, find: Callable[[], Any], **own: Any) -> None:
        for name, value in {**own, "_find": find}.items():
            object.__setattr__(self, name, value)

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        """The attributes of what it stands for: pytest's `monkeypatch` and `mock.patch` look here for what to put back."""
        return getattr(self._find(), "__dict__", {})

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """The class of what it stands for, so that `isinstance(shared, Task)` holds; of what is not to be found, its own."""
        try:
            return type(self._find())
        except Exception:  # isinstance() asks it of all that a test runner or a linter walks over
            return Forward

    def _get_current_object(self) -> Any:
        """Return what it stands for now, by Celery's name for this."""
        return self._find()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._find(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._find(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._find(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._find()(*args, **kwargs)

    def __bool__(self) -> bool:
        return bool(self._find())

    def __eq__(self, other: object) -> bool:
        return bool(self._find() == other)

    def __hash__(self) -> int:
        return hash(self._find())

    def __repr__(self) -> str:
        return repr(self._find())

    def __reduce__(self) -> Any:
        return self._find().__reduce__()

    def __dir__(self) -> list[str]:
        return dir(self._find())
