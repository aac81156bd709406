"""`litetq report [FILE]`: what a bug report needs: versions, platform, app, file and who named it, settings."""

from __future__ import annotations

import click

from litetq import cli
from litetq.cli import console
from litetq.cli.commands import Command, Invocation
from litetq.cli.opening import open_app
from litetq.cli.text import listed, visible


@click.command(cls=Command, short_help="Show versions, app, file and settings.")
@click.argument("file", required=False, metavar="[FILE]")
@click.option("--strict", is_flag=True, help="End with 1 when a setting is given that nobody knows.")
@click.option("--no-recorded-app", is_flag=True, help="Do not import the app that the file of tasks names.")
@click.pass_obj
def command(invocation: Invocation, file: str | None, strict: bool, no_recorded_app: bool) -> int:
    """Show versions, platform, the app, the file of tasks and who named it, and the settings (passwords masked)."""
    invocation.enter()
    app = open_app(invocation, file, use_recorded=not no_recorded_app).app
    console.say(app.bugreport())
    unknown = app.conf.unknown
    if strict and unknown:
        raise click.ClickException(f"Unknown settings: {listed(map(visible, unknown), most=50)}.")
    return cli.OK
