"""`litetq watch FILE ID`: how far a workflow is, until it has ended."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

import click

from litetq import cli, clock, states
from litetq.browse import Browse
from litetq.cli import console
from litetq.cli.commands import Command, Invocation
from litetq.cli.opening import named_task, open_file
from litetq.cli.show import line as described
from litetq.cli.show import tasks_of
from litetq.cli.text import as_json, counted
from litetq.progress import EVERY, Progress, count, in_place, line

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.message import Record

LOOK_SHARE: Final = 0.2  # of its time, at most, it looks; arbitrary
TOLD: Final = 100  # tasks that did not succeed, told one by one; arbitrary, some screens


@click.command(cls=Command)
@click.argument("words", nargs=-1, metavar="[FILE] ID")
@click.option("--id", metavar="ID", help="The id, also where it looks like a file.")
@click.option("-j", "--json", "in_json", is_flag=True, help="Print a JSON object at the start and at each change.")
@click.pass_obj
def command(invocation: Invocation, /, words: tuple[str, ...], id: str | None, in_json: bool) -> int:
    """Draw a bar until a workflow has ended.

    It is the workflow that the task ID belongs to.

    The exit code is 0 when all tasks succeeded, 1 when one failed or was revoked.
    """
    file, wanted = named_task(invocation, words, id)
    with open_file(invocation, file) as app:
        browse = Browse(app.engine.database)
        seen: int | None = None  # version of the file at the last look
        records = {record.id: record for record in tasks_of(app, wanted)}
        if not app.engine.has_worker() and any(record.place != "DONE" for record in records.values()):
            console.say(f"litetq: no worker runs on {app.engine.path}; this waits for one", sys.stderr)
        told: Progress | None = None
        with app.engine.watch() as watch:
            while True:
                watch.announce()  # before the look: a change after the look rings
                began, version = clock.monotonic(), browse.version()
                if version != seen:
                    seen = version
                    _look(app, records)
                if all(record.place == "DONE" for record in records.values()):
                    # What a task called or was replaced by on the way belongs to it, too.
                    records.update((record.id, record) for record in app.engine.relatives(wanted))
                now = count(records.values())
                if in_json and now != told:
                    console.say(as_json(now._asdict()))
                    told = now
                if now.ended == now.total:
                    break
                if not in_json:
                    _draw(now)
                # A look at 50,000 tasks takes half a second: rings come faster than that.
                time.sleep((clock.monotonic() - began) / LOOK_SHARE)
                watch.wait(EVERY)
    if in_json:
        return cli.FAILED if now.failed else cli.OK
    console.say(in_place(now) if sys.stdout.isatty() else line(now))
    bad = [record for record in records.values() if record.state != states.SUCCESS]
    for record in bad[:TOLD]:
        console.say(described(record))
    if len(bad) > TOLD:
        console.say(f"... and {counted(len(bad) - TOLD, 'other')}")
    return cli.FAILED if now.failed else cli.OK


def _look(app: LiteTQ, records: dict[str, Record]) -> None:
    """Read again what has not ended."""
    waiting = [id for id, record in records.items() if record.place != "DONE"]
    known = app.engine.read_many(waiting)
    for id in waiting:
        if id in known:
            records[id] = known[id]
        else:
            del records[id]  # an errback that nobody needs any more leaves no record


def _draw(now: Progress) -> None:
    if sys.stdout.isatty():
        sys.stdout.write(in_place(now))
        sys.stdout.flush()
