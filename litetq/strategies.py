"""Tasks that say themselves what becomes of their messages: `Task.Strategy`, which packages have that run tasks in batches.

A strategy is called once per task when a worker starts, as `Strategy(task, app, consumer)`, and returns what is called with each
message: `handler(message, body, ack, reject, callbacks)`. What it is given has Celery's names; behind a message is a claim:

    claimed -> handler keeps it -> consumer.pool.apply_async(function) -> ack, or a result is stored -> settled

A message that a handler keeps takes no place in the pool, and has not begun: when the worker stops, or is killed, it goes back as it
was. It has begun once it is acknowledged, or, where its task acknowledges late, once the next function is started. It ends when
`app.backend.mark_as_done` (or mark_as_failure, mark_as_revoked) gives it a result; one that is acknowledged and has none when the
function returns, or was acknowledged elsewhere, ends as ignored. One that a function leaves unacknowledged comes again when the
worker stops.

Functions run in threads of the worker's main process, in every pool; so many at a time as the pool has places.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from litetq import calling, clock, context, execution, parts, serialization, states
from litetq.exceptions import OperationalError, Reject
from litetq.message import Delivery, Disposition, Outcome, Record
from litetq.message import Message as Sent
from litetq.pool import HELD_MAX

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.steps import Timer, TimerEntry

logger = logging.getLogger("celery.worker.strategy")

DEFAULT: Final = "litetq.strategies:default"  # what a task has that says nothing

_ENDS: Final = {  # how a state that is stored for a task ends it
    states.SUCCESS: Disposition.COMPLETE,
    states.FAILURE: Disposition.FAIL,
    states.REVOKED: Disposition.REVOKE,
}
# Those that were acknowledged in the function that runs here.
_run: ContextVar[list[Message] | None] = ContextVar("litetq_strategy_run", default=None)

Handler = Callable[..., object]


class Message:
    """A claimed task, as Celery's strategies meet the message of one."""

    content_encoding = "utf-8"

    def __init__(
        self, strategies: Strategies, delivery: Delivery, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self.delivery = delivery
        self._strategies = strategies
        self.payload = (list(args), dict(kwargs), {"callbacks": None, "errbacks": None, "chain": None, "chord": None})
        self.headers = calling.protocol_headers(_as_sent(delivery))
        self.properties = {
            "correlation_id": delivery.id,
            "reply_to": self.headers.get("reply_to"),
            "priority": delivery.priority,
        }
        self.delivery_info = {
            "exchange": "",
            "routing_key": delivery.queue,
            "priority": delivery.priority,
            "redelivered": delivery.deliveries > 0,
        }
        self.delivery_tag = delivery.claim
        self.content_type = delivery.content_type or serialization.JSON
        self.has_begun = False
        self.is_acknowledged = False
        self.has_ended = False

    @property
    def body(self) -> bytes:
        """What it would be on a wire."""
        return serialization.encode(self.payload, "json")[1]

    def decode(self) -> Any:
        """Return arguments, keyword arguments, and what hangs on the task (nothing: that is in the file)."""
        return self.payload

    @property
    def acknowledged(self) -> bool:
        """Whether nobody needs it any more."""
        return self.is_acknowledged or self.has_ended

    def ack(self, *_: Any, **__: Any) -> None:
        """Have it end; with the result that is stored for it, or as ignored. A second time does nothing."""
        self._strategies.acknowledge(self)

    ack_log_error = ack

    def reject(self, *_: Any, requeue: bool = False, **__: Any) -> None:
        """Have it fail with Reject, or with `requeue` come again."""
        self._strategies.reject(self, requeue)

    reject_log_error = reject


class Places:
    """The pool, as far as strategies use it: it runs functions of the program."""

    def __init__(self, strategies: Strategies, concurrency: int) -> None:
        self.limit = self.num_processes = concurrency
        self._strategies = strategies
        self._free = threading.Semaphore(concurrency)

    def apply_async(
        self,
        target: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        accept_callback: Callable[[int, float], object] | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[Any], object] | None = None,
        **_: Any,
    ) -> None:
        """Call a function in a thread, soon; the callbacks are called there, when it begins and with what it returns.

        While the worker stops nothing is called: what the function was to work on has gone back.
        """
        if self._strategies.is_stopping:
            return
        self._strategies.announce_function()
        run = functools.partial(target, *args, **(kwargs or {}))
        threading.Thread(
            target=self._call, args=(run, accept_callback, callback, error_callback), name="litetq-batch", daemon=True
        ).start()

    def _call(
        self,
        run: Callable[[], Any],
        accept_callback: Callable[[int, float], object] | None,
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[Any], object] | None,
    ) -> None:
        with self._free, self._strategies.running():
            try:
                if accept_callback is not None:
                    accept_callback(os.getpid(), clock.monotonic())
                value = run()
                if callback is not None:
                    callback(value)
            except Exception as error:
                logger.exception("what a strategy has started raised")
                if error_callback is not None:
                    error_callback(execution.ExceptionInfo(error))


