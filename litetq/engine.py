"""The engine of a file: store, bell and run folder put together behind the protocols of `message.py`.

A program needs the first half of it (`FileEngine`: send, read, revoke). A worker takes a `Seat`, through which it claims and
settles, shows that it lives, and rescues what the dead left behind.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from litetq import clock, platforms, presence
from litetq.database import Database, peek
from litetq.exceptions import ImproperlyConfigured
from litetq.lanes import OwnPace, interval_of
from litetq.mailbox import Event, sent
from litetq.message import Delivery, Hanging, Outcome, Plan, Record, Taken
from litetq.probes import reached
from litetq.roster import Rescued
from litetq.roster import Worker as WorkerRow
from litetq.store import Store
from litetq.timetable import Entry, Fired, Firing, Run, Timetable
from litetq.wake import ALL, CONTROL, RESULT, WORK, Bell, Waiter, bell_for

logger = logging.getLogger("celery.worker")

BACKSTOP_S: Final = 1.0  # a sleeper looks again after this at the latest: what serves containers that share a volume
DEAF_S: Final = 0.02  # the same where nobody can wake this process (no run folder, no free slot)
LAST_BIT: Final = 63  # lanes from here on share one bit of the bell's mask
FEW: Final = 8  # ends of one transaction for which it is worth telling apart who waits; 0.3 us each
COMMANDS, REPLIES, EVENTS = 1, 2, 4  # bits of the bell's mask: what of the mailbox a sleeper waits for


class ResultWatch:
    """A sleeper for changes of results (None: of all): `announce`, look, then `wait`."""

    def __init__(self, bell: Bell, ids: Iterable[str] | None = None) -> None:
        self._bell = bell
        self._waiter = bell.waiter(RESULT, ALL if ids is None else result_mask(ids))

    def announce(self) -> None:
        self._waiter.announce()

    def wait(self, timeout: float | None) -> bool:
        """Return True when something may have changed, False when `timeout` seconds passed; returns early now and then."""
        limit = DEAF_S if self._bell.is_deaf else BACKSTOP_S
        return self._waiter.wait(limit if timeout is None else min(limit, timeout))

    async def wait_async(self, timeout: float | None) -> bool:
        limit = DEAF_S if self._bell.is_deaf else BACKSTOP_S
        return await self._waiter.wait_async(limit if timeout is None else min(limit, timeout))

    def __enter__(self) -> ResultWatch:
        return self

    def __exit__(self, *exc: object) -> None:
        self._waiter.close()


def result_mask(ids: Iterable[str]) -> int:
    """Return the bits of the bell's mask for the ends of these tasks, each one of 64: who waits for one is rarely woken for another."""
    mask = 0
    for id in ids:
        mask |= 1 << (zlib.crc32(id.encode()) & 63)
    return mask


class Begun(dict[int, int | None]):
    """What a worker and its children began: claim -> pid. What one of them must be taken to have begun is in it, too."""

    def __init__(self) -> None:
        self._noted: list[frozenset[int]] = []

    def add(self, claims: frozenset[int], pid: int | None) -> None:
        self.update(dict.fromkeys(claims, pid))
        self._noted.append(claims)

    def __contains__(self, claim: object) -> bool:
        return any(claim in claims for claims in self._noted)


