"""`litetq control COMMAND`: give the workers an order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from litetq import cli
from litetq.cli import asking
from litetq.cli.commands import Command, Invocation, usage
from litetq.panel import stamps_of

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.panel import CommandInfo

Reply = dict[str, Any]


@click.command(cls=Command, short_help="Give the workers an order.")
@click.argument("command", metavar="COMMAND", shell_complete=asking.completions("control"))
@click.argument("words", nargs=-1, metavar="[ARGUMENT]...")
@asking.list_option("control")
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
    """Give the workers the order COMMAND, and print what each answers.

    \b
    litetq -A tasks control rate_limit tasks.add 10/m
    litetq -b jobs.sqlite control revoke ID
    litetq -A tasks control shutdown -d first@desk
    litetq control --list

    The exit code is 69 when nobody answers. What needs no worker is done all the same: revoke, terminate,
    revoke_by_stamped_headers and rate_limit change the file, which then answers under its own name.
    """
    app = asking.reach(invocation)
    info = asking.command_named("control", command)
    arguments = asking.arguments_of(info, words)
    replies = _order(app, info, arguments, destination, timeout) if asking.has_file(app) else []
    if not replies:
        raise asking.NobodyReplied(app)
    if in_json:
        asking.say_json(replies)
        return cli.OK
    asking.say_replies(invocation, (pair for reply in replies for pair in reply.items()))
    return cli.OK


def _order(
    app: LiteTQ, info: CommandInfo, arguments: Reply, destination: Sequence[str] | None, timeout: float
) -> list[Reply]:
    """Give the order and return the answers; where no worker gave one, the file's own to what needs none."""
    if info.name == "shutdown":
        return _shut_down(app, destination)
    replies: list[Reply] = app.control.broadcast(info.name, arguments, destination, reply=True, timeout=timeout) or []
    if replies:
        return replies
    try:
        done = _in_the_file(app, info.name, arguments)
    except ValueError as error:
        usage(f"{info.name}: {error}")
    return [] if done is None else [{f"file@{app.engine.path.name}": {"ok": done}}]


def _in_the_file(app: LiteTQ, name: str, arguments: Reply) -> str | None:
    """Do that part of an order which needs no worker; return what was done, or None where nothing can be."""
    if not app.engine.knows_workers:
        return None
    if name in ("revoke", "terminate"):
        ids = arguments["task_id"]
        app.engine.revoke(ids)
        return f"tasks {', '.join(ids)} flagged as revoked; no worker runs them"
    if name == "revoke_by_stamped_headers":
        found = app.engine.revoke_stamped(stamps_of(arguments["headers"]))
        return f"headers {', '.join(arguments['headers'])} flagged as revoked, {len(found)} tasks carry them now"
    if name == "rate_limit":
        app.engine.set_rate_limit(arguments["task_name"], arguments["rate_limit"])
        return "new rate limit set in the file; workers that start obey it"
    return None


def _shut_down(app: LiteTQ, destination: Sequence[str] | None) -> list[Reply]:
    """Tell workers to stop, and answer for them: none of them says that it heard."""
    if not app.engine.knows_workers:
        there: list[Reply] = app.control.ping(destination, timeout=1.0)
        app.control.shutdown(destination)
        return [{name: {"ok": "told to shut down"}} for reply in there for name in reply]
    meant = [
        row.name
        for row in app.engine.workers()
        if app.engine.may_live(row) and (destination is None or row.name in destination)
    ]
    app.control.shutdown(destination)
    return [{name: {"ok": "told to shut down"}} for name in meant]
