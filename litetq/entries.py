"""The entries of the schedule as programs see them: `ScheduleEntry`, and `app.schedule`, which changes them at run time.

An entry of the configuration lives in its program; the file keeps how it stands and a description. An entry made at run time
lives in the file alone, as JSON, so that every beat can fire it.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from difflib import get_close_matches
from functools import total_ordering
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from litetq import calling, clock, schedules
from litetq.exceptions import ImproperlyConfigured
from litetq.schedules import Policy, maybe_schedule, policy_of
from litetq.timetable import RUN_TIME, Definition, Entry, FiringRow, Put, Run

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.result import AsyncResult
    from litetq.timetable import Timetable

POLICY_NAMES: Final = frozenset(Policy._fields)


class BeatLazyFunc:
    """An argument of an entry that is made anew for each run: `BeatLazyFunc(make, *args, **kwargs)` stands for `make(...)`."""

    def __init__(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._func = func
        self._func_params: dict[str, Any] = {"args": args, "kwargs": kwargs}

    def __call__(self) -> Any:
        return self.delay()

    def delay(self) -> Any:
        return self._func(*self._func_params["args"], **self._func_params["kwargs"])

    def __repr__(self) -> str:
        return f"<lazy: {getattr(self._func, '__qualname__', type(self._func).__qualname__)}>"


@total_ordering
class ScheduleEntry:
    """One entry: which task to send, with what, and when.

    Args:
        name: unique in the file.
        task: the name of the task.
        last_run_at: when it ran last; by default now.
        total_run_count: how often it ran.
        schedule: seconds, a timedelta, a cron line, or a schedule.
        args, kwargs: for the task; values that are a BeatLazyFunc are made for each run.
        options: as for `apply_async`.
        relative: round an interval down to its unit.
        app: the app.
        policy: what becomes of runs that were missed or overlap (`schedules.Policy`); its fields can be given by name instead.
    """

    name: Any = None
    schedule: Any = None
    args: Any = None
    kwargs: Any = None
    options: Any = None
    last_run_at: Any = None
    total_run_count: int = 0
    policy: Policy = Policy()

    def __init__(
        self,
        name: str | None = None,
        task: Any = None,
        last_run_at: datetime | None = None,
        total_run_count: int | None = None,
        schedule: Any = None,
        args: Any = (),
        kwargs: Any = None,
        options: Any = None,
        relative: bool = False,
        app: Any = None,
        policy: Policy | None = None,
        **policy_fields: Any,
    ) -> None:
        self.app = app
        self.name = name
        self.task = task
        self.args = args
        self.kwargs = kwargs or {}
        self.options = options or {}
        self.schedule = maybe_schedule(schedule, relative, app=app)
        self.last_run_at = last_run_at or self.default_now()
        self.total_run_count = total_run_count or 0
        self.policy = policy if policy is not None else policy_of(policy_fields, f"entry {name!r}")

    def default_now(self) -> datetime:
        now: datetime = (self.schedule if hasattr(self.schedule, "now") else self.app).now()
        return now

    _default_now = default_now

    def _next_instance(self, last_run_at: datetime | None = None) -> ScheduleEntry:
        """Return this entry as it is after a run."""
        changed = {"last_run_at": last_run_at or self.default_now(), "total_run_count": self.total_run_count + 1}
        return self.__class__(**{**dict(self), **changed})

    __next__ = next = _next_instance

    def update(self, other: ScheduleEntry) -> None:
        """Take over what another entry is, apart from what has happened to it."""
        for name in (*_EDITABLE, "policy"):
            setattr(self, name, getattr(other, name))

    def is_due(self) -> Any:
        """Return whether to run now, and after how many seconds to ask again."""
        return self.schedule.is_due(self.last_run_at)

    def editable_fields_equal(self, other: ScheduleEntry) -> bool:
        return all(getattr(self, name) == getattr(other, name) for name in _EDITABLE)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(vars(self).items())

    def __reduce__(self) -> Any:
        fields = {name: value for name, value in self if name != "app"}
        return _restore, (self.__class__, fields)

    def __repr__(self) -> str:
        arguments = [*map(repr, self.args or ()), *(f"{name}={value!r}" for name, value in (self.kwargs or {}).items())]
        return f"<{type(self).__name__}: {self.name} {task_name(self.task)}({', '.join(arguments)}) {self.schedule}>"

    def __lt__(self, other: object) -> bool:
        # Entries stand in a heap behind their time; which of two comes first is all the same.
        return id(self) < id(other) if isinstance(other, ScheduleEntry) else NotImplemented

    def __eq__(self, other: object) -> bool:
        return self.editable_fields_equal(other) if isinstance(other, ScheduleEntry) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


_EDITABLE: Final = ("task", "schedule", "args", "kwargs", "options")


def _restore(cls: type[ScheduleEntry], fields: dict[str, Any]) -> ScheduleEntry:
    return cls(**fields)


def task_name(task: Any) -> str:
    """Return the name of a task that is given as its name, as the task, or as a signature."""
    return str(task if isinstance(task, str) else getattr(task, "name", None) or getattr(task, "task", task))


def call(app: LiteTQ, entry: ScheduleEntry, send_task: Callable[..., Any] | None = None, producer: Any = None) -> Any:
    """Send the task of an entry; return its result. Raises what the arguments or options of the entry raise."""
    args = [value() if isinstance(value, BeatLazyFunc) else value for value in entry.args or ()]
    kwargs = {
        name: value() if isinstance(value, BeatLazyFunc) else value for name, value in (entry.kwargs or {}).items()
    }
    options = dict(entry.options or {})
    if type(entry) is not ScheduleEntry:
        # That of a package may carry notes of its own; Celery's calls drop what they do not know.
        stamps = options.get("stamped_headers") or ()
        options = {key: value for key, value in options.items() if key in calling.KNOWN_OPTIONS or key in stamps}
    options["headers"] = {"celery_beat_task": True, "periodic_task_name": entry.name, **(options.get("headers") or {})}
    target = app.tasks.get(entry.task) if isinstance(entry.task, str) else entry.task
    if target is None:
        return (send_task or app.send_task)(entry.task, args, kwargs, producer=producer, **options)
    return target.apply_async(args, kwargs, producer=producer, **options)


# -- between program and file --------------------------------------------------------------------------------------


def read_entry(app: LiteTQ, name: str, given: Any, kind: type[ScheduleEntry] = ScheduleEntry) -> ScheduleEntry:
    """Return the entry that a configuration or a program gives; ImproperlyConfigured, with its name, when it is wrong."""
    where = f"entry {name!r} of the schedule"
    try:
        if isinstance(given, kind):
            given.app = app
            entry = given
        else:
            entry = kind(**{**dict(given), "name": name, "app": app})
        if not entry.task:
            raise TypeError("it names no task; give task='module.function'")
        if entry.schedule is None:
            raise TypeError("it has no schedule; give schedule=30.0, crontab(...) or a cron line")
        calling.checked_arguments(task_name(entry.task), entry.args, entry.kwargs)
        calling.refuse_unknown(entry.options, task_name(entry.task))
        schedules.check_interval(entry.schedule)
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"{where}: {error}") from error
    return entry


def definition_of(entry: ScheduleEntry, zone: str) -> Definition:
    """Return what the file keeps of an entry of a program: the same text in every process."""
    call = {
        "task": task_name(entry.task),
        "args": list(entry.args or ()),
        "kwargs": entry.kwargs,
        "options": entry.options,
    }
    text = json.dumps(call, default=_described, sort_keys=True)
    words = schedules.in_words(entry.schedule)
    if " at 0x" in words:
        words = _described(entry.schedule)
    policy = getattr(entry, "policy", Policy())
    return Definition(str(entry.name), text, schedules.to_text(entry.schedule), words, zone, policy.to_text())


def _described(value: Any) -> str:
    text = repr(value)
    return f"<{type(value).__module__}.{type(value).__qualname__}>" if " at 0x" in text else text


def entry_of(app: LiteTQ, row: Entry) -> ScheduleEntry:
    """Return an entry as the file keeps it, in its own time zone; ValueError when only its program knows the schedule."""
    if row.schedule is None:
        raise ValueError(f"entry {row.name!r} has a schedule that only its own program knows ({row.words})")
    schedule = schedules.from_text(row.schedule, app)
    if row.zone != str(app.timezone):
        with suppress(KeyError, ValueError, OSError):  # the name of local time, say ("BST"): then the app's own counts
            schedule.tz = schedules.zone_of(row.zone)
    call, policy = json.loads(row.definition), Policy.from_text(row.policy)
    return ScheduleEntry(**call, name=row.name, app=app, schedule=schedule, policy=policy)


def standing(entry: ScheduleEntry, now: float) -> tuple[float | None, float | None]:
    """Return the first due time of an entry that is new or has a new schedule, and when beat is to look at it."""
    if must_be_asked(entry):
        return now, now  # it is asked at once, and says when to ask again
    policy = getattr(entry, "policy", Policy())
    due = schedules.first_due(entry.schedule, now, policy)
    return due, look_at(entry, due)


def must_be_asked(entry: ScheduleEntry) -> bool:
    """Return whether only somebody else's code knows when an entry is due."""
    return type(entry).is_due is not ScheduleEntry.is_due or not schedules.is_known(entry.schedule)


