"""One attempt of a task, from the bytes of a delivery to an outcome. Decides how it ended; writes nothing.

    decode -> enter -> announce -> call -> classify -> report -> leave -> outcome

A `Tracer` does this for one task in one process; it is made once, through the one slot `build_tracer`, which is the seam
for tools that want to wrap every attempt. What a pool or an eager call wants is the same pipeline: `run_attempt`.

The handlers and signals of an attempt run before its outcome is committed: a result is not yet visible in `on_success`.

The body of an `async def` task runs on the event loop of the process (`aio.py`). Whoever runs the attempt waits for it there:
a thread in `call`, the asyncio pool in `call_async`, which are all that there is twice.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import sys
import time
import traceback as tracebacks
from collections.abc import Callable, Coroutine
from inspect import iscoroutinefunction
from types import CoroutineType, TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from litetq import clock, context, limits, serialization, signals, states
from litetq.canvas import Replaced, redirect
from litetq.context import Context
from litetq.draft import ONLY_SUCCESSORS
from litetq.exceptions import (
    ContentDisallowed,
    DecodeError,
    EncodeError,
    Ignore,
    NotRegistered,
    Reject,
    Retry,
    TaskError,
    TimeLimitExceeded,
    WorkerLostError,
)
from litetq.hanging import VIEWS
from litetq.message import Delivery, Disposition, Outcome, Record, Role

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.task import Task

logger = logging.getLogger("celery.app.trace")

REPR_LIMIT: Final = 1024  # characters of a value in a log line
_OURS: Final = (__name__, "litetq.aio", "litetq.limits")


class ExceptionInfo:
    """An exception with its traceback as text: what handlers get as `einfo`.

    Args:
        exc_info: the exception, or what `sys.exc_info()` returns; by default the one that is being handled here.
        internal: whether it is no error of a task's.
    """

    def __init__(self, exc_info: Any = None, internal: bool = False) -> None:
        found = sys.exc_info() if exc_info is None else exc_info
        error: BaseException = found[1] if isinstance(found, tuple) else found
        self.exception = error
        self.type = type(error)
        self.tb: TracebackType | None = error.__traceback__
        self.traceback = format_traceback(error)
        self.internal = internal

    def __str__(self) -> str:
        return self.traceback

    def __repr__(self) -> str:
        return f"<ExceptionInfo: {self.exception!r}>"


class Ended(NamedTuple):
    """How the user's code ended."""

    state: str
    value: Any  # the result, or the exception
    traceback: str | None = None
    retry: Retry | None = None  # with state RETRY
    disposition: int = Disposition.COMPLETE
    runtime: float = 0.0  # seconds, of a success
    encoded: tuple[str | None, bytes] | None = None  # content type and bytes of a success that is to be stored


class Handlers(NamedTuple):
    """What of its own a task has around its body; None where it has what every task has, which does nothing."""

    body: Callable[..., Any]
    before_start: Callable[..., Any] | None
    on_success: Callable[..., Any] | None
    on_failure: Callable[..., Any] | None
    on_retry: Callable[..., Any] | None
    after_return: Callable[..., Any] | None

    @classmethod
    def of(cls, task: Task[..., Any]) -> Handlers:
        """Look a task's handlers up: once per tracer, where a look per attempt would cost 3 us."""
        # `__call__` of the base class would push a second request; one that was overridden is meant to run.
        body = task if _overrides(task, "__call__") else task.run
        return cls(body, *(getattr(task, name) if _overrides(task, name) else None for name in cls._fields[1:]))


Trace = Callable[[Delivery], Outcome]
AsyncTrace = Callable[[Delivery], Coroutine[Any, Any, Outcome]]
Encode = Callable[[Any], tuple[str | None, bytes]]
_VIEWS: Final = frozenset(VIEWS)
_ONE_SUCCESSOR: Final = (f'{ONLY_SUCCESSORS}[[["', '",null],null]]}')  # what stands before its id, and after


