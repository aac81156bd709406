"""`litetq logtool ...`: what a worker's log tells of tasks."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import click

from litetq import cli
from litetq.cli import console
from litetq.cli.commands import Actions, Command, Invocation
from litetq.cli.text import as_json, visible

_START: Final = re.compile(r"\[\d{4}-\d\d-\d\d ")
# Of our worker, of Celery's since 5.0 ("Task x[id] received") and before ("Received task: x[id]").
_TASK: Final = re.compile(
    r"[^\]]*\] (?:Task|(?P<early>Received task:)) (?P<name>[^\s\[\]]+)\[(?P<id>[^\]]+)\]:? *(?P<what>.*)"
)
_LIMIT: Final = re.compile(r"[^\]]*\] Hard time limit \S+ exceeded for (?P<name>[^\s\[\]]+)\[(?P<id>[^\]]+)\]")
_PASSING: Final = ("retry:",)  # what is said of a task that has not ended by it


class Audit:
    """What a log says so far.

    Args:
        on_error: called with the first line of each failure.
        on_trace: called with each line that belongs to the one before it (tracebacks), and that one first.
        on_other: called with the lines that tell nothing of a task.
    """

    def __init__(
        self,
        on_error: Callable[[str], Any] = lambda line: None,
        on_trace: Callable[[str], Any] = lambda line: None,
        on_other: Callable[[str], Any] = lambda line: None,
    ) -> None:
        self.received: dict[str, str] = {}  # id -> name
        self.ready: set[str] = set()
        self.failed: set[str] = set()
        self._on_error, self._on_trace, self._on_other = on_error, on_trace, on_other
        self._before: str | None = None  # the line that a traceback may follow
        self._has_begun = False  # what stands before the first line of the log is the worker's banner

    def read(self, lines: Iterable[str]) -> Audit:
        for line in lines:
            self._line(line.rstrip("\r\n"))
        return self

    def _line(self, line: str) -> None:
        if not _START.match(line):
            if not self._has_begun:
                return
            if self._before is not None:
                self._on_trace(self._before)
                self._before = None
            self._on_trace(line)
            return
        self._before, self._has_begun = line, True
        found = _LIMIT.match(line) or _TASK.match(line)
        if found is None:
            self._on_other(line)
            return
        facts = found.groupdict()
        self._task(line, facts["name"], facts["id"], "received" if facts.get("early") else facts.get("what") or "")

    def _task(self, line: str, name: str, id: str, what: str) -> None:
        self.received.setdefault(id, name)
        if what.startswith("received"):
            self.ready.discard(id)  # it is delivered again: what counts is how it ends now
        elif not what.startswith(_PASSING):
            self.ready.add(id)
            if what.startswith(("succeeded", "ignored")):
                self.failed.discard(id)
            else:
                self.failed.add(id)
                self._on_error(line)

    def incomplete(self) -> list[str]:
        return [id for id in self.received if id not in self.ready]

    def counts(self) -> dict[str, int]:
        """Return how many tasks there are, and how they ended."""
        return {
            "total": len(self.received),
            "errors": len(self.failed),
            "success": len(self.ready) - len(self.failed),
            "completed": len(self.ready),
        }

    def kinds(self) -> dict[str, int]:
        """Return how many tasks there are of each name, the most frequent first."""
        return dict(Counter(self.received.values()).most_common())

    def report(self) -> Iterator[str]:
        yield from ("", "Report", "======")
        yield from (f"Task {word}: {count}" for word, count in self.counts().items())
        yield from ("Tasks", "=====")
        yield from (f"{visible(name)}: {count}" for name, count in self.kinds().items())


@click.group(cls=Actions, short_help="Read the logs of workers.")
def command() -> None:
    """Read the logs of workers (-l INFO), from files or standard input.

    \b
    litetq logtool stats worker.log
    litetq logtool errors worker.log old.log
    """


def _read(files: tuple[str, ...], audit: Audit) -> Audit:
    if not files:
        return audit.read(sys.stdin)
    for name in files:
        if name == "-":
            audit.read(sys.stdin)
            continue
        try:
            with open(name, encoding="utf-8", errors="replace") as file:
                audit.read(file)
        except OSError as error:
            raise click.ClickException(f"{name} cannot be read: {error.strerror}.") from None
    return audit


def _say(line: str) -> None:
    console.say("\t".join(map(visible, line.split("\t"))))


@command.command("stats", cls=Command)
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("-j", "--json", "in_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def stats(invocation: Invocation, files: tuple[str, ...], in_json: bool) -> int:
    """Count tasks, how they ended, and how many there were of each."""
    invocation.enter()
    audit = _read(files, Audit())
    if in_json:
        console.say(as_json({**audit.counts(), "tasks": audit.kinds()}))
        return cli.OK
    for line in audit.report():
        console.say(line)
    return cli.OK


@command.command("traces", cls=Command)
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.pass_obj
def traces(invocation: Invocation, files: tuple[str, ...]) -> int:
    """Show the tracebacks, with the line before each."""
    invocation.enter()
    _read(files, Audit(on_trace=_say))
    return cli.OK


@command.command("errors", cls=Command)
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.pass_obj
def errors(invocation: Invocation, files: tuple[str, ...]) -> int:
    """Show the lines that say that a task failed."""
    invocation.enter()
    _read(files, Audit(on_error=_say))
    return cli.OK


@command.command("incomplete", cls=Command)
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.pass_obj
def incomplete(invocation: Invocation, files: tuple[str, ...]) -> int:
    """List the tasks that were received and did not end."""
    invocation.enter()
    for id in _read(files, Audit()).incomplete():
        _say(f"Did not complete: {id}")
    return cli.OK


@command.command("debug", cls=Command)
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.pass_obj
def debug(invocation: Invocation, files: tuple[str, ...]) -> int:
    """Show the lines that tell nothing of a task."""
    invocation.enter()
    _read(files, Audit(on_other=_say))
    return cli.OK
