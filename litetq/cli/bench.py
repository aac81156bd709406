"""`litetq bench [FOLDER]`: what this machine does with a file in this folder, in about ten seconds."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from litetq import cli, platforms
from litetq.browse import Browse
from litetq.cli import console
from litetq.cli.commands import Command, Invocation, usage
from litetq.cli.text import as_json, paper, visible
from litetq.rearrange import Rearrange

if TYPE_CHECKING:
    from litetq.app import LiteTQ

SEND_S: Final = 1.5  # how long tasks are sent one by one; what is drained afterwards are these
BULK: Final = 1000  # tasks in one transaction
MOST_DRAINED: Final = 60_000
TRIPS_S: Final = 2.0
PATIENCE_S: Final = 60.0  # for the worker to start, and for it to finish


class Figure(NamedTuple):
    """One line of the report."""

    about: str
    how: str
    rate: float | None = None  # a second
    p50: float | None = None  # seconds
    p99: float | None = None


@click.command(cls=Command)
@click.argument("folder", required=False, metavar="[FOLDER]")
@click.option("-P", "--pool", default="threads", metavar="NAME", help="The worker's pool (threads).")
@click.option("-c", "--concurrency", type=click.IntRange(1), default=1, metavar="N", help="The worker's places (1).")
@click.option(
    "--durability", type=click.Choice(["normal", "full"]), default="normal", help="full: a commit survives power loss."
)
@click.option("-j", "--json", "in_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def command(
    invocation: Invocation, /, folder: str | None, pool: str, concurrency: int, durability: str, in_json: bool
) -> int:
    """Measure this machine in about ten seconds.

    Measured are sending, draining with one worker process, and the round trip of a call. The file is made in FOLDER (the working directory where it is left out) and removed afterwards. Tasks do nothing, so these
    are the figures of the queue alone.
    """
    invocation.enter()
    place = Path(folder or ".").absolute()
    if not place.is_dir():
        usage(f"{folder!r} is no folder; give one on the disk that your file of tasks will be on.")
    sheet = paper(no_color=invocation.no_color)
    with _file(place) as path, _app(path, durability) as app:
        if not in_json:
            console.say(_machine(place))
        for figure in _measure(app, path, [f"--pool={pool}", f"--concurrency={concurrency}"], durability):
            console.say(as_json(figure._asdict()) if in_json else _line(figure, sheet.paint))
    return cli.OK


@contextmanager
def _file(place: Path) -> Iterator[Path]:
    """A file that is gone afterwards, with all that is beside it."""
    with tempfile.TemporaryDirectory(prefix="litetq-bench-", dir=place, ignore_cleanup_errors=True) as folder:
        yield Path(folder) / "bench.sqlite"


@contextmanager
def _app(path: Path, durability: str) -> Iterator[LiteTQ]:
    """The app of the benchmark at its own file, whatever the environment says about the user's."""
    ours = {"LITETQ_BROKER": _url(path, durability), "LITETQ_RESULT_BACKEND": None, "CELERY_RESULT_BACKEND": None}
    before = {name: os.environ.get(name) for name in ours}
    _set_environment(ours)
    try:
        from litetq.cli.bench_tasks import app

        with app:
            yield app
    finally:
        _set_environment(before)


def _url(path: Path, durability: str) -> str:
    from urllib.parse import quote

    return f"sqlite:///{quote(str(path), safe='/:')}?durability={durability}"