class Tracer:
    """Runs attempts of one task in one process. What does not change from attempt to attempt is looked up once."""

    def __init__(self, name: str, task: Task[..., Any], app: LiteTQ, hostname: str | None = None) -> None:
        self.task = task
        self.app = app
        self.hostname = hostname
        conf = app.conf
        self.accept = serialization.accept_set(conf.accept_content)
        self.serializer: str = conf.result_serializer
        self.compression: str | None = conf.result_compression
        self.track_started = bool(task.track_started)
        self.ignore_result = bool(task.ignore_result)
        self.handlers = Handlers.of(task)
        self.is_called = _is_called(task, self.handlers)
        self.deduplicates = bool(task.acks_late and conf.worker_deduplicate_successful_tasks)
        self.limits = limits.of_task(task, conf)

    def __call__(self, delivery: Delivery) -> Outcome:
        """Run one attempt and return how it ended; never raises for what the task or its bytes did."""
        started_at = clock.now()
        began = time.perf_counter()
        prepared = self._prepare(delivery, started_at)
        if isinstance(prepared, Outcome):
            return prepared
        handlers, request, args, kwargs = prepared
        ended = run_attempt(self.task, handlers, request, args, kwargs, self._encoder(delivery, request))
        return self._outcome(delivery, request, ended, started_at, time.perf_counter() - began)

    async def run_async(self, delivery: Delivery) -> Outcome:
        """Do the same on the event loop, where the task's coroutine is awaited. Raises CutOff when it was cut off."""
        started_at = clock.now()
        began = time.perf_counter()
        if self.track_started or (self.deduplicates and delivery.deliveries):
            from litetq import aio

            prepared = await aio.in_background(self._prepare, delivery, started_at)  # it may wait for the file
        else:
            prepared = self._prepare(delivery, started_at)
        if isinstance(prepared, Outcome):
            return prepared
        handlers, request, args, kwargs = prepared
        ended = await run_attempt_async(self.task, handlers, request, args, kwargs, self._encoder(delivery, request))
        return self._outcome(delivery, request, ended, started_at, time.perf_counter() - began)

    def _prepare(self, delivery: Delivery, started_at: float) -> tuple[Handlers, Context, Any, Any] | Outcome:
        """Decode a delivery; return its end at once where it must not, or need not, run."""
        if self.deduplicates and delivery.deliveries:
            done = self.app.results.finished(delivery.id)
            if done is not None and done.state == states.SUCCESS:
                return succeeded_before(delivery, done)
        request = Context(delivery, self.hostname)
        try:
            args, kwargs = self.arguments(delivery)
        except Exception as error:
            return refused(delivery, error, started_at)
        own = request.__dict__
        own["args"] = args
        own["kwargs"] = kwargs
        if self.is_called:
            own["_is_before_run"] = True
        if self.track_started:
            self._record_start(delivery, request)
        handlers, own_limits = self.handlers, self.limits
        soft = own_limits.soft if delivery.headers is None else limits.of_call(delivery.headers, own_limits).soft
        if soft is not None:
            body = limits.watched(handlers.body, soft, delivery.name, delivery.id, _limit_coroutine)
            handlers = handlers._replace(body=body)
        return handlers, request, args, kwargs

    def arguments(self, delivery: Delivery) -> tuple[list[Any], dict[str, Any]]:
        """Return what a delivery calls the task with; raises where its bytes cannot be, or may not be, decoded."""
        args, kwargs = serialization.loads_args(delivery.body, delivery.content_type, self.accept)
        if delivery.headers is not None:
            check_headers(delivery.headers)
        if delivery.input is not None:
            args = [*self._predecessors(delivery, args, kwargs), *args]
        return args, kwargs

    def _predecessors(self, delivery: Delivery, args: list[Any], kwargs: dict[str, Any]) -> list[Any]:
        """Return what earlier tasks of the workflow hand over: their values, or the failure for an errback."""
        if delivery.role == Role.ERRBACK:
            if delivery.headers is not None and json.loads(delivery.headers).get("immutable"):
                return []
            failed_id = json.loads(delivery.input[1])["id"]
            if not self.task.takes_failure(args, kwargs):
                return [failed_id]
            return told_of_failure(self.app, failed_id, self.accept)
        return [self._value(delivery.input)]

    def _value(self, part: Any) -> Any:
        if isinstance(part, list):
            return [self._value(inner) for inner in part]
        content_type, data = part
        return None if data is None else serialization.decode(data, content_type, self.accept)

    def _record_start(self, delivery: Delivery, request: Context) -> None:
        meta = json.dumps({"pid": os.getpid(), "hostname": self.hostname}).encode()
        token = context.enter(self.task, request)  # where results are messages, the request says to whom
        try:
            self.app.engine.update_state(delivery.id, states.STARTED, meta, None, claim=delivery.claim, started=True)
        finally:
            context.leave(token)

    def _outcome(
        self, delivery: Delivery, request: Context, ended: Ended, started_at: float, runtime: float
    ) -> Outcome:
        """Make of how an attempt ended what is to be stored."""
        own = request.__dict__
        if not _VIEWS.isdisjoint(own):
            redirect(request, self.app, ended.disposition)
        children = own.get("children")
        kept = children_json(children) if children else None
        content_type: str | None
        if ended.disposition == Disposition.COMPLETE:
            ignored = self._is_ignored(delivery, request)
            content_type, data = ended.encoded or (None, None)
            if delivery.linked and delivery.headers is not None:
                kept = with_successors(kept, delivery.headers)
            return Outcome(
                delivery.claim, delivery.seq, delivery.id, Disposition.COMPLETE, states.SUCCESS,
                None if ignored else data, content_type, None, kept, started_at, runtime, None, None, own.get("plan"),
                delivery.linked, data if ignored and delivery.linked else None,
            )  # fmt: skip
        content_type, data = serialization.encode_exception_typed(ended.value, self.serializer, self.compression)
        retry = ended.retry
        return Outcome(
            delivery.claim, delivery.seq, delivery.id, ended.disposition, ended.state, data, content_type, ended.traceback,
            kept, started_at, runtime, retry.due_at if retry is not None else None,
            retry.replacement if retry is not None else None, own.get("plan"), delivery.linked, None,
            self._why_dead(ended) if ended.disposition == Disposition.FAIL else None,
        )  # fmt: skip

    def _encoder(self, delivery: Delivery, request: Context) -> Encode | None:
        """Return what encodes the value; None where nobody will read it, so that it may be anything."""
        return self._encode if delivery.linked or not self._is_ignored(delivery, request) else None

    def _encode(self, value: Any) -> tuple[str | None, bytes]:
        return serialization.encode(value, self.serializer, self.compression)

    def _why_dead(self, ended: Ended) -> str | None:
        """Return why a failure rests as a dead letter: where Celery's broker would put a message that is not acknowledged."""
        if isinstance(ended.value, Reject):
            return "rejected"
        if not self.task.acks_late:
            return None
        acknowledged = self.task.acks_on_failure
        if acknowledged is None:
            acknowledged = self.task.acks_on_failure_or_timeout
        return None if acknowledged else "failed, and failures are not acknowledged (acks_on_failure)"

    def _is_ignored(self, delivery: Delivery, request: Context) -> bool:
        if delivery.headers is None or '"ignore_result"' not in delivery.headers:
            return self.ignore_result
        return self.ignore_result if request.ignore_result is None else bool(request.ignore_result)


