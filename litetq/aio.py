"""The event loop of this process: where `async def` tasks run, whatever the pool, and where threads wait for them.

There is one loop, on a thread of its own, started when the first coroutine comes. So what is bound to a loop (a client with
its connections, a pool of a database) can be shared by all async tasks of the process. Nobody imports this room before a
coroutine comes: `asyncio` costs 30 ms.

A task's coroutine is driven by a `Body`, through which it can be interrupted (a soft time limit: SoftTimeLimitExceeded is
raised where it waits) and cut off (a hard one, a termination: it is cancelled, and how it ends counts for nothing).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import logging
import os
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from litetq import green, platforms, wake
from litetq.exceptions import SoftTimeLimitExceeded
from litetq.limits import CutOff

if TYPE_CHECKING:
    from litetq.app import LiteTQ

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("celery.worker.request")

END_TIMEOUT_S: Final = 1.0  # for what still runs on the loop when the program ends; arbitrary


class _Interruption(SoftTimeLimitExceeded, asyncio.CancelledError):
    """A soft limit, as it arrives where a coroutine waits: what cleans up at a cancel (`TaskGroup`, `wait_for`) does so.

    On record, and in text, it is what it means.
    """

    def __reduce__(self) -> Any:
        return SoftTimeLimitExceeded, self.args


_Interruption.__module__, _Interruption.__name__ = SoftTimeLimitExceeded.__module__, SoftTimeLimitExceeded.__name__
_Interruption.__qualname__ = SoftTimeLimitExceeded.__qualname__


class Body:
    """A task's coroutine on the loop; awaited once, by the asyncio task that runs it. Its methods belong to the loop's thread."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._task: asyncio.Task[Any] | None = None
        self._is_interrupted = False  # and the cancel that says so is on its way
        self._is_cut = False

    def __await__(self) -> Generator[Any, Any, Any]:
        """Drive the coroutine to its end. Raises CutOff when it was cut off, however it took it."""
        task = self._task = asyncio.current_task()
        assert task is not None
        if self._is_cut:
            self._coroutine.close()
            raise CutOff
        _bodies[task] = self
        try:
            value = yield from self._steps()
        except BaseException:
            if self._is_cut:
                raise CutOff from None
            raise
        finally:
            _bodies.pop(task, None)
        if self._is_cut:
            raise CutOff
        return value

    def _steps(self) -> Generator[Any, Any, Any]:
        send, throw = self._coroutine.send, self._coroutine.throw
        error: BaseException | None = None
        value: Any = None
        while True:
            try:
                waits_for = send(value) if error is None else throw(error)
            except StopIteration as end:
                return end.value
            try:
                value, error = (yield waits_for), None
                self._is_interrupted = False  # the cancel was swallowed by what it waited for
            except BaseException as thrown:
                error = self._meaning(thrown)

    def _meaning(self, thrown: BaseException) -> BaseException:
        if not (self._is_interrupted and isinstance(thrown, asyncio.CancelledError)):
            return thrown
        self._is_interrupted = False
        uncancel = getattr(self._task, "uncancel", None)  # from Python 3.11 on
        if uncancel is not None:
            uncancel()
        return _Interruption()

    def interrupt(self) -> None:
        """Raise SoftTimeLimitExceeded in the coroutine, where it waits."""
        if self._task is not None and not self._is_cut:
            self._is_interrupted = True
            self._task.cancel()

    def cut(self) -> None:
        """Cancel the coroutine; its end is decided already."""
        self._is_cut, self._is_interrupted = True, False
        if self._task is not None:
            self._task.cancel()


_bodies: dict[asyncio.Task[Any], Body] = {}  # those that run, by the asyncio task that awaits them
_waited_for: dict[int, Body] = {}  # by the thread that waits for it


def interrupt(task: asyncio.Task[Any]) -> None:
    """Raise SoftTimeLimitExceeded in the body that an asyncio task of the loop runs; on the loop's thread."""
    body = _bodies.get(task)
    if body is not None:
        body.interrupt()


