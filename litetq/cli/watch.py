"""`litetq watch FILE ID`: how far a workflow is, until it has ended."""

from __future__ import annotations

import sys

import click

from litetq import cli, states
from litetq.cli import console
from litetq.cli.commands import Command, Invocation
from litetq.cli.opening import named_task, open_file
from litetq.cli.show import line as described
from litetq.cli.show import tasks_of
from litetq.cli.text import as_json
from litetq.progress import EVERY, Progress, count, line


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
        records = {record.id: record for record in tasks_of(app, wanted)}
        if not app.engine.has_worker() and any(record.place != "DONE" for record in records.values()):
            console.say(f"litetq: no worker runs on {app.engine.path}; this waits for one", sys.stderr)
        told: Progress | None = None
        with app.engine.watch() as watch:
            while True:
                watch.announce()  # before the look: a change after the look rings
                waiting = [each for each, record in records.items() if record.place != "DONE"]
                known = app.engine.read_many(waiting)
                for each in waiting:
                    if each in known:
                        records[each] = known[each]
                    else:
                        del records[each]  # an errback that nobody needs any more leaves no record
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
                watch.wait(EVERY)
    if in_json:
        return cli.FAILED if now.failed else cli.OK
    console.say(f"{_start()}{line(now)}")
    for record in records.values():
        if record.state != states.SUCCESS:
            console.say(described(record))
    return cli.FAILED if now.failed else cli.OK


def _draw(now: Progress) -> None:
    if sys.stdout.isatty():
        sys.stdout.write(f"\r{line(now)}")
        sys.stdout.flush()


def _start() -> str:
    return "\r" if sys.stdout.isatty() else ""
