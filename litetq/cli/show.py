"""`litetq show FILE ID`: the tasks of a workflow as a tree, with their states and times."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from litetq import cli, states
from litetq.cli import console
from litetq.cli.commands import Command, Invocation
from litetq.cli.details import Details
from litetq.cli.opening import named_task, open_file, unknown_task
from litetq.cli.text import as_json, counted, paper, visible
from litetq.draft import BODY_OF
from litetq.progress import count

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.message import Record

DRAWN: Final = 100  # tasks of a workflow below the facts of one; arbitrary, some screens


@click.command(cls=Command)
@click.argument("words", nargs=-1, metavar="[FILE] ID")
@click.option("--id", metavar="ID", help="The id, also where it looks like a file.")
@click.option("--tree", "only_tree", is_flag=True, help="Only draw the workflow.")
@click.option("-j", "--json", "in_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(invocation: Invocation, /, words: tuple[str, ...], id: str | None, only_tree: bool, in_json: bool) -> int:
    """Show one task whole, and draw its workflow.

    Its attempts are told with their errors. In the drawing each task has its state and times, and what came after it below it.
    Of a large workflow only the beginning is drawn, and all of it with --tree.
    """
    file, wanted = named_task(invocation, words, id)
    with open_file(invocation, file) as app:
        records = tasks_of(app, wanted)
        details = Details(app, next(record for record in records if record.id == wanted))
    if in_json:
        console.say(as_json(details.as_dict(records)))
        return cli.OK
    if only_tree:
        console.say("\n".join(tree(records)))
        return cli.OK
    for text in details.lines(paper(no_color=invocation.no_color)):
        console.say(text)
    if len(records) > 1:
        shown = [record for place, record in enumerate(records) if place < DRAWN or record.id == wanted]
        console.say("\n".join(["\nworkflow", *tree(shown)]))
        if len(shown) < len(records):
            console.say(
                f"... and {counted(len(records) - len(shown), 'other')}; --tree draws them all ({count(records)})"
            )
    return cli.OK


def tasks_of(app: LiteTQ, id: str) -> list[Record]:
    records = app.engine.relatives(id)
    if not records:
        unknown_task(app, id)
    return records


def tree(records: Sequence[Record]) -> Iterator[str]:
    """Yield a line for each task of a workflow."""
    for start, record in drawn(records):
        yield start + line(record)


def drawn(records: Sequence[Record]) -> Iterator[tuple[str, Record]]:
    """Yield the tasks with the drawing before each. What follows stands below: a single task at the same edge, several as branches.

    The body of a chord follows the members, so it stands below them, at the edge of what they follow.
    """
    above, last = _places(records)
    below: dict[str | None, list[Record]] = {}
    after: dict[str | None, list[Record]] = {}
    for record in records:
        (after if record.id in last else below).setdefault(above[record.id], []).append(record)
    # Each with what stands before its first line, and before those of what is below it. A chain may have 10,000 steps.
    pending = [(record, "", "") for record in reversed(after.get(None, []))]
    roots = below.get(None, [])
    pending += _branches(roots, "") if after.get(None) else [(record, "", "") for record in reversed(roots)]
    while pending:
        record, start, indent = pending.pop()
        yield start, record
        following = below.get(record.id, [])
        pending += [(body, indent, indent) for body in reversed(after.get(record.id, []))]
        if len(following) == 1 and record.id not in after:
            pending.append((following[0], indent, indent))
        else:
            pending += _branches(following, indent)


def _branches(records: Sequence[Record], indent: str) -> list[tuple[Record, str, str]]:
    """Return what is drawn side by side, the last one first."""
    last = len(records) - 1
    return [
        (records[place], f"{indent}└─ ", f"{indent}   ")
        if place == last
        else (records[place], f"{indent}├─ ", f"{indent}│  ")
        for place in range(last, -1, -1)
    ]


def _places(records: Sequence[Record]) -> tuple[dict[str, str | None], set[str]]:
    """Return below which task each one stands, None for the edge, and which of them follow the tasks of a whole chord."""
    known = {record.id for record in records}
    above = {
        record.id: record.parent_id if record.parent_id in known and record.parent_id != record.id else None
        for record in records
    }
    members: dict[str, list[str]] = {}
    bodies: dict[str, str] = {}
    for record in records:
        headers = json.loads(record.headers) if record.headers else {}
        if "group" in headers:
            members.setdefault(headers["group"], []).append(record.id)
        if BODY_OF in headers:
            bodies[record.id] = headers[BODY_OF]
    after: set[str] = set()
    # Records are in the order of their making, so the bodies within a chord have their places before its own.
    for body, group in bodies.items():
        if group in members:
            above[body], within = _common(members[group], above)
            after.difference_update(within)
            after.add(body)
    return above, after


def _common(members: Sequence[str], above: Mapping[str, str | None]) -> tuple[str | None, set[str]]:
    """Return the nearest task that all members come after, None where there is none, and all tasks between it and them."""
    first = list(_upwards(above[members[0]], above))
    places = {id: place for place, id in enumerate(first)}
    nearest, within = 0, set(members)
    for member in members[1:]:
        for id in _upwards(above[member], above):
            if id in places:
                nearest = max(nearest, places[id])
                break
            within.add(id)
        else:
            nearest = len(first)
    return (first[nearest] if nearest < len(first) else None), within.union(first[:nearest])


def _upwards(id: str | None, above: Mapping[str, str | None]) -> Iterator[str]:
    while id is not None:
        yield id
        id = above[id]


def line(record: Record) -> str:
    """Return one task as text: name, id, state, when it ended and how long it took, or what it waits for."""
    words = [f"{visible(record.name or '?')}[{visible(record.id)}]", visible(_state(record))]
    if record.done_at is not None:
        words.append(f"at {datetime.fromtimestamp(record.done_at):%Y-%m-%d %H:%M:%S}")
    if record.runtime is not None:
        words.append(f"in {record.runtime:.3f} s")
    if record.retries:
        words.append(f"after {record.retries} retries" if record.retries > 1 else "after a retry")
    if record.reason and record.state != states.SUCCESS:
        words.append(f"({visible(record.reason)})")
    return " ".join(words)


def _state(record: Record) -> str:
    if record.place == "DONE" or record.state != states.PENDING:
        return record.state
    return "RUNNING" if record.place == "CLAIMED" else record.place
