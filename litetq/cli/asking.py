"""What the commands share that ask workers: `status`, `inspect`, `control`.

They print what Celery's print, and end with 69 when nobody answers, as scripts expect.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from litetq import cli
from litetq.cli import console
from litetq.cli.commands import Invocation, usage
from litetq.cli.opening import broker_named, open_app, open_broker, open_file
from litetq.cli.text import as_json, paper, visible, visible_lines
from litetq.panel import PANEL, CommandInfo

if TYPE_CHECKING:
    from litetq.app import LiteTQ

_KINDS: Final[dict[Any, str]] = {int: "a whole number", float: "a number"}

# Celery's commands that have no meaning here.
NOT_HERE: Final = {("control", "election"): "workers of one file have nothing to elect; each claims what it runs"}
_APPS: Final = ("LITETQ_APP", "CELERY_APP")
_FILES: Final = ("LITETQ_BROKER", "CELERY_BROKER_URL")

Replies = Iterable[tuple[str, Any]]


class NobodyReplied(click.ClickException):
    """No worker answered in time."""

    exit_code = cli.UNAVAILABLE

    def __init__(self, app: LiteTQ) -> None:
        path = app.broker_address.path
        rest = "" if path is None or os.path.isfile(path) else f": there is no file {path} yet"
        super().__init__(f"No nodes replied within time constraint{rest}")


def reach(invocation: Invocation, file: str | None = None) -> LiteTQ:
    """Return the app that the line names or that is found, its modules imported; for a mere file or broker, one that knows no task.

    The file of an app need not be there yet.
    """
    from litetq.cli.find import import_included

    invocation.enter()
    if not _names_mere_place(invocation, file):
        app = open_app(invocation, file).app
    else:
        broker = broker_named(invocation, file)
        app = open_file(invocation, file) if broker is None else open_broker(invocation, broker)
    import_included(app)
    app.finalize()
    return app


def _names_mere_place(invocation: Invocation, file: str | None) -> bool:
    """Return whether a file or a broker is named and no app; the line counts before the environment."""
    if invocation.app is not None or invocation.given_app is not None:
        return False
    if file is not None or invocation.broker is not None:
        return True
    return not any(map(os.environ.get, _APPS)) and any(map(os.environ.get, _FILES))


def has_file(app: LiteTQ) -> bool:
    """Return whether the app's file is there: looking must not make one."""
    path = app.broker_address.path
    return path is None or os.path.isfile(path)


def names(context: click.Context, option: click.Parameter, value: str | None) -> list[str] | None:
    """Read names with commas between them."""
    if value is None:
        return None
    found = [name.strip() for name in value.split(",") if name.strip()]
    if not found:
        raise click.BadParameter("names nobody; give names with commas between them.", context, option)
    return found


OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    click.option(
        "-t",
        "--timeout",
        type=click.FloatRange(min=0),
        default=1.0,
        metavar="SECONDS",
        help="How long to wait for answers at most (1); not longer than until all who live have answered.",
    ),
    click.option("-d", "--destination", callback=names, metavar="A,B", help="Ask only these nodes."),
    click.option("-j", "--json", "in_json", is_flag=True, help="Print JSON."),
)


def with_options(function: Any) -> Any:
    for option in reversed(OPTIONS):
        function = option(function)
    return function


# -- the command among the words -------------------------------------------------------------------------------------


def listing(kind: str) -> dict[str, CommandInfo]:
    """Return the commands of a kind, "inspect" or "control", that people may give."""
    return {
        name: info for name, info in sorted(PANEL.items()) if info.kind == kind and info.visible and name == info.name
    }


def list_option(kind: str) -> Callable[[Any], Any]:
    """Return the option --list, which needs no worker and no app."""

    def show(context: click.Context, option: click.Parameter, value: bool) -> None:
        if not value or context.resilient_parsing:
            return
        formatter = context.make_formatter()
        with formatter.section(f"{kind.capitalize()} Commands"):
            formatter.write_dl(
                [(f"{name} {info.signature or ''}".strip(), info.help or "") for name, info in listing(kind).items()]
            )
        console.say(formatter.getvalue().rstrip("\n"))
        context.exit()

    return click.option(
        "--list", is_flag=True, is_eager=True, expose_value=False, callback=show, help="List the commands and end."
    )


