"""Pools: where tasks run. They know no store and no app: deliveries go in, outcomes come out.

A pool is told by `room()` how much may be claimed, gets it by `put`, and says by `wake` that there is something to `drain`.
Dispatch is fair: a task waits behind another one only when both are known to be quick (`Pace`), and what waits behind one
that turns out slow is taken back (`recall`) and given to the file again, its attempt unspent.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from litetq.limits import cut_threads
from litetq.message import Delivery, Outcome
from litetq.probes import reached

logger = logging.getLogger("celery.worker")

QUICK_S: Final = 0.001  # tasks with a mean below it may travel together
BATCH_S: Final = 0.005  # how much work may wait behind another task in one place
BATCH_MAX: Final = 128  # tasks; arbitrary, the gain from larger writes is gone by then (docs/architecture.md)
STALL_S: Final = 0.01  # a place that shows no progress for so long gives back what waits behind its task
END_TIMEOUT_S: Final = 10.0  # for a child that has nothing to run any more to come to its end
EXIT_TIMEOUT_S: Final = 1.0  # for a child whose connection has ended to be gone; it takes milliseconds
HELD_MAX: Final = 2000  # claims begun and not settled in one process; well below presence.RING
ABANDONED_MIN: Final = 4  # threads past their hard limit before no more work is taken; more with more concurrency
CRASH_WINDOW_S: Final = 10.0  # children that die in it, beyond a few, are replaced ever more slowly
RESTART_MAX_S: Final = 30.0  # the longest pause before a child is replaced
UNLIMITED: Final[Mapping[int, float]] = {}

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
            self.beware()  # one slow task among quick ones

    def beware(self) -> None:
        """Claim with care at once: what comes next is slow or unknown, however quick it was so far."""
        self._recent = max(self._recent, QUICK_S)

    def is_quick(self, name: str) -> bool:
        mean = self._means.get(name)
        return mean is not None and mean < QUICK_S

    def batch(self) -> int:
        """Return how many tasks of the present mix may wait in one place; 1 while they are slow or unknown."""
        if self._recent >= QUICK_S:
            return 1
        return max(1, min(BATCH_MAX, int(BATCH_S / max(self._recent, 1e-6))))


class Lost(NamedTuple):
    """An attempt, begun or perhaps begun, that was ended from outside."""

    delivery: Delivery
    cause: str = ""  # its executor died; in Celery's words
    limit: float | None = None  # the hard limit, in seconds, that it was ended for
    signum: int | None = None  # the signal that it was terminated with, on request


class Drained(NamedTuple):
    """What a pool has to say since the last time."""

    outcomes: list[Outcome]
    returned: list[Delivery]  # never begun
    lost: list[Lost]


class Pool(Protocol):
    """What a worker wants of a pool. All methods are called by the worker's one thread.

    A class of one's own is made as `Class(run, begin, wake, concurrency)`. `run` runs one attempt from its delivery to its
    outcome, in any thread, and never raises for what the task does. `begin(claim)` is to be called before it: from then on
    the attempt counts as begun, whatever happens. `wake()` makes the worker call `drain`, from any thread. `SimplePool` is a
    start.
    """

    name: str
    concurrency: int
    keeps_hard_limits: bool  # whether `drain` ends what is past its hard limit
    ends_attempts: bool  # whether `terminate`, and `stop` with `kill`, end what runs

    def start(self) -> None: ...

    def room(self) -> int:
        """Return how many tasks could be started now."""

    def put(self, deliveries: Sequence[Delivery], hard: Mapping[int, float] = UNLIMITED) -> list[Delivery]:
        """Start these, or let them wait behind quick ones; return those for which there was no place after all.

        `hard`: claim -> seconds after which the attempt is ended, for those that have such a limit.
        """

    def drain(self) -> Drained:
        """Return what has ended since; attempts past their hard limit are ended by this."""

    def next_deadline(self) -> float | None:
        """Return when `drain` will have to end an attempt, monotonic; None: no limit is running."""

    def held(self) -> int:
        """Return how many deliveries are in here, begun or not, their outcome not drained."""

    def recall(self, *, everything: bool = False) -> None:
        """Take back what waits behind a task that shows no progress; with `everything`, all that has not begun.

        It comes back by `drain`, now or later. Cheap enough to be called in every round.
        """

    def terminate(self, claim: int, signum: int) -> None:
        """End a running attempt by a signal to its process; `drain` tells. What has not begun comes back instead.

        Raises NotImplementedError where no attempt has a process of its own.
        """

    def grow(self, number: int) -> None:
        """Make room for so many tasks more."""

    def shrink(self, number: int) -> None:
        """Have room for so many tasks less; what runs is not disturbed. Never below one."""

    def restart(self) -> None:
        """Replace all children; each finishes what it runs. Without children nothing is to be done."""

    def stop(self, *, kill: bool = False) -> None: ...

    def processes(self) -> list[int]:
        """Return the pids in which tasks run."""

    def abandoned(self) -> int:
        """Return how many threads run past their hard limit; what they do counts for nothing any more."""


class SimplePool:
    """What a pool of one's own starts from: one attempt in each of its places. A subclass says how an attempt is started.

    It keeps no hard time limits, and cannot end what runs.
    """

    name = "custom"
    keeps_hard_limits = False
    ends_attempts = False

    def __init__(self, run: Run, begin: Callable[[int], None], wake: Callable[[], None], concurrency: int) -> None:
        self.concurrency = concurrency
        self._run = run
        self._begin = begin
        self._wake = wake
        self._done: deque[Outcome] = deque()
        self._held = 0

    def launch(self, attempt: Callable[[], None]) -> None:
        """See to it that `attempt()` is called once, soon, and not here: whoever calls it stays in it until it ends."""
        raise NotImplementedError(f"{type(self).__name__} does not say how an attempt is started: it has no launch()")

    def start(self) -> None:
        pass

    def room(self) -> int:
        return max(0, min(self.concurrency, HELD_MAX) - self._held)

    def put(self, deliveries: Sequence[Delivery], hard: Mapping[int, float] = UNLIMITED) -> list[Delivery]:
        for delivery in deliveries:
            self._held += 1
            self.launch(functools.partial(self._attempt, delivery))
        return []

    def _attempt(self, delivery: Delivery) -> None:
        self._begin(delivery.claim)
        reached("begun")
        outcome = self._run(delivery)
        reached("ended")
        self._done.append(outcome)
        self._wake()

    def drain(self) -> Drained:
        outcomes = []
        while self._done:
            outcomes.append(self._done.popleft())
        self._held -= len(outcomes)
        return Drained(outcomes, [], [])

    def next_deadline(self) -> float | None:
        return None

    def held(self) -> int:
        return self._held

    def recall(self, *, everything: bool = False) -> None:
        pass

    def terminate(self, claim: int, signum: int) -> None:
        raise NotImplementedError(f"pool {self.name}: a running task cannot be terminated")

    def grow(self, number: int) -> None:
        self.concurrency += number

    def shrink(self, number: int) -> None:
        self.concurrency = max(1, self.concurrency - number)

    def restart(self) -> None:
        pass

    def stop(self, *, kill: bool = False) -> None:
        pass

    def processes(self) -> list[int]:
        return [os.getpid()]

    def abandoned(self) -> int:
        return 0


class SoloPool:
    """Runs tasks in the worker's own thread, between a claim and a settle."""

    name = "solo"
    keeps_hard_limits = False
    ends_attempts = False

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

    def put(self, deliveries: Sequence[Delivery], hard: Mapping[int, float] = UNLIMITED) -> list[Delivery]:
        self._todo.extend(deliveries)  # nobody is here to end an attempt: the worker says so for those with a limit
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

    def next_deadline(self) -> float | None:
        return None

    def held(self) -> int:
        return len(self._todo) + len(self._done)

    def recall(self, *, everything: bool = False) -> None:
        self._stopping = everything

    def terminate(self, claim: int, signum: int) -> None:
        raise NotImplementedError("pool solo: a running task cannot be terminated, it runs in the worker's own thread")

    def grow(self, number: int) -> None:
        raise NotImplementedError("pool solo: it runs one task at a time, and can neither grow nor shrink")

    shrink = grow

    def restart(self) -> None:
        pass

    def stop(self, *, kill: bool = False) -> None:
        self._stopping = True

    def processes(self) -> list[int]:
        return [os.getpid()]

    def abandoned(self) -> int:
        return 0


