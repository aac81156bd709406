"""`litetq demo [DIR]`: the main job on real input.

One task per Python file of a directory measures it, two worker processes share the work, a last task adds up. All of it
is sent in one plan: whatever is killed, and whenever, the file holds either nothing or every task to the end, so
`--resume` has nothing to find out; it starts workers and waits.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click

from litetq import cli
from litetq.cli import console
from litetq.cli.commands import Command, Invocation, usage

if TYPE_CHECKING:
    from litetq.cli.demo_tasks import Summary
    from litetq.engine import FileEngine

FILE: Final = "litetq-demo.sqlite"  # in the working directory
LAST: Final = "demo-summary"  # the id of the task that adds up
WORKERS: Final = 2
_SKIPPED: Final = frozenset({"__pycache__", "site-packages", "dist-packages", "test", "tests", "node_modules", "venv"})
_LOOK_EVERY: Final = 0.1  # seconds between two steps of the progress bar
_LAST_WORDS: Final = 15.0  # seconds that a worker has to finish its file when the demo ends


@click.command(cls=Command, short_help="See it work: measure the Python files in a folder.")
@click.argument("directory", required=False, metavar="[DIR]")
@click.option("--resume", is_flag=True, help="Finish a demo that was interrupted or killed.")
@click.pass_obj
def command(invocation: Invocation, directory: str | None, resume: bool) -> int:
    """Measure every Python file below DIR, one task per file, and show what came out.

    DIR is the standard library of this Python where it is left out. Tasks and results lie in litetq-demo.sqlite in the
    working directory, and stay there to be looked into.
    """
    invocation.enter()
    path = Path(FILE).absolute()
    with _quiet_environment(path):
        if resume:
            if directory is not None:
                usage("--resume goes on in the directory of the interrupted demo; leave DIR out.")
            _check_resumable(path)
        else:
            _begin(path, _directory(directory))
        return _finish(path, invocation)


@contextmanager
def _quiet_environment(path: Path) -> Iterator[None]:
    """The demo has a file of its own: what the environment says about the user's does not count in it."""
    ours = {"LITETQ_BROKER": str(path), "LITETQ_RESULT_BACKEND": None, "CELERY_RESULT_BACKEND": None}
    before = {name: os.environ.get(name) for name in ours}
    _set_environment(ours)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


# -- before --------------------------------------------------------------------------------------------------------


def _directory(text: str | None) -> Path:
    if text is None:
        return Path(sysconfig.get_path("stdlib"))
    directory = Path(text).absolute()
    if not directory.is_dir():
        usage(f"{text!r} is not a directory; give one with Python files in it, or none for the standard library.")
    return directory


def _begin(path: Path, directory: Path) -> None:
    """Leave a new file with all tasks of the demo in it, in place of a finished one."""
    console.say(f"Looking for Python files below {directory} ...")
    files = list(_python_files(directory))
    if not files:
        usage(f"There is no Python file below {str(directory)!r}; give another directory.")
    _clear_away_finished(path)
    with _opened(path) as engine:
        engine.send(_plan(directory, files))
    console.say(f"{len(files)} tasks, one per file, and one that adds up, are in {path.name}.")


def _python_files(directory: Path) -> Iterator[str]:
    """Yield paths below `directory`, in the order of their names; links are not followed."""
    for folder, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED and not name.startswith("."))
        for name in sorted(names):
            if name.endswith(".py"):
                yield os.path.relpath(os.path.join(folder, name), directory)


def _plan(directory: Path, files: Sequence[str]) -> Any:
    from litetq.cli.demo_tasks import app, measure, summarize
    from litetq.message import Join, Message, Plan

    def body(args: list[Any], kwargs: dict[str, Any]) -> bytes:
        return json.dumps([args, kwargs]).encode()

    queue = app.conf.task_default_queue
    members = [
        Message(_task_id(n), measure.name, body([str(directory), name], {}), queue=queue, root_id=LAST, parent_id=LAST)
        for n, name in enumerate(files)
    ]
    last = Message(LAST, summarize.name, body([], {"directory": str(directory), "files": len(files)}), queue=queue)
    return Plan((*members, last), joins=(Join(tuple(range(len(files))), len(files)),))


