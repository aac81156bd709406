"""Pid files: which process a node is, whether it lives, and a word to it where processes hear no signals.

Such a word is a file beside the pid file, `w1.pid.word`, that holds the process id and the name of a signal; who holds the pid
file looks for it twice a second. So a worker in the background is asked to stop on Windows, where one without a console could
only be killed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from litetq import cli
from litetq.cli.nodes import fill_path

if TYPE_CHECKING:
    import psutil

_SLACK_S: Final = 60.0  # arbitrary: a process that began so much later than its pid file did not write it
_LARGEST: Final = 2**31 - 1


class PidFileInUse(click.ClickException):
    """Another process holds the pid file."""

    exit_code = cli.CANNOT_CREATE


@contextmanager
def pid_file(text: str | None, node: str) -> Iterator[Path | None]:
    """Hold the pid file within the block; a file left by a process that is gone is taken over. No text (`--pidfile=`): none.

    Raises PidFileInUse when its process lives. After a crash the file stays and the next start takes it over.
    """
    if not text:
        yield None
        return
    path = Path(fill_path(text, node)).absolute()
    _take(path, node)
    _letter(path).unlink(missing_ok=True)  # to one who was there before
    try:
        yield path
    finally:
        if _pid_in(path) == os.getpid():
            path.unlink(missing_ok=True)


def living(path: Path, node: str) -> psutil.Process | None:
    """Return the process that a pid file names, None where there is none or it has ended.

    Where it began after the file was written and its command does not name the node, the id is another process's now.
    """
    import psutil

    pid = _pid_in(path)
    if pid is None:
        return None
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:  # in a container that nobody tidies up they stay for ever
            return None
        is_later = process.create_time() > path.stat().st_mtime + _SLACK_S
        return None if is_later and not _names(process, node) else process
    except (psutil.NoSuchProcess, FileNotFoundError):
        return None


def _names(process: psutil.Process, node: str) -> bool:
    import psutil

    try:
        return any(word in (node, f"-n{node}", f"--hostname={node}") for word in process.cmdline())
    except psutil.AccessDenied:
        return False


def _take(path: Path, node: str) -> None:
    for _ in range(3):  # arbitrary: each round somebody else won the race for a stale file
        try:
            with open(path, "x", encoding="ascii") as file:
                file.write(f"{os.getpid()}\n")
            return
        except FileExistsError:
            if path.is_dir():
                raise click.BadParameter(f"{path} is a folder; name a file in it", param_hint="--pidfile") from None
            pid = _pid_in(path)
            # After a restart of the machine, or of a container, the id may have come to this process, or to the one that
            # detaches it.
            is_held = pid not in (os.getpid(), os.getppid()) and living(path, node) is not None
            if pid is None or is_held:
                whose = "is no pid file of ours" if pid is None else f"names process {pid}, which is running"
                raise PidFileInUse(f"{path} {whose}; stop that process, or remove the file.") from None
            path.unlink(missing_ok=True)
        except OSError as error:
            raise click.BadParameter(f"cannot write {path}: {error.strerror}", param_hint="--pidfile") from error
    raise PidFileInUse(f"{path} is being taken by other processes at this moment; start once more.")


def _pid_in(path: Path) -> int | None:
    try:
        pid = int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return pid if 0 < pid <= _LARGEST else None


# -- words ---------------------------------------------------------------------------------------------------------


def leave_word(path: Path, pid: int, signal_name: str) -> None:
    """Ask the process that holds a pid file to do as at this signal (`SIGTERM`). Raises OSError."""
    _letter(path).write_text(f"{pid} {signal_name}\n", encoding="ascii")


def take_word(path: Path) -> str | None:
    """Return the name of the signal that was left for this process, once; None where there is none."""
    letter = _letter(path)
    try:
        text = letter.read_text(encoding="ascii")
        if not text.endswith("\n"):  # it is being written
            return None
        letter.unlink()
    except (OSError, ValueError):
        return None
    pid, _, word = text.strip().partition(" ")
    return word if pid == str(os.getpid()) and word.startswith("SIG") else None


def _letter(path: Path) -> Path:
    return path.with_name(f"{path.name}.word")
