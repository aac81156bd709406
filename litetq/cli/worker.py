"""`litetq worker [FILE]`: run tasks until told to stop."""

from __future__ import annotations

import os
import queue
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from litetq import cli, platforms
from litetq.cli import console
from litetq.cli.commands import Command, Invocation
from litetq.cli.nodes import fill_path, node_name
from litetq.cli.opening import Opened, open_app

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.worker import Worker

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL")
# Celery's names for the pools that exist; what the worker calls them.
POOLS: Final = {"prefork": "processes", "processes": "processes", "threads": "threads", "solo": "solo"}


def _names(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Read comma-separated names; blanks around them do not count."""
    if value is None:
        return ()
    names = tuple(part.strip() for part in value.split(","))
    if not all(names):
        raise click.BadParameter(f"{value!r} has an empty name in it; write them like  a,b", context, option)
    return names


def _level(context: click.Context, option: click.Parameter, value: str) -> str:
    """Read a level of the log, in any case of letters."""
    level = value.upper()
    if level not in LEVELS:
        raise click.BadParameter(f"{value!r} is not one of {', '.join(LEVELS)}.", context, option)
    return level


def _count(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """Read how many tasks run at once: a number from 1 up, or `auto` for one per CPU, which is the default too."""
    if value is None or value == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is not a number from 1 up (nor 'auto', one per CPU).", context, option)
    return int(value)


_OPTIONS: Final = [
    click.Argument(["file"], required=False, metavar="[FILE]"),
    click.Option(["-n", "--hostname"], metavar="NAME", help="Node name; %h host, %n host without domain, %d domain."),
    click.Option(
        ["-l", "--loglevel"],
        callback=_level,
        metavar="LEVEL",
        default="WARNING",
        help=f"How much is logged: {', '.join(LEVELS)} (in any case); default: WARNING.",
    ),
    click.Option(
        ["-c", "--concurrency"], callback=_count, metavar="NUMBER", help="Tasks at once; default: one per CPU."
    ),
    click.Option(
        ["-P", "--pool"],
        type=click.Choice(list(POOLS), case_sensitive=False),
        default=None,
        help="Where tasks run: child processes (prefork is the same; the default), threads, or this thread.",
    ),
    click.Option(["-Q", "--queues"], callback=_names, metavar="A,B", help="Only these queues."),
    click.Option(["-X", "--exclude-queues"], callback=_names, metavar="A,B", help="All queues but these."),
    click.Option(["-I", "--include"], callback=_names, metavar="A,B", help="Import these modules too."),
    click.Option(["--drain"], is_flag=True, help="Run until nothing is due, then end (cron, CI, notebooks)."),
    click.Option(
        ["--until-eof"],
        is_flag=True,
        help="Stop warmly when standard input ends: for a program that starts a worker as its child.",
    ),
    click.Option(["--purge", "--discard", "purge"], is_flag=True, help="First remove the waiting tasks of its queues."),
    click.Option(["-E", "--task-events", "--events", "events"], is_flag=True, help="Send events about tasks."),
    click.Option(["-f", "--logfile"], metavar="PATH", help="Log there instead of to stderr; % letters as in -n."),
    click.Option(
        ["--pidfile"], metavar="PATH", help="Write the process id there; refuse to start if its process lives."
    ),
    click.Option(["--no-recorded-app"], is_flag=True, help="Do not import the app that the file of tasks names."),
    click.Option(["-O", "--optimization"], type=click.Choice(["default", "fair"]), help="Accepted; it always is fair."),
    click.Option(
        ["--prefetch-multiplier"], type=int, metavar="N", help="Accepted; only what can start now is claimed."
    ),
    click.Option(["--disable-prefetch"], is_flag=True, help="Accepted; nothing is prefetched."),
    click.Option(["--without-gossip"], is_flag=True, help="Accepted; workers meet in the file."),
    click.Option(["--without-mingle"], is_flag=True, help="Accepted; workers meet in the file."),
    click.Option(["--without-heartbeat"], is_flag=True, help="Accepted; the file's heartbeat is needed and stays."),
]
_WITHOUT_EFFECT: Final = {
    "optimization": "-O: tasks always go to a child that is free",
    "prefetch_multiplier": "--prefetch-multiplier: a worker claims only what it can start now",
    "disable_prefetch": "--disable-prefetch: a worker claims only what it can start now",
}


def _run(invocation: Invocation, **said: Any) -> int:
    invocation.enter()
    for option, why in _WITHOUT_EFFECT.items():
        if said[option]:
            console.say(f"note: no effect here of {why}", sys.stderr)
    opened = open_app(invocation, said["file"], use_recorded=not said["no_recorded_app"])
    node = node_name(said["hostname"])
    with _pid_file(said["pidfile"], node):
        return _work(invocation, opened, node, said)


@contextmanager
def _pid_file(text: str | None, node: str) -> Iterator[None]:
    """Hold the pid file within the block; a file left by a process that is gone is taken over.

    Raises PidFileInUse when its process lives. After a crash the file stays and the next start takes it over.
    """
    if text is None:
        yield
        return
    path = Path(fill_path(text, node)).absolute()
    _take_pid_file(path)
    try:
        yield
    finally:
        if _pid_in(path) == os.getpid():
            path.unlink(missing_ok=True)


class PidFileInUse(click.ClickException):
    """Another process holds the pid file."""

    exit_code = cli.CANNOT_CREATE


def _take_pid_file(path: Path) -> None:
    import psutil

    for _ in range(3):  # arbitrary: each round somebody else won the race for a stale file
        try:
            with open(path, "x", encoding="ascii") as file:
                file.write(f"{os.getpid()}\n")
            return
        except FileExistsError:
            pid = _pid_in(path)
            if pid is None or (pid != os.getpid() and psutil.pid_exists(pid)):
                whose = "is no pid file of ours" if pid is None else f"names process {pid}, which is running"
                raise PidFileInUse(f"{path} {whose}; stop that process, or remove the file.") from None
            path.unlink(missing_ok=True)
        except OSError as error:
            raise click.BadParameter(f"cannot write {path}: {error.strerror}", param_hint="--pidfile") from error
    raise PidFileInUse(f"{path} is being taken by other processes at this moment; start once more.")


def _pid_in(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


# -- the run -------------------------------------------------------------------------------------------------------


def _work(invocation: Invocation, opened: Opened, node: str, said: dict[str, Any]) -> int:
    from litetq.worker import Worker

    app = opened.app
    app.conf.include = [*(app.conf.include or ()), *(said["include"] or ())]
    app.import_default_modules()
    queues = _queues(app, said["queues"], said["exclude_queues"])
    if said["purge"]:
        console.say(f"purge: {app.engine.purge(queues)} waiting tasks removed", sys.stderr)
    pool = POOLS[(said["pool"] or "processes").lower()]
    concurrency = 1 if pool == "solo" else said["concurrency"] or app.conf.worker_concurrency or cpus()
    worker = Worker(app, engine=app.engine, pool=pool, concurrency=concurrency, queues=queues, hostname=node)
    return _Run(worker, said["drain"], said["until_eof"]).until_stopped()


def _queues(app: LiteTQ, only: tuple[str, ...] | None, excluded: tuple[str, ...] | None) -> list[str]:
    return list(only or ["celery"])


class _Run:
    """One worker from start to end, as signals, the end of its input, or the end of its work ask for it.

    A signal handler may interrupt this very thread anywhere, so it does one thing: it puts a word into a SimpleQueue,
    whose `put` is reentrant (its documentation promises this; a threading.Event would dead-lock).
    """

    def __init__(self, worker: Worker, drain: bool, until_eof: bool) -> None:
        self.worker = worker
        self.words: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.ending: Callable[[], object] = worker.drain if drain else worker.join
        self.until_eof = until_eof

    def until_stopped(self) -> int:
        return cli.OK


def _signals() -> list[signal.Signals]:
    names = ["SIGINT", "SIGTERM", "SIGBREAK"]
    if not platforms.PORTABLE:
        names += ["SIGHUP", "SIGQUIT"]
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


@click.command(cls=Command, params=_OPTIONS)
@click.pass_obj
def command(invocation: Invocation, /, **said: Any) -> int:
    """Run the tasks in FILE.

    \b
    litetq worker jobs.sqlite                      the app is found by itself
    litetq -A tasks worker -l INFO                 the file is the app's own
    litetq -A tasks worker -c 4 -P threads -Q mail,default
    litetq worker jobs.sqlite --drain              end when nothing is due
    """
    return _run(invocation, **said)
