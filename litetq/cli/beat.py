"""`litetq beat [FILE]`: send periodic tasks until told to stop."""

from __future__ import annotations

import os
import queue
import sys
import threading
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from litetq import cli
from litetq.cli import console, daemon
from litetq.cli.commands import Command, Invocation, one_of
from litetq.cli.lifetime import LEVELS, handled, level, next_word
from litetq.cli.nodes import fill_path, node_name
from litetq.cli.opening import open_app
from litetq.cli.pidfile import pid_file
from litetq.log import set_up

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.beat import Service

_OPTIONS: Final = [
    click.Argument(["file"], required=False, metavar="[FILE]"),
    click.Option(
        ["-l", "--loglevel"],
        callback=level,
        metavar="LEVEL",
        shell_complete=one_of(LEVELS),
        default="WARNING",
        help=f"How much is logged: {', '.join(LEVELS)} (in any case); default: WARNING.",
    ),
    click.Option(["-f", "--logfile"], metavar="PATH", help="Log there instead of to stderr; % letters as in -n."),
    click.Option(["-n", "--hostname"], metavar="NAME", help="Node name, for the % letters of paths."),
    click.Option(
        ["--pidfile"], metavar="PATH", help="Write the process id there; refuse to start if its process lives."
    ),
    click.Option(
        ["-S", "--scheduler"],
        metavar="CLASS",
        help="Scheduler class, as module:Class; by default the schedule in FILE.",
    ),
    click.Option(
        ["-s", "--schedule"], metavar="PATH", help="File of a scheduler that wants one; the schedule itself is in FILE."
    ),
    click.Option(
        ["--max-interval"],
        type=float,
        metavar="SECONDS",
        help="Longest pause between two looks; at most a second here.",
    ),
    click.Option(
        ["--enable-remote-control/--no-enable-remote-control"],
        default=None,
        help="Answer `ping`; by default as beat_enable_remote_control says.",
    ),
    *daemon.options(),
    click.Option(["--no-recorded-app"], is_flag=True, help="Do not import the app that the file of tasks names."),
]


def _run(invocation: Invocation, **said: Any) -> int:
    if daemon.is_wanted(said):
        return daemon.detach(
            invocation, "beat", said, lambda: _open(replace(invocation, quiet=True), said).conf.beat_executable
        )
    start = daemon.Start()
    daemon.become(said)
    app = _open(invocation, said)
    daemon.become_as_set("beat", said, app.conf.beat_uid, app.conf.beat_gid, app.conf.beat_umask)
    node = node_name(said["hostname"] or "celerybeat@%h")
    path = app.conf.beat_pidfile if said["pidfile"] is None else said["pidfile"]
    with pid_file(path, node):
        return _beat(invocation, app, node, said, start)


def _open(invocation: Invocation, said: dict[str, Any]) -> LiteTQ:
    invocation.enter()
    return open_app(invocation, said["file"], use_recorded=not said["no_recorded_app"]).app


def _beat(invocation: Invocation, app: LiteTQ, node: str, said: dict[str, Any], start: daemon.Start) -> int:
    from litetq.beat import Service
    from litetq.cli import logs
    from litetq.cli.find import import_included

    import_included(app)
    log_path = said["logfile"] or app.conf.beat_logfile
    start.note_log(log_path)
    log = logs.settings_of(
        app, said["loglevel"], None if log_path is None else fill_path(log_path, node), invocation.no_color
    )
    streams = sys.stdout, sys.stderr
    set_up(log)
    try:
        service = Service(
            app,
            max_interval=said["max_interval"],
            schedule_filename=said["schedule"],
            scheduler_cls=said["scheduler"],
            remote_control=said["enable_remote_control"],
            hostname=node,
        )
        service.prepare()
        if not invocation.quiet:
            console.say(_banner(app, service), sys.__stdout__)
        start.done()
        return _Run(service).to_the_end()
    finally:
        sys.stdout, sys.stderr = streams
        app.close()


def _banner(app: LiteTQ, service: Service) -> str:
    from litetq import __version__
    from litetq.address import mask

    kind = service.scheduler_cls
    lines = [
        f"litetq beat v{__version__} is starting.",
        "Configuration ->",
        f"    . time -> {datetime.now(app.timezone).strftime('%Y-%m-%d %H:%M:%S %Z')}",
        f"    . broker -> {mask(app.broker_address.text)} ({app.broker_source})",
        f"    . scheduler -> {kind.__module__}.{kind.__qualname__}",
        service.scheduler.info,
    ]
    return "\n".join(line for line in lines if line)


class _Run:
    """One beat from start to end; a first signal ends it after the run that is being sent, a second one at once."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.words: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.asked = 0
        self.failure: Exception | None = None

    def to_the_end(self) -> int:
        with handled(self.words):
            threading.Thread(target=self._live, name="litetq-beat", daemon=True).start()
            while next_word(self.words, self.asked > 0) != "ended":
                self._heed()
        if self.failure is not None:
            raise self.failure
        return cli.OK

    def _live(self) -> None:
        try:
            self.service.start()
        except Exception as error:
            self.failure = error
        finally:
            self.words.put("ended")

    def _heed(self) -> None:
        self.asked += 1
        if self.asked > 1:
            os._exit(cli.FAILED)  # what is in the file is whole at any moment
        console.say("beat: stopping", sys.__stderr__)
        self.service.stop()


@click.command(cls=Command, params=_OPTIONS)
@click.pass_obj
def command(invocation: Invocation, /, **said: Any) -> int:
    """Send the periodic tasks of FILE when they are due.

    \b
    litetq beat jobs.sqlite                        the app is found by itself
    litetq -A tasks beat -l INFO                   the file is the app's own

    Any number of beats may run on one file, as processes or within workers (worker -B): each due time is enqueued once.
    """
    return _run(invocation, **said)