class FileEngine:
    """One file, seen from one process. Nothing is opened before the first use.

    Args:
        path: the file; None makes a private temporary one that lives as long as the process (`memory://`).
        durability: "normal" survives the death of every process, "full" also power loss.
        busy_timeout: seconds to wait for the write lock before StoreBusy.
        result_expires: seconds that a finished task stays on record; None is for ever.
        failure_expires: the same for one that ended as FAILURE.
        redelivery_bound: how often begun work is given back before it rests as a dead letter.
        lease: seconds of silence after which a worker whose run file cannot be seen counts as dead.
        silence_bound: seconds of silence after which even a living process is given up.
        projection: address of the result backend that gets a copy of every end; None: this file is it.
        check_file_system: refuse file systems whose locks cannot be trusted.
        sends_events: write an event for each task that is sent.
        ageing: seconds of waiting that raise a task's priority by one; None: none do.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        *,
        durability: str = "normal",
        busy_timeout: float = 30.0,
        result_expires: float | None = 86_400.0,
        failure_expires: float | None = 86_400.0,
        redelivery_bound: int = 5,
        lease: float = 30.0,
        silence_bound: float = 300.0,
        projection: str | None = None,
        check_file_system: bool = True,
        sends_events: bool = False,
        ageing: float | None = None,
    ) -> None:
        self._private: str | None = None
        if path is None:
            self._private = tempfile.mkdtemp(prefix="litetq-")
            path = os.path.join(self._private, "memory.sqlite")
            atexit.register(self.close)
        self.path = Path(path)
        # By its real name: SQLite follows links, too, and one file must have one bell.
        self.run_folder = Path(f"{os.path.realpath(path)}-run")
        self.lease = lease
        self.silence_bound = silence_bound
        self.database = Database(
            self.path, durability=durability, busy_timeout=busy_timeout, check_file_system=check_file_system
        )
        self.store = Store(
            self.database,
            result_expires=result_expires,
            failure_expires=failure_expires,
            redelivery_bound=redelivery_bound,
            projection=projection,
            ageing=ageing,
        )
        self.timetable = Timetable(self.database, self.store)
        self.mailbox = self.store.mailbox
        self.sends_events = sends_events
        self._bell: Bell | None = None

    @property
    def bell(self) -> Bell:
        # A race makes two handles of the same bell: it is shared per process, and counted.
        if self._bell is None:
            self._bell = bell_for(self.run_folder)
        return self._bell

    transport = "sqlite"  # as monitors show it
    knows_workers = True  # whether those who work on its tasks are on record here

    @property
    def shown(self) -> str:
        """Where the tasks are, for people to read."""
        return str(self.path)

    @property
    def results_shown(self) -> str:
        """Where the results are, for people to read."""
        return self.shown

    @property
    def place(self) -> str:
        """What another process opens to have the same tasks."""
        return str(self.path)

    def identity(self) -> tuple[int, int] | None:
        """Return which file the path leads to now, whatever its name; None: to none. Of a private file, always the same."""
        if self._private is not None:
            return (0, 0)
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def close(self) -> None:
        """Close file and bell; the next use opens them again. A private temporary file is removed."""
        self.database.close()
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.close()
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)

    # -- Sender

    def send(self, plan: Plan, *, durability: str | None = None) -> bool:
        """Commit the plan, then wake as many workers as there are messages. When this returns, all of it is in the file.

        Returns False where nothing was enqueued, because the file knows the id (`Plan.if_new`).
        """
        now = clock.now()
        if self.sends_events:
            events = [sent(message, now) for message in plan.messages]
            is_sent = self.store.send(plan, now, full=durability == "full", events=events)
            self.bell.ring(CONTROL, EVENTS)
        else:
            is_sent = self.store.send(plan, now, full=durability == "full")
        reached("sent")
        if not is_sent:
            return False
        self._ring_for([message.queue for message in plan.messages])
        return True

    def fire(self, entry: Entry, firing: Firing, run: Run | None) -> Fired | None:
        """Do something about a due time (`Timetable.fire`), and wake workers for what was enqueued."""
        fired = self.timetable.fire(entry, firing, run, clock.now())
        if fired is not None and fired.outcome == "SENT":
            self._sent(run)
        return fired

    def release_waiting(self, entry: Entry, run: Run | None) -> Entry | None:
        """Enqueue the run of an entry that waited for the one before it (`Timetable.release_waiting`), and wake workers."""
        changed = self.timetable.release_waiting(entry, run, clock.now())
        if changed is not None:
            self._sent(run)
        return changed

    def run_now(self, name: str, run: Run) -> Entry | None:
        """Enqueue a run of an entry out of turn (`Timetable.run_now`), and wake workers."""
        changed = self.timetable.run_now(name, run, clock.now())
        if changed is not None:
            self._sent(run)
        return changed

    def _sent(self, run: Run | None) -> None:
        reached("sent")
        queues = [message.queue for plan in (() if run is None else run.plans) for message in plan.messages]
        if queues:
            self.store.lanes.remember(set(queues))
            self._ring_for(queues)

    def _ring_for(self, queues: Sequence[str]) -> None:
        mask = self._mask(queues)
        # Lanes with a bit of their own are matched exactly, so one sleeper a message is enough.
        self.bell.ring(WORK, mask, None if mask >> LAST_BIT else len(queues))

    def _mask(self, queues: Iterable[str] | None) -> int:
        """Return the bits of these queues' lanes; all bits where a queue has no lane yet."""
        if queues is None:
            return ALL
        mask = 0
        for queue in queues:
            lane = self.store.lanes.known(queue)
            if lane is None:
                return ALL
            mask |= 1 << min(lane, LAST_BIT)
        return mask

    # -- Results

    def read(self, id: str) -> Record | None:
        return self.store.records.read(id)

    def relatives(self, id: str) -> list[Record]:
        """Return all tasks of the workflow that a task belongs to; empty where the file does not know it."""
        return self.store.records.relatives(id)

    def read_many(self, ids: Sequence[str]) -> dict[str, Record]:
        return self.store.records.read_many(ids)

    def finished(self, id: str) -> Record | None:
        """Return the end that is on record under an id, whether or not a task of this id waits or runs."""
        return self.store.records.finished(id)

    def watch(self, ids: Sequence[str] | None = None) -> ResultWatch:
        return ResultWatch(self.bell, ids)

    def forget(self, ids: Iterable[str]) -> int:
        return self.store.records.forget(ids)

    def cleanup(self) -> int:
        """Remove all results whose time is over, and return how many; workers do so by themselves, a piece at a time."""
        count = 0
        while pruned := self.store.records.prune(clock.now()):
            count += pruned
        return count

    def store_record(self, record: Record, expires_at: float | None, *, claim: int | None = None) -> None:
        """Write a result by id; with a claim number, only over an older one."""
        self.store.records.store_record(record, expires_at, claim=claim)
        self.bell.ring(RESULT)

    def take_over(self, ended: Sequence[tuple[int, str, Record | None, float | None, int | None]]) -> int:
        """Write the ends that the outbox holds; return up to which number of it that is done."""
        for _, _, record, expires_at, claim in ended:
            if record is not None and record.place == "DONE":
                self.store_record(record, expires_at, claim=claim)
        return ended[-1][0]

    def update_state(
        self,
        id: str,
        state: str,
        data: bytes | None,
        content_type: str | None,
        *,
        claim: int | None = None,
        started: bool = False,
        traceback: str | None = None,
    ) -> bool:
        """Record a state of an unfinished task; False when the claim is lost, then nothing has changed."""
        changed = self.store.update_state(
            id, state, data, content_type, clock.now(), claim=claim, started=started, traceback=traceback
        )
        self.bell.ring(RESULT)
        return changed

    def ensure_chords_allowed(self) -> None:
        """Do nothing: a file always counts the members of chords. Celery's backends raise here where they cannot."""

    def complete_chord(self, request: Any, body: Mapping[str, Any], members: Sequence[Any]) -> bool:
        """Raise ImproperlyConfigured: the file releases the body of a chord itself, so nobody asks it."""
        raise ImproperlyConfigured(
            "celery.chord_unlock belongs to chords that were sent over a broker; a file releases the body of a chord itself"
        )

    def is_member(self, delivery: Delivery) -> bool:
        """Return whether an unfinished task belongs to a chord that still waits for it."""
        return self.store.workflow.is_member(self.store.database, delivery.seq)

    def hanging(self, seq: int) -> Hanging:
        """Return what waits behind an unfinished task."""
        return self.store.workflow.hanging(self.store.database, seq)

    def has_worker(self) -> bool:
        """Return whether any worker is signed on, be it one that has just died."""
        return bool(self.store.roster.workers())

    def lead(self, owner: str) -> bool:
        """Return whether this beat is to send what is due of its app: in a file each is, for the file sees to it that one does."""
        return True

    # -- ControlBus

    def revoke(self, ids: Sequence[str], reason: str = "revoked") -> int:
        ended = self.store.revoke(ids, reason, clock.now())
        self.bell.ring(RESULT)
        self.bell.ring(CONTROL, EVENTS)
        return ended

    def revoke_stamped(self, stamps: Mapping[str, Iterable[Any]], reason: str = "revoked") -> list[str]:
        """Revoke what carries any of these stamps, now or within three hours (`Store.revoke_stamped`); return the ids."""
        found = self.store.revoke_stamped(stamps, reason, clock.now())
        self.bell.ring(RESULT)
        self.bell.ring(CONTROL, EVENTS)
        return found

    def run_again(self, ids: Sequence[str]) -> int:
        """Let failed tasks run again, with all failed ones of their workflows (`Store.run_again`); return how many."""
        count = self.store.run_again(ids, clock.now())
        if count:
            self.bell.ring(WORK, ALL)
            self.bell.ring(RESULT)
        return count

    def purge(self, queues: Sequence[str] | None = None) -> int:
        count = self.store.purge(queues, clock.now())
        self.bell.ring(RESULT)
        return count

    def bind(
        self, queue: str, exchange: Any = None, exchange_type: str | None = None, routing_key: str | None = None
    ) -> None:
        """Let a queue be fed by an exchange, from when it is served next; a file has no exchanges."""

    def about_queue(self, name: str, worker: str) -> Mapping[str, Any] | None:
        """Return how a queue that a worker serves is declared; empty: it is none of its own. None: a file declares nothing."""
        return None

    def post(self, ticket: str | None, command: str, lifetime: float) -> int:
        """Give a command (JSON) to all workers that listen; return its number."""
        n = self.mailbox.post(ticket, command, clock.now(), lifetime)
        self.bell.ring(CONTROL, COMMANDS)
        return n

    def reply(self, ticket: str, worker: int, node: str, answer: str, lifetime: float) -> None:
        """Answer a command (JSON)."""
        self.mailbox.reply(ticket, worker, node, answer, clock.now(), lifetime)
        self.bell.ring(CONTROL, REPLIES)

    def write_events(self, events: Sequence[Event]) -> None:
        """Write events, and wake those who read them."""
        self.mailbox.write_events(events)
        self.bell.ring(CONTROL, EVENTS)

    def mail_waiter(self, what: int) -> Waiter:
        """Return a sleeper for COMMANDS, REPLIES or EVENTS."""
        return self.bell.waiter(CONTROL, what)

    # -- facts

    def workers(self) -> list[WorkerRow]:
        """Return the workers that are signed on; of those that died, the ones that nobody has cleaned up after."""
        return self.store.roster.workers()

    def lives(self, worker: WorkerRow) -> bool | None:
        """Return whether a worker that is signed on lives; None where nothing tells, as in a copy: the run folder is not copied."""
        return presence.is_alive(self.run_folder / f"{worker.run}.run")

    def may_live(self, worker: WorkerRow) -> bool:
        """Return whether a worker that is signed on lives, as far as can be known."""
        return self.lives(worker) is not False

    def begun(self, worker: WorkerRow) -> Begun | None:
        """Return the claims whose user code was entered, with the pid that did; None when that cannot be known."""
        if worker.boot != platforms.boot_id():
            return None
        found = Begun()
        for path in (
            self.run_folder / f"{worker.run}.run",
            *presence.children_of(self.run_folder, worker.run),
        ):
            claims = presence.begun(path)
            if claims is None:
                return None
            found.add(claims, presence.pid_of(path))
        return found

    def record_app(self, value: Mapping[str, Any]) -> None:
        """Let the file name the app that it belongs to, so that a worker given only the file can find it."""
        text = json.dumps(value, sort_keys=True)
        if self.store.get_meta("app") != text:
            self.store.set_meta("app", text)

    def recorded_app(self) -> dict[str, Any] | None:
        text = self.store.get_meta("app")
        return None if text is None else json.loads(text)

    def set_rate_limit(self, name: str, rate: str | float | None) -> None:
        """Give a task a rate limit in this file ("10/s", "10/m", "10/h", a number a second), or take it away (None, 0).

        It holds for all workers, from the next start on. Raises ValueError for what is no rate.
        """
        self._set_limits({name: interval_of(rate)})

    def declare_limits(self, intervals: Mapping[str, float | None]) -> None:
        """Take over the rate limits that a program's tasks have, in seconds between two starts, by name.

        Only what differs from what was declared last changes: what was said at run time outlives a restart.
        """
        declared: dict[str, float] = json.loads(self.store.get_meta("limits") or "{}")
        changed = {name: interval for name, interval in intervals.items() if declared.get(name) != interval}
        if changed:
            self._set_limits(changed)
            known = {name: interval for name, interval in {**declared, **changed}.items() if interval is not None}
            self.store.set_meta("limits", json.dumps(known, sort_keys=True))

    def declare_max_running(self, counts: Mapping[str, int | None]) -> None:
        """Take over how many of each task a program wants to run at once, by name; only what differs changes."""
        declared: dict[str, int] = json.loads(self.store.get_meta("max_running") or "{}")
        changed = {name: count for name, count in counts.items() if declared.get(name) != count}
        if changed:
            self.store.lanes.set_max_running(changed)
            known = {name: count for name, count in {**declared, **changed}.items() if count is not None}
            self.store.set_meta("max_running", json.dumps(known, sort_keys=True))
            self.bell.ring(WORK, ALL)

    def _set_limits(self, intervals: Mapping[str, float | None]) -> None:
        self.store.lanes.set_limits(intervals, clock.now())
        self.bell.ring(WORK, ALL)

    def seat(
        self,
        name: str,
        *,
        queues: frozenset[str] | None = None,
        info: Mapping[str, Any] | None = None,
        pace: OwnPace | None = None,
    ) -> Seat:
        """Register a worker of this node name and return what it works through."""
        return Seat(self, name, queues, dict(info or {}), pace)


