"""`litetq dead list|retry [FILE]`: tasks that were given up, and another try for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import click

from litetq import cli
from litetq.browse import Browse, Filter
from litetq.cli import console
from litetq.cli.choosing import CHANGES, Choice, chosen, exit_code, options
from litetq.cli.commands import Actions, Command, Invocation, usage
from litetq.cli.opening import named_file, open_file
from litetq.cli.retry import run_again, say_refused
from litetq.cli.tasks import as_dict, lines_of
from litetq.cli.text import as_json, counted, paper

LIMIT: Final = 50
_DEAD: Final = Filter(states=("DEAD",))


@click.group(cls=Actions, aliases={"ls": "list"})
def command() -> None:
    """List and retry tasks that were given up.

    A task becomes one when it is redelivered too often (its worker died each time), when it rejects itself, or when it fails
    without being acknowledged. It rests as FAILURE with its arguments until it expires.

    \b
    litetq dead list jobs.sqlite
    litetq dead retry jobs.sqlite --all --yes
    """


@command.command("list", cls=Command)
@click.argument("words", nargs=-1, metavar="[FILE]")
@click.option("--limit", type=click.IntRange(1), default=LIMIT, metavar="COUNT", help=f"At most so many ({LIMIT}).")
@click.option("-j", "--json", "as_lines", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def list_dead(invocation: Invocation, /, words: tuple[str, ...], limit: int, as_lines: bool) -> int:
    """List the dead letters, those sent last first."""
    file, rest = named_file(invocation, words)
    if rest:
        usage(f"{rest[0]!r} is no file; litetq show takes an id.")
    sheet = paper(no_color=invocation.no_color)
    with open_file(invocation, file) as app:
        found = Browse(app.engine.database).tasks(_DEAD, limit)
        for line in [as_json(as_dict(task)) for task in found] if as_lines else lines_of(found, sheet):
            console.say(line)
        if not found and not as_lines and sheet.width is not None:
            console.say("There is no dead letter.")
    return cli.OK


@command.command("retry", cls=Command)
@options(CHANGES)
@click.pass_obj
def retry(invocation: Invocation, /, **said: Any) -> int:
    """Let dead letters run again under their ids, with a new count of redeliveries.

    \b
    litetq dead retry jobs.sqlite 0199aa...                      one
    litetq dead retry jobs.sqlite --name "reports.*"             show which that would be
    litetq dead retry jobs.sqlite --name "reports.*" --yes       do it
    """
    by_ids = bool(said["ids"]) or len(named_file(invocation, said["words"])[1]) > 0
    if said["states"]:
        usage("--state has no use here: dead letters are meant.")
    if not by_ids:
        if not any(said[name] for name in ("names", "queues", "text", "older", "newer", "all_of_them")):
            usage(
                "Which dead letters? Give ids, or a filter such as --name, --queue, --older; --all means all of them."
            )
        said["states"] = _DEAD.states

    def make(choice: Choice, ids: list[str]) -> int:
        known = choice.browse.by_ids(ids) if choice.by_ids else {}
        alive = [id for id in ids if id in known and not known[id].dead]
        count, refused = 0, list[str]()

        def do(batch: Sequence[str]) -> None:
            nonlocal count
            count += run_again(choice.app, [id for id in batch if id not in alive], refused)

        finished = choice.each_batch(ids, do)
        left = f"{len(alive):,} left alone: no dead letter (litetq retry)" if alive else ""
        choice.report({"retried": count, "left": alive}, f"{counted(count, 'task')} to run again", left)
        say_refused(refused)
        return cli.FAILED if refused else exit_code(finished)

    return chosen(invocation, said, ("retry", "retried"), frozenset({"DONE"}), make)
