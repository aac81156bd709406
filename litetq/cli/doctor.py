"""`litetq doctor FILE`: what is wrong with a file of tasks and what to do, in plain words."""

from __future__ import annotations

import sys
from typing import Final

import click

from litetq import cli
from litetq.checkup import BAD, GOOD, WARNING, Checkup, Finding
from litetq.cli import console
from litetq.cli.commands import Command, Invocation, usage
from litetq.cli.opening import named_file, open_file
from litetq.cli.text import Paper, as_json, counted, paper, visible

_MARKS: Final = {GOOD: "ok", WARNING: "!", BAD: "!!"}


@click.command(cls=Command)
@click.argument("words", nargs=-1, metavar="[FILE]")
@click.option("--quick", is_flag=True, help="Leave out the check of integrity, which reads all of the file.")
@click.option("--full", is_flag=True, help="Compare indexes with tables, too; several times longer.")
@click.option("-j", "--json", "in_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def command(invocation: Invocation, /, words: tuple[str, ...], quick: bool, full: bool, in_json: bool) -> int:
    """Say what is wrong with a file and what to do.

    Looks at SQLite, file system, permissions, tables, log, processes, workers, queues, schedule and integrity. Workers may run meanwhile, and nothing is changed. The exit code is 1 where something is broken or stands still.
    """
    file, rest = named_file(invocation, words)
    if rest:
        usage(f"{rest[0]!r} is no file; give the file that the tasks were sent to, like  jobs.sqlite")
    if quick and full:
        usage("--quick leaves out what --full makes longer; give one.")
    sheet = paper(no_color=invocation.no_color)
    counts = {GOOD: 0, WARNING: 0, BAD: 0}
    with open_file(invocation, file, even_sick=True) as app:
        checkup = Checkup(app.engine)

        def tell(finding: Finding) -> None:
            counts[finding.level] += 1
            if in_json:
                console.say(as_json(finding._asdict()))
            else:
                for line in _lines(finding, sheet):
                    console.say(line)

        for finding in checkup.quick():
            tell(finding)
        if not quick:
            with _Notice("reading all of the file ...") as notice:
                findings = list(checkup.integrity(notice.tick, full=full))
            for finding in findings:
                tell(finding)
    if not in_json:
        console.say(_verdict(counts))
    return cli.FAILED if counts[BAD] else cli.OK


def _lines(finding: Finding, sheet: Paper) -> list[str]:
    mark = sheet.paint(f"{_MARKS[finding.level]:<2}", finding.level)
    lines = [f"{mark} {finding.about:<14} {visible(finding.text)}"]
    if finding.advice:
        lines.append(f"   {'':<14} -> {visible(finding.advice)}")
    return lines


def _verdict(counts: dict[str, int]) -> str:
    if not counts[BAD] and not counts[WARNING]:
        return "All is well."
    words = [counted(counts[BAD], "problem")] if counts[BAD] else []
    words += [counted(counts[WARNING], "remark")] if counts[WARNING] else []
    return f"{' and '.join(words)}."


class _Notice:
    """A line on a terminal while something takes long; Ctrl-C ends it."""

    def __init__(self, text: str) -> None:
        self._text = text if sys.stderr.isatty() else ""
        self._turn = 0

    def __enter__(self) -> _Notice:
        return self

    def tick(self) -> bool:
        if self._text:
            self._turn += 1
            sys.stderr.write(f"\r{self._text} {'|/-'[self._turn % 3]}")
            sys.stderr.flush()
        return False

    def __exit__(self, *error: object) -> None:
        if self._text and self._turn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
