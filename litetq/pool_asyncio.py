"""The pool asyncio: each attempt of an `async def` task is an asyncio task on the event loop of the process (`aio.py`).

Plain functions run in a small pool of threads beside it, so that they never hold up the loop. The worker's thread puts and
drains, the loop's thread runs; a claim is in one of the dicts of `AsyncioPool` as long as its end is not decided, and who
takes it out decides.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from litetq import aio
from litetq.limits import CutOff
from litetq.message import Delivery, Outcome
from litetq.pool import ABANDONED_MIN, HELD_MAX, STALL_S, UNLIMITED, Drained, Lost, Run, ThreadPool
from litetq.probes import reached

T = TypeVar("T")

logger = logging.getLogger("celery.worker")

THREADS: Final = 16  # for plain functions, at most; arbitrary
STUCK_S: Final = 1.0  # a loop that starts nothing for so long is blocked: what was to start goes back; arbitrary
FAREWELL_S: Final = 1.0  # for coroutines that were cut off at a cold stop to run their `finally`; arbitrary

AsyncRun = Callable[[Delivery], Coroutine[Any, Any, Outcome]]


class _Attempt:
    """One attempt on the loop."""

    __slots__ = ("began_at", "delivery", "limit", "run", "task")

    def __init__(self, delivery: Delivery, run: AsyncRun, limit: float | None) -> None:
        self.delivery = delivery
        self.run = run
        self.limit = limit  # seconds; None: no hard limit
        self.began_at: float | None = None  # monotonic
        self.task: asyncio.Task[None] | None = None


class AsyncioPool:
    """Runs up to `concurrency` attempts at once, those of async tasks on the event loop, others in up to 16 threads.

    A hard limit, a termination and a cold stop cancel the coroutine. One that goes on all the same counts as abandoned.
    """

    name = "asyncio"
    keeps_hard_limits = True
    ends_attempts = True

    def __init__(
        self,
        run: Run,
        run_async: Callable[[str], AsyncRun | None],
        begin: Callable[[int], None],
        wake: Callable[[], None],
        concurrency: int,
    ) -> None:
        self.concurrency = concurrency
        self._run_async = run_async  # None: this task is a plain function
        self._begin = begin
        self._wake = wake
        self._loop = aio.the_loop()
        self._threads = ThreadPool(run, begin, wake, min(concurrency, THREADS))
        self._has_threads = False
        self._is_crowded = False  # there were more plain functions than room for them, and no async task since
        self._look_again_at = 0.0  # monotonic: when a crowded pool claims although no thread is free
        self._look_at = THREADS  # how many it claims then
        self._has_warned = False
        self._starting: dict[int, _Attempt] = {}  # by claim: given to the loop, which has not got to them
        self._running: dict[int, _Attempt] = {}
        self._limited: dict[int, _Attempt] = {}  # those that have a hard limit
        self._next_end_at = math.inf  # monotonic: no limit is reached before; touched by the worker's thread only
        self._asked = self._answered = 0  # times that the loop was given something to start, and that it got to it
        self._asked_at = 0.0  # monotonic: the first of the times that it has not got to
        self._done: deque[Outcome] = deque()
        self._returned: deque[Delivery] = deque()
        self._lost: list[Lost] = []
        self._held = 0  # on the loop, put and not drained; touched by the worker's thread only
        self._cut: set[asyncio.Task[None]] = set()  # cut off, and not yet at their end
        self._is_refusing = False

    def start(self) -> None:
        pass

    # -- in the worker's thread

    def room(self) -> int:
        if self._is_stuck() or (self._cut and self._has_too_many_abandoned()):
            return 0
        free = max(0, min(self.concurrency, HELD_MAX) - self.held())
        if not self._is_crowded:
            return free
        places = self._threads.room()
        if not places and time.monotonic() < self._look_again_at:
            return 0
        return min(free, places or self._look_at)

    def _is_stuck(self) -> bool:
        """Return whether the loop has not turned for a while: a coroutine holds it up."""
        return self._asked != self._answered and time.monotonic() - self._asked_at > STUCK_S

    def _has_too_many_abandoned(self) -> bool:
        """Return whether so many coroutines go on past their end that no more work is to be taken; say so when it changes."""
        count = len(self._cut)
        is_refusing = count >= max(ABANDONED_MIN, self.concurrency)
        if is_refusing and not self._is_refusing:
            logger.error(
                "%d coroutines were cancelled and go on all the same; no task is taken until one of them ends", count
            )
        self._is_refusing = is_refusing
        return is_refusing

    def put(self, deliveries: Sequence[Delivery], hard: Mapping[int, float] = UNLIMITED) -> list[Delivery]:
        plain = []
        attempts = []
        for delivery in deliveries:
            run = self._run_async(delivery.name)
            if run is None:
                plain.append(delivery)
            else:
                attempts.append(_Attempt(delivery, run, hard.get(delivery.claim)))
        if attempts:
            self._start(attempts)
            self._is_crowded, self._look_at = False, THREADS
        return self._put_plain(plain, hard) if plain else []

    def _start(self, attempts: Sequence[_Attempt]) -> None:
        now = time.monotonic()
        if self._asked == self._answered:
            self._asked_at = now
        self._asked += 1
        for attempt in attempts:
            claim = attempt.delivery.claim
            self._starting[claim] = attempt
            if attempt.limit is not None:
                self._limited[claim] = attempt
                self._next_end_at = min(self._next_end_at, now + attempt.limit)
        self._held += len(attempts)
        self._loop.call_soon_threadsafe(self._begin_all, attempts)

    def _put_plain(self, deliveries: Sequence[Delivery], hard: Mapping[int, float]) -> list[Delivery]:
        """Give plain functions to the threads; return those that would have to wait for one that is busy for long."""
        if not self._has_threads:
            self._has_threads = True
            self._threads.start()
        places = self._threads.room()
        fitting, rest = deliveries[:places], list(deliveries[places:])
        if fitting:
            limits = {one.claim: hard[one.claim] for one in fitting if one.claim in hard} if hard else UNLIMITED
            self._threads.put(fitting, limits)
        if rest:
            # From now on only as many are claimed as there are threads for. Some async task may stand behind them in the
            # queue, so while all threads are busy some are claimed now and then all the same, each time more of them.
            if self._is_crowded and not places:
                self._look_at = min(2 * self._look_at, self.concurrency)
                self._warn_of_crowd()
            self._is_crowded = True
            self._look_again_at = time.monotonic() + STUCK_S
        return rest

    def _warn_of_crowd(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "pool asyncio: its %d threads are busy with plain functions, and more of them wait; async tasks behind "
                "them start late. Give slow plain functions a queue and a worker of their own",
                self._threads.concurrency,
            )

    def drain(self) -> Drained:
        outcomes = _emptied(self._done)
        if self._next_end_at <= time.monotonic():
            self._end_overdue()
        returned = _emptied(self._returned)
        lost, self._lost = self._lost, []
        self._held -= len(outcomes) + len(returned) + len(lost)
        if self._has_threads:
            plain = self._threads.drain()
            return Drained(outcomes + plain.outcomes, returned + plain.returned, lost + plain.lost)
        return Drained(outcomes, returned, lost)

    def _end_overdue(self) -> None:
        """Cut off what is past its hard limit, and see when the next one will be."""
        now = time.monotonic()
        self._next_end_at = math.inf
        for claim, attempt in list(self._limited.items()):
            assert attempt.limit is not None
            ends_at = (now if attempt.began_at is None else attempt.began_at) + attempt.limit
            if ends_at <= now:
                self._end(claim, Lost(attempt.delivery, limit=attempt.limit))
            else:
                self._next_end_at = min(self._next_end_at, ends_at)

    def _end(self, claim: int, lost: Lost) -> None:
        """Put the end of an attempt on record, unless it has just come to its own, and cancel its coroutine."""
        attempt = self._running.pop(claim, None)
        self._limited.pop(claim, None)
        if attempt is not None:
            self._lost.append(lost)
            self._loop.call_soon_threadsafe(self._cut_off, attempt)

    def next_deadline(self) -> float | None:
        soonest = self._next_end_at
        if self._has_threads:
            limit = self._threads.next_deadline()
            soonest = soonest if limit is None else min(soonest, limit)
            if self._threads.held() > self._threads.concurrency:
                soonest = min(soonest, time.monotonic() + STALL_S)  # see in time whether what waits is to be recalled
        if self._starting:
            soonest = min(soonest, time.monotonic() + STUCK_S)
        return None if soonest == math.inf else soonest

    def held(self) -> int:
        return self._held + self._threads.held()

    def recall(self, *, everything: bool = False) -> None:
        if self._has_threads:
            self._threads.recall(everything=everything)
        if not (everything or self._is_stuck()):
            return
        for claim in list(self._starting):
            attempt = self._starting.pop(claim, None)
            if attempt is not None:
                self._limited.pop(claim, None)
                self._returned.append(attempt.delivery)

    def terminate(self, claim: int, signum: int) -> None:
        attempt = self._starting.pop(claim, None)
        if attempt is not None:
            self._limited.pop(claim, None)
            self._returned.append(attempt.delivery)
            return
        attempt = self._running.get(claim)
        if attempt is None:
            name = self._threads.name_of(claim)  # else it has come to its end
            if name is not None:
                logger.warning(
                    "pool asyncio: %s is a plain function and cannot be terminated, it runs in a thread", name
                )
        elif signum == getattr(signal, "SIGUSR1", None):
            self._loop.call_soon_threadsafe(_interrupt, attempt)  # the task decides, and its end is its own
        else:
            self._end(claim, Lost(attempt.delivery, signum=signum))

    def grow(self, number: int) -> None:
        self.concurrency += number

    def shrink(self, number: int) -> None:
        self.concurrency = max(1, self.concurrency - number)

    def restart(self) -> None:
        pass

    def stop(self, *, kill: bool = False) -> None:
        """With `kill` cut off what runs on the loop, and give it a moment to run its `finally`; threads are left alone."""
        if self._has_threads:
            self._threads.stop(kill=kill)
        if not kill:
            return
        for claim, attempt in list(self._running.items()):
            self._end(claim, Lost(attempt.delivery, "Worker was stopped cold while the task ran."))
        farewell = threading.Event()
        self._loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self._tell_when_over(farewell)))
        farewell.wait(FAREWELL_S)

    def processes(self) -> list[int]:
        return [os.getpid()]

    def abandoned(self) -> int:
        return len(self._cut) + self._threads.abandoned()

    # -- in the loop's thread

    def _begin_all(self, attempts: Sequence[_Attempt]) -> None:
        was_stuck = self._is_stuck()
        self._answered += 1
        if was_stuck:
            self._wake()  # there is room again
        for attempt in attempts:
            claim = attempt.delivery.claim
            self._running[claim] = attempt  # in one of the two at any moment
            if self._starting.pop(claim, None) is None:
                self._running.pop(claim, None)  # it was taken back meanwhile
                continue
            attempt.task = self._loop.create_task(self._work(attempt))
            attempt.task.add_done_callback(functools.partial(self._is_over, attempt))

    async def _work(self, attempt: _Attempt) -> None:
        """What an asyncio task does from its beginning to its end."""
        delivery = attempt.delivery
        if attempt.limit is not None:
            attempt.began_at = time.monotonic()
        self._begin(delivery.claim)
        reached("begun")
        try:
            outcome = await attempt.run(delivery)
        except CutOff:
            return
        reached("ended")
        if attempt.limit is not None:
            self._limited.pop(delivery.claim, None)
        if self._running.pop(delivery.claim, None) is None:
            return  # its end is on record already
        self._done.append(outcome)
        if len(self._done) == 1:  # who added the first has woken the worker for all that come before it looks
            self._wake()

    def _cut_off(self, attempt: _Attempt) -> None:
        task = attempt.task
        if task is not None and not task.done():
            self._cut.add(task)
            aio.cut(task)

    def _is_over(self, attempt: _Attempt, task: asyncio.Task[None]) -> None:
        if task in self._cut:
            self._cut.discard(task)
            self._wake()  # there may be room again
        elif task.cancelled() and self._running.pop(attempt.delivery.claim, None) is not None:
            # By somebody's `for task in all_tasks(): task.cancel()`, before its first step.
            self._limited.pop(attempt.delivery.claim, None)
            self._returned.append(attempt.delivery)
            self._wake()

    async def _tell_when_over(self, farewell: threading.Event) -> None:
        if self._cut:
            await asyncio.wait(list(self._cut))
        farewell.set()


def _emptied(waiting: deque[T]) -> list[T]:
    """Take out what is in it; another thread may add to it meanwhile."""
    taken = []
    while waiting:
        taken.append(waiting.popleft())
    return taken


def _interrupt(attempt: _Attempt) -> None:
    if attempt.task is not None:
        aio.interrupt(attempt.task)