def completions(kind: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return what completes the word COMMAND in a shell."""
    return lambda context, argument, typed: [name for name in listing(kind) if name.startswith(typed)]


def command_named(kind: str, name: str) -> CommandInfo:
    """Return the command of this name or alias; ends with usage when there is none of this kind."""
    info = PANEL.get(name)
    if info is not None and info.kind == kind:
        return info
    if (kind, name) in NOT_HERE:
        usage(f"Command {name} is refused: {NOT_HERE[kind, name]}.")
    other = f" It is a command of {info.kind}:  litetq {info.kind} {name}." if info is not None else ""
    usage(f"Command {visible(name)} not recognized.{other} Available {kind} commands: {', '.join(listing(kind))}")


def arguments_of(info: CommandInfo, words: Sequence[str]) -> dict[str, Any]:
    """Return the words behind a command as its arguments; ends with usage when they do not fit."""
    taken = list(words)
    found: dict[str, Any] = {}
    for name, kind in info.args:
        if taken:
            found[name] = _converted(info, name, kind, taken.pop(0))
    if info.variadic:
        found[info.variadic] = taken
    elif taken:
        usage(_fits(info, f"{visible(taken[0])!r} is one word too many"))
    missing = [name for name in _needed(info) if not found.get(name)]
    if missing:
        usage(_fits(info, f"{missing[0]} is missing"))
    return found


def _converted(info: CommandInfo, name: str, kind: Callable[[str], Any] | None, word: str) -> Any:
    try:
        return word if kind is None else kind(word)
    except ValueError:
        usage(_fits(info, f"{name} must be {_KINDS.get(kind, 'readable')}, found {visible(word)!r}"))


def _needed(info: CommandInfo) -> Iterator[str]:
    """Yield the arguments that the command cannot do without, as far as they can be given in words."""
    known = {*(name for name, _ in info.args), *filter(None, [info.variadic])}
    for parameter in inspect.signature(info.function).parameters.values():
        if parameter.name in known and parameter.default is parameter.empty:
            yield parameter.name


def _fits(info: CommandInfo, what: str) -> str:
    takes = f"takes arguments: {info.signature}" if info.signature else "takes no arguments"
    return f"Command {info.name!r} {takes}; {what}."


# -- what is printed -------------------------------------------------------------------------------------------------


def say_replies(invocation: Invocation, replies: Replies, *, bodies: bool = True) -> None:
    """Print answers: a line for each node, and below it what it said."""
    page = paper(no_color=invocation.no_color)
    arrow = " " if invocation.quiet else "->  "
    for node, reply in replies:
        is_error = isinstance(reply, dict) and "error" in reply and "ok" not in reply
        status = page.paint("ERROR", "bad") if is_error else page.paint("OK", "good")
        console.say(f"{arrow}{page.paint(f'{visible(node)}:', 'bold')} {status}")
        if bodies:
            for line in _body(reply):
                console.say(f"    {line}")


def _body(reply: Any) -> Iterator[str]:
    if isinstance(reply, dict) and not {"ok", "error"}.isdisjoint(reply):
        yield from (f"    {line}" for line in _body(reply["ok"] if "ok" in reply else reply["error"]))
    elif isinstance(reply, list):
        yield from (f"* {visible(str(item))}" for item in reply) if reply else ["- empty -"]
    elif isinstance(reply, dict):
        yield from json.dumps(reply, sort_keys=True, indent=4).split("\n")
    else:
        yield from visible_lines(str(reply))


def say_json(value: Any) -> None:
    console.say(as_json(value))


def say_online(invocation: Invocation, count: int) -> None:
    """Print how many nodes there are."""
    if not invocation.quiet:
        console.say(f"\n{count} {'node' if count == 1 else 'nodes'} online.")


def online(replies: Mapping[str, Any]) -> int:
    """Return how many of those who are listed are nodes: what is read of the file stands under file@..."""
    return sum(not name.startswith("file@") for name in replies)


# -- status ----------------------------------------------------------------------------------------------------------


def status(
    invocation: Invocation, timeout: float, destination: list[str] | None, in_json: bool, place: str | None = None
) -> int:
    """Print which workers of an app, or at a broker, are online: Celery's `status`, without a file."""
    app = reach(invocation, place)
    replies = app.control.inspect(destination, timeout=timeout).ping() if has_file(app) else None
    if not replies:
        raise NobodyReplied(app)
    if in_json:
        say_json(replies)
        return cli.OK
    say_replies(invocation, replies.items(), bodies=False)
    say_online(invocation, len(replies))
    return cli.OK


def note(sentence: str) -> None:
    """Say on stderr what an option or a command does not do here."""
    console.say(f"note: {sentence}", sys.stderr)