def _set_environment(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


# -- figures ---------------------------------------------------------------------------------------------------------


def _measure(app: LiteTQ, path: Path, options: list[str], durability: str) -> Iterator[Figure]:
    from litetq.cli.bench_tasks import nothing

    queue = app.conf.task_default_queue
    Rearrange(app.engine).pause(queue)  # until the worker is there: its start is not to be measured
    sent, seconds = _send(lambda n: nothing.delay(n))
    yield Figure("send", f"delay(), {durability} durability", sent / seconds)
    bulk, seconds = _send_bulk(app)
    yield Figure("send", f"{BULK:,} in one transaction", bulk / seconds)
    total = sent + bulk
    with _worker(path, options) as check:
        _until(lambda: app.engine.has_worker(), check)
        began = time.perf_counter()
        Rearrange(app.engine).resume(queue)
        browse = Browse(app.engine.database)
        _until(lambda: not sum(browse.waiting().values()), check)
        yield Figure(
            "drain", f"{total:,} tasks, one worker process ({' '.join(options)})", total / (time.perf_counter() - began)
        )
        trips = _trips(nothing)
        yield Figure("round trip", "delay().get()", p50=trips[len(trips) // 2], p99=trips[len(trips) * 99 // 100])


def _send(send: Callable[[int], Any]) -> tuple[int, float]:
    began = time.perf_counter()
    count = 0
    while time.perf_counter() < began + SEND_S and count < MOST_DRAINED // 2:
        send(count)
        count += 1
    return count, time.perf_counter() - began


def _send_bulk(app: LiteTQ) -> tuple[int, float]:
    from litetq.message import Message, Plan, uuid

    queue = app.conf.task_default_queue
    began = time.perf_counter()
    count = 0
    while time.perf_counter() < began + SEND_S / 2 and count < MOST_DRAINED // 2:
        messages = [Message(uuid(), "bench.nothing", b"[[%d], {}]" % n, queue=queue) for n in range(BULK)]
        app.engine.send(Plan(tuple(messages)))
        count += BULK
    return count, time.perf_counter() - began


def _trips(nothing: Any) -> list[float]:
    trips = []
    end = time.perf_counter() + TRIPS_S
    while time.perf_counter() < end:
        began = time.perf_counter()
        nothing.delay(1).get(timeout=PATIENCE_S)
        trips.append(time.perf_counter() - began)
    return sorted(trips)


# -- the worker ------------------------------------------------------------------------------------------------------


class WorkerEnded(click.ClickException):
    """The worker process ended by itself, or did nothing."""

    exit_code = cli.FAILED


@contextmanager
def _worker(path: Path, options: list[str]) -> Iterator[Callable[[], None]]:
    """A worker process within the block; it also ends when this process is killed, for then its input ends."""
    program = [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-m", "litetq"]
    words = [*program, "-q", "-A", "litetq.cli.bench_tasks", "worker", "--until-eof", "-l", "ERROR", *options]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=log, stderr=log)

        def check() -> None:
            if process.poll() is not None:
                log.seek(0)
                said = log.read().decode(errors="replace").strip()
                raise WorkerEnded(
                    f"the worker ended with exit code {process.returncode}: {visible(said) or 'it said nothing'}"
                )

        assert process.stdin is not None
        try:
            yield check
        finally:
            process.stdin.close()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _until(is_so: Callable[[], object], check: Callable[[], None]) -> None:
    """Look every 5 ms: less than a thousandth of what is measured, and nobody rings for it."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        check()
        if time.monotonic() > deadline:
            raise WorkerEnded(f"nothing came of it within {PATIENCE_S:g} s; is the machine very busy?")
        time.sleep(0.005)


# -- the report ------------------------------------------------------------------------------------------------------


def _machine(place: Path) -> str:
    kind = platforms.file_system_of(place) or "an unknown file system"
    return f"{platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}, {visible(str(place))} on {kind}"


def _line(figure: Figure, paint: Callable[[str, str], str]) -> str:
    if figure.rate is not None:
        value = f"{figure.rate:,.0f}/s"
    else:
        value = f"p50 {_ms(figure.p50)}, p99 {_ms(figure.p99)}"
    return f"{figure.about:<11} {paint(f'{value:<26}', 'bold')} {figure.how}"


def _ms(seconds: float | None) -> str:
    return f"{(seconds or 0.0) * 1000:.2f} ms"
