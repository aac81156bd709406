"""`litetq revoke [FILE] ID...`: what has not begun ends as REVOKED; by ids or by filter, also with no worker alive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import click

from litetq import cli
from litetq.cli.choosing import CHANGES, Choice, chosen, exit_code, options
from litetq.cli.commands import Command, Invocation
from litetq.cli.text import counted, listed, visible
from litetq.rearrange import Rearrange

_UNFINISHED: Final = frozenset({"QUEUED", "SCHEDULED", "BLOCKED", "CLAIMED"})


@click.command(cls=Command)
@options(CHANGES)
@click.option("--terminate", is_flag=True, help="Also end what runs, in pools of processes.")
@click.option("--signal", default="SIGTERM", metavar="NAME", help="The signal that --terminate sends (SIGTERM).")
@click.option("--undo", is_flag=True, help="Take it back for IDs that have not ended by it.")
@click.pass_obj
def command(invocation: Invocation, /, terminate: bool, signal: str, undo: bool, **said: Any) -> int:
    """Revoke tasks: they end without running.

    \b
    litetq revoke jobs.sqlite 0199aa...                     one task
    litetq revoke jobs.sqlite --name "reports.*"            show which that would be
    litetq revoke jobs.sqlite --name "reports.*" --yes      do it

    What runs goes on, but gets no further attempt; --terminate ends it. An ID that the file does not know is remembered for
    three hours, and revoked when it comes.
    """

    def make(choice: Choice, ids: list[str]) -> int:
        if undo:
            count = Rearrange(choice.app.engine).unrevoke(ids)
            choice.report({"no_longer_revoked": count}, f"{counted(count, 'task')} no longer revoked")
            return cli.OK
        known = choice.browse.by_ids(ids) if choice.by_ids else {}
        unknown = [id for id in ids if choice.by_ids and id not in known]
        over = [id for id, task in known.items() if task.place == "DONE"]
        running: list[str] = []
        ended = 0

        def do(batch: Sequence[str]) -> None:
            nonlocal ended
            ended += choice.app.engine.revoke(batch)
            running.extend(id for id, task in choice.browse.by_ids(batch).items() if task.place == "CLAIMED")

        finished = choice.each_batch(ids, do)
        if terminate and running:
            choice.app.control.revoke(running, terminate=True, signal=signal)
        choice.report(
            {"revoked": ended, "running": running, "over": over, "remembered": unknown},
            f"{counted(ended, 'task')} revoked",
            _of_running(len(running), terminate),
            f"over already: {listed(map(visible, over))}" if over else "",
            f"not known, remembered for three hours: {listed(map(visible, unknown))}" if unknown else "",
        )
        return exit_code(finished)

    verb = ("take a revoke back from", "no longer revoked") if undo else ("revoke", "revoked")
    return chosen(invocation, said, verb, _UNFINISHED, make, check_ids=False)


def _of_running(count: int, terminate: bool) -> str:
    if not count:
        return ""
    what = "told to end" if terminate else "no further attempt (--terminate ends them now)"
    return f"{count:,} running: {what}"
