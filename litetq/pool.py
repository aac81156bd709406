"""Pools: where tasks run. They know no store and no app: deliveries go in, outcomes come out.

A pool is told by `room()` how much may be claimed, gets it by `put`, and says by `wake` that there is something to `drain`.
Dispatch is fair: a task waits behind another one only when both are known to be quick (`Pace`), and what waits behind one
that turns out slow is taken back (`recall`) and given to the file again, its attempt unspent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from litetq.message import Delivery, Outcome
from litetq.probes import reached

logger = logging.getLogger("celery.worker")

QUICK_S: Final = 0.001  # tasks with a mean below it may travel together
BATCH_S: Final = 0.005  # how much work may wait behind another task in one place
BATCH_MAX: Final = 128  # tasks; arbitrary, the gain from larger writes is gone by then (docs/architecture.md)
STALL_S: Final = 0.01  # a place that shows no progress for so long gives back what waits behind its task
END_TIMEOUT_S: Final = 10.0  # for a child that has nothing to run any more to come to its end
HELD_MAX: Final = 2000  # claims begun and not settled in one process; well below presence.RING

Run = Callable[[Delivery], Outcome]


class Pace:
    """How long tasks take, by name: a mean that follows the last twenty or so."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}
        self._recent = QUICK_S  # of all names, as they come; unknown is slow

    def note(self, name: str, runtime: float) -> None:
        mean = self._means.get(name)
        self._means[name] = runtime if mean is None else mean + (runtime - mean) * 0.05
        self._recent += (runtime - self._recent) * 0.05
        if runtime >= QUICK_S:
            self._recent = max(self._recent, QUICK_S)  # one slow task among quick ones: claim with care at once

    def is_quick(self, name: str) -> bool:
        mean = self._means.get(name)
        return mean is not None and mean < QUICK_S

    def batch(self) -> int:
        """Return how many tasks of the present mix may wait in one place; 1 while they are slow or unknown."""
        if self._recent >= QUICK_S:
            return 1
        return max(1, min(BATCH_MAX, int(BATCH_S / max(self._recent, 1e-6))))


class Lost(NamedTuple):
    """A claim whose executor died."""

    delivery: Delivery
    begun: bool  # user code may have been entered
    cause: str  # in Celery's words


class Drained(NamedTuple):
    """What a pool has to say since the last time."""

    outcomes: list[Outcome]
    returned: list[Delivery]  # never begun
    lost: list[Lost]


