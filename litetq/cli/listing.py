"""`litetq list bindings` and `litetq list queues`: the queues that the app declares and the file knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from litetq import cli
from litetq.cli import asking, console
from litetq.cli.commands import Command, Invocation, usage
from litetq.cli.opening import named_file
from litetq.cli.text import as_json, visible

if TYPE_CHECKING:
    from litetq.app import LiteTQ


@click.command("list", cls=Command, short_help="List queues and their bindings.")
@click.argument("words", nargs=-1, metavar="[bindings|queues] [FILE]")
@click.option("-j", "--json", "in_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def command(invocation: Invocation, words: tuple[str, ...], in_json: bool) -> int:
    """List the queues with the exchange and routing key by which a call finds them (bindings), or their names (queues).

    \b
    litetq -A tasks list bindings
    litetq list queues jobs.sqlite
    """
    what, rest = (words[0], words[1:]) if words and words[0] in ("bindings", "queues") else (None, words)
    file, more = named_file(invocation, rest)
    if more:
        usage(f"There is nothing called {visible(more[0])!r} to list. There are: bindings, queues.")
    if what is None and file is None:
        usage("List what? There are: bindings, queues.")
    app = asking.reach(invocation, file)
    rows = list(_bindings(app))
    if in_json:
        for queue, exchange, key in rows:
            console.say(as_json({"queue": queue, "exchange": exchange, "routing_key": key}))
    elif what == "bindings":
        for row in [("Queue", "Exchange", "Routing Key"), ("-" * 16,) * 3, *rows]:
            queue, exchange, key = map(visible, row)
            console.say(f"{queue:<28} {exchange:<28} {key}")
    else:
        for queue, _, _ in rows:
            console.say(visible(queue))
    return cli.OK


def _bindings(app: LiteTQ) -> Iterator[tuple[str, str, str]]:
    """Yield (queue, exchange, routing key): the declared queues in their order, then those that only the file knows."""
    declared: dict[str, Any] = app.router.queues or {app.router.default: None}
    for name, queue in declared.items():
        exchange = getattr(queue, "exchange", None)
        yield name, str(getattr(exchange, "name", exchange) or name), str(getattr(queue, "routing_key", None) or name)
    in_the_file = app.engine.mailbox.queues() if asking.has_file(app) else []
    yield from ((name, name, name) for name in sorted(in_the_file) if name not in declared)