class _Running(NamedTuple):
    """An attempt with a hard limit, in a thread."""

    delivery: Delivery
    limit: float  # seconds
    ends_at: float  # monotonic
    thread: threading.Thread


class ThreadPool:
    """Runs tasks in threads of this process, which take them from one list: nobody waits while another is idle."""

    name = "threads"
    keeps_hard_limits = True
    ends_attempts = False

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
        self._numbers = itertools.count(1)
        self._surplus: deque[None] = deque()  # one for each thread that is to end
        self._hard: dict[int, float] = {}  # claim -> seconds, of those that have not begun
        self._running: dict[int, _Running] = {}  # by claim; who takes one out decides how it ended
        self._abandoned: set[threading.Thread] = set()
        self._is_refusing = False

    def start(self) -> None:
        self._add(self.concurrency)

    def _add(self, number: int) -> None:
        for _ in range(number):
            name = f"ThreadPoolWorker-{next(self._numbers)}"
            thread = threading.Thread(target=self._loop, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _loop(self) -> None:
        todo, done, begin, run, hard = self._todo, self._done, self._begin, self._run, self._hard
        gate = threading.Lock()
        gate.acquire()
        while True:
            if self._surplus and self._is_surplus():
                return
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
            limit = hard.get(delivery.claim) if hard else None
            if limit is not None:
                self._watch(delivery, limit)
            begin(delivery.claim)
            reached("begun")
            outcome = run(delivery)
            reached("ended")
            if limit is not None and self._running.pop(delivery.claim, None) is None:
                # Its end is on record already, and another thread has this one's place.
                self._abandoned.discard(threading.current_thread())
                cut_threads.discard(threading.current_thread())
                self._wake()
                return
            done.append(outcome)
            # When it has just been emptied, so many threads may add theirs before one of them looks.
            if len(done) <= self.concurrency:
                self._wake()

    def _is_surplus(self) -> bool:
        """Return whether the thread that asks is to end, and count it as one that did."""
        try:
            self._surplus.pop()
        except IndexError:
            return False
        with contextlib.suppress(ValueError):
            self._threads.remove(threading.current_thread())
        return True

    def _watch(self, delivery: Delivery, limit: float) -> None:
        thread = threading.current_thread()
        self._running[delivery.claim] = _Running(delivery, limit, time.monotonic() + limit, thread)
        self._hard.pop(delivery.claim, None)  # after: the deadline must be in one of the two at any moment

    def _take_back(self, gate: threading.Lock) -> bool:
        try:
            self._idle.remove(gate)
        except ValueError:
            return False  # somebody has just opened it
        return True

    def room(self) -> int:
        if self._abandoned and self._has_too_many_abandoned():
            return 0
        limit = self.concurrency
        if not self._is_stalled() and self._pace.batch() > 1:
            limit += self._pace.batch()
        return max(0, min(limit, HELD_MAX) - self._held)

    def _is_stalled(self) -> bool:
        """Return whether no task has come to an end for a while: what would wait here would wait long."""
        return self._held > 0 and time.monotonic() - self._progress_at > STALL_S

    def _has_too_many_abandoned(self) -> bool:
        """Return whether so many threads run past their limit that no more work is to be taken; say so when it changes."""
        count, bound = len(self._abandoned), max(ABANDONED_MIN, self.concurrency)
        is_refusing = count >= bound
        if is_refusing and not self._is_refusing:
            logger.error(
                "%d threads run past their hard time limit and cannot be stopped; no task is taken until one of them ends",
                count,
            )
        self._is_refusing = is_refusing
        return is_refusing

    def put(self, deliveries: Sequence[Delivery], hard: Mapping[int, float] = UNLIMITED) -> list[Delivery]:
        if not self._held:
            self._progress_at = time.monotonic()
        if hard:
            self._hard.update(hard)
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
        lost = self._abandon_overdue() if self._running else []
        self._held -= len(outcomes) + len(returned) + len(lost)
        return Drained(outcomes, returned, lost)

    def name_of(self, claim: int) -> str | None:
        """Return the name of the task that this claim is of; None when it is not in here."""
        return self._names.get(claim)

    def _abandon_overdue(self) -> list[Lost]:
        """End attempts past their hard limit: another thread takes the place of theirs, whose outcome is dropped."""
        now = time.monotonic()
        lost = []
        for claim, running in list(self._running.items()):
            if running.ends_at > now:
                continue
            self._abandoned.add(running.thread)
            if self._running.pop(claim, None) is None:
                self._abandoned.discard(running.thread)  # it has just ended by itself
                continue
            cut_threads.add(running.thread)
            _cut_off(running.thread)
            self._names.pop(claim, None)
            self._threads.remove(running.thread)
            self._add(1)
            self._progress_at = now
            lost.append(Lost(running.delivery, limit=running.limit))
        return lost

    def next_deadline(self) -> float | None:
        if not (self._hard or self._running):
            return None
        now = time.monotonic()
        soonest = min((now + limit for limit in list(self._hard.values())), default=math.inf)
        return min((running.ends_at for running in list(self._running.values())), default=soonest)

    def held(self) -> int:
        return self._held

    def recall(self, *, everything: bool = False) -> None:
        # All threads take from one list: while one is free it is about to take the next, however long others run.
        is_every_thread_busy = self._held - len(self._todo) - len(self._done) >= self.concurrency
        if not (everything or (is_every_thread_busy and self._is_stalled())):
            return
        while self._todo:
            try:
                delivery = self._todo.pop()
            except IndexError:
                break
            self._names.pop(delivery.claim, None)
            self._hard.pop(delivery.claim, None)
            self._returned.append(delivery)

    def terminate(self, claim: int, signum: int) -> None:
        raise NotImplementedError("pool threads: a running task cannot be terminated, a thread takes no signals")

    def grow(self, number: int) -> None:
        self.concurrency += number
        self._add(number)

    def shrink(self, number: int) -> None:
        number = min(number, self.concurrency - 1)
        self.concurrency -= number
        self._surplus.extend([None] * number)
        for _ in range(number):
            try:
                self._idle.popleft().release()
            except IndexError:
                break  # all are busy: the next to come free ends

    def restart(self) -> None:
        pass

    def stop(self, *, kill: bool = False) -> None:
        """End the threads once they are free; with `kill` do not wait for those that are not."""
        self._stopping = True
        if kill:
            self._todo.clear()
        for gate in list(self._idle):
            if self._take_back(gate):
                gate.release()
        if not kill:
            for thread in list(self._threads):
                thread.join()

    def processes(self) -> list[int]:
        return [os.getpid()]

    def abandoned(self) -> int:
        return len(self._abandoned)


def _cut_off(thread: threading.Thread) -> None:
    """Cancel the coroutine that a thread waits for, if it runs an async task: then the thread comes to its end."""
    from litetq import aio  # here: it imports asyncio

    aio.cut_in_thread(thread.ident or 0)


class Child(NamedTuple):
    """How a pool starts and reaches a child process: made by `child.py`, told apart from the pool for tests' sake."""

    pid: int
    send: Callable[[str, Any], None]  # ("run", deliveries), ("recall", all), ("stop", None)
    receive: Callable[[], tuple[str, Any]]  # "ready", ("done", outcomes), ("back", claims), ("retire", why); EOFError
    begun: Callable[[], frozenset[int] | None]  # claims it entered user code for
    wait: Callable[[float | None], int | None]  # exit code, negative for a signal; None: still running
    kill: Callable[[], None]
    signal: Callable[[int], None]
    close: Callable[[], None]


class _Place:
    """One child of a process pool and what it holds."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.child: Child | None = None  # until its thread has started it
        self.holds: dict[int, Delivery] = {}  # claim -> delivery, in the order sent
        self.is_ready = False
        self.is_recalled = False
        self.is_leaving = False  # gets no more work, and its successor is there already if it is to have one
        self.hard: dict[int, float] = {}  # claim -> seconds, of those that have a hard limit
        self.cut: Lost | None = None  # what it was killed for
        self.progress_at = 0.0  # monotonic; what it runs began then, or a moment later
        self.thread: threading.Thread | None = None

    def is_stalled(self, now: float) -> bool:
        """Return whether its task has been running for a while: what would wait behind it would wait long."""
        return bool(self.holds) and now - self.progress_at > STALL_S

    def deadline(self) -> float | None:
        """Return when what it runs reaches its hard limit; monotonic."""
        if not self.hard or self.cut is not None:
            return None
        limit = self.hard.get(next(iter(self.holds), 0))
        return None if limit is None else self.progress_at + limit

    def end(self, cut: Lost, signum: int | None) -> None:
        """Kill it for what it runs, or send it a signal; it gets no more work."""
        assert self.child is not None
        self.cut = cut
        self.is_ready = False
        if signum is None:
            self.child.kill()
        else:
            self.child.signal(signum)

    def leave(self) -> None:
        """Let it finish what it runs and then end; what waits behind that comes back."""
        self.is_leaving, self.is_ready = True, False
        if self.holds:
            self.send("recall", None)
        self.send("stop", None)

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
    keeps_hard_limits = True
    ends_attempts = True

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
        self._deaths: deque[float] = deque(maxlen=100)  # when children died that nobody asked to; monotonic
        self._terminating: dict[int, int] = {}  # claim -> signal
        self._told: dict[str, tuple[str, Any]] = {}  # what each new child must hear first
        self._next_number = concurrency + 1

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
            except Exception as error:
                if not isinstance(error, (EOFError, OSError)):
                    logger.error(
                        "what pool process %d says is not understood (%r): it is ended", place.child.pid, error
                    )
                kind, value = "end", None
            if kind == "end":
                # Not before the process is gone: see the class. Its own exit code tells more than a signal of ours.
                if place.child.wait(EXIT_TIMEOUT_S) is None:
                    place.child.kill()
                    place.child.wait(None)
                self._tell(kind, place, value)
                return
            self._tell(kind, place, value)

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

    def put(self, deliveries: Sequence[Delivery], hard: Mapping[int, float] = UNLIMITED) -> list[Delivery]:
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
            if hard and delivery.claim in hard:
                best.hard[delivery.claim] = hard[delivery.claim]
            shares.setdefault(best.number, []).append(delivery)
        for place in places:
            share = shares.get(place.number)
            if share:
                place.send("run", share)
        if too_many:
            self._pace.beware()  # else they would be claimed and given back again and again until a child is free
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
                self._take_done(place, value, drained)
            elif kind == "back":
                place.is_recalled = False
                drained.returned.extend(place.holds.pop(claim) for claim in value if claim in place.holds)
            elif kind == "ready":
                self._welcome(place)
            elif kind == "retire":
                logger.info("pool process %d retires: %s", place.child.pid if place.child else 0, value)
                self._replace(place)
            elif kind == "end":
                self._bury(place, drained)
        self._kill_overdue()
        if self._terminating:
            self._terminate_pending()
        if self._respawn_at and not self._stopping:
            self._respawn()
        return drained

    def _take_done(self, place: _Place, outcomes: Iterable[Outcome], drained: Drained) -> None:
        place.progress_at = time.monotonic()
        for outcome in outcomes:
            delivery = place.holds.pop(outcome.claim, None)
            if delivery is None:
                continue
            self._pace.note(delivery.name, outcome.runtime or 0.0)
            drained.outcomes.append(outcome)
            if place.hard:
                place.hard.pop(outcome.claim, None)
        if place.cut is not None and place.cut.signum is not None and not place.holds:
            self._replace(place)  # it survived the signal, or will die of it in a moment: it gets nothing more

    def _welcome(self, place: _Place) -> None:
        self._failed_starts = 0
        if place.is_leaving:
            place.leave()  # once more: it did not exist when it was told
            return
        for kind, value in self._told.values():
            place.send(kind, value)
        place.is_ready = True

    def _replace(self, place: _Place) -> None:
        """Start a successor, and let this child end once it has finished what it runs."""
        if not (place.is_leaving or self._stopping):
            self._add(place.number)
        place.leave()

    def next_deadline(self) -> float | None:
        found = [at for place in self._places if (at := place.deadline()) is not None]
        return min(found, default=None)

    def _kill_overdue(self) -> None:
        """Kill children whose task is past its hard limit; their end comes as news."""
        now = time.monotonic()
        for place in self._places:
            at = place.deadline()
            if at is not None and at <= now:
                claim, delivery = next(iter(place.holds.items()))
                place.end(Lost(delivery, limit=place.hard[claim]), None)

    def _bury(self, place: _Place, drained: Drained) -> None:
        """Tell what a dead child held apart, and plan its successor."""
        if place not in self._places:
            return
        self._places.remove(place)
        child = place.child
        code = None
        if child is not None:
            code = child.wait(0)
        cause = f"Worker exited prematurely: {exit_text(code)}."
        begun = child.begun() if child is not None and place.holds else frozenset()
        for claim, delivery in place.holds.items():
            if begun is not None and claim not in begun:
                drained.returned.append(delivery)
            elif place.cut is not None and place.cut.delivery.claim == claim:
                drained.lost.append(place.cut)
            else:
                drained.lost.append(Lost(delivery, cause))
        place.holds.clear()
        if child is not None:
            child.close()
        if not (self._stopping or place.is_leaving):
            self._respawn_at.append((time.monotonic() + self._pause_after(place, cause), place.number))

    def _pause_after(self, place: _Place, cause: str) -> float:
        """Return how long to wait before a dead child is replaced: no time, unless they die one after the other."""
        if place.cut is not None:
            return 0.0
        if not place.is_ready:
            # A child that cannot even start is tried again ever more slowly.
            self._failed_starts += 1
            logger.error("a pool process ended before it was ready (%s)", cause)
            return min(RESTART_MAX_S, 0.5 * 2.0**self._failed_starts)
        now = time.monotonic()
        self._deaths.append(now)
        recent = sum(now - at <= CRASH_WINDOW_S for at in self._deaths) - max(5, 3 * self.concurrency)
        if recent <= 0:
            return 0.0
        pause = min(RESTART_MAX_S, 0.25 * 2.0**recent)
        logger.error("pool processes die one after the other (%s); the next one starts in %g s", cause, pause)
        return pause

    def _respawn(self) -> None:
        now = time.monotonic()
        due = [entry for entry in self._respawn_at if entry[0] <= now]
        for entry in due:
            self._respawn_at.remove(entry)
            self._add(entry[1])

    def tell(self, topic: str, kind: str, value: Any) -> None:
        """Tell all children, and each that comes later, what replaces the last word on this topic."""
        self._told[topic] = (kind, value)
        for place in self._places:
            if place.is_ready:
                place.send(kind, value)

    def terminate(self, claim: int, signum: int) -> None:
        self._terminating[claim] = signum
        self._terminate_pending()

    def _terminate_pending(self) -> None:
        """Signal the children that run what is to be terminated; what merely waits in one is asked back first."""
        now = time.monotonic()
        for claim, signum in list(self._terminating.items()):
            place = next((place for place in self._places if claim in place.holds), None)
            if place is None:
                del self._terminating[claim]  # it came back, or to its end
            elif len(place.holds) == 1 or (next(iter(place.holds)) == claim and place.is_stalled(now)):
                del self._terminating[claim]
                if place.cut is None and place.child is not None:
                    self._signal(place, place.holds[claim], signum)
            elif not place.is_recalled:
                place.is_recalled = True
                place.send("recall", None)

    def _signal(self, place: _Place, delivery: Delivery, signum: int) -> None:
        assert place.child is not None
        if signum == getattr(signal, "SIGUSR1", None):
            place.child.signal(signum)  # a soft limit, ahead of time: the task decides, and its end is its own
        else:
            place.end(Lost(delivery, signum=signum), signum)

    def grow(self, number: int) -> None:
        self.concurrency += number
        for _ in range(number):
            self._add(self._next_number)
            self._next_number += 1

    def shrink(self, number: int) -> None:
        staying = sorted(
            (place for place in self._places if not place.is_leaving),
            key=lambda place: (place.is_ready, len(place.holds)),
        )
        number = min(number, self.concurrency - 1)
        self.concurrency -= number
        waiting = self._respawn_at[:number]  # the cheapest to give up are those that have not been started again yet
        del self._respawn_at[:number]
        for place in staying[: number - len(waiting)]:
            place.leave()

    def restart(self) -> None:
        for place in list(self._places):
            if not place.is_leaving:
                self._replace(place)

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
        return [place.child.pid for place in list(self._places) if place.child is not None]

    def abandoned(self) -> int:
        return 0


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


def tuples(values: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return named tuples as plain ones, which marshal takes (0.7 us for a delivery; pickle takes 3)."""
    return [tuple(value) for value in values]
