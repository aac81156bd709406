"""What the page shows, as values for JSON: times in ISO 8601, arguments and results as text.

A question that looks through all of a large file is `Kept`: it is answered from the last time, and asked anew in a thread of
its own, on connections of its own. So every answer comes at once, however much the file holds, and however many browsers look.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from litetq import __version__, clock
from litetq.browse import Browse, Ends, Filter, Found
from litetq.checkup import GOOD, Checkup, Finding
from litetq.cli.choosing import seconds_in, state_named
from litetq.cli.details import Details
from litetq.cli.show import drawn
from litetq.cli.status import queue_dict
from litetq.cli.tasks import as_dict
from litetq.cli.text import iso
from litetq.database import sqlite_version
from litetq.engine import FileEngine
from litetq.exceptions import LiteTQError

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.roster import Worker
    from litetq.timetable import Entry

T = TypeVar("T")

LIMIT: Final = 50  # tasks in a list, unless it is said
LARGEST_LIMIT: Final = 1_000  # arbitrary: far more than a page shows
LARGEST_OFFSET: Final = 10_000  # arbitrary: a tenth of a second; a filter leads further
SHOWN: Final = 100_000  # letters of arguments, a result or a traceback; arbitrary, more than anybody reads
SHOWN_IN_LIST: Final = 1_000
DRAWN: Final = 1_000  # tasks of a workflow
FRESH_S: Final = 1.0
SHARE: Final = 0.02  # of one core, spent on each question that looks through all of the file, while somebody asks
PATIENCE_S: Final = 0.4  # arbitrary: so long an answer waits for such a question, so it takes less than a second

Query = Mapping[str, str]


class Refused(Exception):
    """A question that makes no sense, with a sentence that says why."""


class Kept(Generic[T]):
    """A question with its last answer. Asked again when the answer is old: a second, or fifty times what it took.

    Safety: any thread may ask; the question itself is asked by one thread at a time.
    """

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._answer: T | None = None
        self._error: LiteTQError | OSError | None = None
        self._asking: threading.Event | None = None  # set when it is over
        self._began = 0.0  # monotonic
        self._fresh_until = 0.0  # monotonic

    def start(self) -> None:
        """Ask, unless the answer is fresh or somebody asks already."""
        with self._lock:
            if self._asking is None and clock.monotonic() >= self._fresh_until:
                self._asking, self._began = threading.Event(), clock.monotonic()
                threading.Thread(target=self._find, args=(self._asking,), name="litetq-monitor", daemon=True).start()

    def latest(self) -> T | None:
        """Return the last answer, a fresh one where it takes less than PATIENCE_S; None where the first one takes longer.

        Raises LiteTQError or OSError when the file could not be read the last time.
        """
        self.start()
        with self._lock:
            asking, until = self._asking, self._began + PATIENCE_S
        if asking is not None:
            asking.wait(max(0.0, until - clock.monotonic()))
        if self._error is not None:
            raise self._error
        return self._answer

    def wait(self) -> None:
        """Wait until nobody asks, a second at most."""
        asking = self._asking
        if asking is not None:
            asking.wait(1.0)

    def _find(self, over: threading.Event) -> None:
        try:
            self._answer, self._error = self._ask(), None
        except (LiteTQError, OSError) as error:
            self._error = error
        finally:
            with self._lock:
                now = clock.monotonic()
                self._fresh_until = now + max(FRESH_S, (now - self._began) / SHARE)
                self._asking = None
            over.set()


class Answers:
    """All that can be asked about one file. Any thread may ask."""

    def __init__(self, app: LiteTQ) -> None:
        self.app = app
        self.engine = app.engine
        self.browse = Browse(self.engine.database)
        # Long looks on connections of their own: those of the page do not wait for them.
        self._behind = FileEngine(self.engine.path, check_file_system=self.engine.database.check_file_system)
        browse = Browse(self._behind.database)
        self._queues = Kept(lambda: (browse.queues(), browse.waiting(), browse.next_due()))
        self._later = Kept(browse.later)
        self._ends = Kept(lambda: browse.ends(clock.now()))
        self._by_worker = Kept(browse.ends_by_worker)
        self._findings = Kept(lambda: _findings(Checkup(self._behind)))
        self._kept: tuple[Kept[Any], ...] = (self._queues, self._ends, self._by_worker, self._later, self._findings)

    def close(self) -> None:
        """Close what is open here; nobody asks any more."""
        for question in self._kept:
            question.wait()
        self._behind.close()

    # -- at a glance

    def overview(self) -> dict[str, Any]:
        """Return everything but single tasks; what is still being counted is None."""
        for question in self._kept:
            question.start()
        queues, ends, findings = self._queues.latest(), self._ends.latest(), self._findings.latest()
        return {
            "now": iso(clock.now()),
            "version": __version__,
            "file": self.file(),
            "workers": self.workers(),
            "queues": self.queues(),
            "unfinished": None if queues is None else {place.lower(): count for place, count in queues[1].items()},
            "next_due": None if queues is None else iso(queues[2]),
            "ended": None if ends is None else _ends(ends),
            "schedule": self.schedule(),
            "findings": None if findings is None else [finding._asdict() for finding in findings],
        }

    def file(self) -> dict[str, Any]:
        facts = self.browse.file_facts(clock.now())
        return {"path": str(self.engine.path.absolute()), "sqlite": sqlite_version(), **facts._asdict()}

    def workers(self) -> list[dict[str, Any]]:
        claims = self.browse.claims()
        by_name = self._by_worker.latest()
        found = []
        for worker in self.engine.workers():
            ended = None if by_name is None else by_name.get(worker.name, (0, 0))
            held = [
                {"id": id, "name": name, "queue": queue} for _, id, name, queue in sorted(claims.get(worker.id, ()))
            ]
            found.append(
                {
                    "name": worker.name,
                    "alive": self.engine.lives(worker),
                    "pid": worker.pid,
                    "since": iso(worker.started_at),
                    "queues": None if worker.queues is None else json.loads(worker.queues),
                    **_info(worker),
                    "running": held,
                    "processed": None if ended is None else ended[0],
                    "failed": None if ended is None else ended[1],
                }
            )
        return found

    def queues(self) -> list[dict[str, Any]] | None:
        """Return the queues with what is in them; None where that is still being counted."""
        found, later = self._queues.latest(), self._later.latest()
        if found is None:
            return None
        more = [
            {place.lower(): None if later is None else later.get(queue.name, {}).get(place, 0) for place in _LATER}
            for queue in found[0]
        ]
        return [queue_dict(queue) | counts for queue, counts in zip(found[0], more, strict=True)]

    def schedule(self) -> list[dict[str, Any]]:
        return [_entry(entry) for entry in self.engine.timetable.entries()]

    # -- tasks

    def tasks(self, query: Query) -> tuple[list[Found], bool]:
        """Return the tasks that a query asks for, those sent last first, and whether there are more."""
        _check(query, {*FILTERS, "limit", "offset"})
        limit = _number(query, "limit", LIMIT, LARGEST_LIMIT)
        offset = _number(query, "offset", 0, LARGEST_OFFSET)
        found = self.browse.tasks(filter_of(query), offset + limit + 1)
        return found[offset : offset + limit], len(found) > offset + limit

    def list(self, query: Query) -> dict[str, Any]:
        found, more = self.tasks(query)
        shown = [as_dict(task) | {"paused": task.paused} for task in found]
        for task in shown:
            _cut(task, SHOWN_IN_LIST)
        return {"now": iso(clock.now()), "tasks": shown, "more": more}

    def task(self, id: str) -> dict[str, Any] | None:
        """Return one task whole, None where the file does not know it."""
        record = self.engine.read(id)
        if record is None:
            return None
        with suppress(KeyError):  # it expired between two looks
            found = dict(Details(self.app, record).as_dict([]))
            del found["workflow"]
            for each in (found, *found["attempts"]):
                _cut(each, SHOWN)
            return {"now": iso(clock.now()), **found}
        return None

    def workflow(self, id: str) -> dict[str, Any]:
        """Return the tasks of a workflow in the order in which they are drawn, each with what stands before it."""
        records = self.engine.relatives(id)
        known = self.browse.by_ids([record.id for record in records[:DRAWN]])
        rows = [
            {
                "before": before,
                "id": record.id,
                "name": record.name,
                "state": known[record.id].label,
                "ended": iso(record.done_at),
                "runtime": record.runtime,
            }
            for before, record in drawn(records[:DRAWN])
            if record.id in known
        ]
        return {"tasks": rows, "total": len(records)}


# -- questions as words ----------------------------------------------------------------------------------------------

FILTERS: Final = ("state", "name", "queue", "text", "newer", "older", "before")
_LATER: Final = ("SCHEDULED", "BLOCKED")


def filter_of(query: Query) -> Filter:
    """Return the filter that a query describes: the words of the options of `litetq tasks`, and `before`, a point in time."""
    try:
        now = clock.now()
        before = [_point(query["before"])] if query.get("before") else []
        before += [now - seconds_in(query["older"])] if query.get("older") else []
        return Filter(
            states=tuple(map(state_named, _words(query, "state"))),
            names=_words(query, "name"),
            queues=_words(query, "queue"),
            text=query.get("text") or None,
            sent_before=min(before, default=None),
            sent_after=now - seconds_in(query["newer"]) if query.get("newer") else None,
        )
    except ValueError as error:
        raise Refused(f"{error}.") from error


def _check(query: Query, known: set[str]) -> None:
    for name in query:
        if name not in known:
            raise Refused(f"{name!r} says nothing here; there are {', '.join(sorted(known))}.")


def _words(query: Query, name: str) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in query.get(name, "").split(","))))


def _number(query: Query, name: str, default: int, largest: int) -> int:
    text = query.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and int(text[:9]) <= largest):
        raise Refused(f"{name}={text} must be a whole number up to {largest:,}.")
    return int(text)


def _point(text: str) -> float:
    """Read a point in time: ISO 8601 (without a zone: UTC), or UTC seconds."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        point = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ValueError(
            f"{text!r} is no point in time; write 2026-03-29T01:30:00+00:00, or seconds since 1970"
        ) from None
    return (point if point.tzinfo else point.replace(tzinfo=timezone.utc)).timestamp()


