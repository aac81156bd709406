"""`litetq retry FILE ID`: run again what has failed of a workflow."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from litetq import cli, states
from litetq.cli import console
from litetq.cli.commands import Command, Invocation
from litetq.cli.show import line, open_file, tasks_of

if TYPE_CHECKING:
    from litetq.message import Record


@click.command(cls=Command)
@click.argument("file", metavar="FILE")
@click.argument("id", metavar="ID")
@click.pass_obj
def command(invocation: Invocation, file: str, id: str) -> int:
    """Run again what has failed of the workflow that a task belongs to, from the failed steps on.

    What was revoked or has expired counts as failed. Steps that have succeeded stay as they are. It can be done as long as the
    failures are on record.

    The exit code is 0 when tasks are to run again, 1 when nothing has failed.
    """
    invocation.enter()
    with open_file(file) as app:
        records = tasks_of(app, id)
        failed = [record for record in records if record.place == "DONE" and record.state != states.SUCCESS]
        count = app.engine.run_again([record.id for record in failed])
        if not count:
            console.say(f"Nothing to retry: {_why_not(records)}", sys.stderr)
            return cli.FAILED
        known = app.engine.read_many([record.id for record in failed])
        tasks = "1 task runs" if count == 1 else f"{count} tasks run"
        console.say(f"{tasks} again:")
        for record in failed:
            if record.id in known and known[record.id].place != "DONE":
                console.say(line(known[record.id]))
        if not app.engine.has_worker():
            console.say(f"litetq: no worker runs on {file}; start one: litetq worker {file}", sys.stderr)
    return cli.OK


def _why_not(records: list[Record]) -> str:
    unfinished = sum(record.place != "DONE" for record in records)
    if unfinished:
        return f"no task of this workflow has failed, and {unfinished} of {len(records)} have not ended yet."
    return (
        f"all {len(records)} tasks of this workflow have succeeded." if len(records) > 1 else "the task has succeeded."
    )
