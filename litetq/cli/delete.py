"""`litetq delete [FILE] ID...`: results go from the record, waiting tasks go as if they had never been sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import click

from litetq.cli.choosing import CHANGES, Choice, chosen, exit_code, options
from litetq.cli.commands import Command, Invocation
from litetq.cli.text import counted
from litetq.rearrange import Deleted, Rearrange

_AT_REST: Final = frozenset({"QUEUED", "SCHEDULED", "BLOCKED", "DONE"})


@click.command(cls=Command)
@options(CHANGES)
@click.pass_obj
def command(invocation: Invocation, /, **said: Any) -> int:
    """Delete finished and waiting tasks.

    Finished ones go from the record, waiting ones as if they had never been sent.

    \b
    litetq delete jobs.sqlite 0199aa...                                one task
    litetq delete jobs.sqlite --state success --older 7d               show which that would be
    litetq delete jobs.sqlite --state success --older 7d --yes         do it

    What runs is left alone. A waiting task that others wait for ends as REVOKED, which is a failure for those others.
    """

    def make(choice: Choice, ids: list[str]) -> int:
        verbs = Rearrange(choice.app.engine)
        total = Deleted(0, 0, 0, 0)

        def do(batch: Sequence[str]) -> None:
            nonlocal total
            total = Deleted(*map(sum, zip(total, verbs.delete(batch), strict=True)))

        finished = choice.each_batch(ids, do)
        choice.report(
            {"deleted": total.results + total.waiting, "revoked": total.ended, "running": total.running},
            f"{counted(total.results + total.waiting, 'task')} deleted",
            f"{total.ended:,} ended as REVOKED, because they belong to a workflow" if total.ended else "",
            f"{total.running:,} left alone, because they run (litetq revoke)" if total.running else "",
        )
        return exit_code(finished)

    return chosen(invocation, said, ("delete", "deleted"), _AT_REST, make)