# -- values ----------------------------------------------------------------------------------------------------------


def _ends(ends: Ends) -> dict[str, Any]:
    return {
        "total": {state: count for state, count in ends.total.items() if count},
        "last_minute": {state: count for state, count in ends.minute.items() if count},
        "last_hour": {state: count for state, count in ends.hour.items() if count},
        "dead": ends.dead,
    }


def _entry(entry: Entry) -> dict[str, Any]:
    definition = json.loads(entry.definition)
    return {
        "name": entry.name,
        "task": entry.task,
        "args": definition.get("args") or [],
        "kwargs": definition.get("kwargs") or {},
        "when": entry.words,
        "zone": entry.zone,
        "from": entry.owner or "run time",
        "paused": bool(entry.paused),
        "next": None if entry.paused else iso(entry.due_at),
        "last": iso(entry.last_run_at),
        "last_id": entry.last_id,
        "runs": entry.runs,
        "note": entry.note,
    }


def _info(worker: Worker) -> dict[str, Any]:
    found = json.loads(worker.info or "{}")
    known = found if isinstance(found, dict) else {}
    return {"pool": known.get("pool"), "concurrency": known.get("concurrency")}


def _findings(checkup: Checkup) -> list[Finding]:
    """Return what is wrong with the file and with what works on it: what `litetq doctor` says, looks that write left out."""
    looks = (checkup.versions, checkup.place, checkup.settings, checkup.workers, checkup.tasks, checkup.schedule)
    return [finding for finding in chain.from_iterable(look() for look in looks) if finding.level != GOOD]


def _cut(values: dict[str, Any], most: int) -> None:
    for name in ("args", "result", "reason", "error", "traceback"):
        value = values.get(name)
        if isinstance(value, str) and len(value) > most:
            values[name] = f"{value[:most]}… ({len(value):,} letters in all)"
