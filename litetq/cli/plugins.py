"""Commands of other packages: entry points of the groups `litetq.commands` and `celery.commands`, each a click command.

They are looked for when a name is asked for that is no command of ours, and when the commands are listed. A plugin written for
Celery finds what it expects in `ctx.obj`: the app, and ways to print.
"""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final

import click

from litetq.cli import console
from litetq.log import has_colour

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.cli.commands import Invocation

GROUPS: Final = ("litetq.commands", "celery.commands")  # of two with one name, the first counts


def named() -> dict[str, EntryPoint]:
    """Return the commands of other packages by name; nothing of them is imported."""
    found: dict[str, EntryPoint] = {}
    for group in GROUPS:
        for point in entry_points(group=group):
            found.setdefault(point.name, point)
    return found


def load(point: EntryPoint) -> click.Command:
    """Import the command. Raises ClickException when that fails, or when it is no click command."""
    whose = f"the command {point.name!r} of another package ({point.value})"
    try:
        command = point.load()
    except Exception as error:
        raise click.ClickException(f"{whose} cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(command, click.Command):
        raise click.ClickException(f"{whose} is {type(command).__name__}, not a click command; ask those who made it.")
    return command


class Surroundings:
    """What a command of another package gets as `ctx.obj`; the app is found when it is first asked for."""

    def __init__(self, invocation: Invocation) -> None:
        self.invocation = invocation
        self.no_color = invocation.no_color
        self.quiet = invocation.quiet
        self.workdir = invocation.workdir
        self._app: LiteTQ | None = None
        invocation.enter()

    @property
    def app(self) -> LiteTQ:
        if self._app is None:
            from litetq.cli import asking

            self._app = asking.reach(self.invocation)
        return self._app

    def style(self, message: Any = None, **style: Any) -> str:
        return (
            click.style(message, **style) if has_colour(sys.stdout, False if self.no_color else None) else str(message)
        )

    @property
    def OK(self) -> str:
        return self.style("OK", fg="green", bold=True)

    @property
    def ERROR(self) -> str:
        return self.style("ERROR", fg="red", bold=True)

    def echo(self, message: Any = None, **options: Any) -> None:
        click.echo(message, **options)

    def secho(self, message: Any = None, **style: Any) -> None:
        console.say(self.style(message, **style))

    def error(self, message: Any = None, **_: Any) -> None:
        console.say(str(message), sys.stderr)