class Pool(Protocol):
    name: str
    concurrency: int

    def start(self) -> None: ...

    def room(self) -> int:
        """Return how many tasks could be started now."""

    def put(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Start these, or let them wait behind quick ones; return those for which there was no place after all."""

    def drain(self) -> Drained: ...

    def held(self) -> int:
        """Return how many deliveries are in here, begun or not, their outcome not drained."""

    def recall(self, *, everything: bool = False) -> None:
        """Take back what waits behind a task that shows no progress; with `everything`, all that has not begun.

        It comes back by `drain`, now or later. Cheap enough to be called in every round.
        """

    def stop(self, *, kill: bool = False) -> None: ...

    def processes(self) -> list[int]:
        """Return the pids in which tasks run."""


class SoloPool:
    """Runs tasks in the worker's own thread, between a claim and a settle."""

    name = "solo"

    def __init__(self, run: Run, begin: Callable[[int], None]) -> None:
        self.concurrency = 1
        self._run = run
        self._begin = begin
        self._todo: deque[Delivery] = deque()
        self._done: list[Outcome] = []
        self._pace = Pace()
        self._stopping = False

    def start(self) -> None:
        pass

    def room(self) -> int:
        return max(0, self._pace.batch() - len(self._todo))

    def put(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        self._todo.extend(deliveries)
        return []

    def work(self) -> bool:
        """Run what waits, for about BATCH_S, at least one task; return whether there was any."""
        todo, pace, begin, run, done = self._todo, self._pace, self._begin, self._run, self._done
        if not todo:
            return False
        until = time.perf_counter() + BATCH_S
        while todo:
            delivery = todo.popleft()
            begin(delivery.claim)
            reached("begun")
            outcome = run(delivery)
            reached("ended")
            done.append(outcome)
            pace.note(delivery.name, outcome.runtime or 0.0)
            if time.perf_counter() >= until:
                break
        return True

    def drain(self) -> Drained:
        done, self._done = self._done, []
        returned: list[Delivery] = []
        if self._stopping or (done and self._pace.batch() == 1):
            # The last one was slow: what waits behind it is given back, others may be free.
            returned = list(self._todo)
            self._todo.clear()
        return Drained(done, returned, [])

    def held(self) -> int:
        return len(self._todo) + len(self._done)

    def recall(self, *, everything: bool = False) -> None:
        self._stopping = everything

    def stop(self, *, kill: bool = False) -> None:
        self._stopping = True

    def processes(self) -> list[int]:
        return [os.getpid()]


class ThreadPool:
    """Runs tasks in threads of this process, which take them from one list: nobody waits while another is idle."""

    name = "threads"

    def __init__(self, run: Run, begin: Callable[[int], None], wake: Callable[[], None], concurrency: int) -> None:
        self.concurrency = concurrency
        self._run = run
        self._begin = begin
        self._wake = wake
        self._todo: deque[Delivery] = deque()
        self._done: deque[Outcome] = deque()
        self._returned: list[Delivery] = []
        self._idle: deque[threading.Lock] = deque()  # one locked lock per thread that sleeps
        self._pace = Pace()
        self._threads: list[threading.Thread] = []
        self._stopping = False
        self._held = 0  # put and not drained; touched by the worker's thread only
        self._names: dict[int, str] = {}
        self._progress_at = time.monotonic()

    def start(self) -> None:
        for number in range(1, self.concurrency + 1):
            thread = threading.Thread(target=self._loop, name=f"ThreadPoolWorker-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _loop(self) -> None:
        todo, done, begin, run = self._todo, self._done, self._begin, self._run
        gate = threading.Lock()
        gate.acquire()
        while True:
            try:
                delivery = todo.popleft()
            except IndexError:
                self._idle.append(gate)
                # Announced first, then looked again: a task put in between has seen either us or been seen by us.
                if (todo or self._stopping) and self._take_back(gate):
                    if self._stopping and not todo:
                        return
                    continue
                gate.acquire()
                if self._stopping and not todo:
                    return
                continue
            begin(delivery.claim)
            reached("begun")
            outcome = run(delivery)
            reached("ended")
            done.append(outcome)
            # When it has just been emptied, so many threads may add theirs before one of them looks.
            if len(done) <= self.concurrency:
                self._wake()

    def _take_back(self, gate: threading.Lock) -> bool:
        try:
            self._idle.remove(gate)
        except ValueError:
            return False  # somebody has just opened it
        return True

    def room(self) -> int:
        limit = self.concurrency
        if not self._is_stalled() and self._pace.batch() > 1:
            limit += self._pace.batch()
        return max(0, min(limit, HELD_MAX) - self._held)

    def _is_stalled(self) -> bool:
        """Return whether no task has come to an end for a while: what would wait here would wait long."""
        return self._held > 0 and time.monotonic() - self._progress_at > STALL_S

    def put(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        if not self._held:
            self._progress_at = time.monotonic()
        for delivery in deliveries:
            self._names[delivery.claim] = delivery.name
        self._held += len(deliveries)
        self._todo.extend(deliveries)
        for _ in range(min(len(deliveries), len(self._idle))):
            try:
                self._idle.popleft().release()
            except IndexError:
                break
        return []

    def drain(self) -> Drained:
        outcomes = []
        done, names = self._done, self._names
        while done:
            outcome = done.popleft()
            outcomes.append(outcome)
            self._pace.note(names.pop(outcome.claim, ""), outcome.runtime or 0.0)
        if outcomes:
            self._progress_at = time.monotonic()
        returned, self._returned = self._returned, []
        self._held -= len(outcomes) + len(returned)
        return Drained(outcomes, returned, [])

    def held(self) -> int:
        return self._held

    def recall(self, *, everything: bool = False) -> None:
        # All threads take from one list: nothing waits there unless every thread is busy.
        if not (everything or self._is_stalled()):
            return
        while self._todo:
            try:
                delivery = self._todo.pop()
            except IndexError:
                break
            self._names.pop(delivery.claim, None)
            self._returned.append(delivery)

    def stop(self, *, kill: bool = False) -> None:
        """End the threads once they are free; with `kill` do not wait for those that are not."""
        self._stopping = True
        if kill:
            self._todo.clear()
        for gate in list(self._idle):
            if self._take_back(gate):
                gate.release()
        if not kill:
            for thread in self._threads:
                thread.join()

    def processes(self) -> list[int]:
        return [os.getpid()]


class Child(NamedTuple):
    """How a pool starts and reaches a child process: made by `child.py`, told apart from the pool for tests' sake."""

    pid: int
    send: Callable[[str, Any], None]  # ("run", deliveries), ("recall", all), ("stop", None)
    receive: Callable[[], tuple[str, Any]]  # ("ready", None), ("done", outcomes), ("back", claims); EOFError at its end
    begun: Callable[[], frozenset[int] | None]  # claims it entered user code for
    wait: Callable[[float | None], int | None]  # exit code, negative for a signal; None: still running
    kill: Callable[[], None]
    close: Callable[[], None]


class _Place:
    """One child of a process pool and what it holds."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.child: Child | None = None  # until its thread has started it
        self.holds: dict[int, Delivery] = {}  # claim -> delivery, in the order sent
        self.is_ready = False
        self.is_recalled = False
        self.progress_at = 0.0  # monotonic
        self.thread: threading.Thread | None = None

    def is_stalled(self, now: float) -> bool:
        """Return whether its task has been running for a while: what would wait behind it would wait long."""
        return bool(self.holds) and now - self.progress_at > STALL_S

    def send(self, kind: str, value: Any) -> None:
        """Tell the child; one that has just died is reported by its thread, and has not begun what comes now."""
        if self.child is not None:
            with contextlib.suppress(OSError):
                self.child.send(kind, value)


class ProcessPool:
    """Runs tasks in child processes; each is started afresh, never forked from this one, and replaced when it dies.

    Each child has a thread here that starts it and then listens to it. On Linux the kernel kills a child when the thread
    that started it ends, so that thread must be the one that lives as long.
    """

    name = "processes"

    def __init__(
        self, spawn: Callable[[int], Child], wake: Callable[[], None], concurrency: int, start_timeout: float = 60.0
    ) -> None:
        self.concurrency = concurrency
        self._spawn = spawn
        self._wake = wake
        self._start_timeout = start_timeout
        self._places: list[_Place] = []
        self._news: deque[tuple[str, _Place, Any]] = deque()
        self._heard = threading.Event()
        self._pace = Pace()
        self._stopping = False
        self._failed_starts = 0
        self._respawn_at: list[tuple[float, int]] = []

    # -- children

    def start(self) -> None:
        """Start all children and wait until each has imported the program.

        Raises RuntimeError when one ends, or says nothing, before it is ready: the next ones would do the same.
        """
        for number in range(1, self.concurrency + 1):
            self._add(number)
        deadline = time.monotonic() + self._start_timeout
        while not all(place.is_ready for place in self._places):
            self._heard.wait(max(0.0, deadline - time.monotonic()))
            self._heard.clear()
            while self._news:
                kind, place, _ = self._news.popleft()
                if kind == "ready":
                    place.is_ready = True
                elif kind == "end":
                    code = place.child.wait(1.0) if place.child is not None else None
                    self.stop(kill=True)
                    raise RuntimeError(
                        f"a pool process ended ({exit_text(code)}) before it was ready; what it said stands above"
                    )
            if time.monotonic() >= deadline:
                self.stop(kill=True)
                raise RuntimeError(f"a pool process was not ready after {self._start_timeout:g} s")

    def _add(self, number: int) -> None:
        place = _Place(number)
        self._places.append(place)
        place.thread = threading.Thread(target=self._listen, args=(place,), name=f"PoolListener-{number}", daemon=True)
        place.thread.start()

    def _listen(self, place: _Place) -> None:
        try:
            place.child = self._spawn(place.number)
        except Exception:
            logger.exception("a pool process could not be started")
            self._tell("end", place, None)
            return
        if self._stopping:
            place.child.kill()
        while True:
            try:
                kind, value = place.child.receive()
            except (EOFError, OSError):
                kind, value = "end", None
            self._tell(kind, place, value)
            if kind == "end":
                # Not before the process is gone: see the class.
                place.child.kill()
                place.child.wait(None)
                return

    def _tell(self, kind: str, place: _Place, value: Any) -> None:
        self._news.append((kind, place, value))
        # When it has just been emptied, so many children may add theirs before one of the threads looks.
        if len(self._news) <= self.concurrency or kind == "end":
            self._heard.set()
            self._wake()

    # -- dispatch

    def room(self) -> int:
        batch, now = self._pace.batch(), time.monotonic()
        return sum(
            max(0, batch - len(place.holds)) for place in self._places if place.is_ready and not place.is_stalled(now)
        )

    def put(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        batch = self._pace.batch()
        now = time.monotonic()
        places = [place for place in self._places if place.is_ready and not place.is_stalled(now)]
        shares: dict[int, list[Delivery]] = {}
        too_many = []
        for delivery in deliveries:
            quick = self._pace.is_quick(delivery.name)
            best = min(places, key=lambda place: len(place.holds), default=None)
            if best is None or (best.holds and not (quick and self._all_quick(best) and len(best.holds) < batch)):
                too_many.append(delivery)
                continue
            if not best.holds:
                best.progress_at = now
            best.holds[delivery.claim] = delivery
            shares.setdefault(best.number, []).append(delivery)
        for place in places:
            share = shares.get(place.number)
            if share:
                place.send("run", share)
        return too_many

    def _all_quick(self, place: _Place) -> bool:
        is_quick = self._pace.is_quick
        # The last one sent decides: those before it were looked at when it was.
        return is_quick(next(reversed(place.holds.values())).name) and is_quick(next(iter(place.holds.values())).name)

    def drain(self) -> Drained:
        drained = Drained([], [], [])
        news = self._news
        while news:
            kind, place, value = news.popleft()
            if kind == "done":
                place.progress_at = time.monotonic()
                for outcome in value:
                    delivery = place.holds.pop(outcome.claim, None)
                    if delivery is not None:
                        self._pace.note(delivery.name, outcome.runtime or 0.0)
                        drained.outcomes.append(outcome)
            elif kind == "back":
                place.is_recalled = False
                drained.returned.extend(place.holds.pop(claim) for claim in value if claim in place.holds)
            elif kind == "ready":
                place.is_ready = True
                self._failed_starts = 0
            elif kind == "end":
                self._bury(place, drained)
        if self._respawn_at and not self._stopping:
            self._respawn()
        return drained

    def _bury(self, place: _Place, drained: Drained) -> None:
        """Tell what a dead child held apart, and plan its successor."""
        if place not in self._places:
            return
        self._places.remove(place)
        child = place.child
        code = None
        if child is not None:
            code = child.wait(1.0)  # the connection may end a moment before the process does
            child.kill()
        cause = f"Worker exited prematurely: {exit_text(code)}."
        begun = child.begun() if child is not None and place.holds else frozenset()
        for claim, delivery in place.holds.items():
            if begun is not None and claim not in begun:
                drained.returned.append(delivery)
            else:
                drained.lost.append(Lost(delivery, True, cause))
        place.holds.clear()
        if child is not None:
            child.close()
        if not self._stopping:
            if not place.is_ready:
                self._failed_starts += 1
                logger.error("a pool process ended before it was ready (%s)", cause)
            # A child that cannot even start is tried again ever more slowly, up to half a minute.
            delay = 0.0 if place.is_ready else min(30.0, 0.5 * 2**self._failed_starts)
            self._respawn_at.append((time.monotonic() + delay, place.number))

    def _respawn(self) -> None:
        now = time.monotonic()
        due = [entry for entry in self._respawn_at if entry[0] <= now]
        for entry in due:
            self._respawn_at.remove(entry)
            self._add(entry[1])

    def held(self) -> int:
        return sum(len(place.holds) for place in self._places)

    def recall(self, *, everything: bool = False) -> None:
        now = time.monotonic()
        for place in self._places:
            if not place.holds or place.is_recalled:
                continue
            if everything or (len(place.holds) > 1 and place.is_stalled(now)):
                place.is_recalled = True
                place.send("recall", None)

    def stop(self, *, kill: bool = False) -> None:
        """End the children: at once with `kill`, else when each has finished what it runs, for which it gets ten seconds."""
        self._stopping = True
        for place in list(self._places):
            if not kill:
                place.send("stop", None)
            elif place.child is not None:
                place.child.kill()
        for place in list(self._places):
            if place.child is not None and place.child.wait(END_TIMEOUT_S) is None:
                place.child.kill()
            if place.thread is not None:
                place.thread.join(END_TIMEOUT_S)
            if place.child is not None and not kill:
                place.child.close()

    def processes(self) -> list[int]:
        return [place.child.pid for place in self._places if place.child is not None]


def exit_text(code: int | None) -> str:
    """Return how a process ended, in Celery's words: `exitcode 2`, `signal 9 (SIGKILL)`."""
    if code is None:
        return "no exit code"
    if code >= 0:
        return f"exitcode {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    return f"signal {-code} ({name})"


def default_concurrency() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def tuples(values: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return named tuples as plain ones, which marshal takes (0.7 us for a delivery; pickle takes 3)."""
    return [tuple(value) for value in values]
