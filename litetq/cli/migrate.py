"""`litetq migrate SOURCE DESTINATION`: carry waiting tasks from one place, a file or a broker, to another."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from litetq import cli
from litetq.cli import asking, console
from litetq.cli.commands import Command, Invocation, usage
from litetq.cli.opening import open_app, open_file
from litetq.cli.text import as_json, counted, visible
from litetq.exceptions import OperationalError

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.carry import Carrier, Choice, Source, Target

_LOOK_S: Final = 0.5  # between two looks for new tasks


@click.command(cls=Command, short_help="Carry waiting tasks to another file or broker.")
@click.argument("source")
@click.argument("destination")
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), metavar="NUMBER", help="Carry so many at most; a workflow is one."
)
@click.option(
    "-t",
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait so long for further tasks at the end.",
)
@click.option(
    "-a", "--ack-messages", is_flag=True, help="Remove from SOURCE what is carried; else it is in both places."
)
@click.option("-T", "--tasks", callback=asking.names, metavar="A,B", help="Only tasks of these names.")
@click.option(
    "-Q", "--queues", callback=asking.names, metavar="A,B:C", help="Only from these queues; B:C renames B to C."
)
@click.option("-F", "--forever", is_flag=True, help="Go on until stopped.")
@click.option("--dry-run", is_flag=True, help="Say what waits, by queue, and carry nothing.")
@click.option("-j", "--json", "in_json", is_flag=True, help="One JSON object for each task, and one at the end.")
@click.pass_obj
def command(
    invocation: Invocation,
    source: str,
    destination: str,
    limit: int | None,
    timeout: float | None,
    ack_messages: bool,
    tasks: list[str] | None,
    queues: list[str] | None,
    forever: bool,
    dry_run: bool,
    in_json: bool,
) -> int:
    """Carry the tasks that wait at SOURCE to DESTINATION: files, which are made where they are not there, or brokers.

    \b
    litetq migrate old.sqlite new.sqlite -a
    litetq migrate jobs.sqlite redis://localhost/0 -a            when one machine is too small
    litetq migrate redis://localhost/0 jobs.sqlite -a -Q celery,mail
    litetq -A tasks migrate jobs.sqlite amqps://host// -a        with the app's settings for TLS and queues

    Without -a they stay at SOURCE too, as with Celery, and run in both. A workflow goes as a whole, unless it has begun. A kill leaves at
    most one task, or workflow, in both. The command may be repeated: what a file knows by its id is not carried there twice. What
    runs stays, and so do results and the schedule.
    """
    from litetq.carry import Carrier, Choice

    invocation.enter()
    _check(source, destination)
    renamed = None if queues is None else dict(_renamed(word) for word in queues)
    choice = Choice(None if tasks is None else frozenset(tasks), renamed)
    settings = _settings(invocation)
    with _source_app(source, settings) as first, _app_at(destination, settings) as second:
        begin = _source_of(first, renamed, second.broker_address.path is not None, removes=ack_messages and not dry_run)
        try:
            if dry_run:
                return _say_what_waits(begin, choice, in_json)
            carrier = Carrier(begin, _target_of(second), choice, removes=ack_messages)
            count, is_cut_off = _carry(invocation, carrier, limit, timeout, forever, in_json)
            _say_what_stayed(count, {**begin.stays(), **carrier.refused}, in_json)
            return cli.INTERRUPTED if is_cut_off else cli.OK
        finally:
            begin.close()


def _check(source: str, destination: str) -> None:
    from litetq.address import is_of_broker, mask, parse

    found = [parse(text) for text in (source, destination)]
    for address in found:
        if address.path is None and not is_of_broker(address.scheme):
            usage(f"{mask(address.text)} is neither a file of tasks nor a broker.")
    if found[0].path is None:
        if found[0].text == found[1].text:
            usage(f"SOURCE and DESTINATION are one broker, {mask(found[0].text)}.")
    elif found[1].path is not None and os.path.realpath(found[0].path) == os.path.realpath(found[1].path):
        usage(f"SOURCE and DESTINATION are one file, {os.path.realpath(found[0].path)}.")


def _renamed(word: str) -> tuple[str, str]:
    name, _, new = word.partition(":")
    return name, new or name


def _settings(invocation: Invocation) -> dict[str, Any]:
    """Return what an app that is named with -A says about brokers and queues, but for where they are."""
    if invocation.app is None and invocation.given_app is None:
        return {}
    from litetq.conf import OPTIONS

    table = open_app(invocation, None).app.conf.table(censored=False)
    about = (
        "broker_",
        "task_queues",
        "task_default_",
        "task_create_missing_",
        "task_queue_",
        "result_backend",
        "redis_",
    )
    where = ("broker_url", "broker_read_url", "broker_write_url")
    return {key: value for key, value in table.items() if key in OPTIONS and key.startswith(about) and key not in where}


def _source_app(text: str, settings: dict[str, Any]) -> LiteTQ:
    from litetq.address import parse

    return _app_at(text, settings) if parse(text).path is None else open_file(Invocation(), text)


def _keeps_results(text: str) -> bool:
    """Return whether results may lie at the address of the tasks itself: in a file, or in Redis."""
    from litetq.address import parse

    address = parse(text)
    return address.path is not None or address.scheme in ("redis", "rediss", "redis+socket", "sentinel")


def _app_at(text: str, settings: dict[str, Any]) -> LiteTQ:
    from litetq.app import LiteTQ

    app = LiteTQ("litetq", set_as_current=False)
    app.conf.update(settings)
    results = settings.get("result_backend") or (text if _keeps_results(text) else "rpc://")
    app.conf.override("command line", broker_url=text, result_backend=results)
    return app


def _source_of(app: LiteTQ, queues: dict[str, str] | None, to_file: bool, *, removes: bool) -> Source:
    if app.broker_address.path is not None:
        from litetq.carry import FileSource

        return FileSource(app.engine, removes=removes)
    from litetq.adapters import carrying

    engine: Any = app.engine
    names = carrying.default_queues(engine) if queues is None else list(queues)
    if queues is None:
        console.say(
            f"litetq: looking at {counted(len(names), 'queue')}: {', '.join(map(visible, names))} (others: -Q)",
            sys.stderr,
        )
    return carrying.WireSource(engine, names, expands=to_file)


def _target_of(app: LiteTQ) -> Target:
    if app.broker_address.path is not None:
        from litetq.carry import FileTarget

        return FileTarget(app.engine)
    from litetq.adapters.carrying import WireTarget

    engine: Any = app.engine
    return WireTarget(engine)


def _say_what_waits(source: Source, choice: Choice, in_json: bool) -> int:
    waiting = source.waiting(choice)
    if in_json:
        console.say(as_json({"waiting": waiting}))
        return cli.OK
    for queue, count in sorted(waiting.items()):
        console.say(f"{visible(queue)}: {counted(count, 'task')}")
    console.say(f"{counted(sum(waiting.values()), 'task')} would be looked at; nothing was carried.")
    return cli.OK


def _say_what_stayed(count: int, stayed: dict[str, int], in_json: bool) -> None:
    if in_json:
        console.say(as_json({"migrated": count, "stayed": sum(stayed.values()), "why": stayed}))
        return
    console.say(f"{counted(count, 'task')} migrated.")
    for why, number in stayed.items():
        console.say(f"note: {counted(number, 'task')} stayed: {visible(why)}", sys.stderr)


def _carry(
    invocation: Invocation, carrier: Carrier, limit: int | None, timeout: float | None, forever: bool, in_json: bool
) -> tuple[int, bool]:
    """Carry, say so of each, and return how many, and whether Ctrl-C came before the end; it ends this between two tasks."""
    count = 0
    quiet_since = time.monotonic()
    try:
        with _stop_asked() as is_asked:
            while True:
                for task in carrier.carry(None if limit is None else limit - count, is_asked):
                    count += 1
                    quiet_since = time.monotonic()
                    if in_json:
                        console.say(as_json(task._asdict()))
                    elif not invocation.quiet:
                        of = "?" if limit is None else str(limit)
                        console.say(
                            f"Migrating task {count}/{of}: {visible(task.name)}[{visible(task.id)}] to {visible(task.queue)}"
                        )
                if limit is not None and count >= limit:
                    return count, False
                if is_asked():
                    break
                if not forever and time.monotonic() - quiet_since >= (timeout or 0):
                    return count, False
                time.sleep(_LOOK_S)
    except KeyboardInterrupt:
        pass
    except OperationalError as error:
        raise OperationalError(f"{error} ({counted(count, 'task')} migrated before that)") from error
    console.say("" if forever else "\nInterrupted: the same command carries what is left.", sys.stderr)
    return count, not forever


@contextlib.contextmanager
def _stop_asked() -> Iterator[Callable[[], bool]]:
    """Yield what says whether Ctrl-C was pressed: the task at hand is then carried whole. A second one stops at once."""
    asked = threading.Event()

    def ask(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