def look_at(entry: ScheduleEntry, due: float | None) -> float | None:
    """Return when beat is to look at an entry whose next due time this is: later by its jitter."""
    jitter = getattr(entry, "policy", Policy()).jitter
    return due if due is None or not jitter else due + schedules.jitter_of(str(entry.name), due, jitter)


# -- at run time ---------------------------------------------------------------------------------------------------


class Coming(NamedTuple):
    """A run that is ahead, as far as one can know now."""

    at: datetime  # in the app's time zone
    name: str
    task: str


class Entries:
    """The schedule of an app's file (`app.schedule`): what is changed here takes effect within a second, in every beat.

    Entries of the configuration can be paused, resumed and run out of turn, but are changed and removed there.
    Errors are ImproperlyConfigured (an unknown name, a wrong value), or an OperationalError when the file cannot be written.
    """

    def __init__(self, app: LiteTQ) -> None:
        self.app = app

    @property
    def _timetable(self) -> Timetable:
        return self.app.engine.timetable

    def entries(self) -> list[Entry]:
        """Return all entries by name, as they stand."""
        return self._timetable.entries()

    def get(self, name: str) -> Entry:
        """Return one entry; ImproperlyConfigured when there is none of this name."""
        entry = self._timetable.entry(name)
        if entry is None:
            raise self._unknown(name)
        return entry

    def _unknown(self, name: str) -> ImproperlyConfigured:
        names = [entry.name for entry in self.entries()]
        near = get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {len(names)} (litetq schedule list)"
        return ImproperlyConfigured(f"there is no entry {name!r} in the schedule; {hint}")

    def add(
        self,
        name: str,
        task: Any,
        schedule: Any,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        relative: bool = False,
        **policy: Any,
    ) -> Entry:
        """Add an entry, which stays in the file until it is removed.

        Args:
            name: a name that no entry has yet.
            task: a task, its name, or the signature of one task.
            schedule: seconds, a timedelta, a cron line, `crontab(...)` or `solar(...)`.
            args, kwargs, options: for `apply_async`; what JSON can hold.
            policy: catch_up, catch_up_limit, overlap, jitter, deadline, starts_at, ends_at.
        """
        entry = self._made(name, task, schedule, args, kwargs, options, relative, policy)
        definition = self._definition(entry)
        now = clock.now()
        if not self._timetable.reserve_name(definition, *standing(entry, now), now):
            raise ImproperlyConfigured(
                f"there is an entry {name!r} already; change it with edit, or choose another name"
            )
        return self.get(name)

    def _made(
        self, name: str, task: Any, schedule: Any, args: Any, kwargs: Any, options: Any, relative: bool, policy: Any
    ) -> ScheduleEntry:
        if isinstance(task, dict):  # a signature
            if task.get("subtask_type"):
                raise ImproperlyConfigured(
                    f"entry {name!r}: a canvas ({task['subtask_type']}) cannot be kept by an entry made at run time; "
                    "name a task that sends it, or put the entry into beat_schedule"
                )
            args = [*(args or ()), *task.get("args", ())]
            kwargs = {**task.get("kwargs", {}), **(kwargs or {})}
            options = {**task.get("options", {}), **(options or {})}
        given = {"task": task_name(task["task"] if isinstance(task, dict) else task), "schedule": schedule,
                 "args": args or (), "kwargs": kwargs, "options": options, "relative": relative, **policy}  # fmt: skip
        return read_entry(self.app, name, given)

    def _definition(self, entry: ScheduleEntry) -> Definition:
        definition = definition_of(entry, str(self.app.timezone))
        if definition.schedule is None:
            raise ImproperlyConfigured(
                f"entry {entry.name!r}: {entry.schedule!r} is a schedule of its own program; an entry made at run time "
                "takes seconds, a timedelta, a cron line, crontab(...) or solar(...)"
            )
        try:
            json.dumps([entry.args, entry.kwargs, entry.options])
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(
                f"entry {entry.name!r} is kept as JSON, which cannot hold its arguments or options: {error}"
            ) from error
        return definition

    def edit(self, name: str, **changes: Any) -> Entry:
        """Change an entry that was made at run time: any argument of `add` but the name.

        A changed schedule counts from now on.
        """
        row = self._own(name, "change")
        before = entry_of(self.app, row)
        given = {"task": before.task, "schedule": before.schedule, "args": before.args, "kwargs": before.kwargs,
                 "options": before.options, "relative": False, **before.policy._asdict(), **changes}  # fmt: skip
        fields = {key: given.pop(key) for key in ("task", "schedule", "args", "kwargs", "options", "relative")}
        entry = self._made(name, **fields, policy=given)
        definition = self._definition(entry)
        same = (definition.schedule, entry.policy.starts_at) == (row.schedule, before.policy.starts_at)
        same = same and row.due_at is not None
        now = clock.now()
        times = (row.due_at, look_at(entry, row.due_at)) if same else standing(entry, now)
        if not self._timetable.put([Put(definition, *times, row.version)], RUN_TIME, now):
            return self.edit(name, **changes)  # it has run meanwhile
        return self.get(name)

    def _own(self, name: str, what: str) -> Entry:
        row = self.get(name)
        if row.owner != RUN_TIME:
            raise ImproperlyConfigured(
                f"entry {name!r} comes from the configuration of {row.owner}; {what} it there, or pause it here"
            )
        return row

    def pause(self, name: str) -> None:
        """Let an entry rest until it is resumed."""
        if not self._timetable.set_paused(name, True):
            raise self._unknown(name)

    def resume(self, name: str) -> Entry:
        """Let an entry go on from now: due times while it was paused are not made up for."""
        row = self.get(name)
        now = clock.now()
        if row.schedule is None:
            due_at, next_at = now, now
        else:
            entry = entry_of(self.app, row)
            due_at, next_at = standing(entry, now)  # type: ignore[assignment]
        self._timetable.set_paused(name, False, due_at=due_at, next_at=next_at)
        return self.get(name)

    def remove(self, name: str) -> None:
        """Remove an entry that was made at run time. What it has enqueued stays."""
        self._own(name, "remove")
        self._timetable.remove([name], RUN_TIME)

    def run_now(self, name: str) -> AsyncResult[Any]:
        """Enqueue a run of an entry at once, beside its due times; return its result."""
        row = self.get(name)
        entry = self._in_program(row)
        with calling.captured() as plans:
            result: AsyncResult[Any] = call(self.app, entry)
        if self.app.engine.run_now(name, Run(result.id, plans)) is None:
            raise self._unknown(name)
        return result

    def _in_program(self, row: Entry) -> ScheduleEntry:
        """Return an entry of the configuration as this program has it, another one from the file."""
        given = self.app.conf.beat_schedule or {}
        if row.owner == RUN_TIME:
            return entry_of(self.app, row)
        if row.owner != self.app.identity or row.name not in given:
            raise ImproperlyConfigured(
                f"entry {row.name!r} comes from the configuration of {row.owner}, which is not this program; start from there"
            )
        return read_entry(self.app, row.name, given[row.name])

    def next(self, count: int = 10, name: str | None = None) -> list[Coming]:
        """Return the runs to come, the earliest first: what would be enqueued if a beat ran from now on.

        Of a schedule that only its program knows, only the next look is shown.
        """
        rows = self.entries() if name is None else [self.get(name)]
        now = clock.now()
        zone = self.app.timezone
        runs = [self._runs(row, now) for row in rows if not row.paused]
        return [Coming(schedules.utc(at).astimezone(zone), *what) for at, *what in islice(heapq.merge(*runs), count)]

    def _runs(self, row: Entry, now: float) -> Iterator[tuple[float, str, str]]:
        return ((at, row.name, row.task) for at in self._times(row, now))

    def _times(self, row: Entry, now: float) -> Iterator[float]:
        if row.due_at is None or row.next_at is None:
            return
        if row.schedule is None:
            yield max(now, row.next_at)
            return
        entry = entry_of(self.app, row)
        policy, due = entry.policy, row.due_at
        if row.next_at <= now:
            decision = schedules.decide(entry.schedule, due, now, policy)
            yield from [now] * len(decision.run)
            if decision.next_due is None:
                return
            due = decision.next_due
        while policy.ends_at is None or due <= policy.ends_at:
            yield due
            due = entry.schedule.next_after(schedules.utc(due)).timestamp()

    def firings(self, name: str, limit: int = 100) -> list[FiringRow]:
        """Return what was done about the latest due times of an entry, the newest first: kept for a day."""
        return self._timetable.firings(name, limit)


