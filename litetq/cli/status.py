"""`litetq status FILE`: a file at a glance. Without a file and with `-A` it is Celery's: which workers are online."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from litetq import cli, clock, states
from litetq.browse import Browse, Ends, FileFacts, QueueCount
from litetq.cli import asking, console
from litetq.cli.commands import Command, Invocation, usage
from litetq.cli.opening import broker_named, named_file, open_file
from litetq.cli.text import Paper, ago, as_json, counted, iso, listed, paper, size, span, table, visible

if TYPE_CHECKING:
    from litetq.engine import FileEngine
    from litetq.roster import Worker
    from litetq.timetable import Entry


@click.command(cls=Command)
@click.argument("words", nargs=-1, metavar="[FILE]")
@asking.with_options
@click.pass_obj
def command(
    invocation: Invocation,
    /,
    words: tuple[str, ...],
    timeout: float,
    destination: list[str] | None,
    in_json: bool,
) -> int:
    """Show workers, queues, ends and size of a file.

    Also how long the oldest task of each queue waits, what ended in the last minute and hour, and the schedule.
    With -A (or $CELERY_APP) and no FILE it asks the workers of the app which of them are online, as Celery does; so with a broker.
    """
    file, rest = named_file(invocation, words)
    if rest:
        usage(f"{rest[0]!r} is no file.")
    named = invocation.app or invocation.given_app or os.environ.get("CELERY_APP") or None
    if file is None and invocation.broker is None and named is not None:
        return asking.status(invocation, timeout, destination, in_json)
    if broker_named(invocation, file) is not None:  # there is no file to look into
        return asking.status(invocation, timeout, destination, in_json, file)
    source = click.get_current_context().get_parameter_source("timeout")
    if destination is not None or source is not click.core.ParameterSource.DEFAULT:
        asking.note("a file is read and nobody is asked: --timeout and --destination have no effect")
    with open_file(invocation, file) as app:
        facts = Facts(app.engine)
        if in_json:
            console.say(as_json(facts.as_dict()))
        else:
            for line in facts.lines(paper(no_color=invocation.no_color)):
                console.say(line)
    return cli.OK


class Facts:
    """What there is to say about a file at this moment."""

    def __init__(self, engine: FileEngine) -> None:
        browse = Browse(engine.database)
        self.now = clock.now()
        self.path = str(engine.path)
        claims = browse.claims()
        self.workers: list[tuple[Worker, bool | None, int]] = [  # with whether it lives, and how many tasks it holds
            (worker, engine.lives(worker), len(claims.get(worker.id, ()))) for worker in engine.workers()
        ]
        self.queues: list[QueueCount] = browse.queues()
        self.waiting = browse.waiting()
        self.next_due = browse.next_due()
        self.ends: Ends = browse.ends(self.now)
        self.file: FileFacts = browse.file_facts(self.now)
        self.entries: list[Entry] = engine.timetable.entries()

    # -- for people

    def lines(self, sheet: Paper) -> Iterator[str]:
        yield sheet.paint(visible(self.path), "bold") + f"  {_size(self.file)}"
        yield from self._worker_lines(sheet)
        yield ""
        yield from self._queue_lines(sheet)
        yield ""
        yield from self._task_lines(sheet)
        yield from self._schedule_lines(sheet)

    def _worker_lines(self, sheet: Paper) -> Iterator[str]:
        living = any(alive is not False for _, alive, _ in self.workers)
        waits = self.waiting["QUEUED"] and not living
        yield ""
        if not self.workers:
            hint = f"; start one:  litetq worker {visible(self.path)}" if waits else ""
            yield sheet.paint(f"no worker runs{hint}", "warning" if waits else "dim")
            return
        rows = [("WORKER", "STATE", "PID", "POOL", "SINCE", "HOLDS", "QUEUES")]
        styles = []
        for worker, alive, held in self.workers:
            info = _info(worker)
            pool = f"{info.get('pool', '?')} x {info.get('concurrency', '?')}"
            queues = "all" if worker.queues is None else listed(map(visible, json.loads(worker.queues)))
            state = {True: "alive", False: "gone", None: "unknown"}[alive]
            since = span(self.now - worker.started_at)
            rows.append((visible(worker.name), state, str(worker.pid), visible(pool), since, f"{held:,}", queues))
            styles.append(("", {True: "good", False: "bad", None: "warning"}[alive], "", "", "", "", ""))
        yield from table(rows, sheet, styles=styles)

    def _queue_lines(self, sheet: Paper) -> Iterator[str]:
        if not self.queues:
            yield "no queue has been used yet"
            return
        yield from queue_table(self.queues, self.now, sheet)

    def _task_lines(self, sheet: Paper) -> Iterator[str]:
        later = []
        if self.waiting["SCHEDULED"]:
            later.append(
                f"{counted(self.waiting['SCHEDULED'], 'task')} scheduled, the next {ago(self.next_due, self.now)}"
            )
        if self.waiting["BLOCKED"]:
            blocked = self.waiting["BLOCKED"]
            later.append(f"{counted(blocked, 'task')} {'waits' if blocked == 1 else 'wait'} for another one")
        if later:
            yield f"later:    {'; '.join(later)}"
        total = self.ends.total
        if not total.total():
            yield "ended:    nothing is on record"
            return
        yield f"ended:    {_ends_in_words(total, sheet)}"
        for words, counter, seconds in (("minute:  ", self.ends.minute, 60), ("hour:    ", self.ends.hour, 3600)):
            count = counter.total()
            yield f"{words} {_ends_in_words(counter, sheet)}" + (
                f" ({count / seconds:,.1f}/s)" if count >= seconds else ""
            )
        if self.ends.dead:
            text = f"{counted(self.ends.dead, 'dead letter')}:  litetq dead list {visible(self.path)}"
            yield f"          {sheet.paint(text, 'bad')}"

    def _schedule_lines(self, sheet: Paper) -> Iterator[str]:
        coming = sorted((e.next_at, e.name) for e in self.entries if not e.paused and e.next_at is not None)
        if not self.entries:
            return
        late = coming and coming[0][0] < self.now - 10
        first = f"; {visible(coming[0][1])} is the next, {ago(coming[0][0], self.now)}" if coming and not late else ""
        yield f"schedule: {counted(len(self.entries), 'entry', 'entries')}{first}"
        if late:
            text = f"{visible(coming[0][1])} was due {ago(coming[0][0], self.now)}: no beat runs"
            yield f"          {sheet.paint(text, 'bad')}"

    # -- for programs

    def as_dict(self) -> dict[str, Any]:
        return {
            "file": self.path,
            "bytes": self.file.bytes,
            "log_bytes": self.file.log_bytes,
            "free_bytes": self.file.free_bytes,
            "workers": [
                {
                    "name": worker.name,
                    "alive": alive,
                    "pid": worker.pid,
                    "since": iso(worker.started_at),
                    "holds": held,
                    "queues": None if worker.queues is None else json.loads(worker.queues),
                    **{key: value for key, value in _info(worker).items() if key in ("pool", "concurrency", "version")},
                }
                for worker, alive, held in self.workers
            ],
            "queues": [queue_dict(queue) for queue in self.queues],
            "scheduled": {"count": self.waiting["SCHEDULED"], "next": iso(self.next_due)},
            "blocked": self.waiting["BLOCKED"],
            "running": self.waiting["CLAIMED"],
            "ended": {
                "total": dict(self.ends.total),
                "last_minute": {state: count for state, count in self.ends.minute.items() if count},
                "last_hour": {state: count for state, count in self.ends.hour.items() if count},
                "dead": self.ends.dead,
            },
            "schedule": [
                {
                    "name": entry.name,
                    "paused": bool(entry.paused),
                    "next": iso(entry.next_at),
                    "last": iso(entry.last_run_at),
                }
                for entry in self.entries
            ],
        }


def queue_table(
    queues: list[QueueCount], now: float, sheet: Paper, later: Mapping[str, Mapping[str, int]] | None = None
) -> list[str]:
    """Return queues as a table; with `later` also what is SCHEDULED and BLOCKED in them."""
    rows = [
        ("QUEUE", "WAITING", "OLDEST", "RUNNING", *(("SCHEDULED", "BLOCKED") if later is not None else ()), "STATE")
    ]
    for queue in queues:
        oldest = "-" if queue.oldest_at is None else span(now - queue.oldest_at)
        more = [] if later is None else [later.get(queue.name, {}).get(place, 0) for place in ("SCHEDULED", "BLOCKED")]
        state = "paused" if queue.paused else "open"
        counts = [f"{count:,}" for count in (queue.running, *more)]
        rows.append((visible(queue.name), f"{queue.ready:,}", oldest, *counts, state))
    width = len(rows[0])
    styles = [("bold", *[""] * (width - 2), "warning" if queue.paused else "") for queue in queues]
    return table(rows, sheet, styles=styles)


def queue_dict(queue: QueueCount) -> dict[str, Any]:
    return {
        "name": queue.name,
        "waiting": queue.ready,
        "oldest": iso(queue.oldest_at),
        "running": queue.running,
        "paused": queue.paused,
    }


def _size(facts: FileFacts) -> str:
    words = [size(facts.bytes)]
    if facts.log_bytes:
        words.append(f"log {size(facts.log_bytes)}")
    if facts.free_bytes > facts.bytes / 10 and facts.free_bytes > 1_048_576:
        words.append(f"{size(facts.free_bytes)} of it free")
    return ", ".join(words)


def _ends_in_words(counts: Any, sheet: Paper) -> str:
    names = {states.SUCCESS: "succeeded", states.FAILURE: "failed", states.REVOKED: "revoked"}
    words = [
        sheet.paint(f"{count:,} {names.get(state, visible(state))}", "FAILURE" if state == states.FAILURE else "")
        for state, count in sorted(counts.items(), key=lambda pair: [*names, pair[0]].index(pair[0]))
        if count
    ]
    return ", ".join(words) or "nothing"


def _info(worker: Worker) -> dict[str, Any]:
    found = json.loads(worker.info or "{}")
    return found if isinstance(found, dict) else {}
