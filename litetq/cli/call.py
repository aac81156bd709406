"""`litetq call NAME`: send a task by its name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from litetq import calling, cli
from litetq.cli import console
from litetq.cli.commands import Command, Invocation, usage
from litetq.cli.text import as_json
from litetq.exceptions import ProgramError

if TYPE_CHECKING:
    from litetq.app import LiteTQ


def json_of(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    """Read the JSON of arguments."""
    if value is None:
        return None
    kind, word, example = (dict, "object", '{"name": 1}') if option.name == "kwargs" else (list, "array", '[1, "two"]')
    try:
        found = json.loads(value)
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is no JSON: {error}; write for example {example}", context, option
        ) from None
    if not isinstance(found, kind):
        raise click.BadParameter(f"{value} was not an {word}; write for example {example}", context, option)
    return found


def _date(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """Read a point in time as UTC seconds."""
    if value is None:
        return None
    try:
        return calling.point_in_time(value, str(option.name))
    except TypeError:
        raise click.BadParameter(
            f"{value!r} is no date in ISO 8601; write for example 2026-03-29T01:30 (UTC) or 2026-03-29T01:30+02:00",
            context,
            option,
        ) from None


def _date_or_seconds(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """Read a number of seconds from now, or a point in time."""
    if value is None:
        return None
    try:
        return calling.expiry_time(float(value))
    except ValueError:
        return _date(context, option, value)


@click.command(cls=Command, short_help="Send a task by its name and print its id.")
@click.argument("name")
@click.option("-a", "--args", callback=json_of, metavar="JSON", help="Positional arguments: '[1, \"two\"]'.")
@click.option("-k", "--kwargs", callback=json_of, metavar="JSON", help="Keyword arguments: '{\"name\": 1}'.")
@click.option("--eta", callback=_date, metavar="DATE", help="Not before: 2026-03-29T01:30+01:00 (without a zone: UTC).")
@click.option("--countdown", type=float, metavar="SECONDS", help="Not before so many seconds from now.")
@click.option(
    "--expires", callback=_date_or_seconds, metavar="DATE", help="Not after; also a number of seconds from now."
)
@click.option("--serializer", metavar="NAME", help="How arguments are encoded (json).")
@click.option("--queue", metavar="NAME", help="Send to this queue.")
@click.option("--exchange", metavar="NAME", help="Send to the declared queue that is bound to this exchange.")
@click.option("--routing-key", metavar="KEY", help="Send to the declared queue that is bound by this key.")
@click.option("-j", "--json", "in_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(invocation: Invocation, /, name: str, in_json: bool, **said: Any) -> int:
    """Send the task NAME, and print its id.

    \b
    litetq -A tasks call tasks.add --args "[2, 2]"
    litetq -b jobs.sqlite call tasks.add -a "[2, 2]" --countdown 60 --queue slow

    With an app its routes decide about the queue; the task itself need not be known here.
    """
    app = _open(invocation)
    if said["eta"] is not None and said["countdown"] is not None:
        usage("Both --eta and --countdown say when; give one.")
    args, kwargs = said.pop("args"), said.pop("kwargs")
    options = {option: value for option, value in said.items() if value is not None}
    for option in ("eta", "expires"):
        if option in options:
            options[option] = _datetime(options[option])
    try:
        result = app.send_task(name, args or (), kwargs or {}, **options)
    except (TypeError, ValueError) as error:
        usage(str(error))
    console.say(as_json({"id": result.id}) if in_json else result.id)
    return cli.OK


def _datetime(at: float) -> Any:
    from litetq.schedules import utc

    return utc(at)


def _open(invocation: Invocation) -> LiteTQ:
    """Return the app; where none is found, one that only knows the file."""
    from litetq.cli.opening import open_app

    invocation.enter()
    try:
        return open_app(invocation, None).app
    except ProgramError:
        if invocation.app is not None or invocation.broker is None:
            raise
        from litetq.app import LiteTQ

        return LiteTQ("litetq", broker=invocation.broker, set_as_current=False)