class ResultFile(FileEngine):
    """A file of results beside that of the tasks, where each end is copied to.

    What has not ended, and an end that is not copied yet, is read from the file of the tasks.

    Args:
        tasks: returns the file of the tasks, or None where there is none to be read.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, *, tasks: Callable[[], FileEngine | None], **options: Any
    ) -> None:
        super().__init__(path, **options)
        self._tasks = tasks

    def read(self, id: str) -> Record | None:
        return self.read_many([id]).get(id)

    def read_many(self, ids: Sequence[str]) -> dict[str, Record]:
        tasks = self._tasks()
        known = {} if tasks is None else tasks.read_many(ids)
        copies = super().read_many(ids)
        return {**known, **{id: copy for id, copy in copies.items() if _is_last_word(copy, known.get(id))}}

    def take_over(self, ended: Sequence[tuple[int, str, Record | None, float | None, int | None]]) -> int:
        done = super().take_over(ended)
        tasks = self._tasks()
        if tasks is not None:
            # Who forgets an end does so there first, and then here: what is gone there by now may be too late here.
            copied = [record.id for _, _, record, _, _ in ended if record is not None and record.place == "DONE"]
            gone = set(copied) - tasks.read_many(copied).keys()
            if gone:
                super().forget(gone)
        return done

    def forget(self, ids: Iterable[str]) -> int:
        ids = list(ids)
        tasks = self._tasks()
        if tasks is not None:
            tasks.forget(ids)
        return super().forget(ids)


def _is_last_word(copy: Record, known: Record | None) -> bool:
    """Return whether a copy counts more than what the file of the tasks has: an id that was sent again may have ended since."""
    return known is None or (known.place == "DONE" and (copy.done_at or 0.0) >= (known.done_at or 0.0))


def recorded_app(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return the app that a file names, without changing the file, whatever program it belongs to."""
    text = peek(path, "SELECT value FROM litetq_meta WHERE key = 'app'")
    return None if text is None else json.loads(text)


