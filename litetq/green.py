"""Greenlets: what gevent and eventlet do differently, in one place, and what their greenlets need of native threads.

Under monkey patching a lock, an event, a thread and a sleep of the standard library are the library's own, and give way to
other greenlets by themselves. Left to this room is what they cannot do: meet native threads (`start_thread`, `Gate`, `lock`; a
native thread that waits at a lock of eventlet never wakes), let one do what would hold up all greenlets (`apart`), and reach
into a greenlet from another one (`spawn`, `throw`, `Alarm`).

Neither library is imported before it is asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Protocol, TypeVar

from litetq import platforms
from litetq.exceptions import ImproperlyConfigured

T = TypeVar("T")

LIBRARIES: Final = ("gevent", "eventlet")
TURN_S: Final = 0.0005  # between two looks of a greenlet whether a native thread has let a lock go; arbitrary
LONG_S: Final = 60.0  # a wait without an end is one of many waits; arbitrary


def patch(library: str) -> None:
    """Replace threads, sleeps and sockets of the standard library by those of "gevent" or "eventlet", in this process.

    To be called before the user's modules are imported. When it has been done, nothing happens.

    Raises ImproperlyConfigured when the library is missing, or when the other one has patched this process.
    """
    done = platforms.green()
    if done == library:
        return
    if done:
        raise ImproperlyConfigured(f"pool {library}: this program is monkey-patched by {done}; use pool {done}")
    try:
        if library == "gevent":
            importlib.import_module("gevent.monkey").patch_all()
        else:
            importlib.import_module("eventlet").monkey_patch()
            _keep_log_locks_native()
    except ImportError as error:
        raise ImproperlyConfigured(
            f"pool {library}: the package {library} cannot be imported ({error}); install it:  pip install 'litetq[{library}]'"
        ) from error


def _keep_log_locks_native() -> None:
    """Let native threads log: a lock of eventlet that they find taken would never let them go on.

    A native lock is the same to all greenlets of a thread; as nothing switches within a line of the log, that is enough.
    """
    logging: Any = importlib.import_module("logging")
    make = platforms.native("_thread", "RLock")
    create = logging.Handler.createLock

    def create_native(handler: Any) -> None:
        create(handler)
        handler.lock = make()

    logging._lock = make()
    logging.Handler.createLock = create_native
    for found in list(logging._handlerList):
        handler = found()
        if handler is not None:
            handler.lock = make()


class Gate(Protocol):
    """What a greenlet waits at: opened by anyone, native threads and signal handlers too, and passed once."""

    def open(self) -> None: ...

    def clear(self) -> None: ...

    def close(self) -> None: ...

    def wait(self, timeout: float | None) -> bool: ...


_native_threads: set[int] = set()  # those started here, in a patched process


def start_thread(function: Callable[[], object], name: str) -> None:
    """Start a native thread, also in a program that gevent or eventlet has patched."""
    if not platforms.is_green():
        threading.Thread(target=function, name=name, daemon=True).start()
        return
    ident = platforms.native("_thread", "get_ident")

    def run() -> None:
        _native_threads.add(ident())
        try:
            function()
        finally:
            _native_threads.discard(ident())

    platforms.native("_thread", "start_new_thread")(run, ())


def is_greenlet() -> bool:
    """Say whether the caller is a greenlet: where a process is patched, all is, but for the threads started here."""
    return platforms.is_green() and platforms.native("_thread", "get_ident")() not in _native_threads


def pause(seconds: float) -> None:
    """Sleep, and hold up no other greenlet."""
    if platforms.is_green() and not is_greenlet():
        platforms.native("time", "sleep")(seconds)
    else:
        time.sleep(seconds)


class Lock(Protocol):
    def acquire(self) -> bool: ...

    def release(self) -> None: ...

    def __enter__(self) -> bool: ...

    def __exit__(self, *exc: Any) -> None: ...


def lock() -> Lock:
    """Return a lock that greenlets and native threads may share; outside of patched processes a plain one."""
    return _SharedLock() if platforms.is_green() else threading.Lock()


class _SharedLock:
    """Between greenlets the library's lock, at which they give way; between the one that has it and threads a native one."""

    def __init__(self) -> None:
        self._of_greenlets = threading.Lock()
        self._of_threads = platforms.native("_thread", "allocate_lock")()

    def acquire(self) -> bool:
        if not is_greenlet():
            return bool(self._of_threads.acquire())
        self._of_greenlets.acquire()
        try:
            while not self._of_threads.acquire(False):
                time.sleep(TURN_S)
        except BaseException:
            self._of_greenlets.release()
            raise
        return True

    def release(self) -> None:
        self._of_threads.release()
        if is_greenlet():
            self._of_greenlets.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc: Any) -> None:
        self.release()


