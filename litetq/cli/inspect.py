"""`litetq inspect COMMAND`: ask the workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from litetq import cli
from litetq.cli import asking
from litetq.cli.commands import Command, Invocation

if TYPE_CHECKING:
    from litetq.app import LiteTQ

# What the file knows of nodes that do not answer, and of tasks that no node serves.
_FROM_THE_FILE = ("active", "reserved", "scheduled")


@click.command(cls=Command, short_help="Ask the workers.")
@click.argument("command", metavar="COMMAND", shell_complete=asking.completions("inspect"))
@click.argument("words", nargs=-1, metavar="[ARGUMENT]...")
@asking.list_option("inspect")
@asking.with_options
@click.pass_obj
def command(
    invocation: Invocation,
    command: str,
    words: tuple[str, ...],
    timeout: float,
    destination: list[str] | None,
    in_json: bool,
) -> int:
    """Ask the workers COMMAND, and print what each answers.

    \b
    litetq -A tasks inspect active
    litetq -b jobs.sqlite inspect stats -j
    litetq inspect --list

    The exit code is 69 when nobody answers. active, reserved and scheduled are read from the file where a worker is silent. With
    -A the commands of the app's own modules are there, too.
    """
    app = asking.reach(invocation)
    info = asking.command_named("inspect", command)
    arguments = asking.arguments_of(info, words)
    replies = _ask(app, info.name, arguments, destination, timeout) if asking.has_file(app) else None
    if not replies:
        raise asking.NobodyReplied(app)
    if in_json:
        asking.say_json(replies)
        return cli.OK
    asking.say_replies(invocation, replies.items())
    asking.say_online(invocation, asking.online(replies))
    return cli.OK


def _ask(app: LiteTQ, name: str, arguments: dict[str, Any], destination: list[str] | None, timeout: float) -> Any:
    inspect = app.control.inspect(destination, timeout=timeout)
    if name in _FROM_THE_FILE:
        return getattr(inspect, name)()
    return inspect._request(name, **arguments)
