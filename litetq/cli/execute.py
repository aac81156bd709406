"""`litetq exec [-b FILE] -- PROGRAM ...`: run any program in which `import celery` means litetq.

Python programs read `sitecustomize` when they start, before anything else. The folder of ours goes first into PYTHONPATH, so
every Python below this command turns the alias on: the program, what it starts, and scripts such as `celery` or `gunicorn`. It
is the way that works on every platform and leaves the environment's site-packages alone. Programs that are told to ignore the
environment (`python -I`, `-E`, `-S`) do not see it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import click

from litetq.cli import console
from litetq.cli.commands import Command, Invocation, usage
from litetq.cli.opening import export

NOT_FOUND: Final = 127  # what a shell answers for a program that does not exist
NOT_STARTED: Final = 126


@click.command(
    "exec",
    cls=Command,
    params=[click.Argument(["program"], nargs=-1, type=click.UNPROCESSED, metavar="-- PROGRAM [WORDS]...")],
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.pass_obj
def command(invocation: Invocation, program: tuple[str, ...]) -> int:
    """Run a program in which `import celery` means litetq.

    \b
    litetq exec -- python manage.py runserver
    litetq exec -b jobs.sqlite -- celery -A proj worker -l INFO

    With -b the file is where all apps in it have their tasks and results, whatever their settings say. Its exit code is that
    of the program.
    """
    invocation.enter()
    if not program:
        usage("Which program? Write it after --, for example:  litetq exec -- python manage.py runserver")
    found = shutil.which(program[0])
    if found is None:
        advice = (
            f" Without Celery installed, write:  litetq --as-celery {shlex.join(program[1:])}"
            if program[0] == "celery"
            else ""
        )
        console.say(f"Error: there is no program {program[0]!r} on the path.{advice}".rstrip(), sys.stderr)
        return NOT_FOUND
    export(invocation.broker, invocation.result_backend or invocation.broker)
    _turn_on()
    words = [found, *program[1:]]
    try:
        if os.name == "posix":
            sys.stdout.flush()
            os.execv(found, [program[0], *program[1:]])  # the same process: signals and its exit code are its own
        return _run(words)
    except OSError as error:
        console.say(f"Error: {found} cannot be started: {error.strerror}.", sys.stderr)
        return NOT_STARTED


def _turn_on() -> None:
    """Make the environment of the program one in which the alias is on."""
    from litetq import compat

    startup = str(Path(compat.__file__).resolve().parent / "startup")
    rest = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry and entry != startup]
    os.environ["PYTHONPATH"] = os.pathsep.join([startup, *rest])
    os.environ[compat.VARIABLE] = "1"


def _run(words: list[str]) -> int:
    """Run a program below this one; Ctrl-C goes to both, and the program decides what it means."""
    with subprocess.Popen(words) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue
