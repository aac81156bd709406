"""The pools gevent and eventlet: each attempt is a greenlet of the worker's own thread.

The worker's loop, its upkeep and its control desk are greenlets beside them, so nothing here needs a lock: a greenlet gives
way only where it waits. One that uses the processor without waiting holds up all the others, the worker among them; no time
limit reaches it before it waits.
"""

from __future__ import annotations

import logging
import os
import signal as os_signals
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from litetq import green, platforms, signals
from litetq.exceptions import SoftTimeLimitExceeded
from litetq.limits import CutOff
from litetq.message import Delivery, Outcome
from litetq.pool import ABANDONED_MIN, HELD_MAX, UNLIMITED, Drained, Lost, Run
from litetq.probes import reached

logger = logging.getLogger("celery.worker")

FAREWELL_S: Final = 1.0  # for greenlets that were cut off at a cold stop to run their `finally`; arbitrary


class _Attempt:
    """One greenlet and what it runs."""

    __slots__ = ("delivery", "ends_at", "greenlet", "has_begun", "limit")

    def __init__(self, delivery: Delivery, limit: float | None) -> None:
        self.delivery = delivery
        self.limit = limit  # seconds
        self.ends_at: float | None = None  # monotonic; once it has begun, if it has a limit
        self.has_begun = False
        self.greenlet: Any = None


class GreenPool:
    """Runs up to `concurrency` attempts at once in greenlets of the library that has patched this process."""

    keeps_hard_limits = True
    ends_attempts = True

    def __init__(self, run: Run, begin: Callable[[int], None], wake: Callable[[], None], concurrency: int) -> None:
        self.name = platforms.green()
        self.concurrency = concurrency
        self._run = run
        self._begin = begin
        self._wake = wake
        self._attempts: dict[int, _Attempt] = {}  # by claim; who takes one out decides how it ended
        self._limited: dict[int, _Attempt] = {}  # those of them with a hard limit
        self._done: deque[Outcome] = deque()
        self._returned: list[Delivery] = []
        self._lost: list[Lost] = []
        self._cut: set[_Attempt] = set()  # ended from outside; their greenlets have not ended yet
        self._is_refusing = False

    def start(self) -> None:
        self._tell(signals.eventlet_pool_started)

    def _tell(self, signal: signals.Signal, **named: Any) -> None:
        """Send one of Celery's signals of the pool eventlet, which has no like for gevent."""
        if signal.receivers and self.name == "eventlet":
            signal.send(sender=self, **named)

    def room(self) -> int:
        if self._cut and self._has_too_many_abandoned():
            return 0
        return max(0, min(self.concurrency, HELD_MAX) - self.held())

    def _has_too_many_abandoned(self) -> bool:
        """Return whether so many greenlets go on past their end that no more work is to be taken; say so when it changes."""
        count = len(self._cut)
        is_refusing = count >= max(ABANDONED_MIN, self.concurrency)
        if is_refusing and not self._is_refusing:
            logger.error(
                "%d greenlets were ended and go on all the same; no task is taken until one of them ends", count
            )
        self._is_refusing = is_refusing
        return is_refusing

    def put(self, deliveries: Sequence[Delivery], hard: Mapping[int, float] = UNLIMITED) -> list[Delivery]:
        for delivery in deliveries:
            attempt = _Attempt(delivery, hard.get(delivery.claim) if hard else None)
            self._attempts[delivery.claim] = attempt
            if attempt.limit is not None:
                self._limited[delivery.claim] = attempt
            self._tell(signals.eventlet_pool_apply, target=self._run, args=(delivery,), kwargs={})
            attempt.greenlet = green.spawn(self._work, attempt)
        return []

    def _work(self, attempt: _Attempt) -> None:
        """What a greenlet does from its beginning to its end."""
        delivery = attempt.delivery
        if delivery.claim not in self._attempts:
            return  # it was taken back before its turn came
        attempt.has_begun = True
        if attempt.limit is not None:
            attempt.ends_at = time.monotonic() + attempt.limit
        self._begin(delivery.claim)
        reached("begun")
        try:
            outcome = self._run(delivery)
        except CutOff:
            self._cut.discard(attempt)
            return
        reached("ended")
        if self._take_out(delivery.claim) is None:
            self._cut.discard(attempt)  # it went on past its end, which is on record; this one counts for nothing
            return
        self._done.append(outcome)
        if len(self._done) == 1:  # who added the first has woken the worker for all that come before it looks
            self._wake()

    def _take_out(self, claim: int) -> _Attempt | None:
        self._limited.pop(claim, None)
        return self._attempts.pop(claim, None)

    def drain(self) -> Drained:
        if self._limited:
            self._end_overdue()
        outcomes = list(self._done)
        self._done.clear()
        returned, self._returned = self._returned, []
        lost, self._lost = self._lost, []
        return Drained(outcomes, returned, lost)

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for attempt in list(self._limited.values()):
            if attempt.ends_at is not None and attempt.ends_at <= now:
                self._end(attempt, Lost(attempt.delivery, limit=attempt.limit))

    def _end(self, attempt: _Attempt, lost: Lost) -> None:
        """Put the end of an attempt on record, and cut its greenlet off; one that has not begun comes back instead."""
        self._take_out(attempt.delivery.claim)
        if not attempt.has_begun:
            self._returned.append(attempt.delivery)
            return
        self._lost.append(lost)
        self._cut.add(attempt)
        green.throw(attempt.greenlet, CutOff())

    def next_deadline(self) -> float | None:
        if not self._limited:
            return None
        now = time.monotonic()
        return min(
            now + (attempt.limit or 0.0) if attempt.ends_at is None else attempt.ends_at
            for attempt in self._limited.values()
        )

    def held(self) -> int:
        return len(self._attempts) + len(self._done) + len(self._returned) + len(self._lost)

    def recall(self, *, everything: bool = False) -> None:
        # Nothing ever waits here behind another task: what has not begun is about to.
        if everything:
            for attempt in [attempt for attempt in self._attempts.values() if not attempt.has_begun]:
                self._take_out(attempt.delivery.claim)
                self._returned.append(attempt.delivery)

    def terminate(self, claim: int, signum: int) -> None:
        attempt = self._attempts.get(claim)
        if attempt is None:
            return  # it came to its end
        if signum == getattr(os_signals, "SIGUSR1", None) and attempt.has_begun:
            green.throw(attempt.greenlet, SoftTimeLimitExceeded())  # the task decides, and its end is its own
        else:
            self._end(attempt, Lost(attempt.delivery, signum=signum))

    def grow(self, number: int) -> None:
        self.concurrency += number

    def shrink(self, number: int) -> None:
        self.concurrency = max(1, self.concurrency - number)

    def restart(self) -> None:
        pass

    def stop(self, *, kill: bool = False) -> None:
        """With `kill` cut off what runs, and give it a moment to run its `finally`; else nothing runs any more."""
        self._tell(signals.eventlet_pool_preshutdown)
        for attempt in list(self._attempts.values()) if kill else []:
            self._end(attempt, Lost(attempt.delivery, "Worker was stopped cold while the task ran."))
        until = time.monotonic() + FAREWELL_S
        while kill and self._cut and time.monotonic() < until:
            time.sleep(0.01)
        self._tell(signals.eventlet_pool_postshutdown)

    def processes(self) -> list[int]:
        return [os.getpid()]

    def abandoned(self) -> int:
        return len(self._cut)
