"""`litetq vacuum FILE`: what has expired goes, and the space of it is given back."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from litetq import cli, clock
from litetq.checkup import cut_log, vacuum
from litetq.cli import console
from litetq.cli.commands import Command, Invocation, usage
from litetq.cli.opening import named_file, open_file
from litetq.cli.text import as_json, counted, size, visible

if TYPE_CHECKING:
    from litetq.engine import FileEngine

_PIECE: Final = 1000  # results, and pages, in one transaction


@click.command(cls=Command)
@click.argument("words", nargs=-1, metavar="[FILE]")
@click.option("--full", is_flag=True, help="Write the file anew without gaps; no worker may run meanwhile.")
@click.option("-j", "--json", "in_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(invocation: Invocation, /, words: tuple[str, ...], full: bool, in_json: bool) -> int:
    """Give free space back to the disk.

    Expired results are removed first; all in small pieces, while workers run. Workers do the same bit by bit; this is for a file without workers, or after much was deleted.
    """
    file, rest = named_file(invocation, words)
    if rest:
        usage(f"{rest[0]!r} is no file; give the file that the tasks were sent to, like  jobs.sqlite")
    with open_file(invocation, file) as app:
        engine = app.engine
        path = Path(engine.path)
        before = _sizes(path)
        if full and any(engine.may_live(worker) for worker in engine.workers()):
            console.say("Error: A worker runs on this file; stop it first, or leave --full out.", sys.stderr)
            return cli.FAILED
        finished, count = _remove_expired(engine)
        if finished and full:
            engine.close()
            vacuum(path)
        elif finished:
            finished = _give_back(engine)
        engine.close()
        cut_log(path)
        after = _sizes(path)
    if in_json:
        console.say(as_json({"file": str(path), "removed": count, "bytes_before": before, "bytes": after}))
    else:
        console.say(
            f"{visible(str(path))}: {counted(count, 'expired record')} removed; {size(before)} before, {size(after)} now"
            + ("" if finished else "; interrupted, and what was done stands")
        )
    return cli.OK if finished else cli.INTERRUPTED


def _remove_expired(engine: FileEngine) -> tuple[bool, int]:
    count = 0
    try:
        while found := engine.store.records.prune(clock.now(), _PIECE):
            count += found
            _progress(f"{count:,} expired records removed")
    except KeyboardInterrupt:
        return False, count
    finally:
        _progress("")
    return True, count


def _give_back(engine: FileEngine) -> bool:
    try:
        while engine.store.records.give_space_back(_PIECE):
            _progress("giving space back")
    except KeyboardInterrupt:
        return False
    finally:
        _progress("")
    return True


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _sizes(path: Path) -> int:
    return sum(os.stat(f"{path}{end}").st_size for end in ("", "-wal") if os.path.exists(f"{path}{end}"))
