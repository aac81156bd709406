"""`litetq events`: what happens, as it happens: a live screen, lines (--dump), or pictures (--camera)."""

from __future__ import annotations

import importlib
import queue
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

import click

from litetq import cli
from litetq.cli import asking, console, daemon
from litetq.cli.commands import Command, Invocation, one_of, usage
from litetq.cli.lifetime import LEVELS, handled, level, next_word
from litetq.cli.nodes import fill_path, node_name
from litetq.cli.pidfile import pid_file
from litetq.cli.text import as_json, paper, visible

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.camera import Polaroid

_NAMES_KEPT: Final = 4095  # tasks whose name a dump remembers, as Celery's does
_SHOWN_BEFORE: Final = 1000  # events that the screen begins with; arbitrary, more than a screen of tasks
_LOOK_S: Final = 0.25  # between two frames, unless a key comes
_TYPES: Final = {"worker-offline": "shutdown", "worker-online": "started", "worker-heartbeat": "heartbeat"}


_OPTIONS: Final = [
    click.Argument(["file"], required=False, metavar="[FILE]"),
    click.Option(["-d", "--dump"], is_flag=True, help="Print each event as a line."),
    click.Option(["-j", "--json", "in_json"], is_flag=True, help="With --dump: each event as a JSON object."),
    click.Option(["-c", "--camera"], metavar="CLASS", help="Give pictures to a camera: module:Class."),
    click.Option(
        ["-F", "--frequency", "--freq"], type=float, default=1.0, metavar="SECONDS", help="Between two pictures (1)."
    ),
    click.Option(["-r", "--maxrate"], metavar="RATE", help="No more pictures than that, like 10/m."),
    click.Option(
        ["-l", "--loglevel"],
        callback=level,
        metavar="LEVEL",
        shell_complete=one_of(LEVELS),
        default="WARNING",
        help=f"How much a camera logs: {', '.join(LEVELS)} (in any case); default: WARNING.",
    ),
    click.Option(
        ["-f", "--logfile"], metavar="PATH", help="Log of a camera, instead of stderr; % letters as of a worker."
    ),
    click.Option(
        ["--pidfile"],
        metavar="PATH",
        help="Of a camera: write the process id there; refuse to start if its process lives.",
    ),
    *daemon.options(),
]


@click.command(cls=Command, params=_OPTIONS, short_help="Watch events: screen, lines or camera.")
@click.pass_obj
def command(invocation: Invocation, /, **said: Any) -> int:
    """Watch events: on a live screen, or as lines with --dump, or with a camera of your own.

    \b
    litetq -A tasks events
    litetq events jobs.sqlite --dump
    litetq -A tasks events --camera myapp.cameras:Counter --frequency 2

    Workers send events with -E, or after  litetq control enable_events.
    """
    if said["camera"]:
        # -d is Celery's --detach, too; with a camera there is nothing to dump.
        return _film(invocation, {**said, "detach": said["detach"] or said["dump"]})
    for option in ("detach", "uid", "gid", "umask", "executable", "pidfile", "logfile", "maxrate"):
        if said[option]:
            asking.note(f"no effect here of --{option}: it is for a --camera, and there is none")
    if said["dump"]:
        return _dump(invocation, said)
    return _watch(invocation, said)


# -- lines -----------------------------------------------------------------------------------------------------------


def _dump(invocation: Invocation, said: dict[str, Any]) -> int:
    app = asking.reach(invocation, said["file"])
    shown = as_json if said["in_json"] else Dumper().line
    if not said["in_json"]:
        print("-> evdump: starting capture...", flush=True)
    app.events.Receiver(handlers={"*": lambda event: console.tell(shown(event))}).capture()
    return cli.OK


class Dumper:
    """Prints events as Celery's dump does, each on one line; a task's name is remembered from its first event."""

    def __init__(self) -> None:
        self._names: OrderedDict[str, str] = OrderedDict()

    def on_event(self, event: dict[str, Any]) -> None:
        """Print an event; under Celery's name."""
        console.say(self.line(event))

    def line(self, event: dict[str, Any]) -> str:
        fields = dict(event)
        at = datetime.fromtimestamp(fields.pop("timestamp"), timezone.utc)
        type, host = fields.pop("type").lower(), fields.pop("hostname", None)
        words = _TYPES.get(type, type.replace("-", " "))
        task = ""
        if type.startswith("task-"):
            task = f" {self._task(type, fields)}"
        told = ", ".join(f"{name}={fields[name]}" for name in sorted(fields))
        return visible(f"{host} [{at}] {words}{':' if told else ''}{task} {told}")

    def _task(self, type: str, fields: dict[str, Any]) -> str:
        id = str(fields.pop("uuid", None))
        if type in ("task-received", "task-sent"):
            name, args, kwargs = (fields.pop(key, None) for key in ("name", "args", "kwargs"))
            self._names[id] = f"{name}({id}) args={args} kwargs={kwargs}"
            while len(self._names) > _NAMES_KEPT:
                self._names.popitem(last=False)
        return self._names.get(id, f"({id})")


