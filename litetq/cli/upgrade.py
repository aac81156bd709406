"""`litetq upgrade settings FILE`: write Celery's old setting names as the new ones."""

from __future__ import annotations

import re
import sys
import tokenize
from pathlib import Path
from typing import Final

import click

from litetq import cli, conf
from litetq.cli import console
from litetq.cli.commands import Actions, Command, Invocation

_OLD: Final = re.compile(rf"\b({'|'.join(sorted(map(re.escape, conf.TO_NEW), key=len, reverse=True))})\b")


@click.group(cls=Actions)
def command() -> None:
    """Bring a program up to date.

    \b
    litetq upgrade settings celeryconfig.py
    litetq upgrade settings proj/settings.py --django
    """


@command.command("settings", cls=Command)
@click.argument("filename", metavar="FILE")
@click.option("--django", is_flag=True, help="Names for Django's settings: upper case, CELERY_ before each.")
@click.option("--compat", is_flag=True, help="The same names, for a program that Celery 3 must still read.")
@click.option("--no-backup", is_flag=True, help="Do not keep the file as it was, under its name with .orig behind.")
@click.pass_obj
def settings(invocation: Invocation, filename: str, django: bool, compat: bool, no_backup: bool) -> int:
    """Replace the old names of settings in FILE by the new ones, wherever they stand as whole words.

    FILE as it was is kept as FILE.orig. It is read as text, and nothing of it is run.
    """
    invocation.enter()
    path = Path(filename)
    if not invocation.quiet:
        console.say(f"processing {filename}...", sys.stderr)
    text, encoding = _read(path)
    new = _OLD.sub(lambda found: _new_name(found[0], in_upper_case=django or compat), text)
    if new == text:
        console.say("Does not seem to require any changes :-)")
        return cli.OK
    try:
        if not no_backup:
            _keep(path, invocation.quiet)
        path.write_bytes(new.encode(encoding))
    except OSError as error:
        raise click.ClickException(f"{error.filename or filename} cannot be written: {error.strerror}.") from None
    console.say("Changes to your setting have been made!")
    return cli.OK


def _read(path: Path) -> tuple[str, str]:
    """Return the text with its line ends as they are, and its encoding as Python finds it."""
    try:
        with path.open("rb") as file:
            encoding, _ = tokenize.detect_encoding(file.readline)
        return path.read_bytes().decode(encoding), encoding
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read: {error.strerror}.") from None
    except (SyntaxError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{path} is no Python source: {error}.") from None


def _new_name(old: str, *, in_upper_case: bool) -> str:
    new = conf.TO_NEW[old]
    if not in_upper_case:
        return new
    upper = new.upper()
    return upper if upper.startswith("CELERY") else f"CELERY_{upper}"


def _keep(path: Path, quiet: bool) -> None:
    kept = path.with_name(f"{path.name}.orig")
    if kept.exists():
        raise click.ClickException(f"{kept} is there already; move it away, or give --no-backup. Nothing was changed.")
    if not quiet:
        console.say(f"writing backup to {kept}...", sys.stderr)
    kept.write_bytes(path.read_bytes())