class OwnTimer:
    """The worker's timer; its calls are made by the worker's own thread, as those of handlers are."""

    def __init__(self, timer: Timer, order: Callable[[Callable[[], object]], None]) -> None:
        self._timer = timer
        self._order = order

    def call_repeatedly(
        self, secs: float, fun: Callable[..., Any], args: Iterable[Any] = (), kwargs: Any = None, priority: int = 0
    ) -> TimerEntry:
        """Call every so many seconds, until the entry is cancelled."""
        return self._timer.call_repeatedly(secs, self._order, (_safely(fun, args, kwargs),), priority=priority)

    def call_after(
        self, secs: float, fun: Callable[..., Any], args: Iterable[Any] = (), kwargs: Any = None, priority: int = 0
    ) -> TimerEntry:
        """Call once, after so many seconds."""
        return self._timer.call_after(secs, self._order, (_safely(fun, args, kwargs),), priority=priority)

    def cancel(self, tref: TimerEntry) -> None:
        """Call it no more."""
        tref.cancel()


class Consumer:
    """The worker, as far as strategies use it."""

    connection_errors = (OperationalError,)

    def __init__(self, strategies: Strategies, app: LiteTQ, hostname: str, timer: OwnTimer, concurrency: int) -> None:
        self.app = app
        self.hostname = hostname
        self.timer = timer
        self.pool = Places(strategies, concurrency)
        self.event_dispatcher = app.events.default_dispatcher(hostname=hostname)
        self.pass_on = strategies.pass_on