def _task_id(number: int) -> str:
    return f"demo-{number:05}"


def _clear_away_finished(path: Path) -> None:
    """Remove the file of a finished demo; refuse where it is anything else."""
    if not path.exists():
        return
    last = _check_is_demo(path)
    if last.place != "DONE":
        usage(
            f"{path} holds a demo that was not finished: {_called()} demo --resume  finishes it (or delete the file)."
        )
    _remove(path)


def _remove(path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    shutil.rmtree(f"{path}-run", ignore_errors=True)


def _check_resumable(path: Path) -> None:
    if not path.exists():
        usage(f"There is no interrupted demo here ({path} does not exist); start one with  {_called()} demo")
    _check_is_demo(path)


def _check_is_demo(path: Path) -> Any:
    with _opened(path) as engine:
        last = engine.read(LAST)
    if last is None:
        usage(f"{path} is no file of the demo; move it away, or call the demo in another directory.")
    return last


@contextmanager
def _opened(path: Path) -> Iterator[FileEngine]:
    from litetq.engine import FileEngine

    engine = FileEngine(path)
    try:
        yield engine
    finally:
        engine.close()


# -- the run -------------------------------------------------------------------------------------------------------


def _finish(path: Path, invocation: Invocation) -> int:
    """Run workers until the last task has ended, and report. What is not done when this is interrupted stays to be done."""
    from litetq.serialization import decode

    began = time.monotonic()
    with _opened(path) as engine:
        last = engine.read(LAST)
        assert last is not None and last.body is not None
        directory, count = _about(last.body)
        done_before = _done(engine, count)
        try:
            with _workers(path) as workers:
                _watch(engine, count, done_before, workers, invocation)
        except KeyboardInterrupt:
            done = _done(engine, count)
            console.say(
                f"\nInterrupted: {done} of {count} files are done.  {_called()} demo --resume  finishes the rest."
            )
            return cli.INTERRUPTED
        last = engine.read(LAST)
        assert last is not None
        if last.state != "SUCCESS" or last.result is None:
            console.say(f"Error: the demo ended as {last.state}: {last.traceback or last.reason}", sys.stderr)
            return cli.FAILED
        summary: Summary = decode(last.result, last.content_type, None)
    # Only now: after a kill the folder tells which tasks had begun, and --resume wants to know.
    shutil.rmtree(f"{path}-run", ignore_errors=True)
    _report(summary, directory, path, count - done_before, time.monotonic() - began, invocation)
    return cli.OK


def _about(body: bytes) -> tuple[str, int]:
    _, about = json.loads(body)
    return about["directory"], about["files"]


def _done(engine: FileEngine, count: int) -> int:
    records = engine.read_many([_task_id(n) for n in range(count)])
    return count - sum(record.place != "DONE" for record in records.values())  # a result may have expired since


class WorkerEnded(click.ClickException):
    """A worker process of the demo ended by itself."""

    exit_code = cli.FAILED


@contextmanager
def _workers(path: Path) -> Iterator[list[tuple[subprocess.Popen[bytes], IO[bytes]]]]:
    """Two worker processes within the block; after it they have finished what they had begun, and ended.

    Each ends also when this process is killed, for then its standard input ends.
    """
    started: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
    try:
        for number in range(1, WORKERS + 1):
            log: IO[bytes] = tempfile.TemporaryFile()
            words = [*_litetq(), "-q", "-A", "litetq.cli.demo_tasks", "worker", str(path), "-P", "solo", "--until-eof"]
            process = subprocess.Popen([*words, "-n", f"demo{number}"], stdin=subprocess.PIPE, stdout=log, stderr=log)
            started.append((process, log))
        yield started
    finally:
        for process, _ in started:
            if process.stdin is not None:
                process.stdin.close()
        for process, written in started:
            _wait_ended(process)
            written.close()


def _wait_ended(process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _LAST_WORDS
    while True:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
            return
        except subprocess.TimeoutExpired:
            process.kill()
            deadline += _LAST_WORDS
        except KeyboardInterrupt:
            continue  # the workers hear it too, and end the sooner


def _litetq() -> list[str]:
    return [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-m", "litetq"]


def _called() -> str:
    """Return how a user here calls the command: by its name, where that is on PATH; `dev.py demo` runs it where it is not."""
    return "litetq" if shutil.which("litetq") else " ".join([_python(), *_litetq()[1:]])


def _python() -> str:
    """Return what starts the Python that has litetq, as short as this directory and PATH allow."""
    found = shutil.which("python")
    if found is not None and os.path.abspath(found) == os.path.abspath(sys.executable):
        return "python"
    here = Path.cwd()
    python = Path(sys.executable)
    short = str(python.relative_to(here) if python.is_relative_to(here) else python)
    return subprocess.list2cmdline([short]) if os.name == "nt" else shlex.quote(short)


def _watch(
    engine: FileEngine,
    count: int,
    done: int,
    workers: list[tuple[subprocess.Popen[bytes], IO[bytes]]],
    invocation: Invocation,
) -> None:
    """Show progress until the last task has ended."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    waiting = [_task_id(n) for n in range(count)]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shown = Console(no_color=invocation.no_color or None)
    with Progress(*columns, console=shown, disable=invocation.quiet) as progress, engine.watch() as watch:
        bar = progress.add_task(f"{WORKERS} worker processes", total=count, completed=done)
        while True:
            watch.announce()
            records = engine.read_many([*waiting, LAST])
            waiting = [name for name in waiting if name in records and records[name].place != "DONE"]
            progress.update(bar, completed=count - len(waiting))
            if records[LAST].place == "DONE":
                return
            _check_alive(workers)
            _pause(watch)


def _pause(watch: Any) -> None:
    """Rest a step of the bar, or less when the end comes."""
    ends_at = time.monotonic() + _LOOK_EVERY
    watch.wait(_LOOK_EVERY)
    time.sleep(max(0.0, ends_at - time.monotonic()))


def _check_alive(workers: list[tuple[subprocess.Popen[bytes], IO[bytes]]]) -> None:
    for process, log in workers:
        if process.poll() is not None:
            log.seek(0)
            words = log.read().decode(errors="replace").strip() or "it said nothing"
            raise WorkerEnded(f"a worker process ended with exit code {process.returncode}: {words}")


# -- after ---------------------------------------------------------------------------------------------------------


def _report(summary: Summary, directory: str, path: Path, run_now: int, seconds: float, invocation: Invocation) -> None:
    from rich.console import Console
    from rich.table import Table

    out = Console(no_color=invocation.no_color or None, highlight=False)
    table = Table(title=f"The largest modules below {directory}", title_justify="left")
    for title in ("lines", "functions", "classes"):
        table.add_column(title, justify="right")
    table.add_column("module")
    for one in summary["largest"]:
        table.add_row(f"{one['lines']:,}", f"{one['functions']:,}", f"{one['classes']:,}", one["path"])
    out.print(table)
    lines = [
        f"{summary['files']:,} files, {summary['lines']:,} lines, {summary['functions']:,} functions, "
        f"{summary['classes']:,} classes, {summary['bytes'] / 1e6:.1f} MB; {summary['not_parsed']} could not be parsed",
        f"{run_now:,} of the tasks ran now, in {seconds:.1f} s by {WORKERS} processes: "
        f"{run_now / max(seconds, 0.001):,.0f} files a second, process start included",
        f"hash of all: {summary['sha256'][:16]}",
        "",
        f"Every task and result is in {path} ({path.stat().st_size / 1e6:.1f} MB). Look into it:",
        f"  {_called()} tasks {path.name}",
        f"  {_python()} -c \"from litetq import LiteTQ; print(LiteTQ(broker='{path.name}').AsyncResult('{LAST}').get())\"",
        "Delete it when you have seen enough; nothing else was left behind.",
    ]
    out.print("\n".join(lines), markup=False, soft_wrap=True)
