"""`litetq migrate SOURCE DESTINATION`: carry waiting tasks from one file to another."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Final

import click

from litetq import cli
from litetq.cli import asking, console
from litetq.cli.commands import Command, Invocation, usage
from litetq.cli.opening import open_file
from litetq.cli.text import as_json, counted, visible

if TYPE_CHECKING:
    from litetq.carry import Carrier

_LOOK_S: Final = 0.5  # between two looks for new tasks


@click.command(cls=Command, short_help="Carry waiting tasks to another file.")
@click.argument("source")
@click.argument("destination")
@click.option("-n", "--limit", type=click.IntRange(min=1), metavar="NUMBER", help="Carry so many tasks at most.")
@click.option(
    "-t",
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait so long for further tasks at the end.",
)
@click.option(
    "-a", "--ack-messages", is_flag=True, help="Remove from SOURCE what is carried; else it is in both files."
)
@click.option("-T", "--tasks", callback=asking.names, metavar="A,B", help="Only tasks of these names.")
@click.option(
    "-Q", "--queues", callback=asking.names, metavar="A,B:C", help="Only from these queues; B:C renames B to C."
)
@click.option("-F", "--forever", is_flag=True, help="Go on until stopped.")
@click.option("-j", "--json", "in_json", is_flag=True, help="One JSON object for each task, and one at the end.")
@click.pass_obj
def command(
    invocation: Invocation,
    source: str,
    destination: str,
    limit: int | None,
    timeout: float | None,
    ack_messages: bool,
    tasks: list[str] | None,
    queues: list[str] | None,
    forever: bool,
    in_json: bool,
) -> int:
    """Carry the tasks that wait in the file SOURCE to the file DESTINATION, which is made where it is not there.

    \b
    litetq migrate old.sqlite new.sqlite -a

    Without -a they stay in SOURCE too, as with Celery, and run in both. A task that DESTINATION knows by its id is not carried
    twice, so that the command may be repeated. Workflows stay: they move only with their whole file.
    """
    from litetq.app import LiteTQ
    from litetq.carry import Carrier

    invocation.enter()
    _check(source, destination)
    renamed = None if queues is None else dict(_renamed(word) for word in queues)
    with open_file(Invocation(), source) as first, LiteTQ("litetq", broker=destination, set_as_current=False) as second:
        carrier = Carrier(first.engine, second.engine, names=tasks, queues=renamed, remove=ack_messages)
        count = _carry(invocation, carrier, limit, timeout, forever, in_json)
        staying = carrier.staying()
    if in_json:
        console.say(as_json({"migrated": count, "stayed": staying}))
        return cli.OK
    console.say(f"{counted(count, 'task')} migrated.")
    if staying:
        they = "it belongs to a workflow, or is running" if staying == 1 else "they belong to workflows, or are running"
        console.say(f"note: {counted(staying, 'task')} stayed: {they}", sys.stderr)
    return cli.OK


def _check(source: str, destination: str) -> None:
    from litetq.address import mask, parse

    paths = []
    for text in (source, destination):
        path = parse(text).path
        if path is None:
            usage(f"{mask(text)} is no file; this version carries tasks from file to file.")
        paths.append(os.path.realpath(path))
    if paths[0] == paths[1]:
        usage(f"SOURCE and DESTINATION are one file, {paths[0]}.")


def _renamed(word: str) -> tuple[str, str]:
    name, _, new = word.partition(":")
    return name, new or name


def _carry(
    invocation: Invocation, carrier: Carrier, limit: int | None, timeout: float | None, forever: bool, in_json: bool
) -> int:
    """Carry, say so of each, and return how many; Ctrl-C ends it between two pages, and what was carried is counted."""
    count = 0
    quiet_since = time.monotonic()
    try:
        while True:
            for task in carrier.carry(None if limit is None else limit - count):
                count += 1
                quiet_since = time.monotonic()
                if in_json:
                    console.say(as_json(task._asdict()))
                elif not invocation.quiet:
                    of = "?" if limit is None else str(limit)
                    console.say(
                        f"Migrating task {count}/{of}: {visible(task.name)}[{visible(task.id)}] to {visible(task.queue)}"
                    )
            if limit is not None and count >= limit:
                return count
            if not forever and time.monotonic() - quiet_since >= (timeout or 0):
                return count
            time.sleep(_LOOK_S)
    except KeyboardInterrupt:
        return count
