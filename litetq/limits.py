"""Time limits: which ones an attempt has, and the alarm that raises SoftTimeLimitExceeded in the thread that runs it.

The soft limit is kept where the task runs, by one thread per process. The hard limit is kept by the pool, which can end an
attempt from outside (`pool.py`). Without a limit nothing of this costs anything, and no thread is started.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import CodeType, CoroutineType, FrameType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from litetq import green, platforms
from litetq.exceptions import SoftTimeLimitExceeded

if TYPE_CHECKING:
    from litetq.task import Task

logger = logging.getLogger("celery.worker.request")

DELIVERY_TIMEOUT_S: Final = 1.0  # for an exception that is on its way into a thread; it takes microseconds


class CutOff(BaseException):
    """Leaves an attempt whose end was decided elsewhere: it was cut off. Nothing of it is reported."""


cut_threads: set[threading.Thread] = set()  # each runs an attempt that is past its hard limit, and ends after it


def leave_if_cut() -> None:
    """Raise CutOff in a thread whose attempt has ended on record while it ran."""
    if cut_threads and threading.current_thread() in cut_threads:
        raise CutOff


class Limits(NamedTuple):
    """Seconds; None: no limit."""

    hard: float | None
    soft: float | None


def of_task(task: Task[..., Any] | None, conf: Any) -> Limits:
    """Return what holds for a task unless its call says otherwise: its own limits, else the settings'. 0 is none, too."""
    hard = task.time_limit if task is not None else None
    soft = task.soft_time_limit if task is not None else None
    return Limits(seconds(hard or conf.task_time_limit) or None, seconds(soft or conf.task_soft_time_limit) or None)


def seconds(span: float | timedelta | None) -> float:
    """Return a span as settings give it, in seconds; 0 where there is none."""
    return span.total_seconds() if isinstance(span, timedelta) else span or 0


def of_call(headers: str | None, own: Limits) -> Limits:
    """Return the limits of one attempt: those that its call gave (header `timelimit`: [hard, soft]), else `own`."""
    if headers is None or '"timelimit"' not in headers:
        return own
    given = json.loads(headers).get("timelimit")
    if not isinstance(given, list) or len(given) != 2:
        return own
    hard, soft = (value if isinstance(value, (int, float)) else None for value in given)
    return Limits(hard or own.hard, soft or own.soft)


LimitCoroutine = Callable[[Any, float, Callable[[], object]], Any]  # aio.limited


def watched(
    body: Callable[..., Any], seconds: float, name: str, id: str, limit_coroutine: LimitCoroutine
) -> Callable[..., Any]:
    """Return `body` under a soft limit: SoftTimeLimitExceeded is raised in it, once, when `seconds` have passed.

    When a call has returned or raised, no exception is on its way any more. What waits in C code (a lock, a socket, and
    except in a pool's child a `sleep`) is interrupted only when it returns to Python; a greenlet, only where it waits. A
    coroutine that the body returns is given to `limit_coroutine`: it is under the same limit, from its start on.
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        watch = _Watch(time.monotonic() + seconds, threading.get_ident(), threading.Event(), f"{seconds:g}s", name, id)
        value = (
            _call_in_greenlet(watch, seconds, body, args, kwargs)
            if green.is_greenlet()
            else _call(watch, body, args, kwargs)
        )
        if type(value) is CoroutineType:
            return limit_coroutine(value, seconds, watch.warn)
        return value

    return run


def _call(watch: _Watch, body: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    alarm = _alarm  # a fork inside the body has one of its own
    alarm.arm(watch)
    try:
        return body(*args, **kwargs)
    finally:
        alarm.disarm(watch)


def _call_in_greenlet(watch: _Watch, seconds: float, body: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    alarm = green.Alarm(seconds, SoftTimeLimitExceeded())
    try:
        return body(*args, **kwargs)
    finally:
        if alarm.cancel():
            watch.warn()


class _Watch(NamedTuple):
    due_at: float  # monotonic
    thread: int
    has_rung: threading.Event
    shown: str
    name: str
    id: str

    def warn(self) -> None:
        logger.warning("Soft time limit (%s) exceeded for %s[%s]", self.shown, self.name, self.id)


class _Alarm:
    """The thread that rings. Whoever takes a watch out of `_watches` decides: the alarm to ring it, its owner to end it."""

    def __init__(self) -> None:
        self._watches: dict[int, _Watch] = {}  # by thread: an attempt inside an attempt is the outer one's business
        self._next_at = math.inf  # when the thread will look again
        self._changed = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self.signalled: int | None = None  # the main thread, where a signal raises in it
        self.is_due = False  # for that signal's handler

    def arm(self, watch: _Watch) -> None:
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="litetq-limits", daemon=True)
                    self._thread.start()
        self._watches[watch.thread] = watch
        if watch.due_at < self._next_at:
            self._changed.set()

    def disarm(self, watch: _Watch) -> None:
        if self._watches.pop(watch.thread, None) is not None:
            return
        # It rang. Stay until the exception has come, so that it does not hit what runs here next.
        watch.has_rung.wait(DELIVERY_TIMEOUT_S)
        for _ in range(3):
            pass  # a jump backwards is where the interpreter looks for it
        self.is_due = False
        _raise_in(watch.thread, None)

    def _run(self) -> None:
        while True:
            self._changed.clear()
            # Infinite while it looks: who arms a watch now, which may be missed, wakes it once more.
            self._next_at = math.inf
            due_at = min((watch.due_at for watch in list(self._watches.values())), default=math.inf)
            if due_at > time.monotonic():
                self._next_at = due_at
                self._changed.wait(
                    None if due_at == math.inf else min(due_at - time.monotonic(), threading.TIMEOUT_MAX)
                )
                continue
            for watch in list(self._watches.values()):
                if watch.due_at <= time.monotonic() and self._watches.pop(watch.thread, None) is not None:
                    self._ring(watch)

    def _ring(self, watch: _Watch) -> None:
        if sys.platform != "win32" and watch.thread == self.signalled:
            self.is_due = True
            signal.pthread_kill(watch.thread, signal.SIGUSR1)
        else:
            _raise_in(watch.thread, SoftTimeLimitExceeded)
        watch.has_rung.set()
        watch.warn()


_alarm = _Alarm()


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Let a thread raise as soon as it runs Python; None takes back what it has not raised yet."""
    import ctypes

    raised = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)


def hear_signal(attempt: CodeType) -> None:
    """In a pool's child: let SIGUSR1 raise in the main thread, which then wakes from a sleep, too. Where there are signals.

    As in Celery, a SIGUSR1 from anywhere is a soft limit for the task that runs: one inside a frame of `attempt`.
    """
    if sys.platform == "win32" or platforms.PORTABLE:
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        was_due, _alarm.is_due = _alarm.is_due, False
        if was_due or _is_inside(frame, attempt):
            raise SoftTimeLimitExceeded

    signal.signal(signal.SIGUSR1, on_signal)
    _alarm.signalled = threading.get_ident()


def _is_inside(frame: FrameType | None, code: CodeType) -> bool:
    while frame is not None:
        if frame.f_code is code:
            return True
        frame = frame.f_back
    return False


def _after_fork_in_child() -> None:
    """What user code forks off has no alarm thread; its copy of a running watch rings nowhere."""
    global _alarm
    _alarm = _Alarm()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