def gate() -> Gate:
    """Return a gate for greenlets of the calling thread, in a process that one of the libraries has patched."""
    return _GeventGate() if platforms.green() == "gevent" else _EventletGate()


class _GeventGate:
    """Native threads open it through the one call of a gevent loop that is safe from outside."""

    def __init__(self) -> None:
        gevent: Any = importlib.import_module("gevent")
        self._event: Any = importlib.import_module("gevent.event").Event()
        self._is_open = False
        self._is_closed = False
        # Whoever opens it has left the watcher before it is closed. Reentrant: a signal handler may open it, too.
        self._lock = platforms.native("_thread", "RLock")()
        # It does not keep the loop alive, and is started for good: what is sent before a start is lost.
        self._watcher: Any = gevent.get_hub().loop.async_(ref=False)
        self._watcher.start(self._event.set)

    def open(self) -> None:
        with self._lock:
            if not self._is_closed:
                self._is_open = True
                self._watcher.send()

    def clear(self) -> None:
        self._is_open = False

    def close(self) -> None:
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._watcher.stop()
                self._watcher.close()

    def wait(self, timeout: float | None) -> bool:
        deadline = float("inf") if timeout is None else monotonic() + timeout
        while True:
            self._event.clear()  # before the look: what opens the gate after it sets the event again
            if self._is_open:
                self._is_open = False
                return True
            left = deadline - monotonic()
            if left <= 0:
                return False
            # Its timer keeps the loop alive; gevent takes one without for a dead-lock.
            self._event.wait(min(left, LONG_S))


class _EventletGate:
    """A hub of eventlet sleeps on descriptors only: one socket per hub wakes it, and then the gates that were opened."""

    def __init__(self) -> None:
        self._passes: Any = importlib.import_module("eventlet.semaphore").Semaphore(0)
        self._is_open = False
        self._doorbell = _doorbell()

    def open(self) -> None:
        self._is_open = True
        self._doorbell.press(self._let_pass)

    def _let_pass(self) -> None:
        if not self._passes.counter:
            self._passes.release()

    def clear(self) -> None:
        self._is_open = False

    def close(self) -> None:
        pass

    def wait(self, timeout: float | None) -> bool:
        deadline = float("inf") if timeout is None else monotonic() + timeout
        while not self._is_open:
            left = deadline - monotonic()
            if left <= 0:
                return False
            # A pass may be one of an earlier opening: the flag alone says whether the gate is open.
            self._passes.acquire(timeout=None if timeout is None else left)
        self._is_open = False
        return True


class _Doorbell:
    """A socket that wakes the hub of the thread that made it, and a greenlet that answers it for as long as that lives."""

    def __init__(self) -> None:
        make = platforms.native("socket", "socketpair")
        self._inside, self._outside = make()
        self._inside.setblocking(False)
        self._outside.setblocking(False)
        self._callers: deque[Callable[[], None]] = deque()
        self._hubs: Any = importlib.import_module("eventlet.hubs")
        importlib.import_module("eventlet").spawn_n(self._answer)

    def press(self, caller: Callable[[], None]) -> None:
        self._callers.append(caller)
        try:
            self._outside.send(b"\0")
        except BlockingIOError:
            pass  # it is full of earlier presses, so the hub is about to wake

    def _answer(self) -> None:
        while True:
            self._hubs.trampoline(self._inside.fileno(), read=True)
            try:
                self._inside.recv(4096)
            except BlockingIOError:
                continue
            while self._callers:
                self._callers.popleft()()

    def close(self) -> None:
        for end in (self._inside, self._outside):
            end.close()


