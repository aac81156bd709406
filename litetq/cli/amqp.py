"""`litetq amqp`: Celery's shell for an AMQP server, which a file is not: says what to do instead."""

from __future__ import annotations

from typing import Final

import click

from litetq.cli.commands import Command, usage
from litetq.cli.text import visible

# Celery's commands of this shell, and what does the same with a file.
INSTEAD: Final = {
    "queue.purge": "Purge with  litetq purge FILE -Q NAME.",
    "queue.declare": "A queue is there once it is named; declare it in the setting task_queues.",
    "queue.bind": "Bindings stand in the setting task_queues; look with  litetq list bindings.",
    "queue.delete": "A queue has nothing to delete but its tasks:  litetq purge FILE -Q NAME.",
    "exchange.declare": "There are no exchanges to declare; routes stand in the setting task_routes.",
    "exchange.delete": "There are no exchanges to delete.",
    "basic.publish": "Send a task with  litetq call NAME.",
    "basic.get": "Look at what waits with  litetq tasks FILE.",
    "basic.ack": "Nobody but a worker acknowledges a task; end one with  litetq revoke FILE ID.",
    "repl": "Look around with  litetq tasks FILE,  litetq queue list FILE,  litetq shell.",
}


@click.command(
    cls=Command, context_settings={"ignore_unknown_options": True}, short_help="Refused: a file is no AMQP server."
)
@click.argument("words", nargs=-1, metavar="[COMMAND] [ARGUMENT]...")
def command(words: tuple[str, ...]) -> int:
    """Refused: it speaks to an AMQP server, and a file is none. Says what to do instead."""
    name = words[0] if words else "repl"
    usage(f"A file is no AMQP server, so there is no {visible(name)}. {INSTEAD.get(name, INSTEAD['repl'])}")