class Strategies:
    """The strategies of a worker's tasks, and what their handlers keep.

    Args:
        app, hostname, timer: the worker's.
        concurrency: how many functions run at a time.
        begin: notes that a claim has begun.
        order: has the worker's thread do something in its next round.
        put: gives a delivery to the pool.

    Safety: `take`, `drain` and `recall` belong to the worker's thread, all else to any.
    """

    def __init__(
        self,
        app: LiteTQ,
        hostname: str,
        timer: Timer,
        concurrency: int,
        *,
        begin: Callable[[int], None],
        order: Callable[[Callable[[], object]], None],
        put: Callable[[Delivery], object],
    ) -> None:
        self._app = app
        self._begin = begin
        self._order = order
        self._put = put
        self._lock = threading.Lock()
        self._kept: dict[int, Message] = {}  # by claim, until its outcome is drained
        self._done: deque[Outcome] = deque()
        self._handlers: dict[str, Handler] = {}
        self._tracers: dict[str, execution.Tracer] = {}
        self._functions = 0  # that are to run or run
        self.is_stopping = False
        consumer = Consumer(self, app, hostname, OwnTimer(timer, order), concurrency)
        for name, task in wanted(app).items():
            self._handlers[name] = task.start_strategy(app, consumer)
            self._tracers[name] = execution.Tracer(name, task, app=app, hostname=hostname)

    # -- for the worker

    def has(self, name: str) -> bool:
        """Return whether a task has a strategy."""
        return name in self._handlers

    def held(self) -> int:
        """Return how many messages are kept, or have ended and are not drained yet."""
        return len(self._kept)

    def room(self) -> int:
        """Return how many more may be claimed beside what is kept."""
        return max(0, HELD_MAX - len(self._kept))

    def take(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Hand each to its handler; return those that cannot be read, which an attempt will tell.

        A handler that raises ends the task as FAILURE.
        """
        unread = []
        for delivery in deliveries:
            try:
                args, kwargs = self._tracers[delivery.name].arguments(delivery)
            except Exception:
                unread.append(delivery)
                continue
            message = self._kept[delivery.claim] = Message(self, delivery, args, kwargs)
            try:
                self._handlers[delivery.name](message, None, message.ack, message.reject, [])
            except Exception as error:
                logger.exception("Task %s[%s]: its strategy raised", delivery.name, delivery.id)
                self._end(message, Disposition.FAIL, states.FAILURE, serialization.encode_exception(error))
        return unread

    def drain(self) -> list[Outcome]:
        """Return what has ended since."""
        outcomes = []
        while self._done:
            outcome = self._done.popleft()
            self._kept.pop(outcome.claim, None)
            outcomes.append(outcome)
        return outcomes

    def recall(self) -> list[Delivery]:
        """Start nothing any more; return what has not begun. What no function works on any more comes again."""
        self.is_stopping = True
        with self._lock:
            kept = [message for message in self._kept.values() if not message.has_ended]
            back = [message for message in kept if not message.has_begun]
            left = [] if self._functions else [message for message in kept if message.has_begun]
            for message in back:
                message.has_ended = True
                del self._kept[message.delivery.claim]
        for message in left:
            self._end(message, Disposition.REQUEUE, states.RETRY)
        return [message.delivery for message in back]

    # -- for strategies

    def pass_on(self, message: Message) -> None:
        """Have a message run as that of any other task, in the pool."""
        with self._lock:
            if message.has_ended:
                return
            message.has_ended = True
            self._kept.pop(message.delivery.claim, None)
        self._order(functools.partial(self._put, message.delivery))

    def acknowledge(self, message: Message) -> None:
        """Have a message end: when the function returns that has acknowledged it, and by that at once."""
        with self._lock:
            if message.acknowledged:
                return
            message.is_acknowledged = True
            self._begin_one(message)
        here = _run.get()
        if here is None:
            self._ignore(message)
        else:
            here.append(message)

    def reject(self, message: Message, requeue: bool) -> None:
        """Have a message fail, or come again; with its attempt unspent if it had not begun."""
        if not requeue:
            error = serialization.encode_exception(Reject("rejected by the strategy of its task"))
            self._end(message, Disposition.FAIL, states.FAILURE, error)
        elif message.has_begun:
            self._end(message, Disposition.REQUEUE, states.RETRY)
        else:
            self._end(message, Disposition.RELEASE, states.PENDING)

    def announce_function(self) -> None:
        """Count as begun what is acknowledged late: which of it the function works on is not known here."""
        with self._lock:
            self._functions += 1
            for message in self._kept.values():
                if self._app.tasks[message.delivery.name].acks_late:
                    self._begin_one(message)

    def running(self) -> _Running:
        """Be the function of a strategy within a `with` block: results that it stores end their tasks."""
        return _Running(self)

    def note(self, record: Record) -> bool:
        """End the message of this id with what is to be stored; False where none is kept."""
        with self._lock:
            found = [message for message in self._kept.values() if message.delivery.id == record.id]
        disposition = _ENDS.get(record.state)
        if not found or disposition is None:
            return False
        for message in found:
            self._end(message, disposition, record.state, record.result, record.content_type, record.traceback)
        return True

    def end_function(self, acknowledged: Iterable[Message]) -> None:
        """End what the function has acknowledged and given no result."""
        for message in acknowledged:
            self._ignore(message)
        with self._lock:
            self._functions -= 1
        self._order(_nothing)

    def _ignore(self, message: Message) -> None:
        self._end(message, Disposition.IGNORE, states.IGNORED)

    def _begin_one(self, message: Message) -> None:
        if not message.has_begun:
            message.has_begun = True
            self._begin(message.delivery.claim)

    def _end(
        self,
        message: Message,
        disposition: int,
        state: str,
        result: bytes | None = None,
        content_type: str | None = None,
        traceback: str | None = None,
    ) -> None:
        delivery = message.delivery
        with self._lock:
            if message.has_ended:
                return
            message.has_ended = True
            if disposition != Disposition.RELEASE:
                self._begin_one(message)
            self._done.append(
                Outcome(
                    delivery.claim,
                    delivery.seq,
                    delivery.id,
                    disposition,
                    state,
                    result,
                    content_type,
                    traceback,
                    linked=delivery.linked,
                )  # fmt: skip
            )
        self._order(_nothing)


class _Running:
    def __init__(self, strategies: Strategies) -> None:
        self._strategies = strategies

    def __enter__(self) -> None:
        context.set_current_app(self._strategies._app)
        self._acknowledged: list[Message] = []
        self._tokens = (_run.set(self._acknowledged), parts.ends_here.set(self._strategies.note))

    def __exit__(self, *_: object) -> None:
        run, ends = self._tokens
        parts.ends_here.reset(ends)
        _run.reset(run)
        self._strategies.end_function(self._acknowledged)


def wanted(app: LiteTQ) -> dict[str, Any]:
    """Return the tasks that have a strategy of their own, by name."""
    return {name: task for name, task in app.tasks.items() if task.Strategy not in (None, DEFAULT, default)}


def default(task: Any, app: LiteTQ, consumer: Consumer, **_: Any) -> Handler:
    """Return the handler that has each message run as that of any other task; for strategies that decide it by message."""

    def task_message_handler(message: Message, body: Any = None, *_: Any, **__: Any) -> None:
        consumer.pass_on(message)

    return task_message_handler


def _as_sent(delivery: Delivery) -> Sent:
    return Sent(
        delivery.id, delivery.name, delivery.body, delivery.content_type, delivery.queue, delivery.priority, None,
        delivery.expires_at, delivery.retries, delivery.root_id, delivery.parent_id, delivery.headers,
    )  # fmt: skip


def _safely(fun: Callable[..., Any], args: Iterable[Any], kwargs: Any) -> Callable[[], None]:
    def call() -> None:
        try:
            fun(*args, **(kwargs or {}))
        except Exception:
            logger.exception("a timer's call of %r raised", fun)

    return call


def _nothing() -> None:
    pass