def periodic_entry(
    schedule: Any, sig: Any, args: Sequence[Any], kwargs: dict[str, Any], name: str | None, options: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Return name and entry of `add_periodic_task`: options of a policy stand in the entry, all others are of the call."""
    policy = {key: value for key, value in options.items() if key in POLICY_NAMES}
    options = {key: value for key, value in options.items() if key not in POLICY_NAMES}
    if isinstance(sig, dict):
        if args or kwargs:
            sig = sig.clone(args, kwargs)  # type: ignore[attr-defined]
        call = {"task": sig, "args": (), "kwargs": {}, "options": options}
        if not sig.get("subtask_type"):
            options = {**sig["options"], **options}
            call = {"task": sig["task"], "args": sig["args"], "kwargs": sig["kwargs"], "options": options}
        return name or repr(sig), {"schedule": schedule, **call, **policy}
    if not hasattr(sig, "apply_async"):
        raise TypeError(f"a periodic task is given as a task or as a signature, task.s(...); found {sig!r}")
    shown = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
    call = {"task": sig.name, "args": tuple(args), "kwargs": kwargs, "options": options}
    return name or f"{sig.name}({shown})", {"schedule": schedule, **call, **policy}


def seconds_of(span: float | timedelta | None) -> float | None:
    """Return a setting that is a span, in seconds."""
    return span.total_seconds() if isinstance(span, timedelta) else span
