"""What keeps a file healthy while any worker lives: rescue, expire, prune, relay, give space back, and the heartbeat.

Every duty is a bounded piece of work that returns how many seconds it may rest; one thread of the worker goes through them.
All workers do all of it: each duty looks with a read first, and whoever comes second finds nothing left to do.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from litetq import clock, signals
from litetq.exceptions import OperationalError, StoreBusy

if TYPE_CHECKING:
    from litetq.engine import FileEngine, Seat
    from litetq.message import Delivery, Record
    from litetq.records import Records

logger = logging.getLogger("celery.worker")

HEARTBEAT_S: Final = 10.0  # the only writes of an idle worker
RESCUE_S: Final = 1.0
GONE_LOOKS: Final = 2  # in which a file was not in its place before it counts as gone; arbitrary
EXPIRE_S: Final = 1.0
RELAY_S: Final = 0.05  # where results go to another place
RELAY_ROWS: Final = 100  # at once
CHECKPOINT_S: Final = 0.5  # between two looks at the size of the log
BETWEEN_CHECKPOINTS_S: Final = 0.1  # under load
FIRST_TIDY_S: Final = 60.0  # after a worker's start; arbitrary, as the next
TIDY_S: Final = 3600.0  # between two times that expired results are removed at another place
PRUNE_S: Final = 10.0
PRUNE_ROWS: Final = 500  # per transaction: a few milliseconds, so that no writer waits long
BETWEEN_PIECES_S: Final = 0.01  # lets writers in
RESERVE_PAGES: Final = 256  # free pages that stay in the file for what comes next: 1 MiB
AFTER_ERROR_S: Final = 5.0


class Duty(NamedTuple):
    name: str
    do: Callable[[], float]  # returns seconds to rest


class Upkeep:
    """The thread that goes through the duties. May be stopped before it was started, and twice."""

    def __init__(self, duties: Sequence[Duty], name: str) -> None:
        self._duties = duties
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        due = {duty.name: 0.0 for duty in self._duties}
        while not self._stop.is_set():
            now = clock.monotonic()
            for duty in self._duties:
                if due[duty.name] <= now and not self._stop.is_set():
                    due[duty.name] = clock.monotonic() + self._do(duty)
            self._stop.wait(max(0.0, min(due.values()) - clock.monotonic()))

    def _do(self, duty: Duty) -> float:
        try:
            return duty.do()
        except StoreBusy as error:
            logger.warning("upkeep (%s): %s", duty.name, error)
        except OperationalError as error:
            logger.error("upkeep (%s): %s", duty.name, error)
        except Exception:
            # One duty that fails must not end the others; the worker would seem alive and rescue nobody.
            logger.exception("upkeep (%s) raised; it is tried again", duty.name)
        return AFTER_ERROR_S


received_logger = logging.getLogger("celery.worker.strategy")  # what becomes of tasks before they run


class OtherResults(Protocol):
    """A second place of results."""

    def take_over(self, ended: Sequence[tuple[int, str, Record | None, float | None, int | None]]) -> int:
        """Write what the outbox holds; return up to which number of it that is done."""


def relay(records: Records, results: OtherResults) -> Duty:
    """Return the duty of copying ends to another place. It has a thread of its own: the place may be slow, or away."""

    def do() -> float:
        ended = records.outbox(RELAY_ROWS)
        if ended:
            records.relayed(results.take_over(ended))
        return 0.0 if len(ended) == RELAY_ROWS else RELAY_S

    return Duty("relay", do)


def tidy(cleanup: Callable[[], object], release: Callable[[], object]) -> Duty:
    """Return the duty of removing what has expired at a place of results that does not do so itself.

    `release` lets go of what the thread holds open afterwards.
    """
    is_first = True

    def do() -> float:
        nonlocal is_first
        if is_first:
            is_first = False
            return FIRST_TIDY_S
        try:
            cleanup()
        finally:
            release()
        return TIDY_S

    return Duty("tidy", do)


def relay_rest(duty: Duty) -> None:
    """Copy what is left when a worker ends; what cannot be copied waits in the outbox for the next one."""
    try:
        while not duty.do():
            pass
    except Exception as error:
        logger.error("upkeep (relay): results wait for the next worker: %s", error)


def watch_file(engine: FileEngine, gone: Callable[[], object]) -> Duty:
    """Return the duty of calling `gone` once, when the file was moved or deleted, or another one put in its place.

    What is open stays usable, but nobody else finds it any more.
    """
    opened = engine.identity()
    looks = 0

    def do() -> float:
        nonlocal looks
        looks = 0 if engine.identity() == opened else looks + 1
        if looks == GONE_LOOKS:
            gone()
        return RESCUE_S

    return Duty("file", do)


def rescue_from_dead(seat: Seat) -> None:
    """End or give back what dead workers held, and say so."""
    for name, found in seat.rescue():
        logger.warning(
            "worker %s is gone: %d of its tasks had not begun and are back in their queues, %d run again, %d failed, "
            "%d are dead letters",
            name, len(found.released), len(found.redelivered), len(found.failed), len(found.dead),
        )  # fmt: skip


def duties(seat: Seat, told: Callable[[Delivery], object] | None = None) -> list[Duty]:
    """Return the duties of a worker at its file.

    `told` is called with each task that expired while it waited, where the log or a receiver of `task_revoked` wants it.
    """
    store = seat.engine.store

    def heartbeat() -> float:
        seat.beat()
        if signals.heartbeat_sent.receivers:
            signals.heartbeat_sent.send(sender=seat)
        return HEARTBEAT_S

    def rescue() -> float:
        rescue_from_dead(seat)
        return RESCUE_S

    def expire() -> float:
        is_wanted = signals.task_revoked.receivers or received_logger.isEnabledFor(logging.INFO)
        ended: list[Delivery] | None = [] if told is not None and is_wanted else None
        count = store.expire(clock.now(), ended=ended)
        if ended and told is not None:
            for delivery in ended:
                told(delivery)
        return 0.0 if count else EXPIRE_S

    def prune() -> float:
        now = clock.now()
        if store.records.prune(now, PRUNE_ROWS):
            return BETWEEN_PIECES_S
        if store.records.give_space_back(keep=RESERVE_PAGES):
            return BETWEEN_PIECES_S
        expiry = store.records.next_expiry()
        return PRUNE_S if expiry is None else min(PRUNE_S, max(1.0, expiry - now))

    def checkpoint() -> float:
        return BETWEEN_CHECKPOINTS_S if seat.engine.database.checkpoint() else CHECKPOINT_S

    return [
        Duty("heartbeat", heartbeat),
        Duty("checkpoint", checkpoint),
        Duty("rescue", rescue),
        Duty("expire", expire),
        Duty("prune", prune),
    ]
