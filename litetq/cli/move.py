"""`litetq move [FILE] ID... --to QUEUE`: what waits goes into another queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import click

from litetq.cli.choosing import CHANGES, Choice, chosen, exit_code, options
from litetq.cli.commands import Command, Invocation, usage
from litetq.cli.text import counted, visible
from litetq.rearrange import Moved, Rearrange

_WAITING: Final = frozenset({"QUEUED", "SCHEDULED", "BLOCKED"})


@click.command(cls=Command)
@options(CHANGES)
@click.option("--to", "target", required=True, metavar="QUEUE", help="The queue that they go to.")
@click.pass_obj
def command(invocation: Invocation, /, target: str, **said: Any) -> int:
    """Move waiting tasks to another queue.

    Each keeps its priority, and its place by the time it was sent.

    \b
    litetq move jobs.sqlite 0199aa... --to slow                        one task
    litetq move jobs.sqlite --name "reports.*" --to slow               show which that would be
    litetq move jobs.sqlite --name "reports.*" --to slow --yes         do it
    """
    if not target:
        usage("--to needs the name of a queue.")

    def make(choice: Choice, ids: list[str]) -> int:
        verbs = Rearrange(choice.app.engine)
        total = Moved(0, 0)

        def do(batch: Sequence[str]) -> None:
            nonlocal total
            total = Moved(*map(sum, zip(total, verbs.move(batch, target), strict=True)))

        finished = choice.each_batch(ids, do)
        rest = len(ids) - total.moved - total.running
        choice.report(
            {"moved": total.moved, "running": total.running, "left": rest if finished else None},
            f"{counted(total.moved, 'task')} moved to {visible(target)}",
            f"{total.running:,} left alone, because they run" if total.running else "",
            f"{rest:,} finished, or there already" if finished and rest > 0 else "",
        )
        return exit_code(finished)

    return chosen(invocation, said, ("move", "moved"), _WAITING, make)
