"""`litetq retry [FILE] ID`: run again what has failed of a workflow; or all that a filter finds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from litetq import cli, states
from litetq.cli import console
from litetq.cli.choosing import CHANGES, Choice, chosen, exit_code, options
from litetq.cli.commands import Command, Invocation, usage
from litetq.cli.show import line, tasks_of
from litetq.cli.text import as_json, counted
from litetq.exceptions import NotOnRecord

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.message import Record

_SHOWN: Final = 5  # arbitrary
_FAILED: Final = ("FAILURE", "REVOKED", "DEAD")


@click.command(cls=Command)
@options(CHANGES)
@click.pass_obj
def command(invocation: Invocation, /, **said: Any) -> int:
    """Run again what has failed.

    With an ID: what has failed of the workflow that this task belongs to, from the failed steps on.

    \b
    litetq retry jobs.sqlite 0199aa...                              one task with its workflow
    litetq retry jobs.sqlite --name "reports.*" --newer 1d          show which failures that would be
    litetq retry jobs.sqlite --name "reports.*" --newer 1d --yes    do it

    What was revoked or has expired counts as failed; with a filter only where --state says so. Steps that have succeeded stay as
    they are. It can be done as long as the failures are on record.

    The exit code is 0 when tasks are to run again, 1 when nothing has failed.
    """
    if any(state not in _FAILED for state in said["states"]):
        usage("Only what has failed can be retried: --state failure, revoked or dead.")
    by_filter = any(said[name] for name in ("names", "queues", "older", "newer", "text", "states", "all_of_them"))
    if by_filter and not said["states"]:
        said["states"] = ("FAILURE",)

    def make(choice: Choice, ids: list[str]) -> int:
        if not by_filter:
            return max([_retry_one(choice, id) for id in ids])
        count, refused = 0, list[str]()

        def do(batch: Sequence[str]) -> None:
            nonlocal count
            count += run_again(choice.app, batch, refused)

        finished = choice.each_batch(ids, do)
        choice.report({"retried": count}, f"{counted(count, 'task')} to run again")
        say_refused(refused)
        _say_nobody_works(choice.app)
        return cli.FAILED if refused else exit_code(finished)

    return chosen(invocation, said, ("retry", "retried"), frozenset({"DONE"}), make, check_ids=False)


def run_again(app: LiteTQ, ids: Sequence[str], refused: list[str]) -> int:
    """Let these run again and return how many do; of those that cannot, the reason is added to `refused`."""
    try:
        return app.engine.run_again(ids)
    except NotOnRecord as error:
        if len(ids) == 1:
            refused.append(str(error))
            return 0
    return sum(run_again(app, [id], refused) for id in ids)


def say_refused(refused: Sequence[str]) -> None:
    """Say the first few reasons."""
    for reason in refused[:_SHOWN]:
        console.say(reason, sys.stderr)
    if len(refused) > _SHOWN:
        console.say(f"... and {counted(len(refused) - _SHOWN, 'task')} more that cannot be run again.", sys.stderr)


def _retry_one(choice: Choice, id: str) -> int:
    app = choice.app
    records = tasks_of(app, id)
    failed = [record for record in records if record.place == "DONE" and record.state != states.SUCCESS]
    count = app.engine.run_again([record.id for record in failed])
    if not count:
        console.say(f"Nothing to retry: {_why_not(records)}", sys.stderr)
        return cli.FAILED
    if choice.in_json:
        console.say(as_json({"retried": count}))
        return cli.OK
    known = app.engine.read_many([record.id for record in failed])
    tasks = "1 task runs" if count == 1 else f"{count} tasks run"
    console.say(f"{tasks} again:")
    for record in failed:
        if record.id in known and known[record.id].place != "DONE":
            console.say(line(known[record.id]))
    _say_nobody_works(app)
    return cli.OK


def _say_nobody_works(app: LiteTQ) -> None:
    path = app.engine.path
    if not app.engine.has_worker():
        console.say(f"litetq: no worker runs on {path}; start one: litetq worker {path}", sys.stderr)


def _why_not(records: list[Record]) -> str:
    unfinished = sum(record.place != "DONE" for record in records)
    if unfinished:
        return f"no task of this workflow has failed, and {unfinished} of {len(records)} have not ended yet."
    return (
        f"all {len(records)} tasks of this workflow have succeeded." if len(records) > 1 else "the task has succeeded."
    )