def _changed(outcomes: Sequence[Outcome], taken: Taken) -> int:
    """Return the bits of what a take has put on record: successes are alone, any other end may end more than itself."""
    if len(outcomes) > FEW or taken.refused or any(outcome.disposition or outcome.plan for outcome in outcomes):
        return ALL
    return result_mask([outcome.id for outcome in outcomes])


class Seat:
    """A worker's place at the file: an identity, a run file, and the verbs. Implements Deliveries.

    The run file exists and is locked before the row that names it: a row without a lock means that the worker is dead.
    """

    def __init__(
        self,
        engine: FileEngine,
        name: str,
        queues: frozenset[str] | None,
        info: dict[str, Any],
        pace: OwnPace | None = None,
    ) -> None:
        self.engine = engine
        self.name = name
        self.queues = queues
        self.info = info
        self.pace = pace
        self._late: frozenset[str] = frozenset()
        # Of other workers, by id: the heartbeat counter, and since when we saw that one.
        self._silent: dict[int, tuple[int, float]] = {}
        self._looked_at: float | None = None
        self.run = secrets.token_hex(8)
        self.executor = presence.Executor(engine.run_folder, self.run)
        self._register()

    def _register(self) -> None:
        self.id = self.engine.store.roster.register(
            self.name, self.run, platforms.boot_id(), clock.now(), queues=self.queues, info=self.info
        )

    def waiter(self) -> Waiter:
        return self.engine.bell.waiter(WORK, self.engine._mask(self.queues))

    def serve(self, queues: frozenset[str], waiter: Waiter) -> None:
        """Claim from these queues only, from now on, and let the waiter hear of them."""
        self.engine.store.roster.set_queues(self.id, queues)
        self.queues = queues
        waiter.clear()  # the bell finds an announced waiter by its mask
        waiter.mask = self.engine._mask(queues)

    def set_info(self, **changes: Any) -> None:
        """Put on record what has changed about this worker."""
        self.info.update(changes)
        self.engine.store.roster.set_info(self.id, self.info)

    # -- Deliveries

    def take(self, free: int, outcomes: Sequence[Outcome] = (), events: Sequence[tuple[int, Event]] = ()) -> Taken:
        """Settle the outcomes and claim up to `free` tasks, in one transaction; wake those whom this concerns."""
        taken = self.engine.store.take(
            self.id, self.name, free, outcomes, clock.now(), queues=self.queues, pace=self.pace, events=events
        )
        reached("settled")
        if outcomes:
            self.engine.bell.ring(RESULT, _changed(outcomes, taken))
        if events:
            self.engine.bell.ring(CONTROL, EVENTS)
        if taken.more:
            # The next sleeper finds out whether there is anything for it, and wakes the next.
            self.engine.bell.ring(WORK, ALL, 1)
        return taken

    def probe(self) -> tuple[bool, float | None]:
        """Return whether a take would bring something, and when the next scheduled task is due. Writes nothing."""
        return self.engine.store.probe(clock.now(), self.queues, self.pace)

    def has_unfinished(self) -> bool:
        return self.engine.store.has_unfinished(clock.now(), self.queues)

    def begun(self) -> Begun | None:
        """Return the claims of this worker whose user code was entered; None when that cannot be known."""
        mine = [worker for worker in self.engine.workers() if worker.id == self.id]
        return self.engine.begun(mine[0]) if mine else None

    def set_late(self, names: frozenset[str]) -> None:
        """Put on record which tasks this worker acknowledges late: whoever rescues it may not have the program."""
        if names != self._late:
            self.engine.store.roster.set_late(self.id, names)
            self._late = names

    # -- signs of life

    def beat(self) -> None:
        """Count a heartbeat. Declared dead meanwhile: take a new identity; what the old one held is no longer ours."""
        if not self.engine.store.roster.beat(self.id):
            logger.warning("worker %s was declared dead while it lived; it goes on under a new identity", self.name)
            # The run files stay: they say what began, and claim numbers never come again. Its children's names go by them.
            self._register()
            self.engine.store.roster.set_late(self.id, self._late)
        self.executor.heal()

    def leave(self) -> int:
        """Give back what was never begun, and be gone. Returns how many tasks that were."""
        released = self.engine.store.roster.leave(self.id, clock.now())
        self.executor.close()
        # A ring meant for this worker may have come too late for it: somebody else looks.
        self.engine.bell.ring(WORK, ALL, None if released else 1)
        return released

    def child_name(self, number: int) -> str:
        return f"{self.run}.{number}-{secrets.token_hex(4)}"

    # -- rescue

    def rescue(self) -> list[tuple[str, Rescued]]:
        """Give back or end what dead workers held; return (worker name, what became of it) for each."""
        now = clock.monotonic()
        if self._looked_at is not None and now - self._looked_at > self.engine.lease / 2:
            self._silent.clear()  # this process slept: silence heard meanwhile proves nothing
        self._looked_at = now
        rescued = []
        workers = self.engine.store.roster.workers()
        for worker in workers:
            if worker.id != self.id and self._is_dead(worker, now):
                result = self.engine.store.roster.rescue(worker.id, self.engine.begun(worker), clock.now())
                if result is not None:
                    reached("rescued")
                    rescued.append((worker.name, result))
        for gone in self._silent.keys() - {worker.id for worker in workers}:
            del self._silent[gone]
        if rescued:
            self.engine.bell.ring(WORK)
            self.engine.bell.ring(RESULT)
            self._sweep({worker.run for worker in self.engine.store.roster.workers()})
        return rescued

    def _sweep(self, runs: set[str]) -> None:
        """Remove run files of the dead. A child's stays as long as its worker: what it began may yet be asked."""
        names = {path.stem for path in self.engine.run_folder.glob("*.run")}
        presence.sweep(self.engine.run_folder, {name for name in names if name.split(".")[0] in runs})

    def _run_file(self, worker: WorkerRow) -> Path:
        return self.engine.run_folder / f"{worker.run}.run"

    def _is_dead(self, worker: WorkerRow, now: float) -> bool:
        alive = presence.is_alive(self._run_file(worker))
        beats, since = self._silent.get(worker.id, (-1, now))
        if beats != worker.beats:
            self._silent[worker.id] = (worker.beats, now)
            since = now
        if alive is False:
            # Children follow their worker within moments; what they still run is theirs until their lock is free.
            return not any(presence.is_alive(path) for path in presence.children_of(self.engine.run_folder, worker.run))
        if alive is None:
            return now - since > self.engine.lease
        if now - since > self.engine.silence_bound:
            logger.warning(
                "worker %s (pid %s) is alive but has been silent for %.0f s; its tasks are taken from it",
                worker.name, worker.pid, now - since,
            )  # fmt: skip
            return True
        return False