_doorbells: dict[Any, _Doorbell] = {}  # by hub: one for each thread that has greenlets


def _doorbell() -> _Doorbell:
    hub = importlib.import_module("eventlet.hubs").get_hub()
    bell = _doorbells.get(hub)
    if bell is None:
        bell = _doorbells[hub] = _Doorbell()
    return bell


def _after_fork_in_child() -> None:
    _native_threads.clear()
    _doorbells.clear()  # their sockets are shared with the parent, whose hub they wake


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def apart(function: Callable[[], T]) -> T:
    """Call a function that may stand still for a while (a disk, a lock of the system), holding up no other greenlet.

    Outside of greenlets it is called here and now. In one it runs in a native thread, and must touch nothing that monkey
    patching has changed. Whoever raises in the waiting greenlet (a time limit, a kill) is heard when the function has
    returned: until then what it uses is in use.
    """
    if not is_greenlet():
        return function()
    answers: list[T] = []
    errors: list[BaseException] = []
    done = gate()

    def run() -> None:
        try:
            answers.append(function())
        except BaseException as error:
            errors.append(error)
        finally:
            done.open()

    interrupt: BaseException | None = None
    try:
        start_thread(run, "litetq-apart")
        while True:
            try:
                done.wait(None)
                break
            except BaseException as error:
                interrupt = error
    finally:
        done.close()
    if interrupt is not None:
        raise interrupt
    if errors:
        raise errors[0]
    return answers[0]


def selector() -> Any:
    """Return a selector for an event loop on a native thread: one that waits in the system, and gives way to no greenlet.

    The module is loaded once more, beside a `select` as it was: what patching has left of it waits in greenlets.
    """
    original = types.ModuleType("select")
    vars(original).update(vars(importlib.import_module("select")))
    for name in ("select", "poll", "epoll", "kqueue", "kevent", "devpoll"):
        try:
            setattr(original, name, platforms.native("select", name))
        except AttributeError:
            pass  # not on this system
    spec = importlib.util.find_spec("selectors")
    assert spec is not None and spec.loader is not None
    selectors = importlib.util.module_from_spec(spec)
    patched = sys.modules["select"]
    sys.modules["select"] = original
    try:
        spec.loader.exec_module(selectors)
    finally:
        sys.modules["select"] = patched
    return selectors.DefaultSelector()


class Alarm:
    """Raises an error in the greenlet that made it, when so many seconds have passed and it was not cancelled.

    It comes when the greenlet waits, or is about to be switched to: one that uses the processor without a pause hears
    nothing.
    """

    def __init__(self, seconds: float, error: BaseException) -> None:
        library: Any = importlib.import_module(platforms.green())
        self._timer: Any = library.Timeout(seconds, error)
        if not self._timer.pending:
            self._timer.start()  # eventlet's has started by itself

    def cancel(self) -> bool:
        """Raise nothing from now on; return whether it had rung."""
        rang = not self._timer.pending
        getattr(self._timer, "close", self._timer.cancel)()  # gevent's gives back what it holds of the loop
        return rang


def spawn(function: Callable[..., None], *args: Any) -> Any:
    """Start a greenlet, a moment later, and return it."""
    library: Any = importlib.import_module(platforms.green())
    return library.spawn(function, *args)


def throw(greenlet: Any, error: BaseException) -> None:
    """Raise an error in a greenlet that has begun, a moment later; in one that has ended meanwhile nothing happens."""
    if platforms.green() == "gevent":
        greenlet.kill(error, block=False)
        return
    hub: Any = importlib.import_module("eventlet.hubs").get_hub()
    hub.schedule_call_global(0, lambda: None if greenlet.dead else greenlet.throw(error))
