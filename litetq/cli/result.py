"""`litetq result [FILE] ID`: wait for a task and print its value."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from litetq import cli, states
from litetq.cli import asking, console
from litetq.cli.commands import Command, Invocation, usage
from litetq.cli.opening import named_file, unknown_task
from litetq.cli.text import as_json, iso, visible, visible_lines

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.result import AsyncResult


@click.command(cls=Command, short_help="Wait for a task and print its value.")
@click.argument("words", nargs=-1, metavar="[FILE] ID")
@click.option("-t", "--task", metavar="NAME", help="Accepted; every task's result is in the same place.")
@click.option("--traceback", is_flag=True, help="Print the traceback instead; does not wait.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="How long to wait for the end; 0: not at all."
)
@click.option("-j", "--json", "in_json", is_flag=True, help="Print JSON: id, name, state, result, traceback, done_at.")
@click.option("--id", "given_id", metavar="ID", help="The id, where it could be taken for a file.")
@click.pass_obj
def command(
    invocation: Invocation,
    words: tuple[str, ...],
    task: str | None,
    traceback: bool,
    timeout: float | None,
    in_json: bool,
    given_id: str | None,
) -> int:
    """Wait for the end of a task and print what it returned.

    \b
    litetq -A tasks result ID
    litetq result jobs.sqlite ID --timeout 5

    The exit code is 1 when it failed, was revoked, is not known, or has not ended in time.
    """
    file, rest = named_file(invocation, words)
    ids = [*rest, *([] if given_id is None else [given_id])]
    if len(ids) != 1:
        usage(
            "Which task? Give its id, one." if not ids else f"One id at a time; found {', '.join(map(visible, ids))}."
        )
    if task is not None:
        asking.note("no effect here of -t: every task's result is in the same place")
    app = asking.reach(invocation, file)
    result = app.AsyncResult(ids[0])
    if not asking.has_file(app) or not result.exists():
        unknown_task(app, ids[0])
    if traceback:
        console.say("\n".join(visible_lines(result.traceback or "")))
        return cli.OK
    _wait(app, result, timeout)
    if in_json:
        console.say(as_json(_facts(result)))
        return cli.OK if result.state == states.SUCCESS else cli.FAILED
    return _say_end(result)


def _wait(app: LiteTQ, result: AsyncResult[Any], timeout: float | None) -> None:
    if timeout != 0 and not result.ready() and not app.engine.has_worker():
        console.say(f"litetq: no worker runs on {app.engine.path}; this waits for one", sys.stderr)
    try:
        result.get(timeout=timeout, propagate=False)
    except TimeoutError as error:
        raise click.ClickException(str(error)) from None


def _say_end(result: AsyncResult[Any]) -> int:
    value = result.result
    if result.state == states.SUCCESS:
        console.say("\n".join(visible_lines(str(value))))
        return cli.OK
    told = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else str(value)
    hint = " (--traceback shows where)" if result.traceback else ""
    raise click.ClickException(f"{result.state}: {visible(told)}{hint}")


def _facts(result: AsyncResult[Any]) -> dict[str, Any]:
    value, done = result.result, result.date_done
    return {
        "id": result.id,
        "name": result.name,
        "state": result.state,
        "result": repr(value) if isinstance(value, BaseException) else value,
        "traceback": result.traceback,
        "done_at": None if done is None else iso(done.timestamp()),
    }
