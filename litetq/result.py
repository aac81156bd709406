"""Results as a caller sees them: ask for the state of a task, wait for its end, get its value or its exception.

A result object holds an id and no file handle. What it reads is cached once the task has ended. Waiting never polls: the
waiter announces itself, looks, and only then sleeps until a worker rings; a slow look once a second serves where bells
cannot reach (docs/architecture.md).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast

from litetq import clock, context, green, serialization, states
from litetq.exceptions import (
    EncodeError,
    IncompleteStream,
    NotOnRecord,
    TaskError,
    TaskRevokedError,
    TimeoutError,
)
from litetq.graph import DependencyGraph
from litetq.message import SAVED, Record, saved_id
from litetq.progress import Progress, progress_of, tasks_of

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.message import Results

logger = logging.getLogger(__name__)

R = TypeVar("R")

LONG_LOOK: Final = 0.001  # seconds; after a look that took longer, the listener rests
REST_MAX: Final = 0.1  # seconds; arbitrary
BACKSTOP: Final = 1.0  # seconds between looks when no bell rings; arbitrary, serves containers that share a volume

_WOULD_BLOCK: Final = (
    "Never call result.get() within a task!\n"
    "The worker may have no free slot for the task that is waited for, so both would wait for ever. Link the second task "
    "to the first one (chain, link), or allow it here with allow_join_result() or disable_sync_subtasks=False."
)

OnMessage = Callable[[dict[str, Any]], Any]


def task_join_will_block() -> bool:
    """Return whether waiting for a result here could wait for ever; tests of programs replace it, by Celery's name."""
    return context.is_join_blocked()


def assert_will_not_block() -> None:
    """Raise RuntimeError inside a task that a worker runs."""
    if task_join_will_block():
        raise RuntimeError(_WOULD_BLOCK)


def allow_join_result() -> AbstractContextManager[None]:
    """Allow waiting for results within the block, also inside a task."""
    return context.join_block(False)


def denied_join_result() -> AbstractContextManager[None]:
    """Forbid waiting for results within the block."""
    return context.join_block(True)


def wait_until(
    results: Results,
    is_done: Callable[[], bool],
    timeout: float | None,
    on_interval: Callable[[], Any] | None = None,
    ids: Sequence[str] | None = None,
) -> bool:
    """Return True as soon as `is_done` does, looking at each change of results; False after `timeout` seconds.

    With `ids`, changes of others are left out, as far as they can be told apart. A timeout of 0 looks once. `on_interval` is
    called after each wait. Raises TopLevelStart at the top level of a module that a worker imports: the worker runs nothing
    before the import has ended.
    """
    if timeout is not None:
        if not isinstance(timeout, (int, float)):
            raise TypeError(f"timeout must be seconds or None, found {timeout!r} ({type(timeout).__name__})")
        if not timeout > 0:
            return is_done()
    deadline = None if timeout is None else time.monotonic() + timeout
    # To announce costs 5 us, a look 19 us (measured): so there is no look before the first announcement.
    with results.watch(ids) as watch:
        while True:
            watch.announce()  # before the look: a change after the look rings
            if is_done():
                return True
            context.refuse_while_importing("a result is waited for")
            refuse_on_the_loop()
            rest = BACKSTOP if deadline is None else min(BACKSTOP, deadline - time.monotonic())
            if rest <= 0:
                return False
            watch.wait(rest)
            if on_interval is not None:
                on_interval()


def refuse_on_the_loop() -> None:
    """Raise RuntimeError in a coroutine of a task: to stand still there holds up all async tasks of the process.

    That includes the one that is waited for, if it runs here: then both would wait for ever.
    """
    if "litetq.aio" in sys.modules:
        from litetq import aio

        if aio.is_here():
            raise RuntimeError("result.get() would hold up the event loop that runs all async tasks; use  await result")


