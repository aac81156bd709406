"""`litetq tasks [FILE]`: what is in the file, by filter, newest first; or as it happens."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import click

from litetq import cli, clock
from litetq.browse import SHOWN_BYTES, Browse, Filter, Found
from litetq.cli import console
from litetq.cli.choosing import FILTERS, filter_of, options
from litetq.cli.commands import Command, Invocation, usage
from litetq.cli.opening import named_file, open_file
from litetq.cli.text import Paper, ago, as_json, columns, cut, iso, paper, runtime, size, table, visible

LIMIT: Final = 50
FOLLOWED: Final = 10  # tasks shown before those to come
NARROW: Final = 120  # columns of a terminal, from which on all columns are shown; arbitrary
TWO_LINES: Final = 100  # columns of a terminal, below which a task takes two lines: an id alone takes 36
LABEL: Final = 9  # columns of the longest state that is not of a program's own
FEWEST: Final = 16  # columns of arguments that still say something; arbitrary, as the next two
SHORTEST_NAME: Final = 16
LONGEST_NAME: Final = 40
LOOK_EVERY_S: Final = 0.25
# Of its time, a follower spends at most this on looking through the results: a file with a million of them takes 0.3 s.
SWEEP_SHARE: Final = 0.02
COMMIT_LAG_S: Final = (
    5.0  # arbitrary: an end may be written so long after its time, where workers wait for the write lock
)
_JSON: Final = (None, "application/json")


@click.command(cls=Command)
@click.argument("words", nargs=-1, metavar="[FILE]")
@options(FILTERS)
@click.option("--limit", type=click.IntRange(1), metavar="COUNT", help=f"At most so many ({LIMIT}).")
@click.option("--follow", is_flag=True, help="Show what happens from now on, until Ctrl-C.")
@click.option("-j", "--json", "as_lines", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def command(
    invocation: Invocation, /, words: tuple[str, ...], limit: int | None, follow: bool, as_lines: bool, **said: Any
) -> int:
    """List the tasks in a file, newest first.

    \b
    litetq tasks jobs.sqlite --state failure --newer 1h
    litetq tasks jobs.sqlite --name "reports.*" --text 2026-03
    litetq tasks jobs.sqlite --follow
    """
    file, rest = named_file(invocation, words)
    if rest:
        usage(f"{rest[0]!r} is no file; litetq show takes an id, and filters are options (--name, --state, ...).")
    wanted = filter_of(said)
    sheet = paper(no_color=invocation.no_color)
    with open_file(invocation, file) as app:
        browse = Browse(app.engine.database)
        if follow:
            return _follow(browse, wanted, FOLLOWED if limit is None else limit, sheet, as_lines)
        found = browse.tasks(wanted, (LIMIT if limit is None else limit) + 1)
        shown = found[: LIMIT if limit is None else limit]
        for line in [as_json(as_dict(task)) for task in shown] if as_lines else lines_of(shown, sheet):
            console.say(line)
        if len(found) > len(shown) and limit is None and not as_lines and sheet.width is not None:
            console.say(f"These are the last {LIMIT}; there are more: --limit COUNT")
        if not found and not as_lines and sheet.width is not None:
            console.say("No task." if wanted == Filter() else "No such task.")
    return cli.OK


# -- lines -----------------------------------------------------------------------------------------------------------


def lines_of(tasks: Sequence[Found], sheet: Paper) -> list[str]:
    """Return a table of tasks, one a line; on a narrow terminal two lines for each, the second one with its id."""
    if not tasks:
        return []
    now = clock.now()
    if sheet.width is not None and sheet.width < TWO_LINES:
        return [line for task in tasks for line in _two_lines(task, now, sheet, sheet.width)]
    rows: list[tuple[str, ...]] = [("STATE", "ID", "NAME", "QUEUE", "SENT", "TOOK", "ARGUMENTS")]
    rows += [
        (
            task.label,
            visible(task.id),
            visible(task.name or "?"),
            visible(task.queue or "-"),
            ago(task.sent_at, now),
            runtime(task.runtime),
            about(task),
        )
        for task in tasks
    ]
    styles: list[tuple[str, ...]] = [(task.label, "", "bold", "", "", "", "") for task in tasks]
    if sheet.width is not None and sheet.width < NARROW:  # the arguments need the room more than queue and runtime do
        rows, styles = ([row[:3] + row[4:5] + row[6:] for row in each] for each in (rows, styles))
    if sheet.width is not None:
        rows = _with_names_cut(rows, sheet.width)
    return table(rows, sheet, styles=styles)


def _with_names_cut(rows: Sequence[tuple[str, ...]], width: int) -> list[tuple[str, ...]]:
    """Return the rows with their third cell, the name, as long as leaves some room for the last one."""
    others = [max(map(columns, column)) for place, column in enumerate(zip(*rows, strict=True)) if place != 2][:-1]
    room = width - sum(others) - 2 * (len(others) + 1) - FEWEST
    return [(*row[:2], cut(row[2], min(LONGEST_NAME, max(SHORTEST_NAME, room))), *row[3:]) for row in rows]


def _two_lines(task: Found, now: float, sheet: Paper, width: int) -> list[str]:
    indent = " " * (LABEL + 2)
    sent = ago(task.sent_at, now)
    name = cut(visible(task.name or "?"), max(8, width - LABEL - 2 - 2 - len(sent)))
    first = f"{sheet.paint(task.label, task.label)}{' ' * (LABEL - len(task.label))}  {sheet.paint(name, 'bold')}  "
    second = f"{visible(task.id)}  "
    if columns(indent + second) > width:
        indent = ""
    room = width - columns(indent + second)
    return [first + sent, f"{indent}{second}{cut(about(task), room) if room >= FEWEST else ''}".rstrip()]


def about(task: Found) -> str:
    """Return arguments and what came of them, or what is waited for, on one line."""
    words = [arguments(task)]
    if task.place == "DONE":
        words.append(f"-> {outcome(task)}" if task.result is not None else "")
        words.append(f"({visible(task.reason)})" if task.reason else "")
        words.append("(dead letter)" if task.dead else "")
    elif task.place == "SCHEDULED" and task.due_at is not None:
        words.append(f"due {ago(task.due_at, clock.now())}")
    elif task.paused and task.place == "QUEUED":
        words.append("(its queue is paused)")
    elif task.reason:
        words.append(f"(revoked: {visible(task.reason)})")
    return " ".join(filter(None, words))


def arguments(task: Found) -> str:
    """Return the arguments as a call has them; what the caller wants to be shown instead (argsrepr) comes first."""
    told = _headers(task)
    if task.body is None:
        return "(not kept)"
    shown = [str(told[key]) for key in ("argsrepr", "kwargsrepr") if key in told]
    if shown:
        return visible(" ".join(shown).removesuffix(" {}"))  # what comes from a broker has both, always
    if task.body_type not in _JSON:
        return f"({visible(str(task.body_type))}, {size(task.body_bytes)})"
    try:
        args, kwargs = json.loads(task.body)[:2]
        words = [*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())]
    except (ValueError, TypeError, AttributeError):
        return visible(task.body.decode("utf-8", "replace")) + ("..." if task.body_bytes > SHOWN_BYTES else "")
    return visible(f"({', '.join(words)})")


def outcome(task: Found) -> str:
    """Return the result, or the error, on one line."""
    return "" if task.result is None else in_words(task.result, task.content_type, task.result_bytes)


def in_words(data: bytes, content_type: str | None, total: int) -> str:
    """Return an encoded value or error of which `total` bytes are kept on one line; only JSON is decoded."""
    if content_type not in _JSON:
        return f"({visible(str(content_type))}, {size(total)})"
    try:
        value = json.loads(data)
    except ValueError:
        return visible(data.decode("utf-8", "replace")) + "..."
    if isinstance(value, dict) and "exc_type" in value:
        message = value.get("exc_message")
        words = message if isinstance(message, list | tuple) else [message]
        return visible(f"{value['exc_type']}({', '.join(map(repr, words))})")
    return visible(repr(value))


def _headers(task: Found) -> dict[str, Any]:
    try:
        found = json.loads(task.headers or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def as_dict(task: Found) -> dict[str, Any]:
    """Return a task for JSON: times in ISO 8601, arguments and outcome as text."""
    return {
        "id": task.id,
        "state": task.label,
        "name": task.name,
        "queue": task.queue,
        "worker": task.worker,
        "retries": task.retries,
        "sent": iso(task.sent_at),
        "due": iso(task.due_at),
        "started": iso(task.started_at),
        "ended": iso(task.done_at),
        "runtime": task.runtime,
        "args": arguments(task),
        "result": outcome(task) if task.result is not None else None,
        "reason": task.reason,
        "dead": task.dead,
    }


# -- as it happens ---------------------------------------------------------------------------------------------------


def _follow(browse: Browse, wanted: Filter, limit: int, sheet: Paper, as_lines: bool) -> int:
    """Look at the file now and then; nobody is told of it and no worker rings for it, so it costs them nothing."""
    follower = _Follower(browse, wanted)
    for task in reversed(browse.tasks(wanted, limit)):
        _tell(task, sheet, as_lines)
    while True:
        for task in follower.look():
            _tell(task, sheet, as_lines)
        time.sleep(LOOK_EVERY_S)


class _Follower:
    """What has been told already, and what is new."""

    def __init__(self, browse: Browse, wanted: Filter) -> None:
        self._browse = browse
        self._wanted = wanted
        self._version: int | None = None
        self._seq = browse.last_seq()
        self._running = {task.id for task in browse.running(wanted)}
        self._told: dict[tuple[str, float | None], float] = {}  # ends, as long as a sweep may meet them again
        self._since = clock.now()
        self._sweep_at = 0.0  # monotonic
        self._is_behind = False  # something may have ended that no sweep has met
        self._sweep()

    def look(self) -> list[Found]:
        """Return what has happened since the last look: what was sent, what began, what ended."""
        version = self._browse.version()
        has_changed, self._version = version != self._version, version
        self._is_behind = self._is_behind or has_changed
        found = self._look_at_waiting() if has_changed else []
        if self._is_behind and clock.monotonic() >= self._sweep_at:
            found += self._sweep()
        return found

    def _look_at_waiting(self) -> list[Found]:
        last = self._browse.last_seq()
        sent = self._browse.sent_after(self._wanted, self._seq)
        self._seq = last
        running = {task.id: task for task in self._browse.running(self._wanted)}
        known = self._running.union(task.id for task in sent)
        begun = [task for id, task in running.items() if id not in known]
        gone = sorted(self._running - running.keys())
        self._running = set(running)
        ended = [task for task in self._browse.by_ids(gone).values() if task.place == "DONE"] if gone else []
        return [*sent, *begun, *self._new(ended)]

    def _sweep(self) -> list[Found]:
        began, now = clock.monotonic(), clock.now()
        self._is_behind = False
        found = self._new(self._browse.ended_after(self._wanted, self._since - COMMIT_LAG_S))
        self._since = max(self._since, now)
        self._told = {key: at for key, at in self._told.items() if at >= self._since - COMMIT_LAG_S}
        self._sweep_at = clock.monotonic() + (clock.monotonic() - began) / SWEEP_SHARE
        return found

    def _new(self, ended: Sequence[Found]) -> list[Found]:
        fresh = {(task.id, task.done_at): task for task in ended if (task.id, task.done_at) not in self._told}
        self._told.update((key, task.done_at or 0.0) for key, task in fresh.items())
        return sorted(fresh.values(), key=lambda task: task.done_at or 0.0)


def _tell(task: Found, sheet: Paper, as_lines: bool) -> None:
    if as_lines:
        console.tell(as_json(as_dict(task)))
        return
    at = task.done_at or task.started_at or task.sent_at
    took = f" in {runtime(task.runtime)}" if task.runtime is not None else ""
    line = f"{datetime.fromtimestamp(at):%H:%M:%S} {sheet.paint(f'{task.label:<9}', task.label)} {visible(task.id)} "
    rest = f"{visible(task.name or '?')} {about(task)}{took}"
    console.tell(line + cut(rest, None if sheet.width is None else max(20, sheet.width - len(task.id) - 20)))
