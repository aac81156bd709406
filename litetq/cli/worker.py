"""`litetq worker [FILE]`: run tasks until told to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from litetq import cli, clock, green, limits, platforms, pools, signals
from litetq.cli import console, daemon
from litetq.cli.banner import Facts, banner
from litetq.cli.commands import Command, Invocation, one_of, preloaded, unsaid_options
from litetq.cli.lifetime import LEVELS, handled, level, new_words, next_word
from litetq.cli.nodes import fill_path, node_name
from litetq.cli.opening import Opened, open_app
from litetq.cli.pidfile import pid_file
from litetq.exceptions import ImproperlyConfigured
from litetq.log import NUMBER, LogSettings, has_colour, set_up

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.worker import Worker

logger = logging.getLogger("celery.apps.worker")


def _names(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Read comma-separated names; blanks around them do not count."""
    if value is None:
        return ()
    names = tuple(part.strip() for part in value.split(","))
    if not all(names):
        raise click.BadParameter(f"{value!r} has an empty name in it; write them like  a,b", context, option)
    return names


def _node(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Read a node's name: printable, and a name before and after an @."""
    if value is not None and (not value.isprintable() or value.startswith("@") or value.endswith("@")):
        raise click.BadParameter(f"{value!r} is no name for a node; write it like  mail@%h", context, option)
    return value


def _count(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """Read how many tasks run at once: a number from 1 up, or `auto` for one per CPU, which is the default too."""
    if value is None or value == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is not a number from 1 up (nor 'auto', one per CPU).", context, option)
    return int(value)


def _pool(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Read the name of a pool, or the path of a class."""
    if value is not None and value.lower() not in pools.NAMES and not any(sign in value for sign in ".:"):
        known = ", ".join(map(repr, pools.NAMES))
        raise click.BadParameter(f"{value!r} is not one of {known}, nor like module:Class.", context, option)
    return value


def _scale(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Read bounds, largest first: `10,3`; `10` alone is `10,1`."""
    if value is None:
        return None
    parts = [part.strip() for part in value.split(",")]
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise click.BadParameter(f"{value!r} is not MAX,MIN (like 10,3).", context, option)
    largest, smallest = int(parts[0]), max(1, int(parts[-1]) if len(parts) == 2 else 1)
    if smallest > largest:
        raise click.BadParameter(f"{value!r}: the largest number comes first, like 10,3.", context, option)
    return largest, smallest


_OPTIONS: Final = [
    click.Argument(["file"], required=False, metavar="[FILE]"),
    click.Option(
        ["-n", "--hostname"],
        callback=_node,
        metavar="NAME",
        help="Node name; %h host, %n host without domain, %d domain.",
    ),
    click.Option(
        ["-l", "--loglevel"],
        callback=level,
        metavar="LEVEL",
        shell_complete=one_of(LEVELS),
        default="WARNING",
        help=f"How much is logged: {', '.join(LEVELS)} (in any case); default: WARNING.",
    ),
    click.Option(
        ["-c", "--concurrency"],
        callback=_count,
        metavar="NUMBER",
        help="Tasks at once; default: one per CPU, with asyncio 1000, with gevent and eventlet 100.",
    ),
    click.Option(
        ["-P", "--pool"],
        callback=_pool,
        metavar="POOL",
        shell_complete=one_of(pools.NAMES),
        help="Where tasks run: processes (prefork is the same; the default), threads, solo (this thread), asyncio, gevent, "
        "eventlet, or a class of yours as module:Class ($CELERY_CUSTOM_WORKER_POOL with custom).",
    ),
    click.Option(
        ["--autoscale"],
        callback=_scale,
        metavar="MAX,MIN",
        help="Tasks at once follow the work, between these; not -c.",
    ),
    click.Option(
        ["--time-limit"],
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="A task is stopped after this long, unless the task or its call says otherwise (not with solo); 0: never.",
    ),
    click.Option(
        ["--soft-time-limit"],
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="SoftTimeLimitExceeded is raised in a task after this long, likewise.",
    ),
    click.Option(
        ["--max-tasks-per-child"],
        type=click.IntRange(min=1),
        metavar="NUMBER",
        help="A child process is replaced after so many tasks.",
    ),
    click.Option(
        ["--max-memory-per-child"],
        type=click.IntRange(min=1),
        metavar="KIB",
        help="A child process is replaced after the task that made it larger than this.",
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
    click.Option(["-B", "--beat"], is_flag=True, help="Send periodic tasks, too; any number of workers may."),
    click.Option(
        ["-s", "--schedule-filename", "--schedule"], metavar="PATH", help="Accepted; the schedule is in FILE."
    ),
    click.Option(["--scheduler"], metavar="CLASS", help="Scheduler class of -B, as module:Class."),
    click.Option(["-E", "--task-events", "--events", "events"], is_flag=True, help="Send events about tasks."),
    click.Option(["-f", "--logfile"], metavar="PATH", help="Log there instead of to stderr; % letters as in -n."),
    click.Option(
        ["--pidfile"], metavar="PATH", help="Write the process id there; refuse to start if its process lives."
    ),
    *daemon.options(),
    click.Option(["--no-recorded-app"], is_flag=True, help="Do not import the app that the file of tasks names."),
    click.Option(["-O", "--optimization"], type=click.Choice(["default", "fair"]), help="Accepted; it always is fair."),
    click.Option(
        ["--prefetch-multiplier"], type=int, metavar="N", help="Accepted; only what can start now is claimed."
    ),
    click.Option(["--disable-prefetch"], is_flag=True, help="Accepted; nothing is prefetched."),
    click.Option(["--without-gossip"], is_flag=True, help="Accepted; workers meet in the file."),
    click.Option(["--without-mingle"], is_flag=True, help="Accepted; workers meet in the file."),
    click.Option(["--without-heartbeat"], is_flag=True, help="Accepted; the file's heartbeat is needed and stays."),
    click.Option(
        ["--heartbeat-interval"],
        type=float,
        metavar="SECONDS",
        help="Accepted; the file's heartbeat has its own rhythm.",
    ),
    click.Option(["-S", "--statedb"], metavar="PATH", help="Accepted; what is revoked stays in FILE."),
    click.Option(
        ["--pool-start-method"],
        metavar="METHOD",
        help="Accepted; children are started anew and never forked from the worker.",
    ),
]
_WITHOUT_EFFECT: Final = {
    "optimization": "-O: tasks always go to a child that is free",
    "prefetch_multiplier": "--prefetch-multiplier: a worker claims only what it can start now",
    "disable_prefetch": "--disable-prefetch: a worker claims only what it can start now",
    "without_heartbeat": "--without-heartbeat: by its heartbeat others know that a worker lives",
    "heartbeat_interval": "--heartbeat-interval: the file's heartbeat has its own rhythm",
    "statedb": "-S: what is revoked stays in the file",
    "pool_start_method": "--pool-start-method: children are started anew and never forked from the worker",
    "schedule_filename": "-s: the schedule is in the file",
}

# What only replaces a setting; children get it with the other settings.
_SETTINGS: Final = {
    "time_limit": "task_time_limit",
    "soft_time_limit": "task_soft_time_limit",
    "max_tasks_per_child": "worker_max_tasks_per_child",
    "max_memory_per_child": "worker_max_memory_per_child",
}


def _run(invocation: Invocation, **said: Any) -> int:
    if daemon.is_wanted(said):
        if said["until_eof"]:
            raise click.BadParameter(
                "in the background there is no input whose end could be seen.", param_hint="--until-eof"
            )
        return daemon.detach(
            invocation, "worker", said, lambda: _open(replace(invocation, quiet=True), said).app.conf.worker_executable
        )
    start = daemon.Start()
    daemon.become(said)
    for option, why in _WITHOUT_EFFECT.items():
        if said[option]:
            console.say(f"note: no effect here of {why}", sys.stderr)
    opened = _open(invocation, said)
    said.update(unsaid_options(opened.app, "worker", said), **preloaded(invocation, opened.app))
    conf = opened.app.conf
    daemon.become_as_set("worker", said, conf.worker_uid, conf.worker_gid, conf.worker_umask)
    _refuse_pickle_as_root(opened.app)
    node = node_name(said["hostname"])
    pid_path = conf.worker_pidfile if said["pidfile"] is None else said["pidfile"]
    with pid_file(pid_path, node) as held:
        return _work(invocation, opened, node, said, start, held)


def _open(invocation: Invocation, said: dict[str, Any]) -> Opened:
    invocation.enter()
    return open_app(invocation, said["file"], use_recorded=not said["no_recorded_app"])


def _refuse_pickle_as_root(app: LiteTQ) -> None:
    """Raise ImproperlyConfigured where whoever can send a task could run anything as root."""
    takes_pickle = not {"pickle", "application/x-python-serialize"}.isdisjoint(app.conf.accept_content)
    if takes_pickle and platforms.is_root() and not os.environ.get("C_FORCE_ROOT"):
        raise ImproperlyConfigured(
            "setting accept_content has pickle in it, and this worker runs as root: who sends a task could run any code "
            "as root; name another user with --uid, or set C_FORCE_ROOT=1 in the environment if you mean it"
        )


# -- the run -------------------------------------------------------------------------------------------------------


def _work(
    invocation: Invocation, opened: Opened, node: str, said: dict[str, Any], start: daemon.Start, held: Path | None
) -> int:
    """Run one worker from the banner to its last word; stdout and stderr are the caller's again afterwards."""
    from litetq.cli import logs

    app = opened.app
    if said["events"]:
        app.conf.worker_send_task_events = True
    for option, setting in _SETTINGS.items():
        if said[option] is not None:
            setattr(app.conf, setting, said[option])
    if said["scheduler"]:
        app.conf.beat_scheduler = said["scheduler"]
    _import_all(app, said["include"])
    log_name = said["logfile"] or app.conf.worker_logfile
    log_path = None if log_name is None else fill_path(log_name, node)
    start.note_log(log_path)
    log = logs.settings_of(app, said["loglevel"], log_path, invocation.no_color)
    if log_name is not None:
        log = log._replace(child_path=os.path.join(os.getcwd(), fill_path(log_name, node, NUMBER)))
    streams = sys.stdout, sys.stderr
    set_up(log)
    try:
        worker = _make_worker(app, node, said, log)
        if not invocation.quiet:
            _show_banner(app, opened, worker, invocation.no_color)
        return _Run(
            worker,
            node,
            drain=said["drain"],
            until_eof=said["until_eof"],
            says_ready=_says_ready(invocation, log.level),
            start=start,
            held=held,
        ).to_the_end()
    finally:
        sys.stdout, sys.stderr = streams
        app.close()


def _import_all(app: LiteTQ, more: tuple[str, ...]) -> None:
    from litetq.cli.find import import_included

    if more:
        app.conf.include = [*(app.conf.include or ()), *more]
    import_included(app)


def _make_worker(app: LiteTQ, node: str, said: dict[str, Any], log: LogSettings) -> Worker:
    from litetq.worker import Worker, default_queues

    app.check()
    pool = _pool_of(app, said["pool"])
    known_as = app.router.known_as
    queues = set(map(known_as, said["queues"] or default_queues(app))) - set(map(known_as, said["exclude_queues"]))
    if not queues:
        raise click.BadParameter("nothing is left of the queues to serve.", param_hint="-X")
    if said["purge"]:
        console.say(f"{app.engine.purge(sorted(queues))} waiting tasks removed", sys.__stderr__)
    worker = Worker(
        app,
        engine=app.engine,
        pool=pool,
        concurrency=said["concurrency"] or _configured_concurrency(app),
        queues=queues,
        hostname=node,
        log=log,
        beat=said["beat"],
        autoscale=said["autoscale"],
        options=said,
    )
    _tell_made(app, worker, node, said)
    return worker


def _pool_of(app: LiteTQ, said: str | None) -> Any:
    """Return the pool that the line, or else the setting worker_pool, names; found to be one before anything is opened."""
    if said is not None:
        pools.find(said)
        return said
    named = app.conf.worker_pool or "processes"
    try:
        pools.find(named)
    except ImproperlyConfigured as error:
        if named == "prefork":  # the default: nobody has set it
            raise
        raise ImproperlyConfigured(f"setting worker_pool: {error}") from error
    return named


def _configured_concurrency(app: LiteTQ) -> int | None:
    """Return the setting worker_concurrency; None is one per CPU."""
    number = app.conf.worker_concurrency
    return None if number == "auto" else number


def _tell_made(app: LiteTQ, worker: Worker, node: str, said: dict[str, Any]) -> None:
    signals.celeryd_init.send(sender=node, instance=worker, conf=app.conf, options=said)
    signals.celeryd_after_setup.send(sender=node, instance=worker, conf=app.conf)
    signals.worker_init.send(sender=worker)


def _show_banner(app: LiteTQ, opened: Opened, worker: Worker, no_colour: bool) -> None:
    from litetq import __version__
    from litetq.address import mask

    stream = sys.__stdout__
    if stream is None:
        return
    facts = Facts(
        hostname=worker.hostname,
        version=__version__,
        app=f"{app.main or opened.reference or '__main__'}:{id(app):#x} ({opened.source})",
        transport=f"{mask(app.broker_address.text)} ({app.broker_source})",
        results=f"{mask(app.result_address.text)} ({app.result_source})",
        concurrency=worker.statistics().concurrency,
        pool=worker.statistics().pool,
        events=bool(app.conf.worker_send_task_events),
        queues=sorted(worker.queues),
        tasks=sorted(name for name in app.tasks if not name.startswith("celery.")),
    )
    console.say(banner(facts, colour=has_colour(stream, False if no_colour else None)), stream)


def _says_ready(invocation: Invocation, level: int) -> bool:
    """Return whether to say on stdout that the worker is ready, because its log leaves out the line that does."""
    return level > logging.INFO and not invocation.quiet


class _Run:
    """One worker from start to end, as signals, the end of its input, or the end of its work ask for it.

    A signal handler may interrupt this very thread anywhere, so it does one thing: it puts a word into a SimpleQueue,
    whose `put` is reentrant (its documentation promises this; a threading.Event would dead-lock).
    """

    def __init__(
        self,
        worker: Worker,
        node: str,
        *,
        drain: bool,
        until_eof: bool,
        says_ready: bool,
        start: daemon.Start,
        held: Path | None,
    ) -> None:
        self.worker = worker
        self.node = node
        self.drain = drain
        self.until_eof = until_eof
        self.says_ready = says_ready
        self.start = start
        self.held = held  # its pid file
        self.words = new_words()
        self.asked = 0  # times that it was asked to stop
        self.failure: Exception | None = None  # what kept it from starting

    def to_the_end(self) -> int:
        """Run, and return the exit code: 0 after a warm stop, 1 after a cold one or when the worker ended by an error."""
        with handled(self.words):
            # In a thread of its own, so that Ctrl-C is heard while children are started.
            threading.Thread(target=self._live, name="litetq-life", daemon=True).start()
            while (word := next_word(self.words, self.asked > 0, self.held)) != "ended":
                self._heed(word)
        if self.failure is not None:
            raise self.failure
        signals.worker_shutdown.send(sender=self.worker)
        if self.worker.failure is not None:
            return cli.FAILED
        stopped = self.worker.stopping
        return cli.OK if stopped in ("warm", "soft") or (stopped is None and self.drain) else cli.FAILED

    def _live(self) -> None:
        try:
            # Said by the worker's own thread before it claims anything, so that no line of a task stands above it.
            signals.worker_ready.connect(self._say_ready, sender=self.worker, weak=False)
            self.worker.start()
            if self.until_eof:
                green.start_thread(self._wait_eof, "litetq-stdin")
            if self.drain:
                self.worker.drain()
                self._say_what_waits()
            else:
                self.worker.join()
        except RuntimeError as error:  # a pool that cannot start
            self.failure = click.ClickException(str(error))
        except Exception as error:
            self.failure = error
        finally:
            self.words.put("ended")

    def _say_ready(self, **_: Any) -> None:
        logger.info("%s ready.", self.node)
        if self.says_ready:
            console.say(f"{self.node} ready.", sys.__stdout__)
        self.start.done()

    def _say_what_waits(self) -> None:
        count, due_at = self.worker.engine.store.records.scheduled()
        if count and due_at is not None:
            are = "task is" if count == 1 else "tasks are"
            console.say(f"{count} {are} due later, the first in {max(0.0, due_at - clock.now()):.0f} s", sys.__stderr__)

    def _wait_eof(self) -> None:
        # By descriptor: a thread that waits inside sys.stdin's buffer holds its lock, and the interpreter dies of it at exit.
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        self.words.put("end of input")

    def _heed(self, word: str) -> None:
        if self.asked and (word == "end of input" or (word == "SIGTERM" and not _asks_for_cold(word))):
            return  # a deployment may say it twice (`multi stop`, then `stopwait`), and means no haste
        self.asked += 1
        how = self.worker.stopping
        if how is None and not _asks_for_cold(word):
            self._stop("warm", word, "Warm shutdown")
            if word == "SIGINT":
                when = f"in {self._soft_seconds():g} seconds" if self._is_soft_first() else "at once"
                console.say(f"worker: Ctrl-C again stops {when}; tasks that run then are cut off", sys.__stderr__)
        elif how in (None, "warm") and self._is_soft_first():
            self._stop("soft", word, f"Soft shutdown, cold in {self._soft_seconds():g} seconds")
        elif how != "cold":
            self._stop("cold", word, "Cold shutdown")
        else:
            # The cold stop hangs. Children die with this process, and the next worker takes its tasks back.
            os._exit(cli.FAILED)

    def _soft_seconds(self) -> float:
        return limits.seconds(self.worker.app.conf.worker_soft_shutdown_timeout)

    def _is_soft_first(self) -> bool:
        """Return whether a cold shutdown waits a while for what runs, or is set to wait in any case."""
        conf = self.worker.app.conf
        if not conf.worker_soft_shutdown_timeout:
            return False
        return bool(conf.worker_enable_soft_shutdown_on_idle or self.worker.statistics().held)

    def _stop(self, how: str, word: str, text: str) -> None:
        console.say(f"worker: {text} (MainProcess)", sys.__stderr__)
        code = cli.FAILED if how == "cold" else cli.OK
        signals.worker_shutting_down.send(sender=self.node, sig=word, how=how.capitalize(), exitcode=code)
        self.worker.stop(timeout=0, how=how)


def _asks_for_cold(word: str) -> bool:
    """Return whether a signal skips the warm shutdown: QUIT, and TERM where the environment says so, as in Celery."""
    return word == "SIGQUIT" or (word == "SIGTERM" and os.environ.get("REMAP_SIGTERM") == "SIGQUIT")


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