# The seam for tracing tools: called as build_tracer(name, task, app=..., hostname=...), once per task and process.
build_tracer: Callable[..., Trace] = Tracer


def tracer_for(app: LiteTQ, name: str, hostname: str | None = None) -> Trace:
    """Return the function that runs attempts of the task of this name; an unknown name fails every attempt."""
    try:
        task = app.tasks[name]
    except NotRegistered:
        return unknown_task
    try:
        trace = build_tracer(name, task, app=app, hostname=hostname)
    except Exception as error:
        # A setting that only this process cannot follow, a tool of somebody's: where it would end the process, the next one
        # would get the task, and end as well.
        cause = error
        return lambda delivery: not_carried_out(task, delivery, cause, hostname)

    def attempt(delivery: Delivery) -> Outcome:
        try:
            return trace(delivery)
        except BaseException as error:
            return not_carried_out(task, delivery, error, hostname)

    return attempt


def async_tracer_for(app: LiteTQ, name: str, hostname: str | None = None) -> AsyncTrace | None:
    """Return what runs attempts of an async task on the event loop; None for what is to run in a thread.

    That is a plain function, an unknown name, and a task whose tracer a tool has put in: it knows only threads, and the
    task's coroutine is run on the loop all the same.
    """
    from asyncio import CancelledError

    task = app.tasks.get(name)
    if task is None or not is_async(task):
        return None
    try:
        trace = build_tracer(name, task, app=app, hostname=hostname)
    except Exception:
        return None  # `tracer_for` meets the same, and says it
    if type(trace) is not Tracer:
        return None
    run_async = trace.run_async

    async def attempt(delivery: Delivery) -> Outcome:
        try:
            return await run_async(delivery)
        except (limits.CutOff, CancelledError):  # the latter outside of the task's code: nothing of it has run
            raise
        except BaseException as error:
            return not_carried_out(task, delivery, error, hostname)

    return attempt


