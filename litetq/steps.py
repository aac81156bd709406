"""What a program adds to its workers: steps that start and stop with a worker, and a timer that calls functions.

`app.steps["worker"].add(MyStep)`, where MyStep is a `StartStopStep`. A worker makes an instance of each when it starts, and
calls `start` and `stop` with itself; those that others require come first, and stop last.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from litetq import clock

logger = logging.getLogger("celery.bootsteps")

BLUEPRINTS: Final = ("worker", "consumer")  # the keys of `app.steps`, in the order in which they start


class Timer:
    """Calls functions later, one after the other, in a thread that starts with the first of them."""

    def __init__(self, name: str = "litetq-timer") -> None:
        self._name = name
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, int, TimerEntry]] = []  # monotonic, priority, number
        self._number = itertools.count()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def call_after(
        self, secs: float, fun: Callable[..., Any], args: Iterable[Any] = (), kwargs: Any = None, priority: int = 0
    ) -> TimerEntry:
        """Call once, after so many seconds."""
        entry = TimerEntry(fun, tuple(args), dict(kwargs or {}))
        self._add(secs, priority, entry)
        return entry

    def call_repeatedly(
        self, secs: float, fun: Callable[..., Any], args: Iterable[Any] = (), kwargs: Any = None, priority: int = 0
    ) -> TimerEntry:
        """Call every so many seconds, until the entry is cancelled; an error is logged, and the calls go on."""
        entry = TimerEntry(fun, tuple(args), dict(kwargs or {}), every=secs)
        self._add(secs, priority, entry)
        return entry

    def call_at(
        self, eta: Any, fun: Callable[..., Any], args: Iterable[Any] = (), kwargs: Any = None, priority: int = 0
    ) -> TimerEntry:
        """Call once, at a time (datetime, or UTC seconds)."""
        at = eta.timestamp() if hasattr(eta, "timestamp") else float(eta)
        return self.call_after(max(0.0, at - clock.now()), fun, args, kwargs, priority)

    def cancel(self, tref: TimerEntry) -> None:
        """Call it no more."""
        tref.cancel()

    def clear(self) -> None:
        """Forget all calls."""
        with self._changed:
            self._due.clear()

    def stop(self) -> None:
        """Make no more calls; one that runs now is waited for."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _add(self, secs: float, priority: int, entry: TimerEntry) -> None:
        with self._changed:
            if self._stopped:
                return
            heapq.heappush(self._due, (clock.monotonic() + secs, -priority, next(self._number), entry))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and (not self._due or self._due[0][0] > clock.monotonic()):
                    self._changed.wait(self._due[0][0] - clock.monotonic() if self._due else None)
                if self._stopped:
                    return
                _, priority, _, entry = heapq.heappop(self._due)
            if entry.canceled:
                continue
            entry()
            if entry.every is not None:
                self._add(entry.every, -priority, entry)


class TimerEntry:
    """One call that a timer is to make."""

    def __init__(
        self, fun: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], every: float | None = None
    ) -> None:
        self.fun = fun
        self.args = args
        self.kwargs = kwargs
        self.every = every
        self.canceled = False

    def __call__(self) -> None:
        try:
            self.fun(*self.args, **self.kwargs)
        except Exception:
            logger.exception("a timer's call of %r raised", self.fun)

    def cancel(self) -> None:
        """Make no more calls."""
        self.canceled = True


class Step:
    """A part of a worker that is made when it starts.

    Attributes:
        requires: steps that come first, as classes or "module:Class"; names of Celery's own parts mean nothing here.
        enabled, conditional: whether it is made at all; `include_if` decides.
        last: come after all others.
    """

    name: str | None = None
    label: str | None = None
    requires: Iterable[Any] = ()
    enabled = True
    conditional = False
    last = False

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        pass

    @property
    def alias(self) -> str:
        """Its name for people."""
        return self.label or type(self).__name__

    def include_if(self, parent: Any) -> bool:
        """Return whether this worker is to have it."""
        return self.enabled

    def include(self, parent: Any) -> bool:
        """Call `create` where this worker is to have it; return whether it is."""
        if not self.include_if(parent):
            return False
        self.create(parent)
        return True

    def create(self, parent: Any) -> Any:
        """Called once it is made."""

    def info(self, obj: Any) -> Any:
        """Return what there is to tell about it."""

    def __repr__(self) -> str:
        return f"<step: {self.alias}>"


class StartStopStep(Step):
    """A step that is started when the worker is ready, and stopped before it ends."""

    obj: Any = None

    def include(self, parent: Any) -> bool:
        """Keep what `create` returns: it is started and stopped where these methods are not overridden."""
        if not self.include_if(parent):
            return False
        self.obj = self.create(parent)
        return True

    def start(self, parent: Any) -> Any:
        """Called when the worker is ready."""
        return self.obj.start() if self.obj is not None else None

    def stop(self, parent: Any) -> Any:
        """Called before the worker ends."""
        return self.obj.stop() if self.obj is not None else None

    def close(self, parent: Any) -> None:
        """Called before the steps are stopped, of all."""

    def terminate(self, parent: Any) -> Any:
        """Called instead of `stop` when the worker ends cold."""
        return self.obj.terminate() if hasattr(self.obj, "terminate") else self.stop(parent)


class ConsumerStep(StartStopStep):
    """Celery's step that reads messages of one's own from the broker; a file has no such messages."""

    def include(self, parent: Any) -> bool:
        raise NotImplementedError(
            f"step {type(self).__name__}: a ConsumerStep reads messages of its own from a broker, and a file has tasks only; "
            "make it a StartStopStep that reads from where these messages are"
        )


class Steps:
    """The steps of one worker."""

    def __init__(self, wanted: Mapping[str, Iterable[Any]], worker: Any, options: Mapping[str, Any]) -> None:
        self._worker = worker
        self._made: list[Any] = []
        for blueprint in BLUEPRINTS:
            for kind in in_order(wanted.get(blueprint, ())):
                step = kind(worker, **options)
                if step.include(worker):
                    self._made.append(step)
        self._started: list[Any] = []

    def start(self) -> None:
        """Start them in order; what one raises ends the worker, and those before it are stopped."""
        for step in self._made:
            if hasattr(step, "start"):
                self._started.append(step)
                step.start(self._worker)

    def stop(self, cold: bool = False) -> None:
        """Stop them in reverse; what one raises is logged, and the others are stopped all the same."""
        for step in reversed(self._started):
            self._call(step, "close")
        while self._started:
            self._call(self._started.pop(), "terminate" if cold else "stop")

    def _call(self, step: Any, name: str) -> None:
        method = getattr(step, name, None)
        if method is None:
            return
        try:
            method(self._worker)
        except Exception:
            logger.exception("%s of %r raised", name, step)


def in_order(wanted: Iterable[Any]) -> list[Any]:
    """Return classes of steps so that each comes after those that it requires; ValueError where that cannot be."""
    left = sorted(wanted, key=lambda kind: (bool(kind.last), _path(kind)))
    names = {_path(kind) for kind in left}
    order: list[Any] = []
    done: set[str] = set()
    while left:
        free = next((kind for kind in left if {_path(each) for each in kind.requires} & names <= done), None)
        if free is None:
            raise ValueError(f"steps require each other in a circle: {', '.join(map(_path, left))}")
        left.remove(free)
        done.add(_path(free))
        order.append(free)
    return order


def _path(kind: Any) -> str:
    return kind if isinstance(kind, str) else f"{kind.__module__}:{kind.__qualname__}"
