"""`litetq purge [FILE]`: remove the tasks that wait."""

from __future__ import annotations

import sys

import click

from litetq import cli
from litetq.cli import asking, console
from litetq.cli.commands import Command, Invocation, usage
from litetq.cli.text import as_json, listed, visible


@click.command(cls=Command, short_help="Remove the tasks that wait.")
@click.argument("file", required=False, metavar="[FILE]")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("-Q", "--queues", callback=asking.names, metavar="A,B", help="Only these queues.")
@click.option("-X", "--exclude-queues", callback=asking.names, metavar="A,B", help="All queues but these.")
@click.option("-j", "--json", "in_json", is_flag=True, help="Print JSON; needs -f.")
@click.pass_obj
def command(
    invocation: Invocation,
    file: str | None,
    force: bool,
    queues: list[str] | None,
    exclude_queues: list[str] | None,
    in_json: bool,
) -> int:
    """Remove the tasks that wait in the queues of the app and of the file. What runs goes on.

    There is no way back. Only tasks that others wait for stay on record, as REVOKED.
    """
    if in_json and not force:
        usage("With -j nobody can be asked; add -f to purge without a question.")
    app = asking.reach(invocation, file)
    known_as = app.router.known_as
    there = asking.has_file(app)
    known = {app.router.default, *app.router.queues, *(app.engine.mailbox.queues() if there else ())}
    chosen = sorted(set(map(known_as, queues or known)) - set(map(known_as, exclude_queues or ())))
    if not chosen:
        console.say("note: no queue is left; nothing was purged", sys.stderr)
        return cli.OK
    if not force and not _agreed(chosen):
        console.say("Aborted!", sys.stderr)
        return cli.FAILED
    count = app.engine.purge(chosen) if there else 0
    if in_json:
        console.say(as_json({"purged": count, "queues": chosen}))
    elif count:
        console.say(f"Purged {count} {_s('message', count)} from {len(chosen)} known task {_s('queue', len(chosen))}.")
    else:
        console.say(f"No messages purged from {len(chosen)} {_s('queue', len(chosen))}.")
    return cli.OK


def _agreed(queues: list[str]) -> bool:
    shown = listed([visible(name) for name in queues], most=50)
    console.say(
        f"WARNING: This will remove all tasks from {_s('queue', len(queues))}: {shown}.\n"
        "         There is no undo for this operation!\n\n"
        "(to skip this prompt use the -f option)"
    )
    try:
        return input("Are you sure you want to delete all tasks? [y/N]: ").strip().lower() in ("y", "yes")
    except EOFError:
        console.say("")
        return False


def _s(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