class RemoteTraceback(Exception):
    """The traceback of the worker, as text: the `__cause__` of an exception that comes from a result."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class ResultBase:
    """What single results and sets of them share."""

    parent: ResultBase | None = None

    def __json__(self) -> Any:
        """Return what a task gives that returns a result: `result_from_tuple` makes the result of it again."""
        return self.as_tuple()

    def as_tuple(self) -> Any:
        """Return ids: what `result_from_tuple` reads."""
        raise NotImplementedError(f"{type(self).__name__} has no ids to tell")

    def progress(self) -> Progress:
        """Return how many tasks of the workflow that leads here have ended, failed, run and wait; not in Celery."""
        return progress_of(self)

    def retry(self) -> int:
        """Run again what has failed of the workflow that leads here, from the failed steps on; not in Celery.

        What was revoked or has expired counts as failed. Ids stay, and so do the steps that have succeeded, with their
        values. Errbacks are called again if a step fails again. Where nothing has failed, or it runs again already, nothing
        is done: of two calls at once, one does it.

        Returns how many tasks are to run, those included that had failed only because one before them had.
        Raises NotOnRecord, and does nothing, when none of the tasks is known to the file, or what one needs has expired:
        a workflow can be resumed as long as its failures are on record (`result_expires`).
        """
        tasks = list(tasks_of(self))
        if not tasks:
            return 0
        count = _run_again(tasks[0].app, [task.id for task in tasks])
        for task in tasks:  # also those that another call has sent to run again
            task.look_again()
        return count


class AsyncResult(ResultBase, Generic[R]):
    """The result of one task, by its id.

    Args:
        id: the task's id; whether the file knows it tells `exists()`.
        backend, task_name: accepted for Celery's sake.
        app: whose file is read; by default the current app's.
        parent: the result of the task before this one in a chain.
    """

    TimeoutError = TimeoutError
    _graph: DependencyGraph | None = None
    ignored: bool = False  # True: the caller asked for no result, so `get` returns None at once

    def __init__(
        self,
        id: str,
        backend: Any = None,
        task_name: str | None = None,
        app: LiteTQ | None = None,
        parent: ResultBase | None = None,
    ) -> None:
        if not isinstance(id, str):
            hint = "" if id is None else f"; give its text: {str(id)!r}"
            raise ValueError(f"AsyncResult requires valid id, not {type(id)}{hint}")
        self.id = id
        self.app = app or _current_app()
        self.parent = parent
        self._task_name = task_name
        self._final: Record | None = None
        self._value: Any = _NOT_DECODED

    def _get_task_meta(self) -> dict[str, Any]:
        """Return all that is on record, as Celery's backends describe it with `result_extended`; packages look there."""
        record = self._record()
        if record is None:
            return {**_as_meta(self.app, Record(self.id, states.PENDING, "DONE")), "date_done": None}
        args, kwargs = self._arguments_of(record)
        return {
            **_as_meta(self.app, record),
            "children": self._children_of(record) or [],
            "date_done": _end_of(record),
            "name": record.name,
            "args": args,
            "kwargs": kwargs,
            "worker": record.worker,
            "retries": record.retries,
            "queue": record.queue,
            "parent_id": record.parent_id,
            **_stamps_of(record),
        }

    # -- what is known ------------------------------------------------------------------------------------------------

    def _record(self) -> Record | None:
        """Read what the file knows; once the task has ended, remember it."""
        if self._final is not None:
            return self._final
        record: Record | None = self.app.results.read(self.id)
        if record is not None and record.state in states.READY_STATES:
            self._final = record
        return record

    def _value_of(self, record: Record | None) -> Any:
        if record is None:
            return None
        if record is not self._final:
            return decode_record(self.app, record)
        if self._value is _NOT_DECODED:
            self._value = decode_record(self.app, record)
        return self._value

    @property
    def backend(self) -> Any:
        """Where results are kept: their file, or the backend of a package."""
        return self.app.backend

    @property
    def task_id(self) -> str:
        """The id, by Celery's older name."""
        return self.id

    @task_id.setter
    def task_id(self, id: str) -> None:
        self.id = id

    @property
    def state(self) -> str:
        """PENDING (waiting or unknown: see `exists()`), STARTED, RETRY, FAILURE, SUCCESS, REVOKED, or one of its own."""
        return _state_of(self._record())

    status = state

    @property
    def result(self) -> Any:
        """The value; the exception of a failed, revoked or retried task; the meta of a state of its own; else None."""
        return self._value_of(self._record())

    info = result

    @property
    def traceback(self) -> str | None:
        """The traceback of a failed task, as text."""
        record = self._record()
        return None if record is None else record.traceback

    @property
    def children(self) -> list[ResultBase] | None:
        """The results of the tasks that this one called; None as long as it has not ended."""
        return self._children_of(self._record())

    def _children_of(self, record: Record | None) -> list[ResultBase] | None:
        if record is None or record.state not in states.READY_STATES:
            return None
        return [result_from_tuple(child, self.app) for child in json.loads(record.children or "[]")]

    @property
    def date_done(self) -> datetime | None:
        """When the task ended, in UTC; None as long as it has not."""
        record = self._record()
        return None if record is None else _end_of(record)

    @property
    def name(self) -> str | None:
        """The task's name, where the file knows it."""
        record = self._record()
        return self._task_name if record is None else record.name

    @property
    def args(self) -> Any:
        """The arguments, as long as the file keeps them."""
        return self._arguments_of(self._record())[0]

    @property
    def kwargs(self) -> Any:
        """The keyword arguments, as long as the file keeps them."""
        return self._arguments_of(self._record())[1]

    def _arguments_of(self, record: Record | None) -> tuple[Any, Any]:
        if record is None or record.body is None:
            return None, None
        args, kwargs, *_ = serialization.decode(record.body, record.body_type, self.app.accepted_content)
        return args, kwargs

    @property
    def worker(self) -> str | None:
        """The worker that ran it last."""
        record = self._record()
        return None if record is None else record.worker

    @property
    def retries(self) -> int | None:
        """How often it was retried."""
        record = self._record()
        return None if record is None else record.retries

    @property
    def queue(self) -> str | None:
        """The queue it was sent to."""
        record = self._record()
        return None if record is None else record.queue

    @property
    def supports_native_join(self) -> bool:
        return True

    def exists(self) -> bool:
        """Return whether the file knows this id: True from the call until the result expires or is forgotten."""
        return self._record() is not None

    def ready(self) -> bool:
        """Return whether the task has ended: with a value, a failure, or revoked."""
        return self.state in states.READY_STATES

    def successful(self) -> bool:
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        return self.state == states.FAILURE

    # -- waiting ------------------------------------------------------------------------------------------------------

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        no_ack: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], Any] | None = None,
        on_message: OnMessage | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
        EXCEPTION_STATES: frozenset[str] = states.EXCEPTION_STATES,
        PROPAGATE_STATES: frozenset[str] = states.PROPAGATE_STATES,
    ) -> R:
        """Wait for the end of the task and return its value.

        Args:
            timeout: seconds; 0 does not wait, None waits without end.
            propagate: raise what the task raised; False returns the exception.
            follow_parents: raise the failure of an earlier task of the chain.
            callback: called with id and value before they are returned.
            on_message: called with a dict of each state seen on the way, the last one included.
            on_interval: called after each wait, at least once a second.
            disable_sync_subtasks: raise inside a task, where waiting may never end.
            interval, no_ack, EXCEPTION_STATES: accepted for Celery's sake; nothing polls here.

        Raises TimeoutError when the task has not ended in time (it goes on), RuntimeError inside a task.
        """
        if self.ignored:
            return cast(R, None)
        if disable_sync_subtasks:
            assert_will_not_block()
        if self._final is None:
            told = _Teller(self, on_message) if on_message is not None else None
            is_done = self.ready if told is None else told.look
            if not wait_until(self.app.results, is_done, timeout, on_interval, [self.id]):
                raise TimeoutError(f"The operation timed out. {self._why_not(timeout)}")
        elif on_message is not None:
            _Teller(self, on_message).look()
        return self._taken(propagate, follow_parents, callback, PROPAGATE_STATES)

    wait = get  # Celery's older name

    def _taken(
        self,
        propagate: bool,
        follow_parents: bool,
        callback: Callable[[str, Any], Any] | None,
        propagate_states: frozenset[str] = states.PROPAGATE_STATES,
    ) -> R:
        """Return the value of a task that has ended, or raise what it raised."""
        if propagate and self.state in propagate_states:
            if follow_parents:  # a failure runs on through all that waits, so there is none without one here
                for node in reversed(_parents(self)):
                    node.maybe_throw()
            self._throw()
        value = self.result
        if callback is not None:
            callback(self.id, value)
        return cast(R, value)

    async def aget(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> R:
        """Do as `get` does, and hold no event loop: `await result.aget(timeout=10)`, or short `await result`.

        Any number of results can be awaited at once, in any loop, and no thread stands behind each. To cancel the wait
        leaves nothing behind, and does nothing to the task.

        Raises TimeoutError when the task has not ended in time (it goes on), RuntimeError inside a task.
        """
        if self.ignored:
            return cast(R, None)
        if disable_sync_subtasks:
            assert_will_not_block()
        if not self.ready():
            listener, waiting = self.app.result_listener, _Awaited(self)
            listener.add([waiting])
            try:
                listener.look([waiting])  # it may have ended before the listener knew of it
                await waiting.wait(timeout, timeout)
            finally:
                listener.discard([waiting])
        return self._taken(propagate, follow_parents, callback)

    def __await__(self) -> Generator[Any, None, R]:
        return self.aget().__await__()

    def has_ended(self) -> bool:
        """Return whether it is known already that the task has ended; nothing is read. `ready()` reads."""
        return self._final is not None or self.ignored

    def _why_not(self, timeout: float | None) -> str:
        """Say in plain words why there is no end yet: what a waiter in vain wants to know."""
        record = self.app.engine.read(self.id) or self._record()
        if record is None:
            return f"No task {self.id} is known to {self.app.engine.results_shown}."
        name = f"{record.name or 'Task'}[{self.id}]"
        after = "" if timeout is None else f" after {timeout:g} s"
        if self.app.engine.has_worker():
            return f"{name} is {record.state}{after}" + (f": {record.reason}." if record.reason else ".")
        return f"{name} is {record.state}{after}, and no worker runs on {self.app.engine.shown}."

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], Any] | None = None) -> Any:
        """Raise what the task raised, if it failed; else return the value as it is now, without waiting."""
        if propagate and self.state in states.PROPAGATE_STATES:
            self._throw()
        value = self.result
        if callback is not None:
            callback(self.id, value)
        return value

    maybe_reraise = maybe_throw

    def throw(self, *args: Any, **kwargs: Any) -> Any:
        """Raise the given exception."""
        raise args[0] if args else self.result

    def _throw(self) -> None:
        error: BaseException = self.result
        text = self.traceback
        if text and error.__cause__ is None:
            error.__cause__ = RemoteTraceback(text)
        # Without the frames of an earlier get(), which would pile up on the cached exception.
        raise error.with_traceback(None)

    def then(
        self, callback: Callable[[Any], Any], on_error: Callable[[Any], Any] | None = None, weak: bool = False
    ) -> AsyncResult[R]:
        """Call `callback` with this result once the task has ended; nobody needs to wait for it.

        A task that failed calls `on_error` with the exception instead, where one is given. Callbacks run in a thread of
        their own, or here and now when the task has ended already. `weak` holds the callback weakly. What a callback
        raises is logged.
        """
        waiting = _Callbacks(self, callback, on_error, weak)
        if self.ready():
            waiting.tell()
        else:
            self.app.result_listener.add([waiting])
            self.app.result_listener.look([waiting])
        return self

    # -- acting -------------------------------------------------------------------------------------------------------

    def look_again(self) -> None:
        """Forget what was read: the task may run again."""
        self._final, self._value, self._graph = None, _NOT_DECODED, None

    def forget(self) -> None:
        """Remove the stored result, and those of the parents (all members where that is a group); the state is PENDING again."""
        ids: set[str] = set()
        found: list[ResultBase | None] = [self]
        while found:
            result = found.pop()
            if isinstance(result, ResultSet):
                found += [*result.results, result.parent]
            elif isinstance(result, AsyncResult) and result.id not in ids:
                result.look_again()
                ids.add(result.id)
                found.append(result.parent)
        self.app.results.forget(ids)

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Order not to run this task; see `app.control.revoke`."""
        self.app.control.revoke(self.id, terminate=terminate, signal=signal, reply=wait, timeout=timeout)

    def revoke_by_stamped_headers(
        self,
        headers: Any,
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Order not to run any task with these stamps, be it this one or not; see `app.control.revoke_by_stamped_headers`."""
        self.app.control.revoke_by_stamped_headers(
            headers, terminate=terminate, signal=signal, reply=wait, timeout=timeout
        )

    # -- trees --------------------------------------------------------------------------------------------------------

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Any, ResultBase]]:
        """Walk over this result and all below it, breadth first, as pairs of parent and result.

        Raises IncompleteStream at the first one that has not ended, unless `intermediate`.
        """
        pending: deque[tuple[Any, Any]] = deque([(None, self)])
        while pending:
            parent, node = pending.popleft()
            yield parent, node
            if node.ready():
                pending.extend((node, child) for child in node.children or [])
            elif not intermediate:
                raise IncompleteStream()

    def build_graph(self, intermediate: bool = False, formatter: Any = None) -> DependencyGraph:
        """Return this result and all below it as a graph; raises IncompleteStream as `iterdeps` does."""
        graph = DependencyGraph(formatter=formatter)
        for parent, node in self.iterdeps(intermediate=intermediate):
            graph.add_arc(node)
            if parent is not None:
                graph.add_edge(parent, node)
        return graph

    @property
    def graph(self) -> DependencyGraph:
        """The graph of this result and all below it, once all of them have ended."""
        if self._graph is None:
            self._graph = self.build_graph()
        return self._graph

    def collect(self, intermediate: bool = False, **options: Any) -> Generator[tuple[ResultBase, Any], None, None]:
        """Wait for this result and all below it; yield each with its value, breadth first.

        The values of the leaves alone, where `A` calls a group of `B`, and each `B` calls a `pow2`:

        >>> result = A.delay(10)
        >>> [value for child, value in result.collect() if not child.children]
        [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]
        """
        for _, node in self.iterdeps(intermediate=intermediate):
            yield node, cast(Any, node).get(**options)

    def get_leaf(self) -> Any:
        """Return the value of the last result below this one."""
        value = None
        for _, node in self.iterdeps():
            value = cast(Any, node).get()
        return value

    def as_tuple(self) -> tuple[Any, Any]:
        """Return the id, those of the parents, and None: what `result_from_tuple` reads."""
        described: Any = None
        for node in [*reversed(_parents(self)), self]:  # no recursion: a chain may have 10,000 steps
            members = [member.as_tuple() for member in node.results] if isinstance(node, GroupResult) else None
            described = ((node.id, described), members)
        return cast("tuple[Any, Any]", described)

    def as_list(self) -> list[str]:
        """Return the id and those of the parents."""
        return [self.id, *(parent.id for parent in _parents(self))]

    # -- as a value ---------------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return bool(self.id == other.id)
        return self.id == other if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __copy__(self) -> AsyncResult[R]:
        return type(self)(self.id, None, self._task_name, self.app, self.parent)

    def __reduce__(self) -> tuple[Any, ...]:
        # The app stays behind: where the result is read, the current app's file counts.
        return type(self), (self.id, None, self._task_name, None, self.parent)