def is_async(task: Task[..., Any]) -> bool:
    """Return whether calling the task makes a coroutine, as far as can be seen from its functions."""
    return iscoroutinefunction(type(task).__call__ if _overrides(task, "__call__") else task.run)


def not_carried_out(task: Task[..., Any], delivery: Delivery, error: BaseException, hostname: str | None) -> Outcome:
    """Return the end of an attempt that was left by an error which is neither the task's doing nor its bytes'.

    A tool that wraps the tracer, or a fault of ours: the place it ran in must go on for the others. One that was cut off is
    expected to be left; its end is on record already, and nobody asks for this one.
    """
    if not isinstance(error, limits.CutOff):
        logger.error("Task %s[%s]: the attempt could not be carried out", delivery.name, delivery.id, exc_info=error)
        if signals.task_internal_error.receivers:
            tell_internal_error(task, delivery, error, hostname)
    return failure(delivery, error, clock.now())


def tell_internal_error(task: Task[..., Any], delivery: Delivery, error: BaseException, hostname: str | None) -> None:
    """Send the signal `task_internal_error`; arguments that cannot be decoded are empty."""
    try:
        accept = serialization.accept_set(task.app.conf.accept_content)
        args, kwargs = serialization.loads_args(delivery.body, delivery.content_type, accept)
    except Exception:
        args, kwargs = [], {}
    signals.task_internal_error.send(
        sender=task,
        task_id=delivery.id,
        args=args,
        kwargs=kwargs,
        request=Context(delivery, hostname),
        exception=error,
        traceback=error.__traceback__,
        einfo=ExceptionInfo(error),
    )


def _has_one_successor(headers: str) -> bool:
    """Return whether headers are what most steps of a chain have, the id of the next one: seen in 0.4 us, decoded in 2."""
    return (
        headers.startswith(_ONE_SUCCESSOR[0])
        and headers.endswith(_ONE_SUCCESSOR[1])
        and headers.count('"') == 4
        and "\\" not in headers
    )


def check_headers(headers: str) -> None:
    """Raise DecodeError for headers that are no JSON object, or whose custom ones are none."""
    if _has_one_successor(headers):
        return
    try:
        found = json.loads(headers)
        if isinstance(found, dict) and isinstance(found.get("headers") or {}, dict):
            return
    except ValueError:
        pass
    raise DecodeError(f"The headers of a task must be a JSON object; found {shorten(headers, 100)!r}.")


