"""`litetq schedule ...`: look at the periodic tasks in the file, and change them while beats run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from litetq import cli, clock, schedules
from litetq.cli import console
from litetq.cli.commands import Actions, Command, Invocation, usage
from litetq.cli.opening import check_is_ours, is_file, open_app
from litetq.cli.text import as_json, iso, paper, span, table, visible
from litetq.exceptions import ProgramError

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.timetable import Entry

ALIASES: Final = {"ls": "list", "rm": "remove", "run_now": "run-now"}


@click.group(cls=Actions, aliases=ALIASES)
def command() -> None:
    """Look at the periodic tasks in the file, and change them while beats run.

    \b
    litetq schedule list jobs.sqlite
    litetq -A tasks schedule add nightly tasks.report --cron "30 3 * * *"
    litetq -A tasks schedule edit nightly --cron "0 4 * * mon-fri" --overlap skip
    litetq -A tasks schedule next 10
    litetq -A tasks schedule pause nightly

    A change takes effect within a second. Entries of the configuration can be paused, resumed and run out of turn; they are
    changed and removed in the configuration.
    """


def _open(invocation: Invocation) -> LiteTQ:
    """Return the app; where none is found, one that only knows the file. A file that the line names is one of litetq's."""
    app = _open_or_make(invocation)
    if invocation.broker is not None:
        check_is_ours(app)
    return app


def _open_file(invocation: Invocation) -> LiteTQ:
    """Return an app that knows the file alone, where the line names one and no app: nothing of anybody's is imported.

    What is shown and changed by it stands in the file. Its time zone is that of the entries, if they agree.
    """
    invocation.enter()
    if invocation.given_app is not None or invocation.app is not None or invocation.broker is None:
        return _open(invocation)
    from litetq.app import LiteTQ

    app = LiteTQ("litetq", broker=invocation.broker, set_as_current=False)
    check_is_ours(app)
    zones = {entry.zone for entry in app.schedule.entries()}
    if len(zones) == 1:
        app.conf.timezone = zones.pop()
    return app


def _open_or_make(invocation: Invocation) -> LiteTQ:
    """Return the same for a file that may be missing: an entry is added to a new one as a task is sent to a new one."""
    invocation.enter()
    try:
        app = open_app(invocation, None).app
    except ProgramError:
        if invocation.app is not None or invocation.broker is None:
            raise
        from litetq.app import LiteTQ

        return LiteTQ("litetq", broker=invocation.broker, set_as_current=False)
    from litetq.cli.find import import_included

    import_included(app)
    app.finalize()
    return app


def _take_file(invocation: Invocation, words: Sequence[str], least: int) -> list[str]:
    """Return the words behind FILE, which comes first where there are more words than the `least` that are needed."""
    invocation.enter()
    names = list(words)
    if len(names) > least and is_file(names[0]):
        if invocation.broker is not None:
            usage(f"Both FILE ({names[0]!r}) and -b ({invocation.broker!r}) say where the tasks are; give one.")
        invocation.broker = names.pop(0)
    if len(names) < least:
        usage(f"{'A name is' if least == 1 else 'NAME and TASK are'} missing.")
    return names


def _one_name(invocation: Invocation, words: Sequence[str]) -> str:
    names = _take_file(invocation, words, 1)
    if len(names) > 1:
        usage(f"One name is wanted, found {', '.join(names)}.")
    return names[0]


