"""Beat: what sends periodic tasks when they are due. Any number of beats may run; each due time is enqueued once.

`Service` is the loop; the scheduler says in `tick` how long it may rest. `PersistentScheduler` is ours: entries and their due
times lie in the file, each firing is one transaction (`timetable.py`), and nothing is remembered between two ticks, so a beat
that dies leaves nothing undone. `Scheduler` keeps its entries in memory, in a heap, and is what schedulers of other packages
build upon; it has Celery's methods.
"""

from __future__ import annotations

import heapq
import logging
import os
import pkgutil
import socket
import threading
from collections.abc import Callable, Mapping
from datetime import timezone
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from litetq import calling, clock, context, schedules, signals
from litetq.engine import BACKSTOP_S, COMMANDS, DEAF_S
from litetq.entries import (
    BeatLazyFunc,
    ScheduleEntry,
    call,
    definition_of,
    entry_of,
    look_at,
    must_be_asked,
    read_entry,
    seconds_of,
    standing,
    task_name,
)
from litetq.exceptions import ImproperlyConfigured, LiteTQError, OperationalError
from litetq.mailbox import Command
from litetq.panel import is_meant
from litetq.schedules import Policy
from litetq.timetable import RUN_TIME, Definition, Entry, Firing, Put, Run

if TYPE_CHECKING:
    from litetq.app import LiteTQ

__all__ = [
    "DEFAULT_MAX_INTERVAL", "BeatLazyFunc", "PersistentScheduler", "ScheduleEntry", "Scheduler", "SchedulingError", "Service",
    "event_t",
]  # fmt: skip

logger = logging.getLogger("celery.beat")

DEFAULT_MAX_INTERVAL: Final = 300  # seconds; Celery's
LOOK_S: Final = 1.0  # how late a change of the schedule may be noticed: one read of the file
WAITING_S: Final = 0.1  # the same while a run waits for the end of the one before it
RETRY_S: Final = 60.0  # until an entry that raised is tried again; arbitrary
ERROR_S: Final = 5.0  # until a tick that raised is tried again; arbitrary
BACK_S: Final = 1.0  # a clock that goes back by less is corrected, not put back
AHEAD_S: Final = 60.0  # a clock that goes ahead by more was put forward, or the machine slept; arbitrary
PRUNE_S: Final = 60.0


class SchedulingError(LiteTQError):
    """The task of an entry could not be sent."""


class event_t(NamedTuple):
    """A place in the heap of a Scheduler."""

    time: float
    priority: int
    entry: Any