def run_attempt(
    task: Task[..., Any], handlers: Handlers, request: Context, args: Any, kwargs: Any, encode: Encode | None = None
) -> Ended:
    """Run the user's code of one attempt, with all handlers and signals around it.

    With `encode`, the value is encoded before they are called, and one that cannot be is a failure of the task.
    """
    token = context.enter(task, request)
    try:
        if signals.task_prerun.receivers:
            announce(task, request, args, kwargs)
        ended = call(task, handlers, request, args, kwargs, encode)
        report(task, handlers, request, ended, args, kwargs)
        if signals.task_postrun.receivers:
            announce_end(task, request, ended, args, kwargs)
        return ended
    finally:
        context.leave(token)


async def run_attempt_async(
    task: Task[..., Any], handlers: Handlers, request: Context, args: Any, kwargs: Any, encode: Encode | None
) -> Ended:
    """Do the same on the event loop."""
    token = context.enter(task, request)
    try:
        if signals.task_prerun.receivers:
            announce(task, request, args, kwargs)
        ended = await call_async(task, handlers, request, args, kwargs, encode)
        report(task, handlers, request, ended, args, kwargs)
        if signals.task_postrun.receivers:
            announce_end(task, request, ended, args, kwargs)
        return ended
    finally:
        context.leave(token)


def announce(task: Task[..., Any], request: Context, args: Any, kwargs: Any) -> None:
    signals.task_prerun.send(sender=task, task_id=request.id, task=task, args=args, kwargs=kwargs)


def announce_end(task: Task[..., Any], request: Context, ended: Ended, args: Any, kwargs: Any) -> None:
    signals.task_postrun.send(
        sender=task, task_id=request.id, task=task, args=args, kwargs=kwargs, retval=ended.value, state=ended.state
    )


def call(
    task: Task[..., Any], handlers: Handlers, request: Context, args: Any, kwargs: Any, encode: Encode | None
) -> Ended:
    """Call the task and classify what came of it; a coroutine that it returns is run on the event loop."""
    began = time.perf_counter()
    forks = _forks
    token = context.block_joins(not request.is_eager or context.is_join_blocked())
    try:
        if handlers.before_start is not None:
            handlers.before_start(request.id or "", args, kwargs)
        try:
            value = handlers.body(*args, **kwargs)
            if type(value) is CoroutineType:
                value = _wait_for(value)
        except Exception as error:
            task.retry_automatically(error)
            raise
        limits.leave_if_cut()
        if forks != _forks:
            _leave_copy(request, None)
    except limits.CutOff:
        raise
    except BaseException as error:
        limits.leave_if_cut()
        if forks != _forks:
            _leave_copy(request, error)
        return classify(task, request, error)
    finally:
        context.allow_joins_again(token)
    return returned(task, request, value, time.perf_counter() - began, encode)


_forks = 0  # how many forks lie between the program's start and this process