def cut(task: asyncio.Task[Any]) -> None:
    """Cut off what an asyncio task of the loop runs; on the loop's thread."""
    body = _bodies.get(task)
    if body is not None:
        body.cut()
    else:
        task.cancel()


def cut_in_thread(thread: int) -> None:
    """Cut off the coroutine that a thread waits for in `run`, if it does."""
    body = _waited_for.get(thread)
    if body is not None:
        the_loop().call_soon_threadsafe(body.cut)


async def limited(coroutine: Coroutine[Any, Any, T], seconds: float, warn: Callable[[], object]) -> T:
    """Await under a soft limit: SoftTimeLimitExceeded is raised in it, once, when so many seconds have passed."""
    task = asyncio.current_task()
    assert task is not None

    def ring() -> None:
        interrupt(task)
        warn()

    timer = asyncio.get_running_loop().call_later(seconds, ring)
    try:
        return await coroutine
    finally:
        timer.cancel()


# -- the loop ------------------------------------------------------------------------------------------------------


_lock = platforms.native("_thread", "allocate_lock")()
_loop: asyncio.AbstractEventLoop | None = None
_loop_has_ended = platforms.native("_thread", "allocate_lock")()
_own_loops: set[asyncio.AbstractEventLoop] = set()  # this one, and those that stand in for it


def the_loop() -> asyncio.AbstractEventLoop:
    """Return the loop of this process, and start it if nobody has yet."""
    global _loop
    if _loop is None:
        with _lock:
            if _loop is None:
                loop = _new_loop()
                _own_loops.add(loop)
                _loop_has_ended.acquire()
                green.start_thread(functools.partial(_turn, loop), "litetq-asyncio")
                _loop = loop
    return _loop


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return a loop for a native thread, also in a program that gevent or eventlet has patched."""
    if not platforms.is_green():
        return asyncio.new_event_loop()
    loop = asyncio.SelectorEventLoop(green.selector())
    loop.set_default_executor(_NativeThreads())
    return loop


class _NativeThreads(concurrent.futures.ThreadPoolExecutor):
    """What a loop calls blocking functions in (names of hosts, files): there, a patched pool's threads would be greenlets."""

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        green.start_thread(run, "litetq-blocking")
        return future


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop until the program ends. `sys.exit()` in a task that a user's coroutine started ends that task only."""
    asyncio.set_event_loop(loop)
    while True:
        try:
            loop.run_forever()
            break
        except BaseException:
            logger.exception("an asyncio task raised what would end the event loop; the loop goes on")
    try:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        rest = asyncio.gather(*asyncio.all_tasks(loop), return_exceptions=True)
        loop.run_until_complete(rest)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        _loop_has_ended.release()


def is_here() -> bool:
    """Return whether the caller is on the loop that tasks run on, be it in a task's coroutine."""
    return asyncio._get_running_loop() in _own_loops


def end() -> None:
    """At the end of the program: cancel what runs, and give it a moment to clean up."""
    if _loop is not None:
        _loop.call_soon_threadsafe(_loop.stop)
        _loop_has_ended.acquire(True, END_TIMEOUT_S)


def _after_fork_in_child() -> None:
    """A fork has no threads: its first coroutine gets a loop of its own."""
    global _lock, _loop, _loop_has_ended, _sender
    _lock = platforms.native("_thread", "allocate_lock")()
    _loop_has_ended = platforms.native("_thread", "allocate_lock")()
    _loop, _sender = None, None
    _own_loops.clear()
    _bodies.clear()
    _waited_for.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


# -- from a thread: wait for a coroutine ---------------------------------------------------------------------------