class Scheduler:
    """Sends what is due of entries that are kept in memory: the base of schedulers that keep them elsewhere.

    Every method is an extension point, called as Celery calls it: `setup_schedule` at the start, `tick` again and again,
    `apply_entry` for each run, `sync` now and then, `close` at the end.
    """

    Entry: Any = ScheduleEntry
    max_interval: float = DEFAULT_MAX_INTERVAL
    sync_every: float = 180
    sync_every_tasks: int | None = None
    logger = logger

    _last_sync: float | None = None
    _tasks_since_sync = 0

    def __init__(
        self,
        app: LiteTQ,
        schedule: Any = None,
        max_interval: float | None = None,
        Producer: Any = None,
        lazy: bool = False,
        sync_every_tasks: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.app = app
        self.data = {} if schedule is None else schedule
        self.max_interval = max_interval or seconds_of(app.conf.beat_max_loop_interval) or self.max_interval
        self.Producer = Producer
        self.sync_every_tasks = app.conf.beat_sync_every if sync_every_tasks is None else sync_every_tasks
        self.is_stopping: Callable[[], bool] = lambda: False
        self.old_schedulers: Any = None
        self._heap: Any = None
        if not lazy:
            self.setup_schedule()

    # -- entries

    def setup_schedule(self) -> None:
        """Take over the entries of the configuration."""
        self.install_default_entries(self.data)
        self.merge_inplace(self.app.conf.beat_schedule)

    def install_default_entries(self, data: Any) -> None:
        """Add entries that are always there: none, since results expire by themselves."""

    def add(self, **kwargs: Any) -> Any:
        """Add an entry with these fields."""
        entry = self.Entry(app=self.app, **kwargs)
        self.schedule[entry.name] = entry
        return entry

    def _maybe_entry(self, name: str, entry: Any) -> Any:
        if isinstance(entry, self.Entry):
            entry.app = self.app
            return entry
        return self.Entry(**{**dict(entry), "name": name, "app": self.app})

    def update_from_dict(self, dict_: Mapping[str, Any]) -> None:
        """Add these entries, or put them in the place of those with the same name."""
        self.schedule.update({name: self._maybe_entry(name, entry) for name, entry in dict_.items()})

    def merge_inplace(self, b: Mapping[str, Any]) -> None:
        """Make the entries those of `b`; what has happened to one that stays is kept."""
        entries = self.schedule
        for name in set(entries) - set(b):
            entries.pop(name, None)
        for name, given in b.items():
            entry = self._maybe_entry(name, given)
            if entries.get(name):
                entries[name].update(entry)
            else:
                entries[name] = entry

    def get_schedule(self) -> Any:
        return self.data

    def set_schedule(self, schedule: Any) -> None:
        self.data = schedule

    schedule = property(get_schedule, set_schedule)

    # -- the loop

    def tick(self, *_: Any, **__: Any) -> float:
        """Send what is due, one run a call; return how many seconds may pass until the next call."""
        return self._send_due()

    def _send_due(self) -> float:
        if self._heap is None or not self.schedules_equal(self.old_schedulers, self.schedule):
            self.old_schedulers = dict(self.schedule)
            self.populate_heap()
        heap = self._heap
        if not heap:
            return self.max_interval
        event = heap[0]
        ahead = float(event[0] - self._when(event[2], 0))
        if ahead > 0:
            return min(ahead, self.max_interval)
        try:
            is_due, after = self.is_due(event[2])
        except Exception:
            is_due, after = self._is_due_failed(event[2])
        if not isinstance(after, (int, float)):
            after = self.max_interval
        if not is_due:
            heapq.heapreplace(heap, event_t(self._when(event[2], after), event[1], event[2]))
            return 0 if heap[0][2] is not event[2] else min(self.adjust(after), self.max_interval)
        entry = self.reserve(event[2])
        self.apply_entry(event[2], producer=self.producer)
        if self._heap is heap and heap and heap[0] is event:
            heapq.heapreplace(heap, event_t(self._when(entry, after), event[1], entry))
        return 0

    def is_due(self, entry: Any) -> Any:
        """Return whether to run an entry now, and after how many seconds to ask again."""
        return entry.is_due()

    def _is_due_failed(self, entry: Any) -> tuple[bool, float]:
        logger.error(
            "beat: Cannot calculate the next run of %r, trying again in %s.",
            entry.name, schedules.humanize_seconds(self.max_interval), exc_info=True,
        )  # fmt: skip
        return False, self.max_interval

    def adjust(self, n: float, drift: float = -0.010) -> float:
        """Return a pause that is a little shorter, so that the wake-up comes in time."""
        return n + drift if n and n > 0 else n

    def _when(self, entry: Any, next_time_to_run: float, mktime: Any = None) -> float:
        """Return a point of the entry's own time as UTC seconds."""
        now = entry.default_now()
        now = now.replace(tzinfo=timezone.utc) if now.tzinfo is None else now
        return float(now.timestamp() + (self.adjust(next_time_to_run) or 0))

    def populate_heap(self, *_: Any, **__: Any) -> None:
        """Put all entries into the heap, each at the time when it is to be looked at."""
        self._heap = []
        for entry in self.schedule.values():
            try:
                is_due, after = entry.is_due()
            except Exception:
                is_due, after = self._is_due_failed(entry)
            self._heap.append(event_t(self._when(entry, 0 if is_due else after), 5, entry))
        heapq.heapify(self._heap)

    def schedules_equal(self, old_schedules: Any, new_schedules: Any) -> bool:
        """Return whether two schedules have the same entries."""
        if old_schedules is None or new_schedules is None:
            return old_schedules is new_schedules
        return set(old_schedules) == set(new_schedules) and all(
            new_schedules.get(name) == entry for name, entry in old_schedules.items()
        )

    def reserve(self, entry: Any) -> Any:
        """Put an entry as it is after a run into the place of the one before it, and return it."""
        new = self.schedule[entry.name] = next(entry)
        return new

    # -- sending

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send the task of an entry; an error is logged, and beat goes on."""
        self._announce(entry)
        try:
            result = self.apply_async(entry, producer=producer, advance=False)
        except Exception as error:
            self._failed(entry, error)
        else:
            self._applied(entry, result)

    def _announce(self, entry: Any) -> None:
        logger.info("Scheduler: Sending due task %s (%s)", entry.name, task_name(entry.task))

    def _failed(self, entry: Any, error: Exception) -> None:
        logger.error("Message Error: %s", error, exc_info=error)

    def _applied(self, entry: Any, result: Any) -> None:
        logger.debug("%s sent. id->%s", task_name(entry.task), getattr(result, "id", None))

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:
        """Send the task of an entry and return its result; SchedulingError when that fails."""
        entry = self.reserve(entry) if advance else entry
        try:
            return call(self.app, entry, self.send_task, producer)
        except OperationalError:
            raise
        except Exception as error:
            raise SchedulingError(f"Couldn't apply scheduled task {entry.name}: {error}") from error
        finally:
            self._tasks_since_sync += 1
            if self.should_sync():
                self._do_sync()

    def send_task(self, *args: Any, **kwargs: Any) -> Any:
        """Send a task that is not registered here, by its name."""
        return self.app.send_task(*args, **kwargs)

    # -- what subclasses keep

    def should_sync(self) -> bool:
        """Return whether it is time for `sync`."""
        is_time = self._last_sync is None or clock.monotonic() - self._last_sync > self.sync_every
        return is_time or bool(self.sync_every_tasks and self._tasks_since_sync >= self.sync_every_tasks)

    def _do_sync(self) -> None:
        try:
            self.sync()
        finally:
            self._last_sync = clock.monotonic()
            self._tasks_since_sync = 0

    def sync(self) -> None:
        """Write down what has changed; nothing here."""

    def close(self) -> None:
        """Write down what has changed, and let go of what is open."""
        self.sync()

    @property
    def connection(self) -> Any:
        return None

    @property
    def producer(self) -> Any:
        return None

    @property
    def info(self) -> str:
        """A line for the banner."""
        return ""


class PersistentScheduler(Scheduler):
    """The scheduler whose entries lie in the file.

    Args:
        schedule_filename: accepted, as `-s` is; the file of tasks is the place.
        max_interval: longest pause between two looks; more than a second is a second.
    """

    max_interval = LOOK_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.schedule_filename = kwargs.get("schedule_filename")
        self._own: dict[str, ScheduleEntry] = {}  # entries of the configuration
        self._definitions: dict[str, Definition] = {}  # the same, as the file keeps them
        self._ignored: set[str] = set()  # names that another process of this app has given another meaning
        self._unregistered: set[str] = set()  # tasks that were said to be unknown
        self._seen: tuple[float, float] | None = None  # clock and monotonic clock at the last tick
        self._pruned_at = clock.monotonic()
        self._sent: Any = None  # of the entry that is being applied: its result, or what was raised
        super().__init__(*args, **kwargs)
        self.max_interval = min(self.max_interval, LOOK_S)
        self.timetable = self.app.engine.timetable
        self.owner = self.app.identity

    # -- the entries of the configuration

    def setup_schedule(self) -> None:
        """Make the file's entries of this app those of its configuration; entries made at run time stay.

        Unchanged entries keep their due time; a new one, or one with another schedule or time zone, counts from now.
        """
        self.install_default_entries(self.data)
        given = {**self.data, **(self.app.conf.beat_schedule or {})}
        self._own = {str(name): read_entry(self.app, str(name), entry, self.Entry) for name, entry in given.items()}
        zone = str(self.app.timezone)
        self._definitions = {name: definition_of(entry, zone) for name, entry in self._own.items()}
        self._warn_of_overlap()
        timetable = self.app.engine.timetable
        while not self._reconcile(timetable.entries(), self.app.identity, clock.now()):
            pass  # another beat has changed something meanwhile: look again

    def _reconcile(self, rows: list[Entry], owner: str, now: float) -> bool:
        timetable = self.app.engine.timetable
        known = {row.name: row for row in rows}
        changed = [
            Put(definition, *self._times(known.get(name), definition, self._own[name], now), _version(known.get(name)))
            for name, definition in self._definitions.items()
            if not _is_same(known.get(name), definition, owner)
        ]
        for definition, *_ in changed:
            row = known.get(definition.name)
            if row is not None and row.owner != owner:
                logger.warning(
                    "beat: entry %s, %s, is now that of the configuration of %s",
                    row.name, f"of {row.owner}" if row.owner else "made at run time", owner,
                )  # fmt: skip
        if not timetable.put(changed, owner, now):
            return False
        gone = [row.name for row in rows if row.owner == owner and row.name not in self._own]
        timetable.remove(gone, owner)
        if not self._move_to_zone([row for row in rows if row.owner == RUN_TIME and row.name not in self._own], now):
            return False
        if changed or gone:
            logger.info(
                "beat: %d entries of the configuration are new or changed, %d are gone", len(changed), len(gone)
            )
        return True

    def _warn_of_overlap(self) -> None:
        if self.app.engine.knows_workers:
            return
        for name, entry in self._own.items():
            if entry.policy.overlap != "allow":
                logger.warning(
                    "beat: entry %s says overlap=%s, which means nothing over a broker: it does not tell whether the last run has ended",
                    name, entry.policy.overlap,
                )  # fmt: skip

    def _times(
        self, row: Entry | None, definition: Definition, entry: ScheduleEntry, now: float
    ) -> tuple[float | None, float | None]:
        if row is not None and row.due_at is not None and _counts_on(row, definition):
            return row.due_at, look_at(entry, row.due_at) if definition.schedule is not None else row.next_at
        return self._standing(entry, now)

    def _move_to_zone(self, rows: list[Entry], now: float) -> bool:
        """Let entries made at run time follow a new time zone; intervals do not care."""
        zone = str(self.app.timezone)
        moved = []
        for row in rows:
            if row.zone != zone and row.schedule is not None and not row.schedule.startswith('{"every"'):
                definition = Definition(row.name, row.definition, row.schedule, row.words, zone, row.policy)
                entry = entry_of(self.app, row._replace(zone=zone))
                moved.append(Put(definition, *standing(entry, now), row.version))
                logger.warning("beat: entry %s moves from time zone %s to %s", row.name, row.zone, zone)
        return self.app.engine.timetable.put(moved, RUN_TIME, now)

    def get_schedule(self) -> dict[str, Any]:
        """Return all entries that this beat fires, as they stand."""
        timetable = self.app.engine.timetable
        found = {}
        for row in timetable.entries():
            if row.owner == RUN_TIME or row.name in self._own:
                found[row.name] = self._entry(row)
        return found

    def set_schedule(self, schedule: Any) -> None:
        self.data = schedule

    schedule = property(get_schedule, set_schedule)

    def _entry(self, row: Entry) -> ScheduleEntry:
        """Return the entry of a row, with what has happened to it."""
        entry = self._own[row.name] if row.owner != RUN_TIME else entry_of(self.app, row)
        last = row.last_due_at if row.last_due_at is not None else row.created_at
        entry.last_run_at = schedules.utc(last).astimezone(self.app.timezone)
        entry.total_run_count = row.runs
        return entry

    # -- the loop

    def _send_due(self) -> float:
        """Deal with every due time that has come; return how many seconds may pass until the next look."""
        if not self.app.engine.lead(self.owner):
            return LOOK_S
        now = clock.now()
        self._watch_clock(now)
        look = self.timetable.look(now, self.owner, self._ignored)
        for row in look.waiting:
            self._guarded(self._release, row)
        for row in look.due:
            if not self.is_stopping():
                self._guarded(self._handle, row)
        self._prune()
        if look.due:
            return 0.0
        rest = WAITING_S if look.waiting else self.max_interval
        return rest if look.next_at is None else max(0.0, min(rest, look.next_at - clock.now()))

    def _guarded(self, deal_with: Callable[[Entry], None], row: Entry) -> None:
        """One entry that raises must not keep the others from running: it is tried again in a minute."""
        try:
            deal_with(row)
        except OperationalError:
            raise  # it is the file, not the entry
        except Exception as error:
            logger.error("beat: entry %s cannot run; it is tried again in %.0f s", row.name, RETRY_S, exc_info=True)
            self.timetable.postpone(row, clock.now() + RETRY_S, f"it raised {type(error).__name__}: {error}")

    def _handle(self, row: Entry) -> None:
        if self._is_strange(row):
            return
        entry = self._entry(row)
        if self._must_be_asked(entry):
            self._ask(row, entry)
            return
        assert row.due_at is not None
        policy, jitter = self._policy(entry), entry.policy.jitter
        decision = schedules.decide(
            entry.schedule, row.due_at, clock.now(), policy,
            lambda due: schedules.jitter_of(row.name, due, jitter) if jitter else 0.0,
        )  # fmt: skip
        if not decision.run:
            self._leave_out(row, entry, decision)
            return
        missed, why = decision.skipped, decision.reason
        if missed:
            logger.info("beat: %s: %d due times are left out: %s", row.name, missed, why)
        current: Entry | None = row
        for due, following in zip(decision.run, [*decision.run[1:], decision.next_due], strict=True):
            if current is None or self.is_stopping():
                return
            current = self._fire(current, entry, Firing(
                due, following, look_at(entry, following), "SENT", missed=missed,
                missed_reason=why if missed else None, overlap=policy.overlap,
            ))  # fmt: skip
            missed = 0

    def _must_be_asked(self, entry: ScheduleEntry) -> bool:
        return type(self).is_due is not Scheduler.is_due or must_be_asked(entry)

    def _standing(self, entry: ScheduleEntry, now: float) -> tuple[float | None, float | None]:
        return (now, now) if self._must_be_asked(entry) else standing(entry, now)

    def _is_strange(self, row: Entry) -> bool:
        """Return whether an entry of the configuration is not what this process knows; then others fire it."""
        if row.owner == RUN_TIME or _is_same(row, self._definitions.get(row.name), self.owner):
            return False
        self._ignored.add(row.name)
        logger.warning(
            "beat: entry %s was changed by another process of %s; this beat leaves it alone until it is started again",
            row.name, self.owner,
        )  # fmt: skip
        return True

    def _policy(self, entry: ScheduleEntry) -> Policy:
        deadline = seconds_of(self.app.conf.beat_cron_starting_deadline)
        if deadline is None or entry.policy.deadline is not None or isinstance(entry.schedule, schedules.schedule):
            return entry.policy
        return entry.policy._replace(deadline=deadline)

    def _leave_out(self, row: Entry, entry: ScheduleEntry, decision: schedules.Decision) -> None:
        if decision.last_skipped is None:  # nothing has come yet: jitter, or the end
            self.timetable.move_on(row, decision.next_due, look_at(entry, decision.next_due))
            return
        logger.info("beat: %s: %d due times are left out: %s", row.name, decision.skipped, decision.reason)
        self.app.engine.fire(row, Firing(
            decision.last_skipped, decision.next_due, look_at(entry, decision.next_due), "SKIPPED", decision.reason,
            missed=decision.skipped - 1,
        ), None)  # fmt: skip

    def _ask(self, row: Entry, entry: ScheduleEntry) -> None:
        """Fire an entry whose schedule only knows whether it is due now, or look at it again when it says so."""
        is_due, after = self.is_due(entry)
        now = clock.now()
        next_at = now + (after if isinstance(after, (int, float)) else DEFAULT_MAX_INTERVAL)
        if is_due:
            self._fire(row, entry, Firing(now, next_at, next_at, "SENT", overlap=entry.policy.overlap))
        else:
            self.timetable.postpone(row, next_at)

    # -- one run

    def _fire(self, row: Entry, entry: ScheduleEntry, firing: Firing) -> Entry | None:
        """Deal with one due time; return the entry as it is then, or None when it was changed meanwhile."""
        run = None
        if not self._will_overlap(row, firing):
            try:
                run = self._prepare(entry)
            except SchedulingError as error:
                logger.error("beat: %s", error, exc_info=True)
                firing = firing._replace(outcome="FAILED", reason=str(error))
        fired = self.app.engine.fire(row, firing, run)
        if fired is None:
            logger.debug("beat: another beat was faster with %s", row.name)
            return None
        if fired.outcome == "SENT" and run is not None:
            self._tell(entry, run)
        elif fired.outcome != "FAILED":
            logger.info("beat: %s does not run now: %s", row.name, fired.reason)
        return fired.entry

    def _will_overlap(self, row: Entry, firing: Firing) -> bool:
        """Return whether overlap forbids the run, as it looks: then its message need not be made."""
        return firing.overlap != "allow" and (row.waiting_due_at is not None or self.timetable.is_unfinished(row))

    def _release(self, row: Entry) -> None:
        """Enqueue the run that has waited for the one before it, once that has ended."""
        if self._is_strange(row) or self.timetable.is_unfinished(row):
            return
        entry, run = self._entry(row), None
        try:
            run = self._prepare(entry)
        except SchedulingError as error:
            logger.error("beat: %s", error, exc_info=True)
        if self.app.engine.release_waiting(row, run) is not None and run is not None:
            self._tell(entry, run)

    def _prepare(self, entry: ScheduleEntry) -> Run:
        """Return a run that nobody has sent yet; SchedulingError when it cannot be made."""
        self._sent = None
        self._warn_of_unknown(entry)
        with calling.captured() as plans:
            self.apply_entry(entry, producer=self.producer)
        if isinstance(self._sent, Exception):
            raise self._sent
        id = getattr(self._sent, "id", None) or (plans[0].messages[0].id if plans else None)
        if id is None:
            raise SchedulingError(f"Couldn't apply scheduled task {entry.name}: its apply_async sent nothing")
        return Run(str(id), list(plans))

    def _announce(self, entry: Any) -> None:
        """Say nothing yet: another beat may be faster."""

    def _failed(self, entry: Any, error: Exception) -> None:
        self._sent = error

    def _applied(self, entry: Any, result: Any) -> None:
        self._sent = result

    def _tell(self, entry: ScheduleEntry, run: Run) -> None:
        logger.info("Scheduler: Sending due task %s (%s)", entry.name, task_name(entry.task))
        logger.debug("%s sent. id->%s", task_name(entry.task), run.id)
        if signals.after_task_publish.receivers:
            for message in (message for plan in run.plans for message in plan.messages):
                calling.tell_published(message, entry.args or (), entry.kwargs or {})

    def _warn_of_unknown(self, entry: ScheduleEntry) -> None:
        if isinstance(entry.task, str) and entry.task not in self.app.tasks and entry.task not in self._unregistered:
            self._unregistered.add(entry.task)
            logger.warning(
                "beat: task %s of entry %s is not registered here; it is sent by its name all the same",
                entry.task, entry.name,
            )  # fmt: skip

    # -- the clock, and what is old

    def _watch_clock(self, now: float) -> None:
        """See a clock that was put back, at the start and while beat runs: what waited for a far time counts from now."""
        before, self._seen = self._seen, (now, clock.monotonic())
        if before is not None:
            ahead = (now - before[0]) - (self._seen[1] - before[1])
            if ahead > AHEAD_S:
                logger.warning(
                    "beat: the clock went ahead by %s, or this machine slept", schedules.humanize_seconds(ahead)
                )
            if ahead > -BACK_S:
                return
            logger.warning("beat: the clock was put back by %s", schedules.humanize_seconds(-ahead))
        for row in self.timetable.ahead_of(now + BACK_S):
            if row.owner in (RUN_TIME, self.owner) and not self._is_strange(row):
                self._guarded(self._count_from_now, row)

    def _count_from_now(self, row: Entry) -> None:
        now, entry = clock.now(), self._entry(row)
        times, note = self._standing(entry, now), "the clock was put back: it counts from then on"
        # Wall times that have been come no second time; an interval counts what passes, whatever the clock says.
        self.timetable.move(row, *times, note, now, forget=isinstance(entry.schedule, schedules.schedule))

    def _prune(self) -> None:
        if clock.monotonic() - self._pruned_at > PRUNE_S and not self.timetable.prune(clock.now()):
            self._pruned_at = clock.monotonic()

    @property
    def info(self) -> str:
        return f"    . db -> {self.app.engine.shown}"


def _is_same(row: Entry | None, definition: Definition | None, owner: str) -> bool:
    """Return whether a row says what a definition of the configuration says, time zone and all."""
    if row is None or definition is None or row.owner != owner:
        return False
    same = (row.definition, row.policy) == (definition.definition, definition.policy)
    return same and _has_same_schedule(row, definition)


def _version(row: Entry | None) -> int | None:
    return None if row is None else row.version


def _has_same_schedule(row: Entry, definition: Definition) -> bool:
    is_interval = definition.schedule is not None and definition.schedule.startswith('{"every"')
    return (row.schedule, row.words) == (definition.schedule, definition.words) and (
        is_interval or row.zone == definition.zone
    )


def _counts_on(row: Entry, definition: Definition) -> bool:
    """Return whether a changed entry keeps its due time: where its schedule and its start are the same."""
    starts = Policy.from_text(row.policy).starts_at, Policy.from_text(definition.policy).starts_at
    return _has_same_schedule(row, definition) and starts[0] == starts[1]


# -- the loop ------------------------------------------------------------------------------------------------------

_OURS: Final = {
    "celery.beat:PersistentScheduler": PersistentScheduler,
    "celery.beat.PersistentScheduler": PersistentScheduler,
    "celery.beat:Scheduler": Scheduler,
    "celery.beat.Scheduler": Scheduler,
}


def scheduler_class(named: Any) -> Any:
    """Return the scheduler class that a setting or option names: a class, its path, or the name of an entry point.

    Raises ImproperlyConfigured when there is none.
    """
    if not isinstance(named, str):
        return named
    if named in _OURS:
        return _OURS[named]
    if ":" not in named and "." not in named:
        from importlib.metadata import entry_points

        for point in entry_points(group="celery.beat_schedulers"):
            if point.name == named:
                return point.load()
    try:
        module, _, name = named.rpartition(":" if ":" in named else ".")
        return pkgutil.resolve_name(f"{module}:{name}" if module else name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ImproperlyConfigured(
            f"there is no scheduler {named!r}: {error}; give module:Class with -S or beat_scheduler"
        ) from error


class Echo:
    """The thread in which a beat answers `ping`, as long as its loop goes on: a liveness probe sees one that hangs.

    It is on no roster and takes no other command. The counterpart of Celery 5.7's beat_enable_remote_control.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._engine = service.app.engine
        self._after = self._engine.mailbox.last_command()
        self._waiter = self._engine.mail_waiter(COMMANDS)
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="litetq-beat-echo", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._is_stopping = True
        self._waiter.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_stopping:
            self._waiter.announce()
            try:
                for command in self._engine.mailbox.commands(self._after, clock.now()):
                    self._after = command.n
                    self._answer(command)
            except OperationalError as error:
                logger.error("beat: it could not be asked: %s", error)
            if not self._is_stopping:
                self._waiter.wait(DEAF_S if self._engine.bell.is_deaf else BACKSTOP_S)
        self._waiter.close()

    def _answer(self, command: Command) -> None:
        body, service = command.body, self._service
        asked = body["method"] == "ping" and command.ticket is not None
        if not asked or not is_meant(
            service.hostname, body.get("destination"), body.get("pattern"), body.get("matcher")
        ):
            return
        if self._is_stale():
            return
        lifetime = calling.seconds(service.app.conf.control_queue_expires, "control_queue_expires")
        # Numbers of workers are positive: none of theirs is taken.
        self._engine.reply(command.ticket or "", -os.getpid(), service.hostname, '{"ok": "pong"}', lifetime)

    def _is_stale(self) -> bool:
        """Return whether the last tick is older than twice the longest pause, at least a minute, or than the setting says."""
        limit = self._service.app.conf.beat_remote_control_max_tick_age
        if limit is None:
            limit = max(60.0, 2 * (self._service.max_interval or DEFAULT_MAX_INTERVAL))
        age = calling.seconds(limit, "beat_remote_control_max_tick_age")
        return age > 0 and clock.monotonic() - self._service.ticked_at > age


_OF_A_PROGRAM: Final = frozenset(
    "scheduler schedule loglevel logfile pidfile no_color colorize redirect_stdouts redirect_stdouts_level socket_timeout quiet "
    "workdir uid gid umask executable detach".split()
)


class Service:
    """One beat: ticks its scheduler until stopped, from any thread.

    Args:
        app: the app whose entries are sent.
        max_interval: longest pause between two ticks, in seconds.
        schedule_filename: accepted, for schedulers that want it.
        scheduler_cls: the scheduler's class or its path; by default the setting `beat_scheduler`.
        remote_control: answer `ping`; by default the setting `beat_enable_remote_control`.
        hostname: name under which it answers; by default `celerybeat@<host>`.
        of_a_program: what Celery's `app.Beat` takes for a beat that is a program of its own (`loglevel`, `logfile`, `pidfile` and
            others); without effect here, where the program sets up its logging.
    """

    def __init__(
        self,
        app: LiteTQ,
        max_interval: float | None = None,
        schedule_filename: str | None = None,
        scheduler_cls: Any = None,
        remote_control: bool | None = None,
        hostname: str | None = None,
        **of_a_program: Any,
    ) -> None:
        context.refuse_while_importing("beat is started")
        for name in of_a_program:
            if name not in _OF_A_PROGRAM:
                known = "max_interval, schedule_filename, scheduler_cls, remote_control, hostname"
                raise TypeError(f"beat has no option {name!r}; known are {known}")
        self.app = app
        self.max_interval = max_interval or seconds_of(app.conf.beat_max_loop_interval)
        self.schedule_filename = schedule_filename or app.conf.beat_schedule_filename
        self.scheduler_cls = scheduler_class(scheduler_cls or app.conf.beat_scheduler)
        self.remote_control = app.conf.beat_enable_remote_control if remote_control is None else remote_control
        self.hostname = hostname or f"celerybeat@{socket.gethostname()}"
        self.ticked_at = clock.monotonic()
        self._scheduler: Any = None
        self._thread: threading.Thread | None = None
        self._is_shutdown = threading.Event()
        self._is_stopped = threading.Event()

    def get_scheduler(self, lazy: bool = False) -> Any:
        """Return a new scheduler; a lazy one only looks."""
        return self.scheduler_cls(
            app=self.app, schedule_filename=self.schedule_filename, max_interval=self.max_interval, lazy=lazy
        )

    @property
    def scheduler(self) -> Any:
        """The scheduler, made at the first look."""
        self.prepare()
        return self._scheduler

    def prepare(self) -> None:
        """Make the scheduler, which takes over the configuration; ImproperlyConfigured when an entry of it is wrong."""
        if self._scheduler is None:
            self.app.finalize()
            self._scheduler = self._made()
            self._scheduler.is_stopping = self._is_shutdown.is_set

    def _made(self) -> Any:
        try:
            return self.get_scheduler()
        except (LiteTQError, ValueError, TypeError):
            raise  # of ours, or of an entry: said in a sentence
        except Exception as error:
            # Of another package: its tables may not be there yet, or its server is away.
            logger.debug("beat: the scheduler cannot start", exc_info=True)
            kind = self.scheduler_cls
            named = f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', kind)}"
            raise ImproperlyConfigured(
                f"the scheduler {named} cannot start: {type(error).__name__}: {error}; see all of it with -l DEBUG"
            ) from error

    def start(self, embedded_process: bool = False) -> None:
        """Tick until stopped, in this thread."""
        context.set_current_app(self.app)
        scheduler = self.scheduler
        logger.info("beat: Starting...")
        signals.beat_init.send(sender=self)
        if embedded_process:
            signals.beat_embedded_init.send(sender=self)
        echo = Echo(self) if self.remote_control and not embedded_process else None
        try:
            while not self._is_shutdown.is_set():
                rest = self._tick(scheduler)
                self.ticked_at = clock.monotonic()
                if rest > 0:
                    self._is_shutdown.wait(rest)
                if scheduler.should_sync():
                    scheduler._do_sync()
        finally:
            try:
                if echo is not None:
                    echo.stop()
                scheduler.close()
            finally:
                self._is_stopped.set()
                logger.info("beat: Shutting down...")

    run = start

    def _tick(self, scheduler: Any) -> float:
        try:
            return float(scheduler.tick())
        except OperationalError as error:
            logger.error("beat: %s; it tries again", error)
            return LOOK_S
        except Exception:
            # A beat that ends sends nothing any more, and often nobody sees it.
            logger.exception("beat: the scheduler raised; it is tried again in %.0f s", ERROR_S)
            return ERROR_S

    def start_in_thread(self) -> None:
        """Make the scheduler now, as `prepare` does, and tick in a thread of its own."""
        self.prepare()
        self._thread = threading.Thread(target=self.start, args=(True,), name="litetq-beat", daemon=True)
        self._thread.start()

    def stop(self, wait: bool = False) -> None:
        """End the loop after the run that is being sent; with `wait`, return when it has ended."""
        self._is_shutdown.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        elif wait:
            self._is_stopped.wait()

    def sync(self) -> None:
        self.scheduler._do_sync()
