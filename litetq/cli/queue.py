"""`litetq queue list|pause|resume|purge [FILE]`: the queues of a file."""

from __future__ import annotations

import click

from litetq import cli, clock
from litetq.browse import Browse
from litetq.cli import console
from litetq.cli.commands import Actions, Command, Invocation, usage
from litetq.cli.opening import named_file, open_file
from litetq.cli.status import queue_dict, queue_table
from litetq.cli.text import as_json, counted, listed, paper, visible
from litetq.rearrange import Rearrange


@click.group(cls=Actions, aliases={"ls": "list"})
def command() -> None:
    """List, pause, resume and purge queues.

    \b
    litetq queue list jobs.sqlite
    litetq queue pause jobs.sqlite emails
    litetq queue purge jobs.sqlite emails --yes
    """


@command.command("list", cls=Command)
@click.argument("words", nargs=-1, metavar="[FILE] [NAME]...")
@click.option("-j", "--json", "in_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def list_queues(invocation: Invocation, /, words: tuple[str, ...], in_json: bool) -> int:
    """Show what waits and runs in each queue, and what comes later."""
    file, names = named_file(invocation, words)
    with open_file(invocation, file) as app:
        browse = Browse(app.engine.database)
        queues = [queue for queue in browse.queues() if not names or queue.name in names]
        _refuse_unknown(names, [queue.name for queue in queues], str(app.engine.path))
        later = browse.later()
        sheet, now = paper(no_color=invocation.no_color), clock.now()
        if in_json:
            for queue in queues:
                more = later.get(queue.name, {})
                rest = {"scheduled": more.get("SCHEDULED", 0), "blocked": more.get("BLOCKED", 0)}
                console.say(as_json({**queue_dict(queue), **rest}))
            return cli.OK
        if not queues:
            console.say("No queue has been used yet.")
            return cli.OK
        for line in queue_table(queues, now, sheet, later):
            console.say(line)
    return cli.OK


@command.command("pause", cls=Command)
@click.argument("words", nargs=-1, metavar="[FILE] NAME...")
@click.option("-j", "--json", "in_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def pause(invocation: Invocation, /, words: tuple[str, ...], in_json: bool) -> int:
    """Let nobody take tasks from these queues until they are resumed; what runs goes on. It outlives every worker."""
    return _set_paused(invocation, words, "paused", in_json)


@command.command("resume", cls=Command)
@click.argument("words", nargs=-1, metavar="[FILE] NAME...")
@click.option("-j", "--json", "in_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def resume(invocation: Invocation, /, words: tuple[str, ...], in_json: bool) -> int:
    """Let workers take tasks from these queues again."""
    return _set_paused(invocation, words, "resumed", in_json)


def _set_paused(invocation: Invocation, words: tuple[str, ...], what: str, in_json: bool) -> int:
    file, names = named_file(invocation, words)
    if not names or "" in names:
        usage(f"Which queue is to be {what}? Give its name.")
    with open_file(invocation, file) as app:
        queues = Rearrange(app.engine)
        known = [queue.name for queue in Browse(app.engine.database).queues()]
        if what == "resumed":
            _refuse_unknown(names, known, str(app.engine.path))
        for name in names:
            changed = queues.pause(name) if what == "paused" else queues.resume(name)
            note = "" if changed else " already" if what == "paused" else ": it was not paused"
            new = "" if name in known else " (a queue that nobody has used yet)"
            if in_json:
                console.say(as_json({"name": name, "paused": what == "paused", "changed": changed}))
                continue
            console.say(f"{visible(name)} is {'open' if what == 'resumed' else 'paused'}{note}{new}")
    return cli.OK


@command.command("purge", cls=Command)
@click.argument("words", nargs=-1, metavar="[FILE] NAME...")
@click.option("-j", "--json", "in_json", is_flag=True, help="Print JSON.")
@click.option("--yes", is_flag=True, help="Do it; without this it is only said how many they are.")
@click.pass_obj
def purge(invocation: Invocation, /, words: tuple[str, ...], in_json: bool, yes: bool) -> int:
    """Remove what waits in these queues, as if it had never been sent; what runs goes on.

    A task that others wait for ends as REVOKED instead.
    """
    file, names = named_file(invocation, words)
    if not names:
        usage("Which queue is to be emptied? Give its name.")
    with open_file(invocation, file) as app:
        browse = Browse(app.engine.database)
        queues = {queue.name: queue for queue in browse.queues()}
        _refuse_unknown(names, list(queues), str(app.engine.path))
        if yes:
            count = app.engine.purge(names)
            sentence = f"{counted(count, 'task')} removed from {listed(map(visible, names))}."
            console.say(as_json({"found": count, "removed": count}) if in_json else sentence)
            return cli.OK
        later = browse.later()
        count = sum(queues[name].ready + later.get(name, {}).get("SCHEDULED", 0) for name in set(names))
        sentence = f"{counted(count, 'task')} would be removed. Nothing was changed; with --yes it is done."
        console.say(as_json({"found": count, "removed": 0}) if in_json else sentence)
    return cli.OK


def _refuse_unknown(names: list[str], known: list[str], path: str) -> None:
    for name in names:
        if name not in known:
            there = f"there are {listed(map(visible, known))}" if known else "it has none"
            usage(f"There is no queue {visible(name)!r} in {path}; {there}.")