def _json(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    """Read the JSON of arguments."""
    if value is None:
        return None
    kind: type = dict if option.name == "kwargs" else list
    try:
        found = json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no JSON: {error}", context, option) from None
    if not isinstance(found, kind):
        example = '{"name": 1}' if kind is dict else '[1, "two"]'
        raise click.BadParameter(
            f"{value!r} is no JSON {'object' if kind is dict else 'list'}, like {example}", context, option
        )
    return found


_WHEN: Final[list[Callable[..., Any]]] = [
    click.option("--every", type=float, metavar="SECONDS", help="Every so many seconds."),
    click.option("--cron", metavar="LINE", help='Standard cron: "*/5 9-17 * * mon-fri", "@daily".'),
    click.option("--crontab", metavar="LINE", help="The same five fields by Celery's rule: both days must match."),
]
_CALL: Final[list[Callable[..., Any]]] = [
    click.option("--args", callback=_json, metavar="JSON", help="Positional arguments: '[1, \"two\"]'."),
    click.option("--kwargs", callback=_json, metavar="JSON", help="Keyword arguments: '{\"name\": 1}'."),
    click.option("--queue", metavar="NAME", help="Send to this queue."),
    click.option("--priority", type=int, metavar="0..255", help="Priority; higher comes first."),
    click.option("--expires", type=float, metavar="SECONDS", help="A run that has not begun by then does not begin."),
]
_POLICY: Final[list[Callable[..., Any]]] = [
    click.option(
        "--catch-up", type=click.Choice(schedules.CATCH_UP), help="Which runs that were missed are made up for."
    ),
    click.option("--catch-up-limit", type=int, metavar="NUMBER", help="At most so many of them."),
    click.option(
        "--overlap", type=click.Choice(schedules.OVERLAP), help="What to do while the last run is unfinished."
    ),
    click.option("--jitter", type=float, metavar="SECONDS", help="Let each run come up to so much later, by chance."),
    click.option("--deadline", type=float, metavar="SECONDS", help="Do not run what is later than that."),
    click.option("--starts-at", metavar="DATE", help="No run before: 2026-03-29T01:30+01:00 (without a zone: UTC)."),
    click.option("--ends-at", metavar="DATE", help="No run after."),
]


_JSON: Final = click.option("-j", "--json", "in_json", is_flag=True, help="One JSON object a line.")


def _with(options: Sequence[Callable[..., Any]]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _fields(said: dict[str, Any]) -> dict[str, Any]:
    """Return what the options say, as `Entries.add` and `edit` take it; what was not said is left out."""
    when = {name: said.pop(name) for name in ("every", "cron", "crontab")}
    given = [name for name, value in when.items() if value is not None]
    if len(given) > 1:
        usage(f"Both --{given[0]} and --{given[1]} say when; give one.")
    fields = {name: value for name, value in said.items() if value is not None}
    options = {name: fields.pop(name) for name in ("queue", "priority", "expires") if name in fields}
    if options:
        fields["options"] = options
    try:
        if given:
            value = when[given[0]]
            fields["schedule"] = schedules.crontab.from_string(value) if given[0] == "crontab" else value
    except (ValueError, schedules.ParseException) as error:
        usage(f"--crontab: {error}")
    return fields


@command.command("list", cls=Command)
@click.argument("file", required=False, metavar="[FILE]")
@_JSON
@click.pass_obj
def list_entries(invocation: Invocation, file: str | None, in_json: bool) -> int:
    """Show all entries: when each runs next, when it ran last, and why it did not."""
    if file is not None and _take_file(invocation, [file], 0):
        usage(f"{file!r} is no file; a path without separator ends in .sqlite or .db, or exists.")
    app = _open_file(invocation)
    entries = app.schedule.entries()
    if in_json:
        for entry in entries:
            _tell(entry, True)
        return cli.OK
    if not entries:
        console.say("The schedule is empty. Entries of a configuration come with the first beat that starts.")
    rows: list[tuple[str, ...]] = [("NAME", "TASK", "WHEN", "NEXT", "LAST", "RUNS", "FROM")]
    rows += [
        tuple(
            map(
                visible,
                (
                    e.name,
                    e.task,
                    e.words,
                    _next(app, e),
                    _point(app, e.last_run_at),
                    str(e.runs),
                    e.owner or "run time",
                ),
            )
        )
        for e in entries
    ]
    for line in table(rows, paper(no_color=invocation.no_color)) if entries else []:
        console.say(line)
    for entry in entries:
        if entry.note:
            at = "" if entry.last_due_at is None else f" (due {_point(app, entry.last_due_at)})"
            console.say(visible(f"{entry.name}: {entry.note}{at}"))
    return cli.OK


def _tell(entry: Entry, in_json: bool, words: str = "") -> None:
    """Print what has become of an entry: these words, or all of it as JSON."""
    times = {name: iso(at) for name, at in entry._asdict().items() if name.endswith("_at")}
    console.say(as_json(entry._asdict() | times | {"task": entry.task}) if in_json else visible(words))


def _next(app: LiteTQ, entry: Entry) -> str:
    if entry.paused:
        return "paused"
    if entry.due_at is None:
        return "never again"
    if entry.due_at <= clock.now():
        return f"due since {_point(app, entry.due_at)}"
    return _point(app, entry.due_at)


def _point(app: LiteTQ, seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return _shown(schedules.utc(seconds).astimezone(app.timezone))


def _shown(point: datetime) -> str:
    return point.strftime("%Y-%m-%d %H:%M:%S")


@command.command("add", cls=Command)
@click.argument("words", nargs=-1, metavar="[FILE] NAME TASK")
@_with([*_WHEN, click.option("--relative", is_flag=True, help="Round --every down to its unit."), *_CALL, *_POLICY])
@_JSON
@click.pass_obj
def add(invocation: Invocation, /, words: tuple[str, ...], in_json: bool, **said: Any) -> int:
    """Add an entry NAME that sends TASK."""
    name, task, *rest = _take_file(invocation, words, 2)
    if rest:
        usage(f"NAME and TASK are wanted, found {', '.join([name, task, *rest])}.")
    fields = _fields(said)
    if "schedule" not in fields:
        usage("When? Give --every, --cron or --crontab.")
    app = _open_or_make(invocation)
    entry = app.schedule.add(name, task, **fields)
    _tell(entry, in_json, f"added: {entry.name} sends {entry.task}, {entry.words}; next: {_next(app, entry)}")
    return cli.OK


@command.command("edit", cls=Command)
@click.argument("words", nargs=-1, metavar="[FILE] NAME")
@click.option("--task", metavar="NAME", help="Send this task.")
@_with([*_WHEN, *_CALL, *_POLICY])
@_JSON
@click.pass_obj
def edit(invocation: Invocation, /, words: tuple[str, ...], in_json: bool, **said: Any) -> int:
    """Change entry NAME, which was made at run time; a changed time counts from now on."""
    name = _one_name(invocation, words)
    fields = _fields(said)
    if not fields:
        usage("What is to be changed? Give --every, --cron, --args, --overlap, ...")
    app = _open(invocation)
    if "options" in fields:
        fields["options"] = {**json.loads(app.schedule.get(name).definition)["options"], **fields["options"]}
    entry = app.schedule.edit(name, **fields)
    _tell(entry, in_json, f"changed: {entry.name} sends {entry.task}, {entry.words}; next: {_next(app, entry)}")
    return cli.OK


@command.command("pause", cls=Command)
@click.argument("words", nargs=-1, metavar="[FILE] NAME...")
@_JSON
@click.pass_obj
def pause(invocation: Invocation, words: tuple[str, ...], in_json: bool) -> int:
    """Let entries rest until they are resumed."""
    names = _take_file(invocation, words, 1)
    app = _open_file(invocation)
    for name in names:
        app.schedule.pause(name)
        _tell(app.schedule.get(name), in_json, f"paused: {name}")
    return cli.OK


@command.command("resume", cls=Command)
@click.argument("words", nargs=-1, metavar="[FILE] NAME...")
@_JSON
@click.pass_obj
def resume(invocation: Invocation, words: tuple[str, ...], in_json: bool) -> int:
    """Let entries go on; what was due while they were paused is not made up for."""
    names = _take_file(invocation, words, 1)
    app = _open_file(invocation)
    for name in names:
        entry = app.schedule.resume(name)
        _tell(entry, in_json, f"resumed: {name}; next: {_next(app, entry)}")
    return cli.OK


@command.command("remove", cls=Command)
@click.argument("words", nargs=-1, metavar="[FILE] NAME...")
@_JSON
@click.pass_obj
def remove(invocation: Invocation, words: tuple[str, ...], in_json: bool) -> int:
    """Remove entries that were made at run time."""
    names = _take_file(invocation, words, 1)
    app = _open_file(invocation)
    for name in names:
        app.schedule.remove(name)
        console.say(as_json({"removed": name}) if in_json else visible(f"removed: {name}"))
    return cli.OK


@command.command("run-now", cls=Command)
@click.argument("words", nargs=-1, metavar="[FILE] NAME...")
@_JSON
@click.pass_obj
def run_now(invocation: Invocation, words: tuple[str, ...], in_json: bool) -> int:
    """Enqueue a run of entries at once, beside their due times."""
    names = _take_file(invocation, words, 1)
    app = _open(invocation)
    for name in names:
        id = app.schedule.run_now(name).id
        console.say(as_json({"name": name, "id": id}) if in_json else visible(f"enqueued: {name} as {id}"))
    return cli.OK


@command.command("next", cls=Command)
@click.argument("words", nargs=-1, metavar="[FILE] [COUNT] [NAME]")
@_JSON
@click.pass_obj
def next_runs(invocation: Invocation, words: tuple[str, ...], in_json: bool) -> int:
    """Show the next COUNT runs (10), of all entries or of NAME: what beat will do from now on."""
    names = _take_file(invocation, words, 0)
    count = int(names.pop(0)) if names and names[0].isdecimal() else 10
    if len(names) > 1:
        usage(f"COUNT and NAME are wanted, found {' '.join(words)}.")
    if count < 1:
        usage(f"COUNT is a number of runs; {count} is not in the range from 1 on.")
    name = names[0] if names else None
    app = _open_file(invocation)
    runs = app.schedule.next(count, name)
    if in_json:
        for run in runs:
            console.say(as_json({"at": run.at.isoformat(), "name": run.name, "task": run.task}))
        return cli.OK
    now = clock.now()
    for run in runs:
        at = f"{_shown(run.at)}  in {span(run.at.timestamp() - now):<12}"
        console.say(f"{at}  {visible(run.name)}  {visible(run.task)}")
    for entry in app.schedule.entries():
        if name in (None, entry.name) and (entry.paused or entry.due_at is None):
            console.say(visible(f"{entry.name}: {_next(app, entry)}"))
    return cli.OK
