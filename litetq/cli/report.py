"""`litetq report [FILE]`: what a bug report needs: versions, platform, app, file and who named it, settings."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any

import click

from litetq import cli
from litetq.cli import console
from litetq.cli.commands import Command, Invocation
from litetq.cli.opening import open_app
from litetq.cli.text import as_json, listed, visible

if TYPE_CHECKING:
    from litetq.app import LiteTQ


@click.command(cls=Command, short_help="Show versions, app, file and settings.")
@click.argument("file", required=False, metavar="[FILE]")
@click.option("--strict", is_flag=True, help="End with 1 when a setting is given that nobody knows.")
@click.option("--no-recorded-app", is_flag=True, help="Do not import the app that the file of tasks names.")
@click.option("-j", "--json", "in_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(invocation: Invocation, file: str | None, strict: bool, no_recorded_app: bool, in_json: bool) -> int:
    """Show versions, platform, the app, the file of tasks and who named it, and the settings (passwords masked)."""
    invocation.enter()
    app = open_app(invocation, file, use_recorded=not no_recorded_app).app
    unknown = app.conf.unknown
    console.say(as_json(_facts(app)) if in_json else app.bugreport())
    if strict and unknown:
        raise click.ClickException(f"Unknown settings: {listed(map(visible, unknown), most=50)}.")
    return cli.OK


def _facts(app: LiteTQ) -> dict[str, Any]:
    """Return what the report says, passwords hidden."""
    from litetq import __version__
    from litetq.address import mask

    return {
        "litetq": __version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "release": platform.release(),
        "broker": {"address": mask(app.broker_address.text), "from": app.broker_source},
        "results": {"address": mask(app.result_address.text), "from": app.result_source},
        "directory": os.getcwd(),
        "settings": {str(key): value for key, value in app.conf.table().items()},
        "unknown": sorted(app.conf.unknown),
    }