def _after_fork_in_child() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _leave_copy(request: Context, error: BaseException | None) -> None:
    """End a process that the task has forked off and that comes to the task's end, as a script ends it there.

    The attempt belongs to the process that began it. The copy would go on as a second worker of the same name.
    """
    if request.is_eager:
        return  # the program that called it goes on in both
    code: Any = 0
    if isinstance(error, SystemExit):
        code = error.code or 0
    elif error is not None:
        code = "".join(tracebacks.format_exception(error))
    with contextlib.suppress(AttributeError, OSError, ValueError):  # where the task has closed one of them
        if not isinstance(code, int):
            print(code, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


async def call_async(
    task: Task[..., Any], handlers: Handlers, request: Context, args: Any, kwargs: Any, encode: Encode | None
) -> Ended:
    """Do the same on the event loop, where the coroutine is awaited."""
    from litetq import aio

    began = time.perf_counter()
    forks = _forks
    token = context.block_joins(not request.is_eager or context.is_join_blocked())
    try:
        if handlers.before_start is not None:
            handlers.before_start(request.id or "", args, kwargs)
        try:
            value = handlers.body(*args, **kwargs)
            if type(value) is CoroutineType:
                value = await aio.Body(value)
        except Exception as error:
            task.retry_automatically(error)
            raise
        if forks != _forks:
            _leave_copy(request, None)
    except limits.CutOff:
        raise
    except BaseException as error:
        if forks != _forks:
            _leave_copy(request, error)
        return classify(task, request, error)
    finally:
        context.allow_joins_again(token)
    return returned(task, request, value, time.perf_counter() - began, encode)


@atexit.register
def _end_loop() -> None:
    """End the event loop, if there is one: after the workers, which registered later, have waited for what runs on it."""
    if "litetq.aio" in sys.modules:
        from litetq import aio

        aio.end()


def _limit_coroutine(coroutine: Any, seconds: float, warn: Callable[[], object]) -> Any:
    from litetq import aio

    return aio.limited(coroutine, seconds, warn)


def _wait_for(coroutine: CoroutineType[Any, Any, Any]) -> Any:
    from litetq import aio  # here: it imports asyncio

    return aio.run(coroutine)


def returned(task: Task[..., Any], request: Context, value: Any, runtime: float, encode: Encode | None) -> Ended:
    """Tell what it means that the task returned."""
    if request.retry_call is not None:
        return Ended(states.RETRY, request.retry_call, None, request.retry_call, Disposition.RETRY)
    try:
        encoded = encode(value) if encode is not None else None
    except EncodeError as error:
        return Ended(states.FAILURE, error, format_traceback(error), None, Disposition.FAIL)
    if logger.isEnabledFor(logging.INFO):
        shown = shorten(serialization.safe_repr(value), task.resultrepr_maxsize)
        logger.info("Task %s[%s] succeeded in %ss: %s", task.name, request.id, runtime, shown)
    return Ended(states.SUCCESS, value, runtime=runtime, encoded=encoded)


def classify(task: Task[..., Any], request: Context, error: BaseException) -> Ended:
    """Tell what an exception that left the task means."""
    if isinstance(error, Retry):
        cause = error.exc if error.exc is not None else error
        return Ended(states.RETRY, cause, format_traceback(error), error, Disposition.RETRY)
    if isinstance(error, Replaced):
        if error.result is None:
            return Ended(states.IGNORED, error, None, None, Disposition.REPLACE)
        return replaced_eagerly(error.result)
    if isinstance(error, Ignore):
        return Ended(states.IGNORED, error, None, None, Disposition.IGNORE)
    if isinstance(error, Reject):
        if error.requeue and task.acks_late and not request.is_eager:
            return Ended(states.REJECTED, error, None, None, Disposition.REQUEUE)
        return Ended(states.FAILURE, error, format_traceback(error), None, Disposition.FAIL)
    if not isinstance(error, Exception):
        if type(error).__name__ == "CancelledError":  # by name: only who has it has imported asyncio
            # Recorded as it is, it would cancel whoever awaits the result.
            cancelled = TaskError("The task's coroutine was cancelled, by itself or by what it awaited.")
            return Ended(states.FAILURE, cancelled, format_traceback(error), None, Disposition.FAIL)
        # sys.exit() and its like end the attempt, not the process that runs it; the text is Celery's for a lost child.
        code = error.code if isinstance(error, SystemExit) else type(error).__name__
        lost = WorkerLostError(f"Worker exited prematurely: exitcode {code}.")
        # For whoever runs attempts in the thread of somebody who can be interrupted (`testing.drain`).
        lost.__cause__ = error
        return Ended(states.FAILURE, lost, format_traceback(error), None, Disposition.FAIL)
    return Ended(states.FAILURE, error, format_traceback(error), None, Disposition.FAIL)


def replaced_eagerly(result: Any) -> Ended:
    """Tell how an eager task ended whose replacement was run already: as that did."""
    if result.state == states.SUCCESS:
        return Ended(states.SUCCESS, result.result)
    return Ended(states.FAILURE, result.result, result.traceback, None, Disposition.FAIL)


def report(task: Task[..., Any], handlers: Handlers, request: Context, ended: Ended, args: Any, kwargs: Any) -> None:
    """Log the end, and call the handlers and signals that belong to it; their errors are logged and change nothing."""
    state, value, retry, runtime = ended.state, ended.value, ended.retry, ended.runtime
    id = request.id or ""
    if state == states.SUCCESS:
        _handle(handlers.on_success, value, id, args, kwargs)
        if signals.task_success.receivers:
            signals.task_success.send(sender=task, result=value, runtime=runtime)
        _handle(handlers.after_return, state, value, id, args, kwargs, None)
    elif state == states.FAILURE:
        as_handled(value, lambda: _report_failure(task, handlers, request, ended, args, kwargs))
    elif retry is not None:
        as_handled(retry, lambda: _report_retry(task, handlers, request, ended, args, kwargs))
    elif state == states.IGNORED:
        logger.info("Task %s[%s] ignored", task.name, id)
    elif state == states.REJECTED:
        log_failure(task, request, value, format_traceback(value))


def _report_failure(
    task: Task[..., Any], handlers: Handlers, request: Context, ended: Ended, args: Any, kwargs: Any
) -> None:
    value, id = ended.value, request.id or ""
    if not isinstance(value, TimeLimitExceeded):  # whoever stopped it has said so
        log_failure(task, request, value, ended.traceback)
    info = ExceptionInfo(value)
    _handle(handlers.on_failure, value, id, args, kwargs, info)
    if signals.task_failure.receivers:
        signals.task_failure.send(
            sender=task,
            task_id=id,
            exception=value,
            args=args,
            kwargs=kwargs,
            traceback=value.__traceback__,
            einfo=info,
        )
    _handle(handlers.after_return, ended.state, value, id, args, kwargs, info)


def _report_retry(
    task: Task[..., Any], handlers: Handlers, request: Context, ended: Ended, args: Any, kwargs: Any
) -> None:
    retry = ended.retry
    assert retry is not None
    # As in Celery: the handler gets what `retry(exc=)` was given, which may be None. One that was not raised has no traceback.
    info = ExceptionInfo(retry if retry.__traceback__ is not None else ended.value)
    logger.info("Task %s[%s] retry: %s", task.name, request.id, retry)
    _handle(handlers.on_retry, retry.exc, request.id or "", args, kwargs, info)
    if signals.task_retry.receivers:
        signals.task_retry.send(sender=task, request=request, reason=retry, einfo=info)


def as_handled(error: BaseException, call: Callable[[], None]) -> None:
    """Call while `error` is the exception being handled (`sys.exc_info()`), as handlers and signals have it in Celery.

    Tools that report errors look there. The exception comes out of it as it went in.
    """
    traceback, cause = error.__traceback__, error.__context__
    try:
        raise error
    except BaseException:
        error.__traceback__, error.__context__ = traceback, cause
        call()


def log_failure(task: Task[..., Any], request: Context, error: BaseException, traceback: str | None) -> None:
    """Log a failure: with its traceback, unless the task says that it expects this kind (`throws`)."""
    shown = serialization.safe_repr(error)
    if isinstance(error, Reject):
        logger.warning("Task %s[%s] %s\n%s", task.name, request.id, shown, traceback or "")
    elif isinstance(error, task.throws or ()):
        logger.info("Task %s[%s] raised expected: %s", task.name, request.id, shown)
    else:
        logger.error("Task %s[%s] raised unexpected: %s\n%s", task.name, request.id, shown, traceback or "")


def run_eagerly(task: Task[..., Any], request: Context, args: Any, kwargs: Any) -> Ended:
    """Run one attempt here and now, for `apply` and `task_always_eager`."""
    handlers = Handlers.of(task)
    request._is_before_run = _is_called(task, handlers)
    return run_attempt(task, handlers, request, args, kwargs)


def succeeded_before(delivery: Delivery, done: Record) -> Outcome:
    """Return the end of a redelivered task that is on record as a success already: the same once more, without running it."""
    logger.info("Task %s[%s] Task already completed successfully.", delivery.name, delivery.id)
    return Outcome(
        delivery.claim, delivery.seq, delivery.id, Disposition.COMPLETE, states.SUCCESS, done.result, done.content_type, None,
        done.children, done.started_at, done.runtime, linked=delivery.linked,
    )  # fmt: skip


def unknown_task(delivery: Delivery) -> Outcome:
    """Return the failure of a task whose name this program does not have."""
    error = NotRegistered(delivery.name)
    logger.error(
        "Received unregistered task of type %r.\nThe task ends as FAILURE(NotRegistered).\n\n"
        "Did you remember to import the module containing this task?\nOr maybe you're using relative imports?\n\n"
        "The id is %s; its arguments stay on record.",
        delivery.name, delivery.id,
    )  # fmt: skip
    if signals.task_unknown.receivers:
        signals.task_unknown.send(sender=None, message=delivery, exc=error, name=delivery.name, id=delivery.id)
    return failure(delivery, error, clock.now())


def refused(delivery: Delivery, error: Exception, at: float) -> Outcome:
    """Return the failure of a delivery whose bytes could not be, or may not be, decoded."""
    reason = "refused" if isinstance(error, ContentDisallowed) else "not understood"
    logger.error("Task %s[%s]: its message was %s: %r", delivery.name, delivery.id, reason, error)
    if signals.task_rejected.receivers:
        signals.task_rejected.send(sender=None, message=delivery, exc=error)
    return failure(delivery, error, at)


def failure(delivery: Delivery, error: BaseException, at: float) -> Outcome:
    """Return the outcome of a delivery that failed before, or without, any code of the task."""
    data = serialization.encode_exception(error)
    return Outcome(
        delivery.claim, delivery.seq, delivery.id, Disposition.FAIL, states.FAILURE, data, None,
        format_traceback(error) if error.__traceback__ is not None else None, started_at=at, runtime=0.0,
        linked=delivery.linked,
    )  # fmt: skip


def told_of_failure(app: LiteTQ, failed_id: str, accept: frozenset[str]) -> list[Any]:
    """Return what an errback of three arguments is called with: (request, exc, traceback)."""
    record = app.engine.read(failed_id)
    error: BaseException | None = None
    if record is not None and record.result is not None:
        error = serialization.decode_exception(record.result, record.content_type, accept)
    request = Context(id=failed_id, task=record.name if record is not None else None, called_directly=False)
    return [request, error, record.traceback if record is not None else None]


def with_successors(kept: str | None, headers: str) -> str | None:
    """Return children as JSON, with those that the workflow calls because this task has succeeded."""
    if kept is None and headers.startswith(ONLY_SUCCESSORS) and headers.count('":') == 1:
        return headers[len(ONLY_SUCCESSORS) : -1]  # nothing else is in them, as in most steps of a chain
    successors = json.loads(headers).get("successors")
    if not successors:
        return kept
    return json.dumps([*(json.loads(kept) if kept else []), *successors])


def children_json(children: list[Any]) -> str:
    return json.dumps([child.as_tuple() for child in children])


def format_traceback(error: BaseException) -> str:
    """Return a traceback as text, without the frames of ours at its top."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__") in _OURS:
        frames = frames.tb_next
    return "".join(
        tracebacks.format_exception(type(error), error, frames if frames is not None else error.__traceback__)
    )


def shorten(text: str, limit: int = REPR_LIMIT) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _handle(handler: Callable[..., Any] | None, *args: Any) -> None:
    """Call a handler where there is one; what it raises changes nothing."""
    if handler is None:
        return
    try:
        handler(*args)
    except Exception:
        logger.exception("%r raised; the end of the task stands", handler)


def _overrides(task: Task[..., Any], name: str) -> bool:
    """Return whether the task has a handler of its own; of a tool's proxy, whether the task behind it has."""
    if name in task.__dict__:
        return True
    cls = task.__class__
    base = next(kind for kind in cls.__mro__ if kind.__module__ == "litetq.task" and name in kind.__dict__)
    return getattr(cls, name) is not base.__dict__[name]


def _is_called(task: Task[..., Any], handlers: Handlers) -> bool:
    """Return whether the body may come to `Task.__call__`: an overridden `__call__`, or a tool's proxy, is the body."""
    return handlers.body is task or type(task) is not task.__class__