class _Running:
    """A coroutine of a task on the loop, and the thread that waits for it."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.body = Body(coroutine)
        self.value: Any = None
        self.error: BaseException | None = None
        self.gate = wake.new_gate()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        # The loop itself holds a task only weakly.
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            self.value = await self.body
        except BaseException as error:  # `sys.exit()` too: whoever waits classifies it, and the loop goes on
            self.error = error
        finally:
            self.gate.open()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a task's coroutine on the loop, in a copy of this context, and wait for it in this thread.

    SoftTimeLimitExceeded raised in the thread (by a signal) is raised in the coroutine; anything else cuts it off.

    On the loop itself nobody may wait for it: there, as for a task that an async task calls eagerly, the coroutine gets a
    loop and a thread of its own, while the one of the process stands still. Raises what the coroutine raised, CutOff when
    it was cut off.
    """
    if is_here() or _stands_still.get():
        return _run_beside(coroutine)
    loop = the_loop()
    running = _Running(coroutine)
    thread = threading.get_ident()
    _waited_for[thread] = running.body
    try:
        loop.call_soon_threadsafe(running.start, context=contextvars.copy_context())
        _wait(loop, running)
    finally:
        del _waited_for[thread]
        running.gate.close()
    if running.error is not None:
        try:
            raise running.error
        finally:
            running.error = None  # it holds this frame
    return running.value  # type: ignore[no-any-return]


def _wait(loop: asyncio.AbstractEventLoop, running: _Running) -> None:
    while True:
        try:
            running.gate.wait(None)
            return
        except SoftTimeLimitExceeded:
            loop.call_soon_threadsafe(running.body.interrupt)
        except BaseException:
            loop.call_soon_threadsafe(running.body.cut)
            raise


# In this context, threads that it is handed to included, the loop of the process waits for what happens here.
_stands_still: contextvars.ContextVar[bool] = contextvars.ContextVar("litetq_loop_stands_still", default=False)


def _run_beside(coroutine: Coroutine[Any, Any, T]) -> T:
    running = _Running(coroutine)
    context = contextvars.copy_context()
    context.run(_stands_still.set, True)

    async def main() -> None:
        _own_loops.add(asyncio.get_running_loop())
        try:
            await running._run()
        finally:
            _own_loops.discard(asyncio.get_running_loop())

    green.start_thread(lambda: context.run(_run_once, main()), "litetq-asyncio-beside")
    running.gate.wait(None)
    running.gate.close()
    if running.error is not None:
        raise running.error
    return running.value  # type: ignore[no-any-return]


def _run_once(coroutine: Coroutine[Any, Any, None]) -> None:
    loop = _new_loop()
    try:
        loop.run_until_complete(coroutine)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


# -- from a loop: wait for what may stand still --------------------------------------------------------------------


class _Sender:
    """The thread that does what may wait for the file: one after the other, in the order in which it was asked."""

    def __init__(self) -> None:
        self._jobs = platforms.native("queue", "SimpleQueue")()
        green.start_thread(self._run, "litetq-sender")

    def put(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)

    def _run(self) -> None:
        while True:
            self._jobs.get()()


_sender: _Sender | None = None


async def in_background(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that may wait for the file's lock, in this context, and hold no event loop meanwhile.

    Calls of one process are made one after the other, in one thread. One that is cancelled before its turn is not made;
    one that is cancelled later has been made all the same.
    """
    global _sender
    if _sender is None:
        with _lock:
            _sender = _sender or _Sender()
    return await _handed_to(_sender.put, functools.partial(function, *args, **kwargs))


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `in_background`, in a thread of its own: for what may take as long as it likes."""
    return await _handed_to(
        lambda job: green.start_thread(job, "litetq-apart"), functools.partial(function, *args, **kwargs)
    )


async def sent(app: LiteTQ, send: Callable[[], T]) -> T:
    """Enqueue in the background. Where tasks are run eagerly instead, in a thread of its own: it takes as long as they do."""
    return await (in_thread(send) if app.conf.task_always_eager else in_background(send))


async def _handed_to(put: Callable[[Callable[[], None]], None], function: Callable[[], T]) -> T:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def job() -> None:
        if answer.cancelled():
            return
        value: Any = None
        error: BaseException | None = None
        try:
            value = context.run(function)
        except BaseException as raised:
            error = raised
        tell(loop, _answer, answer, value, error)

    put(job)
    return await answer


def tell(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: Any) -> None:
    """Call back on a loop, from any thread; one that was closed meanwhile has nobody left to tell."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        pass


def _answer(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
