"""`litetq show FILE ID`: the tasks of a workflow as a tree, with their states and times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from litetq import cli, states
from litetq.cli import console
from litetq.cli.commands import Command, Invocation, usage

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.message import Record


@click.command(cls=Command)
@click.argument("file", metavar="FILE")
@click.argument("id", metavar="ID")
@click.pass_obj
def command(invocation: Invocation, file: str, id: str) -> int:
    """Draw the workflow that a task belongs to: each task with its state and times, what came after it below it."""
    invocation.enter()
    with open_file(file) as app:
        records = tasks_of(app, id)
    for line in tree(records):
        console.say(line)
    return cli.OK


def open_file(file: str) -> LiteTQ:
    """Return an app that knows the file and no task: nothing of the user's is imported to look at a workflow."""
    from litetq.app import LiteTQ

    app = LiteTQ("litetq", broker=file, set_as_current=False)
    if not Path(app.engine.path).is_file():
        usage(f"There is no file {file!r}; give the file that the tasks were sent to.")
    return app


def tasks_of(app: LiteTQ, id: str) -> list[Record]:
    records = app.engine.relatives(id)
    if not records:
        usage(
            f"No task {id} is known to {app.engine.path}: it was never sent there, or it ended and its result has expired."
        )
    return records


def tree(records: Sequence[Record]) -> Iterator[str]:
    """Yield a line for each task. What alone follows a task stands below it; several that do are drawn as branches."""
    known = {record.id for record in records}
    below: dict[str | None, list[Record]] = {}
    for record in records:
        parent = record.parent_id if record.parent_id in known and record.parent_id != record.id else None
        below.setdefault(parent, []).append(record)
    # Each with what stands before its first line, and before those of what is below it. A chain may have 10,000 steps.
    pending = [(record, "", "") for record in reversed(below.get(None, []))]
    while pending:
        record, start, indent = pending.pop()
        yield start + line(record)
        following = below.get(record.id, [])
        if len(following) == 1:
            pending.append((following[0], indent, indent))
            continue
        for place, each in enumerate(reversed(following)):
            pending.append(
                (each, f"{indent}└─ ", f"{indent}   ") if place == 0 else (each, f"{indent}├─ ", f"{indent}│  ")
            )


def line(record: Record) -> str:
    """Return one task as text: name, id, state, when it ended and how long it took, or what it waits for."""
    words = [f"{record.name or '?'}[{record.id}]", _state(record)]
    if record.done_at is not None:
        words.append(f"at {datetime.fromtimestamp(record.done_at):%Y-%m-%d %H:%M:%S}")
    if record.runtime is not None:
        words.append(f"in {record.runtime:.3f} s")
    if record.retries:
        words.append(f"after {record.retries} retries" if record.retries > 1 else "after a retry")
    if record.reason and record.state != states.SUCCESS:
        words.append(f"({record.reason})")
    return " ".join(words)


def _state(record: Record) -> str:
    if record.place == "DONE" or record.state != states.PENDING:
        return record.state
    return "RUNNING" if record.place == "CLAIMED" else record.place
