"""`litetq backup FILE DEST`: a copy of a file of tasks, consistent while workers run."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from litetq import cli
from litetq.checkup import backup
from litetq.cli import console
from litetq.cli.commands import Command, Invocation, usage
from litetq.cli.opening import open_file
from litetq.cli.text import as_json, size, visible


@click.command(cls=Command)
@click.argument("words", nargs=-1, metavar="[FILE] DEST")
@click.option("--overwrite", is_flag=True, help="Replace DEST if it exists.")
@click.option("-j", "--json", "in_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(invocation: Invocation, /, words: tuple[str, ...], overwrite: bool, in_json: bool) -> int:
    """Copy a file to DEST while workers run.

    DEST is a file or a folder. The copy is the file as it is at this moment.
    Use this, not cp: a copy made with cp while somebody writes is broken. DEST appears when it is whole. In the copy, what was
    running counts as begun: whoever works on it treats it as lost with its worker.
    """
    invocation.enter()
    if not 1 <= len(words) <= 2:
        usage("Give the file and where the copy goes: litetq backup jobs.sqlite copy.sqlite")
    file = words[0] if len(words) == 2 else None
    if file is None and os.path.isfile(words[0]) and not overwrite:
        usage(f"{words[0]!r} exists. To copy it, say where to:  litetq backup {words[0]} copy.sqlite")
    with open_file(invocation, file) as app:
        source = Path(app.engine.path).absolute()
        target = _target(words[-1], source, overwrite)
        began = time.monotonic()
        count = backup(
            source, target, _progress if sys.stderr.isatty() and not invocation.quiet else lambda done, of: None
        )
    seconds = time.monotonic() - began
    if in_json:
        console.say(as_json({"file": str(target), "bytes": count, "seconds": round(seconds, 3)}))
    else:
        console.say(f"{visible(str(target))}: {size(count)} in {seconds:.1f} s")
    return cli.OK


def _target(text: str, source: Path, overwrite: bool) -> Path:
    target = Path(text).absolute()
    if target.is_dir():
        target /= source.name
    if not target.parent.is_dir():
        usage(f"The folder {str(target.parent)!r} does not exist.")
    if target.exists():
        if os.path.samefile(target, source):
            usage("The copy would replace the file itself; name another place.")
        if not overwrite:
            usage(f"{str(target)!r} exists; give another name, or --overwrite.")
        if Path(f"{target}-wal").exists():
            usage(f"{str(target)!r} is in use (there is a {target.name}-wal beside it); name another place.")
    return target


def _progress(done: int, of: int) -> None:
    end = "\r\x1b[K" if done == of else ""
    sys.stderr.write(f"\r{done * 100 // max(1, of)} % copied {end}")
    sys.stderr.flush()