class EagerResult(AsyncResult[R]):
    """The result of a task that was run here and now by `apply`."""

    def __init__(
        self,
        id: str,
        ret_value: Any,
        state: str,
        traceback: str | None = None,
        name: str | None = None,
        children: list[ResultBase] | None = None,
    ) -> None:
        self.id = id
        self.parent = None
        self._result = ret_value
        self._state = state
        self._traceback = traceback
        self._task_name = name
        self._children = children

    def as_meta(self) -> dict[str, Any]:
        """Return the state as Celery's backends describe one."""
        state = {"task_id": self.id, "status": self._state, "result": self._result, "traceback": self._traceback}
        return {**state, "children": self._children or []}

    def settle(self, value: Any, state: str, traceback: str | None, children: list[ResultBase]) -> None:
        """Say how the task ended: a workflow that is run here and now makes its results first."""
        self._result, self._state, self._traceback, self._children = value, state, traceback, children

    @property
    def state(self) -> str:
        return self._state

    status = state

    @property
    def result(self) -> Any:
        return self._result

    info = result

    @property
    def traceback(self) -> str | None:
        return self._traceback

    @property
    def name(self) -> str | None:
        return self._task_name

    @property
    def children(self) -> list[ResultBase] | None:
        return self._children

    def _record(self) -> Record | None:
        return None

    @property
    def supports_native_join(self) -> bool:
        return False

    def exists(self) -> bool:
        return True

    def ready(self) -> bool:
        return True

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        no_ack: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], Any] | None = None,
        on_message: OnMessage | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
        EXCEPTION_STATES: frozenset[str] = states.EXCEPTION_STATES,
        PROPAGATE_STATES: frozenset[str] = states.PROPAGATE_STATES,
    ) -> R:
        """Return the value, or raise what the task raised; with `propagate=False` return that. None, if it was ignored."""
        if disable_sync_subtasks:
            assert_will_not_block()
        if propagate and self._state in PROPAGATE_STATES:
            raise self._result if isinstance(self._result, BaseException) else Exception(self._result)
        value = None if self._state == states.IGNORED else self._result
        if callback is not None:
            callback(self.id, value)
        return cast(R, value)

    wait = get

    async def aget(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> R:
        """Do as `get` does."""
        return self.get(timeout, propagate, callback=callback, disable_sync_subtasks=disable_sync_subtasks)

    def has_ended(self) -> bool:
        return True

    def then(
        self, callback: Callable[[Any], Any], on_error: Callable[[Any], Any] | None = None, weak: bool = False
    ) -> AsyncResult[R]:
        """Call `callback` now (`on_error` with the exception of a failed task)."""
        _Callbacks(self, callback, on_error, weak).tell()
        return self

    def retry(self) -> int:
        """Raise NotOnRecord: nothing is stored; `apply` it once more."""
        raise NotOnRecord(f"Task {self.id} was run here and now, nothing of it is in a file; call apply() once more.")

    def forget(self) -> None:
        """Do nothing: nothing is stored."""

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """Make the state REVOKED; `get` raises TaskRevokedError from now on."""
        self._state = states.REVOKED
        self._result, self._traceback = TaskRevokedError("revoked"), None

    def __copy__(self) -> EagerResult[R]:
        return type(self)(self.id, self._result, self._state, self._traceback, self._task_name, self._children)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.id, self._result, self._state, self._traceback, self._task_name)

    def __repr__(self) -> str:
        return f"<EagerResult: {self.id}>"