# -- the screen ------------------------------------------------------------------------------------------------------


def _watch(invocation: Invocation, said: dict[str, Any]) -> int:
    from litetq.cli import terminal
    from litetq.cli.live import Screen

    if not terminal.is_there():
        usage("The live screen needs a terminal; print lines with  --dump.")
    app = asking.reach(invocation, said["file"])
    state = app.events.State()
    capture = _Capture(app, state)
    screen = Screen(app, state, paper(no_color=invocation.no_color), capture.why_over)
    with terminal.Terminal() as seen, capture:
        try:
            while not screen.is_over:
                seen.draw(screen.frame(*seen.size))
                key = seen.key(_LOOK_S)
                if key is not None:
                    screen.press(key)
                if screen.beep:
                    screen.beep = False
                    seen.bell()
        except KeyboardInterrupt:
            pass
    return cli.OK


class _Capture:
    """Takes events into a picture, in a thread of its own, while a `with` block runs."""

    def __init__(
        self, app: LiteTQ, state: Any, *, before: int = _SHOWN_BEFORE, then: Callable[[], None] = lambda: None
    ) -> None:
        since = max(0, app.engine.mailbox.last_event() - before)
        self._receiver = app.events.Receiver(handlers={"*": state.event}, since=since)
        self._thread = threading.Thread(target=self._run, name="litetq-events", daemon=True)
        self._error: Exception | None = None
        self._then = then

    def why_over(self) -> str | None:
        return None if self._error is None else f"No more events: {self._error}"

    def _run(self) -> None:
        try:
            self._receiver.capture()
        except Exception as error:
            self._error = error
        finally:
            self._then()

    def __enter__(self) -> _Capture:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._receiver.should_stop = True
        self._thread.join(timeout=2.0)  # it looks once a second; a daemon thread, so nothing hangs on it


# -- pictures --------------------------------------------------------------------------------------------------------


def _film(invocation: Invocation, said: dict[str, Any]) -> int:
    from litetq.cli import logs
    from litetq.log import set_up

    if daemon.is_wanted(said):
        return daemon.detach(invocation, "events", said, lambda: None)
    start = daemon.Start()
    daemon.become(said)
    app = asking.reach(invocation, said["file"])
    kind = _camera(said["camera"])
    node = node_name("celeryev@%h")
    streams = sys.stdout, sys.stderr
    with pid_file(said["pidfile"], node):
        path = None if said["logfile"] is None else fill_path(said["logfile"], node)
        set_up(logs.settings_of(app, said["loglevel"], path, invocation.no_color)._replace(redirect_level=None))
        try:
            state = app.events.State()
            try:
                camera = kind(state, freq=said["frequency"], maxrate=said["maxrate"], app=app)
            except ValueError as error:
                raise click.BadParameter(str(error), param_hint="--maxrate") from error
            start.done()
            return _take_pictures(app, state, camera)
        finally:
            sys.stdout, sys.stderr = streams
            app.close()


def _camera(name: str) -> type[Polaroid]:
    module, colon, attribute = name.partition(":")
    if not colon:
        module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise click.BadParameter(
            f"{name!r} cannot be loaded: {error}; write module:Class.", param_hint="--camera"
        ) from None
    if not isinstance(found, type):
        raise click.BadParameter(f"{name!r} is no class; write module:Class.", param_hint="--camera")
    return found


def _take_pictures(app: LiteTQ, state: Any, camera: Polaroid) -> int:
    words: queue.SimpleQueue[str] = queue.SimpleQueue()
    capture = _Capture(app, state, before=0, then=lambda: words.put("ended"))
    with handled(words), camera, capture:
        next_word(words, False)
    why = capture.why_over()
    if why is not None:
        raise click.ClickException(why)
    return cli.OK
