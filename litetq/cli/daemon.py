"""Run a command as a daemon: detached from its terminal, as another user, with another umask.

Detaching is the same on every system: the same command is started anew as a process of a session of its own, and this one
waits until that one says that it runs, so that what keeps it from starting is seen where it was asked for, with its exit code.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import click

from litetq import cli, platforms
from litetq.cli import console
from litetq.cli.commands import Invocation, usage
from litetq.exceptions import ImproperlyConfigured

_MARK: Final = "LITETQ_DETACHED"  # in the environment of the process that was detached, until it has read it
_RUNS: Final = b"\0runs\n"  # the last that it says


def options() -> list[click.Parameter]:
    """Return the options, made anew for each command."""
    return [
        click.Option(["-D", "--detach"], is_flag=True, help="Run in the background, away from this terminal."),
        click.Option(["--uid"], metavar="USER", help="Run as this user (name or number)."),
        click.Option(["--gid"], metavar="GROUP", help="Run as this group; by default the user's own."),
        click.Option(["--umask"], callback=_octal, metavar="MASK", help="Umask, octal, like 022; by default as it is."),
        click.Option(["--executable"], metavar="PATH", help="Python that -D starts; by default this one."),
    ]


def _octal(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else _umask(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no octal number from 0 to 777, like 022.", context, option) from None


def _umask(value: str | int) -> int:
    number = value if isinstance(value, int) else int(value.strip().removeprefix("0o"), 8)
    if not 0 <= number <= 0o777:
        raise ValueError(value)
    return number


# -- who it runs as ------------------------------------------------------------------------------------------------


def become(said: Mapping[str, Any]) -> None:
    """Take the user, group and umask that the command line names, before anything is opened or imported."""
    if said["umask"] is not None:
        os.umask(said["umask"])
    try:
        _become(said["uid"], said["gid"])
    except (LookupError, NotImplementedError, PermissionError) as error:
        option = "--uid" if said["uid"] is not None else "--gid"
        raise click.BadParameter(f"{error}.", param_hint=option) from error


def _become(user: str | int | None, group: str | int | None) -> None:
    """As `platforms.become`; raises ImproperlyConfigured where that user may not read this very Python."""
    platforms.become(user, group)
    if (user is None and group is None) or getattr(sys, "frozen", False):
        return
    for path in (sys.executable, os.__file__):
        if not os.access(path, os.R_OK):
            # No usage text with it: the module that would format it cannot be imported any more.
            raise ImproperlyConfigured(
                f"as {user or group!r} this process may not read {path}, a part of the Python that runs it; "
                "use a Python that everybody may read"
            )


def become_as_set(command: str, said: Mapping[str, Any], user: Any, group: Any, umask: Any) -> None:
    """Take what the settings `worker_uid` (or `beat_uid`), `_gid` and `_umask` say and the command line does not."""
    if umask is not None and said["umask"] is None:
        try:
            os.umask(_umask(umask))
        except (ValueError, AttributeError):
            raise ImproperlyConfigured(
                f"setting {command}_umask: {umask!r} is no octal number from 0 to 777, like '022' or 0o022"
            ) from None
    if said["uid"] is None and said["gid"] is None:
        try:
            _become(user, group)
        except (LookupError, NotImplementedError, PermissionError) as error:
            raise ImproperlyConfigured(f"setting {command}_{'gid' if user is None else 'uid'}: {error}") from error


# -- the process that was asked ------------------------------------------------------------------------------------


def is_wanted(said: Mapping[str, Any]) -> bool:
    """Return whether this process is to detach another one; False in that one."""
    return bool(said["detach"]) and _MARK not in os.environ


def detach(invocation: Invocation, command: str, said: Mapping[str, Any], set_executable: Callable[[], Any]) -> int:
    """Start this command line anew, detached, and return once it runs, or with the exit code with which it did not.

    Args:
        command: "worker" or "beat".
        set_executable: opens the app and returns its setting `worker_executable` or `beat_executable`; called where the
            line does not say whose program it is.
    """
    if invocation.given_app is not None:
        usage(
            "-D starts this command anew, and a program's own app cannot be found again; run  litetq -A APP worker -D"
        )
    folder, environment = os.getcwd(), {**os.environ, _MARK: "1"}
    executable = said["executable"]
    if executable is None and said["uid"] is None:  # nothing is imported here that another user is to run
        executable = set_executable()
    words = [executable or sys.executable, *([] if getattr(sys, "frozen", False) else ["-m", "litetq"])]
    try:
        process = subprocess.Popen(
            [*words, *invocation.words],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **_away(),
        )
    except OSError as error:
        usage(f"{words[0]!r} cannot be started: {error.strerror}; name another Python with --executable.")
    try:
        return _outcome(process, command, invocation.quiet)
    except BaseException:  # Ctrl-C
        process.terminate()
        raise


def _away() -> dict[str, Any]:
    """Return what keeps a process apart from this terminal and its Ctrl-C."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _outcome(process: subprocess.Popen[bytes], command: str, quiet: bool) -> int:
    """Show what the process says until it runs or ends, and return the exit code for that."""
    assert process.stdout is not None
    said = False
    with process.stdout:
        for line in process.stdout:
            if line == _RUNS:
                process.returncode = 0  # nobody waits for it: without this, Popen would complain that it runs
                if not quiet:
                    console.say(f"litetq {command}: runs in the background, process {process.pid}")
                return cli.OK
            said = True
            console.say(line.decode("utf-8", "replace").rstrip("\r\n"), sys.stderr)
    code = process.wait()
    if code > 0 and not said:
        console.say(f"Error: the {command} ended at its start with exit code {code}, without a word.", sys.stderr)
    if code < 0:
        console.say(f"Error: the {command} was ended by signal {-code} while it started.", sys.stderr)
        return cli.FAILED
    return code


# -- the process that was detached ---------------------------------------------------------------------------------


class Start:
    """The start of a command. Where it was detached, what goes to stderr until `done` is shown by who started it."""

    def __init__(self) -> None:
        self._pipe: int | None = None
        if os.environ.pop(_MARK, None):
            self._pipe = os.dup(2)  # not inherited: children of a pool must not keep it open, nor write there
            _to_nowhere(1, 2)
            stream = open(self._pipe, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
            sys.stderr = sys.__stderr__ = stream  # type: ignore[misc]

    def note_log(self, path: str | None) -> None:
        """Tell whoever detaches a command without a log file what that means."""
        if self._pipe is not None and path is None:
            console.say("note: what it logs goes nowhere; name a file with -f", sys.stderr)

    def done(self) -> None:
        """Say that the command runs. From then on what goes to stderr goes nowhere: a daemon's place is its log file."""
        if self._pipe is not None:
            with contextlib.suppress(OSError):  # whoever started it has gone away meanwhile
                os.write(self._pipe, _RUNS)
            _to_nowhere(self._pipe, inheritable=False)
            self._pipe = None


def _to_nowhere(*descriptors: int, inheritable: bool = True) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor, inheritable=inheritable)
    os.close(nowhere)