class ResultSet(ResultBase):
    """Several results, in an order."""

    def __init__(self, results: Iterable[Any], app: LiteTQ | None = None, **_: Any) -> None:
        self.results: list[Any] = list(results)
        self._app = app

    @property
    def app(self) -> LiteTQ:
        """The app given, or that of the first result, or the current one."""
        if self._app is None:
            self._app = self.results[0].app if self.results else _current_app()
        return self._app

    @app.setter
    def app(self, app: LiteTQ) -> None:
        self._app = app

    def add(self, result: Any) -> None:
        """Append a result that is not in the set yet."""
        if result not in self.results:
            self.results.append(result)

    def remove(self, result: Any) -> None:
        """Take a result (or id) out; KeyError when it is not in."""
        try:
            self.results.remove(result)
        except ValueError:
            raise KeyError(result) from None

    def discard(self, result: Any) -> None:
        """Take a result (or id) out, if it is in."""
        if result in self.results:
            self.results.remove(result)

    def update(self, results: Iterable[Any]) -> None:
        """Append those that are not in the set yet."""
        for result in results:
            self.add(result)

    def clear(self) -> None:
        """Take all out."""
        self.results.clear()

    def leaves(self) -> Iterator[AsyncResult[Any]]:
        """Yield the results of tasks, those in sets within the set among them, in order."""
        for result in self.results:
            if isinstance(result, ResultSet):
                yield from result.leaves()
            else:
                yield result

    def _look(self) -> list[Any]:
        """Return the results after reading, with few statements, all of them that are not known to have ended."""
        _read_together([leaf for leaf in self.leaves() if not isinstance(leaf, EagerResult)])
        return self.results

    def successful(self) -> bool:
        return all(result.successful() for result in self._look())

    def failed(self) -> bool:
        return any(result.failed() for result in self._look())

    def ready(self) -> bool:
        return all(result.ready() for result in self._look())

    def waiting(self) -> bool:
        return any(not result.ready() for result in self._look())

    def completed_count(self) -> int:
        """Return how many ended with a value."""
        return sum(int(result.successful()) for result in self._look())

    def maybe_throw(self, callback: Callable[[str, Any], Any] | None = None, propagate: bool = True) -> None:
        """Raise the first failure there is."""
        for result in self._look():
            result.maybe_throw(callback=callback, propagate=propagate)

    maybe_reraise = maybe_throw

    def forget(self) -> None:
        """Remove all the stored results."""
        for result in self.results:
            result.forget()

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Order not to run any of these tasks."""
        ids = [result.id for result in self.leaves()]
        self.app.control.revoke(ids, terminate=terminate, signal=signal, reply=wait, timeout=timeout)

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None,
        no_ack: bool = True,
        on_message: OnMessage | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> list[Any]:
        """Wait for all and return their values in order; the first failure in order is raised, or put in its place.

        With a `callback`, which is called with the id and the value of each (of a group within: its id, and its values), none are
        gathered, and None is returned; `join` then returns an empty list.
        """
        if disable_sync_subtasks:
            assert_will_not_block()
        deadline = None if timeout is None else time.monotonic() + timeout
        values = []
        with self._parents_first(propagate):
            for place, result in enumerate(self.results):
                if place % READ_AT_ONCE == 0:
                    ahead = self.results[place : place + READ_AT_ONCE]
                    _read_together([each for each in ahead if type(each) is AsyncResult])
                value = result.get(
                    timeout=None if deadline is None else max(0.0, deadline - time.monotonic()),
                    propagate=propagate,
                    on_message=on_message,
                    on_interval=on_interval,
                    disable_sync_subtasks=disable_sync_subtasks,
                )
                if callback is None:
                    values.append(value)
                else:
                    callback(result.id, value)
        return values if callback is None else cast("list[Any]", None)

    join_native = get

    def join(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Do as `get` does."""
        return self.get(*args, **kwargs) or []

    @contextmanager
    def _parents_first(self, propagate: bool) -> Iterator[None]:
        """Where a member's failure is raised, raise instead that of the earliest task of the chain that has failed."""
        try:
            yield
        except Exception:
            for node in reversed(_parents(self)) if propagate else ():
                node.maybe_throw()
            raise

    async def aget(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        callback: Callable[[str, Any], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[Any]:
        """Do as `get` does, and hold no event loop: `await results.aget(timeout=10)`, or short `await results`."""
        if disable_sync_subtasks:
            assert_will_not_block()
        from litetq import aio

        deadline = None if timeout is None else time.monotonic() + timeout
        listener, waiting = self.app.result_listener, [_Awaited(leaf) for leaf in self.leaves()]
        listener.add(waiting)
        try:
            await aio.in_thread(listener.look, waiting)  # thousands take some milliseconds
            with self._parents_first(propagate):
                for one in waiting:
                    await one.wait(None if deadline is None else deadline - time.monotonic(), timeout)
                    if propagate:
                        one.result.get(disable_sync_subtasks=False)
        finally:
            listener.discard(waiting)
        return self.get(propagate=propagate, callback=callback, disable_sync_subtasks=False)

    def __await__(self) -> Generator[Any, None, list[Any]]:
        return self.aget().__await__()

    def iterate(self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5) -> Iterator[Any]:
        """Yield the values in the order in which the tasks end."""
        by_id = {leaf.id: leaf for leaf in self.leaves()}
        for id, _ in self.iter_native(timeout=timeout):
            yield by_id[id].get(propagate=propagate, disable_sync_subtasks=False)

    def iter_native(
        self,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: OnMessage | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield pairs of id and state dict as the tasks end."""
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting = {result.id: result for result in self.leaves()}
        whole = len(waiting)
        for result in [result for result in waiting.values() if isinstance(result, EagerResult)]:
            waiting.pop(result.id)
            yield result.id, result.as_meta()
        while waiting:
            rest = None if deadline is None else max(0.0, deadline - time.monotonic())
            ended: list[Record] = []

            def look(ended: list[Record] = ended) -> bool:
                known = self.app.results.read_many(list(waiting))
                ended.extend(record for record in known.values() if record.state in states.READY_STATES)
                return bool(ended)

            if not wait_until(self.app.results, look, rest, on_interval):
                raise TimeoutError(f"The operation timed out. {len(waiting)} of {whole} tasks have not ended.")
            for record in ended:
                waiting.pop(record.id)
                yield record.id, _as_meta(self.app, record)

    def then(
        self, callback: Callable[[Any], Any], on_error: Callable[[Any], Any] | None = None, weak: bool = False
    ) -> ResultSet:
        """Call `callback` with this set once all have ended (`on_error` with the first failure, where one is given)."""
        waiting = _Callbacks(self, callback, on_error, weak)
        if self.ready():
            waiting.tell()
        else:
            self.app.result_listener.add([waiting])
            self.app.result_listener.look([waiting])
        return self

    @property
    def supports_native_join(self) -> bool:
        return all(result.supports_native_join for result in self.results)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __getitem__(self, index: int) -> Any:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __eq__(self, other: object) -> bool:
        return other.results == self.results if isinstance(other, ResultSet) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a set that changes; Celery's is not hashable either

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(result.id for result in self.results)}]>"


class GroupResult(ResultSet):
    """The results of a group, in its order; its value is the list of theirs."""

    def __init__(
        self,
        id: str | None = None,
        results: Iterable[Any] | None = None,
        parent: ResultBase | None = None,
        app: LiteTQ | None = None,
        **_: Any,
    ) -> None:
        super().__init__(results or (), app=app)
        self.id = id
        self.parent = parent

    @property
    def children(self) -> list[Any]:
        return self.results

    def save(self, backend: Any = None) -> None:
        """Keep the group under its id, as long as results are kept, so that `restore` finds it again.

        `backend`, here and in `delete` and `restore`: where else groups are kept, with methods as those of Celery's backends.
        """
        if backend is not None:
            backend.save_group(self.id, self)
            return
        known = json.dumps(self.as_tuple()).encode()
        now, lifetime = clock.now(), self.app.conf.result_expires
        seconds = lifetime.total_seconds() if hasattr(lifetime, "total_seconds") else lifetime
        record = Record(saved_id(self.id), SAVED, "DONE", known, done_at=now)
        self.app.results.store_record(record, now + seconds if seconds else None)

    def delete(self, backend: Any = None) -> None:
        """Forget what `save` kept; the results of the members stay."""
        if backend is not None:
            backend.delete_group(self.id)
            return
        self.app.results.forget([saved_id(self.id)])

    @classmethod
    def restore(cls, id: str, backend: Any = None, app: LiteTQ | None = None) -> GroupResult | None:
        """Return the group that was saved under this id; None where there is none."""
        app = app or _current_app()
        if backend is not None:
            return cast("GroupResult | None", backend.restore_group(id))
        record: Record | None = app.results.read(saved_id(id))
        if record is None or record.result is None:
            return None
        return cast(GroupResult, result_from_tuple(json.loads(record.result), app))

    def as_tuple(self) -> tuple[Any, Any]:
        """Return ids of group, parents and members: what `result_from_tuple` reads."""
        return AsyncResult.as_tuple(self)  # type: ignore[arg-type]

    def as_list(self) -> list[str]:
        """Return the id, and those of the parents."""
        return AsyncResult.as_list(self)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return bool(self.id or self.results)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return other.id == self.id and other.results == self.results and other.parent == self.parent
        return self.id == other if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:  # type: ignore[override]  # unlike other sets it has an id, which stays
        return hash(self.id)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.id, self.results, self.parent)

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id} [{', '.join(str(result.id) for result in self.results)}]>"


class OfApp:
    """A class of results as an attribute of apps: what it makes belongs to the app that it is looked up on."""

    def __init__(self, cls: type[ResultBase], app: LiteTQ | None = None) -> None:
        self._cls: Any = cls
        self._app = app

    def __get__(self, app: LiteTQ | None, owner: type) -> OfApp:
        return OfApp(self._cls, app)

    def __call__(self, *args: Any, app: LiteTQ | None = None, **kwargs: Any) -> ResultBase:
        made: ResultBase = self._cls(*args, app=app or self._app, **kwargs)
        return made

    def restore(self, id: str, backend: Any = None) -> GroupResult | None:
        """Return the group that was saved under this id; None where there is none."""
        return GroupResult.restore(id, backend, self._app)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._cls)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type]:
        return (self._cls,)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cls, name)

    def __repr__(self) -> str:
        return f"<{self._cls.__name__} of {self._app!r}>"


def result_from_tuple(r: Any, app: LiteTQ | None = None) -> ResultBase:
    """Return the result that `as_tuple` described; a result is returned as it is."""
    if isinstance(r, ResultBase):
        return r
    described = []
    while r:
        identity, members = r
        id, r = identity if isinstance(identity, (list, tuple)) else (identity, None)
        described.append((id, members))
    result: ResultBase | None = None
    for id, members in reversed(described):
        if members is None:
            result = AsyncResult(id, app=app, parent=result)
        else:
            result = GroupResult(id, [result_from_tuple(member, app) for member in members], parent=result, app=app)
    if result is None:
        raise ValueError("result_from_tuple was given nothing; it needs what as_tuple() returned")
    return result


READ_AT_ONCE: Final = 500  # arbitrary: results read with one statement


def _read_together(results: Sequence[AsyncResult[Any]]) -> None:
    """Read what is not known to have ended, many at a time."""
    open_ones = [result for result in results if result._final is None]
    for place in range(0, len(open_ones), READ_AT_ONCE):
        some = open_ones[place : place + READ_AT_ONCE]
        known = some[0].app.results.read_many([result.id for result in some])
        for result in some:
            record = known.get(result.id)
            if record is not None and record.state in states.READY_STATES:
                result._final = record


class _Waiting(Protocol):
    """Somebody who is to be told when results have ended, once."""

    def results(self) -> Iterable[AsyncResult[Any]]: ...

    def tell(self) -> None: ...


class ResultListener:
    """The thread that tells of the ends of tasks (`then`, `await`); it lives while somebody waits for one.

    All that is waited for is read together. A look at a thousand results takes some milliseconds, so it rests after a look,
    four times as long as that took: it never uses more than a fifth of a processor, whatever ends.
    """

    def __init__(self, results: Callable[[], Results]) -> None:
        self._results = results
        self._lock = green.lock()
        self._waiting: dict[_Waiting, None] = {}
        self._listens_in: int | None = None  # the process whose thread listens; a fork of it has none

    def add(self, waiting: Sequence[_Waiting]) -> None:
        """Tell them from now on, each at the end of all its results. Follow this with a `look` at what has ended before."""
        with self._lock:
            self._waiting.update(dict.fromkeys(waiting))
            if waiting and self._listens_in != os.getpid():
                self._listens_in = os.getpid()
                if green.is_greenlet():
                    green.spawn(self._listen)
                else:
                    green.start_thread(self._listen, "litetq-results")

    def discard(self, waiting: Sequence[_Waiting]) -> None:
        """Tell these no more."""
        with self._lock:
            for one in waiting:
                self._waiting.pop(one, None)

    def look(self, waiting: Sequence[_Waiting]) -> None:
        """Read what these wait for, and tell those whose results have all ended; each is told once."""
        _read_together([result for one in waiting for result in one.results() if not result.has_ended()])
        for one in waiting:
            if all(result.has_ended() for result in one.results()) and self._take(one):
                one.tell()

    def _take(self, one: _Waiting) -> bool:
        with self._lock:
            if one not in self._waiting:
                return False
            del self._waiting[one]
            return True

    def _listen(self) -> None:
        try:
            self._tell_as_they_end()
        except BaseException:
            self._listens_in = None  # the next one who waits tries again
            raise

    def _tell_as_they_end(self) -> None:
        with self._results().watch() as watch:
            while True:
                watch.announce()
                began = time.monotonic()
                try:
                    self.look(list(self._waiting.copy()))
                except Exception:
                    logger.exception("Looking for ended tasks failed; trying again in %s s", BACKSTOP)
                with self._lock:
                    if not self._waiting:
                        self._listens_in = None
                        return
                spent = time.monotonic() - began
                if spent > LONG_LOOK:
                    green.pause(min(4 * spent, REST_MAX))
                watch.wait(BACKSTOP)


class _Callbacks:
    """What `then` was given: one result (or set) and whom to tell of its end, once."""

    def __init__(
        self, result: Any, callback: Callable[[Any], Any], on_error: Callable[[Any], Any] | None, weak: bool
    ) -> None:
        self.result = result
        self._callback = _reference(callback, weak)
        self._on_error = None if on_error is None else _reference(on_error, weak)

    def results(self) -> Iterable[AsyncResult[Any]]:
        return self.result.leaves() if isinstance(self.result, ResultSet) else [self.result]

    def tell(self) -> None:
        error = self._failure() if self._on_error is not None else None
        reference = self._on_error if error is not None and self._on_error is not None else self._callback
        called = reference()
        if called is None:
            return  # held weakly, and gone
        try:
            called(self.result if error is None else error)
        except Exception:
            logger.exception("Callback %r of %r raised an error", called, self.result)

    def _failure(self) -> Any:
        return next((result.result for result in self.results() if result.state in states.PROPAGATE_STATES), None)


class _Awaited:
    """One result that is awaited in an event loop, any loop of any thread."""

    def __init__(self, result: AsyncResult[Any]) -> None:
        import asyncio  # here: only those who await need it, and they have it

        self.result = result
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()

    def results(self) -> Iterable[AsyncResult[Any]]:
        return [self.result]

    def tell(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._finish)
        except RuntimeError:
            pass  # the loop was closed in the meantime: nobody is left to tell

    def _finish(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    async def wait(self, timeout: float | None, whole: float | None) -> None:
        """Wait for the end of the task; TimeoutError after so many seconds, which says how long the whole wait was."""
        import asyncio

        if self.result.has_ended():
            return
        await asyncio.wait([self._ended], timeout=None if timeout is None else max(0.0, timeout))
        if not self._ended.done():
            from litetq import aio

            raise TimeoutError(f"The operation timed out. {await aio.in_thread(self.result._why_not, whole)}")


def _reference(called: Callable[..., Any], weak: bool) -> Callable[[], Callable[..., Any] | None]:
    if not callable(called):
        raise TypeError(f"then() needs functions to call, found {called!r}")
    if not weak:
        return lambda: called
    return weakref.WeakMethod(called) if hasattr(called, "__self__") else weakref.ref(called)


class _Teller:
    """Tells `on_message` each state once, as it is seen."""

    def __init__(self, result: AsyncResult[Any], on_message: OnMessage) -> None:
        self._result = result
        self._on_message = on_message
        self._told: tuple[Any, ...] | None = None

    def look(self) -> bool:
        record = self._result._record()
        state = _state_of(record)
        if record is not None and state != states.PENDING:
            seen = (state, record.result, record.traceback)
            if seen != self._told:
                self._told = seen
                self._on_message(_as_meta(self._result.app, record))
        return state in states.READY_STATES


def _run_again(app: LiteTQ, ids: Sequence[str]) -> int:
    count: int = app.engine.run_again(ids)
    if not count and not any(
        app.engine.read_many(ids[place : place + READ_AT_ONCE]) for place in range(0, len(ids), READ_AT_ONCE)
    ):
        raise NotOnRecord(
            f"No task {ids[0]} is known to {app.engine.shown}: it was never sent there, or its result has expired."
        )
    return count


_NOT_DECODED: Final = object()


def _current_app() -> LiteTQ:
    app = context.get_current_app()
    if app is None:
        raise RuntimeError("a result was made without an app, and there is no current one: create LiteTQ(...) first")
    return app


def _state_of(record: Record | None) -> str:
    return states.PENDING if record is None or record.state == states.IGNORED else record.state


def decode_record(app: LiteTQ, record: Record) -> Any:
    """Return the value of a record: an exception for the states that mean one."""
    if record.state in states.EXCEPTION_STATES:
        if record.result is not None:
            return serialization.decode_exception(record.result, record.content_type, app.accepted_results)
        if record.state == states.REVOKED:
            return TaskRevokedError(record.reason or "revoked")
        return TaskError(record.reason or f"the task ended as {record.state}, the cause is not on record")
    if record.result is None or record.state == states.IGNORED:
        return None
    return serialization.decode(record.result, record.content_type, app.accepted_results)


def _as_meta(app: LiteTQ, record: Record) -> dict[str, Any]:
    """Return a record as Celery's backends describe a state."""
    return {
        "task_id": record.id,
        "status": _state_of(record),
        "result": decode_record(app, record),
        "traceback": record.traceback,
        "children": json.loads(record.children or "[]"),
    }


def _stamps_of(record: Record) -> dict[str, Any]:
    """Return the names of a task's stamps, and the stamps under their names; nothing where it has none."""
    headers = json.loads(record.headers) if record.headers and '"stamps"' in record.headers else {}
    stamps = headers.get("stamps") or {}
    return {**stamps, "stamped_headers": headers.get("stamped_headers") or list(stamps)} if stamps else {}


def told_by(request: Any) -> dict[str, Any]:
    """Return what a request, if there is one, tells of a task that the file may not know: fields of a `Record`."""
    if request is None:
        return {}
    children = [child.as_tuple() for child in getattr(request, "children", None) or ()]
    stamps = {name: getattr(request, name, None) for name in ("stamped_headers", "stamps")}
    told = {
        "children": json.dumps(children) if children else None,
        "name": getattr(request, "task", None),
        "worker": getattr(request, "hostname", None),
        "retries": getattr(request, "retries", 0) or 0,
        "queue": (getattr(request, "delivery_info", None) or {}).get("routing_key"),
        "parent_id": getattr(request, "parent_id", None),
        "root_id": getattr(request, "root_id", None),
        "headers": json.dumps(stamps) if stamps["stamps"] else None,
    }
    if getattr(request, "args", None) is not None:
        try:
            told["body_type"], told["body"] = serialization.dumps_args(request.args, request.kwargs or {})
        except EncodeError:
            pass  # a result is kept without its arguments rather than not at all
    return told


def _end_of(record: Record) -> datetime | None:
    """Return when a task ended; of a state that is no end the file has only when it was set."""
    if record.done_at is None or record.state not in states.READY_STATES:
        return None
    return datetime.fromtimestamp(record.done_at, timezone.utc)


def _parents(result: ResultBase) -> list[Any]:
    parents: list[Any] = []
    parent: Any = result.parent
    while parent is not None:
        parents.append(parent)
        parent = parent.parent
    return parents
